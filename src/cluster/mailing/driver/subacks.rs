//! SUBACKs whose filters all nodes know, and that wait for retained messages: those that other nodes have planned
//! without these filters must be here, because the client finds them nowhere else.

use std::collections::VecDeque;

use super::MailDriver;
use crate::{
    between::nodes::AwaitedRoutes,
    cluster::{names::Sequence, routes::SUBACK_WAITS_MILLIS_MAX},
    mqtt::Timestamp,
};

/// The SUBACKs that wait.
#[derive(Default)]
pub(super) struct SubacksBehind {
    /// For each, the last sequence that must be here, and how long it waits.
    waiting: VecDeque<(Sequence, Timestamp, AwaitedRoutes)>,
    /// Those that were sent before.
    early: u64,
}

impl SubacksBehind {
    /// Returns how many were sent before all retained messages were here.
    pub(super) const fn early(&self) -> u64 {
        self.early
    }
}

impl MailDriver {
    /// Lets a SUBACK wait whose filters all nodes know.
    pub(super) fn await_retained(&mut self, awaited: AwaitedRoutes, now: Timestamp) {
        let until = self.host.retained.seen();
        if self.host.retained.applied() >= until {
            return self.tell_known(&awaited);
        }
        let deadline = now.plus_millis(SUBACK_WAITS_MILLIS_MAX);
        self.behind.waiting.push_back((until, deadline, awaited));
    }

    /// Lets the SUBACKs go on whose retained messages are here. Those behind them wait for later messages.
    pub(super) fn tell_retained(&mut self, now: Timestamp) {
        let applied = self.host.retained.applied();
        while let Some((until, _, awaited)) = self
            .behind
            .waiting
            .pop_front_if(|(until, deadline, _)| applied >= *until || now >= *deadline)
        {
            self.behind.early += u64::from(applied < until);
            self.tell_known(&awaited);
        }
    }
}
