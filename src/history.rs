//! The history of clients, as plain data: what the broker notes of each connection, and the ring of
//! the last connections of one client.
//!
//! Shards note connections, `durable` brings them to the store, and stores hold the rings. Knows none
//! of them.

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use crate::{mqtt::Timestamp, owners::Owner};

/// The notes of the broker about one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// The presence version of the connection, which no other connection of the client has. It
    /// increases with each connection, also over restarts.
    pub version: u64,
    /// When the connection began.
    pub connected_at: Timestamp,
    /// Address and port of the client.
    pub peer: SocketAddr,
    /// The URL of the listener that accepted it.
    pub listener: Arc<str>,
    /// User name.
    pub username: Option<Arc<str>>,
    /// Protocol level: 3, 4 or 5.
    pub protocol: u8,
    /// How the connection ended; `None` while no end is noted.
    pub end: Option<ConnectionEnd>,
}

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionEnd {
    /// When it ended.
    pub at: Timestamp,
    /// Why, by the names of [`DisconnectReason`](crate::hooks::DisconnectReason).
    pub reason: Cow<'static, str>,
    /// The user name of the caller that ended it.
    pub by: Option<Arc<str>>,
}

/// Connections that began or ended, for the rings of their clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionNotes {
    /// Each Client Identifier with a connection. The note of a version replaces an earlier one.
    pub notes: Vec<(Arc<str>, ConnectionRecord)>,
    /// Maximum number of connections of one client; the oldest ones leave.
    pub kept: u16,
    /// The limit on these connections for each owner.
    pub share: HistoryShare,
}

/// The limit on the rings of one owner together. A ring belongs to the owner of its last connection,
/// and counts with all its connections.
///
/// While an owner has more, the first of its rings leaves, in the order of [`HistoryTidy`]. Connections
/// of other owners stay: the ring goes on with these, and belongs to the owner of the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryShare {
    /// Maximum number of connections of one owner.
    pub records_max: u64,
    /// The highest version of a ring that leaves and whose last connection has no end.
    pub over_limit_up_to: u64,
    /// Maximum number of rings that leave.
    pub limit: u32,
}

impl HistoryShare {
    /// No limit for an owner.
    pub const UNLIMITED: Self = Self { records_max: u64::MAX, over_limit_up_to: 0, limit: 0 };

    /// Returns whether the ring at this place leaves, if its owner has too many connections and it is
    /// the first of the owner.
    pub(crate) const fn removes(&self, place: HistoryPlace) -> bool {
        match place {
            HistoryPlace::Closed(_) => true,
            HistoryPlace::Open(version) => version <= self.over_limit_up_to,
        }
    }
}

/// Which rings leave the store. The oldest leave first: rings of clients whose last connection has
/// ended, by that time; then those whose last connection has no end, by its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryTidy {
    /// Rings whose last connection ended before this time leave.
    pub closed_before: Timestamp,
    /// Rings whose last connection has no end, and at most this version, leave.
    pub open_up_to: u64,
    /// While the rings together have more connections than this, further ones leave.
    pub records_max: u64,
    /// The highest version of a ring that leaves for that reason and whose last connection has no
    /// end.
    pub over_limit_up_to: u64,
    /// Maximum number of rings that leave.
    pub limit: u32,
}

/// The last connections of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHistory {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// The connections, in the order of their versions.
    pub connections: Vec<ConnectionRecord>,
}

/// The place of a ring in the order in which rings leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum HistoryPlace {
    /// The last connection ended at this time.
    Closed(Timestamp),
    /// The last connection has this version, and no end.
    Open(u64),
}

impl ConnectionRecord {
    /// Returns the owner of the connection.
    pub(crate) fn owner(&self) -> Owner {
        Owner::of(self.username.as_ref(), self.peer.ip())
    }
}

impl ClientHistory {
    /// Returns the empty history of a client.
    #[must_use]
    pub const fn new(client_id: Arc<str>) -> Self {
        Self { client_id, connections: Vec::new() }
    }

    /// Adds a connection, or replaces what was noted of it, and drops the oldest ones beyond `kept`.
    pub(crate) fn note(&mut self, connection: &ConnectionRecord, kept: u16) {
        // The beginning and the end of a connection are noted apart, and the second replaces the first.
        let found = self.connections.binary_search_by_key(&connection.version, |it| it.version);
        match found {
            Ok(at) => self.connections[at] = connection.clone(),
            Err(at) => self.connections.insert(at, connection.clone()),
        }
        let excess = self.connections.len().saturating_sub(kept.into());
        self.connections.drain(..excess);
    }

    /// Returns the owner of the ring, which is that of its last connection; `None` if it is empty.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.connections.last().map(ConnectionRecord::owner)
    }

    /// Removes the connections of the owner of the ring.
    pub(crate) fn leave(&mut self) {
        let owner = self.owner();
        self.connections.retain(|it| Some(it.owner()) != owner);
    }

    /// Returns the place of the ring; `None` if it is empty.
    pub(crate) fn place(&self) -> Option<HistoryPlace> {
        let last = self.connections.last()?;
        Some(match &last.end {
            Some(end) => HistoryPlace::Closed(end.at),
            None => HistoryPlace::Open(last.version),
        })
    }
}

impl HistoryPlace {
    /// No place is before this one.
    pub(crate) const FIRST: Self = Self::Closed(Timestamp(0));
}

impl HistoryTidy {
    /// Returns whether the ring at this place leaves, if it is the first one of its kind and all
    /// rings whose last connection has ended were asked about before. `records` is the number of
    /// connections of all rings.
    pub(crate) fn removes(&self, place: HistoryPlace, records: u64) -> bool {
        let is_over = records > self.records_max;
        match place {
            HistoryPlace::Closed(at) => is_over || at < self.closed_before,
            HistoryPlace::Open(version) => {
                version <= self.open_up_to || (is_over && version <= self.over_limit_up_to)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(version: u64, ended_at: Option<u64>) -> ConnectionRecord {
        let end = ended_at.map(|at| ConnectionEnd {
            at: Timestamp(at),
            reason: "normal".into(),
            by: None,
        });
        ConnectionRecord {
            version,
            connected_at: Timestamp(version),
            peer: ([127, 0, 0, 1], 1).into(),
            listener: "".into(),
            username: None,
            protocol: 5,
            end,
        }
    }

    #[test]
    fn the_oldest_connections_leave_a_ring() {
        let mut ring = ClientHistory::new("c".into());
        assert_eq!(ring.place(), None);
        for version in [3, 1, 2, 9, 2] {
            ring.note(&connection(version, None), 3);
        }
        let versions: Vec<_> = ring.connections.iter().map(|it| it.version).collect();
        assert_eq!(versions, [2, 3, 9]);
        assert_eq!(ring.place(), Some(HistoryPlace::Open(9)));
        ring.note(&connection(9, Some(20)), 3);
        assert_eq!(ring.place(), Some(HistoryPlace::Closed(Timestamp(20))));
        ring.note(&connection(10, None), 1);
        assert_eq!(ring.connections.len(), 1);
    }
}
