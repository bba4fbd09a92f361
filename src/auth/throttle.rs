//! Slows down, then refuses for a while, whoever keeps showing wrong credentials.
//!
//! Failures are counted twice. By **address and user name**: a few are free, then each makes the
//! next attempt wait longer, and ten in a minute refuse that user name from that address for a
//! minute. By **address alone**, with a bound that is fifty times as high, against one that tries
//! many user names. So one device with a wrong password, behind a NAT with a fleet of others, is
//! refused by itself: while it is, its attempts are not looked at and not counted against the
//! address. A success clears the count of its address and user name, but not the address's, or an
//! attacker with one good account could clear it between guesses.
//!
//! An IPv6 address counts as its /64, which is what one customer is given.
//!
//! Pure: time is an argument. Called by the authenticator before and after it checks a password.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::AuthenticationError;

/// How failed attempts are answered. In every bound, 0 turns it off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThrottleConfig {
    /// Failures are counted over this many seconds from the first.
    pub window_secs: u32,
    /// This many failures of one user name from one address do not slow the next attempt.
    pub free_failures: u32,
    /// The first delay, in milliseconds; every further failure doubles it.
    pub first_delay_ms: u32,
    /// No delay is longer than this, in milliseconds.
    pub delay_ms_max: u32,
    /// This many failures of one user name from one address refuse it there.
    pub failures_max: u32,
    /// This many failures from one address, whatever the user names, refuse the address.
    pub address_failures_max: u32,
    /// A refusal lasts for this many seconds.
    pub refusal_secs: u32,
    /// So many addresses, and so many pairs of address and user name, are kept; the oldest go.
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

/// What is to become of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Check it.
    Now,
    /// Check it after this time.
    After(Duration),
    /// Do not look at it for this many seconds, at least one.
    Refused {
        /// Seconds, rounded up.
        retry_after_secs: u32,
    },
}

impl Admission {
    /// How long the attempt is to wait before it is looked at.
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

/// See the module. Keeps a bounded number of counts.
pub struct FailureThrottle {
    config: ThrottleConfig,
    /// The user name is kept as a hash: it is the stranger's, and of any length.
    by_user: Counts<(IpAddr, u64)>,
    by_address: Counts<IpAddr>,
    user_names: RandomState,
}

impl FailureThrottle {
    /// One that has seen no failure.
    #[must_use]
    pub fn new(config: ThrottleConfig) -> Self {
        Self {
            by_user: Counts::new(config.entries_max),
            by_address: Counts::new(config.entries_max),
            user_names: RandomState::new(),
            config,
        }
    }

    /// What is to become of an attempt of `username` from `address`.
    #[must_use]
    pub fn admit(&self, address: IpAddr, username: &str, now: Instant) -> Admission {
        let key = self.key(address, username);
        let refused_until = [
            self.by_user.get(&key).and_then(|count| count.refused_until),
            self.by_address.get(&key.0).and_then(|count| count.refused_until),
        ];
        if let Some(until) = refused_until.into_iter().flatten().max()
            && now < until
        {
            let left = (until - now).as_millis().div_ceil(1000);
            return Admission::Refused {
                retry_after_secs: u32::try_from(left).unwrap_or(u32::MAX),
            };
        }
        let failures = self.by_user.get(&key).map_or(0, |count| count.failures(now, self.window()));
        match self.delay(failures) {
            Duration::ZERO => Admission::Now,
            delay => Admission::After(delay),
        }
    }

    /// Counts a failure.
    pub fn failed(&mut self, address: IpAddr, username: &str, now: Instant) {
        let key = self.key(address, username);
        let window = self.window();
        let refusal = Duration::from_secs(self.config.refusal_secs.into());
        self.by_user.fail(key, now, window, self.config.failures_max, refusal);
        self.by_address.fail(key.0, now, window, self.config.address_failures_max, refusal);
    }

    /// Forgets the failures of `username` from `address`.
    pub fn succeeded(&mut self, address: IpAddr, username: &str) {
        let key = self.key(address, username);
        self.by_user.clear(&key);
    }

    fn key(&self, address: IpAddr, username: &str) -> (IpAddr, u64) {
        (network(address), self.user_names.hash_one(username))
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

/// The address that an attacker cannot change at will.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & (u128::MAX << 64);
            Ipv6Addr::from(prefix).into()
        }
    }
}

#[derive(Clone, Copy)]
struct Count {
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

/// Counts by key, a bounded number of them.
struct Counts<K> {
    counts: HashMap<K, Count>,
    /// The keys of `counts`, each once, the one that came first in front.
    in_order: VecDeque<K>,
    entries_max: usize,
}

impl<K: Copy + Eq + Hash> Counts<K> {
    /// How many old counts may be passed over for being in use, before one goes all the same.
    const SECOND_CHANCES: usize = 8;

    fn new(entries_max: usize) -> Self {
        Self { counts: HashMap::new(), in_order: VecDeque::new(), entries_max }
    }

    fn get(&self, key: &K) -> Option<&Count> {
        self.counts.get(key)
    }

    fn fail(
        &mut self,
        key: K,
        now: Instant,
        window: Duration,
        failures_max: u32,
        refusal: Duration,
    ) {
        if failures_max == 0 || self.entries_max == 0 {
            return;
        }
        if !self.counts.contains_key(&key) {
            self.make_room(now, window);
            self.in_order.push_back(key);
        }
        let count = self.counts.entry(key).or_insert(Count {
            failures: 0,
            counting_since: now,
            refused_until: None,
        });
        count.failures = count.failures(now, window);
        if count.failures == 0 {
            count.counting_since = now;
        }
        count.failures += 1;
        if count.failures >= failures_max {
            count.refused_until = Some(now + refusal);
            count.failures = 0;
        }
    }

    /// The entry stays until it is the oldest, or keys that alternate between failure and
    /// success would stand in line twice.
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
