//! The promises of MQTT in their most naive form: lists, searched from the beginning.
//!
//! The model is told what reaches the broker and when, and says what every client must, may and
//! must not receive. It follows the standard; where the standard leaves a choice, the comment names
//! this broker's choice. It knows no broker, no encoded packets and no sockets.

mod access;
mod crash;
mod either;
mod failing;
mod group;
mod owed;
mod receive;
mod route;
mod time;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use hearthmq::{
    hooks::DisconnectReason,
    mqtt::{
        ProtocolVersion::{self, V5},
        QoS, SubscriptionOptions,
    },
};

pub(crate) use self::{owed::Form, receive::Arrived, time::TOLERANCE_MILLIS};
pub(crate) use self::{
    owed::{Copy, GroupCopy, Message, Releasing},
    route::Sent,
};
use crate::vocabulary::{NAMES, TOKENS};

/// A result, or a fault in words.
pub(crate) type Verdict<T = ()> = Result<T, String>;

/// Maximum lifetime of sessions of MQTT 3 clients without Clean Session, as this broker is
/// configured.
const EXPIRY_SECS_MAX: u32 = 604_800;

/// Everything that is due to all clients.
#[derive(Clone, Default)]
pub(crate) struct Model {
    /// Milliseconds since the world began.
    pub(crate) now: u64,
    pub(crate) sessions: [Option<Session>; NAMES.len()],
    /// Wills of sessions that ended with a broker, and when they are due.
    pub(crate) last_wills: [Option<(u64, Will)>; NAMES.len()],
    pub(crate) retained: BTreeMap<&'static str, Rc<Message>>,
    /// Messages due to one member of a shared subscription.
    pub(crate) groups: Vec<GroupCopy>,
    /// Number of messages so far, which is also their order of routing.
    pub(crate) routed: u64,
    /// Number of connections so far.
    links: u64,
    /// Whether the store cannot be written: nothing that must be stored is confirmed until it can
    /// be.
    pub(crate) is_failing: bool,
    /// Whether the broker knows that the store cannot be written.
    pub(crate) has_trouble: bool,
    /// The bans.
    pub(crate) bans: Vec<access::Ban>,
    /// The rules of the store, by their places in the vocabulary.
    rules: BTreeSet<usize>,
    /// The API tokens, each with the number of its secret.
    pub(crate) tokens: [Option<usize>; TOKENS.len()],
    /// Presence events that are due since the last check.
    pub(crate) told: Vec<(usize, Told)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Connected,
    Disconnected(DisconnectReason),
    /// The Keep Alive and the credentials ended at nearly the same time: either is the reason.
    DisconnectedInTime,
}

impl Told {
    /// Returns whether `told` is what is expected here.
    pub(crate) fn allows(self, told: Self) -> bool {
        use DisconnectReason::{AuthenticationExpired, KeepaliveTimeout};
        let in_time = [KeepaliveTimeout, AuthenticationExpired].map(Self::Disconnected);
        told == self || (self == Self::DisconnectedInTime && in_time.contains(&told))
    }
}

/// The state that outlives a connection, section 4.1.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) subscriptions: Vec<Subscription>,
    /// Unacknowledged messages for the client, in the order of routing.
    pub(crate) copies: Vec<Copy>,
    /// QoS 2 messages that the client has received, without PUBCOMP from it.
    pub(crate) releasing: Vec<Releasing>,
    /// Packet Identifiers of the client's QoS 2 messages that it has not released.
    pub(crate) unreleased: Vec<u16>,
    /// The last message received for each topic, publisher and QoS.
    last: BTreeMap<(&'static str, Option<usize>, QoS), u64>,
    pub(crate) expiry_secs: u32,
    pub(crate) expires_at: Option<u64>,
    /// It has outlived a connection, or was meant to: the broker's store has it.
    pub(crate) is_kept: bool,
    pub(crate) delayed_will: Option<(u64, Will)>,
    /// Its client may not connect, so it collects nothing.
    is_suspended: bool,
    pub(crate) link: Option<Link>,
    /// Until when a connection that was given up may have existed and been sent something.
    may_be_there_until: u64,
}

