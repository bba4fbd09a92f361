//! Requests about live clients: the types and the trait behind the REST calls.
//!
//! The broker's handle implements [`Control`]; `http` and embedding applications call it. Neither
//! side knows the other.

mod access;
mod advice;
mod bridges;
mod busiest;
mod certificates;
mod cluster;
mod contents;
mod error;
mod feed;
mod history;
mod keep_alive;
mod kick;
mod listening;
mod overrides;
mod pins;
mod publishing;
mod readiness;
mod rechecked;
mod requesting;
mod selector;
mod settings;
mod subscriptions;
#[cfg(test)]
mod tests;
mod topics;
mod traces;
mod users;
mod views;
mod whole;

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use futures_util::future::join_all;

pub(crate) use self::keep_alive::KEEP_ALIVE_SECS;
#[cfg(feature = "cluster")]
pub(crate) use self::selector::PlaceElsewhere;
pub use self::{
    access::{
        AccessChanged, AccessControl, AccessError, ApiToken, AuditEntry, Ban, BanSubject,
        CreateToken, CreatedToken, ExpectedRevision, ListAudit, ListBans, PutBan, PutRule,
        RemoveBan, RemoveRule, StoredRule,
    },
    advice::{
        AdviceCertainty, FatalSilences, KeepAliveAdvice, KeepAliveAdvicePage, ListKeepAliveAdvice,
        SurvivedSilences,
    },
    bridges::{
        BridgeControl, BridgeControlError, BridgeCounts, BridgeFault, BridgePhase, BridgeTopicView,
        BridgeView,
    },
    busiest::{BusyBy, BusyClient, ClientTraffic, FindBusiest},
    certificates::{
        CertificatePage, CertificatePlace, CertificatesChanged, CertificatesError,
        ClientCertificates, ConnectedCertificate, ListRevoked, RevokedCertificate,
    },
    cluster::{ClusterMailView, ClusterMemberView, ClusterState, ClusterView, MemberState},
    contents::{
        ClearQueue, ListQueue, ListSubscriptions, MessageProperties, QueuePage, QueuePosition,
        SubscriptionPage, SubscriptionView, WaitingMessage,
    },
    error::ControlError,
    feed::{
        EventId, FeedFilter, FeedItem, FeedKind, FeedPart, FeedPosition, FeedPositionError, Follow,
    },
    history::{LastEnd, ListHistory, PastConnection},
    keep_alive::{KeepAliveChanged, SetKeepAlive},
    kick::{Kick, KickOptions, KickReasonError, Kicked, WillOutcome, WillRequest},
    listening::{HeardMessage, HeardMessages, ListenTo},
    overrides::{KeepAliveOverride, ListOverrides, QueryOverride, RemoveOverride},
    pins::{CertificatePin, ListPins},
    publishing::{
        DELIVERY_WAIT_MAX, Deliveries, DeliveryStage, PublishRequest, Published, Publishing,
        WaitForDeliveries,
    },
    readiness::Readiness,
    rechecked::Rechecked,
    requesting::{DeviceReply, REPLY_WAIT_MAX, RequestReply},
    selector::{ClientSelector, SelectClients, SelectedClients, SelectionPlace},
    settings::{
        ChangeSettings, ClientSettings, ListSettings, QuerySettings, RemoveSettings,
        SettingsChange, SettingsChanged, SettingsOf, SettingsOfClients, StickySettings,
    },
    subscriptions::{ChangeSubscriptions, SubscriptionChange, SubscriptionsChanged},
    topics::{
        ClearRetained, FindReceivers, ListRetained, NodeView, ReceiverPage, RetainedPage,
        RetainedView, SubscribedTo, TopicReceiver,
    },
    traces::{
        ClientTraces, ReadTrace, StartTrace, TRACE_SECS, TRACE_SECS_MAX, TraceKind, TracePart,
        TraceRecord, TraceTarget, TraceView,
    },
    users::{
        AccountProperties, ChangeUser, ExistingUsers, ImportUsers, Imported, ListUsers,
        NewPassword, NewSecret, NewUser, SecretView, UserAccounts, UserChange, UserChanged,
        UserHashes, UserView, UsersError,
    },
    views::{
        CertificateFacts, ClientFilter, ClientPage, ClientSession, ClientSummary, ClientViews,
        CountClients, DroppedMessages, ListClients, Losing, MissingNode, OnlineState, TlsFacts,
    },
    whole::Control,
};
use crate::{
    auth::{AccessRequest, Action, Authorizer, Decision, Identity},
    mqtt::QoS,
};

/// Sends clients to another server: their connections end with DISCONNECT and, if their version has
/// it, a Server Reference. [MQTT 5.0, 4.11]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redirect {
    /// The clients to redirect.
    pub clients: Clients,
    /// The server to send them to.
    pub to: Redirection,
    /// Restricts `clients` to those that this caller may control; `None` means no restriction.
    pub caller: Option<Caller>,
}

