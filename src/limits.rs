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
    /// Connections that CONNACK has accepted, at one time, over all MQTT listeners. One more is
    /// refused: the server is busy.
    pub connections_max: u32,
    /// Connections before CONNACK, at one time; 0 = a tenth of `connections_max`, at least 100. As
    /// many again may wait for the check of their password. One more evicts an older one, of the
    /// address that has the most.
    pub connecting_max: u32,
    /// The same for one address (IPv6: one /64); 0 = a quarter of `connecting_max`, at least 50.
    pub connecting_per_address_max: u32,
    /// Connections at one time from one address (IPv6: from one /64).
    pub connections_per_address_max: u32,
    /// CONNECTs a second from one address that go on for ever; 0 = not limited.
    pub connects_per_address_per_sec: u32,
    /// CONNECTs from one address that may come at once before the rate counts.
    pub connects_per_address_burst: u32,
    /// Sessions at one time, with and without a connection.
    pub sessions_max: u32,
    /// Sessions of one user that outlive their connection, with and without one. Here and in every
    /// other limit of one user, clients without a user name count by their address (IPv6: its /64),
    /// and an account may have limits of its own, [`OwnLimits`].
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
    /// Bytes of a client identifier.
    pub client_id_bytes_max: u16,
    /// Characters of the client identifier of an MQTT 3.1 client. That specification says 23, which
    /// few ever kept.
    pub client_id_v3_1_chars_max: u16,
    /// Subscriptions of one client; 0 = bounded by their bytes alone.
    pub subscriptions_per_client_max: u32,
    /// Bytes of the subscriptions of all clients together: twice the text of the filter, and 256
    /// for each of its levels and for the subscription itself.
    pub subscription_bytes_max: u64,
    /// The same for the subscriptions of one user.
    pub subscription_bytes_per_user_max: u64,
    /// Filters of one SUBSCRIBE; those after them are refused.
    pub filters_per_subscribe_max: u32,
    /// Bytes of the Wills of all clients together, delayed ones included.
    pub will_bytes_max: u64,
    /// Bytes of the Wills of one user.
    pub will_bytes_per_user_max: u64,
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
    /// Messages that are stored for the sessions of one user: those that wait and those in flight.
    /// At this bound a session loses its oldest messages for new ones, whatever [`QueueFull`] says
    /// but [`QueueFull::DropNewest`]; nobody waits for it.
    pub stored_messages_per_user_max: u64,
    /// Bytes of those messages. An eighth of the disk at most, whatever is written here.
    pub stored_bytes_per_user_max: u64,
    /// What happens when a client's queue is full.
    pub queue_full: QueueFull,
    /// With [`QueueFull::HoldPublisher`], seconds that publishers wait at most for a client to take
    /// a sixteenth of its full queue; then it loses its oldest messages until it has. Seconds in
    /// which the client is itself held are counted apart, up to four times as many.
    pub queue_hold_secs_max: u16,
    /// Retained messages.
    pub retained_messages_max: u64,
    /// Bytes of retained messages with what they take beside their text: 288 for a message, 64 more if
    /// it expires, and for each topic level that no other message has 144, with 432 more for the first
    /// below the one above it.
    pub retained_bytes_max: u64,
    /// Retained messages that one user has published.
    pub retained_messages_per_user_max: u64,
    /// Bytes of the retained messages that one user has published.
    pub retained_bytes_per_user_max: u64,
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
            connecting_max: 0,
            connecting_per_address_max: 0,
            connections_per_address_max: 20_000,
            connects_per_address_per_sec: 1_000,
            connects_per_address_burst: 20_000,
            sessions_max: 1_000_000,
            sessions_per_user_max: 10_000,
            connect_timeout_secs: 10,
            authentication_secs_max: 60,
            authentication_rounds_max: 16,
            authentication_bytes_max: 65_536,
            packet_bytes_max: 1_048_576,
            incomplete_packet_bytes_max: 268_435_456,
            topic_bytes_max: 4_096,
            topic_levels_max: 128,
            client_id_bytes_max: 1_024,
            client_id_v3_1_chars_max: 65_535,
            subscriptions_per_client_max: 0,
            subscription_bytes_max: 1_073_741_824,
            subscription_bytes_per_user_max: 268_435_456,
            filters_per_subscribe_max: 4_000,
            will_bytes_max: 268_435_456,
            will_bytes_per_user_max: 67_108_864,
            receive_maximum: 1_000,
            in_flight_max: 1_000,
            topic_alias_maximum: 32,
            queue_messages_per_client_max: 10_000,
            queue_bytes_per_client_max: 16_777_216,
            queue_messages_max: 10_000_000,
            queue_bytes_max: 1_073_741_824,
            stored_messages_per_user_max: 1_000_000,
            stored_bytes_per_user_max: 1_073_741_824,
            queue_full: QueueFull::DropOldest,
            queue_hold_secs_max: 10,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 536_870_912,
            retained_messages_per_user_max: 100_000,
            retained_bytes_per_user_max: 67_108_864,
            session_expiry_secs_max: 604_800,
            keep_alive_secs_max: 0,
        }
    }
}

