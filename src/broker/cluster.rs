//! The broker as a member of a cluster: it begins, leaves, and says what it knows.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;

use super::{Broker, Running, StartError};
use crate::{
    cluster::{
        joining::{ClusterMember, ClusterSettings},
        members::{LifePhase, MemberStanding},
        node::{MemberStatus, NodeStatus},
    },
    control::{ClusterMemberView, ClusterState, ClusterView, MemberState},
    metrics::ClusterNumbers,
};

/// The membership of a broker: none without a cluster, and after it has left.
#[derive(Debug, Default)]
pub(super) struct MembershipOfBroker(ArcSwapOption<ClusterMember>);

impl Broker {
    /// Begins to join a cluster.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(super) fn start_cluster(
        &self,
        settings: Option<ClusterSettings>,
    ) -> Result<(), StartError> {
        let Some(settings) = settings else { return Ok(()) };
        let member = ClusterMember::start(settings).map_err(StartError::ClusterThread)?;
        self.running.cluster.0.store(Some(Arc::new(member)));
        let running: Weak<Running> = Arc::downgrade(&self.running);
        let numbers = move || running.upgrade().and_then(|running| running.cluster_numbers());
        self.running.core.metrics.set_cluster(numbers);
        Ok(())
    }
}

impl Running {
    /// Leaves the cluster.
    pub(super) fn end_cluster(&self) {
        self.cluster.0.store(None);
    }

    /// Returns the cluster as this broker sees it.
    pub(super) fn cluster_view(&self) -> Option<ClusterView> {
        let member = self.cluster.0.load_full()?;
        // Without a status, the node has not reached NATS since its start, and knows no member.
        let Some(status) = member.status() else {
            let fault = member.fault();
            return Some(ClusterView {
                fault,
                ..ClusterView::new(ClusterState::Connecting, &self.core.node)
            });
        };
        let state = state_of(&status, member.may_act());
        Some(ClusterView {
            incarnation: status.incarnation.0,
            members: status.members.iter().map(|(node, status)| view(node, status)).collect(),
            ..ClusterView::new(state, status.node.as_str())
        })
    }

    fn cluster_numbers(&self) -> Option<ClusterNumbers> {
        let view = self.cluster_view()?;
        let own = view.members.iter().find(|member| member.node == view.node);
        let count = |state: MemberState| {
            (state.name(), view.members.iter().filter(|member| member.state == state).count())
        };
        let states = [MemberState::Joining, MemberState::Serving, MemberState::Dead];
        Some(ClusterNumbers {
            is_serving: view.state == ClusterState::Serving,
            incarnation: view.incarnation,
            members: states.map(count).into(),
            lease_ages_millis: own.map_or_else(Vec::new, |own| own.lease_ages_millis.clone()),
        })
    }
}

fn state_of(status: &NodeStatus, may_act: bool) -> ClusterState {
    match (status.phase, may_act) {
        (_, true) => ClusterState::Serving,
        (LifePhase::Serving | LifePhase::Ended, false) => ClusterState::Fenced,
        _ if status.last_end.is_some() => ClusterState::Fenced,
        (
            LifePhase::Announcing
            | LifePhase::Leasing
            | LifePhase::Preparing
            | LifePhase::Confirming,
            false,
        ) => ClusterState::Joining,
    }
}

fn view(node: &crate::cluster::names::NodeId, status: &MemberStatus) -> ClusterMemberView {
    let state = match status.standing {
        MemberStanding::Joining => MemberState::Joining,
        MemberStanding::Serving => MemberState::Serving,
        MemberStanding::Dead => MemberState::Dead,
    };
    ClusterMemberView {
        keeper: status.keeper.as_ref().map(|keeper| keeper.as_str().to_owned()),
        lease_ages_millis: status.lease_ages_millis.to_vec(),
        ..ClusterMemberView::new(node.as_str(), state, status.incarnation.0)
    }
}
