//! The Keep Alive of a bridge: the time of its PINGREQ, and the time at which a silent other broker is disconnected.

use std::time::Duration;

use tokio::time::Instant;

/// The Keep Alive of a connection, from the client's side.
#[derive(Debug)]
pub(super) struct KeepingAlive {
    every: Duration,
    sent_at: Instant,
    heard_at: Instant,
    pinged_at: Option<Instant>,
}

/// The action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepAliveDue {
    Nothing,
    Ping,
    /// Nothing has come for one and a half Keep Alives.
    GiveUp,
}

impl KeepingAlive {
    pub(super) fn new(keep_alive_secs: u16, now: Instant) -> Self {
        let every = Duration::from_secs(keep_alive_secs.into());
        Self { every, sent_at: now, heard_at: now, pinged_at: None }
    }

    /// Notes that bytes were sent.
    pub(super) const fn sent(&mut self, now: Instant) {
        self.sent_at = now;
    }

    /// Notes that bytes came, or that none are read at present.
    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// Returns when to look again.
    pub(super) fn next(&self) -> Instant {
        self.ping_at().min(self.gives_up_at())
    }

    /// Returns the action that is due now. A PINGREQ counts as sent.
    pub(super) fn due(&mut self, now: Instant) -> KeepAliveDue {
        if now >= self.gives_up_at() {
            return KeepAliveDue::GiveUp;
        }
        if now < self.ping_at() {
            return KeepAliveDue::Nothing;
        }
        self.pinged_at = Some(now);
        self.sent_at = now;
        KeepAliveDue::Ping
    }

    /// Pings also while messages are sent, so that a silent other broker is noticed.
    fn ping_at(&self) -> Instant {
        let idle = self.sent_at.min(self.heard_at) + self.every;
        self.pinged_at.map_or(idle, |pinged| idle.max(pinged + self.every))
    }

    fn gives_up_at(&self) -> Instant {
        self.heard_at + self.every + self.every / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_broker_is_asked_once_and_then_given_up() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut alive = KeepingAlive::new(60, start);
        assert_eq!((alive.next(), alive.due(at(59))), (at(60), KeepAliveDue::Nothing));
        alive.sent(at(59)); // it sends, and hears nothing
        assert_eq!(alive.due(at(60)), KeepAliveDue::Ping);
        assert_eq!((alive.next(), alive.due(at(89))), (at(90), KeepAliveDue::Nothing));
        assert_eq!(alive.due(at(90)), KeepAliveDue::GiveUp);
        alive.heard(at(89));
        assert_eq!((alive.next(), alive.due(at(120))), (at(120), KeepAliveDue::Ping));
    }
}
