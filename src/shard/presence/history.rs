//! The notes that a shard makes about connections for the histories of their clients, and the answers to questions about
//! histories.

use std::time::Duration;

use crate::{
    control::{ControlError, LastEnd, ListHistory, PastConnection},
    durable::HistoryLimits,
    history::{ConnectionEnd, ConnectionRecord},
    hooks::DisconnectReason,
    labels::Label as _,
    mqtt::{ProtocolVersion, Timestamp},
    shard::{Core, Departure, Shard, Slot},
};

const SECS_PER_DAY: u64 = 24 * 60 * 60;

impl Core {
    /// Returns the limits of histories that are in force now.
    pub(in crate::shard) fn history_limits(&self) -> HistoryLimits {
        let limits = self.limits_now();
        HistoryLimits {
            per_client_max: limits.history_per_client_max,
            age_max: Duration::from_secs(u64::from(limits.history_days_max) * SECS_PER_DAY),
            records_max: limits.history_connections_max,
            records_per_owner_max: limits.history_connections_per_user_max,
        }
    }

    /// Notes that the broker ends regularly.
    pub(crate) fn end_history(&self) {
        self.history.end_run(&self.records, self.versions.highest());
    }
}

impl Shard {
    /// Notes that a client is online.
    pub(in crate::shard) fn note_beginning_in_history(&self, slot: u32) {
        let Some(found) = self.slot(slot) else { return };
        if self.core.limits_now().history_per_client_max == 0 {
            return;
        }
        let Some(link) = found.session.link() else { return };
        let connection = record_of(found, link.version(), None);
        self.core.history.note(found.session.client_id().clone(), connection);
    }

    /// Notes that a connection has ended. One that ends with the broker has no note of its own.
    pub(in crate::shard) fn note_end_in_history(
        &self,
        slot: u32,
        protocol: Option<ProtocolVersion>,
        departure: &Departure,
        now: Timestamp,
    ) {
        let is_of_broker = departure.reason == DisconnectReason::ServerShutdown;
        if is_of_broker || self.core.limits_now().history_per_client_max == 0 {
            return;
        }
        let (Some(found), Some(protocol)) = (self.slot(slot), protocol) else { return };
        let (reason, by) = (departure.reason.name().into(), departure.by.clone());
        let connection = record_of(found, protocol, Some(ConnectionEnd { at: now, reason, by }));
        self.core.history.note(found.session.client_id().clone(), connection);
    }

    /// Returns the last connections of a client, the newest first; `None` if it is not known.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn list_history(
        &self,
        request: &ListHistory,
    ) -> Result<Option<Vec<PastConnection>>, ControlError> {
        let now = self.core.clock.now();
        let slot = self.known(&request.client_id).and_then(|slot| self.slot(slot));
        // A client before its CONNACK is not online yet, and has no entry.
        let live = slot.filter(|found| found.is_online());
        let mut found = self.connections_of(&request.client_id, now)?;
        if slot.is_none() && found.is_empty() {
            return Ok(None);
        }
        // The beginning of this connection could not be noted.
        if let Some(live) = live
            && let Some(link) = live.session.link()
            && found.last().is_none_or(|last| last.version < live.presence.version)
        {
            found.push(record_of(live, link.version(), None));
        }
        let live = live.map(|found| found.presence.version);
        let newest = found.into_iter().rev().take(request.limit);
        Ok(Some(newest.map(|it| self.past_connection(it, live)).collect()))
    }

    /// Returns the end of the last connection of a client that has ended, from its history.
    pub(in crate::shard) fn last_end_in_history(&self, client_id: &str) -> Option<LastEnd> {
        let found = self.connections_of(client_id, self.core.clock.now()).ok()?;
        found.into_iter().rev().find_map(|it| it.end).map(last_end)
    }

    fn connections_of(
        &self,
        client_id: &str,
        now: Timestamp,
    ) -> Result<Vec<ConnectionRecord>, ControlError> {
        let found = self.core.history.find(client_id, self.core.history_limits(), now);
        found.map_err(|_| ControlError::Unavailable)
    }

    fn past_connection(&self, connection: ConnectionRecord, live: Option<u64>) -> PastConnection {
        let ConnectionRecord { version, connected_at, peer, listener, username, protocol, end } =
            connection;
        PastConnection {
            online: live == Some(version) && end.is_none(),
            listener,
            node: self.core.node.clone(),
            username,
            protocol,
            end: end.map(last_end),
            ..PastConnection::new(version, peer, connected_at.millis())
        }
    }
}

/// Returns the history's record of a slot's present or last connection.
fn record_of(
    found: &Slot,
    protocol: ProtocolVersion,
    end: Option<ConnectionEnd>,
) -> ConnectionRecord {
    ConnectionRecord {
        version: found.presence.version,
        connected_at: found.presence.connected_at,
        peer: found.presence.peer,
        listener: found.presence.listener.clone(),
        username: found.presence.identity.username.clone(),
        protocol: protocol.level(),
        end,
    }
}

fn last_end(ConnectionEnd { at, reason, by }: ConnectionEnd) -> LastEnd {
    let known = DisconnectReason::ALL.iter().find(|it| it.name() == reason);
    // Only a later version of the broker writes others.
    let reason = known.copied().unwrap_or(DisconnectReason::InternalError);
    let mut end = LastEnd::new(reason, at.millis());
    end.by = by;
    end
}
