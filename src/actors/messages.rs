//! The messages that actors are asked with, each with its reply.

use std::{fmt, net::SocketAddr, sync::Arc};

use actix::Message;

use super::{
    Transport,
    budget::Share,
    keeper::Awaited,
    parcel::{Packed, Parcel},
    shard::{Given, Search},
};
use crate::{
    auth::{BoundedExchange, ClientCertificate, Identity},
    control::{ControlError, KeepAliveChanged, Redirect, SetKeepAlive},
    journal::{QueuePlace, SessionNumber, Ticket},
    mqtt::{self, ProtocolVersion},
    owners::Charge,
    router::{Place, Plan},
    session::Accepts,
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

/// A session as the broker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSession {
    /// Whether it has a connection.
    pub online: bool,
    /// User name of the last connection.
    pub username: Option<Arc<str>>,
    /// Address and port of the last connection.
    pub peer: SocketAddr,
    /// Keep Alive in force, in seconds; 0 where it is off or the client is offline.
    pub keep_alive_secs: u16,
    /// When the client is given up, in milliseconds since the Unix epoch.
    pub deadline_millis: Option<u64>,
    /// Counts the connections of this client identifier.
    pub version: u64,
    /// How many Topic Filters are subscribed to.
    pub subscriptions: usize,
    /// Messages that wait.
    pub queued: usize,
    /// QoS 1 and 2 messages that are not acknowledged.
    pub in_flight: usize,
}

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

/// The client was connected and is no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kicked;

/// Publishes a message in the broker's own name.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct PublishMessage {
    /// The message.
    pub message: Arc<mqtt::Message>,
}

/// A connection whose CONNECT was accepted moves to its home shard.
pub struct Attach {
    pub(crate) transport: Box<dyn Transport>,
    /// What was read after CONNECT.
    pub(crate) read_ahead: Vec<u8>,
    pub(crate) connect: AcceptedConnect,
    /// Counts as one of the broker's connections until it is dropped.
    pub(crate) permit: Permit,
}

/// Something that is held while a connection lasts, such as its place among a bounded number.
pub(crate) type Permit = Box<dyn Send>;

/// A CONNECT whose sender is known and may connect.
#[derive(Debug)]
pub(crate) struct AcceptedConnect {
    pub(crate) client_id: Arc<str>,
    /// The broker chose the client identifier.
    pub(crate) is_assigned: bool,
    pub(crate) version: ProtocolVersion,
    /// The client asks for No Local and Retain As Published in all its subscriptions.
    pub(crate) is_bridge: bool,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_secs: u16,
    pub(crate) will: Option<AcceptedWill>,
    pub(crate) session_expiry_secs: Option<u32>,
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) problem_information: bool,
    /// Request Response Information.
    pub(crate) wants_response_information: bool,
    pub(crate) identity: Identity,
    pub(crate) proven: Proven,
    /// TLS has verified a certificate of the client.
    pub(crate) has_certificate: bool,
    /// For a client that gave an Authentication Method.
    pub(crate) enhanced: Option<Box<EnhancedLogin>>,
    pub(crate) peer: SocketAddr,
    /// The URL of the listener that accepted it.
    pub(crate) listener: Arc<str>,
}

/// What a login rests on, for the login to be checked again later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    /// Authentication Method, if it was not the authenticator.
    pub(crate) method: Option<Arc<str>>,
    /// Generation of the authenticator or of the method when the login began.
    pub(crate) accounts: u64,
    /// Generation of the authorizer then.
    pub(crate) permissions: u64,
}

/// How a client has authenticated that gave an Authentication Method, and may do so again.
pub(crate) struct EnhancedLogin {
    pub(crate) method: Box<str>,
    /// User Name of CONNECT.
    pub(crate) username: Option<Box<str>>,
    pub(crate) certificate: Option<ClientCertificate>,
    /// Authentication Data for the CONNACK.
    pub(crate) data: Option<Vec<u8>>,
}

