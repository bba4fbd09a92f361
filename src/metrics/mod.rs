//! What the broker counts, and the text that monitoring reads.
//!
//! Each shard counts for itself in a [`ShardMetrics`] that only its own thread writes, so that
//! counting costs a load and a store; a scrape adds the shards up. Actors and `http` count,
//! `http` shows. Nothing here knows what the numbers mean to them.

mod cells;
mod encode;
mod logins;
mod rest;

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

pub use cells::{Counter, Gauge, PerLabel};

pub use encode::CONTENT_TYPE;
pub use logins::LoginTotals;
pub use rest::{RestMetrics, RestRoute};

use crate::{hooks::DisconnectReason, labels::labels};

/// The commit that the library was built from, if the build was told (`HEARTHMQ_COMMIT`).
pub const COMMIT: Option<&str> = option_env!("HEARTHMQ_COMMIT");

labels! {
    /// Why a message did not reach a subscriber, or was not taken from a publisher.
    pub enum DropReason {
        /// The subscriber's queue, or all queues together, were full.
        QueueFull = "queue_full",
        /// Its Message Expiry Interval had passed.
        Expired = "expired",
        /// It was larger than the subscriber's Maximum Packet Size.
        PacketTooLarge = "packet_too_large",
        /// The publisher had no permission for the topic.
        NotAuthorized = "not_authorized",
        /// Nobody had subscribed to the topic.
        NoSubscriber = "no_subscriber",
        /// The retained messages were at their limit.
        RetainedFull = "retained_full",
        /// The subscription that it waited under was withdrawn.
        SubscriptionWithdrawn = "subscription_withdrawn",
        /// QoS 0, and the subscriber was away.
        Offline = "offline",
        /// It was to be kept, and the store could not be written; its publisher was told so.
        StoreUnavailable = "store_unavailable",
    }
}

labels! {
    /// Why a publisher is read no further for a while.
    pub enum HoldReason {
        /// The queue of a subscriber of what it publishes was full.
        SubscriberFull = "subscriber_full",
        /// Another shard was behind with what was published for it.
        ShardBehind = "shard_behind",
    }
}

labels! {
    /// Why somebody who wanted to connect could not.
    pub enum ConnectRefusal {
        /// User name, password or certificate were wrong or missing.
        BadCredentials = "bad_credentials",
        /// Right credentials, but not for this client identifier or from this address.
        NotAuthorized = "not_authorized",
        /// Connections of all clients were at their limit.
        ConnectionsMax = "connections_max",
        /// It was not accepted yet when others needed its place.
        ConnectingMax = "connecting_max",
        /// Connections from the address were at their limit.
        ConnectionsPerAddressMax = "connections_per_address_max",
        /// CONNECTs from the address came too fast.
        ConnectRate = "connect_rate",
        /// No complete CONNECT came in time.
        ConnectTimeout = "connect_timeout",
        /// What came was no CONNECT that the protocol allows.
        Malformed = "malformed",
        /// The TLS handshake failed.
        Tls = "tls",
        /// The request for a WebSocket was none, or not one for MQTT.
        WebSocket = "websocket",
        /// No PROXY header came where one must, or one that cannot be used.
        ProxyProtocol = "proxy_protocol",
        /// Sessions were at their limit.
        SessionsMax = "sessions_max",
        /// Its Maximum Packet Size does not even allow CONNACK.
        PacketTooLarge = "packet_too_large",
        /// Sessions of the user were at their limit.
        SessionsPerUserMax = "sessions_per_user_max",
        /// Wills were at their limit.
        WillBytesMax = "will_bytes_max",
        /// Wills of the user were at their limit.
        WillBytesPerUserMax = "will_bytes_per_user_max",
        /// There was no room for what it had sent, and it came back too early.
        TooEarly = "too_early",
        /// Large packets of all clients that are not whole were at their limit.
        IncompletePacketBytesMax = "incomplete_packet_bytes_max",
        /// The store could not remember what it must.
        Store = "store",
        /// A protocol version that the broker does not speak.
        ProtocolVersion = "protocol_version",
        /// A client identifier that cannot be used.
        ClientIdentifier = "client_identifier",
        /// A later connection of the same client came first.
        Overtaken = "overtaken",
        /// The broker takes no clients and has named another server.
        Redirected = "redirected",
        /// The connection was closed before CONNECT.
        Closed = "closed",
    }
}

