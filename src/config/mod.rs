//! The configuration of the `hearthmq` program: every option with its default.
//!
//! [`Config`] is plain data; [`load`](Config::load) fills it from a TOML file, the environment and
//! the command line, `check` refuses invalid values, and `example.toml` documents every option.
//! Nothing here opens a socket or reads a certificate: the command line does that, and an
//! application that embeds the broker needs none of this.

mod address;
mod bridges;
mod change;
mod check;
#[cfg(feature = "cluster")]
mod cluster;
mod error;
mod http;
mod listeners;
mod load;
mod otlp;
mod problem;
mod shown;
mod sources;
mod webhooks;

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    auth::{
        AuthenticationConfig, HttpAuthConfig, JwtConfig, Network, PostgresConfig,
        SCRAM_ITERATIONS_DEFAULT, ThrottleConfig,
    },
    durable::SyncPolicy,
    limits::Limits,
    net::{
        TCP_KEEP_ALIVE_SECS_DEFAULT,
        tls::{ClientAuth, TlsConfig, TlsVersion},
    },
    told::ClientLines,
};

#[cfg(feature = "cluster")]
pub use self::cluster::{ClusterOptionError, ClusterOptions};
pub use self::{
    bridges::{BridgeConfig, BridgeFileError, BridgeTlsConfig, BridgeTopicConfig},
    change::Change,
    error::{ConfigError, Place},
    http::HttpConfig,
    listeners::{ListenerConfig, TlsOverrides},
    otlp::{OtlpConfig, OtlpConfigError},
    sources::SourceName,
    webhooks::{WebhookConfig, WebhookFileError, WebhookSecretText},
};

use self::address::addresses;

/// A commented configuration file with every option at its default.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of all data of the broker; created if missing.
    pub data_dir: PathBuf,
    /// The broker's name in presence events.
    pub node: String,
    /// Threads that serve MQTT connections; 0 = one for each core.
    pub shards: u16,
    /// Seconds that a shutdown may take before connections are cut.
    pub shutdown_deadline_secs: u16,
    /// MQTT listeners.
    pub mqtt: MqttConfig,
    /// HTTP listeners and the limits of REST callers.
    pub http: HttpConfig,
    /// Certificates of the TLS listeners, MQTT and HTTPS alike.
    pub tls: TlsFiles,
    /// Accounts and permissions.
    pub auth: AuthConfig,
    /// Limits of clients.
    pub limits: Limits,
    /// The options of the store.
    pub store: StoreConfig,
    /// The log.
    pub log: LogConfig,
    /// The export of metrics and traces.
    pub otlp: OtlpConfig,
    /// The cluster of which the broker is a member.
    #[cfg(feature = "cluster")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterOptions>,
    /// Settings of single listeners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerConfig>,
    /// Connections to other brokers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bridges: Vec<BridgeConfig>,
    /// Endpoints that receive the events of presence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhook: Vec<WebhookConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "hearthmq-data".into(),
            node: "hearthmq".to_owned(),
            shards: 0,
            shutdown_deadline_secs: 10,
            mqtt: MqttConfig::default(),
            http: HttpConfig::default(),
            tls: TlsFiles::default(),
            auth: AuthConfig::default(),
            limits: Limits::default(),
            store: StoreConfig::default(),
            log: LogConfig::default(),
            otlp: OtlpConfig::default(),
            #[cfg(feature = "cluster")]
            cluster: None,
            listeners: Vec::new(),
            bridges: Vec::new(),
            webhook: Vec::new(),
        }
    }
}

impl Config {
    /// Returns the path of the accounts file: `auth.users`, relative to the data directory.
    #[must_use]
    pub fn users_file(&self) -> PathBuf {
        self.data_dir.join(&self.auth.users)
    }

    /// Returns the path of the permissions file: `auth.policy`, relative to the data directory.
    #[must_use]
    pub fn policy_file(&self) -> PathBuf {
        self.data_dir.join(&self.auth.policy)
    }
}

impl AuthConfig {
    /// Returns the iterations of the SCRAM keys of a new password; `None` if it gets no such keys.
    #[must_use]
    pub fn scram_keys(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.scram_iterations).filter(|_| self.scram)
    }
}

