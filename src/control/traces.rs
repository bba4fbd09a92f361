//! Traces of clients: what a caller wants to have recorded, what was recorded, and the trait behind
//! the calls.
//!
//! All of it is plain data, which can come from another process. Knows neither packets nor HTTP.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Caller, ControlError};
use crate::{
    auth::Network,
    labels::{Label, labels},
};

labels! {
    /// The kind of a record of a trace: a Control Packet, or an event of a connection.
    pub enum TraceKind {
        /// CONNECT.
        Connect = "connect",
        /// CONNACK.
        ConnAck = "connack",
        /// PUBLISH.
        Publish = "publish",
        /// PUBACK.
        PubAck = "puback",
        /// PUBREC.
        PubRec = "pubrec",
        /// PUBREL.
        PubRel = "pubrel",
        /// PUBCOMP.
        PubComp = "pubcomp",
        /// SUBSCRIBE.
        Subscribe = "subscribe",
        /// SUBACK.
        SubAck = "suback",
        /// UNSUBSCRIBE.
        Unsubscribe = "unsubscribe",
        /// UNSUBACK.
        UnsubAck = "unsuback",
        /// PINGREQ.
        PingReq = "pingreq",
        /// PINGRESP.
        PingResp = "pingresp",
        /// DISCONNECT.
        Disconnect = "disconnect",
        /// AUTH.
        Auth = "auth",
        /// A connection that has begun before the trace is followed from now on.
        ConnectionFollowed = "connection_followed",
        /// A connection was refused.
        ConnectionRefused = "connection_refused",
        /// A connection has ended.
        ConnectionEnded = "connection_ended",
    }
}

impl TraceKind {
    /// Returns the kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// The clients whose packets a trace records.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceTarget {
    /// The client with this identifier.
    Client(Arc<str>),
    /// The clients of this user.
    User(Arc<str>),
    /// The clients at the addresses of this network.
    Network(Network),
}

/// Asks for a trace: for a time, every packet of some clients is recorded, in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StartTrace {
    /// The clients whose packets it records.
    pub target: TraceTarget,
    /// The time, at most [`TRACE_SECS_MAX`].
    pub secs: u32,
    /// Whether the contents of messages are recorded too: the beginning of payloads, Correlation Data
    /// and the values of User Properties. The permission for it has been checked.
    pub payloads: bool,
    /// Only records of these kinds; `None`: of all.
    pub kinds: Option<Vec<TraceKind>>,
    /// Restricts the records to clients that this caller may observe; `None` means no restriction.
    pub caller: Option<Caller>,
}

/// The seconds of a trace whose caller does not say how many.
pub const TRACE_SECS: u32 = 60;
/// Maximum number of seconds of a trace.
pub const TRACE_SECS_MAX: u32 = 3_600;

impl StartTrace {
    /// Returns the request for a trace of [`TRACE_SECS`] seconds without contents of messages.
    #[must_use]
    pub const fn new(target: TraceTarget) -> Self {
        Self { target, secs: TRACE_SECS, payloads: false, kinds: None, caller: None }
    }

    /// Returns the request for a trace of this many seconds.
    #[must_use]
    pub const fn lasting(mut self, secs: u32) -> Self {
        self.secs = secs;
        self
    }

    /// Returns the request for a trace with contents of messages.
    #[must_use]
    pub const fn with_payloads(mut self) -> Self {
        self.payloads = true;
        self
    }

    /// Returns the request for records of these kinds only.
    #[must_use]
    pub fn kinds(mut self, kinds: impl Into<Vec<TraceKind>>) -> Self {
        self.kinds = Some(kinds.into());
        self
    }

    /// Returns the request restricted to clients that this caller may observe.
    #[must_use]
    pub fn by(mut self, caller: Caller) -> Self {
        self.caller = Some(caller);
        self
    }
}

/// The state of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceView {
    /// Its identifier.
    pub id: Arc<str>,
    /// The clients whose packets it records.
    pub target: TraceTarget,
    /// The user name of the caller that has started it; `None` for an embedding application.
    pub by: Option<Arc<str>>,
    /// Whether it records contents of messages.
    pub payloads: bool,
    /// The kinds that it records; `None`: all.
    pub kinds: Option<Arc<[TraceKind]>>,
    /// When it has started, in milliseconds since the Unix epoch.
    pub started_at_millis: u64,
    /// When it ends, or has ended.
    pub ends_at_millis: u64,
    /// Whether it still records.
    pub is_running: bool,
    /// The number of records so far.
    pub records: u64,
    /// The number of records that left to make room for newer ones.
    pub dropped: u64,
    /// The number of packets that were not recorded, because more came in a second than a trace records.
    pub skipped: u64,
    /// Bytes of the records that are kept.
    pub bytes: usize,
    /// The number of connections that it follows at present.
    pub connections: usize,
}

/// Asks for records of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadTrace {
    /// The trace.
    pub id: Arc<str>,
    /// The records behind the one with this number; 0 begins with the first.
    pub after: u64,
    /// How long to wait for a record if there is none.
    pub wait: Duration,
}

impl ReadTrace {
    /// Returns the request for records behind the one with this number, without waiting.
    pub fn new(id: impl Into<Arc<str>>, after: u64) -> Self {
        Self { id: id.into(), after, wait: Duration::ZERO }
    }

    /// Returns the request that waits for a record if there is none.
    #[must_use]
    pub const fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// Some records of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracePart {
    /// The records, each a JSON object on one line, in the order of their numbers.
    pub records: Vec<TraceRecord>,
    /// The number of records behind [`ReadTrace::after`] that were dropped before they could be read.
    pub missed: u64,
    /// The number with which the next request continues.
    pub next: u64,
    /// Whether nothing follows: the trace has ended, and its last record is in this part.
    pub is_over: bool,
}

/// A record of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceRecord {
    /// Its number among those of the trace, from 1.
    pub number: u64,
    /// Its content, a JSON object on one line.
    pub json: Bytes,
}

impl TraceRecord {
    /// Returns a record.
    #[must_use]
    pub const fn new(number: u64, json: Bytes) -> Self {
        Self { number, json }
    }
}

/// Traces of clients. A part that is not implemented answers [`ControlError::Unavailable`].
#[async_trait]
pub trait ClientTraces: Send + Sync + 'static {
    /// Starts a trace.
    async fn start_trace(&self, _request: StartTrace) -> Result<TraceView, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns the traces, in the order in which they were started.
    async fn list_traces(&self) -> Result<Vec<TraceView>, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns the state of a trace.
    async fn find_trace(&self, _id: &str) -> Result<TraceView, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Returns records of a trace.
    async fn read_trace(&self, _request: ReadTrace) -> Result<TracePart, ControlError> {
        Err(ControlError::Unavailable)
    }

    /// Ends a trace and removes its records; returns its last state.
    async fn end_trace(&self, _id: &str) -> Result<TraceView, ControlError> {
        Err(ControlError::Unavailable)
    }
}
