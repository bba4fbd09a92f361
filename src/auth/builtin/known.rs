//! The pairs of user and address that logged in before: their logins come first.
//!
//! A pair is a key of 32 bytes, half a hash of the user name and half the address (IPv6: the /64).
//! **It contains no password**, nor anything derived from one: a pair permits nothing, it only puts
//! a login before those of strangers. The number of pairs is limited, also for each user, so that
//! an account that logs in from everywhere does not evict the pairs of others. The pair that was
//! not seen for the longest time is evicted first.
//!
//! Pure; called by the authenticator. A [`LoginLedger`] stores the pairs across restarts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};

use crate::auth::{LoginKey, origin::Origin};

/// One user may have at most one in this many of all pairs.
const SHARE_OF_A_USER: usize = 16;

/// Time after which the next login of a pair is noted again, so that the order of the pairs
/// survives a restart.
const NOTE_AGAIN_AFTER: Duration = Duration::from_secs(24 * 3600);

type UserKey = [u8; 16];

/// The known pairs, least recently used first.
pub(super) struct KnownLogins {
    pairs_max: usize,
    pairs: HashMap<LoginKey, Known>,
    /// The pairs by the number of their last successful login.
    in_order: BTreeMap<u64, LoginKey>,
    by_user: HashMap<UserKey, BTreeSet<u64>>,
    last_number: u64,
}

struct Known {
    number: u64,
    /// `None` if it was read from the ledger and not noted in this run.
    noted_at: Option<Instant>,
}

/// The changes to the ledger after a login.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ToKeep {
    pub(super) note: bool,
    pub(super) remove: Option<LoginKey>,
}

/// Returns the key of a pair.
pub(super) fn key(username: &str, origin: Origin) -> LoginKey {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&digest(&SHA256, username.as_bytes()).as_ref()[..16]);
    key[16..].copy_from_slice(&origin.bytes());
    key
}

fn user_of(key: &LoginKey) -> UserKey {
    let mut user = UserKey::default();
    user.copy_from_slice(&key[..16]);
    user
}

impl KnownLogins {
    pub(super) fn new(pairs_max: usize) -> Self {
        Self {
            pairs_max,
            pairs: HashMap::new(),
            in_order: BTreeMap::new(),
            by_user: HashMap::new(),
            last_number: 0,
        }
    }

