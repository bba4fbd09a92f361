//! Shared subscriptions whose members are on other nodes.
//!
//! Connected members of this node come first, then nodes with connected members, then members here without a
//! connection, then nodes that only have such members. A node searches among its own members, and passes the message
//! on if it finds none; the nodes that have searched travel with it, so no node searches twice. Its publisher is
//! acknowledged when the last node of this way has stored the message. Called by the search of `share.rs`.

use std::sync::Arc;

use crate::{
    between::{
        nodes::{GroupMail, MailToNodes},
        search::Search,
    },
    durable::in_transit::IN_TRANSIT,
    metrics::DropReason,
    mqtt::QoS,
    router::Plan,
    session::SharedPublication,
    shard::{Shard, turn::Turn},
};

impl Shard {
    /// Gives a message to a node with connected members if this node has none; returns whether it does.
    pub(in crate::shard) fn prefers_other_node(
        &mut self,
        plan: &Arc<Plan>,
        search: &Search,
        message: &mut SharedPublication<'_>,
        turn: &mut Turn<'_>,
    ) -> bool {
        // The usual group has no member elsewhere.
        let group = plan.shared().get(search.group);
        group.is_some_and(|group| group.has_nodes() && group.members_there().is_empty())
            && self.pass_to_node(plan, search, true, message, turn)
    }

    /// Gives a message to another node of its group that has not searched; returns whether there is one.
    pub(in crate::shard) fn pass_to_node(
        &mut self,
        plan: &Arc<Plan>,
        search: &Search,
        online: bool,
        message: &mut SharedPublication<'_>,
        turn: &mut Turn<'_>,
    ) -> bool {
        let Some(group) = plan.shared().get(search.group) else { return false };
        let mut visited = search.visited;
        let Some(node) = group.node(search.turn, online, |node| visited.may_visit(node)) else {
            return false;
        };
        visited.add(node);
        let is_awaited = message.publication.qos != QoS::AtMostOnce && self.journal.is_some();
        // What lies in the store stays there until the other node has it.
        if let Some(place) = turn.on_its_way.take() {
            self.dequeue_then(IN_TRANSIT, place);
        }
        turn.has_left_node = true;
        // Deliveries of other nodes send no receipts: a node counts as one, when the message is on its way there.
        if let Some(receipt) = message.receipt() {
            receipt.sent(true);
        }
        // Members without a connection may still be asked, when no other node has a connected one.
        let has_searched = !online || group.is_empty();
        let group = GroupMail { filter: group.filter().clone(), visited, has_searched };
        let mail = MailToNodes {
            message: message.allocate(),
            plan: plan.clone(),
            // Messages of one shard come to one shard there, so they keep their order without it.
            publisher: None,
            retained: None,
            group: Some((group, node)),
        };
        self.batches.send_to_nodes(mail, is_awaited);
        true
    }

    /// Gives a message of another node to one member of a group.
    pub(in crate::shard) fn route_to_group(
        &mut self,
        plan: &Arc<Plan>,
        of: &GroupMail,
        message: &mut SharedPublication<'_>,
        turn: &mut Turn<'_>,
    ) {
        let mut groups = plan.shared().iter().enumerate();
        let Some((at, group)) = groups.find(|(_, group)| *group.filter() == of.filter) else {
            // Its last members have gone, here and elsewhere.
            return self.metrics.dropped(DropReason::NoSubscriber, 1);
        };
        let qos = message.publication.qos;
        let search = Search::of_new(plan, at, group.next_turn(), qos);
        let search = Search { visited: of.visited, ..search };
        self.deliver_shared(plan, search, message, turn);
    }
}
