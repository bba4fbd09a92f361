//! Renews an identity while its client stays connected.
//!
//! Made by a source whose answers hold for a time. The shard says when, the connection waits.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{AuthenticationError, Identity};
use crate::mqtt::Timestamp;

/// Asks a source again about a client that it has admitted.
#[async_trait]
pub trait Renew: Send + Sync + 'static {
    /// Returns the identity as it is now: of the same user.
    ///
    /// # Errors
    /// The connection ends, except after [`AuthenticationError::Unavailable`]: then the source is asked
    /// again, until the identity expires.
    async fn renew(&self) -> Result<Identity, AuthenticationError>;
}

/// When and how an identity is renewed. It may hold the client's credentials, so nothing shows it.
/// Cloning copies a pointer; two are equal if they point to the same value.
#[derive(Clone, Default)]
pub struct Renewal(Option<Due>);

#[derive(Clone)]
struct Due {
    at: Timestamp,
    by: Arc<dyn Renew>,
}

impl Renewal {
    /// Has `by` asked at this time, and once more each time it is unavailable.
    #[must_use]
    pub fn new(at: Timestamp, by: Arc<dyn Renew>) -> Self {
        Self(Some(Due { at, by }))
    }

    /// Returns when the identity is renewed; `None` if it is not.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        self.0.as_ref().map(|due| due.at)
    }

    /// Asks the source now; `None` if there is none to ask.
    pub async fn renew(&self) -> Option<Result<Identity, AuthenticationError>> {
        Some(self.0.as_ref()?.by.renew().await)
    }

    pub(crate) fn by(&self) -> Option<Arc<dyn Renew>> {
        self.0.as_ref().map(|due| Arc::clone(&due.by))
    }
}

impl PartialEq for Renewal {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => one.at == other.at && Arc::ptr_eq(&one.by, &other.by),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

impl Eq for Renewal {}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Renewal").field(&self.at()).finish()
    }
}
