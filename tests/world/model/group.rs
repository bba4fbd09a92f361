//! Shared subscriptions, section 4.8.2: one member of a group gets each message.
//!
//! Where the standard leaves a choice, this broker prefers online members. When a member loses its
//! connection, it gives unsent messages to others, and when the member's session ends also
//! unacknowledged QoS 1 messages. Messages that came while all members were offline go to the first
//! member with room that returns or joins.

use std::rc::Rc;

use hearthmq::mqtt::{ProtocolVersion::V5, QoS};

use super::{
    Arrived, Model, Session,
    owed::{Copy, GroupCopy, Message},
    receive::is_same,
    route::form,
};
use crate::vocabulary::split;

impl Model {
    pub(super) fn route_to_groups(&mut self, message: &Rc<Message>, retain: bool) {
        let mut filters: Vec<&'static str> = Vec::new();
        for session in self.sessions.iter().flatten().filter(|it| it.may_collect(message)) {
            filters.extend(session.shared_matching(message.topic).map(|s| s.filter));
        }
        filters.sort_unstable();
        filters.dedup();
        for filter in filters {
            self.owe_to_group(message, filter, retain);
        }
    }

    /// Notes that a message is due to one member of a group, if the group has any.
    fn owe_to_group(&mut self, message: &Rc<Message>, filter: &'static str, retain: bool) {
        let (mut members, mut there) = (Vec::new(), Vec::new());
        let mut is_optional = false;
        for (at, session) in self.sessions.iter_mut().enumerate() {
            let Some(session) = session.as_mut().filter(|it| it.may_collect(message)) else {
                continue;
            };
            let own = session.subscriptions.iter().filter(|s| s.filter == filter);
            let own: Vec<_> = own.map(|s| (at, form(&[s], message.qos, retain))).collect();
            if !own.is_empty() {
                is_optional |= session.cannot_take(message) || session.is_suspended;
                there.extend(session.link.as_ref().map(|_| at));
                members.extend(own);
            }
        }
        // QoS 0 is not stored for offline members.
        let is_kept = members.iter().any(|(_, form)| form.qos > QoS::AtMostOnce);
        is_optional |= there.is_empty() && !is_kept;
        if !members.is_empty() {
            let (message, expects, is_waiting) = (message.clone(), there.clone(), there.is_empty());
            self.groups.push(GroupCopy {
                message,
                filter,
                is_left_over: false,
                retain,
                members,
                expects,
                is_waiting,
                is_optional,
            });
        }
    }

    /// Assigns a group's message to this client, unless it is due to the client for another reason.
    pub(super) fn claim_from_group(&mut self, client: usize, arrived: &Arrived<'_>) {
        let Some(session) = self.sessions[client].as_mut() else { return };
        let is_known = session
            .copies
            .iter()
            .any(|c| c.packet_id.is_some() && c.packet_id == arrived.packet_id);
        let found = session.find(arrived);
        let own = found.map(|at| session.copies[at].is_optional);
        if is_known {
            return;
        }
        let is_v5 = session.link.as_ref().is_some_and(|link| link.version == V5);
        let started_at = session.link.as_ref().map_or(0, |link| link.started_at);
        let claims = self.groups.iter().enumerate().filter_map(|(at, group)| {
            let is_possible = group.message.routed_at <= started_at || !arrived.dup;
            let (_, form) = group.members.iter().find(|(member, form)| {
                let copy = Copy::new(group.message.clone(), form.clone());
                *member == client && is_possible && is_same(&copy, arrived, is_v5)
            })?;
            Some((group.is_optional, at, form.clone()))
        });
        let claim = claims.min_by_key(|(is_optional, at, _)| (*is_optional, *at));
        if let (Some(at), Some(_), Some(false)) = (found, &claim, own) {
            session.copies[at].may_be_of_group = true;
            return;
        }
        let Some((is_optional, at, form)) =
            claim.filter(|(o, ..)| own != Some(false) && (!o || own.is_none()))
        else {
            return;
        };
        let group = self.groups.remove(at);
        if own.is_some() {
            // Or it was the client's own copy, which looks the same, and the group's still comes.
            self.groups.push(GroupCopy { is_optional: true, ..group.clone() });
        }
        session.copies.push(Copy {
            // It may have been sent to this member on a line that broke.
            may_be_lost: group.message.routed_at <= started_at,
            is_optional,
            share: Some((group.filter, group.retain)),
            is_left_over: group.is_left_over,
            ..Copy::new(group.message, form)
        });
    }

