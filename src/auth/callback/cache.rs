//! The cache of answers of the service, and the calls that are under way.
//!
//! The key of an answer is a keyed hash of its request, so the cache has no password. Equal requests share one
//! call.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::hmac;
use futures_util::future::{FutureExt as _, Shared, WeakShared};
use indexmap::IndexMap;
use tokio::time::Instant;

use super::answer::ServiceVerdict;

/// The keyed hash of a request.
pub(super) type RequestKey = [u8; 32];

/// An answer, or nothing if the service has failed.
pub(super) type ServiceReply = Option<Arc<ServiceVerdict>>;

/// A call that several logins wait for.
pub(super) type Call = Shared<Begun>;

/// A call before it is shared.
type Begun = Pin<Box<dyn Future<Output = ServiceReply> + Send>>;

/// Answers and calls.
pub(super) struct Answers {
    secret: hmac::Key,
    kept: Mutex<KeptReplies>,
    under_way: Mutex<HashMap<RequestKey, WeakShared<Begun>>>,
}

struct KeptReplies {
    /// The answers in the order in which they came, each with the time until which it is valid.
    answers: IndexMap<RequestKey, (Instant, Arc<ServiceVerdict>)>,
    entries_max: usize,
}

impl Answers {
    pub(super) fn new(entries_max: usize) -> Self {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).expect("the operating system has random bytes");
        Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            kept: Mutex::new(KeptReplies { answers: IndexMap::new(), entries_max }),
            under_way: Mutex::default(),
        }
    }

    pub(super) fn key_of(&self, request: &[u8]) -> RequestKey {
        let tag = hmac::sign(&self.secret, request);
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Returns a cached answer that is still valid.
    pub(super) fn find(&self, key: &RequestKey) -> Option<Arc<ServiceVerdict>> {
        let mut kept = self.kept();
        let (until, verdict) = kept.answers.get(key)?;
        if *until > Instant::now() {
            return Some(Arc::clone(verdict));
        }
        kept.answers.swap_remove(key);
        None
    }

    /// Caches an answer for about this time. The time varies by a tenth, so that answers that came together do
    /// not expire together.
    pub(super) fn keep(&self, key: RequestKey, verdict: Arc<ServiceVerdict>, time: Duration) {
        let mut kept = self.kept();
        kept.answers.swap_remove(&key);
        if time.is_zero() || kept.entries_max == 0 {
            return;
        }
        while kept.answers.len() >= kept.entries_max {
            // Near the oldest: removing the first one in order would move all others.
            kept.answers.swap_remove_index(0);
        }
        let until = Instant::now() + jittered(time, &key);
        kept.answers.insert(key, (until, verdict));
    }

    /// Returns the call for a request: the one that is under way, or a new one that `begin` makes.
    pub(super) fn call(&self, key: RequestKey, begin: impl FnOnce() -> Begun) -> Call {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(call) = under_way.get(&key).and_then(WeakShared::upgrade)
            // A finished call is old: its answer is in the cache, if it may be kept.
            && call.peek().is_none()
        {
            return call;
        }
        // Calls that nobody waits for any more are removed here; each call adds one.
        if under_way.len() == under_way.capacity() {
            under_way.retain(|_, call| call.upgrade().is_some_and(|call| call.peek().is_none()));
        }
        // Made under the lock, so that two equal requests never begin two calls.
        let call = begin().shared();
        if let Some(weak) = call.downgrade() {
            under_way.insert(key, weak);
        }
        call
    }

    fn kept(&self) -> MutexGuard<'_, KeptReplies> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a time from 90 to 110 % of this one, by the random bytes of a key.
pub(super) fn jittered(time: Duration, key: &RequestKey) -> Duration {
    time.mul_f64(0.9 + f64::from(key[0]) / 255.0 * 0.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_are_kept_for_a_time_and_up_to_a_number() {
        let answers = Answers::new(2);
        let keys = [b"a", b"b", b"c"].map(|request| answers.key_of(request));
        assert_ne!(keys[0], keys[1]);
        for key in keys {
            answers.keep(key, Arc::new(ServiceVerdict::Deny), Duration::from_secs(10));
        }
        let there = |key| answers.find(key).is_some();
        assert_eq!(keys.each_ref().map(there).iter().filter(|there| **there).count(), 2);
        tokio::time::advance(Duration::from_millis(8_900)).await;
        assert!(there(&keys[2]));
        tokio::time::advance(Duration::from_millis(2_200)).await;
        assert!(!keys.iter().any(there));
        answers.keep(keys[0], Arc::new(ServiceVerdict::Deny), Duration::ZERO);
        assert!(!there(&keys[0]));
    }

    #[tokio::test]
    async fn the_same_request_is_sent_once_at_a_time() {
        let answers = Answers::new(2);
        let key = answers.key_of(b"a");
        let begun = std::sync::atomic::AtomicU32::new(0);
        let call = || {
            answers.call(key, || {
                begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Box::pin(async { Some(Arc::new(ServiceVerdict::Ignore)) })
            })
        };
        let (one, other) = (call(), call());
        assert_eq!((one.await, other.await).1, Some(Arc::new(ServiceVerdict::Ignore)));
        assert_eq!(begun.load(std::sync::atomic::Ordering::Relaxed), 1);
        call().await;
        assert_eq!(begun.load(std::sync::atomic::Ordering::Relaxed), 2, "the first is over");
    }
}
