//! Metrics of REST calls: their number by route and status, and their latency.
//!
//! Several HTTP workers write here, so additions are atomic; compared with the system calls of a
//! REST call their cost is negligible.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
#[cfg(feature = "http")]
use std::time::Duration;

use crate::labels::{Label, labels};

labels! {
    /// The counted routes.
    pub enum RestRoute {
        /// Changes a live connection's Keep Alive.
        KeepAlive = "/keep-alive",
        /// Queries whether a client is online.
        Status = "/client-id/{client_id}/status",
        /// Follows the presence of clients.
        Events = "/api/v1/events",
        /// Queries which of several clients are online.
        Statuses = "/api/v1/status",
        /// Changes the Keep Alive of several clients.
        KeepAlives = "/api/v1/keep-alive",
        /// Keep Alives that hold for later connections too.
        Overrides = "/api/v1/keep-alive/overrides",
        /// That of one client.
        Override = "/api/v1/keep-alive/overrides/{client_id}",
        /// The sticky settings of all clients.
        AllStickySettings = "/api/v1/settings",
        /// The sticky settings of a client.
        StickySettings = "/api/v1/settings/{client_id}",
        /// The sticky settings of all users.
        AllUserSettings = "/api/v1/user-settings",
        /// The sticky settings of a user.
        UserSettings = "/api/v1/user-settings/{username}",
        /// Advice on Keep Alive.
        KeepAliveAdvice = "/api/v1/keep-alive/advice",
        /// Publishes a message.
        Topic = "/topics/{topic}",
        /// Publishes several messages.
        Publish = "/api/v1/publish",
        /// Publishes a message and waits for the reply.
        Request = "/api/v1/request",
        /// Lists clients.
        Clients = "/api/v1/clients",
        /// Lists clients that a body selects.
        ClientsQuery = "/api/v1/clients/query",
        /// The busiest clients.
        Busiest = "/api/v1/busiest",
        /// Everything about one client.
        Client = "/api/v1/clients/{client_id}",
        /// The last connections of a client.
        ClientHistory = "/api/v1/clients/{client_id}/history",
        /// Ends the connections of several clients.
        Kick = "/api/v1/clients/kick",
        /// Subscribes on behalf of a client.
        Subscribe = "/api/v1/clients/{client_id}/subscribe",
        /// Unsubscribes on behalf of a client.
        Unsubscribe = "/api/v1/clients/{client_id}/unsubscribe",
        /// The subscriptions of a client.
        ClientSubscriptions = "/api/v1/clients/{client_id}/subscriptions",
        /// The queue of a client.
        ClientQueue = "/api/v1/clients/{client_id}/queue",
        /// Lists the receivers of a topic, or the sessions with a subscription.
        Subscriptions = "/api/v1/subscriptions",
        /// Lists retained messages.
        RetainedList = "/api/v1/retained",
        /// The retained message of a topic.
        Retained = "/api/v1/retained/{topic}",
        /// The node and what limits it.
        Node = "/api/v1/node",
        /// The metrics as JSON.
        Stats = "/api/v1/stats",
        /// The metrics over time.
        StatsHistory = "/api/v1/stats/history",
        /// Follows messages.
        Messages = "/api/v1/messages",
        /// Lists and starts traces of clients.
        Traces = "/api/v1/traces",
        /// One of them, and its records.
        Trace = "/api/v1/traces/{id}",
        /// The configuration in force.
        Configuration = "/api/v1/configuration",
        /// Shows or changes the level of the log.
        Log = "/api/v1/log",
        /// Shows the caller and its permissions.
        Me = "/api/v1/me",
        /// The login of a person on a page.
        Session = "/api/v1/session",
        /// Lists and creates accounts.
        Users = "/api/v1/users",
        /// Imports accounts.
        UsersImport = "/api/v1/users/import",
        /// Exports accounts.
        UsersExport = "/api/v1/users/export",
        /// Shows, changes and removes an account.
        User = "/api/v1/users/{name}",
        /// Sets the password of an account.
        UserPassword = "/api/v1/users/{name}/password",
        /// Makes a device secret.
        UserSecrets = "/api/v1/users/{name}/secrets",
        /// Removes a device secret.
        UserSecret = "/api/v1/users/{name}/secrets/{id}",
        /// The certificates of connected clients.
        Certificates = "/api/v1/certificates",
        /// Lists and revokes certificates.
        RevokedCertificates = "/api/v1/certificates/revoked",
        /// Accepts a certificate again.
        RevokedCertificate = "/api/v1/certificates/revoked/{serial}",
        /// Certificates that are pinned to client identifiers.
        CertificatePins = "/api/v1/certificates/pins",
        /// The certificate that is pinned to a client identifier.
        CertificatePin = "/api/v1/certificates/pins/{id}",
        /// The cluster.
        Cluster = "/api/v1/cluster",
        /// The bridges.
        Bridges = "/api/v1/bridges",
        /// Shows, starts and stops a bridge.
        Bridge = "/api/v1/bridges/{name}",
        /// Connects a bridge again.
        BridgeReconnect = "/api/v1/bridges/{name}/reconnect",
        /// Redirects clients to another server.
        Redirect = "/api/v1/redirect",
        /// The rules in the store.
        Rules = "/api/v1/rules",
        /// One of them.
        Rule = "/api/v1/rules/{id}",
        /// Says which rule decides about an action.
        RulesCheck = "/api/v1/rules/check",
        /// Clients that are kept out.
        Bans = "/api/v1/bans",
        /// One ban.
        Ban = "/api/v1/bans/{kind}/{value}",
        /// The API tokens.
        Tokens = "/api/v1/tokens",
        /// One of them.
        Token = "/api/v1/tokens/{name}",
        /// Lists the entries of the audit log.
        Audit = "/api/v1/audit",
        /// Addresses with failed logins.
        Logins = "/api/v1/logins",
        /// The failed logins of an address.
        LoginsOfAddress = "/api/v1/logins/{address}",
    }
}

