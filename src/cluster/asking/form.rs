//! The questions of nodes to each other about clients, and the answers: the forms in which they travel.
//!
//! Plain data with an encoding. The node that asks has checked the permissions of its caller, and the node that answers
//! trusts it. `broker/cluster/asking` translates.

use serde::{Deserialize, Serialize};

use crate::cluster::{
    names::{Incarnation, NodeId},
    wire::Wire,
};

/// A question of one node to another about clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientsQuestion {
    /// The node that asks.
    pub from: NodeId,
    /// Its incarnation: a question of an earlier one than the known one is refused.
    pub incarnation: Incarnation,
    /// The question.
    pub body: ClientsBody,
}

impl Wire for ClientsQuestion {
    const KIND: u8 = 40;
}

/// The kinds of questions about clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientsBody {
    /// Calls about one client each.
    Each(Vec<CallForm>),
    /// A page of the list of clients.
    List(ListForm),
    /// The number of clients that a filter selects.
    Count(FilterForm),
}

/// A call about one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallForm {
    /// Whether the owner record names the node that is asked. Otherwise it answers only if it holds the client.
    pub by_record: bool,
    /// Client Identifier.
    pub client_id: Box<str>,
    /// The call.
    pub body: CallBody,
}

/// The kinds of calls about one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallBody {
    /// Whether it is connected.
    Online,
    /// Change its Keep Alive.
    SetKeepAlive(KeepAliveForm),
    /// End its connection.
    Kick(KickForm),
    /// Describe it.
    Show,
    /// Send it to another server.
    Redirect(RedirectForm),
}

/// A change of a Keep Alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAliveForm {
    /// The new value in seconds.
    pub interval_secs: u16,
    /// User name of the caller.
    pub by: Option<Box<str>>,
    /// Whether nothing changes.
    pub is_dry_run: bool,
    /// Whether it holds for later connections.
    pub is_sticky: bool,
    /// The seconds after which it ends.
    pub ttl_secs: Option<u32>,
    /// Whether the share of one user bounds it.
    pub is_within_share: bool,
}

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KickForm {
    /// User name of the caller.
    pub by: Option<Box<str>>,
    /// Whether the session ends too.
    pub ends_session: bool,
    /// Whether the Will is dropped.
    pub discards_will: bool,
    /// Reason Code of DISCONNECT.
    pub reason_code: u8,
    /// Reason String of DISCONNECT.
    pub reason_string: Option<Box<str>>,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedirectForm {
    /// Server Reference.
    pub server_reference: Box<str>,
    /// Whether it is permanent.
    pub is_permanent: bool,
}

/// A page of the list of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListForm {
    /// Which clients.
    pub filter: FilterForm,
    /// The page has clients behind this identifier.
    pub after: Option<Box<str>>,
    /// Maximum number of clients.
    pub limit: u32,
    /// Whether the answer has only their identifiers.
    pub only_ids: bool,
}

/// A filter of clients: the conditions of `ClientFilter`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterForm {
    /// A pattern for the identifier.
    pub client_id: Option<Box<str>>,
    /// One of these identifiers, in the order of their bytes.
    pub client_ids: Option<Vec<Box<str>>>,
    /// The user name.
    pub username: Option<Box<str>>,
    /// The network of the address, as a text.
    pub network: Option<Box<str>>,
    /// The protocol level.
    pub protocol: Option<u8>,
    /// Whether the client is connected.
    pub online: Option<bool>,
    /// The URL of the listener.
    pub listener: Option<Box<str>>,
    /// The lowest Keep Alive.
    pub keep_alive_secs_min: Option<u16>,
    /// The highest Keep Alive.
    pub keep_alive_secs_max: Option<u16>,
    /// The least time since the last packet.
    pub idle_secs_min: Option<u64>,
    /// The minimum number of messages that wait.
    pub queued_min: Option<u64>,
}

/// The answer to a [`ClientsQuestion`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientsReply {
    /// To [`ClientsBody::Each`]: an outcome for each call, in their order.
    Each(Vec<OutcomeForm>),
    /// To [`ClientsBody::List`].
    Page(PageForm),
    /// To [`ClientsBody::List`] for identifiers only.
    Ids {
        /// The identifiers, in order.
        client_ids: Vec<Box<str>>,
        /// Behind this identifier the list goes on.
        next: Option<Box<str>>,
    },
    /// To [`ClientsBody::Count`].
    Count(u64),
    /// The node does not serve: nothing was done.
    NotServing,
    /// The node has too many questions: nothing was done.
    Busy,
    /// The question failed.
    Failed(FailureForm),
}

impl Wire for ClientsReply {
    const KIND: u8 = 41;
}

