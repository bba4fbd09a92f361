//! The question for the busiest clients, and the answer.
//!
//! Plain data, which can come from another process.

use std::{net::SocketAddr, sync::Arc};

use super::{Caller, ClientPattern};
use crate::labels::{Label, labels};

labels! {
    /// By what clients are compared.
    pub enum BusyBy {
        /// Messages from the client in a second.
        MessagesIn = "messages_in",
        /// Messages to the client in a second.
        MessagesOut = "messages_out",
        /// Bytes from the client in a second.
        BytesIn = "bytes_in",
        /// Bytes to the client in a second.
        BytesOut = "bytes_out",
        /// Messages that wait in the queue.
        Queued = "queued",
        /// The time since the last packet.
        Idle = "idle",
    }
}

impl BusyBy {
    /// Returns the measure of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|by| by.name() == name)
    }
}

/// Asks for the connected clients with the highest values. A shard keeps what clients have counted for a
/// minute after the last question, so that the next answer has the rates since.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FindBusiest {
    /// By what they are compared.
    pub by: BusyBy,
    /// Maximum number of clients, at most [`FindBusiest::LIMIT_MAX`].
    pub limit: usize,
    /// Only clients whose identifier matches.
    pub clients: Option<ClientPattern>,
    /// Restricts the answer to clients that this caller may observe; `None` means no restriction.
    pub caller: Option<Caller>,
}

impl FindBusiest {
    /// Maximum number of clients of an answer.
    pub const LIMIT_MAX: usize = 1_000;

    /// Returns the question for this many clients.
    #[must_use]
    pub const fn new(by: BusyBy, limit: usize) -> Self {
        Self { by, limit, clients: None, caller: None }
    }

    /// Returns the question about clients whose identifier matches.
    #[must_use]
    pub fn matching(mut self, pattern: ClientPattern) -> Self {
        self.clients = Some(pattern);
        self
    }

    /// Returns the question restricted to clients that this caller may observe.
    #[must_use]
    pub fn by(mut self, caller: Caller) -> Self {
        self.caller = Some(caller);
        self
    }
}

/// The traffic of a connection, in all or in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientTraffic {
    /// Messages from the client.
    pub messages_in: u64,
    /// Messages to the client.
    pub messages_out: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
}

impl ClientTraffic {
    /// Returns what has passed since `earlier`, for each second of `millis`.
    #[must_use]
    pub fn rate_since(self, earlier: Self, millis: u64) -> Self {
        let rate = |now: u64, then: u64| {
            let passed = u128::from(now.saturating_sub(then)) * 1_000;
            u64::try_from(passed / u128::from(millis.max(1))).unwrap_or(u64::MAX)
        };
        Self {
            messages_in: rate(self.messages_in, earlier.messages_in),
            messages_out: rate(self.messages_out, earlier.messages_out),
            bytes_in: rate(self.bytes_in, earlier.bytes_in),
            bytes_out: rate(self.bytes_out, earlier.bytes_out),
        }
    }
}

/// A busy client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusyClient {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// User name.
    pub username: Option<Arc<str>>,
    /// Address of the client.
    pub peer: SocketAddr,
    /// The node that has the connection.
    pub node: Arc<str>,
    /// The traffic of the connection.
    pub total: ClientTraffic,
    /// The mean of each second since an earlier question, or since the connection began.
    pub per_sec: ClientTraffic,
    /// Messages that wait in the queue.
    pub queued: usize,
    /// Messages in flight to the client.
    pub in_flight: usize,
    /// The time since the last packet, in milliseconds.
    pub idle_millis: u64,
    /// When the connection began, in milliseconds since the Unix epoch.
    pub connected_at_millis: u64,
}

impl BusyClient {
    /// Returns a client that has no traffic.
    #[must_use]
    pub fn new(client_id: Arc<str>, peer: SocketAddr, node: Arc<str>) -> Self {
        Self {
            client_id,
            username: None,
            peer,
            node,
            total: ClientTraffic::default(),
            per_sec: ClientTraffic::default(),
            queued: 0,
            in_flight: 0,
            idle_millis: 0,
            connected_at_millis: 0,
        }
    }

    /// Returns the value by which clients are compared.
    #[must_use]
    pub const fn value(&self, by: BusyBy) -> u64 {
        match by {
            BusyBy::MessagesIn => self.per_sec.messages_in,
            BusyBy::MessagesOut => self.per_sec.messages_out,
            BusyBy::BytesIn => self.per_sec.bytes_in,
            BusyBy::BytesOut => self.per_sec.bytes_out,
            BusyBy::Queued => self.queued as u64,
            BusyBy::Idle => self.idle_millis,
        }
    }
}
