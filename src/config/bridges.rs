//! `[[bridges]]`: a connection to another broker.
//!
//! Plain data, and the [`Bridge`] that it describes; the command line reads the files.

use std::{
    env, fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::webhooks::Fault;
use crate::{
    bridge::{
        Bridge, BridgeAddress, BridgeError, BridgeOptions, BridgeTls, BridgeTopic, Direction,
        RetainedOf,
    },
    mqtt::{ProtocolVersion, QoS},
};

/// `[[bridges]]`: another broker, the topics that go over, and the bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeConfig {
    /// Its name in its client identifier, in metrics and log lines.
    pub name: String,
    /// Addresses of the other broker.
    pub addresses: Vec<String>,
    /// Whether an attempt begins with the address behind the last one.
    pub round_robin: bool,
    /// Whether it connects.
    pub enabled: bool,
    /// The version of MQTT: `5` or `3.1.1`.
    pub protocol: String,
    /// Client identifier at the other broker; empty = the name of the node, `-` and its own name.
    pub client_id: String,
    /// User name at the other broker; empty = none.
    pub username: String,
    /// A file with the password, which nobody else may read; empty = none.
    pub password_file: PathBuf,
    /// The environment variable with the password; empty = none.
    pub password_env: String,
    /// Whether the other broker forgets the session at each connection.
    pub clean_start: bool,
    /// Session Expiry Interval at the other broker, in seconds.
    pub session_expiry_secs: u32,
    /// Keep Alive in seconds.
    pub keep_alive_secs: u16,
    /// Seconds that an attempt with one address may take.
    pub connect_timeout_secs: u16,
    /// Seconds between two attempts, at first.
    pub reconnect_secs_min: u16,
    /// Seconds between two attempts, at last.
    pub reconnect_secs_max: u16,
    /// Maximum number of messages that wait; 0 = that of `[limits]`.
    pub queue_messages_max: u32,
    /// Maximum bytes of messages that wait; 0 = that of `[limits]`.
    pub queue_bytes_max: u64,
    /// Maximum number of messages in flight in each direction; 0 = those of `[limits]`.
    pub in_flight_max: u16,
    /// Maximum size of a packet that is sent; 0 = what the other broker accepts.
    pub packet_bytes_max: u32,
    /// Whether messages are sent with RETAIN.
    pub retain: bool,
    /// Topic of its state at the other broker; empty = none.
    pub status_topic: String,
    /// Local address of the connection; empty = any.
    pub bind_address: String,
    /// `mark` or `none`: whether messages are marked against loops.
    pub loops: String,
    /// A message that has passed this number of brokers is not sent out.
    pub hops_max: u8,
    /// How addresses with TLS are reached.
    pub tls: BridgeTlsConfig,
    /// The topics that go over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<BridgeTopicConfig>,
}

/// `tls` of `[[bridges]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeTlsConfig {
    /// A PEM file of the certification authorities; empty = those of the system.
    pub ca: PathBuf,
    /// A PEM file with the certificate of the bridge; empty = none.
    pub certificate: PathBuf,
    /// A PEM file with its key.
    pub key: PathBuf,
    /// The name in the certificate of the other broker; empty = the host of the address.
    pub server_name: String,
    /// The protocol for ALPN; empty = none.
    pub alpn: String,
}

/// `[[bridges.topics]]`: topics that go over a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeTopicConfig {
    /// Topic Filter, without the prefixes.
    pub filter: String,
    /// `out`, `in` or `both`.
    pub direction: String,
    /// Maximum QoS.
    pub qos: u8,
    /// Prefix in this broker.
    pub local_prefix: String,
    /// Prefix at the other broker.
    pub remote_prefix: String,
    /// When retained messages go over: `new`, `always` or `never`.
    pub retained: String,
}

impl Default for BridgeTopicConfig {
    fn default() -> Self {
        Self {
            filter: String::new(),
            direction: Direction::Out.name().to_owned(),
            qos: 1,
            local_prefix: String::new(),
            remote_prefix: String::new(),
            retained: RetainedOf::New.name().to_owned(),
        }
    }
}

