//! The messages that callers send to actors, each with its reply.

use std::sync::Arc;

use actix::Message;

use crate::{
    control::{
        BusyClient, ChangeSettings, ChangeSubscriptions, ClearQueue, ClearRetained, ClientPage,
        ClientSession, ControlError, CountClients, DeviceReply, FindBusiest, FindReceivers,
        KeepAliveAdvicePage, KeepAliveChanged, KeepAliveOverride, Kick, Kicked, ListClients,
        ListHistory, ListKeepAliveAdvice, ListOverrides, ListQueue, ListSettings,
        ListSubscriptions, OnlineState, PastConnection, PublishRequest, Published, QueryOverride,
        QuerySettings, QueuePage, ReceiverPage, Rechecked, Redirect, RemoveOverride,
        RemoveSettings, RequestReply, SelectClients, SelectedClients, SetKeepAlive,
        SettingsChanged, StickySettings, SubscriptionPage, SubscriptionsChanged,
    },
    mqtt,
    owners::Account,
    shard::calls::publishing::WhileAwaited,
    store::StoredSession,
};

impl Message for SetKeepAlive {
    type Result = Result<KeepAliveChanged, ControlError>;
}

impl Message for Kick {
    type Result = Result<Kicked, ControlError>;
}

impl Message for QuerySettings {
    type Result = Option<StickySettings>;
}

/// The settings that were there.
impl Message for RemoveSettings {
    type Result = Result<Option<StickySettings>, ControlError>;
}

impl Message for ListSettings {
    type Result = Result<Vec<StickySettings>, ControlError>;
}

/// The connections of a user follow its settings by `FollowUserSettings`.
impl Message for ChangeSettings {
    type Result = Result<SettingsChanged, ControlError>;
}

/// Asks the registry of the shard of [`SelectClients::from`] for clients of that shard.
impl Message for SelectClients {
    type Result = SelectedClients;
}

impl Message for PublishRequest {
    type Result = Result<Published, ControlError>;
}

impl Message for RequestReply {
    type Result = Result<DeviceReply, ControlError>;
}

impl Message for WhileAwaited<PublishRequest> {
    type Result = Result<Published, ControlError>;
}

impl Message for WhileAwaited<RequestReply> {
    type Result = Result<DeviceReply, ControlError>;
}

impl Message for ChangeSubscriptions {
    type Result = Result<SubscriptionsChanged, ControlError>;
}

impl Message for QueryOverride {
    type Result = Option<KeepAliveOverride>;
}

/// The override that was there.
impl Message for RemoveOverride {
    type Result = Result<Option<KeepAliveOverride>, ControlError>;
}

impl Message for ListOverrides {
    type Result = Result<Vec<KeepAliveOverride>, ControlError>;
}

/// The number of clients of this registry's shard that were redirected.
impl Message for Redirect {
    type Result = usize;
}

/// The clients of this registry's shard. `next` says where it has stopped searching.
impl Message for ListClients {
    type Result = ClientPage;
}

impl Message for ListSubscriptions {
    type Result = Option<SubscriptionPage>;
}

/// The totals of the whole node; every registry gives the same answer.
impl Message for ListKeepAliveAdvice {
    type Result = KeepAliveAdvicePage;
}

impl Message for ListHistory {
    type Result = Result<Option<Vec<PastConnection>>, ControlError>;
}

impl Message for ListQueue {
    type Result = Result<Option<QueuePage>, ControlError>;
}

impl Message for ClearQueue {
    type Result = Result<Option<u64>, ControlError>;
}

/// The busiest clients of this registry's shard, in no order.
impl Message for FindBusiest {
    type Result = Vec<BusyClient>;
}

/// The clients of this registry's shard; one more than the limit, if there is one.
impl Message for FindReceivers {
    type Result = ReceiverPage;
}

/// Whether a message was retained on the topic.
impl Message for ClearRetained {
    type Result = Result<bool, ControlError>;
}

/// The number of clients of this registry's shard.
impl Message for CountClients {
    type Result = u64;
}

/// Asks whether this client is online. The registry of its home shard answers from the live state.
#[derive(Clone, Debug, Message)]
#[rtype(result = "bool")]
#[non_exhaustive]
pub struct QueryOnline {
    /// Client Identifier.
    pub client_id: String,
}

impl QueryOnline {
    /// Returns the question about this client.
    pub fn new(client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into() }
    }
}

/// Asks which of these clients are online. The reply has their order.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Vec<OnlineState>")]
pub(crate) struct QueryOnlineMany {
    /// Client Identifiers, all at home on this registry's shard.
    pub(crate) client_ids: Vec<String>,
}

/// Changes the Keep Alive of these clients. The reply has their order.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Vec<Result<KeepAliveChanged, ControlError>>")]
pub(crate) struct SetKeepAliveMany {
    /// One request for each client, all at home on this registry's shard.
    pub(crate) requests: Vec<SetKeepAlive>,
}

/// Has all connections of a user on this registry's shard follow the sticky settings of the user, as
/// they are stored now.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct FollowUserSettings {
    /// The user name.
    pub(crate) username: Arc<str>,
}

/// Asks for the description of a client's session; the reply is `None` if there is none.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Option<ClientSession>")]
#[non_exhaustive]
pub struct QueryClient {
    /// Client Identifier.
    pub client_id: String,
}

impl QueryClient {
    /// Returns the question about this client.
    pub fn new(client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into() }
    }
}

/// Checks sessions again: whether their users may still log in, connect and have their subscriptions.
/// The reply comes after the check of all of them.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Rechecked")]
pub(crate) struct Recheck {
    /// The account of the user whose sessions are checked; `None`: all are.
    pub(crate) only: Option<Arc<Account>>,
}

/// Publishes a message of the broker itself.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PublishMessage {
    /// The message.
    pub(crate) message: Arc<mqtt::Message>,
}

/// Gives a shard that has just started the sessions that the store has.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Restore {
    pub(crate) sessions: Vec<StoredSession>,
}

/// Tells a shard that has just started that it has been sent all its sessions. The reply comes
/// after it has taken them.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Restored;

/// Tells a shard that all shards know their sessions: it may now do what is due.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin;

/// Tells a registry to accept no more connections, and to stop reading from those it has. Once all
/// shards have answered, every acknowledged message has reached the shards of its subscribers,
/// except messages for which a shared subscription still searches for a member: these move on by
/// one shard each time that all shards have answered again.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Quiesce;

/// Tells a registry to end all connections with Server shutting down, each after it has written its
/// pending output. The reply comes after all connections have left their sessions.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Shutdown;

/// Tells a registry that the broker has ended; the registry then ends too.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Retire;
