//! Compares what comes from the broker with what is due, and finds deliveries that are missing.

use std::{fmt, mem::discriminant};

use hearthmq::mqtt::{ProtocolVersion::V5, QoS};

use super::{
    Model, Reply, Session, Verdict,
    owed::{Copy, Form, Releasing, number_of},
    time::TOLERANCE_MILLIS,
};

/// Maximum number of QoS 1 and 2 messages in flight to one client, as this broker is configured.
const IN_FLIGHT_MAX: usize = 256;

/// A PUBLISH from the broker, its Topic Alias resolved.
pub(crate) struct Arrived<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) dup: bool,
    pub(crate) form: Form,
    pub(crate) packet_id: Option<u16>,
    pub(crate) expiry_secs: Option<u32>,
    pub(crate) packet_bytes: usize,
}

impl fmt::Debug for Arrived<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, payload, dup, form, packet_id, expiry_secs, packet_bytes } = self;
        let payload = number_of(payload);
        write!(f, "{topic} {payload} DUP {dup} {form:?} id {packet_id:?} ")?;
        write!(f, "expiry {expiry_secs:?} in {packet_bytes} bytes")
    }
}

impl Model {
    /// Checks a PUBLISH from the broker; returns whether it was sent before.
    pub(crate) fn arrived(&mut self, client: usize, arrived: &Arrived<'_>) -> Verdict<bool> {
        let now = self.now;
        self.claim_from_group(client, arrived);
        let session = self.sessions[client].as_mut().ok_or("a message without a session")?;
        let link = session.link.as_ref().ok_or("a message without a connection")?;
        if arrived.packet_bytes > link.packet_bytes_max {
            return Err(format!("larger than Maximum Packet Size: {arrived:?}"));
        }
        let (here, link_version) = (Some(link.number), link.version);
        let in_use = |id| session.releasing.iter().any(|r| Some(r.packet_id) == id);
        if arrived.packet_id.is_some() && in_use(arrived.packet_id) {
            return Err(format!("the packet identifier waits for PUBCOMP: {arrived:?}"));
        }
        let known = session
            .copies
            .iter()
            .position(|c| c.packet_id.is_some() && c.packet_id == arrived.packet_id);
        if let Some(at) = known {
            let copy = &mut session.copies[at];
            if copy.received_on == here {
                return Err(format!("the packet identifier is in use: {arrived:?}"));
            }
            if !arrived.dup {
                return Err(format!("DUP is missing: {arrived:?}")); // [MQTT-3.3.1-1]
            }
            let is_v5 = link.version == V5 && !copy.came_to_v3;
            if !is_same(copy, arrived, is_v5) {
                return Err(format!("another message under this identifier: {arrived:?}"));
            }
            copy.received_on = here;
            return session.check_quota().map(|()| true);
        }
        let at = session.find(arrived).ok_or_else(|| format!("nobody owes it: {arrived:?}"))?;
        session.check_order(at)?;
        session.check_expiry(at, arrived, now)?;
        let copy = &mut session.copies[at];
        if arrived.form.qos == QoS::AtMostOnce {
            session.copies.remove(at);
            return Ok(false);
        }
        copy.packet_id = arrived.packet_id;
        copy.came_to_v3 = link_version != V5;
        copy.received_on = here;
        copy.is_optional = false;
        session.check_quota().map(|()| false)
    }

    /// Checks an answer from the broker.
    pub(crate) fn replied(&mut self, client: usize, reply: &Reply) -> Verdict {
        let link = self.link_mut(client).ok_or("an answer without a connection")?;
        let kind = discriminant(reply);
        let expected = link.replies.iter().position(|r| discriminant(r) == kind);
        match expected.map(|at| link.replies.remove(at)) {
            Some(expected) if expected == *reply => Ok(()),
            expected => Err(format!("{reply:?} came, {expected:?} was expected")),
        }
    }

