//! The line of an export with the history of a client.

use std::{net::SocketAddr, sync::Arc};

use hearthmq::{
    mqtt::Timestamp,
    store::{Change, ConnectionEnd, ConnectionNotes, ConnectionRecord, HistoryShare},
};
use serde::Deserialize;

use super::is_string;

/// The last connections of a client, the oldest first.
#[derive(Deserialize)]
pub(super) struct HistoryLine {
    pub(super) client_id: Box<str>,
    connections: Vec<ConnectionLine>,
}

#[derive(Deserialize)]
struct ConnectionLine {
    version: u64,
    connected_at: u64,
    peer: SocketAddr,
    listener: Box<str>,
    username: Option<Box<str>>,
    protocol: u8,
    ended_at: Option<u64>,
    reason: Option<String>,
    by: Option<Box<str>>,
}

impl HistoryLine {
    /// Returns the change that stores the line.
    pub(super) fn read(self) -> Result<Change, &'static str> {
        if self.client_id.is_empty() || !is_string(&self.client_id) {
            return Err("client_id is not valid");
        }
        if !self.connections.is_sorted_by(|a, b| a.version < b.version) {
            return Err("the connections are not in the order of their versions");
        }
        let client_id: Arc<str> = self.client_id.into();
        let connections = self.connections.into_iter();
        let notes = connections.map(|it| it.read().map(|record| (client_id.clone(), record)));
        let notes = notes.collect::<Result<_, _>>()?;
        let (kept, share) = (u16::MAX, HistoryShare::UNLIMITED);
        Ok(Change::NoteConnections(Box::new(ConnectionNotes { notes, kept, share })))
    }
}

impl ConnectionLine {
    fn read(self) -> Result<ConnectionRecord, &'static str> {
        let end = match (self.ended_at, self.reason) {
            (Some(at), Some(reason)) => {
                let by = self.by.map(Into::into);
                Some(ConnectionEnd { at: Timestamp(at), reason: reason.into(), by })
            }
            (None, None) if self.by.is_none() => None,
            _ => return Err("ended_at and reason belong together, and by to them"),
        };
        Ok(ConnectionRecord {
            version: self.version,
            connected_at: Timestamp(self.connected_at),
            peer: self.peer,
            listener: self.listener.into(),
            username: self.username.map(Into::into),
            protocol: self.protocol,
            end,
        })
    }
}
