//! The limits that keep one client from harming the others, as plain data.
//!
//! Every queue, table and rate of the broker has its limit here, with a default and a name that
//! ends in its unit. Nothing here knows which layer uses a limit; `config` checks the range of each
//! value.

use serde::{Deserialize, Serialize};

/// Limits on the resources of clients. [`Limits::default`] suits a machine with a few GiB of
/// memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Maximum number of simultaneous connections accepted by CONNACK, over all MQTT listeners.
    /// Further clients are refused with Server busy.
    pub connections_max: u32,
    /// Maximum number of simultaneous connections before CONNACK; 0 = a tenth of `connections_max`,
    /// at least 100. Connections that wait for a password check have a separate limit of the same
    /// size. A connection beyond the limit evicts an older one of the address that has the most.
    pub connecting_max: u32,
    /// The same limit for one address (IPv6: one /64); 0 = a quarter of `connecting_max`, at least
    /// 50.
    pub connecting_per_address_max: u32,
    /// Maximum number of simultaneous connections from one address (IPv6: one /64).
    pub connections_per_address_max: u32,
    /// Sustained rate of CONNECTs from one address, for each second; 0 = unlimited.
    pub connects_per_address_per_sec: u32,
    /// Maximum burst of CONNECTs from one address, above which the rate applies.
    pub connects_per_address_burst: u32,
    /// Maximum number of sessions, online and offline.
    pub sessions_max: u32,
    /// Maximum number of sessions of one user that outlive their connection, online and offline. In
    /// this and all other limits of one user, clients without a user name count by their address
    /// (IPv6: its /64). An account may have its own limits, [`OwnLimits`].
    pub sessions_per_user_max: u32,
    /// Seconds from accepting a socket to its complete CONNECT, including the TLS handshake, or to
    /// the end of an AUTH exchange. On Linux a TCP connection is accepted when its first bytes
    /// arrive, at the latest after one second.
    pub connect_timeout_secs: u16,
    /// Seconds that an authenticator may take for a CONNECT, including delays after failures; then
    /// the client receives Server unavailable. (An AUTH exchange has the time limit of CONNECT.)
    pub authentication_secs_max: u16,
    /// Maximum number of steps in one AUTH exchange, at CONNECT or for re-authentication.
    pub authentication_rounds_max: u16,
    /// Maximum bytes of Authentication Data that a client may send in one AUTH exchange.
    pub authentication_bytes_max: u32,
    /// Maximum bytes of one Control Packet; MQTT 5 clients receive it as Maximum Packet Size.
    pub packet_bytes_max: u32,
    /// Maximum bytes of incomplete packets from all clients together. Counts packets that have more
    /// than 32 KiB (before CONNACK: 4 KiB) and are incomplete; a packet beyond the limit closes its
    /// connection.
    pub incomplete_packet_bytes_max: u64,
    /// Maximum bytes of a Topic Name or Topic Filter.
    pub topic_bytes_max: u16,
    /// Maximum levels of a Topic Name or Topic Filter; at most [`TOPIC_LEVELS_LARGEST`].
    pub topic_levels_max: u16,
    /// Maximum bytes of a client identifier.
    pub client_id_bytes_max: u16,
    /// Maximum characters of an MQTT 3.1 client's identifier. Its specification says 23, but few
    /// clients comply.
    pub client_id_v3_1_chars_max: u16,
    /// Maximum number of subscriptions of one client; 0 = limited only by their bytes.
    pub subscriptions_per_client_max: u32,
    /// Maximum bytes of all clients' subscriptions. A subscription counts twice the text of its
    /// filter, 256 bytes, and 256 bytes for each level of the filter.
    pub subscription_bytes_max: u64,
    /// The same limit for one user.
    pub subscription_bytes_per_user_max: u64,
    /// Maximum number of shapes of one user's filters with wildcards or share names. A topic matches
    /// at most one filter of each shape.
    pub filter_shapes_per_user_max: u32,
    /// Maximum number of filters in one SUBSCRIBE; further ones are refused.
    pub filters_per_subscribe_max: u32,
    /// Maximum bytes of all clients' Wills, including delayed ones.
    pub will_bytes_max: u64,
    /// Maximum bytes of the Wills of one user.
    pub will_bytes_per_user_max: u64,
    /// Maximum number of unacknowledged QoS 1 and 2 messages from a client; MQTT 5 clients receive
    /// it as Receive Maximum.
    pub receive_maximum: u16,
    /// Maximum number of unacknowledged QoS 1 and 2 messages to a client; an MQTT 5 client's
    /// Receive Maximum may lower it.
    pub in_flight_max: u16,
    /// Maximum number of Topic Aliases that a client may define; 0 = none. MQTT 5 clients receive
    /// it.
    pub topic_alias_maximum: u16,
    /// Maximum number of messages queued for one client.
    pub queue_messages_per_client_max: u32,
    /// Maximum bytes of messages queued for one client.
    pub queue_bytes_per_client_max: u64,
    /// Maximum number of messages queued for all clients together.
    pub queue_messages_max: u64,
    /// Maximum bytes of messages queued for all clients together.
    pub queue_bytes_max: u64,
    /// Maximum number of messages stored for the sessions of one user, queued and in flight. At
    /// this limit a session loses its oldest messages for new ones under any [`QueueFull`] but
    /// [`QueueFull::DropNewest`]; no publisher is held.
    pub stored_messages_per_user_max: u64,
    /// Maximum bytes of those messages. Also limited to an eighth of the disk.
    pub stored_bytes_per_user_max: u64,
    /// The policy for a client whose queue is full.
    pub queue_full: QueueFull,
    /// With [`QueueFull::HoldPublisher`], maximum seconds that publishers are held until a client
    /// has drained a sixteenth of its full queue; then the client loses its oldest messages until
    /// it has. Time in which the client itself is held counts separately, up to four times as much.
    pub queue_hold_secs_max: u16,
    /// Maximum number of messages that wait in memory for all sessions of one user; 0 = a quarter of
    /// [`Limits::queue_messages_max`]. At least as many as may wait for one client.
    pub queue_messages_per_user_max: u64,
    /// Maximum bytes of messages in memory, waiting and in flight, for all sessions of one user; 0 = a
    /// quarter of [`Limits::queue_bytes_max`]. At least as many as may wait for one client.
    pub queue_bytes_per_user_max: u64,
    /// Maximum number of retained messages.
    pub retained_messages_max: u64,
    /// Maximum bytes of retained messages: their text, 288 for each message, 64 if it expires, 144
    /// for each topic level that no other message has, and 432 for the first level below another
    /// one.
    pub retained_bytes_max: u64,
    /// Maximum number of retained messages published by one user.
    pub retained_messages_per_user_max: u64,
    /// Maximum bytes of retained messages published by one user.
    pub retained_bytes_per_user_max: u64,
    /// Maximum seconds that a session outlives its connection; MQTT 5 clients receive it as Session
    /// Expiry Interval. It is also the lifetime of MQTT 3 sessions without Clean Session. A Will
    /// Delay ends with the session, so this limits it too.
    pub session_expiry_secs_max: u32,
    /// Maximum Keep Alive in seconds. An MQTT 5 client that requests more receives this as Server
    /// Keep Alive; Keep Alive 0 stays off. 0 = clients choose.
    pub keep_alive_secs_max: u16,
    /// Maximum number of stored Keep Alives that callers have set for later connections too.
    pub keep_alive_overrides_max: u32,
    /// Maximum number of those that one user has set; 0 = a quarter of all. In this and all other limits of sticky values,
    /// callers that may administer have no share of their own.
    pub keep_alive_overrides_per_user_max: u32,
    /// Maximum bytes of the stored Keep Alives: their client identifiers, and about 450 for each. The
    /// same holds for sticky settings.
    pub keep_alive_override_bytes_max: u64,
    /// Maximum bytes of those that one user has set; 0 = a quarter of all.
    pub keep_alive_override_bytes_per_user_max: u64,
    /// Maximum number of bans in the store.
    pub bans_max: u32,
    /// Maximum number of certificates that are pinned to client identifiers; they take at most as many
    /// KiB. A client whose certificate cannot be pinned is refused.
    pub certificate_pins_max: u32,
    /// Maximum number of pinned certificates with one Common Name; 0 = a quarter of all.
    pub certificate_pins_per_user_max: u32,
    /// Maximum number of connections of one client identifier within `flapping_window_secs`; with one
    /// more, the client is banned for `flapping_ban_secs`. 0 = clients may connect as often as they
    /// like.
    pub flapping_connects_max: u32,
    /// Seconds in which the connections of a client identifier are counted.
    pub flapping_window_secs: u32,
    /// Seconds for which a client is banned that connects too often.
    pub flapping_ban_secs: u32,
    /// Maximum number of entries of the audit log in the store; 0 = none. The oldest entry of the user
    /// with the most entries leaves for a new one.
    pub audit_entries_max: u32,
    /// Maximum number of API tokens.
    pub tokens_max: u32,
    /// Maximum number of rules in the store. Each decision looks at all rules before the one that
    /// decides.
    pub stored_rules_max: u32,
    /// Maximum number of connections in the history of one client, at most
    /// [`HISTORY_PER_CLIENT_LARGEST`]; 0 = no histories. The oldest leaves for a new one.
    pub history_per_client_max: u16,
    /// Days after which the end of a connection leaves the history of its client.
    pub history_days_max: u16,
    /// Maximum number of connections in the histories of all clients. Beyond it, the histories of
    /// those clients leave that have been away for the longest time. A broker whose store is in
    /// memory has at most 100,000.
    pub history_connections_max: u64,
    /// Maximum number of those of one user, or of one address for clients without a user name; 0 = a
    /// quarter of all. Beyond it, the user loses its own oldest histories.
    pub history_connections_per_user_max: u64,
    /// Maximum number of traces of clients at the same time, of which one caller may have half; 0 = none.
    pub traces_max: u32,
    /// Maximum bytes of the records of all traces together. Each trace has an equal part; its oldest
    /// record leaves for a new one.
    pub trace_bytes_max: u64,
    /// Maximum number of records of one trace in a second; further packets are counted.
    pub trace_records_per_sec_max: u32,
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
            filter_shapes_per_user_max: 256,
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
            queue_messages_per_user_max: 0,
            queue_bytes_per_user_max: 0,
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
            keep_alive_overrides_max: 1_000_000,
            keep_alive_overrides_per_user_max: 0,
            keep_alive_override_bytes_max: 536_870_912,
            keep_alive_override_bytes_per_user_max: 0,
            stored_rules_max: 1_000,
            bans_max: 100_000,
            certificate_pins_max: 100_000,
            certificate_pins_per_user_max: 0,
            flapping_connects_max: 0,
            flapping_window_secs: 60,
            flapping_ban_secs: 300,
            audit_entries_max: 10_000,
            tokens_max: 1_000,
            history_per_client_max: 20,
            history_days_max: 7,
            history_connections_max: 1_000_000,
            history_connections_per_user_max: 0,
            traces_max: 8,
            trace_bytes_max: 16_777_216,
            trace_records_per_sec_max: 5_000,
        }
    }
}