    /// Checks a PUBREL from the broker; returns the payload of its message.
    pub(crate) fn release(&mut self, client: usize, packet_id: u16) -> Verdict<Vec<u8>> {
        let session = self.sessions[client].as_mut().ok_or("PUBREL without a session")?;
        let here = session.link.as_ref().map(|link| link.number);
        let known = session.releasing.iter_mut().find(|r| r.packet_id == packet_id);
        let releasing = known.ok_or_else(|| format!("PUBREL for nothing: {packet_id}"))?;
        if releasing.received_on == here {
            return Err(format!("PUBREL twice: {packet_id}"));
        }
        releasing.received_on = here;
        Ok(releasing.payload.clone())
    }

    /// Handles PUBACK from the client.
    pub(crate) fn pub_acked(&mut self, client: usize, packet_id: u16) {
        self.heard(client);
        if let Some(session) = &mut self.sessions[client] {
            session.copies.retain(|c| c.packet_id != Some(packet_id));
        }
    }

    /// Handles PUBREC from the client.
    pub(crate) fn pub_received(&mut self, client: usize, packet_id: u16, is_refused: bool) {
        self.heard(client);
        let Some(session) = &mut self.sessions[client] else { return };
        let at = session.copies.iter().position(|c| c.packet_id == Some(packet_id));
        let Some(copy) = at.map(|at| session.copies.remove(at)) else { return };
        if !is_refused {
            session.releasing.push(Releasing {
                packet_id,
                payload: copy.message.payload.clone(),
                received_on: None,
                counts_on: session.link.as_ref().map(|link| link.number),
            });
        }
    }

    /// Handles PUBCOMP from the client.
    pub(crate) fn pub_completed(&mut self, client: usize, packet_id: u16) {
        self.heard(client);
        if let Some(session) = &mut self.sessions[client] {
            session.releasing.retain(|r| r.packet_id != packet_id);
        }
    }

    /// Checks, when everything is quiet, that all clients that read have received everything due.
    pub(crate) fn check(&mut self, reads: impl Fn(usize) -> bool) -> Verdict {
        if self.is_failing {
            return Ok(()); // it may have to wait
        }
        let mut takes = [false; 6];
        for (client, session) in self.sessions.iter_mut().enumerate() {
            if let Some(session) = session
                && session.link.is_some()
                && reads(client)
            {
                takes[client] = session.check().map_err(|what| format!("{what} for {client}"))?;
            }
        }
        for group in &self.groups {
            let all = group.members.iter().all(|(member, _)| takes[*member]);
            // Nothing has happened to the members that were online when it came.
            let first = !group.expects.is_empty() && group.expects.iter().all(|m| takes[*m]);
            let any = group.members.iter().any(|(m, _)| takes[*m] && self.may_take(*m, group));
            // A member that does not read may have been sent it, and takes it when it reads again.
            let is_unread =
                group.members.iter().any(|(m, _)| self.link(*m).is_some() && !reads(*m));
            let is_waiting = group.is_waiting && !is_unread;
            if !group.is_optional && (all || first || (is_waiting && any)) {
                return Err(format!("no member has received {group:?}"));
            }
        }
        self.groups.retain(|g| !(g.is_optional && g.members.iter().all(|(m, _)| takes[*m])));
        Ok(())
    }
}

impl Session {
    /// Returns the oldest copy that looks like this and has not come yet; prefers one that must
    /// come.
    pub(super) fn find(&self, arrived: &Arrived<'_>) -> Option<usize> {
        let is_v5 = self.link.as_ref().is_some_and(|link| link.version == V5);
        let is_it = |c: &Copy| {
            // DUP is only for messages that may have been sent before. [MQTT-3.3.1-1]
            let is_possible = if arrived.dup { c.may_be_lost } else { !c.comes_only_again };
            c.received_on.is_none() && is_possible && is_same(c, arrived, is_v5)
        };
        let must_come = self.copies.iter().position(|c| !c.is_optional && is_it(c));
        must_come.or_else(|| self.copies.iter().position(is_it))
    }

