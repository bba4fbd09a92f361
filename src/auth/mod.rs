//! Authentication and authorization: the traits, and the implementations that read files.
//!
//! An [`Authenticator`] turns the credentials of a client into an [`Identity`]; an [`Authorizer`]
//! decides about one action of that identity. MQTT clients and REST callers go through the same
//! two. An [`EnhancedAuthenticator`] serves MQTT 5.0 clients with methods that take more than one
//! message. Several authenticators are a [`Chain`]. Nothing here knows a session, an actor or HTTP.

mod access;
mod attributes;
#[cfg(any(feature = "http-auth", feature = "postgres"))]
mod breaker;
#[cfg(feature = "accounts")]
#[cfg_attr(
    not(feature = "scram"),
    expect(dead_code, reason = "SCRAM alone needs decoys and proofs")
)]
mod builtin;
#[cfg(feature = "http-auth")]
mod callback;
mod chain;
mod enhanced;
mod everybody;
mod explained;
mod failures;
mod fault;
mod groups;
mod hidden_text;
mod identity;
#[cfg(feature = "jwt")]
mod jwt;
mod logins;
mod network;
#[cfg(any(feature = "accounts", feature = "http"))]
mod object;
#[cfg_attr(not(feature = "accounts"), expect(dead_code, reason = "accounts need more of it"))]
mod origin;
mod own_rules;
#[cfg(feature = "postgres")]
mod postgres;
mod precedence;
mod prepared;
mod preparing;
mod revoked;
mod standing;
#[cfg_attr(not(feature = "accounts"), expect(dead_code, reason = "accounts need more of it"))]
pub mod throttle;
mod throttled;
#[cfg(any(feature = "accounts", feature = "http"))]
#[cfg_attr(
    not(any(feature = "accounts", test)),
    expect(dead_code, reason = "accounts need more of it")
)]
mod waiting;

pub use access::{AccessRequest, Action, Decision};
pub use attributes::{Attributes, AttributesError};
#[cfg(feature = "accounts")]
pub use builtin::*;
#[cfg(feature = "http-auth")]
pub use callback::{AnswerForm, HttpAuthConfig, HttpAuthError, HttpAuthenticator};
pub use chain::{Chain, Source};
pub use enhanced::{EnhancedAuthenticator, Exchange, ExchangeStart, Step};
pub use everybody::{AllowAll, DenyAll};
pub use explained::{Explanation, RulePlace, RuleText, RuleTextError, StoredRules};
pub use failures::FailedLogins;
pub use fault::AuthenticationFault;
pub use groups::{Groups, GroupsError};
pub use hidden_text::HiddenText;
pub use identity::{ClientCertificate, Identity, Login, Renew, Renewal};
#[cfg(feature = "jwt")]
pub use jwt::{JWT_METHOD, JwtAuthenticator, JwtConfig, JwtError, TokenPlace};
pub use logins::{LoginCounts, LoginKey, LoginLedger};
pub use network::{Network, NetworkError};
pub use own_rules::OwnRules;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresAuthenticator, PostgresConfig, PostgresError};
pub use precedence::Precedence;
pub use prepared::Prepared;
pub use preparing::{Preparation, PrepareError, PrepareRequest};
pub use revoked::RevokedCertificates;
pub use standing::Standing;
pub use throttle::{Admission, FailureThrottle, Lockout, ThrottleConfig};
pub use throttled::Throttled;

pub(crate) use enhanced::{BoundedExchange, ExchangeBounds, Methods};
#[cfg(any(feature = "accounts", feature = "http"))]
pub(crate) use object::JsonObject;
#[cfg(feature = "http")]
pub(crate) use origin::Origin;
#[cfg(feature = "http")]
pub(crate) use preparing::in_time;
pub(crate) use preparing::{Patience, prepare, prepare_each};
#[cfg(feature = "http")]
pub(crate) use waiting::WaitingRoom;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use async_trait::async_trait;

use crate::{limits::OwnLimits, metrics::SourceMetrics};

/// The beginning of the client identifiers of bridges. No client that logs in may have such a one.
pub(crate) const BRIDGE_CLIENTS: &str = "$bridge/";
/// The User Property of CONNECT by which a bridge of another broker names its broker, and of CONNACK by
/// which this broker answers with its own identifier.
pub(crate) const BROKER_PROPERTY: &str = "hearthmq-broker";

