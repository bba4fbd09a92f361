//! The order of retained messages on one node: which of several messages of a topic is the last.
//!
//! A message comes by two ways: with the mail of its publisher, or directly on the publisher's own node, and later
//! once more from the stream. The higher sequence wins. Knows no messages and no NATS.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::cluster::names::Sequence;

/// The number of topics above which those are looked for that the stream has passed.
const AHEAD_MIN: usize = 1_024;

/// How far this node has applied the stream.
#[derive(Debug, Default)]
pub struct RetainedPositions {
    /// All messages of the stream up to here were applied, or replaced by later ones.
    applied: Sequence,
    /// Topics whose message came before the stream had brought it.
    ahead: HashMap<Box<str>, Sequence, RandomState>,
    /// The number of these topics after the last search for passed ones.
    left: usize,
}

impl RetainedPositions {
    /// Begins behind a sequence of the stream that a former process has applied.
    #[must_use]
    pub fn after(applied: Sequence) -> Self {
        Self { applied, ..Self::default() }
    }

    /// Returns the sequence up to which the stream is applied.
    #[must_use]
    pub const fn applied(&self) -> Sequence {
        self.applied
    }

    /// Takes in a message that comes outside of the stream. Returns whether it is the last of its topic so far.
    pub fn takes_directly(&mut self, topic: &str, sequence: Sequence) -> bool {
        if sequence <= self.applied {
            return false; // The stream has brought it, or a later one of the topic.
        }
        match self.ahead.get_mut(topic) {
            Some(known) if *known >= sequence => return false,
            Some(known) => *known = sequence,
            None => {
                self.forget_passed();
                self.ahead.insert(topic.into(), sequence);
            }
        }
        true
    }

    /// Takes in a message of the stream, in its order. Returns whether it is the last of its topic so far.
    pub fn takes_replayed(&mut self, topic: &str, sequence: Sequence) -> bool {
        self.handle_current(sequence);
        match self.ahead.get(topic) {
            Some(known) if *known > sequence => false,
            Some(known) => {
                let is_new = *known < sequence;
                self.ahead.remove(topic);
                is_new
            }
            None => true,
        }
    }

    /// Notes that the stream has nothing more up to a sequence.
    pub fn handle_current(&mut self, sequence: Sequence) {
        self.applied = self.applied.max(sequence);
    }

    /// Returns whether the message of a topic came before the stream has brought it.
    #[must_use]
    pub fn is_ahead(&self, topic: &str) -> bool {
        self.ahead.get(topic).is_some_and(|known| *known > self.applied)
    }

    /// Begins before the first message of another stream.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// Forgets the topics whose message the stream has replaced meanwhile.
    fn forget_passed(&mut self) {
        if self.ahead.len() >= AHEAD_MIN.max(2 * self.left) {
            let applied = self.applied;
            self.ahead.retain(|_, known| *known > applied);
            self.left = self.ahead.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;

    use super::*;

    #[test]
    fn the_last_message_of_each_topic_wins_in_any_order_of_arrival() {
        for seed in 0..500 {
            let mut rng = Rng::with_seed(seed);
            let stream: Vec<(&str, u64)> =
                (1..=40).map(|at| (["a", "b", "c"][rng.usize(..3)], at)).collect();
            let mut positions = RetainedPositions::default();
            let mut shown = BTreeMap::new();
            let mut mail: Vec<_> = stream.iter().filter(|_| rng.u8(..2) == 0).copied().collect();
            rng.shuffle(&mut mail);
            for (topic, at) in stream {
                while rng.bool()
                    && let Some((topic, at)) = mail.pop()
                {
                    if positions.takes_directly(topic, Sequence(at)) {
                        assert!(shown.insert(topic, at) < Some(at), "seed {seed}: it went back");
                    }
                }
                if positions.takes_replayed(topic, Sequence(at)) {
                    assert!(shown.insert(topic, at) < Some(at), "seed {seed}: it went back");
                }
                assert!(shown[topic] >= at, "seed {seed}");
            }
            for (topic, at) in mail {
                assert!(!positions.takes_directly(topic, Sequence(at)), "seed {seed}: it is late");
            }
            assert_eq!(positions.ahead.len(), 0, "seed {seed}");
        }
    }

    #[test]
    fn topics_that_the_stream_has_passed_are_forgotten() {
        let mut positions = RetainedPositions::default();
        for number in 1..100_000_u64 {
            assert!(positions.takes_directly(&number.to_string(), Sequence(number)));
            positions.handle_current(Sequence(number.saturating_sub(10)));
            assert!(positions.ahead.len() <= AHEAD_MIN + 20);
        }
    }
}
