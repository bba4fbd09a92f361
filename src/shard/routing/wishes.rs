//! The groups from whose backlogs a member may take, in the order in which the member learned of
//! them.
//!
//! One client may be a member of very many groups, so a hash map finds a group. Knows neither
//! shards nor sessions; used by the backlogs.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use foldhash::fast::RandomState;

use crate::router::Place;

/// Groups by their filter, the first one first.
#[derive(Default)]
pub(super) struct Wishes {
    order: VecDeque<Arc<str>>,
    /// For each group, the members that have no messages for this one.
    passed: HashMap<Arc<str>, Vec<Place>, RandomState>,
}

impl Wishes {
    /// Adds a group at the end; if it is there already, all its members are asked again.
    pub(super) fn add(&mut self, filter: &Arc<str>) {
        if let Some(passed) = self.passed.get_mut(filter) {
            return passed.clear();
        }
        self.passed.insert(filter.clone(), Vec::new());
        self.order.push_back(filter.clone());
    }

    /// Returns the first group, and the members that have no messages for this one.
    pub(super) fn first(&self) -> Option<(&Arc<str>, &[Place])> {
        let filter = self.order.front()?;
        Some((filter, self.passed.get(filter).map_or(&[], Vec::as_slice)))
    }

    /// Removes the first group.
    pub(super) fn remove_first(&mut self) {
        if let Some(filter) = self.order.pop_front() {
            self.passed.remove(&filter);
        }
    }

    /// Notes that a member of a group has no messages for this one.
    pub(super) fn pass(&mut self, filter: &str, member: Place) {
        if let Some(passed) = self.passed.get_mut(filter) {
            passed.push(member);
        }
    }

    /// Removes all groups.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Host;

    const fn member(slot: u32) -> Place {
        Place { host: Host::InProcess, slot, generation: 1 }
    }

    #[test]
    fn groups_keep_their_order_and_are_found_as_in_a_plain_list() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut wishes = Wishes::default();
        let mut naive: Vec<(Arc<str>, Vec<Place>)> = Vec::new();
        for step in 0..10_000_u32 {
            let filter: Arc<str> = format!("$share/g/{}", rng.u8(..20)).into();
            let found = naive.iter_mut().find(|(other, _)| *other == filter);
            match rng.u8(..10) {
                0..=3 => {
                    wishes.add(&filter);
                    match found {
                        Some((_, passed)) => passed.clear(),
                        None => naive.push((filter, Vec::new())),
                    }
                }
                4..=6 => {
                    wishes.pass(&filter, member(step));
                    if let Some((_, passed)) = found {
                        passed.push(member(step));
                    }
                }
                7 | 8 => {
                    wishes.remove_first();
                    drop(naive.drain(..naive.len().min(1)));
                }
                _ if rng.u8(..20) == 0 => {
                    wishes.clear();
                    naive.clear();
                }
                _ => {}
            }
            let first = naive.first().map(|(filter, passed)| (filter, passed.as_slice()));
            assert_eq!(wishes.first(), first);
            assert_eq!(wishes.order.len(), wishes.passed.len());
        }
    }
}
