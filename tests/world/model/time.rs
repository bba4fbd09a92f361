//! The effects of time: Keep Alive, delayed Wills, expiring sessions and messages.

use std::rc::Rc;

use hearthmq::hooks::DisconnectReason;

use super::{End, Model};

/// Maximum delay of a due event. The broker promises 250 ms; an event that follows from a late one
/// may be late itself.
pub(crate) const TOLERANCE_MILLIS: u64 = 400;

/// An event that happens by itself.
#[derive(Clone, Copy, Debug)]
enum Due {
    KeepAlive(usize),
    IdentityExpiry(usize),
    Will(usize),
    LastWill(usize),
    SessionEnd(usize),
    Expiry,
}

impl Model {
    /// Returns when the next event happens by itself.
    pub(crate) fn next_due_at(&self) -> Option<u64> {
        self.next_due().map(|(at, _)| at)
    }

    fn next_due(&self) -> Option<(u64, Due)> {
        let mut all: Vec<(u64, Due)> = Vec::new();
        for (client, session) in self.sessions.iter().enumerate() {
            let Some(session) = session else { continue };
            let deadline = session.link.as_ref().and_then(|link| link.deadline);
            all.extend(deadline.map(|at| (at, Due::KeepAlive(client))));
            let expiry = session.link.as_ref().and_then(|link| link.identity_expires_at);
            all.extend(expiry.map(|at| (at, Due::IdentityExpiry(client))));
            all.extend(session.delayed_will.as_ref().map(|(at, _)| (*at, Due::Will(client))));
            all.extend(session.expires_at.map(|at| (at, Due::SessionEnd(client))));
            let waiting =
                session.copies.iter().filter(|c| c.received_on.is_none() && !c.is_optional);
            all.extend(waiting.filter_map(|c| Some((c.message.expires_at?, Due::Expiry))));
        }
        for (client, last) in self.last_wills.iter().enumerate() {
            all.extend(last.as_ref().map(|(at, _)| (*at, Due::LastWill(client))));
        }
        let groups = self.groups.iter().filter(|g| !g.is_optional).map(|g| &g.message);
        let kept: Vec<&Rc<_>> = groups.chain(self.retained.values()).collect();
        all.extend(kept.iter().filter_map(|m| Some((m.expires_at?, Due::Expiry))));
        all.into_iter().min_by_key(|(at, _)| *at)
    }

    /// Lets time pass and all due events happen; returns when the last of them was due.
    pub(crate) fn pass_to(&mut self, now: u64) -> u64 {
        let mut last = 0;
        while let Some((at, due)) = self.next_due().filter(|(at, _)| *at <= now) {
            // Further events are counted from the time at which this one was due.
            self.now = at;
            last = at;
            match due {
                Due::KeepAlive(client) => {
                    let reason = DisconnectReason::KeepaliveTimeout;
                    self.end_connection(client, End::without_disconnect(reason));
                }
                Due::IdentityExpiry(client) => {
                    let reason = DisconnectReason::AuthenticationExpired;
                    self.end_connection(client, End::without_disconnect(reason));
                }
                Due::Will(client) => {
                    let session = self.sessions[client].as_mut();
                    if let Some((_, will)) = session.and_then(|s| s.delayed_will.take()) {
                        self.publish_will_if_permitted(client, &will);
                    }
                }
                Due::LastWill(client) => {
                    if let Some((_, will)) = self.last_wills[client].take() {
                        self.publish_will_if_permitted(client, &will);
                    }
                }
                Due::SessionEnd(client) => self.end_session(client),
                Due::Expiry => self.expire(at),
            }
        }
        self.now = now;
        last
    }

    /// Removes messages that were not sent in time. [MQTT-3.3.2-5]
    fn expire(&mut self, now: u64) {
        let is_over = |at: Option<u64>| at.is_some_and(|at| at <= now);
        self.retained.retain(|_, message| !is_over(message.expires_at));
        for session in self.sessions.iter_mut().flatten() {
            let is_behind = session.link.as_ref().is_some_and(|link| link.is_behind);
            session.copies.retain_mut(|copy| {
                if copy.received_on.is_none() && is_over(copy.message.expires_at) {
                    copy.is_optional = true;
                    return is_behind || copy.may_be_lost;
                }
                true
            });
        }
        for group in &mut self.groups {
            group.is_optional |= is_over(group.message.expires_at);
        }
    }
}
