//! Messages for and from the other nodes of the cluster, and SUBACKs that wait for them.
//!
//! A plan names nodes beside sessions. The turn collects the messages for them, and its ticket has one part for
//! each node that must store one. A message of another node is planned again here, for the sessions of this
//! node alone, so it never travels further. Without a cluster no plan names a node.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    between::nodes::{
        ArrivedMail, AwaitedRoutes, MailHere, MailToNodes, OutgoingMail, PlanningRound, RoutesKnown,
    },
    journal::Ticket,
    metrics::DropReason,
    mqtt::{QoS, Timestamp, is_of_the_broker, validate_filter},
    router::{Host, Place, Plan},
    session::SharedPublication,
    shard::{
        Shard,
        keeping::tickets::Owed,
        routing::asked::{Filters, FiltersKind, FiltersProgress},
        turn::Turn,
    },
};

impl Shard {
    /// Collects a message for the other nodes of its plan.
    #[cold] // Keeps the path of a message within one node as it is.
    pub(in crate::shard) fn route_to_nodes(
        &mut self,
        message: &mut SharedPublication<'_>,
        plan: &Arc<Plan>,
        publisher: Option<Place>,
    ) {
        if is_of_the_broker(message.publication.topic) {
            return; // Each node has its own.
        }
        let publisher = publisher.filter(|place| place.host == self.host());
        let publisher = publisher.and_then(|place| self.slot_at(place));
        let publisher = publisher.map(|found| found.session.client_id().clone());
        let is_awaited = message.publication.qos != QoS::AtMostOnce && self.journal.is_some();
        let retained = self.retained_mark();
        let message = message.allocate();
        let mail = MailToNodes { message, plan: plan.clone(), publisher, retained, group: None };
        self.batches.send_to_nodes(mail, is_awaited);
    }

    /// Sends what was collected for the other nodes; returns how many of them the ticket awaits.
    #[cold]
    pub(in crate::shard) fn flush_mail(
        &self,
        mails: Vec<MailToNodes>,
        ticket: Option<Ticket>,
    ) -> usize {
        let Some(nodes) = self.core.nodes.get() else { return 0 };
        let mut awaited: Vec<u32> = Vec::new();
        if ticket.is_some() {
            let is_awaited = |mail: &&MailToNodes| mail.message.qos() != QoS::AtMostOnce;
            awaited.extend(mails.iter().filter(is_awaited).flat_map(MailToNodes::nodes));
            awaited.sort_unstable();
            awaited.dedup();
        }
        let bytes = mails.iter().map(|mail| mail.message.size()).sum();
        nodes.send(OutgoingMail {
            shard: self.number,
            ticket,
            mails,
            bytes,
            planned_with: self.planning_with,
        });
        awaited.len()
    }

    /// Takes messages of another node, for sessions of this node.
    pub(in crate::shard) fn take_mail(&mut self, arrived: ArrivedMail, now: Timestamp) {
        let ArrivedMail { mails, bytes, planned_with, stored } = arrived;
        self.bytes_waiting.fetch_sub(bytes, Ordering::Relaxed);
        let own = std::mem::replace(&mut self.planning_with, planned_with);
        for mail in mails {
            self.route_mail(mail, now);
        }
        if self.journal.is_some() {
            self.owe_to(Owed::Node(stored));
            self.flush();
        } else {
            self.flush();
            stored();
        }
        self.planning_with = own;
    }

    /// Plans with a later place of the log of routes from now on. All messages that were planned before leave first.
    pub(in crate::shard) fn take_round(&mut self, round: PlanningRound) {
        self.flush();
        self.planning_with = round.place;
        if let Some(nodes) = self.core.nodes.get() {
            nodes.note_planning(self.number, round);
        }
    }

    fn route_mail(&mut self, mail: MailHere, now: Timestamp) {
        let MailHere { message, publisher, retained, group } = mail;
        if message.publication().has_expired(now) {
            return self.metrics.dropped(DropReason::Expired, 1); // [MQTT-3.3.2-5]
        }
        // Before it is planned: a later subscriber must find it among the retained messages.
        if let Some(mark) = &retained {
            self.apply_retained(&message.publication(), mark, now);
        }
        let plan = self.plan(message.topic());
        let mut turn = Turn::at(now);
        let number = self.message_number(&message.publication(), &plan, &turn);
        let message = Arc::new(match number {
            Some(number) => message.received(now).numbered(number),
            None => message.received(now),
        });
        let mut message = SharedPublication::of(&message);
        if let Some(group) = group {
            return self.route_to_group(&plan, &group, &mut message, &mut turn);
        }
        // For No Local: the client may have moved here since it published.
        let place = publisher.as_deref().and_then(|client_id| self.clients.get(client_id).copied());
        let place = place.and_then(|slot| self.place(slot));
        for host in plan.hosts() {
            match host {
                Host::Shard(number) if number == self.number => {
                    for target in plan.targets_at(host) {
                        self.deliver(target, &mut message, place, now);
                    }
                }
                Host::Shard(number) => {
                    self.route_away(number, &mut message, &plan, place, &mut turn);
                }
                Host::InProcess => {
                    for target in plan.targets_at(host) {
                        let client_id = || publisher.clone();
                        let delivered =
                            self.core.in_process.deliver(target, &mut message, client_id);
                        if let Some(delivered) = delivered {
                            self.count_delivered(None, delivered);
                        }
                    }
                }
                Host::Nodes => {} // The node of the publisher has sent it to them.
            }
        }
    }

    /// Returns whether the answer to a SUBSCRIBE must wait until the other nodes know its filters.
    pub(in crate::shard) fn must_await_routes(
        &self,
        slot: u32,
        filters: &dyn Filters,
        progress: &mut FiltersProgress,
    ) -> bool {
        let Some(nodes) = self.core.nodes.get() else { return false };
        if let Some(known) = &progress.routes {
            // The nodes are asked once; later turns look whether their answer has come.
            return !known.is_set();
        }
        // A node that learns of a removal late sends too much, and nothing is missed.
        if matches!(progress.kind, FiltersKind::Unsubscribe) {
            return false;
        }
        let granted = (0..filters.len()).filter(|at| !progress.reasons[*at].is_failure());
        let filters = granted.filter_map(|at| {
            let filter = filters.at(at).filter;
            validate_filter(filter).ok().map(|_| filter.into())
        });
        let filters: Vec<Box<str>> = filters.collect();
        if filters.is_empty() {
            return false;
        }
        let known = RoutesKnown::default();
        // Kept with the packet: the answer comes from another thread, in a later turn.
        progress.routes = Some(known.clone());
        nodes.await_routes(AwaitedRoutes { shard: self.number, slot, filters, known });
        true
    }

    /// Lets the connection of a slot go on, whose SUBACK may be sent.
    pub(in crate::shard) fn routes_are_known(&mut self, slot: u32, now: Timestamp) {
        self.look_at_held(slot);
        self.release_held(now);
    }
}