impl Default for BridgeConfig {
    fn default() -> Self {
        let options = BridgeOptions::default();
        let secs = |time: Duration| u16::try_from(time.as_secs()).unwrap_or(u16::MAX);
        Self {
            name: String::new(),
            addresses: Vec::new(),
            round_robin: options.round_robin,
            enabled: options.enabled,
            protocol: "5".to_owned(),
            client_id: String::new(),
            username: String::new(),
            password_file: PathBuf::new(),
            password_env: String::new(),
            clean_start: options.clean_start,
            session_expiry_secs: options.session_expiry_secs,
            keep_alive_secs: options.keep_alive_secs,
            connect_timeout_secs: secs(options.connect_timeout),
            reconnect_secs_min: secs(options.reconnect_min),
            reconnect_secs_max: secs(options.reconnect_max),
            // 0 stands for "not given", because TOML has no value for that.
            queue_messages_max: 0,
            queue_bytes_max: 0,
            in_flight_max: 0,
            packet_bytes_max: 0,
            retain: options.retain,
            status_topic: String::new(),
            bind_address: String::new(),
            loops: MARK.to_owned(),
            hops_max: options.hops_max,
            tls: BridgeTlsConfig::default(),
            topics: Vec::new(),
        }
    }
}

/// The values of `loops`.
const MARK: &str = "mark";
const NO_MARK: &str = "none";

impl BridgeConfig {
    /// Returns a table with every option, from which the options can be listed.
    pub(super) fn with_every_option() -> Self {
        Self { topics: vec![BridgeTopicConfig::default()], ..Self::default() }
    }

    /// Checks every option, without the files and the variable that it names.
    ///
    /// # Errors
    /// The first option that is invalid, with the reason.
    pub fn check(&self) -> Result<(), BridgeFileError> {
        self.without_files().map(drop).map_err(|fault| self.invalid(fault))
    }

    /// Returns the bridge. Reads the files and the variable that it names.
    ///
    /// # Errors
    /// A file cannot be used, the variable is missing, or an option is invalid.
    pub fn bridge(&self) -> Result<Bridge, BridgeFileError> {
        self.whole().map_err(|fault| self.invalid(fault))
    }

    fn invalid(&self, (option, why): Fault) -> BridgeFileError {
        BridgeFileError { bridge: self.name.clone(), option, why }
    }

    fn whole(&self) -> Result<Bridge, Fault> {
        let bridge = self.without_files()?;
        let username = Some(&*self.username).filter(|name| !name.is_empty());
        let password = self.password()?;
        let bridge = bridge
            .credentials(username, password.as_deref())
            .map_err(|error| ("username", error.to_string()))?;
        Ok(bridge.tls(self.tls()?))
    }

    fn password(&self) -> Result<Option<String>, Fault> {
        if !self.password_env.is_empty() {
            let found = env::var(&self.password_env);
            let missing = |_| format!("there is no variable {}", self.password_env);
            return found.map(Some).map_err(|error| ("password_env", missing(error)));
        }
        if self.password_file.as_os_str().is_empty() {
            return Ok(None);
        }
        let found = secret_in(&self.password_file);
        let why = |why: String| format!("{}: {why}", self.password_file.display());
        found.map(Some).map_err(|error| ("password_file", why(error)))
    }

    fn tls(&self) -> Result<BridgeTls, Fault> {
        let fault = |error: BridgeError| ("tls", error.to_string());
        let BridgeTlsConfig { ca, certificate, key, server_name, alpn } = &self.tls;
        let mut tls = BridgeTls::default();
        if !ca.as_os_str().is_empty() {
            tls = tls.trusting(ca).map_err(fault)?;
        }
        if !certificate.as_os_str().is_empty() {
            tls = tls.showing(certificate, key).map_err(fault)?;
        }
        if !server_name.is_empty() {
            tls = tls.server_name(server_name).map_err(fault)?;
        }
        Ok(if alpn.is_empty() { tls } else { tls.alpn(alpn) })
    }