#[derive(Clone)]
pub(crate) struct Subscription {
    pub(crate) filter: &'static str,
    pub(crate) options: SubscriptionOptions,
    pub(crate) identifier: Option<u32>,
}

/// A connection.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) version: ProtocolVersion,
    pub(crate) started_at: u64,
    pub(crate) keep_alive_secs: u16,
    last_packet_at: u64,
    pub(crate) deadline: Option<u64>,
    identity_expires_at: Option<u64>,
    /// Receive Maximum of the client, or the lower limit that a caller has set.
    pub(crate) quota: usize,
    receive_maximum: usize,
    /// The Session Expiry Interval of its CONNECT.
    pub(crate) first_expiry_secs: u32,
    pub(crate) packet_bytes_max: usize,
    will: Option<Will>,
    /// Whether the store has the Will, or could have it.
    is_will_kept: bool,
    /// Answers that the broker must send, in this order.
    pub(crate) replies: Vec<Reply>,
    /// Whether messages may be on their way that the client has not read.
    pub(crate) is_behind: bool,
}

#[derive(Clone)]
pub(crate) struct Will {
    pub(crate) topic: &'static str,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) delay_secs: u32,
    pub(crate) expiry_secs: Option<u32>,
}

/// A packet with which the broker answers the client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    ConnAck { session_present: bool },
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, usize),
    PubAck(u16),
    PubRec(u16),
    PubRecRefused(u16),
    PubComp(u16),
    PingResp,
}

/// The contents of a CONNECT.
#[derive(Clone)]
pub(crate) struct Connected {
    pub(crate) version: ProtocolVersion,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_secs: u16,
    pub(crate) expiry_secs: Option<u32>,
    /// How long the credentials are valid.
    pub(crate) identity_secs: Option<u8>,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) packet_bytes_max: Option<u32>,
    pub(crate) will: Option<Will>,
}

/// How a connection ends.
#[derive(Clone, Copy)]
pub(crate) struct End {
    pub(crate) reason: DisconnectReason,
    pub(crate) with_will: bool,
    pub(crate) ends_session: bool,
    /// Whether the session continues at once on another connection.
    pub(crate) is_resumed: bool,
}

impl End {
    /// Describes a broken line, or a connection that the broker ends. [MQTT-3.1.2-8]
    pub(crate) const fn without_disconnect(reason: DisconnectReason) -> Self {
        Self { reason, with_will: true, ends_session: false, is_resumed: false }
    }
}

impl Model {
    pub(crate) fn link(&self, client: usize) -> Option<&Link> {
        self.sessions[client].as_ref()?.link.as_ref()
    }

    pub(crate) fn link_mut(&mut self, client: usize) -> Option<&mut Link> {
        self.sessions[client].as_mut()?.link.as_mut()
    }

    pub(crate) fn expect(&mut self, client: usize, reply: Reply) {
        if let Some(link) = self.link_mut(client) {
            link.replies.push(reply);
        }
    }

