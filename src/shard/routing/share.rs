//! Shared subscriptions, section 4.8.2 of MQTT 5.0: one member of a group gets each message.
//!
//! The plan gives the order in which members are tried. For a member on another shard, that shard
//! tries it. If the member is gone by then, or has no room, the search continues from there.
//! Messages that a session has not delivered when it ends go to the remaining members. Called where
//! messages are routed and where connections and sessions end.

use std::{num::NonZeroU32, sync::Arc};

use crate::{
    between::{
        batch::{RemoteDelivery, RemoteMessage, RemoteTargets},
        search::{Effort, Search},
    },
    durable::in_transit::{Destination, IN_TRANSIT},
    journal::Change,
    metrics::DropReason,
    mqtt::{Message, QoS, Timestamp},
    router::{Host, Place, Plan, ShardNumber, SharedTargets, Target},
    session::{Delivered, Orphan, Share, SharedPublication, StoredAt},
    shard::{Core, Shard, turn::Turn},
};

/// Maximum number of members that may refuse; if none of them has room, the group as a whole is too
/// slow.
const REFUSALS_MAX: usize = 32;
/// Maximum number of members to try, including those that no longer exist or receive nothing. The
/// index has such members only until their sessions are removed, or their groups are told.
const TRIES_MAX: usize = 4096;

fn share_of(group: &SharedTargets) -> Share<'_> {
    Share { number: group.share(), filter: group.filter() }
}

impl Shard {
    /// Delivers a message to one member of each group of its plan.
    pub(in crate::shard) fn route_shared(
        &mut self,
        plan: &Arc<Plan>,
        message: &mut SharedPublication<'_>,
        turn: &mut Turn<'_>,
    ) {
        for (at, group) in plan.shared().iter().enumerate() {
            let qos = message.publication.qos;
            let search = Search::of_new(plan, at, group.next_turn(), qos);
            self.deliver_shared(plan, search, message, turn);
        }
    }

    /// Continues the search until a member has the message, or none can be found.
    pub(in crate::shard) fn deliver_shared(
        &mut self,
        plan: &Arc<Plan>,
        mut search: Search,
        message: &mut SharedPublication<'_>,
        turn: &mut Turn<'_>,
    ) {
        if self.prefers_other_node(plan, &search, message, turn) {
            return;
        }
        if self.search(plan, &mut search, message, turn) {
            return;
        }
        // The member at the tail has gone or is full; order cannot be kept, so the normal search begins.
        if search.effort == Effort::Behind {
            let easiest = Search::new(plan, search.group, search.turn);
            let Search { is_stale, visited, .. } = search;
            let search = Search { is_stale, visited, ..easiest };
            return self.deliver_shared(plan, search, message, turn);
        }
        // No member can send it now; the next choice is a member with room in its queue.
        if search.effort == Effort::AtOnce {
            let search = search.again(Effort::Room);
            return self.deliver_shared(plan, search, message, turn);
        }
        // The plan named a member that has gone. A new one may name another, so it is tried once
        // before a queue overflows.
        if search.effort == Effort::Room && search.is_stale {
            let share = plan.shared().get(search.group).map(|group| group.share());
            let fresh = self.plan(message.publication.topic);
            let group = fresh.shared().iter().position(|group| Some(group.share()) == share);
            let Some(group) = group else {
                self.metrics.dropped(DropReason::NoSubscriber, 1);
                return;
            };
            let search = Search { group, is_stale: false, ..search.again(Effort::RoomAnew) };
            return self.deliver_shared(&fresh, search, message, turn);
        }
        // No member here has room, or there is none.
        if self.pass_to_node(plan, &search, false, message, turn) {
            return;
        }
        // All are full: the policy of the first member's queue decides.
        if search.effort != Effort::Whatever {
            search = search.again(Effort::Whatever);
            return self.deliver_shared(plan, search, message, turn);
        }
        self.metrics.dropped(DropReason::NoSubscriber, 1);
    }

