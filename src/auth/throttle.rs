//! Delays the logins of clients that keep presenting wrong credentials, then refuses them for a
//! while.
//!
//! Failures are counted twice. By **address and user name**: the first few are free, then each
//! makes the next attempt wait longer, and ten in a minute refuse that user name from that address
//! for a minute. By **address alone**, with a limit fifty times as high, against clients that try
//! many user names. So one device with a wrong password, behind the same NAT as a fleet, is refused
//! alone: meanwhile its attempts are neither checked nor counted against the address. A success
//! clears the count of its address and user name, but not that of the address; otherwise an
//! attacker with one valid account could clear it between guesses.
//!
//! **Repeating the same wrong password tells an attacker nothing new**, so it counts once: a keyed
//! hash of each of the last few wrong passwords is remembered. A device that keeps using an old
//! password therefore does not cause other devices at its address to be refused.
//!
//! An IPv6 address counts as its /64, which is what one customer is given.
//!
//! Pure: time is an argument. Called by the authenticator before and after it checks a password.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::{BuildHasher as _, Hash, RandomState},
    net::IpAddr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{AuthenticationError, FailedLogins, origin::Origin};

/// How failed attempts are slowed down and refused. A limit of 0 is off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThrottleConfig {
    /// Seconds, from the first failure, over which failures are counted.
    pub window_secs: u32,
    /// Number of failures of one user name from one address that cause no delay.
    pub free_failures: u32,
    /// The first delay, in milliseconds; every further failure doubles it.
    pub first_delay_ms: u32,
    /// The longest delay, in milliseconds.
    pub delay_ms_max: u32,
    /// Number of failures after which one user name is refused from one address.
    pub failures_max: u32,
    /// Number of failures, over all user names, after which an address is refused.
    pub address_failures_max: u32,
    /// Seconds for which a refusal lasts.
    pub refusal_secs: u32,
    /// Maximum number of addresses, and of pairs of address and user name, that are counted; the
    /// oldest are evicted.
    pub entries_max: usize,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self {
            window_secs: 60,
            free_failures: 3,
            first_delay_ms: 250,
            delay_ms_max: 4_000,
            failures_max: 10,
            address_failures_max: 500,
            refusal_secs: 60,
            entries_max: 10_000,
        }
    }
}

/// The decision about an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Check it.
    Now,
    /// Check it after this time.
    After(Duration),
    /// Refuse it without a check.
    Refused {
        /// Seconds until attempts are checked again, rounded up, at least one.
        retry_after_secs: u32,
    },
}

impl Admission {
    /// Returns the delay before the attempt is checked.
    pub(super) const fn delay(self) -> Result<Duration, AuthenticationError> {
        match self {
            Self::Now => Ok(Duration::ZERO),
            Self::After(delay) => Ok(delay),
            Self::Refused { retry_after_secs } => {
                Err(AuthenticationError::TooManyAttempts { retry_after_secs })
            }
        }
    }
}

/// A refusal that starts with a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lockout {
    /// The user name is refused from this address.
    User,
    /// The address is refused.
    Address,
}

/// An address and a user name. The name is stored as a hash, because a stranger chooses it, of any
/// length.
pub(super) type PairKey = (Origin, u64);

/// A keyed hash that stands for a wrong password.
pub(super) type Guess = u64;

/// Counts failures and decides about attempts. The number of counts is limited.
pub struct FailureThrottle {
    config: ThrottleConfig,
    by_user: Counts<PairKey>,
    by_address: Counts<Origin>,
    user_names: RandomState,
}

impl FailureThrottle {
    /// Creates it without failures.
    #[must_use]
    pub fn new(config: ThrottleConfig) -> Self {
        Self {
            by_user: Counts::new(config.entries_max),
            by_address: Counts::new(config.entries_max),
            user_names: RandomState::new(),
            config,
        }
    }

    /// Changes how failures are slowed down and refused from now on.
    pub(super) fn set_config(&mut self, config: ThrottleConfig) {
        self.by_user.set_max(config.entries_max);
        self.by_address.set_max(config.entries_max);
        self.config = config;
    }

    /// Returns the decision about an attempt of `username` from `address`.
    #[must_use]
    pub fn admit(&self, address: IpAddr, username: &str, now: Instant) -> Admission {
        let key = self.key(address, username);
        if let Some(retry_after_secs) = self.refused_for(&key, now) {
            return Admission::Refused { retry_after_secs };
        }
        match self.delay_of(&key, now) {
            Duration::ZERO => Admission::Now,
            delay => Admission::After(delay),
        }
    }

