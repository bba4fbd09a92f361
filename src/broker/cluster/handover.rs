//! Translates a session between the form of the shards and the one in which it travels to another node.
//!
//! Both directions are total: a copy that no broker can have made is refused. Knows neither NATS nor shards.

use std::{num::NonZeroU16, sync::Arc};

use bytes::Bytes;

use crate::{
    cluster::owning::copy::{
        InFlightCopy, LoginCopy, MessageCopy, QueuedCopy, RestCopy, SessionCopy, SubscriptionCopy,
        WillCopy,
    },
    journal::{
        CertificateRecord, LoginKind, LoginRecord, QueuePlace, QueuedMessage, SessionRecord,
        SubscriptionRecord, WillRecord,
    },
    mqtt::{
        Message, PacketId, Publication, QoS, RetainHandling, SubscriptionOptions, Timestamp,
        validate_filter,
    },
    shard::handover::{MovingSession, RestPage},
};

const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
const RETAIN_HANDLING: u8 = 4;

/// Returns a session in the form in which it travels.
pub(super) fn copy_of(session: &MovingSession) -> SessionCopy {
    let record = &session.record;
    let subscriptions = session.subscriptions.iter().map(|(filter, subscription)| {
        let options = options_byte(subscription.options);
        SubscriptionCopy { filter: filter.clone(), options, identifier: subscription.identifier }
    });
    let in_flight = session.in_flight.iter().map(|(packet_id, queued)| InFlightCopy {
        packet_id: packet_id.number(),
        queued: queued.as_ref().map(queued_copy),
    });
    SessionCopy {
        client_id: (&*record.client_id).into(),
        username: record.username.as_deref().map(Into::into),
        expiry_interval_secs: record.expiry_interval_secs,
        ends_at: record.ends_at.map(Timestamp::millis),
        peer: record.peer.clone(),
        connected_at: record.connected_at.millis(),
        login: record.login.as_ref().map(login_copy),
        subscriptions: subscriptions.collect(),
        accepted: session.accepted.iter().map(|id| id.number()).collect(),
        will: session.will.as_ref().map(|will| WillCopy {
            message: message_copy(&will.message),
            delay_secs: will.delay_secs,
            expiry_secs: will.expiry_secs,
            due_at: will.due_at.map(Timestamp::millis),
        }),
        in_flight: in_flight.collect(),
        waiting: session.waiting.iter().map(queued_copy).collect(),
        doubtful: session.doubtful.min(session.waiting.len()) as u32,
    }
}

/// Returns the session that has travelled; `None` if it is not a valid one.
pub(super) fn session_of(copy: SessionCopy) -> Option<MovingSession> {
    let record = SessionRecord {
        client_id: copy.client_id.into(),
        username: copy.username.map(Into::into),
        expiry_interval_secs: copy.expiry_interval_secs,
        ends_at: copy.ends_at.map(Timestamp),
        is_connected: false,
        doubtful_up_to: QueuePlace(0), // It is set with the places of the messages.
        peer: copy.peer,
        connected_at: Timestamp(copy.connected_at),
        login: match copy.login {
            Some(login) => Some(login_record(login)?),
            None => None,
        },
    };
    let subscription = |copy: SubscriptionCopy| {
        validate_filter(&copy.filter).ok()?;
        let (options, identifier) = (options_of(copy.options)?, copy.identifier);
        Some((copy.filter, SubscriptionRecord { options, identifier, is_withdrawn: false }))
    };
    let in_flight = |copy: InFlightCopy| {
        let queued = match copy.queued {
            Some(queued) => Some(queued_message(queued)?),
            None => None,
        };
        Some((packet_id(copy.packet_id)?, queued))
    };
    let will = match copy.will {
        Some(will) => Some(WillRecord {
            message: Arc::new(message_of(&will.message)?),
            delay_secs: will.delay_secs,
            expiry_secs: will.expiry_secs,
            due_at: will.due_at.map(Timestamp),
        }),
        None => None,
    };
    Some(MovingSession {
        record,
        subscriptions: copy.subscriptions.into_iter().map(subscription).collect::<Option<_>>()?,
        accepted: copy.accepted.into_iter().map(packet_id).collect::<Option<_>>()?,
        will,
        in_flight: copy.in_flight.into_iter().map(in_flight).collect::<Option<_>>()?,
        waiting: copy.waiting.into_iter().map(queued_message).collect::<Option<_>>()?,
        doubtful: copy.doubtful as usize,
        rest_from: QueuePlace(0), // It is the former node's.
    })
}

