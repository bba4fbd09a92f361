//! Calls that take long: how many of each kind there are, of one account and in all, and what ends
//! answers that go on until their caller leaves.
//!
//! Knows nothing of what they say. Used by the calls with such answers; the server of the program
//! watches their connections in another way than those of other calls.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::{Api, ApiError, admission::HttpCaller};
use crate::{auth::Standing, mqtt::Timestamp};

/// Marks a response whose body has no end, in the extensions of the response.
pub(super) struct LiveAnswer;

/// Cancelled when the server of a connection begins to stop, in the data of the connection.
pub(super) struct ServerEnding(pub(super) CancellationToken);

/// Maximum number of calls that wait for deliveries or replies.
const WAITING_MAX: usize = 1_000;
/// The same of one account.
const WAITING_PER_ACCOUNT_MAX: usize = 500;

/// The callers that follow events at present.
#[derive(Default)]
pub(super) struct Followers(CallerPlaces);

/// The calls that wait at present for what becomes of their messages.
#[derive(Default)]
pub(super) struct WaitingCallers(CallerPlaces);

/// Places of calls of one kind, counted by account.
#[derive(Default)]
struct CallerPlaces(Arc<Mutex<CallerCounts>>);

#[derive(Default)]
struct CallerCounts {
    all: usize,
    by_account: HashMap<Arc<str>, usize>,
}

/// A place of a call; returned on drop.
pub(super) struct CallerPlace {
    account: Arc<str>,
    counts: Arc<Mutex<CallerCounts>>,
}

fn locked(counts: &Mutex<CallerCounts>) -> MutexGuard<'_, CallerCounts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CallerPlaces {
    /// Gives a caller a place, if fewer than `max` are taken and fewer than `own_max` by its account.
    fn enter(&self, caller: &HttpCaller, max: usize, own_max: usize) -> Option<CallerPlace> {
        let account: Arc<str> = caller.identity.username.clone().unwrap_or_else(|| "".into());
        let mut counts = locked(&self.0);
        let own = counts.by_account.get(&account).copied().unwrap_or_default();
        if counts.all >= max || own >= own_max {
            return None;
        }
        counts.all += 1;
        counts.by_account.insert(Arc::clone(&account), own + 1);
        Some(CallerPlace { account, counts: Arc::clone(&self.0) })
    }
}

impl Followers {
    /// Gives a caller a place.
    pub(super) fn enter(&self, api: &Api, caller: &HttpCaller) -> Result<CallerPlace, ApiError> {
        let options = api.options();
        let (max, own_max) = (options.followers_max, options.followers_per_account_max);
        self.0.enter(caller, max, own_max).ok_or_else(ApiError::too_many_followers)
    }
}

impl WaitingCallers {
    /// Gives a caller a place.
    pub(super) fn enter(&self, caller: &HttpCaller) -> Result<CallerPlace, ApiError> {
        let place = self.0.enter(caller, WAITING_MAX, WAITING_PER_ACCOUNT_MAX);
        place.ok_or_else(ApiError::too_many_waiting)
    }
}

impl Drop for CallerPlace {
    fn drop(&mut self) {
        let mut counts = locked(&self.counts);
        counts.all -= 1;
        if let Some(own) = counts.by_account.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                counts.by_account.remove(&self.account);
            }
        }
    }
}

/// Checks whether a caller that was admitted once may still be answered.
pub(super) struct StandingCheck {
    /// The generation of the accounts when the caller was admitted.
    admitted_at: u64,
    /// The generation of the accounts at the last check.
    checked_at: u64,
    /// The generation of the rules for which its permissions were loaded.
    rules: u64,
}

impl StandingCheck {
    /// Notes the state of accounts and rules. Called before the caller is admitted.
    pub(super) fn begin(api: &Api) -> Self {
        let accounts = api.0.authenticator.generation();
        let rules = api.0.authorizer.generation();
        Self { admitted_at: accounts, checked_at: accounts, rules }
    }

    /// Returns whether the credentials still hold. Costs little while nothing has changed.
    pub(super) fn holds(&mut self, api: &Api, caller: &HttpCaller) -> bool {
        let identity = &caller.identity;
        let now: Timestamp = api.0.clock.now();
        // What was loaded for the caller belongs to former rules. Calling again loads it again.
        let is_outdated =
            !identity.prepared.is_empty() && api.0.authorizer.generation() != self.rules;
        if !api.is_ready() || identity.has_expired(now) || is_outdated {
            return false;
        }
        let accounts = api.0.authenticator.generation();
        if accounts == self.checked_at {
            return true;
        }
        self.checked_at = accounts;
        let rules = api.logins_at(caller.listener());
        let authenticator = &api.0.authenticator;
        authenticator.standing_at(identity, self.admitted_at, rules) == Standing::Good
    }
}

#[cfg(test)]
mod tests {
    use crate::auth::Identity;

    use super::*;

    #[test]
    fn an_account_has_half_of_the_places_of_calls_that_wait() {
        let waiting = WaitingCallers::default();
        let caller = |name: &str| {
            HttpCaller::of(Identity { username: Some(name.into()), ..Identity::default() })
        };
        let enter = |name: &str| waiting.enter(&caller(name));
        let mut places: Vec<_> = (0..WAITING_PER_ACCOUNT_MAX).map(|_| enter("ann").ok()).collect();
        assert!(places.iter().all(Option::is_some));
        assert_eq!(enter("ann").err(), Some(ApiError::too_many_waiting()));
        places.extend((0..WAITING_PER_ACCOUNT_MAX).map(|_| enter("bob").ok()));
        assert!(places.iter().all(Option::is_some));
        assert_eq!(enter("eve").err(), Some(ApiError::too_many_waiting()));
        places.pop();
        assert!(enter("eve").is_ok());
        drop(places);
        assert!(locked(&waiting.0.0).by_account.is_empty());
    }
}