    /// Returns the seconds for which the pair is still refused, at least one; `None` if it is not.
    pub(super) fn refused_for(&self, key: &PairKey, now: Instant) -> Option<u32> {
        let refused_until = [
            self.by_user.get(key).and_then(|count| count.refused_until),
            self.by_address.get(&key.0).and_then(|count| count.refused_until),
        ];
        let until = refused_until.into_iter().flatten().max().filter(|until| now < *until)?;
        let left = (until - now).as_millis().div_ceil(1000);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// Returns the delay of the pair's next attempt after its failures so far.
    pub(super) fn delay_of(&self, key: &PairKey, now: Instant) -> Duration {
        self.delay(self.failures_of(key, now))
    }

    /// Returns the delay of an attempt that repeats a wrong password.
    pub(super) const fn delay_of_repeated(&self) -> Duration {
        Duration::from_millis(self.config.first_delay_ms as u64)
    }

    fn failures_of(&self, key: &PairKey, now: Instant) -> u32 {
        self.by_user.get(key).map_or(0, |count| count.failures(now, self.window()))
    }

    /// Returns how many further wrong passwords are checked before the pair is refused.
    pub(super) fn guesses_left(&self, key: &PairKey, now: Instant) -> usize {
        let max = match self.config.failures_max {
            0 => u32::MAX,
            max => max,
        };
        max.saturating_sub(self.failures_of(key, now)) as usize
    }

    /// Returns whether the address or the pair has failures in its window.
    pub(super) fn has_failed(&self, key: &PairKey, now: Instant) -> bool {
        let of_address = self.by_address.get(&key.0);
        self.failures_of(key, now) > 0
            || of_address.is_some_and(|count| count.matters(now, self.window()))
    }

    /// Returns whether the pair presented this wrong password a moment ago.
    pub(super) fn is_repeated(&self, key: &PairKey, guess: Guess) -> bool {
        self.by_user.get(key).is_some_and(|count| count.wrong.contains(&guess))
    }

    /// Counts a failure, and returns the refusal that starts with it.
    pub fn failed(&mut self, address: IpAddr, username: &str, now: Instant) -> Option<Lockout> {
        self.guessed(self.key(address, username), None, now)
    }

    /// Counts a failure with this wrong password.
    pub(super) fn guessed(
        &mut self,
        key: PairKey,
        guess: Option<Guess>,
        now: Instant,
    ) -> Option<Lockout> {
        // A device that repeats one wrong password is not a guesser.
        if guess.is_some_and(|guess| self.is_repeated(&key, guess)) {
            return None;
        }
        let (window, refusal) = (self.window(), self.config.refusal_secs.into());
        let refusal = Duration::from_secs(refusal);
        let locks_user = self.by_user.fail(key, now, window, self.config.failures_max, refusal);
        if let Some(guess) = guess {
            self.by_user.note_guess(&key, guess);
        }
        let address_max = self.config.address_failures_max;
        let locks_address = self.by_address.fail(key.0, now, window, address_max, refusal);
        match (locks_address, locks_user) {
            // The wider lock-out is the one to report.
            (true, _) => Some(Lockout::Address),
            (false, true) => Some(Lockout::User),
            (false, false) => None,
        }
    }

    /// Forgets the failures of `username` from `address`.
    pub fn succeeded(&mut self, address: IpAddr, username: &str) {
        self.was_right(&self.key(address, username));
    }

    /// Forgets the failures of a pair.
    pub(super) fn was_right(&mut self, key: &PairKey) {
        self.by_user.clear(key);
    }

    /// Returns the addresses with failures, or that are refused.
    pub(super) fn failing(&self, is_rest: bool, now: Instant) -> Vec<FailedLogins> {
        let window = self.window();
        let all = self.by_address.counts.iter().filter(|(_, count)| count.matters(now, window));
        all.map(|(origin, count)| self.state(*origin, is_rest, Some(count), now)).collect()
    }

    /// Returns the failures of a pair.
    pub(super) fn failures_of_pair(
        &self,
        key: &PairKey,
        is_rest: bool,
        now: Instant,
    ) -> FailedLogins {
        let state = self.state(key.0, is_rest, self.by_user.get(key), now);
        let delay_ms = u32::try_from(self.delay_of(key, now).as_millis()).unwrap_or(u32::MAX);
        let refused_secs = self.refused_for(key, now).unwrap_or(0);
        FailedLogins { delay_ms, refused_secs, ..state }
    }

    fn state(
        &self,
        origin: Origin,
        is_rest: bool,
        count: Option<&Count>,
        now: Instant,
    ) -> FailedLogins {
        let failures = count.map_or(0, |count| count.failures(now, self.window()));
        let until = count.and_then(|count| count.refused_until).filter(|until| now < *until);
        let left = until.map_or(0, |until| (until - now).as_millis().div_ceil(1000));
        let refused_secs = u32::try_from(left).unwrap_or(u32::MAX);
        let failed = FailedLogins::new(origin.address(), is_rest, failures);
        FailedLogins { refused_secs, ..failed }
    }

    /// Forgets all failures at an address; returns whether there were any.
    pub(super) fn forget(&mut self, address: IpAddr, now: Instant) -> bool {
        let (origin, window) = (Origin::of(address), self.window());
        let mut there_were = false;
        let mut clear = |count: &mut Count| {
            there_were |= count.matters(now, window);
            (count.failures, count.refused_until) = (0, None);
        };
        if let Some(count) = self.by_address.counts.get_mut(&origin) {
            clear(count);
        }
        let of_address = self.by_user.counts.iter_mut().filter(|(key, _)| key.0 == origin);
        of_address.for_each(|(_, count)| clear(count));
        there_were
    }

    /// Returns the key of a pair.
    pub(super) fn key(&self, address: IpAddr, username: &str) -> PairKey {
        (Origin::of(address), self.user_names.hash_one(username))
    }

    fn window(&self) -> Duration {
        Duration::from_secs(self.config.window_secs.into())
    }

    fn delay(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(self.config.free_failures.max(1)) else {
            return Duration::ZERO;
        };
        let delay_ms = u64::from(self.config.first_delay_ms) << doublings.min(31);
        Duration::from_millis(delay_ms.min(self.config.delay_ms_max.into()))
    }
}

/// Number of wrong passwords that are remembered for each pair.
const GUESSES_REMEMBERED: usize = 8;

#[derive(Clone, Copy)]
struct Count {
    /// The last wrong passwords, newest first; 0 in unused places.
    wrong: [Guess; GUESSES_REMEMBERED],
    failures: u32,
    counting_since: Instant,
    refused_until: Option<Instant>,
}

impl Count {
    fn failures(&self, now: Instant, window: Duration) -> u32 {
        if now.saturating_duration_since(self.counting_since) < window { self.failures } else { 0 }
    }

