//! The broker's metrics, and their text for monitoring.
//!
//! Each shard counts in its own [`ShardMetrics`], which only its thread writes, so counting costs a
//! load and a store; a scrape adds up the shards. Actors and `http` count, `http` serves the text.
//! Nothing here knows what the numbers mean.

#[cfg(feature = "bridge")]
mod bridges;
mod cells;
#[cfg(feature = "cluster")]
mod cluster;
mod encode;
mod logins;
mod otlp;
#[cfg(target_os = "linux")]
mod process;
#[cfg_attr(
    not(feature = "http"),
    expect(dead_code, reason = "only the REST interface shows rates")
)]
mod rates;
mod rest;
mod sources;
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only the REST interface shows them"))]
mod trends;
mod turns;
#[cfg(feature = "webhooks")]
mod webhooks;

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

#[cfg(feature = "bridge")]
pub use bridges::{BridgeDrop, BridgeMetrics, BridgeWay, BridgeWayMetrics};
pub use cells::{Counter, Gauge, PerLabel};
#[cfg(feature = "cluster")]
pub use cluster::{ClusterMailNumbers, ClusterNumbers};

pub use encode::CONTENT_TYPE;
pub use logins::LoginTotals;
pub use otlp::{OtlpMetrics, OtlpSignal, SpanLoss};
pub use rest::{RestMetrics, RestRoute};
pub use sources::{SourceAnswer, SourceMetrics};
#[cfg(feature = "http")]
pub(crate) use trends::TrendSpan;
pub use turns::TurnTimes;
#[cfg(feature = "webhooks")]
pub use webhooks::WebhookMetrics;

use crate::{hooks::DisconnectReason, labels::labels};

/// The commit that the library was built from, if the build set `HEARTHMQ_COMMIT`.
pub const COMMIT: Option<&str> = option_env!("HEARTHMQ_COMMIT");

labels! {
    /// Why a message did not reach a subscriber, or was not accepted from a publisher.
    pub enum DropReason {
        /// The subscriber's queue, or all queues together, had reached the limit.
        QueueFull = "queue_full",
        /// The Message Expiry Interval had passed.
        Expired = "expired",
        /// The message exceeded the subscriber's Maximum Packet Size.
        PacketTooLarge = "packet_too_large",
        /// The publisher had no permission for the topic.
        NotAuthorized = "not_authorized",
        /// The topic had no subscriber.
        NoSubscriber = "no_subscriber",
        /// The retained messages had reached their limit.
        RetainedFull = "retained_full",
        /// The stream of retained messages of the cluster could not take the message; a QoS 0 message was
        /// delivered all the same.
        RetainedUnavailable = "retained_unavailable",
        /// The subscription that the message was queued for was withdrawn.
        SubscriptionWithdrawn = "subscription_withdrawn",
        /// A caller has cleared the queue.
        Cleared = "cleared",
        /// A QoS 0 message for an offline subscriber.
        Offline = "offline",
        /// The message had to be stored, but the store could not be written; the publisher was
        /// told.
        StoreUnavailable = "store_unavailable",
    }
}

labels! {
    /// Why a publisher is held: why the broker does not read it for a while.
    pub enum HoldReason {
        /// The queue of a subscriber to its messages was full.
        SubscriberFull = "subscriber_full",
        /// Another shard was behind with the messages published for it.
        ShardBehind = "shard_behind",
        /// The store was behind, and its owner had more than its share on the way there.
        StoreBehind = "store_behind",
        /// The publisher had reached the rate that a caller has set for it.
        RateLimit = "rate_limit",
        /// Its SUBACK waited until the other nodes of the cluster knew its filters.
        RoutesBehind = "routes_behind",
        /// Its message with RETAIN waited for the stream of retained messages of the cluster.
        RetainedBehind = "retained_behind",
    }
}

