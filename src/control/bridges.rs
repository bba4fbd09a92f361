//! Queries about the bridges of a broker, and commands to start or stop them.
//!
//! Plain data and a trait. Does not know how a bridge works.

use async_trait::async_trait;

use super::ControlError;
use crate::{labels::labels, mqtt::Timestamp};

labels! {
    /// The phase of a bridge.
    pub enum BridgePhase {
        /// It is stopped, and connects no more.
        Stopped = "stopped",
        /// It connects.
        Connecting = "connecting",
        /// It is connected, and the other broker has answered its subscriptions.
        Connected = "connected",
        /// It waits for its next attempt.
        Waiting = "waiting",
    }
}

/// The last fault of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeFault {
    /// When.
    pub at: Timestamp,
    /// Its kind, as a word.
    pub code: &'static str,
    /// A text for people.
    pub message: Box<str>,
}

impl BridgeFault {
    /// Describes a fault.
    #[must_use]
    pub fn new(at: Timestamp, code: &'static str, message: &str) -> Self {
        Self { at, code, message: message.into() }
    }
}

/// Counts of the messages of one direction, since the broker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeCounts {
    /// Messages that went over.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Messages that did not go over.
    pub dropped: u64,
}

/// Topics of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeTopicView {
    /// Topic Filter, without the prefixes.
    pub filter: String,
    /// `out`, `in` or `both`.
    pub direction: &'static str,
    /// Maximum QoS, as a number.
    pub qos: u8,
    /// Prefix in this broker.
    pub local_prefix: String,
    /// Prefix at the other broker.
    pub remote_prefix: String,
    /// When retained messages go over: `new`, `always` or `never`.
    pub retained: &'static str,
}

/// A bridge, with its state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeView {
    /// Its name.
    pub name: String,
    /// The client identifier of its session in this broker.
    pub client_id: String,
    /// Whether it is started: by the configuration, or by the last call that said so.
    pub enabled: bool,
    /// The phase it is in.
    pub phase: BridgePhase,
    /// Since when.
    pub since: Timestamp,
    /// The address to which it is connected, or connects.
    pub address: Option<Box<str>>,
    /// The version that it speaks: `5` or `3.1.1`.
    pub protocol: &'static str,
    /// Whether the other broker had a session of the bridge when it connected.
    pub session_present: Option<bool>,
    /// How often it has connected since the broker started.
    pub connects: u64,
    /// How many attempts and connections have failed since then.
    pub failures: u64,
    /// When it tries again, while it waits.
    pub retry_at: Option<Timestamp>,
    /// The last fault since the broker started.
    pub last_error: Option<BridgeFault>,
    /// Messages to the other broker.
    pub outgoing: BridgeCounts,
    /// Messages from the other broker.
    pub incoming: BridgeCounts,
    /// Messages that wait in its session, and their bytes.
    pub queued: (usize, usize),
    /// Messages that the other broker has not acknowledged.
    pub in_flight: usize,
    /// Its topics.
    pub topics: Vec<BridgeTopicView>,
}

impl BridgeView {
    /// Describes a bridge that is stopped, and of which nothing else is known.
    #[must_use]
    pub fn new(name: &str, client_id: &str) -> Self {
        Self {
            name: name.to_owned(),
            client_id: client_id.to_owned(),
            enabled: false,
            phase: BridgePhase::Stopped,
            since: Timestamp(0),
            address: None,
            protocol: "5",
            session_present: None,
            connects: 0,
            failures: 0,
            retry_at: None,
            last_error: None,
            outgoing: BridgeCounts::default(),
            incoming: BridgeCounts::default(),
            queued: (0, 0),
            in_flight: 0,
            topics: Vec::new(),
        }
    }
}

/// Why a call about a bridge did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeControlError {
    /// There is no bridge of this name.
    #[error("there is no bridge of this name")]
    NotFound,
    /// The bridge is stopped.
    #[error("the bridge is stopped; start it first")]
    Stopped,
    /// The broker cannot answer.
    #[error(transparent)]
    Broker(#[from] ControlError),
}

/// The bridges of a broker. A part that is not implemented knows no bridge.
#[async_trait]
pub trait BridgeControl: Send + Sync + 'static {
    /// Returns all bridges, in the order of their names. Without the number of messages that wait.
    async fn list_bridges(&self) -> Vec<BridgeView> {
        Vec::new()
    }

    /// Returns a bridge.
    async fn find_bridge(&self, _name: &str) -> Result<BridgeView, BridgeControlError> {
        Err(BridgeControlError::NotFound)
    }

    /// Starts or stops a bridge, also for later starts of the broker.
    async fn set_bridge_enabled(
        &self,
        _name: &str,
        _enabled: bool,
    ) -> Result<BridgeView, BridgeControlError> {
        Err(BridgeControlError::NotFound)
    }

    /// Ends the connection of a bridge, or its wait, and connects now.
    async fn reconnect_bridge(&self, _name: &str) -> Result<(), BridgeControlError> {
        Err(BridgeControlError::NotFound)
    }
}
