//! Rate limits of callers: a token bucket for each account and for each address.
//!
//! Full buckets are removed, so the memory is limited by the calls of the last seconds and not by
//! the number of addresses.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwapOption;
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use super::{ApiError, CallRate};

/// Number of calls between two cleanups of the buckets.
const CLEAN_UP_EVERY: u32 = 4_096;

/// The buckets of all callers.
pub(super) struct Rates {
    accounts: Limit<Arc<str>>,
    addresses: Limit<IpAddr>,
}

impl Rates {
    pub(super) fn new(account: Option<CallRate>, address: Option<CallRate>) -> Self {
        Self { accounts: Limit::new(account), addresses: Limit::new(address) }
    }

    /// Changes the rates; one that stays the same goes on counting.
    pub(super) fn set(&self, account: Option<CallRate>, address: Option<CallRate>) {
        self.accounts.set(account);
        self.addresses.set(address);
    }

    /// Counts a call of an account, or refuses it.
    pub(super) fn check_account(&self, username: &Arc<str>) -> Result<(), ApiError> {
        self.accounts.check(username)
    }

    /// Counts a call from an address, or refuses it. A /64 of IPv6 counts as one caller, because
    /// one caller may use all its addresses.
    pub(super) fn check_address(&self, address: IpAddr) -> Result<(), ApiError> {
        let caller = match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64)).into(),
        };
        self.addresses.check(&caller)
    }
}

/// A rate that may be changed, or none.
pub(super) struct Limit<K: Clone + Hash + Eq>(ArcSwapOption<Buckets<K>>);

impl<K: Clone + Hash + Eq> Limit<K> {
    pub(super) fn new(rate: Option<CallRate>) -> Self {
        Self(ArcSwapOption::new(rate.map(Buckets::new)))
    }

    pub(super) fn set(&self, rate: Option<CallRate>) {
        if rate != self.0.load().as_ref().map(|buckets| buckets.rate) {
            self.0.store(rate.map(Buckets::new));
        }
    }

    pub(super) fn check(&self, caller: &K) -> Result<(), ApiError> {
        self.0.load().as_ref().map_or(Ok(()), |buckets| buckets.check(caller))
    }
}

struct Buckets<K: Clone + Hash + Eq> {
    rate: CallRate,
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
    calls: AtomicU32,
}

impl<K: Clone + Hash + Eq> Buckets<K> {
    fn new(rate: CallRate) -> Arc<Self> {
        let quota = Quota::per_second(rate.per_sec).allow_burst(rate.burst);
        Arc::new(Self {
            rate,
            limiter: RateLimiter::dashmap(quota),
            clock: DefaultClock::default(),
            calls: AtomicU32::new(0),
        })
    }

    fn check(&self, caller: &K) -> Result<(), ApiError> {
        if self.calls.fetch_add(1, Relaxed) % CLEAN_UP_EVERY == CLEAN_UP_EVERY - 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        self.limiter.check_key(caller).map_err(|not_until| {
            let wait = not_until.wait_time_from(self.clock.now());
            let retry_after_secs = u32::try_from(wait.as_millis().div_ceil(1000).max(1));
            ApiError::too_many_requests(retry_after_secs.unwrap_or(u32::MAX))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// The lowest rate, so that no token is added while a test runs.
    fn rates(burst: u32) -> Rates {
        let rate = CallRate { per_sec: NonZeroU32::MIN, burst: NonZeroU32::new(burst).unwrap() };
        Rates::new(Some(rate), Some(rate))
    }

    #[test]
    fn each_account_has_a_bucket_of_its_own() {
        let rates = rates(2);
        let (a, b) = ("a".into(), "b".into());
        assert_eq!(rates.check_account(&a), Ok(()));
        assert_eq!(rates.check_account(&a), Ok(()));
        let refused = ApiError::too_many_requests(1);
        assert_eq!(rates.check_account(&a), Err(refused));
        assert_eq!(rates.check_account(&b), Ok(()));
    }

    #[test]
    fn an_ipv6_caller_is_its_prefix_of_64_bits() {
        let rates = rates(1);
        let check = |address: &str| rates.check_address(address.parse().unwrap()).is_ok();
        assert!(check("2001:db8::1"));
        assert!(!check("2001:db8::ffff:2"));
        assert!(check("2001:db8:0:1::1"));
        assert!(check("192.0.2.1"));
        assert!(check("192.0.2.2"));
        assert!(!check("192.0.2.2"));
    }

    #[test]
    fn another_rate_counts_at_once_and_the_same_one_goes_on() {
        let rates = rates(1);
        let (caller, rate) = ([192, 0, 2, 1].into(), |burst| CallRate {
            per_sec: NonZeroU32::MIN,
            burst: NonZeroU32::new(burst).unwrap(),
        });
        assert_eq!(rates.check_address(caller), Ok(()));
        rates.set(None, Some(rate(1)));
        assert!(rates.check_address(caller).is_err(), "it has had its call");
        rates.set(None, Some(rate(2)));
        assert_eq!(rates.check_address(caller), Ok(()));
        rates.set(None, None);
        assert!((0..10).all(|_| rates.check_address(caller).is_ok()));
    }

    #[test]
    fn no_rate_means_no_limit() {
        let rates = Rates::new(None, None);
        for _ in 0..10_000 {
            assert_eq!(rates.check_address([192, 0, 2, 1].into()), Ok(()));
        }
    }
}
