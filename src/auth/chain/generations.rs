//! The generations of a chain and of its members: a number of the chain stands for one number of each
//! member.
//!
//! Pure. A member is the authenticator or the methods of a source. Called by the chain.

use std::collections::VecDeque;

/// Maximum number of runs that are remembered. A run ends when another member changes.
const RUNS_MAX: usize = 1_024;

/// The position of a member.
#[derive(Clone, Copy)]
pub(super) struct Member(usize);

impl Member {
    /// Returns the position of the authenticator of the source at `at`.
    pub(super) const fn authenticator(at: usize) -> Self {
        Self(2 * at)
    }

    /// Returns the position of the methods of the source at `at`.
    pub(super) const fn methods(at: usize) -> Self {
        Self(2 * at + 1)
    }
}

/// The numbers of the chain so far, and those of its members at each of them.
#[derive(Default)]
pub(super) struct Generations {
    /// The runs in the order of their numbers.
    runs: VecDeque<Run>,
    /// The number of the chain now.
    now: u64,
}

/// Consecutive numbers of the chain during which only one member has changed.
struct Run {
    from: u64,
    /// The numbers of the members at `from`.
    members: Box<[u64]>,
    /// The member that has changed since.
    changing: Option<usize>,
}

impl Generations {
    /// Notes the numbers of all members, and returns the number of the chain, which grows with each
    /// change.
    pub(super) fn note(&mut self, members: Vec<u64>) -> u64 {
        let Some(run) = self.runs.back_mut() else {
            let from = self.now;
            self.runs.push_back(Run { from, members: members.into(), changing: None });
            return self.now;
        };
        let since_from = self.now - run.from;
        let before = |at: usize| run.at(at, since_from);
        // Usually one member changes. Its steps are then steps of the chain, and need no new entry.
        let changed: Vec<usize> =
            (0..members.len()).filter(|at| members[*at] != before(*at)).collect();
        match changed[..] {
            [] => {}
            [one] if run.changing.is_none_or(|at| at == one) && members[one] > before(one) => {
                self.now += members[one] - before(one);
                run.changing = Some(one);
            }
            _ => {
                self.now += 1;
                let (from, members) = (self.now, members.into());
                self.runs.push_back(Run { from, members, changing: None });
                // A login from before the oldest run counts as
                // older than every change, so it is checked again.
                if self.runs.len() > RUNS_MAX {
                    self.runs.pop_front();
                }
            }
        }
        self.now
    }

    /// Returns the number of a member when that of the chain was `number`; 0 if that was too long ago,
    /// so that every change of the member counts as a later one.
    pub(super) fn at(&self, number: u64, member: Member) -> u64 {
        let behind = self.runs.partition_point(|run| run.from <= number);
        let run = behind.checked_sub(1).and_then(|at| self.runs.get(at));
        run.map_or(0, |run| run.at(member.0, number.min(self.now) - run.from))
    }
}

impl Run {
    fn at(&self, member: usize, since_from: u64) -> u64 {
        let changed = if self.changing == Some(member) { since_from } else { 0 };
        self.members.get(member).map_or(0, |number| number + changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the runs with a list of all numbers.
    #[test]
    fn each_number_of_the_chain_gives_back_the_numbers_of_its_members() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..50 {
            let (mut generations, mut members) = (Generations::default(), vec![0, 5, 0, 7]);
            let mut noted = vec![(generations.note(members.clone()), members.clone())];
            for _ in 0..200 {
                for _ in 0..random.u8(..3) {
                    members[random.usize(..4)] += random.u64(..3);
                }
                let number = generations.note(members.clone());
                let (last, before) = noted.last().unwrap();
                assert_eq!(number > *last, members != *before);
                noted.push((number, members.clone()));
            }
            for (number, members) in noted {
                let given_back = (0..4).map(|at| generations.at(number, Member(at)));
                assert_eq!(given_back.collect::<Vec<_>>(), members);
            }
        }
    }

    #[test]
    fn a_member_that_changes_alone_takes_no_memory() {
        let mut generations = Generations::default();
        for number in 0..100_000 {
            assert_eq!(generations.note(vec![3, number]), number);
        }
        assert_eq!(generations.runs.len(), 1);
        assert_eq!(generations.at(70_000, Member(1)), 70_000);
    }

    #[test]
    fn a_number_that_is_forgotten_stands_for_the_beginning() {
        let mut generations = Generations::default();
        let first = generations.note(vec![4, 4]);
        for number in 5..2_000 {
            generations.note(vec![number, number - 1]);
            generations.note(vec![number, number]);
        }
        assert_eq!(generations.runs.len(), RUNS_MAX);
        assert_eq!(generations.at(first, Member(0)), 0);
        assert_eq!(generations.at(generations.now, Member(0)), 1_999);
    }
}