    pub(super) fn contains(&self, key: &LoginKey) -> bool {
        self.pairs.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Changes the maximum. Returns the evicted pairs: those that were not seen for the longest
    /// time.
    pub(super) fn set_max(&mut self, pairs_max: usize) -> Vec<LoginKey> {
        self.pairs_max = pairs_max;
        let too_many = self.pairs.len().saturating_sub(pairs_max);
        let removed: Vec<_> = self.in_order.values().take(too_many).copied().collect();
        removed.iter().for_each(|key| self.take_out(key));
        removed
    }

    /// Loads stored pairs, as many as fit, and returns the ones to remove.
    pub(super) fn read(&mut self, kept: Vec<LoginKey>) -> Vec<LoginKey> {
        let without_room = kept.len().saturating_sub(self.pairs_max);
        let mut removed = kept[..without_room].to_vec();
        for key in kept.into_iter().skip(without_room) {
            removed.extend(self.insert(key, None));
        }
        removed
    }

    /// Notes a successful login of the pair.
    pub(super) fn was_right(&mut self, key: LoginKey, now: Instant) -> ToKeep {
        if self.pairs_max == 0 {
            return ToKeep::default();
        }
        let noted_at = self.pairs.get(&key).and_then(|known| known.noted_at);
        let note = noted_at.is_none_or(|at| now.saturating_duration_since(at) >= NOTE_AGAIN_AFTER);
        let noted_at = if note { Some(now) } else { noted_at };
        ToKeep { note, remove: self.insert(key, noted_at) }
    }

    /// Puts a pair at the end and returns the one that was evicted for it.
    fn insert(&mut self, key: LoginKey, noted_at: Option<Instant>) -> Option<LoginKey> {
        // A known pair moves to the end, as the one that was seen last.
        self.take_out(&key);
        let share = (self.pairs_max / SHARE_OF_A_USER).max(1);
        let of_user = self.by_user.get(&user_of(&key));
        let oldest_of_user = of_user.filter(|all| all.len() >= share).and_then(BTreeSet::first);
        // A user beyond its share evicts its own oldest pair, never that of another user.
        let oldest = match oldest_of_user {
            Some(number) => self.in_order.get(number).copied(),
            None if self.pairs.len() >= self.pairs_max => self.in_order.values().next().copied(),
            None => None,
        };
        if let Some(oldest) = &oldest {
            self.take_out(oldest);
        }
        self.last_number += 1;
        self.pairs.insert(key, Known { number: self.last_number, noted_at });
        self.in_order.insert(self.last_number, key);
        self.by_user.entry(user_of(&key)).or_default().insert(self.last_number);
        oldest
    }

    fn take_out(&mut self, key: &LoginKey) {
        let Some(known) = self.pairs.remove(key) else { return };
        self.in_order.remove(&known.number);
        if let Some(of_user) = self.by_user.get_mut(&user_of(key)) {
            of_user.remove(&known.number);
            if of_user.is_empty() {
                self.by_user.remove(&user_of(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(user: &str, number: u32) -> LoginKey {
        key(user, Origin::of(std::net::Ipv4Addr::from_bits(number).into()))
    }

    #[test]
    fn a_pair_is_known_once_it_was_right_and_noted_again_after_a_day() {
        let (mut known, now) = (KnownLogins::new(100), Instant::now());
        assert!(!known.contains(&pair("ann", 1)));
        assert_eq!(known.was_right(pair("ann", 1), now), ToKeep { note: true, remove: None });
        assert!(known.contains(&pair("ann", 1)));
        assert!(!known.contains(&pair("ann", 2)) && !known.contains(&pair("ben", 1)));
        assert_eq!(known.was_right(pair("ann", 1), now + NOTE_AGAIN_AFTER / 2), ToKeep::default());
        let again = known.was_right(pair("ann", 1), now + NOTE_AGAIN_AFTER);
        assert_eq!(again, ToKeep { note: true, remove: None });
    }

    #[test]
    fn the_pair_that_was_not_seen_for_the_longest_time_goes() {
        let (mut known, now) = (KnownLogins::new(2), Instant::now());
        known.was_right(pair("ann", 1), now);
        known.was_right(pair("ben", 1), now);
        known.was_right(pair("ann", 1), now);
        let kept = known.was_right(pair("cleo", 1), now);
        assert_eq!(kept, ToKeep { note: true, remove: Some(pair("ben", 1)) });
        assert_eq!(known.len(), 2);
    }

    #[test]
    fn one_account_does_not_push_out_the_pairs_of_others() {
        let (mut known, now) = (KnownLogins::new(160), Instant::now());
        for number in 0..20 {
            known.was_right(pair(&format!("user {number}"), 1), now);
        }
        for number in 0..10_000 {
            let kept = known.was_right(pair("mallory", number), now);
            assert!(kept.remove.is_none_or(|key| user_of(&key) == user_of(&pair("mallory", 0))));
        }
        assert!((0..20).all(|number| known.contains(&pair(&format!("user {number}"), 1))));
        assert_eq!(known.len(), 30);
    }

    #[test]
    fn what_was_kept_is_known_as_far_as_there_is_room() {
        let mut known = KnownLogins::new(2);
        let kept = vec![pair("ann", 1), pair("ben", 1), pair("cleo", 1)];
        assert_eq!(known.read(kept), [pair("ann", 1)]);
        assert!(known.contains(&pair("ben", 1)) && known.contains(&pair("cleo", 1)));
        assert!(known.was_right(pair("ben", 1), Instant::now()).note, "once in a run");
    }

    #[test]
    fn without_room_nothing_is_known() {
        let mut known = KnownLogins::new(0);
        assert_eq!(known.was_right(pair("ann", 1), Instant::now()), ToKeep::default());
        assert!(!known.contains(&pair("ann", 1)));
    }
}
