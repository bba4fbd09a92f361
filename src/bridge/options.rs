//! The definition of a bridge: its addresses, its topics and its options.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    address::BridgeAddress,
    credentials::BridgeCredentials,
    error::{ADDRESSES_MAX, BridgeError, TOPICS_MAX},
    tls::BridgeTls,
    topic::BridgeTopic,
};
use crate::{
    auth::{BRIDGE_CLIENTS, HiddenText},
    control::BridgeTopicView,
    mqtt::{ProtocolVersion, validate_topic},
};

/// Maximum number of bytes of a name, which is part of a client identifier and a label of metrics.
const NAME_BYTES_MAX: usize = 64;

/// A connection to another broker. Given to [`Builder::bridge`](crate::broker::Builder::bridge).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Bridge {
    pub(super) name: Arc<str>,
    pub(super) addresses: Vec<BridgeAddress>,
    pub(super) topics: Vec<BridgeTopic>,
    pub(super) options: BridgeOptions,
    pub(super) credentials: BridgeCredentials,
    pub(super) tls: BridgeTls,
}

/// How a bridge connects, and its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeOptions {
    /// Whether it connects. If not, its session collects messages all the same.
    pub enabled: bool,
    /// The version that it speaks: MQTT 5.0 or 3.1.1.
    pub version: ProtocolVersion,
    /// Client identifier at the other broker; empty for the name of the node, `-` and the name of the
    /// bridge.
    pub client_id: String,
    /// Whether the other broker forgets the session of the bridge at each connection.
    pub clean_start: bool,
    /// Session Expiry Interval at another broker of MQTT 5.0, in seconds.
    pub session_expiry_secs: u32,
    /// Keep Alive in seconds; at least [`BridgeOptions::KEEP_ALIVE_SECS_SMALLEST`].
    pub keep_alive_secs: u16,
    /// The time that an attempt with one address may take, up to CONNACK.
    pub connect_timeout: Duration,
    /// The shortest time between two attempts, up to twice as long.
    pub reconnect_min: Duration,
    /// The longest time between two attempts, up to twice as long.
    pub reconnect_max: Duration,
    /// Whether an attempt begins with the address behind the last one, and not with the first.
    pub round_robin: bool,
    /// Maximum number of messages that wait, if it differs from the limit of other sessions.
    pub queue_messages_max: Option<u32>,
    /// Maximum bytes of messages that wait, if they differ from the limit of other sessions.
    pub queue_bytes_max: Option<u64>,
    /// Maximum number of messages in flight in each direction, if it differs from the limits of
    /// clients; to a broker of MQTT 3.1.1 from 20, which Mosquitto takes by default.
    pub in_flight_max: Option<u16>,
    /// Maximum size of a packet that is sent, below what the other broker accepts.
    pub packet_bytes_max: Option<u32>,
    /// Whether messages are sent with RETAIN.
    pub retain: bool,
    /// Topic at the other broker that has `1` while the bridge is connected, and else `0`; empty for
    /// none.
    pub status_topic: String,
    /// Local address of the connection.
    pub bind_address: Option<IpAddr>,
    /// Whether messages are marked with the brokers that they have passed, with MQTT 5.0.
    pub marks_loops: bool,
    /// A message that has passed this number of brokers is not sent to a further one.
    pub hops_max: u8,
}

impl BridgeOptions {
    /// The smallest Keep Alive: an answer may take half of it.
    pub const KEEP_ALIVE_SECS_SMALLEST: u16 = 5;

    const fn is_valid(&self) -> bool {
        self.keep_alive_secs >= Self::KEEP_ALIVE_SECS_SMALLEST
            && !self.connect_timeout.is_zero()
            && !self.reconnect_min.is_zero()
            && self.hops_max >= 1
    }
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            version: ProtocolVersion::V5,
            client_id: String::new(),
            clean_start: false,
            session_expiry_secs: 7 * 24 * 60 * 60,
            keep_alive_secs: 60,
            connect_timeout: Duration::from_secs(10),
            reconnect_min: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(60),
            round_robin: false,
            queue_messages_max: None,
            queue_bytes_max: None,
            in_flight_max: None,
            packet_bytes_max: None,
            retain: true,
            status_topic: String::new(),
            bind_address: None,
            marks_loops: true,
            hops_max: 8,
        }
    }
}

