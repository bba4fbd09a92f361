//! A client that arrives at its shard with its accepted CONNECT.

use std::{fmt, net::SocketAddr, sync::Arc};

use crate::{
    auth::{Authorizer, BoundedExchange, ClientCertificate, Identity},
    flow::BudgetShare,
    journal::SessionNumber,
    mqtt::{self, ProtocolVersion},
    owners::Charge,
    shard::{certificates::CertificateSeat, ownership::OwnedClient, sticky::SettingsLayers},
    transport::Transport,
};

/// Moves a connection to its home shard after its CONNECT was accepted.
pub(crate) struct TakeClient {
    pub(crate) transport: Box<dyn Transport>,
    /// The bytes that were read after CONNECT.
    pub(crate) read_ahead: Vec<u8>,
    pub(crate) connect: AcceptedConnect,
    /// The place of the connection among the broker's connections, until it is dropped.
    pub(crate) permit: Permit,
}

/// A value held while a connection lasts, such as its place among a limited number.
pub(crate) type Permit = Box<dyn Send>;

/// A CONNECT whose client is known and may connect.
#[derive(Debug)]
pub(crate) struct AcceptedConnect {
    pub(crate) client_id: Arc<str>,
    /// Whether the broker chose the client identifier.
    pub(crate) is_assigned: bool,
    pub(crate) version: ProtocolVersion,
    /// Whether the client asks for No Local and Retain As Published in all its subscriptions.
    pub(crate) is_bridge: bool,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_secs: u16,
    pub(crate) will: Option<AcceptedWill>,
    pub(crate) session_expiry_secs: Option<u32>,
    /// The sticky settings of the client and its user, once its session is prepared; `None` if there
    /// are none.
    pub(crate) settings: Option<Box<SettingsLayers>>,
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) problem_information: bool,
    /// Request Response Information.
    pub(crate) wants_response_information: bool,
    pub(crate) identity: Identity,
    pub(crate) proven: Proven,
    /// Whether TLS has verified a certificate of the client.
    pub(crate) has_certificate: bool,
    /// Its entry among the certificates of all connections.
    pub(crate) certificate: Option<Box<CertificateSeat>>,
    /// Set for a client that gave an Authentication Method.
    pub(crate) enhanced: Option<Box<EnhancedLogin>>,
    /// The right to serve the client, in a cluster; `None` for the session of a bridge.
    pub(crate) owned: Option<OwnedClient>,
    /// Set for the session of a bridge of this broker.
    pub(crate) of_bridge: Option<OfBridge>,
    /// Whether a bridge of another broker asks for the identifier of this one.
    pub(crate) wants_broker_id: bool,
    pub(crate) peer: SocketAddr,
    /// The URL of the listener that accepted it.
    pub(crate) listener: Arc<str>,
}

/// The connection of the session of a bridge of this broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfBridge {
    /// Whether the other broker has forgotten the messages of QoS 2 that it has not released.
    pub(crate) forgets_incoming: bool,
}

/// The facts on which a login rests, so that the login can be checked again later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    /// The Authentication Method; `None` if the authenticator decided.
    pub(crate) method: Option<Arc<str>>,
    /// Generation of the authenticator or of the method when the login began.
    pub(crate) accounts: u64,
    /// Generation of the authorizer at that time.
    pub(crate) permissions: u64,
}

impl Proven {
    /// Returns whether rules were reloaded after the authorizer began to load data about the identity. Then the data
    /// may be out of date, and the walk along the sessions may already have passed this session.
    pub(crate) fn has_missed_rules(&self, identity: &Identity, rules: &dyn Authorizer) -> bool {
        !identity.prepared.is_empty() && rules.generation() != self.permissions
    }
}

/// The method and data of a client with an Authentication Method, which may authenticate again.
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
    /// Its share of the budget for Wills and its charge to the user's account, once its session is
    /// found.
    pub(crate) share: Option<(BudgetShare, Charge)>,
    /// Number of the stored record with the Will of a session that ends with its connection.
    pub(crate) record: Option<SessionNumber>,
}

/// The size that a Will counts besides its message's topic, properties and payload.
const WILL_BYTES: usize = 256;

impl AcceptedWill {
    /// Returns the size that the Will counts against limits in bytes.
    pub(crate) fn counted_bytes(&self) -> usize {
        self.message.size() + WILL_BYTES
    }
}

/// Asks a connection to perform the next step of an exchange, outside the data path of any shard, and to report the
/// result to the shard. A connection has one such step at a time.
pub(crate) struct TakeStep {
    pub(crate) exchange: BoundedExchange,
    /// Authentication Data of the client.
    pub(crate) data: Option<Vec<u8>>,
    /// Whether this is the first step, at which the time limit for all steps begins.
    pub(crate) is_first: bool,
}
