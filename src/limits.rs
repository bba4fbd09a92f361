//! The bounds that keep one client from harming the others, as plain data.
//!
//! Every queue, table and rate of the broker has its bound here, with a default and a name that
//! ends in its unit. The layers take what they need from it; nothing here knows who does, and the
//! range of each value is checked where it is read (`config`).

use serde::{Deserialize, Serialize};

/// Bounds on what clients may use. [`Limits::default`] suits a machine with a few GiB of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at one time, over all MQTT listeners. One more is closed at once.
    pub connections_max: u32,
    /// Connections at one time from one address (IPv6: from one /64).
    pub connections_per_address_max: u32,
    /// CONNECTs a second from one address that go on for ever; 0 = not limited.
    pub connects_per_address_per_sec: u32,
    /// CONNECTs from one address that may come at once before the rate counts.
    pub connects_per_address_burst: u32,
    /// Sessions at one time, with and without a connection.
    pub sessions_max: u32,
    /// Sessions at one time of one user; clients without a user name count together.
    pub sessions_per_user_max: u32,
    /// Seconds from accepting a socket to its complete CONNECT, TLS handshake included, and to the
    /// end of an AUTH exchange. On Linux a connection over TCP is accepted when its first bytes are
    /// there, or a second after it was made.
    pub connect_timeout_secs: u16,
    /// Seconds that an authenticator may take for a CONNECT, delays after failures included; then
    /// the client is told that the server is unavailable. (An AUTH exchange has the time of
    /// CONNECT.)
    pub authentication_secs_max: u16,
    /// Steps of one AUTH exchange, at CONNECT or to authenticate again.
    pub authentication_rounds_max: u16,
    /// Bytes of Authentication Data that a client may send in one AUTH exchange.
    pub authentication_bytes_max: u32,
    /// Bytes of one Control Packet; MQTT 5 clients are told as Maximum Packet Size.
    pub packet_bytes_max: u32,
    /// Bytes of packets that are on their way in, of all clients together. Counts what is larger
    /// than 32 KiB (before CONNACK: 4 KiB) and not whole yet; one more closes the connection that it
    /// comes by.
    pub incomplete_packet_bytes_max: u64,
    /// Bytes of a Topic Name or Topic Filter.
    pub topic_bytes_max: u16,
    /// Levels of a Topic Name or Topic Filter; [`TOPIC_LEVELS_LARGEST`] at most.
    pub topic_levels_max: u16,
    /// Characters of the client identifier of an MQTT 3.1 client. That specification says 23, which
    /// few ever kept.
    pub client_id_v3_1_chars_max: u16,
    /// Subscriptions of one client; 0 = bounded by their bytes alone.
    pub subscriptions_per_client_max: u32,
    /// Bytes of the subscriptions of all clients together: twice the text of the filter, and 256
    /// for each of its levels and for the subscription itself.
    pub subscription_bytes_max: u64,
    /// Filters of one SUBSCRIBE; those after them are refused.
    pub filters_per_subscribe_max: u32,
    /// Bytes of the Wills of all clients together, delayed ones included.
    pub will_bytes_max: u64,
    /// QoS 1 and 2 messages that a client may have sent and that are not acknowledged yet;
    /// MQTT 5 clients are told as Receive Maximum.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages sent to a client and not acknowledged yet; an MQTT 5 client's own
    /// Receive Maximum lowers it.
    pub in_flight_max: u16,
    /// Topic Aliases that a client may set up; 0 = none. MQTT 5 clients are told.
    pub topic_alias_maximum: u16,
    /// Messages waiting for one client.
    pub queue_messages_per_client_max: u32,
    /// Bytes of messages waiting for one client.
    pub queue_bytes_per_client_max: u64,
    /// Messages waiting for all clients together.
    pub queue_messages_max: u64,
    /// Bytes of messages waiting for all clients together.
    pub queue_bytes_max: u64,
    /// What happens when a client's queue is full.
    pub queue_full: QueueFull,
    /// With [`QueueFull::HoldPublisher`], seconds that publishers wait at most for a client to take
    /// a sixteenth of its full queue; then it loses its oldest messages until it has. Seconds in
    /// which the client is itself held are counted apart, up to four times as many.
    pub queue_hold_secs_max: u16,
    /// Retained messages.
    pub retained_messages_max: u64,
    /// Bytes of retained messages, with 256 and its text for each topic level that they need.
    pub retained_bytes_max: u64,
    /// Seconds that a session outlives its connection at most; MQTT 5 clients are told as Session
    /// Expiry Interval. It is also the life of the sessions of MQTT 3 clients without Clean
    /// Session. A Will Delay ends with the session, so this bounds it too.
    pub session_expiry_secs_max: u32,
    /// Longest Keep Alive in seconds; an MQTT 5 client that asks for more is given this as Server
    /// Keep Alive, one that turns Keep Alive off keeps it off. 0 = clients choose.
    pub keep_alive_secs_max: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            connections_per_address_max: 20_000,
            connects_per_address_per_sec: 1_000,
            connects_per_address_burst: 20_000,
            sessions_max: 1_000_000,
            sessions_per_user_max: 250_000,
            connect_timeout_secs: 10,
            authentication_secs_max: 60,
            authentication_rounds_max: 16,
            authentication_bytes_max: 65_536,
            packet_bytes_max: 1_048_576,
            incomplete_packet_bytes_max: 268_435_456,
            topic_bytes_max: 4_096,
            topic_levels_max: 128,
            client_id_v3_1_chars_max: 65_535,
            subscriptions_per_client_max: 0,
            subscription_bytes_max: 1_073_741_824,
            filters_per_subscribe_max: 10_000,
            will_bytes_max: 268_435_456,
            receive_maximum: 1_000,
            in_flight_max: 1_000,
            topic_alias_maximum: 32,
            queue_messages_per_client_max: 10_000,
            queue_bytes_per_client_max: 16_777_216,
            queue_messages_max: 10_000_000,
            queue_bytes_max: 1_073_741_824,
            queue_full: QueueFull::DropOldest,
            queue_hold_secs_max: 10,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 268_435_456,
            session_expiry_secs_max: 604_800,
            keep_alive_secs_max: 0,
        }
    }
}

/// Nothing is allowed more levels: trees of topics are walked by functions that call themselves once
/// a level, on stacks of 2 MiB.
pub const TOPIC_LEVELS_LARGEST: u16 = 1_024;

impl Limits {
    /// Whether a Topic Name or Topic Filter is neither too long nor too deep. One that has fewer
    /// bytes than levels are allowed is not counted through.
    #[must_use]
    pub fn allows_topic(&self, topic: &str) -> bool {
        let levels_max = usize::from(self.topic_levels_max.min(TOPIC_LEVELS_LARGEST));
        topic.len() <= usize::from(self.topic_bytes_max)
            && (topic.len() < levels_max || topic.split('/').count() <= levels_max)
    }
}

/// What happens to a QoS 1 or 2 message for a client whose queue is full. QoS 0 is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueFull {
    /// The oldest waiting message makes room.
    DropOldest,
    /// The arriving message is dropped.
    DropNewest,
    /// While the client is online, its publishers are read no further until it has room; for one
    /// that is away, or takes too little (see [`Limits::queue_hold_secs_max`]), or could only get
    /// room if its publisher were read, the oldest waiting message makes room.
    HoldPublisher,
}