    /// Tries one member after the other; returns whether the message has left this search: a member
    /// has it, or the shard of the next member continues.
    fn search(
        &mut self,
        plan: &Arc<Plan>,
        search: &mut Search,
        message: &mut SharedPublication<'_>,
        turn: &mut Turn<'_>,
    ) -> bool {
        let Some(group) = plan.shared().get(search.group) else {
            return false;
        };
        if search.effort == Effort::Behind {
            let Some(member) = group.tail() else { return false };
            // Do not pass on a message that came from another shard: the member may have moved.
            let is_from_elsewhere = std::mem::replace(&mut search.tried, 1) > 0;
            return match member.place.host {
                Host::Shard(number) if number == self.number => {
                    self.offer(member, false, share_of(group), search, message, turn.now)
                }
                Host::Shard(number) if !is_from_elsewhere => {
                    self.search_at(number, plan, *search, group, message, turn);
                    true
                }
                Host::Shard(_) | Host::InProcess | Host::Nodes => false,
            };
        }
        // A large group is not searched to its end for one message.
        // Refusals and tries have separate bounds: a member that is gone costs less than a full one.
        while search.refused < REFUSALS_MAX
            && search.tried < TRIES_MAX
            && (search.effort != Effort::AtOnce || group.is_there(search.tried))
            && let Some(member) = group.member(search.turn, search.tried)
        {
            let has_it = match member.place.host {
                Host::InProcess => self.offer_in_process(member, search, message),
                Host::Nodes => false, // No member is one: groups name nodes apart.
                Host::Shard(number) if number == self.number => {
                    let is_there = group.is_there(search.tried);
                    self.offer(member, is_there, share_of(group), search, message, turn.now)
                }
                // The search goes on there, and does not return.
                Host::Shard(number) => {
                    self.search_at(number, plan, *search, group, message, turn);
                    true
                }
            };
            if has_it {
                return true;
            }
            search.tried += 1;
        }
        false
    }

    /// Lets the shard of the next member continue the search.
    fn search_at(
        &mut self,
        shard: ShardNumber,
        plan: &Arc<Plan>,
        search: Search,
        group: &SharedTargets,
        message: &mut SharedPublication<'_>,
        turn: &mut Turn<'_>,
    ) {
        let to = RemoteTargets::Shared(plan.clone(), search);
        let message = message.allocate();
        // A message from the store of another session must not leave it before it is stored elsewhere.
        let must_be_stored = group.is_durable() || turn.publisher == Some(IN_TRANSIT);
        let is_awaited =
            (message.qos() != QoS::AtMostOnce && must_be_stored) || turn.on_its_way.is_some();
        let to_group = |_: &Core| Destination::Group(group.filter().clone());
        let on_its_way =
            if is_awaited { self.send_on_its_way(&message, to_group, turn) } else { None };
        let (size, message) = (message.size(), RemoteMessage::Allocated(message));
        let delivery = RemoteDelivery { message, publisher: None, to, on_its_way };
        self.send_away(shard, delivery, size, is_awaited);
    }

    /// Offers the message to a member here; returns whether the member has it, or has finally
    /// dropped it.
    fn offer(
        &mut self,
        member: &Target,
        is_believed_there: bool,
        share: Share<'_>,
        search: &mut Search,
        message: &mut SharedPublication<'_>,
        now: Timestamp,
    ) -> bool {
        // A suspended session collects nothing.
        let found = self.slot_at(member.place).filter(|slot| !slot.is_suspended);
        let Some(slot) = found else {
            search.is_stale = true;
            return false;
        };
        search.refused += 1; // Unless it takes the message.
        // Rules of the member's own may have expired since the plan was made.
        if !self.collects(slot, message.publication.topic, member.qos) {
            return false;
        }
        let is_choosy = search.effort != Effort::Whatever;
        if is_choosy {
            // The plan is older than the member's departure; a new one may name a connected member.
            if is_believed_there && !slot.session.is_connected() {
                search.is_stale = true;
                return false;
            }
            let qos = message.publication.qos.min(member.qos);
            let takes_it = match search.effort {
                Effort::AtOnce => slot.session.may_send_at_once(qos),
                Effort::Behind | Effort::Room | Effort::RoomAnew | Effort::Whatever => {
                    slot.session.has_room_for(qos, message.publication.size())
                }
            };
            if !takes_it {
                return false;
            }
        }
        match self.deliver_to(member, Some(share), message, now) {
            // Another member may accept its size. [MQTT 5.0, 3.1.2.11.4]
            Some(Delivered::TooLarge) if is_choosy => false,
            Some(delivered) => {
                self.count_delivered(Some(member.place.slot), delivered);
                // The index must know that messages wait here, so that later ones queue behind it.
                if let Delivered::Queued { .. } = delivered {
                    self.note_waiting(member.place.slot, share);
                }
                true
            }
            None => false,
        }
    }

