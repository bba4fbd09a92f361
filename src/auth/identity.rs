//! The identity of a client or caller, once its credentials were accepted.
//!
//! Plain data. Made by authenticators, kept with sessions, read by authorizers.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Attributes, AuthenticationError, Groups, OwnRules, Prepared};
use crate::mqtt::Timestamp;

/// The subject of a client certificate that was verified by the TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject's Common Name.
    pub common_name: String,
    /// The serial number, in lower-case hexadecimal without separators.
    pub serial_number: String,
}

/// Maximum bytes of a user name that a source gives.
#[cfg(any(feature = "http-auth", feature = "jwt", feature = "postgres"))]
const USER_NAME_BYTES_MAX: usize = 4_096;
/// Beginnings of the user names that the broker itself gives: to API tokens, and to bridges.
#[cfg(any(feature = "http-auth", feature = "jwt", feature = "postgres"))]
const OWN_PREFIXES: [&str; 2] = ["token:", "bridge:"];

/// Returns whether an HTTP service, an issuer of tokens or a database may give this user name.
#[cfg(any(feature = "http-auth", feature = "jwt", feature = "postgres"))]
pub(super) fn is_user_name(name: &str) -> bool {
    (1..=USER_NAME_BYTES_MAX).contains(&name.len())
        && !name.chars().any(char::is_control)
        && !OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The result of a successful login. Logs name the user and how it logged in, and nothing else of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `None` for a client that was admitted without a user name.
    pub username: Option<Arc<str>>,
    /// The certificate that the client presented, if any.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// How the identity was proven.
    pub login: Login,
    /// For a certificate: whether the identity ends when the account of its Common Name is removed.
    pub needs_account: bool,
    /// The source of a [`Chain`](super::Chain) that has accepted the credentials; set by the chain.
    pub source: Option<Arc<str>>,
    /// When the credentials expire, for example those of a token. The connection then ends, unless the
    /// client has authenticated again; a caller over REST is refused.
    pub expires_at: Option<Timestamp>,
    /// Attributes of the client, for rules.
    pub attributes: Attributes,
    /// The groups that it belongs to, for rules.
    pub groups: Groups,
    /// The number of the credential that has proven it, if its account has several. The authenticator gives
    /// these numbers; `None` if it gives none.
    pub credential: Option<u64>,
    /// Rules of this identity alone, which its source has given.
    pub rules: OwnRules,
    /// When and how its source is asked again while the client stays connected.
    pub renewal: Renewal,
    /// Data that the authorizer has loaded for it; set by the broker.
    pub prepared: Prepared,
}

impl Identity {
    /// Returns the same identity, with credentials that expire at this time of the wall clock.
    #[must_use]
    pub fn expiring_at(mut self, time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.expires_at = Some(Timestamp(millis));
        self
    }

    /// Returns whether the credentials have expired.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// How an identity was proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Login {
    /// A user name and its password, over MQTT or by HTTP Basic.
    Password,
    /// A client certificate.
    Certificate,
    /// The method SCRAM-SHA-256.
    Scram,
    /// No proof: the client was admitted without credentials.
    Anonymous,
    /// A method of the embedding application.
    #[default]
    Other,
    /// Not known: an earlier version of the broker has stored the session without it. A condition on it is
    /// undecided. Does not occur in rules, logins or events.
    #[serde(skip)]
    Unknown,
}

/// Asks a source again about a client that it has admitted.
#[async_trait]
pub trait Renew: Send + Sync + 'static {
    /// Returns the current identity of the same user.
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
    /// Plans to ask `by` at this time, and again after each time that it is unavailable.
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
