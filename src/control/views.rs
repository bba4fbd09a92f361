//! Questions about clients and their sessions, and the answers.
//!
//! All of it is plain data, which can be sent to another process. The shards select, because they
//! have the clients; a question carries its caller, whose permission is checked for each client.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;

use super::{
    Caller, ClientPattern, ControlError,
    advice::{KeepAliveAdvicePage, ListKeepAliveAdvice},
    busiest::{BusyClient, FindBusiest},
    cluster::MemberState,
    contents::{ClearQueue, ListQueue, ListSubscriptions, QueuePage, SubscriptionPage},
    history::{LastEnd, ListHistory, PastConnection},
    settings::ClientSettings,
    topics::{
        ClearRetained, FindReceivers, ListRetained, NodeView, ReceiverPage, RetainedPage,
        RetainedView,
    },
};
pub use crate::transport::{CertificateFacts, TlsFacts};
use crate::{auth::Network, metrics::DropReason, mqtt::ProtocolVersion};

/// Selects clients, connected or not. A client must satisfy each condition that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFilter {
    /// A pattern for the Client Identifier.
    pub client_id: Option<ClientPattern>,
    /// One of these Client Identifiers, in the order of their bytes and without repetition;
    /// [`ClientFilter::among`] sets it.
    pub client_ids: Option<Arc<[Arc<str>]>>,
    /// The user name.
    pub username: Option<String>,
    /// The network of the client's address.
    pub network: Option<Network>,
    /// The protocol level of a connected client: 3, 4 or 5.
    pub protocol: Option<u8>,
    /// Whether the client is connected.
    pub online: Option<bool>,
    /// The URL of the listener that accepted the last connection.
    pub listener: Option<String>,
    /// The lowest Keep Alive in force of a connected client, in seconds.
    pub keep_alive_secs_min: Option<u16>,
    /// The highest Keep Alive in force of a connected client, in seconds.
    pub keep_alive_secs_max: Option<u16>,
    /// The least time since the last packet of a connected client, in seconds.
    pub idle_secs_min: Option<u64>,
    /// The minimum number of messages that wait in the queue.
    pub queued_min: Option<usize>,
}

impl ClientFilter {
    /// Restricts the filter to these Client Identifiers.
    #[must_use]
    pub fn among(mut self, client_ids: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        let mut client_ids: Vec<Arc<str>> = client_ids.into_iter().map(Into::into).collect();
        client_ids.sort_unstable();
        client_ids.dedup();
        self.client_ids = Some(client_ids.into());
        self
    }
}

/// Asks for a page of the list of clients, which is ordered by the bytes of the Client Identifier.
///
/// A client that is there from the first page to the last appears exactly once, whatever comes and
/// goes meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListClients {
    /// Which clients.
    pub filter: ClientFilter,
    /// The page has clients behind this identifier: [`ClientPage::next`] of the page before.
    pub after: Option<Arc<str>>,
    /// Maximum number of clients of the page. A page whose clients need much memory has fewer.
    pub limit: usize,
    /// Restricts the list to clients that this caller may observe; `None` means no restriction.
    pub caller: Option<Caller>,
}

impl ListClients {
    /// Returns the question for the first page.
    #[must_use]
    pub const fn new(filter: ClientFilter, limit: usize) -> Self {
        Self { filter, after: None, limit, caller: None }
    }

    /// Returns the question for the page behind this identifier.
    #[must_use]
    pub fn after(mut self, client_id: impl Into<Arc<str>>) -> Self {
        self.after = Some(client_id.into());
        self
    }

    /// Returns the question restricted to clients that this caller may observe.
    #[must_use]
    pub fn by(mut self, caller: Caller) -> Self {
        self.caller = Some(caller);
        self
    }
}

/// A page of the list of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientPage {
    /// The clients, in order.
    pub clients: Vec<ClientSummary>,
    /// The identifier behind which the list goes on. The broker gives it if and only if more follows.
    /// The registry of one shard also gives it where it has stopped searching.
    pub next: Option<Arc<str>>,
    /// The nodes of the cluster whose clients the page does not have.
    pub missing: Vec<MissingNode>,
}

impl ClientPage {
    /// Returns a page that has the clients of all nodes.
    #[must_use]
    pub const fn new(clients: Vec<ClientSummary>, next: Option<Arc<str>>) -> Self {
        Self { clients, next, missing: Vec::new() }
    }
}

/// A node of the cluster that is missing in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingNode {
    /// Its name.
    pub node: Arc<str>,
    /// The state in its record; one that serves has not answered in time.
    pub state: MemberState,
}

impl MissingNode {
    /// Returns a node in this state.
    pub fn new(node: impl Into<Arc<str>>, state: MemberState) -> Self {
        Self { node: node.into(), state }
    }
}

