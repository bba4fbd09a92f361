//! Recognises messages that another broker of MQTT 3.1.1 sends back, where it knows neither No Local
//! nor the bit of bridges.
//!
//! A message that went out is expected back once, by the hash of its topic and payload, for a minute.
//! The number of expected messages is bounded. Pure: time is an argument.

use std::{collections::VecDeque, hash::BuildHasher, time::Duration};

use foldhash::quality::RandomState;

use crate::mqtt::Timestamp;

/// Maximum number of messages that are expected back; the oldest is forgotten for a further one.
const EXPECTED_MAX: usize = 4_096;
/// How long a message is expected back.
const EXPECTED_FOR: Duration = Duration::from_secs(60);

/// The messages that are expected back.
#[derive(Default)]
pub(super) struct Echoes {
    hasher: RandomState,
    /// Hashes in the order in which their messages went out, with the time until which they count.
    expected: VecDeque<(u64, Timestamp)>,
}

impl Echoes {
    /// Expects a message back that goes out now.
    pub(super) fn expect(&mut self, topic: &str, payload: &[u8], now: Timestamp) {
        if self.expected.len() == EXPECTED_MAX {
            self.expected.pop_front();
        }
        let until = now.plus_millis(EXPECTED_FOR.as_millis() as u64);
        self.expected.push_back((self.hasher.hash_one((topic, payload)), until));
    }

    /// Returns whether a message is one that is expected back, which then is expected no longer.
    pub(super) fn take(&mut self, topic: &str, payload: &[u8], now: Timestamp) -> bool {
        while self.expected.front().is_some_and(|(_, until)| *until <= now) {
            self.expected.pop_front();
        }
        if self.expected.is_empty() {
            return false;
        }
        let hash = self.hasher.hash_one((topic, payload));
        // Echoes come in the order of the messages, so nearly always it is one of the first.
        let found = self.expected.iter().position(|(expected, _)| *expected == hash);
        found.is_some_and(|at| self.expected.remove(at).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_taken_once_and_within_a_minute() {
        let mut echoes = Echoes::default();
        let at = |secs: u64| Timestamp(1_000_000 + secs * 1_000);
        echoes.expect("t", b"1", at(0));
        assert!(!echoes.take("t", b"2", at(1)) && !echoes.take("u", b"1", at(1)));
        assert!(echoes.take("t", b"1", at(59)) && !echoes.take("t", b"1", at(59)));
        echoes.expect("t", b"1", at(60));
        assert!(!echoes.take("t", b"1", at(120)));
    }

    #[test]
    fn the_number_of_echoes_is_bounded() {
        let mut echoes = Echoes::default();
        for number in 0..=EXPECTED_MAX as u32 {
            echoes.expect("t", &number.to_be_bytes(), Timestamp(1));
        }
        assert_eq!(echoes.expected.len(), EXPECTED_MAX);
        assert!(!echoes.take("t", &0_u32.to_be_bytes(), Timestamp(2)), "the oldest is forgotten");
        assert!(echoes.take("t", &1_u32.to_be_bytes(), Timestamp(2)));
    }
}
