//! The lives of the nodes, as the thread of the mail follows them: lanes end with a life, and this node begins
//! each of its own lives with all its filters.

use super::{MailDriver, NatsTraffic};
use crate::{
    cluster::{
        door::Address,
        mailing::peers::PeerStanding,
        members::{LifePhase, MemberStanding},
        names::Incarnation,
        node::NodeStatus,
    },
    mqtt::Timestamp,
};

impl MailDriver {
    /// Takes in the members of the cluster, and the life of this node.
    pub(super) fn look_at_members(&mut self, traffic: &mut NatsTraffic) {
        let status = traffic.joined.watch.status.borrow_and_update().clone();
        let mut has_changed = false;
        for (node, member) in &status.members {
            if *node == traffic.joined.node {
                continue;
            }
            let standing = match member.standing {
                MemberStanding::Joining => PeerStanding::Joining,
                MemberStanding::Serving => PeerStanding::Serving(member.incarnation),
                MemberStanding::Dead => PeerStanding::Dead,
            };
            if self.peers.handle_standing(node, standing) {
                has_changed = true;
                if standing == PeerStanding::Dead {
                    self.forget_filters(node);
                }
            }
        }
        if has_changed {
            traffic.hello_at = Timestamp(0);
        }
        self.follow_life(&status, traffic);
    }

    fn follow_life(&mut self, status: &NodeStatus, traffic: &mut NatsTraffic) {
        let life = status.incarnation;
        let is_this_life = match status.phase {
            LifePhase::Preparing | LifePhase::Confirming | LifePhase::Serving => true,
            LifePhase::Announcing | LifePhase::Leasing | LifePhase::Ended => false,
        };
        if traffic.life != Incarnation(0) && (traffic.life != life || !is_this_life) {
            traffic.life = Incarnation(0);
            traffic.mail = None;
            traffic.appends.clear();
            self.peers.end_lanes();
            for awaited in self.filters.end_life() {
                self.tell_known(&awaited);
            }
        }
        if is_this_life && traffic.life == Incarnation(0) {
            traffic.life = life;
            let address = Address::Mail(traffic.joined.node.clone());
            traffic.mail = Some(traffic.joined.door.subscribe(&address, life.0));
            traffic.arrivals.begin_life(life);
            self.filters.begin_life(life);
            traffic.hello_at = Timestamp(0);
        }
        let is_serving = is_this_life && status.phase == LifePhase::Serving;
        if is_serving && !traffic.is_serving {
            traffic.hello_at = Timestamp(0);
        }
        traffic.is_serving = is_serving;
    }
}
