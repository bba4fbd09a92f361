//! Keep Alive: the deadline for the client's next packet, and how it changes during a connection.

use std::sync::Arc;

use crate::mqtt::Timestamp;

/// The Keep Alive of one connection.
///
/// The broker disconnects a client that sends no packet within one and a half times its Keep Alive.
/// [MQTT-3.1.2-22] When the interval changes during the connection, the new deadline is
///
/// ```text
/// new deadline = max(last + 1.5 × interval, min(old, now + 1.5 × interval))
/// ```
///
/// So the change itself never disconnects a client. And however often the interval changes, a dead
/// client stays connected no longer than an earlier deadline allowed.
///
/// A client cannot send PINGREQ in the middle of a packet. So the bytes of an incomplete packet
/// count as well: when the deadline passes, it moves to one and a half times the interval after the
/// last of these bytes, if they arrived fast enough since the last sign of life. Slower bytes do
/// not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    interval_secs: u16,
    last_packet_at: Timestamp,
    deadline: Timestamp,
    /// Since this time, bytes of an incomplete packet are counted.
    counted_from: Timestamp,
    /// Number of these bytes.
    partial_bytes: u64,
    /// When the last of these bytes came.
    partial_at: Timestamp,
    /// When the last bytes of the client came, or the last ones to it were written.
    last_traffic_at: Timestamp,
    /// The longest time without traffic that bytes of the client have followed, in milliseconds.
    survived_millis: u32,
    /// The longest time without traffic since the last bytes of the client, in milliseconds.
    unanswered_millis: u32,
}

/// The last change of a Keep Alive during its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAliveAuthor {
    /// The user name of the caller.
    pub by: Option<Arc<str>>,
    /// When it was changed.
    pub at: Timestamp,
}

/// Bytes of an incomplete packet count as a sign of life from this rate on. So a packet of 1 MB
/// keeps a connection alive for three hours at most.
const PARTIAL_BYTES_PER_SEC_MIN: u64 = 100;

impl KeepAlive {
    /// Begins at `now`, with CONNECT. An interval of 0 turns Keep Alive off.
    #[must_use]
    pub const fn new(interval_secs: u16, now: Timestamp) -> Self {
        let mut keep_alive = Self {
            interval_secs,
            last_packet_at: now,
            deadline: Timestamp::NEVER,
            counted_from: now,
            partial_bytes: 0,
            partial_at: now,
            last_traffic_at: now,
            survived_millis: 0,
            unanswered_millis: 0,
        };
        keep_alive.packet_received(now);
        keep_alive
    }

    /// Returns the current interval in seconds; 0 if Keep Alive is off.
    #[must_use]
    pub const fn interval_secs(&self) -> u16 {
        self.interval_secs
    }

    /// Returns when the last control packet of any kind came from the client.
    #[must_use]
    pub const fn last_packet_at(&self) -> Timestamp {
        self.last_packet_at
    }

    /// Returns the time at which the broker disconnects the client; [`Timestamp::NEVER`] if Keep
    /// Alive is off.
    #[must_use]
    pub const fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Returns the longest time without traffic that bytes of the client have followed, in
    /// milliseconds: the connection has survived it.
    #[must_use]
    pub const fn survived_millis(&self) -> u32 {
        self.survived_millis
    }

    /// Returns the longest time without traffic since the last bytes of the client, in milliseconds.
    #[must_use]
    pub const fn unanswered_millis(&self, now: Timestamp) -> u32 {
        let silence = now.millis().saturating_sub(self.last_traffic_at.millis());
        let silence = if silence > u32::MAX as u64 { u32::MAX } else { silence as u32 };
        if silence > self.unanswered_millis { silence } else { self.unanswered_millis }
    }

    /// Notes that bytes to the client were written.
    pub const fn bytes_sent(&mut self, now: Timestamp) {
        self.unanswered_millis = self.unanswered_millis(now);
        self.last_traffic_at = now;
    }

    const fn heard(&mut self, now: Timestamp) {
        let silence = self.unanswered_millis(now);
        if silence > self.survived_millis {
            self.survived_millis = silence;
        }
        self.unanswered_millis = 0;
        self.last_traffic_at = now;
    }

    /// Notes a control packet.
    pub const fn packet_received(&mut self, now: Timestamp) {
        self.heard(now);
        self.last_packet_at = now;
        self.counted_from = now;
        self.partial_bytes = 0;
        if self.interval_secs > 0 {
            self.deadline = now.plus_millis(grace_millis(self.interval_secs));
        }
    }

