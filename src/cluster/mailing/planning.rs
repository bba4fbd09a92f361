//! Rounds through all shards, which tell them how far the index has the log of routes.
//!
//! A shard answers a round when it has sent all messages that it had before. So after a round, no message is on its way
//! to the other nodes, or between the shards, that was planned with an earlier place. One round is under way at a time.
//! Knows no shards and no NATS.

use crate::{
    between::nodes::{PlanningRound, RoutesPlace},
    cluster::names::Sequence,
};

/// The rounds of this node.
#[derive(Debug, Default)]
pub(super) struct Planning {
    /// The last round of each shard.
    shards: Vec<PlanningRound>,
    begun: PlanningRound,
    /// Whether another round is wanted, also without a new place.
    is_wanted: bool,
}

impl Planning {
    pub(super) fn new(shards: usize) -> Self {
        Self { shards: vec![PlanningRound::default(); shards], ..Self::default() }
    }

    /// Returns the next round to tell all shards, when there is something to tell and the last one is complete.
    pub(super) fn poll_round(&mut self, applied: Sequence) -> Option<PlanningRound> {
        let place = RoutesPlace(applied.0);
        let has_more = place > self.begun.place || self.is_wanted;
        if !has_more || self.completed().number < self.begun.number {
            return None;
        }
        self.is_wanted = false;
        self.begun = PlanningRound { number: self.begun.number + 1, place };
        Some(self.begun)
    }

    /// Returns the number of the next round, and lets it begin.
    pub(super) const fn want_round(&mut self) -> u64 {
        self.is_wanted = true;
        self.begun.number + 1
    }

    /// Takes in the answer of a shard.
    pub(super) fn handle_planning(&mut self, shard: u16, round: PlanningRound) {
        if let Some(last) = self.shards.get_mut(usize::from(shard)) {
            *last = round;
        }
    }

    /// Returns the last round that all shards have answered.
    pub(super) fn completed(&self) -> PlanningRound {
        let last = self.shards.iter().min_by_key(|round| round.number).copied();
        last.unwrap_or(self.begun)
    }

    /// Returns the place with which all shards plan.
    pub(super) fn place(&self) -> Sequence {
        Sequence(self.completed().place.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_when_all_shards_have_answered_and_then_the_next_round_begins() {
        let mut planning = Planning::new(2);
        assert_eq!(planning.poll_round(Sequence(0)), None);
        let first = planning.poll_round(Sequence(4)).unwrap();
        planning.handle_planning(0, first);
        assert_eq!((planning.place(), planning.poll_round(Sequence(9))), (Sequence(0), None));
        planning.handle_planning(1, first);
        assert_eq!(planning.place(), Sequence(4));
        let second = planning.poll_round(Sequence(9)).unwrap();
        assert_eq!((second.number, second.place), (2, RoutesPlace(9)));
        // A round that is wanted while one is under way is a later one.
        assert_eq!(planning.want_round(), 3);
        planning.handle_planning(0, second);
        assert_eq!(planning.poll_round(Sequence(9)), None);
        planning.handle_planning(1, second);
        assert_eq!(planning.poll_round(Sequence(9)).map(|round| round.number), Some(3));
    }
}