labels! {
    /// Why a connection was refused.
    pub enum ConnectRefusal {
        /// User name, password or certificate was wrong or missing.
        BadCredentials = "bad_credentials",
        /// The credentials were right, but not allowed for this client identifier or address.
        NotAuthorized = "not_authorized",
        /// The client, its user or its address is banned.
        Banned = "banned",
        /// A certificate could not be pinned, because there were as many as there may be.
        CertificatePinsMax = "certificate_pins_max",
        /// The authorizer could not load what it needs to decide about the client.
        AuthorizerUnavailable = "authorizer_unavailable",
        /// All clients together had reached the limit of connections.
        ConnectionsMax = "connections_max",
        /// The connection was evicted before CONNACK to make room for others.
        ConnectingMax = "connecting_max",
        /// The address had reached its limit of connections.
        ConnectionsPerAddressMax = "connections_per_address_max",
        /// The address exceeded its rate of CONNECTs.
        ConnectRate = "connect_rate",
        /// No complete CONNECT arrived in time.
        ConnectTimeout = "connect_timeout",
        /// The first packet was not a valid CONNECT.
        Malformed = "malformed",
        /// The TLS handshake failed.
        Tls = "tls",
        /// The WebSocket request was invalid, or not for MQTT.
        WebSocket = "websocket",
        /// A required PROXY header was missing or unusable.
        ProxyProtocol = "proxy_protocol",
        /// The limit of sessions was reached.
        SessionsMax = "sessions_max",
        /// The client's Maximum Packet Size is too small for CONNACK.
        PacketTooLarge = "packet_too_large",
        /// The user had reached its limit of sessions.
        SessionsPerUserMax = "sessions_per_user_max",
        /// The limit of Wills was reached.
        WillBytesMax = "will_bytes_max",
        /// The user had reached its limit of Wills.
        WillBytesPerUserMax = "will_bytes_per_user_max",
        /// The client had been closed for lack of memory for its packets, and reconnected too
        /// early.
        TooEarly = "too_early",
        /// Incomplete large packets of all clients had reached their limit.
        IncompletePacketBytesMax = "incomplete_packet_bytes_max",
        /// The store could not write a required record.
        Store = "store",
        /// The broker did not serve in its cluster, or could not claim the client identifier there.
        ClusterUnavailable = "cluster_unavailable",
        /// The broker does not support the protocol version.
        ProtocolVersion = "protocol_version",
        /// The client identifier is invalid.
        ClientIdentifier = "client_identifier",
        /// A later connection of the same client arrived while this one waited.
        Overtaken = "overtaken",
        /// The broker accepts no clients and has named another server.
        Redirected = "redirected",
        /// The broker was shutting down.
        ShuttingDown = "shutting_down",
        /// The connection was closed before CONNECT.
        Closed = "closed",
    }
}

labels! {
    /// A limit of one user that was reached.
    pub enum UserLimit {
        /// Sessions that outlive their connection.
        Sessions = "sessions_per_user_max",
        /// Retained messages.
        RetainedMessages = "retained_messages_per_user_max",
        /// Bytes of retained messages.
        RetainedBytes = "retained_bytes_per_user_max",
        /// Bytes of subscriptions.
        SubscriptionBytes = "subscription_bytes_per_user_max",
        /// Shapes of filters with wildcards or share names.
        FilterShapes = "filter_shapes_per_user_max",
        /// Messages stored for the user's sessions, or their bytes.
        Stored = "stored_bytes_per_user_max",
        /// Bytes of Wills.
        Wills = "will_bytes_per_user_max",
        /// Messages in memory for the user's sessions, or their bytes.
        Queued = "queue_bytes_per_user_max",
    }
}

labels! {
    /// The transport of a connection.
    pub enum TransportKind {
        /// TCP
        Tcp = "tcp",
        /// TLS
        Tls = "tls",
        /// WebSocket, from a listener or the HTTP server of an embedding application.
        WebSocket = "websocket",
        /// WebSocket over TLS, from a listener.
        SecureWebSocket = "secure_websocket",
        /// A Unix socket.
        Unix = "unix",
        /// A byte stream of the embedding application.
        InProcess = "in_process",
    }
}

