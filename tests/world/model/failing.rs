//! While the store cannot be written, requests that need it are refused, and everything else
//! continues.
//!
//! The standard leaves this to the server; this one promises nothing that it cannot store.

use hearthmq::{
    hooks::DisconnectReason,
    mqtt::{
        ProtocolVersion::{self, V3_1, V3_1_1, V5},
        QoS,
    },
};

use super::{End, Model, Reply, route::Sent};
use crate::vocabulary::{matches, split};

/// Implementation specific error, and the failure code of MQTT 3.1.1.
const REFUSED: u8 = 0x83;
const REFUSED_3: u8 = 0x80;

impl Model {
    /// Notes that the store starts to fail, or can be written again.
    pub(crate) fn fails(&mut self, fails: bool) {
        self.is_failing = fails;
        self.has_trouble = false;
        for link in self.sessions.iter_mut().flatten().filter_map(|session| session.link.as_mut()) {
            link.is_behind = true;
        }
    }

    /// Returns whether a PUBLISH is refused because it would have to be stored.
    pub(super) fn refuses(&self, client: usize, sent: &Sent, packet_id: u16) -> bool {
        let Some(session) = self.sessions[client].as_ref().filter(|_| self.has_trouble) else {
            return false;
        };
        let is_again = sent.qos == QoS::ExactlyOnce && session.unreleased.contains(&packet_id);
        let is_for = |filter: &str| matches(split(filter).1, sent.topic);
        let mut kept = self.sessions.iter().flatten().filter(|session| session.is_kept);
        sent.qos > QoS::AtMostOnce
            && !is_again
            && (sent.retain
                || (sent.qos == QoS::ExactlyOnce && session.is_kept)
                || kept.any(|session| session.subscriptions.iter().any(|s| is_for(s.filter))))
    }

    /// Expects a refusal: a Reason Code if the version has one, otherwise the end of the
    /// connection.
    pub(super) fn refused(&mut self, client: usize, qos: QoS, packet_id: u16) {
        if self.link(client).is_some_and(|link| link.version == V5) {
            let is_qos_2 = qos == QoS::ExactlyOnce;
            let reply = if is_qos_2 { Reply::PubRecRefused } else { Reply::PubAck };
            return self.expect(client, reply(packet_id));
        }
        self.end_connection(client, End::without_disconnect(DisconnectReason::InternalError));
    }

    /// Expects a refused SUBSCRIBE: MQTT 3.1 has no failure code, so there the connection ends.
    pub(super) fn refused_to_subscribe(&mut self, client: usize, packet_id: u16, filters: usize) {
        let Some(version) = self.link(client).map(|link| link.version) else { return };
        let code = match version {
            V3_1 => {
                let reason = DisconnectReason::InternalError;
                return self.end_connection(client, End::without_disconnect(reason));
            }
            V3_1_1 => REFUSED_3,
            V5 => REFUSED,
        };
        self.expect(client, Reply::SubAck(packet_id, vec![code; filters]));
    }

    /// Returns whether a CONNECT is refused because its session would have to be stored, or is
    /// stored.
    pub(crate) fn refuses_connect(
        &self,
        client: usize,
        version: ProtocolVersion,
        clean_start: bool,
        expiry_secs: Option<u32>,
    ) -> bool {
        self.has_trouble && self.keeps(client, version, clean_start, expiry_secs)
    }

    /// Returns whether a CONNECT that is not refused would have to wait for a failing store, for
    /// its session. Until its CONNACK the client's packets are not handled, and it is unknown
    /// whether the CONNECT will be refused.
    pub(crate) fn delays_connect(
        &self,
        client: usize,
        version: ProtocolVersion,
        clean_start: bool,
        expiry_secs: Option<u32>,
    ) -> bool {
        self.is_failing && self.keeps(client, version, clean_start, expiry_secs)
    }

    fn keeps(
        &self,
        client: usize,
        version: ProtocolVersion,
        clean_start: bool,
        expiry_secs: Option<u32>,
    ) -> bool {
        let lasts = match version {
            V5 => expiry_secs.unwrap_or(0) > 0,
            V3_1 | V3_1_1 => !clean_start,
        };
        lasts || self.sessions[client].as_ref().is_some_and(|session| session.is_kept)
    }
}
