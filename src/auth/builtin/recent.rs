//! Clients that logged in a moment ago keep access while others guess at their user name.
//!
//! Others behind the same address (a carrier's NAT, a gateway, a proxy) can cause enough failures
//! that the name is refused there. A client that logged in from this address a moment ago, with the
//! same client identifier, is still checked. Its wrong passwords are counted as well and their
//! number is small, so that this gives no faster way to guess.
//!
//! Pure; called by the authenticator.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::auth::throttle::PairKey;

/// A pair of address and user name, and a hash of the client identifier; 0 for REST callers, which
/// have none.
pub(super) type RecentKey = (PairKey, u64);

/// Maximum number of wrong passwords of a place that are checked within one window while its name
/// is refused.
const WRONG_MAX: u32 = 60;

/// Length of the window.
const WINDOW: Duration = Duration::from_secs(60);

/// The places that logged in a moment ago. Their number is limited; the oldest are evicted.
pub(super) struct RecentPlaces {
    time_to_live: Duration,
    entries_max: usize,
    places: HashMap<RecentKey, Recent>,
    /// The keys of `places`, each once, oldest first.
    in_order: VecDeque<RecentKey>,
}

struct Recent {
    until: Instant,
    wrong: u32,
    counting_since: Instant,
}

impl RecentPlaces {
    pub(super) fn new(entries_max: usize, time_to_live: Duration) -> Self {
        Self { time_to_live, entries_max, places: HashMap::new(), in_order: VecDeque::new() }
    }

    /// Returns whether an attempt from `place` is checked although failures of others block the user name.
    pub(super) fn may_go_on(&self, place: &RecentKey, now: Instant) -> bool {
        self.places.get(place).is_some_and(|recent| {
            let is_counting = now.saturating_duration_since(recent.counting_since) < WINDOW;
            now < recent.until && (!is_counting || recent.wrong < WRONG_MAX)
        })
    }

    pub(super) fn was_right(&mut self, place: RecentKey, now: Instant) {
        if self.entries_max == 0 || self.time_to_live.is_zero() {
            return;
        }
        let until = now + self.time_to_live;
        if let Some(recent) = self.places.get_mut(&place) {
            recent.until = until;
            return;
        }
        // The oldest entry loses its exemption, which only makes its client wait like others.
        if self.in_order.len() >= self.entries_max
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.places.remove(&oldest);
        }
        self.places.insert(place, Recent { until, wrong: 0, counting_since: now });
        self.in_order.push_back(place);
    }

    pub(super) fn was_wrong(&mut self, place: &RecentKey, now: Instant) {
        if let Some(recent) = self.places.get_mut(place) {
            if now.saturating_duration_since(recent.counting_since) >= WINDOW {
                (recent.wrong, recent.counting_since) = (0, now);
            }
            recent.wrong += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::origin::Origin;

    const TTL: Duration = Duration::from_secs(300);

    fn place(client: u64) -> RecentKey {
        ((Origin::of([192, 0, 2, 1].into()), 7), client)
    }

    #[test]
    fn a_client_that_was_right_goes_on_for_a_while_and_others_do_not() {
        let (mut places, start) = (RecentPlaces::new(8, TTL), Instant::now());
        assert!(!places.may_go_on(&place(1), start));
        places.was_right(place(1), start);
        places.was_right(place(1), start + TTL / 2);
        assert!(places.may_go_on(&place(1), start + TTL));
        assert!(!places.may_go_on(&place(2), start + TTL));
        assert!(!places.may_go_on(&place(1), start + TTL + TTL / 2));
    }

    #[test]
    fn it_makes_no_faster_way_to_guess() {
        let (mut places, start) = (RecentPlaces::new(8, TTL), Instant::now());
        places.was_right(place(1), start);
        for _ in 0..WRONG_MAX {
            assert!(places.may_go_on(&place(1), start));
            places.was_wrong(&place(1), start);
            places.was_right(place(1), start);
        }
        assert!(!places.may_go_on(&place(1), start));
        assert!(places.may_go_on(&place(1), start + WINDOW));
    }

    #[test]
    fn the_oldest_place_goes_for_a_new_one() {
        let (mut places, start) = (RecentPlaces::new(2, TTL), Instant::now());
        for client in 1..=3 {
            places.was_right(place(client), start);
        }
        let kept = [1, 2, 3].map(|client| places.may_go_on(&place(client), start));
        assert_eq!(kept, [false, true, true]);
        assert_eq!(places.places.len(), 2);
    }
}
