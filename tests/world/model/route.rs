//! From a message to its due deliveries: plain and shared subscriptions, retained messages.

use std::rc::Rc;

use hearthmq::mqtt::{QoS, RetainHandling, SubscriptionOptions};

use super::{
    Model, Reply, Session, Subscription, Will,
    access::denied_code,
    owed::{Copy, Form, Message},
};
use crate::vocabulary::{matches, split};

/// A PUBLISH as its sender means it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) topic: &'static str,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) expiry_secs: Option<u32>,
}

impl Sent {
    /// Returns the same message without what the version cannot express.
    pub(crate) fn for_version(self, is_v5: bool) -> Self {
        Self { expiry_secs: self.expiry_secs.filter(|_| is_v5), ..self }
    }
}

impl Model {
    /// Handles PUBLISH from a client, section 3.3.
    pub(crate) fn published(&mut self, client: usize, sent: &Sent, packet_id: u16) {
        self.heard(client);
        if self.denies_publish(client, sent, packet_id) {
            return self.publish_denied(client, sent.qos, packet_id);
        }
        if self.refuses(client, sent, packet_id) {
            return self.refused(client, sent.qos, packet_id);
        }
        match sent.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.expect(client, Reply::PubAck(packet_id)),
            QoS::ExactlyOnce => {
                self.expect(client, Reply::PubRec(packet_id));
                let Some(session) = &mut self.sessions[client] else { return };
                if session.unreleased.contains(&packet_id) {
                    return; // [MQTT-4.3.3-10]
                }
                session.unreleased.push(packet_id);
            }
        }
        self.route(sent, Some(client));
    }

    /// Handles PUBREL from a client.
    pub(crate) fn released(&mut self, client: usize, packet_id: u16) {
        self.heard(client);
        if let Some(session) = &mut self.sessions[client] {
            session.unreleased.retain(|id| *id != packet_id);
        }
        self.expect(client, Reply::PubComp(packet_id));
    }

    pub(super) fn publish_will(&mut self, client: usize, will: &Will) {
        let sent = Sent {
            topic: will.topic,
            payload: will.payload.clone(),
            qos: will.qos,
            retain: will.retain,
            expiry_secs: will.expiry_secs,
        };
        self.route(&sent, Some(client));
    }

    /// Accepts an Application Message.
    pub(crate) fn route(&mut self, sent: &Sent, publisher: Option<usize>) {
        self.routed += 1;
        let message = Rc::new(Message {
            order: self.routed,
            topic: sent.topic,
            payload: sent.payload.clone(),
            qos: sent.qos,
            publisher,
            routed_at: self.now,
            expires_at: sent.expiry_secs.map(|secs| self.now + u64::from(secs) * 1000),
        });
        if sent.retain && sent.payload.is_empty() {
            self.retained.remove(sent.topic); // [MQTT-3.3.1-6]
        } else if sent.retain {
            self.retained.insert(sent.topic, message.clone()); // [MQTT-3.3.1-5]
        }
        for (at, session) in self.sessions.iter_mut().enumerate() {
            let Some(session) = session else { continue };
            if sent.retain {
                // A client that still waits for the old message gets the new one separately.
                let is_old = |c: &Copy| c.retained_for.is_some() && c.message.topic == sent.topic;
                session.need_not_be_sent(is_old);
            }
            session.is_owed(&message, sent.retain, publisher == Some(at));
        }
        self.route_to_groups(&message, sent.retain);
    }

    /// Handles SUBSCRIBE, section 3.8.4, with distinct filters.
    pub(crate) fn subscribed(
        &mut self,
        client: usize,
        packet_id: u16,
        asked: &[(&'static str, SubscriptionOptions)],
        identifier: Option<u32>,
    ) {
        self.heard(client);
        if self.has_trouble && self.sessions[client].as_ref().is_some_and(|s| s.is_kept) {
            return self.refused_to_subscribe(client, packet_id, asked.len());
        }
        let Some(version) = self.link(client).map(|link| link.version) else { return };
        let granted =
            asked.iter().map(|(filter, options)| match self.may_subscribe(client, filter) {
                false => denied_code(version, options.qos),
                true => options.qos.number(),
            });
        let granted = granted.collect();
        self.expect(client, Reply::SubAck(packet_id, granted)); // [MQTT-3.8.4-6]
        let now = self.now;
        let mut asked = asked.to_vec();
        asked.retain(|(filter, _)| self.may_subscribe(client, filter));
        let Some(session) = &mut self.sessions[client] else { return };
        for &(filter, options) in &asked {
            let existed = session.has(filter);
            session.need_not_be_sent(|copy| copy.retained_for == Some(filter));
            session.may_be_sent_after_all(filter);
            session.subscriptions.retain(|s| s.filter != filter); // [MQTT-3.8.4-3]
            session.subscriptions.push(Subscription { filter, options, identifier });
            let wants = match options.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => !existed,
                RetainHandling::DoNotSend => false,
            };
            if !wants || split(filter).0.is_some() {
                continue;
            }
            for message in self.retained.values() {
                let is_alive = message.expires_at.is_none_or(|at| at > now);
                if is_alive && matches(filter, message.topic) {
                    let form = Form {
                        qos: message.qos.min(options.qos),
                        retain: true, // [MQTT-3.3.1-8]
                        identifiers: identifier.into_iter().collect(),
                    };
                    let copy = Copy::new(message.clone(), form);
                    session.copies.push(Copy { retained_for: Some(filter), ..copy });
                }
            }
        }
        for (filter, _) in asked.iter().filter(|(filter, _)| split(filter).0.is_some()) {
            self.joined(client, filter);
        }
    }

    /// Returns how many retained messages a new subscription to the filter would get.
    pub(crate) fn retained_matching(&self, filter: &str) -> usize {
        self.retained.keys().filter(|topic| matches(filter, topic)).count()
    }

    /// Handles UNSUBSCRIBE, section 3.10.4. Messages in flight still come.
    pub(crate) fn unsubscribed(&mut self, client: usize, packet_id: u16, filter: &'static str) {
        self.heard(client);
        self.expect(client, Reply::UnsubAck(packet_id, 1));
        if let Some(session) = &mut self.sessions[client] {
            session.subscriptions.retain(|s| s.filter != filter);
            session.need_not_be_sent(|copy| copy.retained_for == Some(filter));
        }
        self.has_left(filter);
    }
}