    fn matters(&self, now: Instant, window: Duration) -> bool {
        self.failures(now, window) > 0 || self.refused_until.is_some_and(|until| now < until)
    }
}

/// Counts by key, for a limited number of keys.
struct Counts<K> {
    counts: HashMap<K, Count>,
    /// The keys of `counts`, each once, oldest first.
    in_order: VecDeque<K>,
    entries_max: usize,
}

impl<K: Copy + Eq + Hash> Counts<K> {
    /// How many old counts that are in use may be spared before one is evicted nevertheless.
    const SECOND_CHANCES: usize = 8;

    fn new(entries_max: usize) -> Self {
        Self { counts: HashMap::new(), in_order: VecDeque::new(), entries_max }
    }

    fn set_max(&mut self, entries_max: usize) {
        self.entries_max = entries_max;
        let too_many = self.in_order.len().saturating_sub(entries_max);
        for key in self.in_order.drain(..too_many) {
            self.counts.remove(&key);
        }
    }

    fn get(&self, key: &K) -> Option<&Count> {
        self.counts.get(key)
    }

    /// Counts a failure, and returns whether it reaches the limit.
    fn fail(
        &mut self,
        key: K,
        now: Instant,
        window: Duration,
        failures_max: u32,
        refusal: Duration,
    ) -> bool {
        if failures_max == 0 || self.entries_max == 0 {
            return false;
        }
        // Room is made before the entry exists, so that it cannot evict itself.
        if !self.counts.contains_key(&key) {
            self.make_room(now, window);
            self.in_order.push_back(key);
        }
        let count = self.counts.entry(key).or_insert(Count {
            wrong: [0; GUESSES_REMEMBERED],
            failures: 0,
            counting_since: now,
            refused_until: None,
        });
        count.failures = count.failures(now, window);
        if count.failures == 0 {
            count.counting_since = now;
        }
        count.failures += 1;
        let is_one_too_many = count.failures >= failures_max;
        if is_one_too_many {
            count.refused_until = Some(now + refusal);
            // Counting starts over after the refusal;
            // otherwise one more failure would refuse again.
            count.failures = 0;
        }
        is_one_too_many
    }

    fn note_guess(&mut self, key: &K, guess: Guess) {
        if let Some(count) = self.counts.get_mut(key) {
            count.wrong.rotate_right(1);
            count.wrong[0] = guess;
        }
    }

    /// Keeps the entry until it is the oldest: otherwise a key that alternates between failure and
    /// success would appear twice in `in_order`.
    fn clear(&mut self, key: &K) {
        if let Some(count) = self.counts.get_mut(key) {
            count.failures = 0;
            count.refused_until = None;
        }
    }

    fn make_room(&mut self, now: Instant, window: Duration) {
        if self.in_order.len() < self.entries_max {
            return;
        }
        // Bounded: entries in use get another chance, but
        // a flood of new keys must not make this a walk.
        for passed_over in 0..=Self::SECOND_CHANCES {
            let Some(oldest) = self.in_order.pop_front() else {
                return;
            };
            let in_use = self.counts.get(&oldest).is_some_and(|count| count.matters(now, window));
            if in_use && passed_over < Self::SECOND_CHANCES {
                self.in_order.push_back(oldest);
            } else {
                self.counts.remove(&oldest);
                return;
            }
        }
    }
}

/// Returns the time of tokio's clock, which tests can change.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl fmt::Debug for FailureThrottle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureThrottle").field("config", &self.config).finish_non_exhaustive()
    }
}