/// The credentials of a client or REST caller, when a connection or an HTTP request begins.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// Client identifier of an MQTT CONNECT; `None` for REST callers.
    pub client_id: Option<&'a str>,
    /// User name of CONNECT or of HTTP Basic.
    pub username: Option<&'a str>,
    /// Password of CONNECT or of HTTP Basic.
    pub password: Option<&'a [u8]>,
    /// Token of `Authorization: Bearer` (RFC 6750), without user name and password. An authenticator
    /// that does not know tokens of this kind passes.
    pub bearer: Option<&'a [u8]>,
    /// The client certificate, verified by the TLS handshake.
    pub certificate: Option<&'a ClientCertificate>,
    /// Address from which the connection comes.
    pub peer: SocketAddr,
    /// URL of the listener that accepted it.
    pub listener: &'a str,
    /// Login rules of this listener.
    pub rules: ListenerLogins,
    /// Whether the same credentials were accepted before on this connection. Such credentials are
    /// no guess: they are checked even while failures of other clients block the user name.
    pub proven: bool,
    /// Whether another authenticator is asked after [`AuthenticationError::NotMine`]. If so, an
    /// authenticator passes on each client that it does not know, before it computes or counts
    /// anything. If not, it decides about unknown clients as well.
    pub may_pass: bool,
}

/// Login rules of one listener; each one that is set replaces the rule for all listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerLogins {
    /// Whether clients without user name and certificate are let in.
    pub anonymous: Option<bool>,
    /// Whether a certificate is accepted only if its Common Name has an account.
    pub certificate_needs_account: Option<bool>,
    /// Whether the first certificate of a client identifier is pinned to it.
    pub pin_certificates: bool,
}

impl<'a> Credentials<'a> {
    /// Returns empty credentials for a connection from `peer` to `listener`.
    #[must_use]
    pub const fn new(peer: SocketAddr, listener: &'a str) -> Self {
        Self {
            client_id: None,
            username: None,
            password: None,
            bearer: None,
            certificate: None,
            peer,
            listener,
            rules: ListenerLogins {
                anonymous: None,
                certificate_needs_account: None,
                pin_certificates: false,
            },
            proven: false,
            may_pass: false,
        }
    }
}

/// Why credentials were not accepted. No variant reveals whether the user exists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// Credentials are wrong, or missing where they are required.
    #[error("user name or password is wrong")]
    BadCredentials,
    /// Too many failures from this address; the credentials were not checked.
    #[error("too many failed attempts, try again in {retry_after_secs} s")]
    TooManyAttempts {
        /// Seconds until an attempt is checked again.
        retry_after_secs: u32,
    },
    /// The credentials are right, but the client may not connect in this way (for example because
    /// its client identifier is not the Common Name of its certificate).
    #[error("not allowed to connect this way")]
    NotAllowed,
    /// The user name differs from the Common Name of the certificate.
    #[error("the user name is not the Common Name of the certificate")]
    OtherThanCertificate,
    /// The certificate is valid, but its Common Name has no account, and the configuration requires
    /// one.
    #[error("the Common Name of the certificate has no account")]
    NoAccount,
    /// The credentials could not be checked.
    #[error("credentials cannot be checked now")]
    Unavailable,
    /// The same with its cause, which the log names and no client sees: see
    /// [`AuthenticationFault::new`].
    #[error("credentials cannot be checked now: {0}")]
    Failed(#[from] AuthenticationFault),
    /// The authenticator does not know the client: the next one of its [`Chain`] is asked. If there
    /// is none, the client is refused as for [`AuthenticationError::BadCredentials`].
    #[error("user name or password is wrong")]
    NotMine,
}

