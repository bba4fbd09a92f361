//! The result of a kick: whether the session has ended, and the outcome for the Will.
//!
//! All connections end on one way, which has no result. So this module looks at the session before and after it.

use crate::{
    control::{Kicked, WillOutcome, WillRequest},
    router::Place,
    shard::Shard,
};

/// The state of a session before a caller ends its connection, or the session of an absent client.
pub(crate) struct BeforeKick {
    place: Place,
    was_online: bool,
    /// The outcome for the Will, unless it waits.
    will: WillOutcome,
}

impl Shard {
    /// Returns the state of a session before a kick that requests this for the Will.
    pub(crate) fn before_kick(&self, slot: u32, request: WillRequest) -> Option<BeforeKick> {
        let (found, place) = (self.slot(slot)?, self.place(slot)?);
        let will = match (&found.will, request) {
            (None, _) => WillOutcome::Absent,
            (Some(_), WillRequest::Discard) => WillOutcome::Discarded,
            (Some(will), WillRequest::Publish) if self.may_publish_will(slot, will) => {
                WillOutcome::Published
            }
            (Some(_), WillRequest::Publish) => WillOutcome::Denied,
        };
        Some(BeforeKick { place, was_online: found.connected.is_some(), will })
    }

    /// Returns the result of a kick, immediately after it.
    pub(crate) fn kicked(&self, before: &BeforeKick) -> Kicked {
        let BeforeKick { place, was_online, will } = *before;
        // A session that has ended has left its place.
        let found = self.slot_at(place);
        let waits = found.is_some_and(|found| found.will.is_some());
        let mut kicked = Kicked::new(self.core.node.clone());
        kicked.was_online = was_online;
        kicked.session_ended = found.is_none();
        kicked.will = if waits { WillOutcome::Waits } else { will };
        kicked
    }
}
