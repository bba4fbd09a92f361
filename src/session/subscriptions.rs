//! The Topic Filters that a session has subscribed to: usually one or two, sometimes very many.
//!
//! This module knows neither which topics a filter matches nor the subscriptions of other sessions.

use foldhash::fast::RandomState;
use indexmap::IndexMap;

use super::SubscribedAs;

/// Up to this number, a list is searched, which is as fast as hashing. Even the smallest hash table
/// takes several times the memory of one subscription.
const FEW_MAX: usize = 8;

/// Subscriptions by Topic Filter. Each has a position. Adding appends; removing one moves the last to
/// its position. So a walk from the last position down to the first misses none of those that were
/// there at its beginning, whatever is added and removed meanwhile.
#[derive(Debug)]
pub(super) enum Subscriptions {
    /// A list without spare capacity.
    Few(Vec<(Box<str>, SubscribedAs)>),
    /// A table, used until it is empty, so that the representation does not change back and forth
    /// at the limit. It is boxed, because most sessions have few subscriptions.
    Many(Box<IndexMap<Box<str>, SubscribedAs, RandomState>>),
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(map) => map.len(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, SubscribedAs)> {
        let (list, map) = match self {
            Self::Few(list) => (Some(list), None),
            Self::Many(map) => (None, Some(map)),
        };
        let few = list.into_iter().flatten().map(|(filter, subscription)| (filter, subscription));
        let many = map.into_iter().flat_map(|map| map.iter());
        few.chain(many).map(|(filter, subscription)| (&**filter, *subscription))
    }

    pub(super) fn find(&self, filter: &str) -> Option<SubscribedAs> {
        match self {
            Self::Few(list) => list.iter().find(|(f, _)| &**f == filter).map(|(_, s)| *s),
            Self::Many(map) => map.get(filter).copied(),
        }
    }

    /// Returns the subscription at a position.
    pub(super) fn at(&self, position: usize) -> Option<(&str, SubscribedAs)> {
        match self {
            Self::Few(list) => list.get(position).map(|(filter, s)| (&**filter, *s)),
            Self::Many(map) => map.get_index(position).map(|(filter, s)| (&**filter, *s)),
        }
    }

    /// Removes the last subscription.
    pub(super) fn pop(&mut self) -> Option<Box<str>> {
        match self {
            Self::Few(list) => list.pop().map(|(filter, _)| filter),
            Self::Many(map) => map.pop().map(|(filter, _)| filter),
        }
    }

    /// Adds or replaces a subscription; returns the one that was replaced.
    pub(super) fn insert(
        &mut self,
        filter: &str,
        subscription: SubscribedAs,
    ) -> Option<SubscribedAs> {
        let list = match self {
            Self::Many(map) => return map.insert(filter.into(), subscription),
            Self::Few(list) => list,
        };
        // Replacing keeps the number of subscriptions. [MQTT-3.8.4-3]
        if let Some((_, there)) = list.iter_mut().find(|(f, _)| &**f == filter) {
            return Some(std::mem::replace(there, subscription));
        }
        // One more at a time, because a session with few subscriptions should not reserve memory for more.
        if list.len() < FEW_MAX {
            list.reserve_exact(1);
            list.push((filter.into(), subscription));
        } else {
            // From here on a search costs more than the table.
            let mut map: IndexMap<_, _, _> = std::mem::take(list).into_iter().collect();
            map.insert(filter.into(), subscription);
            *self = Self::Many(Box::new(map));
        }
        None
    }

    /// Removes a subscription; returns whether it existed.
    pub(super) fn remove(&mut self, filter: &str) -> bool {
        let existed = match self {
            Self::Few(list) => match list.iter().position(|(f, _)| &**f == filter) {
                Some(at) => {
                    list.swap_remove(at);
                    true
                }
                None => false,
            },
            Self::Many(map) => map.swap_remove(filter).is_some(),
        };
        // A session without subscriptions gives the table back.
        if self.len() == 0 {
            *self = Self::default();
        }
        existed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::mqtt::SubscriptionOptions;

    #[test]
    fn few_and_many_subscriptions_are_found_as_in_a_plain_map() {
        let mut rng = fastrand::Rng::with_seed(17);
        for filters in [3, 9, 12, 100] {
            let mut subscriptions = Subscriptions::default();
            let mut naive = BTreeMap::new();
            for step in 0..10_000 {
                let filter = format!("a/{}", rng.usize(..filters));
                // Alternate between adding and removing, to cross the limit in both directions.
                let are_growing = step / 500 % 2 == 0;
                if are_growing == (rng.usize(..4) == 0) {
                    assert_eq!(subscriptions.remove(&filter), naive.remove(&filter).is_some());
                } else {
                    let options = SubscriptionOptions::default();
                    let new = SubscribedAs { options, identifier: Some(step) };
                    let former = subscriptions.insert(&filter, new);
                    assert_eq!(former, naive.insert(filter.clone(), new));
                }
                assert_eq!(subscriptions.find(&filter), naive.get(&filter).copied());
                assert_eq!(subscriptions.len(), naive.len());
                let all: BTreeMap<_, _> =
                    subscriptions.iter().map(|(filter, s)| (filter.to_owned(), s)).collect();
                assert_eq!(all, naive);
            }
        }
    }

    #[test]
    fn a_walk_down_the_positions_misses_none_that_stays() {
        let mut rng = fastrand::Rng::with_seed(18);
        for filters in [3, 9, 12, 200] {
            let mut subscriptions = Subscriptions::default();
            let new = SubscribedAs { options: SubscriptionOptions::default(), identifier: None };
            for number in 0..filters {
                subscriptions.insert(&number.to_string(), new);
            }
            let mut unseen: BTreeMap<String, ()> =
                (0..filters).map(|number| (number.to_string(), ())).collect();
            let mut position = subscriptions.len();
            while position > 0 {
                position -= 1;
                if let Some((filter, _)) = subscriptions.at(position) {
                    unseen.remove(filter);
                }
                let other = rng.u32(..2 * filters).to_string();
                if rng.bool() {
                    subscriptions.remove(&other);
                    unseen.remove(&other);
                } else {
                    subscriptions.insert(&other, new);
                }
                position = position.min(subscriptions.len());
            }
            assert!(unseen.is_empty(), "{unseen:?} of {filters}");
        }
    }
}