/// Maximum of `topic_levels_max`: functions that walk topic trees recurse once for each level, on
/// stacks of 2 MiB.
pub const TOPIC_LEVELS_LARGEST: u16 = 1_024;

/// Maximum of `history_per_client_max`: the store reads and writes the whole history of a client for
/// each of its connections.
pub const HISTORY_PER_CLIENT_LARGEST: u16 = 1_000;

/// Minimum limits before CONNACK: with less, clients that connect at the same time would evict each
/// other.
const CONNECTING_MIN: u32 = 100;
const CONNECTING_PER_ADDRESS_MIN: u32 = 50;

impl Limits {
    /// Returns the limit of connections before CONNACK: [`Limits::connecting_max`], or its default
    /// for 0.
    #[must_use]
    pub const fn connecting_places(&self) -> u32 {
        match self.connecting_max {
            0 if self.connections_max / 10 > CONNECTING_MIN => self.connections_max / 10,
            0 => CONNECTING_MIN,
            places => places,
        }
    }

    /// Returns the limit of connections before CONNACK for one address:
    /// [`Limits::connecting_per_address_max`], or its default for 0.
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

    /// Returns whether a Topic Name or Topic Filter is within the limits of bytes and levels.
    /// Levels are counted only if there are enough bytes to exceed their limit.
    #[must_use]
    pub fn allows_topic(&self, topic: &str) -> bool {
        self.topics().allow(topic)
    }

