//! The search for a member of a shared subscription, which continues from shard to shard.

use crate::{
    between::nodes::VisitedNodes,
    mqtt::QoS,
    router::{Plan, SharedTargets},
};

/// How far the search for a member has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    /// Position of the group among those of the plan.
    pub(crate) group: usize,
    pub(crate) turn: usize,
    /// Number of members that were tried.
    pub(crate) tried: usize,
    /// Number of those that exist, and did not take the message.
    pub(crate) refused: usize,
    pub(crate) effort: Effort,
    /// Whether a member was no longer where the plan has it.
    pub(crate) is_stale: bool,
    /// The other nodes that have searched.
    pub(crate) visited: VisitedNodes,
}

/// The request of the search to the member that it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Take the message behind what waits there already, so that it keeps its order. The search
    /// asks this of one member that is away and has messages waiting; the other members take them
    /// from there (`backlog.rs`).
    Behind,
    /// Send the message at once: the member's window is open, and nothing waits before the message.
    /// The search asks this only where more than one member has a connection.
    AtOnce,
    /// Take the message if there is room.
    Room,
    /// The same, with a new plan, because a member was not where the old plan had it.
    RoomAnew,
    /// Take the message even if another one must be dropped for it, or drop it: no member has room.
    Whatever,
}

impl Search {
    /// Returns a search that begins with the least demanding effort.
    pub(crate) fn new(plan: &Plan, group: usize, turn: usize) -> Self {
        let there = plan.shared().get(group).map_or(0, |group| group.members_there().len());
        let effort = if there > 1 { Effort::AtOnce } else { Effort::Room };
        let visited = VisitedNodes::default();
        Self { group, turn, tried: 0, refused: 0, effort, is_stale: false, visited }
    }

    /// Returns a search for a message that has just been published.
    pub(crate) fn of_new(plan: &Plan, group: usize, turn: usize, qos: QoS) -> Self {
        let search = Self::new(plan, group, turn);
        let tail = plan.shared().get(group).and_then(SharedTargets::tail);
        match tail.filter(|_| qos != QoS::AtMostOnce) {
            Some(_) => search.again(Effort::Behind),
            None => search,
        }
    }

    /// Returns the same search from its beginning, with another effort.
    pub(crate) const fn again(self, effort: Effort) -> Self {
        Self { tried: 0, refused: 0, effort, ..self }
    }
}

/// The result of a request for a backlog.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// The request got messages, or there may be more to look at.
    Some,
    /// The request got nothing, and nothing more waits there for the member that asks.
    Nothing,
    /// The member asks again when more is known.
    Later,
}
