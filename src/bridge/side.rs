//! The interface of a bridge to its own broker. The broker's handle implements it.

use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::io::DuplexStream;

use super::options::Bridge;
use crate::mqtt::{QoS, SubscriptionOptions, Timestamp};

/// How the session of a bridge gets a connection.
#[derive(Clone, Debug)]
pub(crate) struct BridgeConnect {
    /// Maximum number of messages in flight to the other broker.
    pub(crate) receive_maximum: u16,
    /// Whether Packet Identifiers of QoS 2 that the other broker has not released are forgotten,
    /// because the other broker has forgotten them.
    pub(crate) forgets_incoming: bool,
    /// The address of the other broker, shown with the session.
    pub(crate) peer: Option<SocketAddr>,
}

/// The limits of this broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalLimits {
    pub(crate) packet_bytes_max: u32,
    pub(crate) in_flight_max: u16,
    pub(crate) receive_maximum: u16,
}

/// A subscription that the session of a bridge has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnSubscription {
    pub(crate) filter: String,
    pub(crate) qos: QoS,
    pub(crate) options: SubscriptionOptions,
}

/// The broker of a bridge.
#[async_trait]
pub(crate) trait LocalSide: Send + Sync {
    /// Gives the session of a bridge a connection; CONNACK is the first packet in the stream. `None`
    /// once the broker has ended.
    fn connect(&self, bridge: &Bridge, options: BridgeConnect) -> Option<DuplexStream>;

    /// Returns the limits in force.
    fn limits(&self) -> LocalLimits;

    /// Returns whether a topic is neither too long nor too deep.
    fn allows_topic(&self, topic: &str) -> bool;

    /// Returns the time.
    fn now(&self) -> Timestamp;

    /// Returns the subscriptions of the session of a bridge; `None` if there is no session.
    async fn subscriptions(&self, bridge: &Bridge) -> Option<Vec<OwnSubscription>>;

    /// Returns the number of messages that wait for a bridge.
    async fn queued(&self, bridge: &Bridge) -> Option<u64>;

    /// Shows whether a bridge is connected on its topic of the broker.
    fn show(&self, bridge: &Bridge, is_connected: bool);
}