    /// Handles CONNECT, section 3.1; returns whether the session is present.
    pub(crate) fn connected(&mut self, client: usize, connect: Connected) -> bool {
        let starts_clean = connect.clean_start;
        self.end_connection(
            client,
            End {
                ends_session: starts_clean,
                is_resumed: !starts_clean,
                ..End::without_disconnect(DisconnectReason::Takeovered)
            },
        );
        if starts_clean {
            self.end_session(client); // [MQTT-3.1.2-4]
        }
        let session_present = self.sessions[client].is_some();
        let expiry_secs = match connect.version {
            V5 => connect.expiry_secs.unwrap_or(0).min(EXPIRY_SECS_MAX),
            _ if connect.clean_start => 0,
            _ => EXPIRY_SECS_MAX,
        };
        self.links += 1;
        let receive_maximum = connect.receive_maximum.map_or(usize::MAX, usize::from);
        let mut link = Link {
            number: self.links,
            version: connect.version,
            started_at: self.now,
            keep_alive_secs: connect.keep_alive_secs,
            last_packet_at: 0,
            deadline: None,
            identity_expires_at: connect
                .identity_secs
                .map(|secs| self.now + u64::from(secs) * 1000),
            quota: receive_maximum,
            receive_maximum,
            first_expiry_secs: expiry_secs,
            packet_bytes_max: connect.packet_bytes_max.map_or(usize::MAX, |max| max as usize),
            will: connect.will,
            is_will_kept: !self.has_trouble,
            // Before MQTT 3.1.1 CONNACK has no such flag. [MQTT-3.2.2-2] [MQTT-3.2.2-3]
            replies: vec![Reply::ConnAck {
                session_present: session_present && connect.version != ProtocolVersion::V3_1,
            }],
            is_behind: true,
        };
        link.heard(self.now);
        for group in &mut self.groups {
            let is_member = group.members.iter().any(|(member, _)| *member == client);
            let is_too_large = group.message.payload.len() > link.packet_bytes_max;
            if is_member {
                group.expects.clear(); // a member that returns takes what waits with the others
            }
            group.is_optional |= is_member && is_too_large;
        }
        let session = self.sessions[client].get_or_insert_with(Session::new);
        session.expiry_secs = expiry_secs;
        session.is_kept |= expiry_secs > 0;
        session.expires_at = None;
        session.delayed_will = None; // [MQTT-3.1.3-9]
        self.last_wills[client] = None;
        session.link = Some(link);
        self.told.push((client, Told::Connected));
        session_present
    }

    /// Notes that a complete packet has come from the client.
    pub(crate) fn heard(&mut self, client: usize) {
        let now = self.now;
        if let Some(link) = self.link_mut(client) {
            link.heard(now);
            link.is_behind = true;
        }
    }

    /// Changes the Keep Alive of a live connection from outside; returns the previous one.
    pub(crate) fn set_keep_alive(&mut self, client: usize, secs: u16) -> Option<u16> {
        let now = self.now;
        let link = self.link_mut(client)?;
        let old = link.keep_alive_secs;
        let former = link.deadline?;
        if secs == 0 {
            return None;
        }
        let grace = u64::from(secs) * 1500;
        link.keep_alive_secs = secs;
        link.deadline = Some((link.last_packet_at + grace).max(former.min(now + grace)));
        Some(old)
    }

    /// Changes the limits of a live connection from outside, or ends those limits.
    pub(crate) fn limit(
        &mut self,
        client: usize,
        in_flight_max: Option<Option<u16>>,
        expiry_secs: Option<Option<u32>>,
    ) {
        let Some(session) = self.sessions[client].as_mut() else { return };
        let Some(link) = session.link.as_mut() else { return };
        if let Some(max) = in_flight_max {
            link.quota = max.map_or(usize::MAX, usize::from).min(link.receive_maximum);
        }
        if let Some(secs) = expiry_secs {
            session.expiry_secs = secs.unwrap_or(link.first_expiry_secs);
        }
    }

    /// Ends a connection; sections 3.1.2.5, 3.1.2.11.2, 3.14 and 4.13.
    pub(crate) fn end_connection(&mut self, client: usize, end: End) {
        let now = self.now;
        let Some(session) = self.sessions[client].as_mut() else { return };
        let Some(link) = session.link.take() else { return };
        self.told.push((client, link.told_at_end(end.reason)));
        // The broker may end several connections at such a time, and publish their Wills, in any order.
        let is_with_others = matches!(
            end.reason,
            DisconnectReason::KeepaliveTimeout
                | DisconnectReason::AuthenticationExpired
                | DisconnectReason::Banned
                | DisconnectReason::NotAuthorized
        );
        for copy in &mut session.copies {
            let is_just_routed = copy.message.routed_at + TOLERANCE_MILLIS >= now;
            copy.may_be_lost |=
                link.is_behind || copy.received_on.is_some() || is_with_others && is_just_routed;
            // A message that is too large may have been dropped. [MQTT-3.1.2-25]
            copy.is_optional |= copy.message.payload.len() > link.packet_bytes_max;
        }
        // QoS 0 is lost or, if it was still queued, comes later.
        for copy in &mut session.copies {
            copy.is_optional |= copy.qos == QoS::AtMostOnce;
        }
        if is_with_others {
            session.may_be_there_until = now + TOLERANCE_MILLIS;
        }
        let expiry_secs = session.expiry_secs;
        let will = link.will.filter(|_| end.with_will); // [MQTT-3.1.2-10]
        if let Some(will) = will {
            let delay_secs = if end.ends_session { 0 } else { will.delay_secs.min(expiry_secs) };
            if delay_secs == 0 {
                self.publish_will(client, &will);
            } else if !end.is_resumed {
                session.delayed_will = Some((now + u64::from(delay_secs) * 1000, will));
            }
        }
        self.is_away(client);
        let Some(session) = self.sessions[client].as_mut() else { return };
        if expiry_secs == 0 || end.ends_session {
            self.end_session(client); // [MQTT-3.1.2-23]
        } else {
            session.expires_at = Some(now + u64::from(expiry_secs) * 1000);
        }
    }