/// Returns messages of a queue in the form in which they travel.
pub(super) fn rest_copy(page: &RestPage) -> RestCopy {
    RestCopy { messages: page.messages.iter().map(queued_copy).collect() }
}

/// Returns the messages that have travelled; `None` if one is not valid.
pub(super) fn rest_of(copy: RestCopy) -> Option<RestPage> {
    let messages = copy.messages.into_iter().map(queued_message).collect::<Option<_>>()?;
    Some(RestPage { messages, next: 0 })
}

fn packet_id(number: u16) -> Option<PacketId> {
    NonZeroU16::new(number).map(PacketId)
}

fn login_copy(login: &LoginRecord) -> LoginCopy {
    let text = |text: &Arc<str>| Box::from(&**text);
    let certificate = login.certificate.as_ref();
    LoginCopy {
        kind: login.kind.name().into(),
        method: login.method.as_ref().map(text),
        listener: text(&login.listener),
        certificate: certificate.map(|it| (it.common_name.clone(), it.serial_number.clone())),
        needs_account: login.needs_account,
        source: login.source.as_ref().map(text),
        attributes: login.attributes.to_vec(),
        groups: login.groups.to_vec(),
        credential: login.credential,
        rules: login.rules.clone(),
        rules_expire_at: login.rules_expire_at.map(Timestamp::millis),
    }
}

fn login_record(copy: LoginCopy) -> Option<LoginRecord> {
    let certificate = copy.certificate;
    Some(LoginRecord {
        kind: LoginKind::of_name(&copy.kind)?,
        method: copy.method.map(Into::into),
        listener: copy.listener.into(),
        certificate: certificate
            .map(|(common_name, serial_number)| CertificateRecord { common_name, serial_number }),
        needs_account: copy.needs_account,
        source: copy.source.map(Into::into),
        attributes: copy.attributes.into(),
        groups: copy.groups.into(),
        credential: copy.credential,
        rules: copy.rules,
        rules_expire_at: copy.rules_expire_at.map(Timestamp),
    })
}

const fn options_byte(options: SubscriptionOptions) -> u8 {
    let no_local = if options.no_local { NO_LOCAL } else { 0 };
    let as_published = if options.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 };
    let handling = (options.retain_handling as u8) << RETAIN_HANDLING;
    options.qos.number() | no_local | as_published | handling
}

fn options_of(byte: u8) -> Option<SubscriptionOptions> {
    let retain_handling = match byte >> RETAIN_HANDLING {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        3.. => return None,
    };
    Some(SubscriptionOptions {
        qos: QoS::from_number(byte & 3)?,
        no_local: byte & NO_LOCAL != 0,
        retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
        retain_handling,
    })
}

fn message_copy(message: &Message) -> MessageCopy {
    let publication = message.publication();
    MessageCopy {
        topic: publication.topic.into(),
        payload: message.payload_bytes(),
        properties: Bytes::copy_from_slice(publication.properties),
        qos: publication.qos.number(),
        retain: publication.retain,
        expires_at: publication.expires_at.map(Timestamp::millis),
        received_at: message.received_at().map_or(0, Timestamp::millis),
    }
}

fn message_of(copy: &MessageCopy) -> Option<Message> {
    let publication = Publication {
        topic: &copy.topic,
        payload: &copy.payload,
        qos: QoS::from_number(copy.qos)?,
        retain: copy.retain,
        properties: &copy.properties,
        expires_at: copy.expires_at.map(Timestamp),
    };
    Some(Message::new(&publication).received(Timestamp(copy.received_at)))
}