/// The outcome of a call about one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutcomeForm {
    /// This node does not own the client: nothing was done.
    NotOwner,
    /// The client has been claimed a short time ago, and is not connected yet: nothing was done.
    Arriving,
    /// The call failed.
    Failed(FailureForm),
    /// Whether it is connected.
    Online(bool),
    /// The Keep Alive is changed.
    KeepAlive {
        /// The former value in seconds.
        old_secs: u16,
        /// The new one.
        new_secs: u16,
        /// Whether the client cannot be told.
        is_not_told: bool,
        /// Whether the value is below the client's own.
        is_below_own: bool,
    },
    /// The connection has ended.
    Kicked {
        /// Whether the client was connected.
        was_online: bool,
        /// Whether the session has ended.
        session_ended: bool,
        /// The outcome for the Will.
        will: WillForm,
    },
    /// The client; none if it has neither a connection nor a session.
    Shown(Option<Box<SessionForm>>),
    /// How many clients were redirected.
    Redirected(u64),
}

/// The outcome for a Will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WillForm {
    /// There was none.
    Absent,
    /// It was published.
    Published,
    /// The client may not publish it.
    Denied,
    /// It waits for its delay.
    Waits,
    /// It was dropped.
    Discarded,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureForm {
    /// The client is not connected.
    NotOnline,
    /// Its Keep Alive is off.
    KeepAliveDisabled,
    /// The interval is 0.
    InvalidInterval,
    /// The identifier is too long for a sticky value.
    ClientIdTooLong(u64),
    /// There are too many sticky values.
    TooManyOverrides,
    /// The user has too many.
    TooManyOverridesOfUser,
    /// The node cannot accept it now.
    Unavailable,
    /// No answer in time.
    Timeout,
}

/// A page of the list of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageForm {
    /// The clients, in order.
    pub clients: Vec<SummaryForm>,
    /// Behind this identifier the list goes on.
    pub next: Option<Box<str>>,
}

/// A client in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryForm {
    /// Client Identifier.
    pub client_id: Box<str>,
    /// Whether it is connected.
    pub online: bool,
    /// User name.
    pub username: Option<Box<str>>,
    /// Address and port.
    pub peer: std::net::SocketAddr,
    /// The URL of the listener.
    pub listener: Box<str>,
    /// The protocol level.
    pub protocol: Option<u8>,
    /// Keep Alive in force.
    pub keep_alive_secs: Option<u16>,
    /// When the last connection began.
    pub connected_at_millis: u64,
    /// When its last packet came.
    pub last_packet_at_millis: Option<u64>,
    /// Session Expiry Interval.
    pub session_expiry_secs: u32,
    /// When the session ends.
    pub expires_at_millis: Option<u64>,
    /// Number of Topic Filters.
    pub subscriptions: u64,
    /// Messages that wait.
    pub queued: u64,
    /// Messages in flight.
    pub in_flight: u64,
    /// The number of connections.
    pub version: u64,
}

/// A client in full: what a list has, and more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionForm {
    /// As in a list.
    pub summary: SummaryForm,
    /// TLS of the connection.
    pub tls: Option<TlsForm>,
    /// The Keep Alive that the client has asked for.
    pub asked_keep_alive_secs: Option<u16>,
    /// The caller that has changed it.
    pub keep_alive_changed_by: Option<Box<str>>,
    /// When it was changed.
    pub keep_alive_changed_at_millis: Option<u64>,
    /// When a silent client is disconnected.
    pub deadline_millis: Option<u64>,
    /// Bytes that wait.
    pub queued_bytes: u64,
    /// Bytes in flight.
    pub in_flight_bytes: u64,
    /// Maximum number of messages in flight.
    pub in_flight_max: Option<u16>,
    /// Since when the oldest message waits.
    pub oldest_waiting_millis: Option<u64>,
    /// Dropped messages by the name of the reason.
    pub dropped: Vec<(Box<str>, u64)>,
    /// Messages that a full queue loses, and since when.
    pub losing: Option<(u64, u64)>,
    /// How the connection before ended.
    pub last_end: Option<EndForm>,
    /// The settings of the connection, of the client, and of its user.
    pub settings: [SettingsForm; 3],
}

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndForm {
    /// The name of the reason.
    pub reason: Box<str>,
    /// When it ended.
    pub at_millis: u64,
    /// The caller that has ended it.
    pub by: Option<Box<str>>,
}

/// The TLS of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsForm {
    /// The version.
    pub version: Box<str>,
    /// The certificate of the client.
    pub certificate: Option<CertificateForm>,
}

/// The certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateForm {
    /// Its subject.
    pub subject: String,
    /// Its issuer.
    pub issuer: String,
    /// Its names.
    pub names: Vec<String>,
    /// Its serial number.
    pub serial_number: String,
    /// When it expires.
    pub expires_at_millis: u64,
    /// The hash of its public key.
    pub public_key: String,
}

/// Settings of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsForm {
    /// Session Expiry Interval.
    pub session_expiry_secs: Option<u32>,
    /// Messages in a second.
    pub message_rate: Option<u32>,
    /// Bytes in a second.
    pub byte_rate: Option<u32>,
    /// Messages that may wait.
    pub queue_messages_max: Option<u32>,
    /// Bytes that may wait.
    pub queue_bytes_max: Option<u64>,
    /// Messages in flight.
    pub in_flight_max: Option<u16>,
}
