//! The Topic Filters that a session has subscribed to: usually one or two, sometimes very many.
//!
//! This module knows neither which topics a filter matches nor the subscriptions of other sessions.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Subscription;

/// Up to this number, a list is searched, which is as fast as hashing. Even the smallest hash table
/// takes several times the memory of one subscription.
const FEW_MAX: usize = 8;

/// Subscriptions by Topic Filter, in no order.
#[derive(Debug)]
pub(super) enum Subscriptions {
    /// A list without spare capacity.
    Few(Vec<(Box<str>, Subscription)>),
    /// A table, used until it is empty, so that the representation does not change back and forth
    /// at the limit.
    #[expect(
        clippy::box_collection,
        reason = "most sessions have few, and there are many sessions"
    )]
    Many(Box<HashMap<Box<str>, Subscription, RandomState>>),
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

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Subscription)> {
        let (list, map) = match self {
            Self::Few(list) => (Some(list), None),
            Self::Many(map) => (None, Some(map)),
        };
        let few = list.into_iter().flatten().map(|(filter, subscription)| (filter, subscription));
        let many = map.into_iter().flat_map(|map| map.iter());
        few.chain(many).map(|(filter, subscription)| (&**filter, *subscription))
    }

    pub(super) fn find(&self, filter: &str) -> Option<Subscription> {
        match self {
            Self::Few(list) => list.iter().find(|(f, _)| &**f == filter).map(|(_, s)| *s),
            Self::Many(map) => map.get(filter).copied(),
        }
    }

    /// Adds or replaces a subscription; returns the one that was replaced.
    pub(super) fn insert(
        &mut self,
        filter: &str,
        subscription: Subscription,
    ) -> Option<Subscription> {
        let list = match self {
            Self::Many(map) => return map.insert(filter.into(), subscription),
            Self::Few(list) => list,
        };
        if let Some((_, there)) = list.iter_mut().find(|(f, _)| &**f == filter) {
            return Some(std::mem::replace(there, subscription));
        }
        if list.len() < FEW_MAX {
            list.reserve_exact(1);
            list.push((filter.into(), subscription));
        } else {
            let mut map: HashMap<_, _, _> = std::mem::take(list).into_iter().collect();
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
            Self::Many(map) => map.remove(filter).is_some(),
        };
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
                    let new = Subscription { options, identifier: Some(step) };
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
}
