//! Credentials that were verified a moment ago, so that not every request of a REST caller costs
//! another hash.
//!
//! # Why this is safe
//!
//! - **No password is stored**, nor anything that helps to find one: an entry is the HMAC-SHA-256
//!   of user name, stored hash and password under a random key that exists only in this process. An
//!   attacker who can read that key from the broker's memory can also read the passwords as they
//!   arrive.
//! - **Only success is stored.** A wrong password is never found here, and costs a full hash.
//! - **The stored hash is part of the key**: after a change of the password or the removal of the
//!   account, an old entry can no longer be found. No invalidation is needed.
//! - An entry lasts for a fixed time from the hash that proved it, however often it is used. The
//!   number of entries is fixed; the oldest are evicted.
//! - The throttle is consulted before this cache, so that the cache cannot be used to guess faster.
//!
//! Called by the authenticator alone; does not read the clock.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;

/// Stands for a user name, stored hash and password.
pub(super) type LoginDigest = [u8; 32];

/// The key of this process that turns credentials into digests.
pub(super) struct DigestKey(hmac::Key);

impl DigestKey {
    /// Generates a random key.
    pub(super) fn generate() -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the operating system has random bytes");
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    /// Returns the digest of these three. Includes their lengths, so that no two triples look
    /// alike.
    pub(super) fn digest(&self, name: &str, stored: &str, password: &[u8]) -> LoginDigest {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [name.as_bytes(), stored.as_bytes(), password] {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut digest = LoginDigest::default();
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

/// The digests of verified credentials, each with its expiry.
pub(super) struct VerifiedCredentials {
    time_to_live: Duration,
    entries_max: usize,
    expires_at: HashMap<LoginDigest, Instant>,
    /// The keys of `expires_at`, each once, in the order of their expiry.
    in_order: VecDeque<LoginDigest>,
}

impl VerifiedCredentials {
    /// Creates a cache of `entries_max` credentials for `time_to_live` each; zero of either turns
    /// it off.
    pub(super) fn new(entries_max: usize, time_to_live: Duration) -> Self {
        Self { time_to_live, entries_max, expires_at: HashMap::new(), in_order: VecDeque::new() }
    }

    /// Returns whether it was verified less than the time to live ago.
    pub(super) fn contains(&self, digest: &LoginDigest, now: Instant) -> bool {
        self.expires_at.get(digest).is_some_and(|at| now < *at)
    }

    /// Notes that it was verified.
    pub(super) fn insert(&mut self, digest: LoginDigest, now: Instant) {
        self.drop_expired(now);
        if self.entries_max == 0 || self.expires_at.contains_key(&digest) {
            return;
        }
        if self.in_order.len() >= self.entries_max {
            self.drop_first();
        }
        self.expires_at.insert(digest, now + self.time_to_live);
        self.in_order.push_back(digest);
    }

    fn drop_expired(&mut self, now: Instant) {
        while let Some(first) = self.in_order.front()
            && !self.contains(first, now)
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.in_order.pop_front() {
            self.expires_at.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    #[test]
    fn what_was_right_is_remembered_for_the_time_to_live_and_no_longer() {
        let (mut cache, start, digest) =
            (VerifiedCredentials::new(8, TTL), Instant::now(), [1; 32]);
        assert!(!cache.contains(&digest, start));
        cache.insert(digest, start);
        cache.insert(digest, start + TTL / 2);
        assert!(cache.contains(&digest, start + TTL - Duration::from_millis(1)));
        assert!(!cache.contains(&digest, start + TTL));
    }

    #[test]
    fn every_part_of_the_credential_counts_and_so_does_where_it_ends() {
        let key = DigestKey::generate();
        let digest = key.digest("ann", "hash", b"secret");
        assert_eq!(digest, key.digest("ann", "hash", b"secret"));
        assert_ne!(digest, key.digest("ben", "hash", b"secret"));
        assert_ne!(digest, key.digest("ann", "new hash", b"secret"));
        assert_ne!(digest, key.digest("ann", "hash", b"Secret"));
        assert_ne!(digest, key.digest("annh", "ash", b"secret"));
        assert_ne!(digest, DigestKey::generate().digest("ann", "hash", b"secret"));
    }

    #[test]
    fn the_oldest_goes_when_the_cache_is_full() {
        let (mut cache, start) = (VerifiedCredentials::new(3, TTL), Instant::now());
        for number in 0..4 {
            cache.insert([number; 32], start + Duration::from_secs(number.into()));
        }
        let at_the_end = start + Duration::from_secs(4);
        let kept = [0, 1, 2, 3].map(|number| cache.contains(&[number; 32], at_the_end));
        assert_eq!(kept, [false, true, true, true]);
        assert_eq!(cache.in_order.len(), 3);
        assert_eq!(cache.expires_at.len(), 3);
    }

    #[test]
    fn a_cache_of_no_entries_or_no_time_remembers_nothing() {
        for (entries_max, ttl) in [(0, TTL), (8, Duration::ZERO)] {
            let (mut cache, now) = (VerifiedCredentials::new(entries_max, ttl), Instant::now());
            cache.insert([1; 32], now);
            assert!(!cache.contains(&[1; 32], now));
        }
    }
}