/// `[mqtt]`: where MQTT clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttConfig {
    /// Addresses for MQTT over TCP.
    #[serde(deserialize_with = "addresses")]
    pub tcp: Vec<SocketAddr>,
    /// Addresses for MQTT over TLS.
    #[serde(deserialize_with = "addresses")]
    pub tls: Vec<SocketAddr>,
    /// Addresses for MQTT over WebSocket.
    #[serde(deserialize_with = "addresses")]
    pub websocket: Vec<SocketAddr>,
    /// Addresses for MQTT over WebSocket over TLS.
    #[serde(deserialize_with = "addresses")]
    pub secure_websocket: Vec<SocketAddr>,
    /// The path of the URL for WebSocket.
    pub websocket_path: String,
    /// Origins of web pages that may connect over WebSocket; empty = all, or those of the same host
    /// where a client certificate can be the login.
    pub websocket_origins: Vec<String>,
    /// Paths of Unix sockets.
    pub unix: Vec<PathBuf>,
    /// Permission bits of the Unix sockets, in octal as for `chmod`.
    pub unix_mode: String,
    /// The addresses, out of those above, whose connections begin with a PROXY header.
    #[serde(deserialize_with = "addresses")]
    pub proxy_protocol: Vec<SocketAddr>,
    /// Networks of the balancers that may send a PROXY header; empty = only this machine.
    pub proxy_trusted: Vec<Network>,
    /// Seconds of silence after which the peer of a TCP connection is probed; the connection is
    /// closed after twice that time. 0 = the default of the operating system.
    pub tcp_keep_alive_secs: u16,
    /// Prefix of the Response Topics of MQTT 5 clients; empty = clients get no Response
    /// Information.
    pub response_topic_prefix: String,
    /// Seconds between two updates of `$SYS/broker/…`; 0 = it is not published.
    pub sys_interval_secs: u16,
}

impl MqttConfig {
    /// Returns the permission bits of Unix sockets; `None` if they are invalid.
    #[must_use]
    pub fn unix_mode_bits(&self) -> Option<u32> {
        u32::from_str_radix(&self.unix_mode, 8).ok().filter(|bits| *bits <= 0o777)
    }
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            tcp: vec![SocketAddr::from(([127, 0, 0, 1], 1883))],
            tls: Vec::new(),
            websocket: Vec::new(),
            secure_websocket: Vec::new(),
            websocket_path: "/mqtt".to_owned(),
            websocket_origins: Vec::new(),
            unix: Vec::new(),
            unix_mode: "660".to_owned(),
            proxy_protocol: Vec::new(),
            proxy_trusted: Vec::new(),
            tcp_keep_alive_secs: TCP_KEEP_ALIVE_SECS_DEFAULT,
            response_topic_prefix: String::new(),
            sys_interval_secs: 10,
        }
    }
}

/// `[tls]`: PEM files for the TLS listeners. An empty path means no file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsFiles {
    /// The server's certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// The server certificate's key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// The oldest accepted version of TLS.
    pub min_version: TlsVersion,
    /// Certification authorities whose client certificates are accepted.
    pub client_ca: Vec<PathBuf>,
    /// Whether clients are asked for a certificate.
    pub client_auth: ClientAuth,
    /// Certificate revocation lists.
    pub crl: Vec<PathBuf>,
    /// URLs of further lists, which the program fetches.
    pub crl_urls: Vec<String>,
    /// Seconds between two fetches of these lists; 0 = only at the start and at SIGHUP.
    pub crl_refresh_secs: u32,
    /// An OCSP response about the server's certificate, in DER form.
    pub ocsp: PathBuf,
    /// Whether an MQTT client with a certificate must use its Common Name as client identifier.
    pub client_id_is_common_name: bool,
    /// Seconds between two checks whether the files have changed; 0 = they are read only at SIGHUP.
    pub watch_secs: u32,
}

impl Default for TlsFiles {
    fn default() -> Self {
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            min_version: TlsVersion::default(),
            client_ca: Vec::new(),
            client_auth: ClientAuth::default(),
            crl: Vec::new(),
            crl_urls: Vec::new(),
            crl_refresh_secs: 3_600,
            ocsp: PathBuf::new(),
            client_id_is_common_name: false,
            watch_secs: 0,
        }
    }
}

impl From<&TlsFiles> for TlsConfig {
    fn from(files: &TlsFiles) -> Self {
        Self {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            client_ca: files.client_ca.clone(),
            client_auth: files.client_auth,
            crl: files.crl.clone(),
            min_version: files.min_version,
            ocsp: files.ocsp.clone(),
        }
    }
}

