//! The broker as a member of a cluster: it begins, leaves, and says what it knows.

mod asking;
mod handover;
mod owning;
mod retained;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwapOption;

pub(super) use self::asking::NodeList;
use self::{
    asking::AnswersOfBroker,
    owning::{NodeOwnership, SessionsOfBroker},
    retained::RetainedOfBroker,
};
use super::{Broker, Running, StartError};
use crate::{
    cluster::{
        joining::{ClusterMember, ClusterSettings},
        mailing::{MailHost, MailInbox, MailStatus, NodeMail, PeerMail},
        members::{LifePhase, MemberStanding},
        names::NodeId,
        node::{MemberStatus, NodeStatus},
        retaining::{RetainedInbox, RetainedStream},
    },
    control::{ClusterMailView, ClusterMemberView, ClusterState, ClusterView, MemberState},
    metrics::{ClusterMailNumbers, ClusterNumbers},
    shard::Core,
};

/// The membership of a broker: none without a cluster, and after it has left.
pub(super) struct MembershipOfBroker {
    member: ArcSwapOption<ClusterMember>,
    /// The parts with which it begins; none after its beginning.
    prepared: Mutex<Option<PreparedParts>>,
}

/// The parts of a membership before its beginning.
type PreparedParts = (ClusterSettings, (NodeMail, MailInbox), (RetainedStream, RetainedInbox));

impl MembershipOfBroker {
    /// Prepares the membership before the first subscription is restored, so that the mail knows all filters.
    pub(super) fn prepare(core: &Core, settings: Option<ClusterSettings>) -> Self {
        let prepared = settings.map(|settings| {
            let (retained, inbox_of_retained) = RetainedStream::new();
            let (mail, inbox) = NodeMail::new(retained.clone());
            let observer = mail.clone();
            core.index.observe(move |filter, is_wanted| observer.note_wanted(filter, is_wanted));
            drop(core.nodes.set(Arc::new(mail.clone())));
            (settings, (mail, inbox), (retained, inbox_of_retained))
        });
        Self { member: ArcSwapOption::empty(), prepared: Mutex::new(prepared) }
    }
}

impl Broker {
    /// Begins to join a cluster.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(super) fn start_cluster(&self) -> Result<(), StartError> {
        let cluster = &self.running.cluster;
        let prepared = cluster.prepared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((settings, (mail, inbox), (retained, inbox_of_retained))) = prepared else {
            return Ok(());
        };
        let Running { core, registries, .. } = &*self.running;
        let weak = Arc::downgrade(core);
        let change_route = move |filter: &str, node: u32, is_added: bool| {
            if let Some(core) = weak.upgrade() {
                core.index.change_route(filter, node, is_added);
            }
        };
        let host = MailHost {
            shards: core.shared_shards(),
            homes: *core.homes(),
            clock: core.clock,
            change_route: Box::new(change_route),
            retained: retained.marks(),
        };
        let end_of_mail = mail.start(inbox, host).map_err(StartError::ClusterThread)?;
        let here = Box::new(RetainedOfBroker::new(core));
        let end = retained.start(inbox_of_retained, here).map_err(StartError::ClusterThread)?;
        let sessions = Arc::new(SessionsOfBroker::new(core, registries));
        let answers = Arc::new(AnswersOfBroker(Arc::downgrade(&self.running)));
        let member = ClusterMember::start(
            settings,
            (mail, end_of_mail),
            (retained, end),
            (sessions, answers),
        );
        let member = member.map_err(StartError::ClusterThread)?;
        core.set_ownership(Arc::new(NodeOwnership(member.ownership().clone())));
        cluster.member.store(Some(Arc::new(member)));
        let running: Weak<Running> = Arc::downgrade(&self.running);
        let numbers = move || running.upgrade().and_then(|running| running.cluster_numbers());
        self.running.core.metrics.set_cluster(numbers);
        Ok(())
    }
}

impl Running {
    /// Leaves the cluster.
    pub(super) fn end_cluster(&self) {
        self.cluster.member.store(None);
    }

    /// Returns the cluster as this broker sees it.
    pub(super) fn cluster_view(&self) -> Option<ClusterView> {
        let member = self.cluster.member.load_full()?;
        // Without a status, the node has not reached NATS since its start, and knows no member.
        let Some(status) = member.status() else {
            let fault = member.fault();
            return Some(ClusterView {
                fault,
                ..ClusterView::new(ClusterState::Connecting, &self.core.node)
            });
        };
        let state = state_of(&status, member.may_act());
        let (mail, retained) = (member.mail(), member.retained());
        let members = status.members.iter();
        Some(ClusterView {
            incarnation: status.incarnation.0,
            members: members.map(|(node, status)| view(node, status, &mail)).collect(),
            routes: self.core.index.routes(),
            subacks_early: mail.subacks_early,
            retained_applied: retained.applied,
            retained_lag: retained.lag,
            retained_refused: retained.refused,
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
            routes: view.routes,
            subacks_early: view.subacks_early,
            retained_applied: view.retained_applied,
            retained_lag: view.retained_lag,
            retained_refused: view.retained_refused,
            mail: view
                .members
                .iter()
                .filter_map(|member| Some((member.node.clone(), mail_numbers(&member.mail?))))
                .collect(),
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

fn view(node: &NodeId, status: &MemberStatus, mail: &MailStatus) -> ClusterMemberView {
    let state = match status.standing {
        MemberStanding::Joining => MemberState::Joining,
        MemberStanding::Serving => MemberState::Serving,
        MemberStanding::Dead => MemberState::Dead,
    };
    ClusterMemberView {
        keeper: status.keeper.as_ref().map(|keeper| keeper.as_str().to_owned()),
        lease_ages_millis: status.lease_ages_millis.to_vec(),
        mail: mail.peers.get(node).map(mail_view),
        ..ClusterMemberView::new(node.as_str(), state, status.incarnation.0)
    }
}

fn mail_view(mail: &PeerMail) -> ClusterMailView {
    ClusterMailView {
        messages_sent: mail.messages_sent,
        bytes_sent: mail.bytes_sent,
        messages_received: mail.messages_received,
        bytes_received: mail.bytes_received,
        unacknowledged: mail.unacknowledged,
        dropped: mail.dropped,
    }
}

fn mail_numbers(mail: &ClusterMailView) -> ClusterMailNumbers {
    ClusterMailNumbers {
        messages_sent: mail.messages_sent,
        bytes_sent: mail.bytes_sent,
        messages_received: mail.messages_received,
        bytes_received: mail.bytes_received,
        unacknowledged: mail.unacknowledged,
        dropped: mail.dropped,
    }
}
