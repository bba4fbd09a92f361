//! Who may be there, and what clients may do: a list of bans, rules of the store, and subscriptions that are
//! withdrawn.

use hearthmq::{
    hooks::DisconnectReason,
    mqtt::{
        ProtocolVersion::{self, V3_1, V3_1_1, V5},
        QoS, ReasonCode,
    },
};

use super::{End, Model, Reply, TOLERANCE_MILLIS, Will, route::Sent};
use crate::vocabulary::{BANS, Denied, FILTERS, NAMES, RULES, matches, overlap, split};

/// The failure code of MQTT 3.1.1.
const FAILURE_3: u8 = 0x80;

/// A ban.
#[derive(Clone, Copy)]
pub(crate) struct Ban {
    /// Its place in [`BANS`].
    ban: usize,
    pub(crate) ends_at: Option<u64>,
}

impl Model {
    /// Bans clients; those that are online are disconnected. Their sessions stay.
    pub(crate) fn ban(&mut self, ban: usize, secs: Option<u8>) {
        self.bans.retain(|former| former.ban != ban);
        let ends_at = secs.map(|secs| self.now + u64::from(secs) * 1000);
        self.bans.push(Ban { ban, ends_at });
        for client in BANS[ban].2 {
            let end = End::without_disconnect(DisconnectReason::Banned);
            self.end_connection(*client, end);
        }
    }

    /// Lifts a ban, and returns it.
    pub(crate) fn lift_ban(&mut self, ban: usize) -> Option<Ban> {
        let at = self.bans.iter().position(|former| former.ban == ban)?;
        Some(self.bans.remove(at))
    }

    /// Returns the bans that end by themselves.
    pub(crate) fn bans_that_end(&self) -> Vec<usize> {
        self.bans.iter().filter(|ban| ban.ends_at.is_some()).map(|ban| ban.ban).collect()
    }

    /// Returns whether one of the bans of now is about the client at this time.
    pub(crate) fn is_banned_at(&self, client: usize, at: u64) -> bool {
        let mut bans = self.bans.iter();
        bans.any(|ban| {
            BANS[ban.ban].2.contains(&client) && ban.ends_at.is_none_or(|ends_at| at < ends_at)
        })
    }

    /// Takes from a client the subscriptions that need this permission; returns whether it had one. One
    /// permission is for all groups of a filter.
    pub(crate) fn denied(&mut self, client: usize, filter: &'static str) -> bool {
        if self.sessions[client].as_ref().is_some_and(|session| session.is_suspended) {
            return false; // It is examined when it collects again.
        }
        let same = FILTERS.into_iter().filter(|other| split(other).1 == split(filter).1);
        same.filter(|filter| self.withdraw(client, filter)).count() > 0
    }

    /// Adds a rule of the store; returns how many sessions it touches.
    pub(crate) fn put_rule(&mut self, rule: usize) -> usize {
        self.rules.insert(rule);
        self.examine()
    }

    /// Removes a rule of the store; returns how many sessions that touches, `None` if there was no such
    /// rule.
    pub(crate) fn remove_rule(&mut self, rule: usize) -> Option<usize> {
        self.rules.remove(&rule).then(|| self.examine())
    }

    /// Ends what is no longer allowed: connections, and subscriptions, also of clients that are away. The
    /// session of a client that may not connect collects nothing.
    fn examine(&mut self) -> usize {
        let mut touched = 0;
        let routed_before = self.routed;
        for client in 0..NAMES.len() {
            let may_connect = self.may_connect(client);
            let Some(session) = &mut self.sessions[client] else { continue };
            if !may_connect {
                touched += usize::from(session.link.is_some() || !session.is_suspended);
                // A Will that is due is published before.
                self.end_connection(
                    client,
                    End::without_disconnect(DisconnectReason::NotAuthorized),
                );
                self.suspend(client, routed_before);
                continue;
            }
            session.is_suspended = false;
            let filters: Vec<_> = session.subscriptions.iter().map(|own| own.filter).collect();
            let denied: Vec<_> =
                filters.into_iter().filter(|filter| !self.may_subscribe(client, filter)).collect();
            touched += usize::from(!denied.is_empty());
            for filter in denied {
                self.withdraw(client, filter);
            }
        }
        touched
    }