labels! {
    /// A limit of one user that was in the way of something.
    pub enum UserLimit {
        /// Sessions that outlive their connection.
        Sessions = "sessions_per_user_max",
        /// Retained messages.
        RetainedMessages = "retained_messages_per_user_max",
        /// Bytes of retained messages.
        RetainedBytes = "retained_bytes_per_user_max",
        /// Bytes of subscriptions.
        SubscriptionBytes = "subscription_bytes_per_user_max",
        /// Messages stored for its sessions, or their bytes.
        Stored = "stored_bytes_per_user_max",
        /// Bytes of Wills.
        Wills = "will_bytes_per_user_max",
    }
}

labels! {
    /// What a client's packets come over.
    pub enum TransportKind {
        /// TCP
        Tcp = "tcp",
        /// TLS
        Tls = "tls",
        /// WebSocket, of a listener or of a host's HTTP server.
        WebSocket = "websocket",
        /// WebSocket over TLS, of a listener.
        SecureWebSocket = "secure_websocket",
        /// A Unix socket.
        Unix = "unix",
        /// A byte stream of the embedding application.
        InProcess = "in_process",
    }
}

/// What one shard counts. Only the shard's own thread may write; anybody may read.
#[derive(Debug, Default)]
pub struct ShardMetrics {
    /// MQTT connections that are online.
    pub connections: Gauge,
    /// Sockets that were let in, whatever became of them.
    pub sockets_accepted: PerLabel<TransportKind>,
    /// Connections that have been accepted, with CONNACK and success.
    pub connects_accepted: Counter,
    /// Failures to accept a socket.
    pub accepts_failed: Counter,
    /// Connections that have been refused.
    pub connects_refused: PerLabel<ConnectRefusal>,
    /// Connections that have ended.
    pub disconnects: PerLabel<DisconnectReason>,
    /// Sessions, with and without a connection.
    pub sessions: Gauge,
    /// Connections that were ended because nothing came in time.
    pub keep_alive_timeouts: Counter,
    /// PUBLISH packets received, by QoS.
    pub messages_received: [Counter; 3],
    /// PUBLISH packets sent, by QoS.
    pub messages_sent: [Counter; 3],
    /// Messages that were dropped.
    pub messages_dropped: PerLabel<DropReason>,
    /// How often a limit of one user was in the way.
    pub user_limits_reached: PerLabel<UserLimit>,
    /// Publishers that are read no further at this moment.
    pub publishers_held: Gauge,
    /// How often a publisher was read no further for a while.
    pub publisher_holds: PerLabel<HoldReason>,
    /// How long publishers were read no further, in milliseconds, once they went on.
    pub publishers_held_millis: Counter,
    /// Subscribers that publishers waited for in vain.
    pub subscribers_given_up: Counter,
    /// Bytes read from clients (after TLS).
    pub bytes_received: Counter,
    /// Bytes written to clients (before TLS).
    pub bytes_sent: Counter,
}

/// What is counted once for all shards, by whoever looks.
#[derive(Debug, Default)]
pub struct Totals {
    /// Subscriptions of all sessions.
    pub subscriptions: Gauge,
    /// What they count against their limit, in bytes.
    pub subscription_bytes: Gauge,
    /// Bytes of large packets that are not whole yet.
    pub incomplete_packet_bytes: Gauge,
    /// Bytes of Wills.
    pub will_bytes: Gauge,
    /// Users, and addresses of clients without a user name, that have a session or something retained.
    pub owners: Gauge,
    /// Messages waiting for clients in memory.
    pub queue_messages: Gauge,
    /// Bytes of messages waiting for clients in memory.
    pub queue_bytes: Gauge,
    /// Messages waiting for clients in the store alone.
    pub queue_stored_messages: Gauge,
    /// Bytes of messages waiting for clients in the store alone.
    pub queue_stored_bytes: Gauge,
    /// 1 while the store can be written, or where there is none.
    pub store_writable: Gauge,
    /// Bytes of messages that were sent and not acknowledged, in blocks of 64 KiB a session.
    pub in_flight_bytes: Gauge,
    /// The most messages that have ever waited.
    pub queue_messages_highest: Gauge,
    /// The most bytes of messages that have ever waited.
    pub queue_bytes_highest: Gauge,
    /// Sessions with more than half of what may wait for one client.
    pub sessions_over_half_queue: Gauge,
    /// Lines of the log that were left out because there were too many.
    pub log_lines_left_out: Gauge,
    /// Retained messages.
    pub retained_messages: Gauge,
    /// Bytes of retained messages.
    pub retained_bytes: Gauge,
    /// Logins.
    pub logins: LoginTotals,
}

