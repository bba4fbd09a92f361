//! Who somebody is, and what they may do: the traits, and the implementations that read files.
//!
//! An [`Authenticator`] turns what a client shows into an [`Identity`]; an [`Authorizer`] decides
//! about one action of that identity. MQTT clients and REST callers go through the same two. An
//! [`EnhancedAuthenticator`] does for MQTT 5.0 clients what takes more than one message.
//! Nothing here knows a session, an actor or HTTP.

pub mod accounts;
mod attempts;
mod authenticator;
mod enhanced;
mod file;
mod hashing;
mod known;
mod origin;
mod password;
pub mod policy;
mod recent;
mod scram;
mod standing;
pub mod throttle;
mod throttled;
mod verified;
mod waiting;

pub use accounts::{
    Accounts, User, UserNameError, add_user, check_user_name, remove_user, set_disabled,
    set_password,
};
pub use attempts::LoginCounts;
pub use authenticator::{AuthenticationConfig, FileAuthenticator};
pub use enhanced::{EnhancedAuthenticator, Exchange, ExchangeStart, Step};
pub use file::FileError;
pub use known::{LoginKey, LoginLedger};
pub use password::{PasswordHashError, StoredPassword, generate_password, hash_password};
pub use policy::{FilePolicy, Network, NetworkError, Rule};
pub use scram::{
    SCRAM_ITERATIONS, SCRAM_ITERATIONS_DEFAULT, ScramKeys, ScramKeysError, ScramSha256,
};
pub use standing::Standing;
pub use throttle::{Admission, FailureThrottle, Lockout, ThrottleConfig};
pub use throttled::Throttled;

pub(crate) use enhanced::{BoundedExchange, ExchangeBounds, Methods};

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{limits::OwnLimits, mqtt::QoS};

/// What somebody shows when a connection or an HTTP request begins.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// Client identifier of an MQTT CONNECT; `None` for REST callers.
    pub client_id: Option<&'a str>,
    /// User name of CONNECT or of HTTP Basic.
    pub username: Option<&'a str>,
    /// Password of CONNECT or of HTTP Basic.
    pub password: Option<&'a [u8]>,
    /// The client certificate that the TLS handshake has verified.
    pub certificate: Option<&'a ClientCertificate>,
    /// Where the connection comes from.
    pub peer: SocketAddr,
    /// The listener that accepted it, by its URL.
    pub listener: &'a str,
    /// What holds for logins at this listener.
    pub rules: ListenerLogins,
    /// The same credentials were accepted before on the same connection, so that nothing is
    /// guessed: they are looked at whatever attempts of others have failed.
    pub proven: bool,
}

/// What holds for logins at one listener, in place of what holds for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerLogins {
    /// Whether clients without user name and certificate are let in.
    pub anonymous: Option<bool>,
    /// Whether a certificate is good only with an account of its Common Name.
    pub certificate_needs_account: Option<bool>,
}

impl<'a> Credentials<'a> {
    /// Nothing is shown, on a connection that came from `peer` to `listener`.
    #[must_use]
    pub const fn new(peer: SocketAddr, listener: &'a str) -> Self {
        Self {
            client_id: None,
            username: None,
            password: None,
            certificate: None,
            peer,
            listener,
            rules: ListenerLogins { anonymous: None, certificate_needs_account: None },
            proven: false,
        }
    }
}

/// The subject of a client certificate that was verified by the TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject's Common Name.
    pub common_name: String,
    /// The serial number, in lower-case hexadecimal without separators.
    pub serial_number: String,
}

/// Somebody whose credentials were found right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `None` for a client that was admitted without a user name.
    pub username: Option<Arc<str>>,
    /// The certificate that they showed, if any.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// What the identity rests on.
    pub login: Login,
    /// Of a certificate's identity: whether it ends with the account of its name.
    pub needs_account: bool,
}

/// What an identity rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// A user name and its password, over MQTT or by HTTP Basic.
    Password,
    /// A client certificate.
    Certificate,
    /// The method SCRAM-SHA-256.
    Scram,
    /// Nothing: the client was admitted without credentials.
    Anonymous,
    /// A method of the embedding application.
    #[default]
    Other,
}

/// Why credentials were not accepted. Neither says whether the user exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// Wrong, or missing where they are needed.
    #[error("user name or password is wrong")]
    BadCredentials,
    /// Too many failures from this address; not even looked at.
    #[error("too many failed attempts, try again in {retry_after_secs} s")]
    TooManyAttempts {
        /// Seconds until an attempt is looked at again.
        retry_after_secs: u32,
    },
    /// The identity is known and is not to connect this way (for example a client identifier
    /// that is not its certificate's Common Name).
    #[error("not allowed to connect this way")]
    NotAllowed,
    /// The user name is not the Common Name of the certificate beside it.
    #[error("the user name is not the Common Name of the certificate")]
    OtherThanCertificate,
    /// The certificate is good, and there is no account of its Common Name, which is needed.
    #[error("the Common Name of the certificate has no account")]
    NoAccount,
    /// The check itself could not be made.
    #[error("credentials cannot be checked now")]
    Unavailable,
}

