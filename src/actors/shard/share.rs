//! Shared subscriptions, section 4.8.2 of MQTT 5.0: one member of a group gets each message.
//!
//! The plan says in which order members are tried. A member on another shard is asked there, and if
//! it is gone by then, or has no room, the search goes on from there. What a session has not
//! delivered when it ends goes to the members that are left. Called where messages are routed and
//! where connections and sessions end.

use std::{num::NonZeroU32, sync::Arc};

use super::Shard;
use crate::{
    actors::{
        Core,
        messages::{RemoteDelivery, RemoteMessage, RemoteTargets},
        outbox::Destination,
    },
    metrics::DropReason,
    mqtt::{QoS, Timestamp},
    router::{Host, Plan, Target},
    session::{Delivered, Orphan, Share, SharedPublication},
};

/// How far the search for a member has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    /// Position of the group among those of the plan.
    group: usize,
    turn: usize,
    tried: usize,
    effort: Effort,
    /// Somebody was no longer where the plan has it.
    is_stale: bool,
}

/// What a member that is tried is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    /// To have the message sent at once: its window is open, and nothing waits before it. Asked only
    /// where there is more than one member with a connection.
    AtOnce,
    /// To take the message if it has room.
    Room,
    /// The same, with a plan that was made anew because somebody was not where it said.
    RoomAnew,
    /// To take it even if another message must go, or to drop it: nobody has room.
    Whatever,
}

/// So many members are tried; if none of them has room, the group as a whole is too slow.
const TRIES_MAX: usize = 32;

impl Search {
    /// A search that begins with the easiest effort.
    fn new(plan: &Plan, group: usize, turn: usize) -> Self {
        let there = plan.shared().get(group).map_or(0, |group| group.members_there().len());
        let effort = if there > 1 { Effort::AtOnce } else { Effort::Room };
        Self { group, turn, tried: 0, effort, is_stale: false }
    }

    /// The same search from its beginning, with another effort.
    const fn again(self, effort: Effort) -> Self {
        Self { tried: 0, effort, ..self }
    }
}

impl Shard {
    /// Delivers a message to one member of each group of its plan.
    pub(super) fn route_shared(
        &mut self,
        plan: &Arc<Plan>,
        message: &mut SharedPublication<'_>,
        now: Timestamp,
    ) {
        for (at, group) in plan.shared().iter().enumerate() {
            self.deliver_shared(plan, Search::new(plan, at, group.next_turn()), message, now);
        }
    }

    /// Goes on with the search until a member has the message, or none can be found.
    pub(super) fn deliver_shared(
        &mut self,
        plan: &Arc<Plan>,
        mut search: Search,
        message: &mut SharedPublication<'_>,
        now: Timestamp,
    ) {
        if self.search(plan, &mut search, message, now) {
            return;
        }
        if search.effort == Effort::AtOnce {
            let search = search.again(Effort::Room);
            return self.deliver_shared(plan, search, message, now);
        }
        if search.effort == Effort::Room && search.is_stale {
            let share = plan.shared().get(search.group).map(|group| group.share());
            let fresh = self.plan(message.publication.topic);
            let group = fresh.shared().iter().position(|group| Some(group.share()) == share);
            let Some(group) = group else {
                self.metrics.dropped(DropReason::NoSubscriber, 1);
                return;
            };
            let search = Search { group, is_stale: false, ..search.again(Effort::RoomAnew) };
            return self.deliver_shared(&fresh, search, message, now);
        }
        if search.effort != Effort::Whatever {
            search = search.again(Effort::Whatever);
            return self.deliver_shared(plan, search, message, now);
        }
        self.metrics.dropped(DropReason::NoSubscriber, 1);
    }

