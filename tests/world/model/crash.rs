//! The broker ends without warning, and another one continues with its store.
//!
//! Must survive: the Session State, in the standard's sense, of sessions that outlive their
//! connections, all Wills, and retained messages. QoS 0 need not survive, and sessions without a
//! Session Expiry Interval end with their connections.

use hearthmq::{hooks::DisconnectReason, mqtt::QoS};

use super::{Copy, End, Model};
use crate::vocabulary::{NAMES, matches, split};

/// How long the broker waits for a client whose session ended with the previous broker.
const GRACE_MILLIS: u64 = 10_000;

impl Model {
    /// Notes that the broker has ended without warning, and the next one has started. That one finds that
    /// a client may no longer have this subscription; returns whether the client had it.
    pub(crate) fn crashed(&mut self, denied: Option<(usize, &'static str)>) -> bool {
        for client in 0..NAMES.len() {
            self.leaves_last_will(client);
        }
        for client in 0..NAMES.len() {
            if self.sessions[client].as_ref().is_some_and(|session| !session.is_kept) {
                self.is_lost(client);
            }
        }
        let is_withdrawn = denied.is_some_and(|(client, filter)| self.denied(client, filter));
        for client in 0..NAMES.len() {
            if let Some(session) = &mut self.sessions[client] {
                let was_there = session.link.is_some();
                session.copies.retain(|copy| copy.qos > QoS::AtMostOnce);
                for copy in &mut session.copies {
                    // The store does not note that a message was sent before it is sent, so DUP is
                    // set if in doubt.
                    copy.may_be_lost |= was_there;
                }
            }
            // All connections end as if their lines had broken. [MQTT-3.1.2-8]
            let end = End::without_disconnect(DisconnectReason::TcpClosed);
            self.end_connection(client, end);
        }
        let now = self.now;
        for session in self.sessions.iter_mut().flatten() {
            session.copies.retain(|copy| copy.qos > QoS::AtMostOnce);
            // Due actions that were lost are performed again, now.
            session.expires_at = session.expires_at.map(|at| at.max(now));
            if let Some((at, _)) = &mut session.delayed_will {
                *at = now.max(*at);
            }
        }
        self.pass_to(now);
        // No events were reported.
        self.told.clear();
        is_withdrawn
    }

    /// Takes a subscription from a client, and what waits under it alone. What was sent is still
    /// delivered to the end. Returns whether the client had the subscription.
    pub(super) fn withdraw(&mut self, client: usize, filter: &'static str) -> bool {
        let Some(session) = self.sessions[client].as_mut().filter(|s| s.has(filter)) else {
            return false;
        };
        session.subscriptions.retain(|subscription| subscription.filter != filter);
        let is_there = session.link.is_some();
        // Of a client that reads nothing more, it is not known what was sent.
        let may_be_sent = session.link.as_ref().is_some_and(|link| link.is_behind);
        let others: Vec<_> = session.subscriptions.iter().map(|other| other.filter).collect();
        let is_under_other = |topic: &str| {
            others.iter().any(|other| split(other).0.is_none() && matches(other, topic))
        };
        session.copies.retain_mut(|copy| {
            let is_under = match copy.share {
                Some((of, _)) => of == filter,
                None => {
                    let topic = copy.message.topic;
                    split(filter).0.is_none() && matches(filter, topic) && !is_under_other(topic)
                }
            };
            if !is_under {
                // After UNSUBSCRIBE, a server may still deliver what it has buffered (MQTT 5.0, section
                // 3.10.4). The broker does, unless it examines the queue because of another subscription.
                let is_unsent = copy.share.is_none() && copy.received_on.is_none();
                copy.is_optional |= is_unsent && !is_under_other(copy.message.topic);
                return true;
            }
            // What was sent may come again, what was not must not.
            copy.is_optional = true;
            copy.comes_only_again = !may_be_sent;
            is_there || copy.may_be_lost || copy.received_on.is_some()
        });
        for group in self.groups.iter_mut().filter(|group| group.filter == filter) {
            if let Some(at) = group.members.iter().position(|(member, _)| *member == client) {
                // It may have been this member's, and then goes to those that are left, or comes again
                // if it was sent.
                group.is_optional = true;
                group.expects.clear();
                let (_, form) = group.members.remove(at);
                if !group.is_waiting {
                    session.copies.push(Copy {
                        may_be_lost: true,
                        is_optional: true,
                        comes_only_again: !may_be_sent,
                        share: Some((filter, group.retain)),
                        is_left_over: group.is_left_over,
                        ..Copy::new(group.message.clone(), form)
                    });
                }
            }
        }
        self.groups.retain(|group| !group.members.is_empty());
        self.has_left(filter);
        true
    }

    /// Notes that a crash may have left a message at some shards and not at others: it was routed
    /// after `routed` others, and was not acknowledged.
    pub(crate) fn has_arrived_in_part(&mut self, routed: u64) {
        for copy in self.sessions.iter_mut().flatten().flat_map(|session| &mut session.copies) {
            copy.is_optional |= copy.message.order > routed;
        }
        for group in &mut self.groups {
            group.is_optional |= group.message.order > routed;
        }
    }

    /// Returns the model's state if everything after `then` was lost.
    pub(crate) fn go_back_to(&self, then: Self) -> Self {
        Self { now: self.now, routed: self.routed, links: self.links, ..then }
    }

    /// Ends a session with its broker: from the start on its Will waits for the client.
    fn leaves_last_will(&mut self, client: usize) {
        let due_at = self.now + GRACE_MILLIS;
        if let Some((at, _)) = &mut self.last_wills[client] {
            *at = due_at;
        }
        let Some(session) = self.sessions[client].as_mut().filter(|s| s.expiry_secs == 0) else {
            return;
        };
        let is_session_kept = session.is_kept;
        let Some(link) = &mut session.link else { return };
        let is_kept = is_session_kept || link.is_will_kept;
        let will = link.will.take().filter(|_| is_kept);
        self.last_wills[client] = will.map(|will| (due_at, will));
    }

    /// Ends a session that was only in memory.
    fn is_lost(&mut self, client: usize) {
        let Some(session) = self.sessions[client].take() else { return };
        for group in &mut self.groups {
            // The message may have been sent to this member.
            group.is_optional |= group.members.iter().any(|(member, _)| *member == client);
            group.expects.clear();
            group.members.retain(|(member, _)| *member != client);
        }
        self.groups.retain(|group| !group.members.is_empty());
        for subscription in &session.subscriptions {
            self.has_left(subscription.filter);
        }
    }
}