/// Checks credentials.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The identity behind `credentials`. May take its time: it never runs on a shard's data path.
    /// An MQTT client waits for it no longer than `authentication_secs_max` of the limits; then it
    /// is dropped, wherever it is.
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError>;

    /// Returns a number that grows whenever earlier successes may no longer hold.
    fn generation(&self) -> u64 {
        0
    }

    /// Returns what has become of an identity that was found right when the generation was `since`.
    /// It is asked after [`Broker::recheck`](crate::Broker::recheck), on a shard's thread, and must
    /// answer from memory at once.
    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        let _ = (identity, since);
        Standing::Good
    }

    /// Takes the ledger in which it may keep what it learns of logins. A broker with a store calls
    /// it once, before anybody may connect.
    fn keep_logins_in(&self, ledger: Arc<dyn LoginLedger>) {
        drop(ledger);
    }

    /// Returns what it counts of logins, for the metrics.
    fn login_counts(&self) -> LoginCounts {
        LoginCounts::default()
    }

    /// Returns limits of the user's own, in place of those that each user has. Asked when the user
    /// connects, and for what the store has of it; answers from memory at once.
    fn limits_of(&self, username: &str) -> Option<OwnLimits> {
        let _ = username;
        None
    }
}

#[async_trait]
impl<T: Authenticator + ?Sized> Authenticator for Arc<T> {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        (**self).authenticate(credentials).await
    }

    fn generation(&self) -> u64 {
        (**self).generation()
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        (**self).standing(identity, since)
    }

    fn keep_logins_in(&self, ledger: Arc<dyn LoginLedger>) {
        (**self).keep_logins_in(ledger);
    }

    fn login_counts(&self) -> LoginCounts {
        (**self).login_counts()
    }

    fn limits_of(&self, username: &str) -> Option<OwnLimits> {
        (**self).limits_of(username)
    }
}

/// Something that somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Connect as the client. Over REST it opens the two calls of one client id: to change its
    /// Keep Alive and to ask for its status.
    Connect,
    /// Look at the client over REST: its status, its state.
    Observe,
    /// Change the client's live session over REST: its Keep Alive, its connection.
    Control,
    /// Run the broker over REST: users, rules, bans, payloads of others.
    Administer,
    /// Publish, or have a Will published.
    Publish {
        /// Topic Name.
        topic: &'a str,
        /// Quality of Service.
        qos: QoS,
        /// The RETAIN flag.
        retain: bool,
    },
    /// Subscribe.
    Subscribe {
        /// Topic Filter, without the `$share/{name}/` of a shared subscription.
        filter: &'a str,
        /// Maximum QoS asked for.
        qos: QoS,
    },
}

/// The question that an [`Authorizer`] answers.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// Who asks.
    pub identity: &'a Identity,
    /// The client identifier concerned: one's own over MQTT, the target's over REST.
    pub client_id: &'a str,
    /// Where the connection comes from.
    pub peer: SocketAddr,
    /// The listener that accepted it, by its URL (`mqtts://[::]:8883`); empty if nobody knows.
    pub listener: &'a str,
    /// What is asked.
    pub action: Action<'a>,
}

/// The answer of an [`Authorizer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go ahead.
    Allow,
    /// Do not.
    Deny,
}

/// Decides what an identity may do.
///
/// It is asked on a shard's thread and must answer from memory at once. Decisions on publishing
/// are kept by the connection until [`Authorizer::generation`] changes.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether the action is allowed.
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision;

    /// A number that changes whenever an earlier decision may no longer hold.
    fn generation(&self) -> u64 {
        0
    }
}

impl<T: Authorizer + ?Sized> Authorizer for Arc<T> {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        (**self).authorize(request)
    }

    fn generation(&self) -> u64 {
        (**self).generation()
    }
}

/// Lets nobody in and nothing happen: what holds until somebody else is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct DenyAll;

#[async_trait]
impl Authenticator for DenyAll {
    async fn authenticate(&self, _: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        Err(AuthenticationError::BadCredentials)
    }
}

impl Authorizer for DenyAll {
    fn authorize(&self, _: &AccessRequest<'_>) -> Decision {
        Decision::Deny
    }
}

/// Lets everybody in, with whatever user name they give, and everything happen: for tests and
/// for networks where nobody else is.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

#[async_trait]
impl Authenticator for AllowAll {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        Ok(Identity {
            username: credentials.username.map(Into::into),
            certificate: credentials.certificate.cloned().map(Arc::new),
            login: match (credentials.certificate, credentials.username) {
                (Some(_), _) => Login::Certificate,
                (None, Some(_)) => Login::Password,
                (None, None) => Login::Anonymous,
            },
            needs_account: false,
        })
    }
}

impl Authorizer for AllowAll {
    fn authorize(&self, _: &AccessRequest<'_>) -> Decision {
        Decision::Allow
    }
}