    /// Tries one member after the other; whether the message has left this search: a member has
    /// it, or the shard of the next one goes on.
    fn search(
        &mut self,
        plan: &Arc<Plan>,
        search: &mut Search,
        message: &mut SharedPublication<'_>,
        now: Timestamp,
    ) -> bool {
        let Some(group) = plan.shared().get(search.group) else {
            return false;
        };
        while search.tried < TRIES_MAX
            && (search.effort != Effort::AtOnce || group.is_there(search.tried))
            && let Some(member) = group.member(search.turn, search.tried)
        {
            let host = member.place.host;
            let has_it = if host == Host::IN_PROCESS {
                self.offer_in_process(member, search, message)
            } else if host == self.host {
                let is_believed_there = group.is_there(search.tried);
                let share = Share { number: group.share(), filter: group.filter() };
                self.offer(member, is_believed_there, share, search, message, now)
            } else {
                let to = RemoteTargets::Shared(plan.clone(), *search);
                let message = message.keep();
                let is_awaited = (message.qos() != QoS::AtMostOnce && group.is_durable())
                    || self.tickets.on_its_way.is_some();
                let to_group = |_: &Core| Destination::Group(group.filter().clone());
                let on_its_way =
                    if is_awaited { self.send_on_its_way(&message, to_group) } else { None };
                let (size, message) = (message.size(), RemoteMessage::Kept(message));
                let delivery = RemoteDelivery { message, publisher: None, to, on_its_way };
                self.send_away(host, delivery, size, is_awaited);
                true
            };
            if has_it {
                return true;
            }
            search.tried += 1;
        }
        false
    }

    /// Offers the message to a member here; whether it has it, or has dropped it for good.
    fn offer(
        &mut self,
        member: &Target,
        is_believed_there: bool,
        share: Share<'_>,
        search: &mut Search,
        message: &mut SharedPublication<'_>,
        now: Timestamp,
    ) -> bool {
        let Some(slot) = self.slot_at(member.place) else {
            search.is_stale = true;
            return false;
        };
        let is_choosy = search.effort != Effort::Whatever;
        if is_choosy {
            if is_believed_there && !slot.session.is_connected() {
                search.is_stale = true;
                return false;
            }
            let qos = message.publication.qos.min(member.qos);
            let takes_it = match search.effort {
                Effort::AtOnce => slot.session.may_send_at_once(qos),
                Effort::Room | Effort::RoomAnew | Effort::Whatever => {
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
                self.count_delivered(delivered);
                true
            }
            None => false,
        }
    }

    /// The same for a subscriber in this process.
    fn offer_in_process(
        &self,
        member: &Target,
        search: &mut Search,
        message: &mut SharedPublication<'_>,
    ) -> bool {
        match self.core.in_process.deliver(member, message) {
            Some(Delivered::QueueFull) if search.effort != Effort::Whatever => false,
            Some(delivered) => {
                self.count_delivered(delivered);
                true
            }
            None => {
                search.is_stale = true;
                false
            }
        }
    }

    /// Gives what waits unsent for a client that has just gone to the members that are there.
    /// What it was sent and has not acknowledged waits for it.
    pub(super) fn pass_on_waiting(&mut self, slot: u32, shares: &[NonZeroU32], now: Timestamp) {
        if shares.is_empty() || self.is_quiet {
            return;
        }
        if let Some(found) = self.slot_mut(slot) {
            let orphans = found.session.take_waiting_orphans(shares);
            // Not before others have them for good.
            self.dequeue_then(orphans.iter().filter_map(|orphan| orphan.kept_at));
            self.adopt(orphans, now);
        }
    }

    /// Delivers what a session has left to other members of its groups. Where there is none, that
    /// is the end of it.
    pub(super) fn adopt(&mut self, orphans: Vec<Orphan>, now: Timestamp) {
        for Orphan { message, share, .. } in orphans {
            let mut message = SharedPublication::of(&message);
            if message.publication.has_expired(now) {
                self.metrics.dropped(DropReason::Expired, 1); // [MQTT-3.3.2-5]
                continue;
            }
            let plan = self.plan(message.publication.topic);
            let mut groups = plan.shared().iter().enumerate();
            let Some((at, group)) = groups.find(|(_, group)| group.share() == share) else {
                self.metrics.dropped(DropReason::NoSubscriber, 1);
                continue;
            };
            let search = Search::new(&plan, at, group.next_turn());
            self.deliver_shared(&plan, search, &mut message, now);
        }
    }
}