/// The metrics of one shard. Only the shard's own thread may write; any thread may read.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ShardMetrics {
    /// MQTT connections online.
    pub connections: Gauge,
    /// Sockets accepted, whatever happened to them later.
    pub sockets_accepted: PerLabel<TransportKind>,
    /// Connections accepted with a successful CONNACK.
    pub connects_accepted: Counter,
    /// Failures to accept a socket.
    pub accepts_failed: Counter,
    /// Connections refused.
    pub connects_refused: PerLabel<ConnectRefusal>,
    /// Connections ended.
    pub disconnects: PerLabel<DisconnectReason>,
    /// Sessions, online and offline.
    pub sessions: Gauge,
    /// Connections ended by a Keep Alive timeout.
    pub keep_alive_timeouts: Counter,
    /// PUBLISH packets received, by QoS.
    pub messages_received: [Counter; 3],
    /// PUBLISH packets sent, by QoS.
    pub messages_sent: [Counter; 3],
    /// Messages dropped.
    pub messages_dropped: PerLabel<DropReason>,
    /// How often a limit of one user was reached.
    pub user_limits_reached: PerLabel<UserLimit>,
    /// Publishers held now.
    pub publishers_held: Gauge,
    /// How often a publisher was held.
    pub publisher_holds: PerLabel<HoldReason>,
    /// Time that publishers were held, in milliseconds, added when they are released.
    pub publishers_held_millis: Counter,
    /// Subscribers that were too slow for the publishers held for them.
    pub subscribers_given_up: Counter,
    /// Bytes read from clients (after TLS).
    pub bytes_received: Counter,
    /// Bytes written to clients (before TLS).
    pub bytes_sent: Counter,
    /// How long the turns of the shard take.
    pub turns: TurnTimes,
}

/// Numbers of the whole broker, refreshed when they are read.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Subscriptions of all sessions.
    pub subscriptions: Gauge,
    /// Bytes that subscriptions count against their limit.
    pub subscription_bytes: Gauge,
    /// Bytes of incomplete large packets.
    pub incomplete_packet_bytes: Gauge,
    /// Bytes of Wills.
    pub will_bytes: Gauge,
    /// Users, and addresses of clients without a user name, with a session or a retained message.
    pub owners: Gauge,
    /// Messages queued for clients in memory.
    pub queue_messages: Gauge,
    /// Bytes of messages queued for clients in memory.
    pub queue_bytes: Gauge,
    /// Messages queued for clients only in the store.
    pub queue_stored_messages: Gauge,
    /// Bytes of messages queued for clients only in the store.
    pub queue_stored_bytes: Gauge,
    /// Bytes of changes on their way to the store.
    pub store_waiting_bytes: Gauge,
    /// 1 while the store can be written, or if there is none.
    pub store_writable: Gauge,
    /// Bytes of unacknowledged messages, counted in 64 KiB blocks for each session.
    pub in_flight_bytes: Gauge,
    /// Highest number of queued messages so far.
    pub queue_messages_highest: Gauge,
    /// Highest number of bytes of queued messages so far.
    pub queue_bytes_highest: Gauge,
    /// Sessions that use more than half of the queue limit of one client.
    pub sessions_over_half_queue: Gauge,
    /// Beginnings and ends of connections that could not be noted in the histories of clients.
    pub history_lost: Gauge,
    /// Log lines omitted by the rate limit.
    pub log_lines_left_out: Gauge,
    /// Revocation lists that were fetched from their URL.
    pub lists_fetched: Gauge,
    /// Fetches of revocation lists that have failed.
    pub list_fetches_failed: Gauge,
    /// Retained messages.
    pub retained_messages: Gauge,
    /// Bytes of retained messages.
    pub retained_bytes: Gauge,
    /// Logins.
    pub logins: LoginTotals,
}

/// All metrics of one broker.
#[derive(Debug)]
pub struct Metrics {
    /// One for each shard, then one for counts from other threads.
    cells: Vec<Arc<ShardMetrics>>,
    elsewhere: Mutex<()>,
    totals: Totals,
    probe: OnceLock<Probe>,
    log_dropped: OnceLock<Question>,
    rest: RestMetrics,
    sources: OnceLock<Box<[Arc<SourceMetrics>]>>,
    otlp: OnceLock<Arc<OtlpMetrics>>,
    #[cfg(feature = "webhooks")]
    webhooks: OnceLock<Box<[Arc<WebhookMetrics>]>>,
    #[cfg(feature = "bridge")]
    bridges: arc_swap::ArcSwap<Vec<Arc<BridgeMetrics>>>,
    #[cfg(feature = "cluster")]
    cluster: OnceLock<cluster::ClusterQuestion>,
    rates: rates::RateSamples,
    trends: trends::TrendSamples,
}