    /// Checks Receive Maximum. [MQTT-3.3.4-9]
    fn check_quota(&self) -> Verdict {
        let quota = self.link.as_ref().map_or(0, |link| link.quota);
        if self.outstanding() > quota {
            return Err(format!("more than Receive Maximum {quota}"));
        }
        Ok(())
    }

    /// Checks the order of messages of one topic, publisher and QoS. [MQTT-4.6.0-6]
    fn check_order(&mut self, at: usize) -> Verdict {
        let copy = &self.copies[at];
        // A shared message may come by way of another member. Empty messages all look the same, and
        // may have been confused.
        let is_shared = copy.share.is_some() || copy.may_be_of_group;
        let is_empty = copy.message.payload.is_empty();
        if copy.retained_for.is_some() || copy.is_optional || is_shared || is_empty {
            return Ok(());
        }
        let message = &copy.message;
        let key = (message.topic, message.publisher, copy.qos);
        let last = self.last.insert(key, message.order).unwrap_or(0);
        if last > message.order {
            return Err(format!("number {last} came before {message:?}"));
        }
        Ok(())
    }

    /// Checks Message Expiry Interval. [MQTT-3.3.2-5] [MQTT-3.3.2-6]
    fn check_expiry(&self, at: usize, arrived: &Arrived<'_>, now: u64) -> Verdict {
        let copy = &self.copies[at];
        let Some(link) = &self.link else { return Ok(()) };
        // Empty messages all look the same, and this may be another one.
        if link.version != V5 || copy.message.payload.is_empty() {
            return Ok(());
        }
        let (Some(expires_at), Some(secs)) = (copy.message.expires_at, arrived.expiry_secs) else {
            return Ok(());
        };
        let left_millis = u64::from(secs) * 1000;
        let sent_at = copy.message.routed_at.max(link.started_at);
        let most = (expires_at + TOLERANCE_MILLIS).saturating_sub(sent_at) + 999;
        if left_millis < expires_at.saturating_sub(now) || left_millis > most {
            return Err(format!(
                "{secs} s left at {now}, sent after {sent_at}: {:?}",
                copy.message
            ));
        }
        Ok(())
    }

    /// Returns whether the client could take another QoS 1 or 2 message.
    fn check(&mut self) -> Verdict<bool> {
        let Some(link) = &mut self.link else { return Ok(false) };
        link.is_behind = false;
        if let Some(reply) = link.replies.first() {
            return Err(format!("{reply:?} is missing"));
        }
        let here = Some(link.number);
        let (quota, bytes_max) = (link.quota.min(IN_FLIGHT_MAX), link.packet_bytes_max);
        // A repeated PUBREL counts, too; the standard permits this caution.
        let again = self.releasing.iter().filter(|r| r.received_on == here && r.counts_on != here);
        let is_full = self.outstanding() + again.count() >= quota;
        // A message that is too large is dropped when its turn comes. [MQTT-3.1.2-25]
        for copy in self.copies.iter_mut().filter(|c| c.received_on != here) {
            copy.is_optional |= copy.message.payload.len() > bytes_max;
        }
        if is_full {
            return Ok(false);
        }
        self.copies.retain(|c| c.received_on == here || !c.is_optional);
        if let Some(copy) = self.copies.iter().find(|c| c.received_on != here) {
            return Err(format!("was not sent: {copy:?}"));
        }
        if let Some(releasing) = self.releasing.iter().find(|r| r.received_on != here) {
            return Err(format!("PUBREL is missing: {releasing:?}"));
        }
        Ok(true)
    }
}

/// Returns whether the arrived message is this copy. Only MQTT 5.0 has Subscription Identifiers and
/// expiry.
pub(super) fn is_same(copy: &Copy, arrived: &Arrived<'_>, is_v5: bool) -> bool {
    copy.message.topic == arrived.topic
        && copy.message.payload == arrived.payload
        && copy.qos == arrived.form.qos
        && copy.retain == arrived.form.retain
        && (!is_v5
            || copy.identifiers == arrived.form.identifiers
                && copy.message.expires_at.is_some() == arrived.expiry_secs.is_some())
}
