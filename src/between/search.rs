//! The search for a member of a shared subscription, as it goes on from shard to shard.

use crate::{
    mqtt::QoS,
    router::{Plan, SharedTargets},
};

/// How far the search for a member has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    /// Position of the group among those of the plan.
    pub(crate) group: usize,
    pub(crate) turn: usize,
    pub(crate) tried: usize,
    pub(crate) effort: Effort,
    /// Somebody was no longer where the plan has it.
    pub(crate) is_stale: bool,
}

/// What a member that is tried is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// To take the message behind what waits there already, so that it keeps its order. Asked of one
    /// member that is away, where something waits; the others take it from there (`backlog.rs`).
    Behind,
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

impl Search {
    /// A search that begins with the easiest effort.
    pub(crate) fn new(plan: &Plan, group: usize, turn: usize) -> Self {
        let there = plan.shared().get(group).map_or(0, |group| group.members_there().len());
        let effort = if there > 1 { Effort::AtOnce } else { Effort::Room };
        Self { group, turn, tried: 0, effort, is_stale: false }
    }

    /// A search for a message that has just been published.
    pub(crate) fn of_new(plan: &Plan, group: usize, turn: usize, qos: QoS) -> Self {
        let search = Self::new(plan, group, turn);
        let tail = plan.shared().get(group).and_then(SharedTargets::tail);
        match tail.filter(|_| qos != QoS::AtMostOnce) {
            Some(_) => search.again(Effort::Behind),
            None => search,
        }
    }

    /// The same search from its beginning, with another effort.
    pub(crate) const fn again(self, effort: Effort) -> Self {
        Self { tried: 0, effort, ..self }
    }
}

/// What has come of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// Something, or there may be more to look at.
    Some,
    /// Nothing, and nothing more waits there for the one who asks.
    Nothing,
    /// It is asked again when more is known.
    Later,
}