/// A client in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientSummary {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// Whether it is connected.
    pub online: bool,
    /// User name of the last connection.
    pub username: Option<Arc<str>>,
    /// Address and port of the last connection.
    pub peer: SocketAddr,
    /// URL of the listener that accepted it; empty if it is not known.
    pub listener: Arc<str>,
    /// The node that has the session.
    pub node: Arc<str>,
    /// Protocol version of the connection.
    pub protocol: Option<ProtocolVersion>,
    /// Keep Alive in force of the connection, in seconds; 0 if it is off.
    pub keep_alive_secs: Option<u16>,
    /// When the last connection began, in milliseconds since the Unix epoch.
    pub connected_at_millis: u64,
    /// When the last packet of the connection came, in milliseconds since the Unix epoch.
    pub last_packet_at_millis: Option<u64>,
    /// Session Expiry Interval in seconds; [`u32::MAX`] if the session does not expire.
    pub session_expiry_secs: u32,
    /// When the session of an absent client ends, in milliseconds since the Unix epoch.
    pub expires_at_millis: Option<u64>,
    /// Number of Topic Filters that the session has subscribed to.
    pub subscriptions: usize,
    /// Number of messages in the queue.
    pub queued: usize,
    /// Number of QoS 1 and 2 messages that are not acknowledged.
    pub in_flight: usize,
    /// The number of connections of this client identifier so far.
    pub version: u64,
}

impl ClientSummary {
    /// Returns the summary of a client that is not connected, of which nothing else is known.
    #[must_use]
    pub fn new(client_id: impl Into<Arc<str>>, peer: SocketAddr) -> Self {
        Self {
            client_id: client_id.into(),
            online: false,
            username: None,
            peer,
            listener: "".into(),
            node: "".into(),
            protocol: None,
            keep_alive_secs: None,
            connected_at_millis: 0,
            last_packet_at_millis: None,
            session_expiry_secs: 0,
            expires_at_millis: None,
            subscriptions: 0,
            queued: 0,
            in_flight: 0,
            version: 0,
        }
    }
}

/// A client and its session as the broker describes them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientSession {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// Whether it has a connection.
    pub online: bool,
    /// User name of the last connection.
    pub username: Option<Arc<str>>,
    /// Address and port of the last connection.
    pub peer: SocketAddr,
    /// URL of the listener that accepted it; empty if it is not known.
    pub listener: Arc<str>,
    /// The node that has the session.
    pub node: Arc<str>,
    /// Protocol version of the connection.
    pub protocol: Option<ProtocolVersion>,
    /// The properties of the TLS connection.
    pub tls: Option<TlsFacts>,
    /// When the last connection began, in milliseconds since the Unix epoch.
    pub connected_at_millis: u64,
    /// When the last packet of the connection came, in milliseconds since the Unix epoch.
    pub last_packet_at_millis: Option<u64>,
    /// Keep Alive in force, in seconds; 0 if it is off or the client is offline.
    pub keep_alive_secs: u16,
    /// Keep Alive that the connected client has asked for, in seconds.
    pub asked_keep_alive_secs: Option<u16>,
    /// User name of the caller that changed the Keep Alive of the connection.
    pub keep_alive_changed_by: Option<Arc<str>>,
    /// When it was changed, in milliseconds since the Unix epoch.
    pub keep_alive_changed_at_millis: Option<u64>,
    /// When the broker ends the connection of a silent client, in milliseconds since the Unix
    /// epoch.
    pub deadline_millis: Option<u64>,
    /// The number of connections of this client identifier so far.
    pub version: u64,
    /// Session Expiry Interval in seconds; [`u32::MAX`] if the session does not expire.
    pub session_expiry_secs: u32,
    /// When the session of an absent client ends, in milliseconds since the Unix epoch.
    pub expires_at_millis: Option<u64>,
    /// Number of Topic Filters that the session has subscribed to.
    pub subscriptions: usize,
    /// Number of messages in the queue.
    pub queued: usize,
    /// Bytes of these messages.
    pub queued_bytes: usize,
    /// Number of QoS 1 and 2 messages that are not acknowledged.
    pub in_flight: usize,
    /// Bytes of these messages.
    pub in_flight_bytes: usize,
    /// Maximum number of these messages of the connection.
    pub in_flight_max: Option<u16>,
    /// When the broker received the message that has waited for the longest time, in milliseconds
    /// since the Unix epoch.
    pub oldest_waiting_millis: Option<u64>,
    /// The messages that were dropped for the client since its session or the broker began, by reason.
    pub dropped: Vec<DroppedMessages>,
    /// The messages that the full queue is losing at present.
    pub losing: Option<Losing>,
    /// How the connection before ended, or that of an absent client. One before the last start of
    /// the broker is known from the history of the client.
    pub last_end: Option<LastEnd>,
    /// The settings of the connection that callers have changed: its own, and those of its user where
    /// it has none of its own.
    pub settings: ClientSettings,
    /// The sticky settings of the client.
    pub sticky_settings: ClientSettings,
    /// The sticky settings of its user.
    pub user_settings: ClientSettings,
}

