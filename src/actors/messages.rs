//! The messages that actors are asked with, each with its reply.

use std::sync::Arc;

use actix::Message;

use crate::{
    control::{ControlError, KeepAliveChanged, Redirect, SetKeepAlive},
    mqtt::{self},
    shard::connect::{ClientSession, Kicked},
    store::StoredSession,
};

impl Message for SetKeepAlive {
    type Result = Result<KeepAliveChanged, ControlError>;
}

/// How many of the clients of this registry's shard were sent away.
impl Message for Redirect {
    type Result = usize;
}

/// Is this client online? Answered by the registry of its home shard, from the live state.
#[derive(Clone, Debug, Message)]
#[rtype(result = "bool")]
pub struct QueryOnline {
    /// Client Identifier.
    pub client_id: String,
}

/// Which of these clients are online? Answers in their order.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Vec<bool>")]
pub struct QueryOnlineMany {
    /// Client Identifiers, all of this registry's shard.
    pub client_ids: Vec<String>,
}

/// Change the Keep Alive of these clients. Answers in their order.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Vec<Result<KeepAliveChanged, ControlError>>")]
pub struct SetKeepAliveMany {
    /// What is asked for each, all of this registry's shard.
    pub requests: Vec<SetKeepAlive>,
}

/// What is known of a client's session; `None` if there is none.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Option<ClientSession>")]
pub struct QueryClient {
    /// Client Identifier.
    pub client_id: String,
}

/// Check all sessions again: whether their users may still log in, connect, and have their
/// subscriptions. Answered once all were checked.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Recheck;

/// Ends a client's connection: DISCONNECT with Administrative action.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Kicked, ControlError>")]
pub struct Kick {
    /// Client Identifier.
    pub client_id: String,
    /// Whether its session ends as well, whatever its Session Expiry Interval.
    pub end_session: bool,
    /// What becomes of its Will.
    pub will: WillRequest,
}

/// What becomes of a Will when the broker ends the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WillRequest {
    /// It is published, as after any end that the client did not ask for.
    #[default]
    Publish,
    /// It is dropped.
    Discard,
}

/// Publishes a message in the broker's own name.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct PublishMessage {
    /// The message.
    pub message: Arc<mqtt::Message>,
}

/// To a shard that has just started: these sessions were found in the store.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Restore {
    pub(crate) sessions: Vec<StoredSession>,
}

/// To a shard that has just started: you know all sessions. Answered once it has taken them.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Restored;

/// To a shard: all shards know their sessions; what is due may be done.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin;

/// To a registry: take no more connections, and let those that are there read no more. Once all
/// shards have answered, every message that was acknowledged has reached its subscribers' shards,
/// but for those that a member of a shared subscription is still looked for: they go on from shard
/// to shard, one further each time that all shards have answered again.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Quiesce;

/// To a registry: end all connections with Server shutting down, each after it has written what
/// waits for its client; answered when the sessions have left them.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Shutdown;

/// To a registry: the broker has ended, and so do you.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Retire;
