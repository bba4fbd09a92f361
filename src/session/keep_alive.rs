//! Keep Alive: until when a client must be heard from, and how that changes while it is connected.

use crate::mqtt::Timestamp;

/// The Keep Alive of one connection.
///
/// A client that is not heard from within one and a half times its Keep Alive is disconnected.
/// [MQTT-3.1.2-22] Changing the interval on the live connection obeys
///
/// ```text
/// new deadline = max(last + 1.5 × interval, min(old, now + 1.5 × interval))
/// ```
///
/// so that the change itself never drops a client, and repeating it never keeps a dead client
/// longer than an earlier promise did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    interval_secs: u16,
    last_packet_at: Timestamp,
    deadline: Timestamp,
}

impl KeepAlive {
    /// Begins with CONNECT, at `now`. An interval of 0 turns Keep Alive off.
    #[must_use]
    pub const fn new(interval_secs: u16, now: Timestamp) -> Self {
        let mut keep_alive =
            Self { interval_secs, last_packet_at: now, deadline: Timestamp::NEVER };
        keep_alive.packet_received(now);
        keep_alive
    }

    /// The interval in force, in seconds; 0 where Keep Alive is off.
    #[must_use]
    pub const fn interval_secs(&self) -> u16 {
        self.interval_secs
    }

    /// When the last control packet of any kind came from the client.
    #[must_use]
    pub const fn last_packet_at(&self) -> Timestamp {
        self.last_packet_at
    }

    /// When the client is given up; [`Timestamp::NEVER`] where Keep Alive is off.
    #[must_use]
    pub const fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Notes a control packet.
    pub const fn packet_received(&mut self, now: Timestamp) {
        self.last_packet_at = now;
        if self.interval_secs > 0 {
            self.deadline = now.plus_millis(grace_millis(self.interval_secs));
        }
    }

    /// Changes the interval; the one that was in force. `None`, and no change, where the client
    /// has turned Keep Alive off.
    pub fn change(&mut self, interval_secs: u16, now: Timestamp) -> Option<u16> {
        if self.interval_secs == 0 || interval_secs == 0 {
            return None;
        }
        let grace = grace_millis(interval_secs);
        let from_last = self.last_packet_at.plus_millis(grace);
        let from_now = now.plus_millis(grace);
        self.deadline = from_last.max(self.deadline.min(from_now));
        Some(std::mem::replace(&mut self.interval_secs, interval_secs))
    }
}

/// One and a half times the interval, in milliseconds.
const fn grace_millis(interval_secs: u16) -> u64 {
    interval_secs as u64 * 1500
}