    /// Returns the bridge without what its files have.
    pub(super) fn without_files(&self) -> Result<Bridge, Fault> {
        let addresses = self.addresses.iter().map(|text| text.parse::<BridgeAddress>());
        let addresses = addresses
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ("addresses", error.to_string()))?;
        let topics = self.topics.iter().map(BridgeTopicConfig::topic);
        let topics = topics.collect::<Result<Vec<_>, _>>()?;
        // Two passwords would leave it open which one the other broker gets.
        if !self.password_file.as_os_str().is_empty() && !self.password_env.is_empty() {
            return Err(("password_env", "write password_file or password_env".to_owned()));
        }
        let BridgeTlsConfig { certificate, key, server_name, .. } = &self.tls;
        if certificate.as_os_str().is_empty() != key.as_os_str().is_empty() {
            return Err(("tls", "write certificate and key together".to_owned()));
        }
        // A name needs no file, so it can be checked here.
        if !server_name.is_empty() {
            let checked = BridgeTls::default().server_name(server_name);
            checked.map(drop).map_err(|error| ("tls", error.to_string()))?;
        }
        let fault = |error: BridgeError| (error.option(), error.to_string());
        let bridge = Bridge::new(&self.name, addresses, topics).map_err(fault)?;
        bridge.options(self.options()?).map_err(fault)
    }

    fn options(&self) -> Result<BridgeOptions, Fault> {
        let version = match &*self.protocol {
            "5" => ProtocolVersion::V5,
            "3.1.1" => ProtocolVersion::V3_1_1,
            _ => return Err(("protocol", "write \"5\" or \"3.1.1\"".to_owned())),
        };
        let marks_loops = match &*self.loops {
            MARK => true,
            NO_MARK => false,
            _ => return Err(("loops", "write \"mark\" or \"none\"".to_owned())),
        };
        // Empty leaves the choice to the operating system.
        let bind_address = match &*self.bind_address {
            "" => None,
            text => {
                let address: Result<IpAddr, _> = text.parse();
                Some(address.map_err(|_| ("bind_address", "write an IP address".to_owned()))?)
            }
        };
        let secs = |secs: u16| Duration::from_secs(secs.into());
        Ok(BridgeOptions {
            enabled: self.enabled,
            version,
            client_id: self.client_id.clone(),
            clean_start: self.clean_start,
            session_expiry_secs: self.session_expiry_secs,
            keep_alive_secs: self.keep_alive_secs,
            connect_timeout: secs(self.connect_timeout_secs),
            reconnect_min: secs(self.reconnect_secs_min),
            reconnect_max: secs(self.reconnect_secs_max),
            round_robin: self.round_robin,
            // 0 stands for "not given": a bridge that may keep nothing has no use.
            queue_messages_max: Some(self.queue_messages_max).filter(|max| *max > 0),
            queue_bytes_max: Some(self.queue_bytes_max).filter(|max| *max > 0),
            in_flight_max: Some(self.in_flight_max).filter(|max| *max > 0),
            packet_bytes_max: Some(self.packet_bytes_max).filter(|max| *max > 0),
            retain: self.retain,
            status_topic: self.status_topic.clone(),
            bind_address,
            marks_loops,
            hops_max: self.hops_max,
        })
    }
}

impl BridgeTopicConfig {
    fn topic(&self) -> Result<BridgeTopic, Fault> {
        let fault = |why: &str| ("topics", why.to_owned());
        let direction = [Direction::Out, Direction::In, Direction::Both];
        let direction = direction.into_iter().find(|one| one.name() == self.direction);
        let retained = [RetainedOf::New, RetainedOf::Always, RetainedOf::Never];
        let retained = retained.into_iter().find(|one| one.name() == self.retained);
        let topic = BridgeTopic {
            filter: self.filter.clone(),
            direction: direction
                .ok_or_else(|| fault("direction is \"out\", \"in\" or \"both\""))?,
            qos: QoS::from_number(self.qos).ok_or_else(|| fault("qos is 0, 1 or 2"))?,
            local_prefix: self.local_prefix.clone(),
            remote_prefix: self.remote_prefix.clone(),
            retained: retained
                .ok_or_else(|| fault("retained is \"new\", \"always\" or \"never\""))?,
        };
        // The topic alone; whether two topics collide is checked by the bridge.
        topic.check().map_err(|error| ("topics", error.to_string()))?;
        Ok(topic)
    }
}

/// Reads a secret from a file that nobody else may read.
fn secret_in(path: &Path) -> Result<String, String> {
    let mode = fs::metadata(path).map_err(|error| error.to_string())?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("others may read it (mode {:o}); write chmod 600", mode & 0o777));
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A bridge of the configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[[bridges]] {bridge}: {option}: {why}")]
pub struct BridgeFileError {
    bridge: String,
    option: &'static str,
    why: String,
}

impl BridgeFileError {
    /// Returns the option at fault.
    #[must_use]
    pub const fn option(&self) -> &'static str {
        self.option
    }

    /// Returns its fault.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }
}