/// The counted statuses; 500 includes all others.
pub(super) const STATUSES: [u16; 15] =
    [200, 400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 429, 503, 504, 500];

/// Upper bounds of the latency buckets in microseconds: a local call takes tens of microseconds, a
/// call that times out takes seconds.
pub(super) const BUCKETS_MICROS: [u64; 14] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000,
    5_000_000,
];

/// Metrics of REST calls, by route.
#[derive(Debug)]
pub struct RestMetrics {
    routes: [RouteMetrics; RestRoute::ALL.len()],
}

impl Default for RestMetrics {
    fn default() -> Self {
        Self { routes: std::array::from_fn(|_| RouteMetrics::default()) }
    }
}

impl RestMetrics {
    pub(super) fn of(&self, route: RestRoute) -> &RouteMetrics {
        &self.routes[route.index()]
    }
}

#[cfg(feature = "http")]
impl RestMetrics {
    /// Counts a call to `route`, answered with `status` after `took`.
    pub(crate) fn record(&self, route: RestRoute, status: u16, took: Duration) {
        let route = self.of(route);
        let known = STATUSES.iter().position(|known| *known == status);
        route.calls[known.unwrap_or(STATUSES.len() - 1)].fetch_add(1, Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        route.buckets[bucket].fetch_add(1, Relaxed);
        route.micros_sum.fetch_add(micros, Relaxed);
    }
}

#[derive(Debug, Default)]
pub(super) struct RouteMetrics {
    /// Calls by position in [`STATUSES`].
    calls: [AtomicU64; STATUSES.len()],
    /// Calls by position in [`BUCKETS_MICROS`], not cumulative; the last bucket has all longer
    /// calls.
    buckets: [AtomicU64; BUCKETS_MICROS.len() + 1],
    micros_sum: AtomicU64,
}

impl RouteMetrics {
    /// Returns calls by status, without statuses that never occurred.
    pub(super) fn calls(&self) -> impl Iterator<Item = (u16, u64)> {
        STATUSES
            .iter()
            .zip(&self.calls)
            .map(|(status, calls)| (*status, calls.load(Relaxed)))
            .filter(|(_, calls)| *calls > 0)
    }

    /// Returns the sum of latencies in seconds, and for each bucket its upper bound in seconds and
    /// its calls.
    pub(super) fn latency(&self) -> (f64, Vec<(f64, u64)>) {
        #[expect(clippy::cast_precision_loss, reason = "microseconds below 2^52 are exact")]
        let seconds = |micros: u64| micros as f64 / 1e6;
        let bounds = BUCKETS_MICROS.iter().map(|micros| seconds(*micros));
        let counts = self.buckets.iter().map(|calls| calls.load(Relaxed));
        let buckets = bounds.chain([f64::INFINITY]).zip(counts).collect();
        (seconds(self.micros_sum.load(Relaxed)), buckets)
    }
}
