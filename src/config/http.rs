//! `[http]`: where REST callers connect, and their limits.
//!
//! Plain data; `check` refuses invalid values.

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

use super::address::addresses;
use crate::{
    auth::Network,
    http::{ApiOptions, CallRate, MetricsAccess, ServerOptions},
};

/// `[http]`: where REST callers connect, and how much they may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Addresses for HTTP.
    #[serde(deserialize_with = "addresses")]
    pub listen: Vec<SocketAddr>,
    /// Addresses for HTTPS.
    #[serde(deserialize_with = "addresses")]
    pub https: Vec<SocketAddr>,
    /// The addresses, out of those above, whose connections begin with a PROXY header.
    #[serde(deserialize_with = "addresses")]
    pub proxy_protocol: Vec<SocketAddr>,
    /// Networks of the balancers and reverse proxies that may name the original caller.
    pub proxy_trusted: Vec<Network>,
    /// Threads that serve HTTP.
    pub workers: u16,
    /// Maximum number of connections.
    pub connections_max: u32,
    /// Maximum number of connections from one address (IPv6: from one /64).
    pub connections_per_address_max: u32,
    /// Maximum calls per second of one account; 0 = no limit.
    pub calls_per_account_per_sec: u32,
    /// Maximum calls of one account in a burst, before the rate applies.
    pub calls_per_account_burst: u32,
    /// Maximum calls per second from one address (IPv6: from one /64); 0 = no limit.
    pub calls_per_address_per_sec: u32,
    /// Maximum calls from one address in a burst, before the rate applies.
    pub calls_per_address_burst: u32,
    /// Maximum number of callers that follow events, in all.
    pub followers_max: u32,
    /// Maximum number of callers of one account that follow events.
    pub followers_per_account_max: u32,
    /// Milliseconds that a call waits for the broker before it is answered with 504.
    pub call_timeout_ms: u32,
    /// Milliseconds for the check of a call's credentials before it is answered with 503.
    pub login_timeout_ms: u32,
    /// Seconds that a browser stays logged in without a person who uses it; 0 = no login on a page.
    pub session_idle_secs: u32,
    /// Seconds that a browser stays logged in at most.
    pub session_secs_max: u32,
    /// The callers that may read `/metrics`.
    pub metrics_access: MetricsAccess,
    /// Names by which a request for `/metrics` may address this machine.
    pub metrics_hosts: Vec<String>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            // On this machine alone, until the operator decides how callers are protected.
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            https: Vec::new(),
            proxy_protocol: Vec::new(),
            proxy_trusted: Vec::new(),
            workers: 1,
            connections_max: 1_000,
            connections_per_address_max: 500,
            calls_per_account_per_sec: 1_000,
            calls_per_account_burst: 2_000,
            calls_per_address_per_sec: 1_000,
            calls_per_address_burst: 2_000,
            followers_max: 100,
            followers_per_account_max: 20,
            call_timeout_ms: 2_000,
            login_timeout_ms: 5_000,
            session_idle_secs: 1_800,
            session_secs_max: 43_200,
            metrics_access: MetricsAccess::Loopback,
            metrics_hosts: Vec::new(),
        }
    }
}

impl HttpConfig {
    /// Returns how many callers may follow events: at most three eighths of the connections.
    fn followers_max(&self) -> u32 {
        self.followers_max.min(self.connections_max / 8 * 3)
    }

    /// Returns how many calls may wait: with the followers, they have half of the connections.
    fn waiting_max(&self) -> usize {
        (self.connections_max / 2).saturating_sub(self.followers_max()).max(1) as usize
    }

    fn address_rate(&self) -> Option<CallRate> {
        rate(self.calls_per_address_per_sec, self.calls_per_address_burst)
    }
}

fn rate(per_sec: u32, burst: u32) -> Option<CallRate> {
    let (per_sec, burst) = (NonZeroU32::new(per_sec)?, NonZeroU32::new(burst)?);
    Some(CallRate { per_sec, burst })
}

/// Returns how often an address may begin a TLS handshake, given its rate of calls. Higher than a
/// low rate of calls, because a caller that exceeds it needs a connection to be told so; but
/// limited, because a TLS handshake is expensive.
fn handshake_rate(calls: CallRate) -> CallRate {
    let at_least =
        |number: NonZeroU32, min| NonZeroU32::new(min).map_or(number, |min| number.max(min));
    let CallRate { per_sec, burst } = calls;
    CallRate { per_sec: at_least(per_sec, 1_000), burst: at_least(burst, 2_000) }
}

impl From<&HttpConfig> for ApiOptions {
    fn from(config: &HttpConfig) -> Self {
        Self {
            account_rate: rate(config.calls_per_account_per_sec, config.calls_per_account_burst),
            address_rate: config.address_rate(),
            call_timeout: Duration::from_millis(config.call_timeout_ms.into()),
            login_timeout: Duration::from_millis(config.login_timeout_ms.into()),
            // The other half is left to health checks and to calls whose credentials need no check.
            password_checks_max: (config.connections_max as usize / 2).max(1),
            waiting_max: config.waiting_max(),
            followers_max: config.followers_max() as usize,
            followers_per_account_max: config.followers_per_account_max as usize,
            logins: Vec::new(),
            session_idle: Duration::from_secs(config.session_idle_secs.into()),
            session_max: Duration::from_secs(config.session_secs_max.into()),
            metrics_access: config.metrics_access,
            metrics_hosts: config.metrics_hosts.clone(),
            proxies: config.proxy_trusted.clone(),
        }
    }
}

impl From<&HttpConfig> for ServerOptions {
    fn from(config: &HttpConfig) -> Self {
        Self {
            workers: config.workers.into(),
            connections_max: config.connections_max as usize,
            connections_per_address_max: config.connections_per_address_max as usize,
            handshake_rate: config.address_rate().map(handshake_rate),
            proxies: config.proxy_trusted.clone(),
        }
    }
}