    /// Returns those of the limits that are about topics.
    #[must_use]
    pub const fn topics(&self) -> TopicLimits {
        TopicLimits { bytes_max: self.topic_bytes_max, levels_max: self.topic_levels_max }
    }
}

/// Limits on a Topic Name or Topic Filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    /// As [`Limits::topic_bytes_max`].
    pub bytes_max: u16,
    /// As [`Limits::topic_levels_max`].
    pub levels_max: u16,
}

impl TopicLimits {
    /// Returns whether a topic is neither too long nor too deep.
    #[must_use]
    pub fn allow(self, topic: &str) -> bool {
        let levels_max = usize::from(self.levels_max.min(TOPIC_LEVELS_LARGEST));
        topic.len() <= usize::from(self.bytes_max)
            && (topic.len() < levels_max || topic.split('/').count() <= levels_max)
    }
}

/// Bytes that a subscription counts in addition to its text, and again for each level: an entry in
/// the session and in the filter's set of subscribers; a node of the tree and its slot in the
/// parent's table. Levels shared by several subscriptions are stored once but counted each time.
const SUBSCRIPTION_LEVEL_BYTES: usize = 256;

/// Returns the bytes that a subscription counts against limits, from the bytes of its Topic Filter
/// and share name and the number of levels.
#[must_use]
pub const fn subscription_bytes(text: usize, levels: usize) -> usize {
    2 * text + (levels + 1) * SUBSCRIPTION_LEVEL_BYTES
}