fn queued_copy(queued: &QueuedMessage) -> QueuedCopy {
    QueuedCopy {
        message: message_copy(&queued.message),
        qos: queued.qos.number(),
        retain: queued.retain,
        identifiers: queued.identifiers.as_deref().unwrap_or_default().to_vec(),
        share: queued.share.as_deref().map(Into::into),
    }
}

fn queued_message(copy: QueuedCopy) -> Option<QueuedMessage> {
    let identifiers = (!copy.identifiers.is_empty()).then(|| copy.identifiers.into());
    Some(QueuedMessage {
        message: Arc::new(message_of(&copy.message)?),
        qos: QoS::from_number(copy.qos)?,
        retain: copy.retain,
        identifiers,
        share: copy.share.map(Into::into),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire;

    fn message(topic: &str) -> Message {
        let publication = Publication {
            topic,
            payload: b"payload",
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: &[3, 0, 1, b'a'],
            expires_at: Some(Timestamp(900)),
        };
        Message::new(&publication).received(Timestamp(70))
    }

    fn queued(topic: &str, share: Option<&str>) -> QueuedMessage {
        QueuedMessage {
            message: Arc::new(message(topic)),
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: share.is_none().then(|| Arc::from([7, 9])),
            share: share.map(Into::into),
        }
    }

    fn session() -> MovingSession {
        let login = LoginRecord {
            kind: LoginKind::Scram,
            method: Some("SCRAM-SHA-256".into()),
            listener: "mqtt://[::]:1883".into(),
            certificate: Some(CertificateRecord {
                common_name: "car".into(),
                serial_number: "0a".into(),
            }),
            needs_account: true,
            source: Some("file".into()),
            attributes: Box::new([("tenant".into(), "t1".into())]),
            groups: Box::new(["drivers".into()]),
            credential: Some(4),
            rules: Some("[]".into()),
            rules_expire_at: Some(Timestamp(5_000)),
        };
        let options = |handling| SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: handling,
        };
        let handlings =
            [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
        let subscriptions = handlings.into_iter().enumerate().map(|(at, handling)| {
            let options = options(handling);
            let record = SubscriptionRecord { options, identifier: Some(3), is_withdrawn: false };
            (format!("f/{at}/+").into(), record)
        });
        MovingSession {
            record: SessionRecord {
                client_id: "car".into(),
                username: Some("ann".into()),
                expiry_interval_secs: 3_600,
                ends_at: Some(Timestamp(4_000)),
                is_connected: false,
                doubtful_up_to: QueuePlace(0),
                peer: "192.0.2.1:5".into(),
                connected_at: Timestamp(30),
                login: Some(login),
            },
            subscriptions: subscriptions.collect(),
            accepted: vec![PacketId(NonZeroU16::MIN), PacketId(NonZeroU16::MAX)],
            will: Some(WillRecord {
                message: Arc::new(message("gone")),
                delay_secs: 60,
                expiry_secs: Some(5),
                due_at: Some(Timestamp(99)),
            }),
            in_flight: vec![
                (PacketId(NonZeroU16::MAX), Some(queued("a", None))),
                (PacketId(NonZeroU16::MIN), None),
            ],
            waiting: vec![queued("b", None), queued("c", Some("$share/g/c"))],
            doubtful: 1,
            rest_from: QueuePlace(0),
        }
    }

    #[test]
    fn a_session_is_the_same_after_its_way() {
        let bytes = wire::encode(&copy_of(&session()));
        let copy: SessionCopy = wire::decode(&bytes).unwrap();
        assert_eq!(session_of(copy), Some(session()));
    }

    #[test]
    fn a_copy_that_is_not_a_session_is_refused() {
        let good = copy_of(&session());
        let spoiled: [fn(&mut SessionCopy); 6] = [
            |copy| copy.accepted[0] = 0,
            |copy| copy.in_flight[0].packet_id = 0,
            |copy| copy.waiting[0].qos = 3,
            |copy| copy.waiting[0].message.qos = 3,
            |copy| copy.subscriptions[0].options = 0xFF,
            |copy| copy.subscriptions[0].filter = "a#".into(),
        ];
        for spoil in spoiled {
            let mut copy = good.clone();
            spoil(&mut copy);
            assert_eq!(session_of(copy), None);
        }
    }
}
