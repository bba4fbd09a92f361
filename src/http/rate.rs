//! Rate limits of callers: a token bucket for each account and for each address, and what an account
//! is told of its bucket.
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

use actix_web::{HttpMessage as _, HttpRequest, HttpResponseBuilder, http::header::HeaderName};
use arc_swap::ArcSwapOption;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DefaultKeyedStateStore,
};

use super::{ApiError, CallRate};

/// Number of calls between two cleanups of the buckets.
const CLEAN_UP_EVERY: u32 = 4_096;
/// The quota, and the rest of it. (draft-ietf-httpapi-ratelimit-headers-10)
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

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

    /// Counts a call of an account, or refuses it. Returns the rest of the account's quota; `None`
    /// without a limit.
    pub(super) fn check_account(&self, username: &Arc<str>) -> Option<AccountQuota> {
        self.accounts.0.load().as_ref().map(|buckets| {
            let left = buckets.count(username);
            AccountQuota { rate: buckets.rate, left }
        })
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

/// The calls that an account has left, for the answer to its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AccountQuota {
    rate: CallRate,
    left: LeftInBucket,
}

/// The tokens left in a bucket after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftInBucket {
    /// The call counted, and these many may follow immediately.
    Calls(u32),
    /// The call was refused; another one is accepted after these seconds.
    NothingFor { secs: u32 },
}

impl AccountQuota {
    /// Returns the error of a call that was refused.
    pub(super) const fn outcome(&self) -> Result<(), u32> {
        match self.left {
            LeftInBucket::Calls(_) => Ok(()),
            LeftInBucket::NothingFor { secs } => Err(secs),
        }
    }

    /// Adds `RateLimit-Policy` and `RateLimit` to the answer to a call that has counted. The quota is
    /// the size of the bucket, its window the time in which an empty bucket fills, and the reset the
    /// time until it is full.
    pub(super) fn tell(request: &HttpRequest, response: &mut HttpResponseBuilder) {
        if let Some(quota) = request.extensions().get::<Self>() {
            quota.add_to(response);
        }
    }

    fn add_to(&self, response: &mut HttpResponseBuilder) {
        let CallRate { per_sec, burst } = self.rate;
        let left = match self.left {
            LeftInBucket::Calls(left) => left,
            LeftInBucket::NothingFor { .. } => 0,
        };
        let (quota, window) = (burst.get(), burst.get().div_ceil(per_sec.get()));
        let reset = (quota - left.min(quota)).div_ceil(per_sec.get());
        response.insert_header((RATE_LIMIT_POLICY, format!(r#""account";q={quota};w={window}"#)));
        response.insert_header((RATE_LIMIT, format!(r#""account";r={left};t={reset}"#)));
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
        match self.0.load().as_ref().map(|buckets| buckets.count(caller)) {
            None | Some(LeftInBucket::Calls(_)) => Ok(()),
            Some(LeftInBucket::NothingFor { secs }) => Err(ApiError::too_many_requests(secs)),
        }
    }
}

struct Buckets<K: Clone + Hash + Eq> {
    rate: CallRate,
    limiter: RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>,
    clock: DefaultClock,
    calls: AtomicU32,
}

impl<K: Clone + Hash + Eq> Buckets<K> {
    fn new(rate: CallRate) -> Arc<Self> {
        let quota = Quota::per_second(rate.per_sec).allow_burst(rate.burst);
        Arc::new(Self {
            rate,
            limiter: RateLimiter::dashmap(quota).with_middleware(),
            clock: DefaultClock::default(),
            calls: AtomicU32::new(0),
        })
    }

    fn count(&self, caller: &K) -> LeftInBucket {
        if self.calls.fetch_add(1, Relaxed) % CLEAN_UP_EVERY == CLEAN_UP_EVERY - 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        match self.limiter.check_key(caller) {
            Ok(state) => LeftInBucket::Calls(state.remaining_burst_capacity()),
            Err(not_until) => {
                let wait = not_until.wait_time_from(self.clock.now());
                let secs = u32::try_from(wait.as_millis().div_ceil(1000).max(1));
                LeftInBucket::NothingFor { secs: secs.unwrap_or(u32::MAX) }
            }
        }
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
        let left = |account: &str| rates.check_account(&account.into()).map(|quota| quota.left);
        assert_eq!(left("a"), Some(LeftInBucket::Calls(1)));
        assert_eq!(left("a"), Some(LeftInBucket::Calls(0)));
        assert_eq!(left("a"), Some(LeftInBucket::NothingFor { secs: 1 }));
        assert_eq!(left("b"), Some(LeftInBucket::Calls(1)));
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
