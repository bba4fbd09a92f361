//! The broker is no more, and another one goes on with what its store has.
//!
//! What must survive is what the standard calls the Session State of sessions that outlast their
//! connections, all Wills, and retained messages. QoS 0 need not, and sessions without a Session
//! Expiry Interval have ended with their connections.

use hearthmq::{hooks::DisconnectReason, mqtt::QoS};

use super::{End, Model};
use crate::vocabulary::NAMES;

/// How long the broker waits for a client whose session ended with the former one.
const GRACE_MILLIS: u64 = 10_000;

impl Model {
    /// The broker has ended without a word, and the next one has begun.
    pub(crate) fn crashed(&mut self) {
        for client in 0..NAMES.len() {
            self.leaves_last_will(client);
        }
        for client in 0..NAMES.len() {
            if self.sessions[client].as_ref().is_some_and(|session| !session.is_kept) {
                self.is_lost(client);
            }
        }
        for client in 0..NAMES.len() {
            if let Some(session) = &mut self.sessions[client] {
                // Or that it has left may not have been kept.
                let was_there = session.link.is_some() || self.has_failed;
                session.copies.retain(|copy| copy.qos > QoS::AtMostOnce);
                for copy in &mut session.copies {
                    // Whether it was sent is not kept before it is sent: DUP, if in doubt.
                    copy.may_be_lost |= was_there;
                }
            }
            // All connections end as if their lines had broken. [MQTT-3.1.2-8]
            let end = End::without_disconnect(DisconnectReason::TcpClosed);
            self.end_connection(client, end);
        }
        self.has_failed = self.is_failing;
        let now = self.now;
        for session in self.sessions.iter_mut().flatten() {
            session.copies.retain(|copy| copy.qos > QoS::AtMostOnce);
            // What was due and was lost is done again, now.
            session.expires_at = session.expires_at.map(|at| at.max(now));
            if let Some((at, _)) = &mut session.delayed_will {
                *at = now.max(*at);
            }
        }
        self.pass_to(now);
        // Nobody was told.
        self.told.clear();
    }

    /// What this model says now, if all that has happened since then was lost.
    pub(crate) fn go_back_to(&self, then: Self) -> Self {
        Self { now: self.now, routed: self.routed, links: self.links, ..then }
    }

    /// A session ends with the broker: its Will waits for the client from the start on.
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

    /// A session was in memory alone.
    fn is_lost(&mut self, client: usize) {
        let Some(session) = self.sessions[client].take() else { return };
        for group in &mut self.groups {
            // It may have been this member's.
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
