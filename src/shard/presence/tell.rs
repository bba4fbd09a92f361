//! Log lines about the clients of a shard. `told` has their texts; this module has their subjects.

use crate::{
    hooks::DisconnectReason,
    mqtt::{ProtocolVersion, ReasonCode, Timestamp},
    shard::{Departure, Shard, Slot, connect::AcceptedConnect, refusal::NoSession},
    told::{Arrived, Left, Severity, Subject},
};

/// Returns the subject of log lines about an accepted CONNECT.
pub(crate) fn subject_of(connect: &AcceptedConnect) -> Subject<'_> {
    Subject {
        peer: connect.peer,
        listener: &connect.listener,
        client_id: Some(&connect.client_id),
        user: connect.identity.username.as_deref(),
    }
}

impl Slot {
    /// Returns the subject of log lines about the slot's connection.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject {
            peer: self.presence.peer,
            listener: &self.presence.listener,
            client_id: Some(self.session.client_id()),
            user: self.presence.identity.username.as_deref(),
        }
    }
}

impl Shard {
    pub(in crate::shard) fn tell_connected(
        &self,
        slot: u32,
        clean_start: bool,
        session_present: bool,
    ) {
        let Some(found) = self.slot(slot) else { return };
        let Some(link) = found.session.link() else { return };
        let how = Arrived {
            version: match link.version() {
                ProtocolVersion::V3_1 => "3.1",
                ProtocolVersion::V3_1_1 => "3.1.1",
                ProtocolVersion::V5 => "5.0",
            },
            keep_alive_secs: link.keep_alive().interval_secs(),
            clean_start,
            session_present,
        };
        self.core.told.connected(&found.subject(), how);
    }

    /// Logs why a connection ends; if its client broke a rule, at `warn` as well.
    pub(in crate::shard) fn tell_disconnected(
        &self,
        slot: u32,
        departure: &Departure,
        now: Timestamp,
    ) {
        let Some(found) = self.slot(slot) else { return };
        let (subject, told) = (found.subject(), &self.core.told);
        let Departure { reason, code, why, .. } = *departure;
        match (reason, code) {
            (DisconnectReason::ProtocolError, Some(code)) => told.broke_rule(&subject, &code, why),
            (DisconnectReason::QuotaExceeded, Some(code)) => {
                told.over_limit(&subject, limit_of(code), why);
            }
            _ => {}
        }
        let secs = now.since(found.presence.connected_at).as_secs();
        told.disconnected(&subject, Left { reason: reason.name(), why, secs });
    }

    /// Logs an accepted CONNECT that gets no session.
    pub(crate) fn tell_no_session(&self, connect: &AcceptedConnect, why: &NoSession) {
        let reason = why.counted_as();
        // A decision about one client is usual; limits and failures are warnings.
        let weight = match why {
            NoSession::Redirected(_)
            | NoSession::NotAuthorized
            | NoSession::Banned
            | NoSession::Unprepared
            | NoSession::Overtaken
            | NoSession::NotOwned
            | NoSession::ShuttingDown => Severity::Usual,
            NoSession::Full
            | NoSession::UserFull
            | NoSession::WillsFull
            | NoSession::UserWillsFull
            | NoSession::TooEarly
            | NoSession::Store
            | NoSession::ConnAckTooLarge => Severity::Warning,
        };
        // The client has no slot, so log, trace and event take their subject from CONNECT.
        let subject = subject_of(connect);
        self.core.told.connect_refused(&subject, weight, reason.name(), None);
        self.core.trace_refused(&subject, reason.name());
        self.core.announce_refused(&subject, reason.name());
    }

    /// Logs that a client may not do this to a topic or filter.
    pub(in crate::shard) fn tell_denied(&self, slot: u32, action: &'static str, topic: &str) {
        if let Some(found) = self.slot(slot) {
            self.core.told.denied(&found.subject(), action, topic);
        }
    }

    /// Logs a filter to which the client is not subscribed.
    pub(in crate::shard) fn tell_not_subscribed(
        &self,
        slot: u32,
        filter: &str,
        reason: ReasonCode,
    ) {
        if reason == ReasonCode::NotAuthorized {
            self.tell_denied(slot, "subscribe", filter);
        } else if reason == ReasonCode::QuotaExceeded {
            self.tell_over_limit(slot, "subscriptions", filter);
        }
    }

    /// Logs that a client exceeded the limit of this name in the configuration.
    pub(in crate::shard) fn tell_over_limit(&self, slot: u32, limit: &str, what: &str) {
        if let Some(found) = self.slot(slot) {
            self.core.told.over_limit(&found.subject(), limit, Some(what));
        }
    }
}

/// Returns the limit that the client exceeded if its connection ends with this code.
#[expect(clippy::wildcard_enum_match_arm, reason = "few of MQTT's reasons are about limits")]
const fn limit_of(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::PacketTooLarge => "packet_bytes_max",
        ReasonCode::ReceiveMaximumExceeded => "receive_maximum",
        _ => "incomplete_packet_bytes_max",
    }
}