impl Session {
    /// Marks copies that are not sent unless they were sent already.
    fn need_not_be_sent(&mut self, is_meant: impl Fn(&Copy) -> bool) {
        for copy in self.copies.iter_mut().filter(|c| c.received_on.is_none() && is_meant(c)) {
            copy.is_optional = true;
        }
    }

    /// Notes that messages of a withdrawn subscription that still wait are under this one now.
    fn may_be_sent_after_all(&mut self, filter: &str) {
        for copy in &mut self.copies {
            copy.comes_only_again &= !matches(split(filter).1, copy.message.topic);
        }
    }

    /// Adds one delivery of the message for all matching plain subscriptions together: of the two
    /// ways of section 3.3.4, this broker sends a single copy.
    fn is_owed(&mut self, message: &Rc<Message>, retain: bool, is_own: bool) {
        if !self.may_collect(message) {
            return;
        }
        let matching: Vec<&Subscription> = self
            .subscriptions
            .iter()
            .filter(|s| split(s.filter).0.is_none() && matches(s.filter, message.topic))
            .filter(|s| !(is_own && s.options.no_local)) // [MQTT-3.8.3-3]
            .collect();
        if matching.is_empty() {
            return;
        }
        let form = form(&matching, message.qos, retain);
        // QoS 0 is not stored for offline clients; the standard lets the server choose.
        if form.qos > QoS::AtMostOnce || self.link.is_some() {
            let is_optional = self.is_suspended;
            let may_be_lost = message.routed_at < self.may_be_there_until;
            self.copies.push(Copy { may_be_lost, is_optional, ..Copy::new(message.clone(), form) });
            if let Some(link) = &mut self.link {
                link.is_behind = true;
            }
        }
    }
}

/// Returns the form of a message for these subscriptions of one client. [MQTT-3.3.4-2]
/// [MQTT-3.3.4-4]
pub(super) fn form(of: &[&Subscription], qos: QoS, retain: bool) -> Form {
    let mut identifiers: Vec<u32> = of.iter().filter_map(|s| s.identifier).collect();
    identifiers.sort_unstable();
    Form {
        qos: qos.min(of.iter().map(|s| s.options.qos).max().unwrap_or_default()),
        retain: retain && of.iter().any(|s| s.options.retain_as_published), // [MQTT-3.3.1-12]
        identifiers,
    }
}
