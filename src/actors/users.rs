//! How many sessions each user has, over all shards. It does not know what they are.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;

/// Sessions by user name; clients without one count together.
#[derive(Debug, Default)]
pub(crate) struct SessionsOfUsers {
    sessions: Mutex<HashMap<Option<Arc<str>>, u32, RandomState>>,
}

impl SessionsOfUsers {
    /// How many sessions a user has.
    pub(crate) fn of(&self, username: Option<&Arc<str>>) -> u32 {
        self.lock().get(&username.cloned()).copied().unwrap_or(0)
    }

    /// A session has begun.
    pub(crate) fn add(&self, username: Option<&Arc<str>>) {
        *self.lock().entry(username.cloned()).or_insert(0) += 1;
    }

    /// A session has ended.
    pub(crate) fn remove(&self, username: Option<&Arc<str>>) {
        let username = username.cloned();
        let mut sessions = self.lock();
        if let Some(count) = sessions.get_mut(&username) {
            *count -= 1;
            if *count == 0 {
                sessions.remove(&username);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<Arc<str>>, u32, RandomState>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
