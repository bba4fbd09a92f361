//! Answers that go on until their caller leaves: how many there are, and what ends them.
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

/// The callers that follow events at present, by account.
#[derive(Default)]
pub(super) struct Followers(Arc<Mutex<FollowerCounts>>);

#[derive(Default)]
struct FollowerCounts {
    all: usize,
    by_account: HashMap<Arc<str>, usize>,
}

/// A place among the followers; returned on drop.
pub(super) struct FollowerPlace {
    account: Arc<str>,
    counts: Arc<Mutex<FollowerCounts>>,
}

fn locked(counts: &Mutex<FollowerCounts>) -> MutexGuard<'_, FollowerCounts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Followers {
    /// Gives a caller a place.
    pub(super) fn enter(&self, api: &Api, caller: &HttpCaller) -> Result<FollowerPlace, ApiError> {
        let options = api.options();
        let account: Arc<str> = caller.identity.username.clone().unwrap_or_else(|| "".into());
        let mut counts = locked(&self.0);
        let own = counts.by_account.get(&account).copied().unwrap_or_default();
        if counts.all >= options.followers_max || own >= options.followers_per_account_max {
            return Err(ApiError::too_many_followers());
        }
        counts.all += 1;
        counts.by_account.insert(Arc::clone(&account), own + 1);
        Ok(FollowerPlace { account, counts: Arc::clone(&self.0) })
    }
}

impl Drop for FollowerPlace {
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
