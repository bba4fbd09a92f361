//! A client as it comes to its shard, with its accepted CONNECT, and as it is described to callers.

use std::{fmt, net::SocketAddr, sync::Arc};

use crate::{
    auth::{BoundedExchange, ClientCertificate, Identity},
    flow::Share,
    journal::SessionNumber,
    mqtt::{self, ProtocolVersion},
    owners::Charge,
    transport::Transport,
};

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

/// The client was connected and is no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kicked;

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

/// To a connection: have this exchange take its next step, on no shard's data path, and tell the
/// shard what came of it. There is one at a time.
pub(crate) struct TakeStep {
    pub(crate) exchange: BoundedExchange,
    /// Authentication Data of the client.
    pub(crate) data: Option<Vec<u8>>,
    /// It is the first, and the time for all of them begins.
    pub(crate) is_first: bool,
}