/// Refreshes the totals.
struct Probe(Box<dyn Fn(&Totals) + Send + Sync>);

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}

/// Reads a number from another component.
struct Question(Box<dyn Fn() -> u64 + Send + Sync>);

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}

impl Metrics {
    /// Creates zeroed metrics for `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            cells: (0..=shards.max(1)).map(|_| Arc::default()).collect(),
            elsewhere: Mutex::default(),
            totals: Totals::default(),
            probe: OnceLock::new(),
            log_dropped: OnceLock::new(),
            rest: RestMetrics::default(),
            sources: OnceLock::new(),
            otlp: OnceLock::new(),
            #[cfg(feature = "webhooks")]
            webhooks: OnceLock::new(),
            #[cfg(feature = "bridge")]
            bridges: arc_swap::ArcSwap::default(),
            #[cfg(feature = "cluster")]
            cluster: OnceLock::new(),
            rates: rates::RateSamples::default(),
            trends: trends::TrendSamples::default(),
        }
    }

    /// Returns the metrics of shard `index`; those of the last shard if there is no such shard.
    #[must_use]
    pub fn shard(&self, index: usize) -> Arc<ShardMetrics> {
        self.cells[index.min(self.cells.len() - 2)].clone()
    }

    /// Returns the metrics of all shards, then those of other threads.
    pub fn shards(&self) -> impl Iterator<Item = &ShardMetrics> {
        self.cells.iter().map(|shard| &**shard)
    }

    /// Counts something on a thread that is not a shard's, in a cell of its own. A lock admits one
    /// thread at a time.
    pub(crate) fn count_elsewhere(&self, count: impl FnOnce(&ShardMetrics)) {
        let _alone = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = self.cells.last() {
            count(cell);
        }
    }

    /// Refreshes and returns the totals.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        if let Some(Probe(probe)) = self.probe.get() {
            probe(&self.totals);
        }
        &self.totals
    }

    /// Sets the function that refreshes the totals; only the first call has an effect.
    pub(crate) fn set_probe(&self, probe: impl Fn(&Totals) + Send + Sync + 'static) {
        drop(self.probe.set(Probe(Box::new(probe))));
    }

    /// Counts fetches of revocation lists.
    pub fn count_list_fetches(&self, fetched: u64, failed: u64) {
        let Totals { lists_fetched, list_fetches_failed, .. } = &self.totals;
        lists_fetched.set(lists_fetched.value() + fetched);
        list_fetches_failed.set(list_fetches_failed.value() + failed);
    }

    /// Sets the function that returns the number of dropped log lines; only the first call has an
    /// effect.
    pub fn set_log_dropped(&self, dropped: impl Fn() -> u64 + Send + Sync + 'static) {
        drop(self.log_dropped.set(Question(Box::new(dropped))));
    }

    /// Returns the number of dropped log lines; `None` if no function is set.
    #[must_use]
    pub fn log_dropped(&self) -> Option<u64> {
        self.log_dropped.get().map(|Question(dropped)| dropped())
    }

    /// Returns the metrics of the REST interface.
    #[must_use]
    pub fn rest(&self) -> &RestMetrics {
        &self.rest
    }
}

impl ShardMetrics {
    /// Counts dropped messages.
    pub(crate) fn dropped(&self, reason: DropReason, messages: usize) {
        if messages > 0 {
            self.messages_dropped.of(reason).add(messages as u64);
        }
    }

    /// Counts PUBLISH packets sent to a client, by QoS.
    pub(crate) fn sent(&self, messages: [u32; 3]) {
        for (counter, n) in self.messages_sent.iter().zip(messages) {
            if n > 0 {
                counter.add(u64::from(n));
            }
        }
    }
}