impl ClientSession {
    /// Returns the description of a client that is not connected, of which nothing else is known.
    #[must_use]
    pub fn new(client_id: impl Into<Arc<str>>, peer: SocketAddr) -> Self {
        Self {
            client_id: client_id.into(),
            online: false,
            username: None,
            peer,
            listener: "".into(),
            node: "".into(),
            protocol: None,
            tls: None,
            connected_at_millis: 0,
            last_packet_at_millis: None,
            keep_alive_secs: 0,
            asked_keep_alive_secs: None,
            keep_alive_changed_by: None,
            keep_alive_changed_at_millis: None,
            deadline_millis: None,
            version: 0,
            session_expiry_secs: 0,
            expires_at_millis: None,
            subscriptions: 0,
            queued: 0,
            queued_bytes: 0,
            in_flight: 0,
            in_flight_bytes: 0,
            in_flight_max: None,
            oldest_waiting_millis: None,
            dropped: Vec::new(),
            losing: None,
            last_end: None,
            settings: ClientSettings::default(),
            sticky_settings: ClientSettings::default(),
            user_settings: ClientSettings::default(),
        }
    }
}

/// The messages of one reason that did not reach a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedMessages {
    /// The reason.
    pub reason: DropReason,
    /// The number of messages.
    pub messages: u64,
}

impl DroppedMessages {
    /// Returns this many messages.
    #[must_use]
    pub const fn new(reason: DropReason, messages: u64) -> Self {
        Self { reason, messages }
    }
}

/// The messages that a full queue has lost, until it has lost none for ten seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Losing {
    /// The number of messages.
    pub messages: u64,
    /// When the loss began, in milliseconds since the Unix epoch.
    pub since_millis: u64,
}

impl Losing {
    /// Returns a loss of this many messages.
    #[must_use]
    pub const fn new(messages: u64, since_millis: u64) -> Self {
        Self { messages, since_millis }
    }
}

/// Whether a client is connected, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnlineState {
    /// Whether it is connected.
    pub online: bool,
    /// The node that has the connection.
    pub node: Option<Arc<str>>,
}

impl OnlineState {
    /// Returns the state of a client; `None`: no node has a connection of it.
    #[must_use]
    pub const fn of(node: Option<Arc<str>>) -> Self {
        Self { online: node.is_some(), node }
    }
}

/// Asks for the number of clients that a filter selects.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountClients {
    /// Which clients.
    pub filter: ClientFilter,
    /// Counts only clients that this caller may observe; `None` means no restriction.
    pub caller: Option<Caller>,
}

impl CountClients {
    /// Returns the question.
    #[must_use]
    pub const fn new(filter: ClientFilter) -> Self {
        Self { filter, caller: None }
    }

    /// Returns the question restricted to clients that this caller may observe.
    #[must_use]
    pub fn by(mut self, caller: Caller) -> Self {
        self.caller = Some(caller);
        self
    }
}

/// Shows clients and their sessions. A part that is not implemented answers
/// [`ControlError::Unavailable`].
#[async_trait]
pub trait ClientViews: Send + Sync + 'static {
    /// Returns a page of the list of clients. Dropping the future stops the search.
    async fn list_clients(&self, _request: ListClients) -> Result<ClientPage, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns the connected clients with the highest values, the highest first.
    async fn find_busiest(&self, _request: FindBusiest) -> Result<Vec<BusyClient>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns the description of a client and its session; `None` if it has neither a connection
    /// nor a session.
    async fn client(&self, _client_id: &str) -> Result<Option<ClientSession>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns the last connections of a client, the newest first; `None` if it has neither a session
    /// nor a history.
    async fn list_history(
        &self,
        _request: ListHistory,
    ) -> Result<Option<Vec<PastConnection>>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns a page of the observed silences of connections, by network and listener, and the
    /// Keep Alive that it suggests.
    async fn list_keep_alive_advice(
        &self,
        _request: ListKeepAliveAdvice,
    ) -> Result<KeepAliveAdvicePage, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns a page of a client's subscriptions; `None` if there is no such session.
    async fn list_subscriptions(
        &self,
        _request: ListSubscriptions,
    ) -> Result<Option<SubscriptionPage>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns a page of the messages that wait for a client; `None` if there is no such session.
    async fn list_queue(&self, _request: ListQueue) -> Result<Option<QueuePage>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Drops the messages that wait for a client now, and returns how many, after the store agrees;
    /// `None` if there is no such session.
    async fn clear_queue(&self, _request: ClearQueue) -> Result<Option<u64>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns a page of the clients that receive a message on a topic, or have a subscription.
    async fn find_receivers(&self, _request: FindReceivers) -> Result<ReceiverPage, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns a page of the retained messages that match a filter.
    async fn list_retained(&self, _request: ListRetained) -> Result<RetainedPage, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns the retained message of a topic, with its payload.
    async fn retained(&self, _topic: &str) -> Result<Option<RetainedView>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Removes the retained message of a topic; returns whether there was one, after the store
    /// agrees.
    async fn clear_retained(&self, _request: ClearRetained) -> Result<bool, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Describes the node that answers.
    async fn node(&self) -> Result<NodeView, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns the number of clients that a filter selects. Dropping the future stops the count.
    async fn count_clients(&self, _request: CountClients) -> Result<u64, ControlError> {
        Err(ControlError::Unavailable)
    }
}