impl fmt::Debug for EnhancedLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnhancedLogin").field("method", &self.method).finish_non_exhaustive()
    }
}

/// A Will that its client may publish.
#[derive(Debug)]
pub(crate) struct AcceptedWill {
    pub(crate) message: Arc<mqtt::Message>,
    /// Will Delay Interval.
    pub(crate) delay_secs: u32,
    /// Message Expiry Interval, which begins when the Will is published.
    pub(crate) expiry_secs: Option<u32>,
    /// What it takes of the room for Wills and of its user's account, once its session is found.
    pub(crate) share: Option<(Share, Charge)>,
    /// Number of the record that keeps the Will of a session that ends with its connection.
    pub(crate) record: Option<SessionNumber>,
}

/// What a Will counts beside its message's topic, properties and payload.
const WILL_BYTES: usize = 256;

impl AcceptedWill {
    /// What it counts against limits on bytes.
    pub(crate) fn counted_bytes(&self) -> usize {
        self.message.size() + WILL_BYTES
    }
}

/// Deliveries from another shard, in the order in which they were published there.
#[derive(Default)]
pub(crate) struct Deliver {
    pub(crate) deliveries: Vec<RemoteDelivery>,
    /// The messages that nobody keeps yet.
    pub(crate) parcel: Parcel,
    /// One for all messages that follow each other with the same: both shards write its counter.
    pub(crate) plans: Vec<Arc<Plan>>,
    /// What they count.
    pub(crate) bytes: usize,
    /// Some of them are for durable sessions.
    pub(crate) is_awaited: bool,
    /// Which ticket waits until they are kept.
    pub(crate) awaited: Option<Awaited>,
}

/// To a shard: one part of each of these tickets is kept.
pub(crate) struct Kept {
    pub(crate) tickets: Vec<Ticket>,
    /// By the store, and not by another shard.
    pub(crate) is_by_store: bool,
}

/// To the shard of a member that has something waiting for its group: give it to another, which would be
/// sent this number at once. A member asks one at a time.
pub(crate) struct TakeBacklog {
    /// The shared subscription.
    pub(crate) filter: Arc<str>,
    pub(crate) holder: Place,
    pub(crate) taker: Place,
    pub(crate) messages: usize,
    pub(crate) accepts: Accepts,
    /// Members that have nothing for a taker in this process.
    pub(crate) passed: Vec<Place>,
}

/// To the shard of a member: what it has asked for is on its way.
pub(crate) struct BacklogTaken {
    pub(crate) filter: Arc<str>,
    pub(crate) holder: Place,
    pub(crate) taker: Place,
    pub(crate) given: Given,
}

/// To the shard of a member: something waits for its group with another. One when that begins.
pub(crate) struct BacklogWaits {
    pub(crate) member: Place,
    pub(crate) filter: Arc<str>,
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

/// One message for sessions of another shard.
pub(crate) struct RemoteDelivery {
    pub(crate) message: RemoteMessage,
    pub(crate) publisher: Option<Place>,
    pub(crate) to: RemoteTargets,
    /// Its place in the outbox, if it has one: to be given up with what is kept of it here.
    pub(crate) on_its_way: Option<QueuePlace>,
}

/// Where the message itself is.
pub(crate) enum RemoteMessage {
    Kept(Arc<mqtt::Message>),
    /// The next one in the parcel.
    Packed(Packed),
}

pub(crate) enum RemoteTargets {
    /// All targets at that shard of the plan with this place among those of the batch.
    Planned(usize),
    /// A member of a shared subscription, who is to be found from here on.
    Shared(Arc<Plan>, Search),
}

/// To a connection: have this exchange take its next step, on no shard's data path, and tell the
/// shard what came of it. There is one at a time.
pub(crate) struct TakeStep {
    pub(crate) exchange: BoundedExchange,
    /// Authentication Data of the client.
    pub(crate) data: Option<Vec<u8>>,
    /// It is the first, and the time for all of them begins.
    pub(crate) is_first: bool,
}

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