    /// Offers the message to a subscriber in this process; returns whether the subscriber has it, or has
    /// finally dropped it.
    fn offer_in_process(
        &mut self,
        member: &Target,
        search: &mut Search,
        message: &mut SharedPublication<'_>,
    ) -> bool {
        match self.core.in_process.deliver(member, message, || None) {
            // Another member may have room; only the last effort drops the message.
            Some(Delivered::QueueFull) if search.effort != Effort::Whatever => {
                search.refused += 1;
                false
            }
            Some(delivered) => {
                // An application acknowledges nothing, so sending is the last step.
                if let Some(receipt) = message.receipt().filter(|_| delivered == Delivered::Sent) {
                    receipt.sent(true);
                }
                self.count_delivered(None, delivered);
                true
            }
            None => {
                // The plan is older than the end of this subscription.
                search.is_stale = true;
                false
            }
        }
    }

    /// Delivers messages that a session leaves to other members of its groups. Drops them if there
    /// is no other member.
    pub(in crate::shard) fn adopt(&mut self, orphans: Vec<Orphan>, now: Timestamp) {
        self.hand_over_to(None, orphans, now);
    }

    /// Delivers a waiting message of one session to a member of its group, to this one if it can
    /// take it.
    ///
    /// One group of changes removes a stored message from one queue and puts it into another, or on
    /// its way to another shard. So it is never in neither, and never in both.
    pub(in crate::shard) fn hand_over_to(
        &mut self,
        taker: Option<Place>,
        orphans: Vec<Orphan>,
        now: Timestamp,
    ) {
        for Orphan { message, share, stored_at } in orphans {
            // This is a piece of work of its own, because another message may be on its way through
            // here.
            let publisher = stored_at.is_some().then_some(IN_TRANSIT);
            let mut turn = Turn { publisher, ..Turn::at(now) };
            self.give_to_group(taker, &message, share, &mut turn);
            match stored_at {
                Some(StoredAt { session, place }) if turn.has_left_node => {
                    self.dequeue_then(session, place);
                }
                Some(StoredAt { session, place }) => self.note(|| Change::Dequeue(session, place)),
                None => {}
            }
        }
    }

    fn give_to_group(
        &mut self,
        taker: Option<Place>,
        message: &Arc<Message>,
        share: NonZeroU32,
        turn: &mut Turn<'_>,
    ) {
        let mut message = SharedPublication::of(message);
        if message.publication.has_expired(turn.now) {
            return self.metrics.dropped(DropReason::Expired, 1); // [MQTT-3.3.2-5]
        }
        // A new plan: members may have left since the message was queued.
        let plan = self.plan(message.publication.topic);
        let mut groups = plan.shared().iter().enumerate();
        let Some((at, group)) = groups.find(|(_, group)| group.share() == share) else {
            return self.metrics.dropped(DropReason::NoSubscriber, 1);
        };
        // The member that asked comes first.
        let search = match taker.and_then(|taker| group.turn_of(taker)) {
            Some(turn) => Search { effort: Effort::Room, ..Search::new(&plan, at, turn) },
            None => Search::new(&plan, at, group.next_turn()),
        };
        self.deliver_shared(&plan, search, &mut message, turn);
    }
}