/// `[auth]`: accounts and permissions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// The sources of identities, in the order in which they are asked. Those that are not configured
    /// are skipped.
    pub sources: Vec<SourceName>,
    /// Accounts file; a relative path starts at the data directory.
    pub users: PathBuf,
    /// Permissions file; a relative path starts at the data directory.
    pub policy: PathBuf,
    /// Whether MQTT clients without user name and certificate are admitted (the policy still
    /// decides what they may do).
    pub anonymous: bool,
    /// Whether an MQTT client with a user name that has no account is treated as anonymous, where
    /// anonymous clients are admitted.
    pub anonymous_with_name: bool,
    /// Whether a client certificate is accepted only if its Common Name has an account.
    pub certificate_needs_account: bool,
    /// Whether the first certificate that a client identifier shows is pinned to it.
    pub pin_certificates: bool,
    /// Whether a client certificate suffices; otherwise the password of its account is required
    /// too.
    pub certificate_is_enough: bool,
    /// Seconds for which a verified password is not hashed again; 0 = hash every time.
    pub verified_secs: u32,
    /// Whether MQTT 5 clients may log in by SCRAM-SHA-256.
    pub scram: bool,
    /// Iterations of new SCRAM keys.
    pub scram_iterations: u32,
    /// Maximum number of passwords hashed at the same time, each with 19 MiB of memory; 0 = one for
    /// each core.
    pub hashes_at_once_max: usize,
    /// Maximum number of pairs of user and address that are remembered after a login; their logins
    /// come before those of strangers.
    pub known_logins_max: usize,
    /// Whether the user name of an MQTT client is taken up to its first `?`.
    pub username_without_query: bool,
    /// How repeated failures are slowed down and refused.
    pub throttle: ThrottleConfig,
    /// Signed tokens.
    pub jwt: JwtConfig,
    /// An HTTP service that knows clients.
    pub http: HttpAuthConfig,
    /// A PostgreSQL database that knows clients.
    pub postgres: PostgresConfig,
}

impl Default for AuthConfig {
    fn default() -> Self {
        let authentication = AuthenticationConfig::default();
        Self {
            sources: SourceName::ALL.into(),
            users: "users.toml".into(),
            policy: "policy.toml".into(),
            anonymous: authentication.anonymous,
            anonymous_with_name: authentication.anonymous_with_name,
            certificate_needs_account: authentication.certificate_needs_account,
            pin_certificates: false,
            certificate_is_enough: authentication.certificate_is_enough,
            verified_secs: authentication.verified_secs,
            scram: false,
            scram_iterations: SCRAM_ITERATIONS_DEFAULT,
            hashes_at_once_max: authentication.hashes_at_once_max,
            known_logins_max: authentication.known_logins_max,
            username_without_query: false,
            throttle: authentication.throttle,
            jwt: JwtConfig::default(),
            http: HttpAuthConfig::default(),
            postgres: PostgresConfig::default(),
        }
    }
}

impl From<&Config> for AuthenticationConfig {
    fn from(config: &Config) -> Self {
        let auth = &config.auth;
        Self {
            anonymous: auth.anonymous,
            anonymous_with_name: auth.anonymous_with_name,
            certificate_needs_account: auth.certificate_needs_account,
            certificate_is_enough: auth.certificate_is_enough,
            client_id_is_common_name: config.tls.client_id_is_common_name,
            verified_secs: auth.verified_secs,
            hashes_at_once_max: auth.hashes_at_once_max,
            known_logins_max: auth.known_logins_max,
            throttle: auth.throttle.clone(),
            ..Self::default()
        }
    }
}

/// `[store]`: when acknowledged changes are safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// When changes are synced to the disk.
    pub sync: SyncMode,
    /// Milliseconds between two syncs if `sync` is `interval`.
    pub sync_interval_ms: u32,
    /// Bytes that must stay free on the disk; with less than twice as many, durable messages are
    /// refused.
    pub free_bytes_min: u64,
    /// Bytes of memory that cache data read from the disk.
    pub cache_bytes: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            sync: SyncMode::Always,
            sync_interval_ms: 1_000,
            free_bytes_min: 67_108_864,
            cache_bytes: 16_777_216,
        }
    }
}

/// When changes are synced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SyncMode {
    /// Before they are acknowledged.
    Always,
    /// At intervals; acknowledged changes have been handed to the operating system before.
    Interval,
    /// When the operating system decides; nothing waits for it.
    Off,
}

impl From<&StoreConfig> for SyncPolicy {
    fn from(config: &StoreConfig) -> Self {
        match config.sync {
            SyncMode::Always => Self::Always,
            SyncMode::Interval => {
                Self::Interval(Duration::from_millis(config.sync_interval_ms.into()))
            }
            SyncMode::Off => Self::Off,
        }
    }
}

/// `[log]`: the log on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Format of a line.
    pub format: LogFormat,
    /// Levels, in the syntax of `tracing` filters: `info`, `warn,hearthmq=debug`.
    pub filter: String,
    /// Which lines about clients are logged.
    pub clients: ClientLines,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: LOG_FILTER_DEFAULT.into(),
            clients: ClientLines::default(),
        }
    }
}

/// Hides the routine messages of libraries.
const LOG_FILTER_DEFAULT: &str = "info,actix_server=warn,fjall=warn,lsm_tree=warn";

/// Format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object for each line.
    Json,
}