    /// Notes bytes of an incomplete control packet.
    pub const fn bytes_received(&mut self, bytes: usize, now: Timestamp) {
        self.heard(now);
        self.partial_bytes = self.partial_bytes.saturating_add(bytes as u64);
        self.partial_at = now;
    }

    /// Returns whether the deadline has passed at `now`. First moves a deadline that has passed, as
    /// far as the bytes of an incomplete packet allow.
    pub fn is_over(&mut self, now: Timestamp) -> bool {
        if now < self.deadline {
            return false;
        }
        // The rate counts from the last sign of life to the deadline.
        let millis = self.deadline.since(self.counted_from).as_millis();
        let enough = u128::from(PARTIAL_BYTES_PER_SEC_MIN) * millis;
        // A client that sends single bytes to stay connected must not occupy a place.
        if u128::from(self.partial_bytes) * 1000 < enough {
            return true;
        }
        let deadline = self.partial_at.plus_millis(grace_millis(self.interval_secs));
        // The deadline never moves back, whatever the time of the last byte was.
        self.deadline = self.deadline.max(deadline);
        self.counted_from = self.partial_at;
        // The bytes are used up: the next extension needs new ones.
        self.partial_bytes = 0;
        now >= self.deadline
    }

    /// Changes the interval; returns the previous one. Returns `None`, and changes nothing, if Keep
    /// Alive is off or `interval_secs` is 0.
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

/// Returns one and a half times the interval, in milliseconds.
const fn grace_millis(interval_secs: u16) -> u64 {
    interval_secs as u64 * 1500
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Timestamp {
        Timestamp(secs * 1000)
    }

    #[test]
    fn bytes_of_a_packet_extend_the_deadline_as_long_as_they_come_fast_enough() {
        let mut keep_alive = KeepAlive::new(10, at(0));
        for second in 1..=60 {
            keep_alive.bytes_received(100, at(second));
            assert!(!keep_alive.is_over(at(second)), "{second}");
            assert_eq!(keep_alive.last_packet_at(), at(0));
        }
        // The last deadline that passed was at second 45, and the last bytes came at second 60.
        assert!(!keep_alive.is_over(at(74)));
        assert!(keep_alive.is_over(at(75)));
    }

    #[test]
    fn a_trickle_does_not() {
        let mut keep_alive = KeepAlive::new(10, at(0));
        for second in 1..15 {
            keep_alive.bytes_received(99, at(second));
            assert!(!keep_alive.is_over(at(second)));
        }
        assert!(keep_alive.is_over(at(15)));
    }

    #[test]
    fn many_bytes_at_once_count_for_one_interval() {
        let mut keep_alive = KeepAlive::new(10, at(0));
        keep_alive.bytes_received(1_000_000, at(5));
        assert!(!keep_alive.is_over(at(15)));
        assert_eq!(keep_alive.deadline(), at(20));
        assert!(keep_alive.is_over(at(20)));
    }

    #[test]
    fn a_whole_packet_starts_clean() {
        let mut keep_alive = KeepAlive::new(10, at(0));
        keep_alive.bytes_received(1_000_000, at(5));
        keep_alive.packet_received(at(6));
        assert!(!keep_alive.is_over(at(20)));
        assert!(keep_alive.is_over(at(21)));
    }

    #[test]
    fn a_silence_is_survived_once_the_client_is_heard_again() {
        let mut keep_alive = KeepAlive::new(60, at(0));
        keep_alive.bytes_sent(at(1));
        keep_alive.packet_received(at(31));
        assert_eq!(keep_alive.survived_millis(), 30_000);
        // Output ends a silence, and nobody knows whether it arrives.
        keep_alive.bytes_sent(at(71));
        keep_alive.bytes_sent(at(72));
        assert_eq!(keep_alive.survived_millis(), 30_000);
        assert_eq!(keep_alive.unanswered_millis(at(73)), 40_000);
        assert_eq!(keep_alive.unanswered_millis(at(172)), 100_000);
        keep_alive.bytes_received(1, at(73));
        assert_eq!(keep_alive.survived_millis(), 40_000);
        assert_eq!(keep_alive.unanswered_millis(at(73)), 0);
    }

    #[test]
    fn keep_alive_that_is_off_never_ends() {
        let mut keep_alive = KeepAlive::new(0, at(0));
        assert!(!keep_alive.is_over(at(1_000_000)));
    }
}