    /// Notes that suspended sessions may collect what is published just now: a crash leaves it in the outbox of its
    /// shard, and when another broker delivers it, their clients may be permitted again.
    pub(crate) fn suspended_may_collect(&mut self) {
        let until = self.now + TOLERANCE_MILLIS;
        for session in self.sessions.iter_mut().flatten().filter(|it| it.is_suspended) {
            session.may_be_there_until = until;
        }
    }

    /// Suspends a session. The broker may do it before or after others whose Wills are published meanwhile: those
    /// after `routed_before`.
    fn suspend(&mut self, client: usize, routed_before: u64) {
        let until = self.now + TOLERANCE_MILLIS;
        let Some(session) = &mut self.sessions[client] else { return };
        if !session.is_suspended {
            session.may_be_there_until = until;
        }
        session.is_suspended = true;
        for copy in session.copies.iter_mut().filter(|it| it.message.order > routed_before) {
            copy.is_optional = true;
        }
        for group in self.groups.iter_mut().filter(|it| it.message.order > routed_before) {
            group.is_optional |= group.members.iter().any(|(member, _)| *member == client);
        }
    }

    /// Returns whether one of the rules denies this to a client.
    fn is_denied(&self, client: usize, what: Denied, is_about: impl Fn(&str) -> bool) -> bool {
        self.rules.iter().map(|rule| &RULES[*rule]).any(|rule| {
            rule.what == what && rule.clients.contains(&client) && is_about(rule.topics)
        })
    }

    pub(crate) fn may_connect(&self, client: usize) -> bool {
        !self.is_denied(client, Denied::Connect, |_| true)
    }

    /// Returns whether a client may have a subscription: a denied topic that it has in common with a rule
    /// is enough.
    pub(super) fn may_subscribe(&self, client: usize, filter: &str) -> bool {
        let filter = split(filter).1;
        !self.is_denied(client, Denied::Subscribe, |topics| overlap(topics, filter))
    }

    /// Returns whether a PUBLISH is not permitted. One that was accepted before only is confirmed again.
    pub(super) fn denies_publish(&self, client: usize, sent: &Sent, packet_id: u16) -> bool {
        let session = self.sessions[client].as_ref();
        let is_again = sent.qos == QoS::ExactlyOnce
            && session.is_some_and(|session| session.unreleased.contains(&packet_id));
        !is_again && self.is_denied(client, Denied::Publish, |topics| matches(topics, sent.topic))
    }

    /// Expects the answer to such a PUBLISH: a Reason Code if the version has one, otherwise that of a
    /// message that nobody receives.
    pub(super) fn publish_denied(&mut self, client: usize, qos: QoS, packet_id: u16) {
        let is_v5 = self.link(client).is_some_and(|link| link.version == V5);
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.expect(client, Reply::PubAck(packet_id)),
            QoS::ExactlyOnce if is_v5 => self.expect(client, Reply::PubRecRefused(packet_id)),
            QoS::ExactlyOnce => {
                self.expect(client, Reply::PubRec(packet_id));
                if let Some(session) = &mut self.sessions[client] {
                    session.unreleased.push(packet_id);
                }
            }
        }
    }

    /// Publishes a Will that has waited, unless its client may not connect now.
    pub(super) fn publish_will_if_permitted(&mut self, client: usize, will: &Will) {
        if self.may_connect(client) {
            self.publish_will(client, will);
        }
    }
}

/// Returns how SUBACK says that a subscription is not permitted. MQTT 3.1 cannot say it: there, the broker
/// answers as if it were granted.
pub(super) const fn denied_code(version: ProtocolVersion, asked: QoS) -> u8 {
    match version {
        V3_1 => asked.number(),
        V3_1_1 => FAILURE_3,
        V5 => ReasonCode::NotAuthorized.number(),
    }
}