    /// Notes that a client has subscribed to a shared filter, and may get messages that others
    /// leave.
    pub(super) fn joined(&mut self, client: usize, filter: &str) {
        let Some(session) = self.sessions[client].as_ref() else { return };
        let Some(own) = session.subscriptions.iter().find(|s| s.filter == filter) else { return };
        for group in self.groups.iter_mut().filter(|group| group.filter == filter) {
            group.members.push((client, form(&[own], group.message.qos, group.retain)));
            group.expects.clear(); // the new member takes what waits with the others
            let bytes_max = session.link.as_ref().map_or(usize::MAX, |link| link.packet_bytes_max);
            group.is_optional |= group.message.payload.len() > bytes_max;
        }
    }

    /// Returns whether the client may take a message that waits for its group.
    pub(super) fn may_take(&self, client: usize, group: &GroupCopy) -> bool {
        self.sessions[client].as_ref().is_some_and(|session| {
            let bytes_max = session.link.as_ref().map_or(0, |link| link.packet_bytes_max);
            session.has(group.filter) && group.message.payload.len() <= bytes_max
        })
    }

    /// Notes that a member has left a group. If it was the last one, the group has ended, and the
    /// next subscriber starts a new group, which need not inherit anything. It may, because the
    /// broker's store identifies groups by their filters alone, and the standard says nothing about
    /// ended groups.
    pub(super) fn has_left(&mut self, filter: &'static str) {
        if self.sessions.iter().flatten().any(|session| session.has(filter)) {
            return;
        }
        for group in self.groups.iter_mut().filter(|group| group.filter == filter) {
            group.is_optional = true;
            group.is_left_over = true;
        }
        for copy in self.sessions.iter_mut().flatten().flat_map(|session| &mut session.copies) {
            copy.is_left_over |= copy.share.is_some_and(|(of, _)| of == filter);
        }
    }

    /// Notes that a member has lost its connection: QoS 0 for it may be lost, and its queued
    /// messages go to any other member.
    pub(super) fn is_away(&mut self, client: usize) {
        for group in &mut self.groups {
            let mut own = group.members.iter().filter(|(member, _)| *member == client);
            if own.clone().next().is_some() {
                group.expects.clear();
                // It may have been sent to this member.
                group.is_waiting = false;
            }
            group.is_optional |= own.any(|(_, form)| form.qos == QoS::AtMostOnce);
        }
    }

    /// Notes that a member's session has ended. Started QoS 2 deliveries go to no other member.
    /// [MQTT-4.8.2-5]
    pub(super) fn is_gone(&mut self, client: usize, session: Session) {
        let sessions = &self.sessions;
        // Members that have unsubscribed meanwhile inherit nothing, and offline members no QoS 0.
        let inherits = |group: &GroupCopy| {
            group.members.iter().any(|(member, form)| {
                sessions[*member].as_ref().is_some_and(|session| {
                    let is_kept = session.link.is_some() || form.qos > QoS::AtMostOnce;
                    session.has(group.filter) && is_kept && !session.is_suspended
                })
            })
        };
        for group in &mut self.groups {
            let is_own = |(member, _): &(usize, _)| *member == client;
            if group.members.iter().any(is_own) {
                let own = group.members.iter().filter(|member| is_own(member));
                group.is_optional |= own.clone().any(|(_, form)| form.qos != QoS::AtLeastOnce);
                group.expects.clear();
                group.members.retain(|member| !is_own(member));
                group.is_optional |= !inherits(group);
            }
        }
        self.groups.retain(|group| !group.members.is_empty());
        for subscription in &session.subscriptions {
            self.has_left(subscription.filter);
        }
        for copy in session.copies {
            if let Some((filter, retain)) = copy.share.filter(|_| copy.qos == QoS::AtLeastOnce) {
                let is_over = copy.message.expires_at.is_some_and(|at| at <= self.now);
                if !is_over {
                    let before = self.groups.len();
                    self.owe_to_group(&copy.message, filter, retain);
                    for group in &mut self.groups[before..] {
                        group.is_optional |= copy.is_left_over || copy.is_optional;
                    }
                }
            }
        }
    }
}

impl Session {
    pub(super) fn has(&self, filter: &str) -> bool {
        self.subscriptions.iter().any(|s| s.filter == filter)
    }

    fn shared_matching(&self, topic: &str) -> impl Iterator<Item = &super::Subscription> {
        self.subscriptions.iter().filter(move |s| {
            let (share_name, filter) = split(s.filter);
            share_name.is_some() && crate::vocabulary::matches(filter, topic)
        })
    }

    /// Returns whether the message is too large for the connection; the connection may then have
    /// more to read.
    fn cannot_take(&mut self, message: &Message) -> bool {
        self.link.as_mut().is_some_and(|link| {
            link.is_behind = true;
            message.payload.len() > link.packet_bytes_max
        })
    }
}