/// The sender of a request, whose permission is checked for each client, where the client is. Plain
/// data, which can be sent to another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The identity.
    pub identity: Identity,
    /// Address from which the request came.
    pub peer: SocketAddr,
    /// URL of the listener that accepted it.
    pub listener: Arc<str>,
}

impl Caller {
    /// Returns whether the caller may change the live session of a client.
    #[must_use]
    pub fn may_control(&self, authorizer: &dyn Authorizer, client_id: &str) -> bool {
        self.may(authorizer, client_id, Action::Control)
    }

    /// Returns whether the caller may look at the live session of a client.
    #[must_use]
    pub fn may_observe(&self, authorizer: &dyn Authorizer, client_id: &str) -> bool {
        self.may(authorizer, client_id, Action::Observe)
    }

    /// Returns whether the caller may subscribe to a topic.
    #[must_use]
    pub fn may_subscribe(&self, authorizer: &dyn Authorizer, topic: &str) -> bool {
        let action = Action::Subscribe { filter: topic, qos: QoS::AtMostOnce };
        self.may(authorizer, "", action)
    }

    fn may(&self, authorizer: &dyn Authorizer, client_id: &str, action: Action<'_>) -> bool {
        let Self { identity, peer, listener } = self;
        let request = AccessRequest { identity, client_id, peer: *peer, listener, action };
        authorizer.authorize(&request) == Decision::Allow
    }
}

impl Redirect {
    /// Returns the request to send these clients to another server.
    #[must_use]
    pub const fn new(clients: Clients, to: Redirection) -> Self {
        Self { clients, to, caller: None }
    }

    /// Returns the request restricted to clients that this caller may control.
    #[must_use]
    pub fn by(mut self, caller: Caller) -> Self {
        self.caller = Some(caller);
        self
    }
}

/// A selection of connected clients.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clients {
    /// The client with this identifier.
    One(String),
    /// All clients whose identifier matches.
    Matching(ClientPattern),
}

/// A pattern for client identifiers: `*` matches any text, all other characters match themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPattern {
    /// The pattern without consecutive asterisks.
    text: Box<str>,
    /// Number of bytes that are not asterisks.
    literal_bytes: usize,
}

/// The longest possible client identifier. [MQTT 5.0, 1.5.4]
const CLIENT_ID_BYTES_MAX: usize = 65_535;
/// A limit, because a shard matches the pattern with each of its clients on the thread that serves
/// them.
const ASTERISKS_MAX: usize = 16;

impl ClientPattern {
    /// Parses a pattern. `*` alone matches all clients; consecutive asterisks count as one.
    ///
    /// # Errors
    /// The pattern has more than 16 asterisks, or more other bytes than a client identifier can
    /// have.
    pub fn new(pattern: &str) -> Result<Self, ClientPatternError> {
        let mut text = String::new();
        for character in pattern.chars() {
            if character != '*' || !text.ends_with('*') {
                text.push(character);
            }
        }
        let asterisks = text.matches('*').count();
        let literal_bytes = text.len() - asterisks;
        if asterisks > ASTERISKS_MAX || literal_bytes > CLIENT_ID_BYTES_MAX {
            return Err(ClientPatternError);
        }
        Ok(Self { text: text.into(), literal_bytes })
    }

    /// Returns whether the pattern matches all clients.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        *self.text == *"*"
    }

    /// Returns whether the pattern matches the whole `client_id`, in time proportional to its
    /// length. Text between two asterisks is searched once: its first occurrence is as good as any
    /// other.
    #[must_use]
    pub fn matches(&self, client_id: &str) -> bool {
        // Also what keeps prefix and suffix apart: together they may be longer than the identifier.
        if self.literal_bytes > client_id.len() {
            return false;
        }
        let Some((first, rest)) = self.text.split_once('*') else {
            return *self.text == *client_id;
        };
        let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let inner = client_id.strip_prefix(first).and_then(|inner| inner.strip_suffix(last));
        let mut pieces = between.split('*');
        inner.is_some_and(|mut inner| {
            pieces.all(|piece| {
                let found = inner.find(piece);
                inner = found.map_or("", |at| &inner[at + piece.len()..]);
                found.is_some()
            })
        })
    }
}

/// A text is an invalid pattern for client identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has at most 16 asterisks and 65535 other bytes")]
pub struct ClientPatternError;

impl ClientPattern {
    /// Returns the pattern without consecutive asterisks.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the text before the first asterisk, with which all matching identifiers begin.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.text.split('*').next().unwrap_or_default()
    }
}

/// Another server for clients to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirection {
    server_reference: Arc<str>,
    is_permanent: bool,
}

/// Small enough for the smallest packets that clients are likely to accept.
const SERVER_REFERENCE_BYTES_MAX: usize = 1024;