    /// Ends the session of a client that is away, because a caller asks for it.
    pub(crate) fn end_absent(&mut self, client: usize, with_will: bool) {
        if let Some(session) = self.sessions[client].as_mut().filter(|_| !with_will) {
            session.delayed_will = None;
        }
        self.end_session(client);
    }

    /// Ends a session. Its Will is due now at the latest.
    pub(crate) fn end_session(&mut self, client: usize) {
        let Some(mut session) = self.sessions[client].take() else { return };
        let will = session.delayed_will.take();
        self.is_gone(client, session);
        if let Some((_, will)) = will {
            self.publish_will_if_permitted(client, &will);
        }
    }
}

impl Session {
    /// Whether it collects this message, or may: the broker examines sessions in any order, so the Will of another
    /// one may come before this one was suspended.
    pub(super) fn may_collect(&self, message: &Message) -> bool {
        !self.is_suspended || message.routed_at < self.may_be_there_until
    }

    /// Whether a Will waits for the end of its connection, or for its time.
    pub(crate) fn has_will(&self) -> bool {
        self.delayed_will.is_some() || self.link.as_ref().is_some_and(|link| link.will.is_some())
    }

    /// Returns whether the end of its connection, or of the session, retains a Will.
    pub(crate) fn may_retain_will(&self) -> bool {
        let delayed = self.delayed_will.as_ref().map(|(_, will)| will);
        let will = self.link.as_ref().and_then(|link| link.will.as_ref());
        delayed.into_iter().chain(will).any(|will| will.retain)
    }

    fn new() -> Self {
        Self {
            subscriptions: Vec::new(),
            copies: Vec::new(),
            releasing: Vec::new(),
            unreleased: Vec::new(),
            last: BTreeMap::new(),
            expiry_secs: 0,
            expires_at: None,
            is_kept: false,
            delayed_will: None,
            is_suspended: false,
            link: None,
            may_be_there_until: 0,
        }
    }

    /// Returns the number of QoS 1 and 2 messages of this connection that the client has not
    /// acknowledged.
    pub(crate) fn outstanding(&self) -> usize {
        let Some(link) = &self.link else { return 0 };
        let here = Some(link.number);
        self.copies.iter().filter(|c| c.qos > QoS::AtMostOnce && c.received_on == here).count()
            + self.releasing.iter().filter(|r| r.counts_on == here).count()
    }
}

impl Link {
    pub(crate) fn awaits_conn_ack(&self) -> bool {
        self.replies.iter().any(|reply| matches!(reply, Reply::ConnAck { .. }))
    }

    /// Returns what is told about the end of the connection.
    fn told_at_end(&self, reason: DisconnectReason) -> Told {
        use DisconnectReason::{AuthenticationExpired, KeepaliveTimeout};
        let apart =
            self.deadline.zip(self.identity_expires_at).map(|(one, other)| one.abs_diff(other));
        let is_time = matches!(reason, KeepaliveTimeout | AuthenticationExpired);
        match is_time && apart.is_some_and(|millis| millis <= TOLERANCE_MILLIS) {
            true => Told::DisconnectedInTime,
            false => Told::Disconnected(reason),
        }
    }

    const fn heard(&mut self, now: u64) {
        self.last_packet_at = now;
        if self.keep_alive_secs > 0 {
            self.deadline = Some(now + self.keep_alive_secs as u64 * 1500); // [MQTT-3.1.2-22]
        }
    }
}