/// Checks credentials.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Returns the identity behind `credentials`. May be slow: it never runs on a shard's data
    /// path. An MQTT client waits for it for `authentication_secs_max` of the limits at most; then
    /// the future is dropped, wherever it stands.
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError>;

    /// Returns the rank of these credentials among others that wait. When too many REST calls wait
    /// for their check, the last ones in rank give up their places. It is called on a thread that
    /// serves connections, and must answer from memory immediately.
    fn precedence(&self, credentials: &Credentials<'_>) -> Precedence {
        let _ = credentials;
        Precedence::default()
    }

    /// Returns a number that grows whenever earlier successes may no longer hold.
    fn generation(&self) -> u64 {
        0
    }

    /// Returns whether the same credentials would give this identity again, for as long as the generation stays
    /// the same and the identity does not expire. REST calls that follow each other on one connection, with the
    /// same credentials, are then checked once in some seconds only. An authenticator that asks somebody else says
    /// no. It must answer from memory.
    fn may_be_remembered(&self, identity: &Identity) -> bool {
        let _ = identity;
        false
    }

    /// Returns what has become of an identity that was proven when the generation was `since`. It
    /// is called after [`Broker::recheck`](crate::Broker::recheck), and at a start for every session
    /// in the store, with the generation of that moment. It is called on a shard's thread, and must
    /// answer from memory. At a start, the identity of a session without a user name has
    /// [`Login::Unknown`], because the method that let the client in may no longer exist.
    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        let _ = (identity, since);
        Standing::Good
    }

    /// Returns the same for an identity that logged in at a listener with these current rules.
    fn standing_at(&self, identity: &Identity, since: u64, rules: ListenerLogins) -> Standing {
        let _ = rules;
        self.standing(identity, since)
    }

    /// Returns the identity as the authenticator knows it now, if it has changed since the login: other
    /// groups or attributes, for example; `None` if it is as it was, or the authenticator does not keep
    /// it. It is called for each session that is checked again, and at a start for each session in the
    /// store, before `standing`; it must answer from memory.
    fn renewed(&self, identity: &Identity) -> Option<Identity> {
        let _ = identity;
        None
    }

    /// Takes the ledger in which the authenticator may store known logins. A broker
    /// with a store calls it once, before any client may connect.
    fn keep_logins_in(&self, ledger: Arc<dyn LoginLedger>) {
        drop(ledger);
    }

    /// Returns its counts of logins, for the metrics.
    fn login_counts(&self) -> LoginCounts {
        LoginCounts::default()
    }

    /// Returns its table of API tokens, if it has one. The broker fills the table from its store.
    #[cfg(feature = "accounts")]
    fn tokens(&self) -> Option<Arc<Tokens>> {
        None
    }

    /// Returns its counts of failed logins: of one user at an address, of an address, or of all addresses
    /// with failures.
    fn failed_logins(&self, address: Option<IpAddr>, username: Option<&str>) -> Vec<FailedLogins> {
        let _ = (address, username);
        Vec::new()
    }

    /// Forgets the failed logins of an address, of one user there or of all; returns whether there were
    /// any.
    fn forget_failures(&self, address: IpAddr, username: Option<&str>) -> bool {
        let _ = (address, username);
        false
    }

    /// Returns the limits of this user that replace the general limits of each user. Called when
    /// the user connects, and for each user in the store; must answer from memory.
    fn limits_of(&self, username: &str) -> Option<OwnLimits> {
        let _ = username;
        None
    }

    /// Returns whether it has an account of this name. A later authenticator of a [`Chain`] then cannot
    /// admit a client under it. It must answer from memory at once.
    fn has_user(&self, username: &str) -> bool {
        let _ = username;
        false
    }

    /// Returns whether it decides about clients that no authenticator of a [`Chain`] knows: it
    /// refuses an unknown user as it refuses a wrong password, in the same time, and counts the
    /// failure. The chain asks the first one that does.
    fn decides_about_strangers(&self) -> bool {
        false
    }

    /// Returns its methods of enhanced authentication. The broker asks once, when it starts.
    fn methods(&self) -> Option<Arc<dyn EnhancedAuthenticator>> {
        None
    }

    /// Returns the metrics of its sources, if it is a [`Chain`]. The broker asks once, when it starts.
    fn source_metrics(&self) -> Vec<Arc<SourceMetrics>> {
        Vec::new()
    }
}