impl Bridge {
    /// Returns a bridge with default options. Its name is part of the client identifier of its
    /// session: 1 to 64 lower-case letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// The name is invalid, or there are no addresses or topics, or too many.
    pub fn new(
        name: &str,
        addresses: Vec<BridgeAddress>,
        topics: Vec<BridgeTopic>,
    ) -> Result<Self, BridgeError> {
        // The name is part of a client identifier and of metrics, so it has no characters that need escapes.
        let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(BridgeError::Name(name.to_owned()));
        }
        if !(1..=ADDRESSES_MAX).contains(&addresses.len()) {
            return Err(BridgeError::Addresses);
        }
        if !(1..=TOPICS_MAX).contains(&topics.len()) {
            return Err(BridgeError::Topics);
        }
        Ok(Self {
            name: name.into(),
            addresses,
            topics,
            options: BridgeOptions::default(),
            credentials: BridgeCredentials::default(),
            tls: BridgeTls::default(),
        })
    }

    /// Sets the options.
    ///
    /// # Errors
    /// [`BridgeError::Options`], [`BridgeError::Version`] or [`BridgeError::StatusTopic`].
    pub fn options(mut self, options: BridgeOptions) -> Result<Self, BridgeError> {
        if !options.is_valid() {
            return Err(BridgeError::Options);
        }
        if options.version == ProtocolVersion::V3_1 {
            return Err(BridgeError::Version);
        }
        if !options.status_topic.is_empty() {
            validate_topic(&options.status_topic).map_err(BridgeError::StatusTopic)?;
        }
        self.options = options;
        Ok(self)
    }

    /// Sets the user name and password at the other broker.
    ///
    /// # Errors
    /// [`BridgeError::Credentials`] if there is a password without user name in MQTT 3.1.1, so call
    /// [`Bridge::options`] before.
    pub fn credentials(
        mut self,
        username: Option<&str>,
        password: Option<&str>,
    ) -> Result<Self, BridgeError> {
        if password.is_some() && username.is_none() && !self.options.version.has_properties() {
            return Err(BridgeError::Credentials);
        }
        self.credentials = BridgeCredentials {
            username: username.map(str::to_owned),
            password: password.map(HiddenText::from),
        };
        Ok(self)
    }

    /// Sets how addresses with TLS are reached.
    pub fn tls(mut self, tls: BridgeTls) -> Self {
        self.tls = tls;
        self
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the client identifier of its session in this broker.
    #[must_use]
    pub fn local_client_id(&self) -> String {
        format!("{BRIDGE_CLIENTS}{}", self.name)
    }

    /// Returns the options.
    pub(crate) const fn options_now(&self) -> &BridgeOptions {
        &self.options
    }

    /// Returns the version for people.
    pub(crate) const fn protocol(&self) -> &'static str {
        if self.options.version.has_properties() { "5" } else { "3.1.1" }
    }

    /// Returns the topics for people.
    pub(crate) fn topic_views(&self) -> Vec<BridgeTopicView> {
        let views = self.topics.iter().map(|topic| {
            let mut view = BridgeTopicView::default();
            view.filter.clone_from(&topic.filter);
            view.direction = topic.direction.name();
            view.qos = topic.qos.number();
            view.local_prefix.clone_from(&topic.local_prefix);
            view.remote_prefix.clone_from(&topic.remote_prefix);
            view.retained = topic.retained.name();
            view
        });
        views.collect()
    }

    /// Returns the in topics at the other broker that `next` does not have.
    pub(crate) fn in_topics_beyond(&self, next: &Self) -> Vec<String> {
        let comes_in = |bridge: &Self| {
            let topics = bridge.topics.iter().filter(|topic| topic.direction.comes_in());
            topics.map(BridgeTopic::remote_filter).collect::<Vec<_>>()
        };
        let next = comes_in(next);
        comes_in(self).into_iter().filter(|filter| !next.contains(filter)).collect()
    }

    /// Returns whether an address needs TLS.
    pub(super) fn needs_tls(&self) -> bool {
        self.addresses.iter().any(|address| address.is_encrypted)
    }
}