impl Redirection {
    /// Creates a redirection: Server moved (0x9D) if it is permanent, otherwise Use another server
    /// (0x9C). Clients interpret the reference; usually it is a list of `host:port`, separated by
    /// spaces.
    ///
    /// # Errors
    /// The reference is empty, longer than 1,024 bytes or has control characters.
    pub fn new(server_reference: &str, is_permanent: bool) -> Result<Self, ServerReferenceError> {
        let is_fine = (1..=SERVER_REFERENCE_BYTES_MAX).contains(&server_reference.len())
            && !server_reference.contains(char::is_control);
        if !is_fine {
            return Err(ServerReferenceError);
        }
        Ok(Self { server_reference: server_reference.into(), is_permanent })
    }

    /// Returns the Server Reference.
    #[must_use]
    pub const fn server_reference(&self) -> &Arc<str> {
        &self.server_reference
    }

    /// Returns whether clients should use the other server permanently.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        self.is_permanent
    }
}

/// A text is an invalid Server Reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a server reference has 1 to 1024 bytes of UTF-8 and no control characters")]
pub struct ServerReferenceError;

/// Changes and queries live clients. A part that is not implemented answers
/// [`ControlError::Unavailable`].
#[async_trait]
pub trait LiveClients: Send + Sync + 'static {
    /// Returns the next part of the feed of presence: a snapshot of the clients that are online, then
    /// every change.
    async fn follow(&self, _request: Follow) -> Result<FeedPart, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Changes the Keep Alive of a live connection.
    async fn set_keep_alive(
        &self,
        _request: SetKeepAlive,
    ) -> Result<KeepAliveChanged, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns whether a client is connected now; the live state, not a cache. An unknown
    /// identifier is not connected.
    async fn query_online(&self, _client_id: &str) -> Result<bool, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns whether a question about a client goes to another node, so that its answer may take longer than those
    /// of this node.
    fn is_elsewhere(&self, _client_id: &str) -> bool {
        false
    }

    /// Ends the connection of a client.
    async fn kick(&self, _request: Kick) -> Result<Kicked, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns some of the clients that a selector selects, and where to continue.
    async fn select_clients(
        &self,
        _request: SelectClients,
    ) -> Result<SelectedClients, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Ends the connections of many clients; returns an answer for each, in their order.
    async fn kick_each(&self, requests: Vec<Kick>) -> Vec<Result<Kicked, ControlError>> {
        join_all(requests.into_iter().map(|request| self.kick(request))).await
    }

    /// Changes the subscriptions of a connected client; returns a Reason Code for each change.
    async fn change_subscriptions(
        &self,
        _request: ChangeSubscriptions,
    ) -> Result<SubscriptionsChanged, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns the Keep Alive override of a client, if there is one.
    async fn query_override(
        &self,
        _request: QueryOverride,
    ) -> Result<Option<KeepAliveOverride>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Removes the Keep Alive override of a client; returns the one that was there.
    async fn remove_override(
        &self,
        _request: RemoveOverride,
    ) -> Result<Option<KeepAliveOverride>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns some Keep Alive overrides, in the order of the bytes of their Client Identifiers.
    async fn list_overrides(
        &self,
        _request: ListOverrides,
    ) -> Result<Vec<KeepAliveOverride>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Queries many clients; returns an answer for each, in their order.
    async fn query_each_online(
        &self,
        client_ids: Vec<String>,
    ) -> Vec<Result<OnlineState, ControlError>> {
        let asked = client_ids.iter().map(async |client_id| {
            let online = self.query_online(client_id).await?;
            Ok(OnlineState { online, node: None })
        });
        join_all(asked).await
    }

    /// Changes the Keep Alive of many clients; returns an answer for each, in their order.
    async fn set_each_keep_alive(
        &self,
        requests: Vec<SetKeepAlive>,
    ) -> Vec<Result<KeepAliveChanged, ControlError>> {
        join_all(requests.into_iter().map(|request| self.set_keep_alive(request))).await
    }
}

/// Sends clients to other servers. A part that is not implemented answers
/// [`ControlError::Unavailable`]; [`Redirects::drain`] then does nothing.
#[async_trait]
pub trait Redirects: Send + Sync + 'static {
    /// Redirects clients; returns how many were redirected. Dropping the future stops the redirect;
    /// clients that were redirected by then, or before an error, stay redirected.
    async fn redirect(&self, _request: Redirect) -> Result<usize, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Refuses new clients, as [`Redirects::drain`] does, and redirects the connected ones, as
    /// [`Redirects::redirect`] does. If that fails, or the future is dropped, the previous drain
    /// state is restored, unless another call has changed it meanwhile.
    async fn evacuate(&self, _request: Redirect) -> Result<usize, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Refuses new clients and names them another server; `None` accepts clients again. Connected
    /// clients stay.
    async fn drain(&self, _to: Option<Redirection>) {}

    /// Returns the server that new clients are redirected to; `None` if they are accepted.
    fn drained_to(&self) -> Option<Redirection> {
        None
    }
}
