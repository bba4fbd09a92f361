//! The question for the history of a client, and the answer.

use std::{net::SocketAddr, sync::Arc};

use crate::hooks::DisconnectReason;

/// Asks for the last connections of a client, whether it is connected, absent or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListHistory {
    /// Client Identifier.
    pub client_id: String,
    /// Maximum number of connections in the answer.
    pub limit: usize,
}

impl ListHistory {
    /// Returns the question about this client.
    pub fn new(client_id: impl Into<String>, limit: usize) -> Self {
        Self { client_id: client_id.into(), limit }
    }
}

/// A connection of a client, as its history has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PastConnection {
    /// The presence version of the connection; a later connection has a higher one.
    pub version: u64,
    /// Whether the client has this connection now.
    pub online: bool,
    /// Address and port of the client.
    pub peer: SocketAddr,
    /// URL of the listener that accepted it.
    pub listener: Arc<str>,
    /// The node that had the connection.
    pub node: Arc<str>,
    /// User name.
    pub username: Option<Arc<str>>,
    /// Protocol level: 3, 4 or 5.
    pub protocol: u8,
    /// When the connection began, in milliseconds since the Unix epoch.
    pub connected_at_millis: u64,
    /// How it ended; `None` while it lasts, or if the broker could not note its end.
    pub end: Option<LastEnd>,
}

impl PastConnection {
    /// Returns a connection that began at this time, of which nothing else is known.
    #[must_use]
    pub fn new(version: u64, peer: SocketAddr, connected_at_millis: u64) -> Self {
        Self {
            version,
            online: false,
            peer,
            listener: "".into(),
            node: "".into(),
            username: None,
            protocol: 5,
            connected_at_millis,
            end: None,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastEnd {
    /// Why.
    pub reason: DisconnectReason,
    /// When, in milliseconds since the Unix epoch.
    pub at_millis: u64,
    /// The user name of the caller that ended it.
    pub by: Option<Arc<str>>,
}

impl LastEnd {
    /// Returns the end of a connection.
    #[must_use]
    pub const fn new(reason: DisconnectReason, at_millis: u64) -> Self {
        Self { reason, at_millis, by: None }
    }
}