#[async_trait]
impl<T: Authenticator + ?Sized> Authenticator for Arc<T> {
    // Passes the future on, because an `async fn` here would put it into one more on the heap.
    fn authenticate<'l, 'c, 'f>(
        &'l self,
        credentials: Credentials<'c>,
    ) -> Pin<Box<dyn Future<Output = Result<Identity, AuthenticationError>> + Send + 'f>>
    where
        'l: 'f,
        'c: 'f,
        Self: 'f,
    {
        (**self).authenticate(credentials)
    }

    fn may_be_remembered(&self, identity: &Identity) -> bool {
        (**self).may_be_remembered(identity)
    }

    fn precedence(&self, credentials: &Credentials<'_>) -> Precedence {
        (**self).precedence(credentials)
    }

    fn generation(&self) -> u64 {
        (**self).generation()
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        (**self).standing(identity, since)
    }

    fn standing_at(&self, identity: &Identity, since: u64, rules: ListenerLogins) -> Standing {
        (**self).standing_at(identity, since, rules)
    }

    fn renewed(&self, identity: &Identity) -> Option<Identity> {
        (**self).renewed(identity)
    }

    fn keep_logins_in(&self, ledger: Arc<dyn LoginLedger>) {
        (**self).keep_logins_in(ledger);
    }

    fn login_counts(&self) -> LoginCounts {
        (**self).login_counts()
    }

    #[cfg(feature = "accounts")]
    fn tokens(&self) -> Option<Arc<Tokens>> {
        (**self).tokens()
    }

    fn failed_logins(&self, address: Option<IpAddr>, username: Option<&str>) -> Vec<FailedLogins> {
        (**self).failed_logins(address, username)
    }

    fn forget_failures(&self, address: IpAddr, username: Option<&str>) -> bool {
        (**self).forget_failures(address, username)
    }

    fn limits_of(&self, username: &str) -> Option<OwnLimits> {
        (**self).limits_of(username)
    }

    fn has_user(&self, username: &str) -> bool {
        (**self).has_user(username)
    }

    fn decides_about_strangers(&self) -> bool {
        (**self).decides_about_strangers()
    }

    fn methods(&self) -> Option<Arc<dyn EnhancedAuthenticator>> {
        (**self).methods()
    }

    fn source_metrics(&self) -> Vec<Arc<SourceMetrics>> {
        (**self).source_metrics()
    }
}

/// Decides what an identity may do.
///
/// It is called on a shard's thread and must answer from memory; [`Authorizer::prepare`] may load data
/// before. The connection caches decisions on publishing until [`Authorizer::generation`] changes.
pub trait Authorizer: Send + Sync + 'static {
    /// Returns whether the action is allowed.
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision;

    /// Returns the same decision with the rule that makes it, for callers that ask why.
    fn explain(&self, request: &AccessRequest<'_>) -> Explanation {
        Explanation::new(self.authorize(request), None)
    }

    /// Returns the rules in the store, if it decides by such rules. The broker replaces them when it
    /// starts, and whenever a caller changes one.
    fn stored_rules(&self) -> Option<&dyn StoredRules> {
        None
    }

    /// Returns a number that changes whenever an earlier decision may no longer hold.
    fn generation(&self) -> u64 {
        0
    }

    /// Loads what later decisions about an identity need, for example the rules of its user from a
    /// database; `None`, the default, if nothing has to be loaded. The broker keeps the result with the
    /// identity ([`Identity::prepared`]).
    ///
    /// It is called after a login and before the first decision, for each session in the store before a
    /// start accepts clients, and for each session by [`Broker::recheck`](crate::Broker::recheck); for at
    /// most 64 sessions of a shard at the same time. Nothing is waited for when clients publish.
    ///
    /// # Errors
    /// A client that connects is refused with Server unavailable, as if no answer came within the time
    /// of CONNECT; a REST caller gets 503. A session in the store queues no messages until its client
    /// connects, or until the next recheck. At a recheck, a session keeps its former result.
    fn prepare<'a>(&'a self, request: PrepareRequest<'a>) -> Option<Preparation<'a>> {
        let _ = request;
        None
    }

    /// Returns whether its decisions depend on the attributes of identities. If so, they are stored
    /// with sessions, for decisions about clients that are away.
    fn uses_attributes(&self) -> bool {
        true
    }
}

impl<T: Authorizer + ?Sized> Authorizer for Arc<T> {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        (**self).authorize(request)
    }

    fn explain(&self, request: &AccessRequest<'_>) -> Explanation {
        (**self).explain(request)
    }

    fn stored_rules(&self) -> Option<&dyn StoredRules> {
        (**self).stored_rules()
    }

    fn generation(&self) -> u64 {
        (**self).generation()
    }

    fn prepare<'a>(&'a self, request: PrepareRequest<'a>) -> Option<Preparation<'a>> {
        (**self).prepare(request)
    }

    fn uses_attributes(&self) -> bool {
        (**self).uses_attributes()
    }
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("certificate", &self.certificate)
            .field("peer", &self.peer)
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}