/// Limits of one user; `None` means the limit in [`Limits`] for each user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OwnLimits {
    /// Replaces [`Limits::sessions_per_user_max`].
    pub sessions_max: Option<u64>,
    /// Replaces [`Limits::retained_messages_per_user_max`].
    pub retained_messages_max: Option<u64>,
    /// Replaces [`Limits::retained_bytes_per_user_max`].
    pub retained_bytes_max: Option<u64>,
    /// Replaces [`Limits::subscription_bytes_per_user_max`].
    pub subscription_bytes_max: Option<u64>,
    /// Replaces [`Limits::filter_shapes_per_user_max`].
    pub filter_shapes_max: Option<u64>,
    /// Replaces [`Limits::stored_messages_per_user_max`].
    pub stored_messages_max: Option<u64>,
    /// Replaces [`Limits::stored_bytes_per_user_max`].
    pub stored_bytes_max: Option<u64>,
    /// Replaces [`Limits::will_bytes_per_user_max`].
    pub will_bytes_max: Option<u64>,
    /// Replaces [`Limits::queue_messages_per_user_max`].
    pub queue_messages_max: Option<u64>,
    /// Replaces [`Limits::queue_bytes_per_user_max`].
    pub queue_bytes_max: Option<u64>,
}

impl OwnLimits {
    /// Returns the limits of a user without limits of its own.
    #[must_use]
    pub const fn of_each_user(limits: &Limits) -> Self {
        Self {
            sessions_max: Some(limits.sessions_per_user_max as u64),
            retained_messages_max: Some(limits.retained_messages_per_user_max),
            retained_bytes_max: Some(limits.retained_bytes_per_user_max),
            subscription_bytes_max: Some(limits.subscription_bytes_per_user_max),
            filter_shapes_max: Some(limits.filter_shapes_per_user_max as u64),
            stored_messages_max: Some(limits.stored_messages_per_user_max),
            stored_bytes_max: Some(limits.stored_bytes_per_user_max),
            will_bytes_max: Some(limits.will_bytes_per_user_max),
            queue_messages_max: Some(queue_share(
                limits.queue_messages_per_user_max,
                limits.queue_messages_max,
                limits.queue_messages_per_client_max as u64,
            )),
            queue_bytes_max: Some(queue_share(
                limits.queue_bytes_per_user_max,
                limits.queue_bytes_max,
                limits.queue_bytes_per_client_max,
            )),
        }
    }

    /// Returns these limits, with those of `others` where none is given.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            sessions_max: self.sessions_max.or(others.sessions_max),
            retained_messages_max: self.retained_messages_max.or(others.retained_messages_max),
            retained_bytes_max: self.retained_bytes_max.or(others.retained_bytes_max),
            subscription_bytes_max: self.subscription_bytes_max.or(others.subscription_bytes_max),
            filter_shapes_max: self.filter_shapes_max.or(others.filter_shapes_max),
            stored_messages_max: self.stored_messages_max.or(others.stored_messages_max),
            stored_bytes_max: self.stored_bytes_max.or(others.stored_bytes_max),
            will_bytes_max: self.will_bytes_max.or(others.will_bytes_max),
            queue_messages_max: self.queue_messages_max.or(others.queue_messages_max),
            queue_bytes_max: self.queue_bytes_max.or(others.queue_bytes_max),
        }
    }
}

/// One user has at most this part of what may wait in memory for all, if nothing else is set.
const QUEUE_PART: u64 = 4;

/// Returns the share of one user: the option, or a part of the limit of all. One client can always
/// use its own limit.
const fn queue_share(of_user: u64, of_all: u64, of_client: u64) -> u64 {
    let share = if of_user == 0 { of_all.div_ceil(QUEUE_PART) } else { of_user };
    if share < of_client { of_client } else { share }
}

/// The policy for a QoS 1 or 2 message to a client whose queue is full. QoS 0 is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum QueueFull {
    /// The oldest queued message is dropped.
    DropOldest,
    /// The new message is dropped.
    DropNewest,
    /// Backpressure: while the client is online, its publishers are not read until it has room. The
    /// oldest queued message is dropped instead if the client is offline, drains its queue too
    /// slowly (see [`Limits::queue_hold_secs_max`]), or can get room only if its publisher is read.
    HoldPublisher,
}