/// Nothing is allowed more levels: trees of topics are walked by functions that call themselves once
/// a level, on stacks of 2 MiB.
pub const TOPIC_LEVELS_LARGEST: u16 = 1_024;

/// With fewer connections before CONNACK, and fewer of one address, clients that come at once would
/// evict each other.
const CONNECTING_MIN: u32 = 100;
const CONNECTING_PER_ADDRESS_MIN: u32 = 50;

impl Limits {
    /// Connections before CONNACK: [`Limits::connecting_max`], or what 0 stands for.
    #[must_use]
    pub const fn connecting_places(&self) -> u32 {
        match self.connecting_max {
            0 if self.connections_max / 10 > CONNECTING_MIN => self.connections_max / 10,
            0 => CONNECTING_MIN,
            places => places,
        }
    }

    /// Connections of one address before CONNACK: [`Limits::connecting_per_address_max`], or what 0
    /// stands for.
    #[must_use]
    pub const fn connecting_places_of_one_address(&self) -> u32 {
        match self.connecting_per_address_max {
            0 if self.connecting_places() / 4 > CONNECTING_PER_ADDRESS_MIN => {
                self.connecting_places() / 4
            }
            0 => CONNECTING_PER_ADDRESS_MIN,
            places => places,
        }
    }

    /// Whether a Topic Name or Topic Filter is neither too long nor too deep. One that has fewer
    /// bytes than levels are allowed is not counted through.
    #[must_use]
    pub fn allows_topic(&self, topic: &str) -> bool {
        let levels_max = usize::from(self.topic_levels_max.min(TOPIC_LEVELS_LARGEST));
        topic.len() <= usize::from(self.topic_bytes_max)
            && (topic.len() < levels_max || topic.split('/').count() <= levels_max)
    }
}

/// What a subscription counts beside its text, and each level of its filter: an entry in its
/// session and in the set of the filter's subscribers; a node of the tree and its place in the
/// parent's table. Levels that subscriptions have in common are kept once and counted each time.
const SUBSCRIPTION_LEVEL_BYTES: usize = 256;

/// Returns what a subscription counts against limits on bytes, by the bytes of its Topic Filter and
/// share name, and the levels of the filter.
#[must_use]
pub const fn subscription_bytes(text: usize, levels: usize) -> usize {
    2 * text + (levels + 1) * SUBSCRIPTION_LEVEL_BYTES
}

/// Limits of one user. What is not given is as [`Limits`] has it for each user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OwnLimits {
    /// In place of [`Limits::sessions_per_user_max`].
    pub sessions_max: Option<u64>,
    /// In place of [`Limits::retained_messages_per_user_max`].
    pub retained_messages_max: Option<u64>,
    /// In place of [`Limits::retained_bytes_per_user_max`].
    pub retained_bytes_max: Option<u64>,
    /// In place of [`Limits::subscription_bytes_per_user_max`].
    pub subscription_bytes_max: Option<u64>,
    /// In place of [`Limits::stored_messages_per_user_max`].
    pub stored_messages_max: Option<u64>,
    /// In place of [`Limits::stored_bytes_per_user_max`].
    pub stored_bytes_max: Option<u64>,
    /// In place of [`Limits::will_bytes_per_user_max`].
    pub will_bytes_max: Option<u64>,
}

impl OwnLimits {
    /// Returns what each user has who has no limits of its own.
    #[must_use]
    pub const fn of_each_user(limits: &Limits) -> Self {
        Self {
            sessions_max: Some(limits.sessions_per_user_max as u64),
            retained_messages_max: Some(limits.retained_messages_per_user_max),
            retained_bytes_max: Some(limits.retained_bytes_per_user_max),
            subscription_bytes_max: Some(limits.subscription_bytes_per_user_max),
            stored_messages_max: Some(limits.stored_messages_per_user_max),
            stored_bytes_max: Some(limits.stored_bytes_per_user_max),
            will_bytes_max: Some(limits.will_bytes_per_user_max),
        }
    }

    /// Returns these limits, and those of `others` for what is not given.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            sessions_max: self.sessions_max.or(others.sessions_max),
            retained_messages_max: self.retained_messages_max.or(others.retained_messages_max),
            retained_bytes_max: self.retained_bytes_max.or(others.retained_bytes_max),
            subscription_bytes_max: self.subscription_bytes_max.or(others.subscription_bytes_max),
            stored_messages_max: self.stored_messages_max.or(others.stored_messages_max),
            stored_bytes_max: self.stored_bytes_max.or(others.stored_bytes_max),
            will_bytes_max: self.will_bytes_max.or(others.will_bytes_max),
        }
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