/// Everything that is counted in one broker.
#[derive(Debug)]
pub struct Metrics {
    /// One for each shard, and one for what is counted elsewhere.
    cells: Vec<Arc<ShardMetrics>>,
    elsewhere: Mutex<()>,
    totals: Totals,
    probe: OnceLock<Probe>,
    log_dropped: OnceLock<Question>,
    rest: RestMetrics,
}

/// Brings the totals up to date.
struct Probe(Box<dyn Fn(&Totals) + Send + Sync>);

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}

/// Asks somebody else for a number.
struct Question(Box<dyn Fn() -> u64 + Send + Sync>);

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}

impl Metrics {
    /// Zeroes for `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            cells: (0..=shards.max(1)).map(|_| Arc::default()).collect(),
            elsewhere: Mutex::default(),
            totals: Totals::default(),
            probe: OnceLock::new(),
            log_dropped: OnceLock::new(),
            rest: RestMetrics::default(),
        }
    }

    /// What shard number `index` writes; for a number that there is not, the last one.
    #[must_use]
    pub fn shard(&self, index: usize) -> Arc<ShardMetrics> {
        self.cells[index.min(self.cells.len() - 2)].clone()
    }

    /// What all shards write, and behind it what is counted elsewhere.
    pub fn shards(&self) -> impl Iterator<Item = &ShardMetrics> {
        self.cells.iter().map(|shard| &**shard)
    }

    /// Counts something on another thread than a shard's, in a cell that no shard writes; one
    /// thread at a time.
    pub fn count_elsewhere(&self, count: impl FnOnce(&ShardMetrics)) {
        let _alone = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = self.cells.last() {
            count(cell);
        }
    }

    /// What is counted once for all shards, as of now.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        if let Some(Probe(probe)) = self.probe.get() {
            probe(&self.totals);
        }
        &self.totals
    }

    /// Who brings the totals up to date whenever somebody looks; set once.
    pub fn set_probe(&self, probe: impl Fn(&Totals) + Send + Sync + 'static) {
        drop(self.probe.set(Probe(Box::new(probe))));
    }

    /// Who says how many lines of the log were dropped; set once, by the owner of the log.
    pub fn set_log_dropped(&self, dropped: impl Fn() -> u64 + Send + Sync + 'static) {
        drop(self.log_dropped.set(Question(Box::new(dropped))));
    }

    /// Lines of the log that were dropped; `None` where nobody says so.
    #[must_use]
    pub fn log_dropped(&self) -> Option<u64> {
        self.log_dropped.get().map(|Question(dropped)| dropped())
    }

    /// What the REST interface writes.
    #[must_use]
    pub fn rest(&self) -> &RestMetrics {
        &self.rest
    }
}

impl ShardMetrics {
    /// Counts messages that were dropped.
    pub fn dropped(&self, reason: DropReason, messages: usize) {
        if messages > 0 {
            self.messages_dropped.of(reason).add(messages as u64);
        }
    }

    /// Counts PUBLISH packets that were sent to a client, by QoS.
    pub fn sent(&self, messages: [u32; 3]) {
        for (counter, n) in self.messages_sent.iter().zip(messages) {
            if n > 0 {
                counter.add(u64::from(n));
            }
        }
    }
}
