//! Any bytes decode to a record or to `None`, and encoding round-trips. `tests/it/store` shows what
//! a store does with records.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    journal::{CertificateRecord, LoginKind, LoginRecord, QueuePlace, SessionRecord},
    mqtt::PacketId,
};

fn message(number: Option<u64>) -> Message {
    let message = Message::new(&Publication {
        topic: "a/ü",
        payload: b"payload",
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: &[1, 1],
        expires_at: Some(Timestamp(u64::MAX)),
    });
    match number.and_then(NonZeroU64::new) {
        Some(number) => message.numbered(number),
        None => message,
    }
}

fn queued(number: Option<u64>) -> QueuedMessage {
    QueuedMessage {
        message: Arc::new(message(number)),
        qos: QoS::AtLeastOnce,
        retain: true,
        identifiers: Some([1, 268_435_455].into()),
        share: Some("$share/g/a/#".into()),
    }
}

fn will() -> WillRecord {
    WillRecord {
        message: Arc::new(message(None)),
        delay_secs: u32::MAX,
        expiry_secs: Some(0),
        due_at: Some(Timestamp(7)),
    }
}

fn session() -> SessionRecord {
    SessionRecord {
        client_id: "c".into(),
        username: Some("".into()),
        expiry_interval_secs: u32::MAX,
        ends_at: Some(Timestamp::NEVER),
        is_connected: true,
        doubtful_up_to: QueuePlace(0),
        peer: "192.0.2.1:1".into(),
        connected_at: Timestamp(0),
        login: Some(LoginRecord {
            kind: LoginKind::Other,
            method: Some("m".into()),
            listener: "mqtt://[::]:1883".into(),
            certificate: Some(CertificateRecord {
                common_name: "".into(),
                serial_number: "0a".into(),
            }),
            needs_account: true,
            source: Some("accounts".into()),
            attributes: [("plan".into(), "gold".into()), ("".into(), "".into())].into(),
            groups: ["cars".into(), "night".into()].into(),
            credential: Some(u64::MAX),
            rules: Some("[]".into()),
            rules_expire_at: Some(Timestamp(9)),
        }),
    }
}

fn sent() -> SentRecord {
    let sent = SentAs { packet_id: PacketId::new(u16::MAX).unwrap(), order: u64::MAX };
    SentRecord { sent, is_released: true }
}

fn subscription() -> SubscriptionRecord {
    let options = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    SubscriptionRecord { options, identifier: Some(268_435_455), is_withdrawn: true }
}

/// One record of each kind.
fn all() -> Vec<Vec<u8>> {
    vec![
        encode_number(u64::MAX),
        encode_session(&session()),
        encode_subscription("a/+", &subscription()),
        encode_will(&will()),
        encode_message(&message(Some(9))),
        encode_queued(&queued(Some(9))),
        encode_queued(&queued(None)),
        encode_sent(sent()),
    ]
}

/// Decodes bytes as a record of every kind.
fn decode_as_each(bytes: &[u8]) -> [bool; 9] {
    [
        decode_number(bytes).is_some(),
        decode_session(bytes).is_some(),
        decode_subscription(bytes).is_some(),
        decode_will(bytes).is_some(),
        decode_message(bytes).is_some(),
        decode_queued(bytes).is_some(),
        weigh_queued(bytes).is_some(),
        queued_number(bytes).is_some(),
        decode_sent(bytes).is_some(),
    ]
}

#[test]
fn what_is_written_is_read() {
    assert_eq!(decode_number(&encode_number(u64::MAX)), Some(u64::MAX));
    assert_eq!(decode_session(&encode_session(&session())), Some(session()));
    let read = decode_subscription(&encode_subscription("a/+", &subscription()));
    assert_eq!(read, Some(("a/+".into(), subscription())));
    assert_eq!(decode_will(&encode_will(&will())), Some(will()));
    assert_eq!(decode_sent(&encode_sent(sent())), Some(sent()));
    for number in [None, Some(9)] {
        assert_eq!(decode_message(&encode_message(&message(number))), Some(message(number)));
        let bytes = encode_queued(&queued(number));
        assert_eq!(queued_number(&bytes), Some(number.and_then(NonZeroU64::new)));
        let (qos, size) = (QoS::AtLeastOnce, message(None).size());
        let weight = Weight { qos, size, expires_at: Some(Timestamp(u64::MAX)) };
        assert_eq!(weigh_queued(&bytes), Some(weight));
        let entry = decode_queued(&bytes).unwrap();
        assert_eq!(entry.with_message(Arc::new(message(number))), queued(number));
    }
}

/// As format 2 has them.
#[test]
fn a_session_of_a_former_version_does_not_say_how_its_client_logged_in() {
    let former = [1, 0b101, 1, b'c', 1, b'u', 60, 0, 1, b'p', 9];
    let record = decode_session(&former).unwrap();
    assert_eq!((&*record.client_id, record.username.as_deref()), ("c", Some("u")));
    assert_eq!((record.is_connected, record.connected_at), (true, Timestamp(9)));
    assert_eq!(record.login, None);
    // Nor does it once it is written again.
    assert_eq!(encode_session(&record), former);
}

/// As formats 3 and 4 have them.
#[test]
fn a_session_of_a_former_version_has_neither_source_nor_attributes() {
    let former = [2, 0b101, 1, b'c', 1, b'u', 60, 0, 1, b'p', 9, 2, 1, b'l'];
    let record = decode_session(&former).unwrap();
    let login = record.login.clone().unwrap();
    assert_eq!((login.kind, &*login.listener), (LoginKind::Scram, "l"));
    assert_eq!((login.source, login.attributes.len()), (None, 0));
    assert_eq!(encode_session(&record), former);
}

/// As format 5 has them.
#[test]
fn a_session_of_a_former_version_has_neither_groups_nor_credential() {
    let former = [3, 0b100_0101, 1, b'c', 1, b'u', 60, 0, 1, b'p', 9, 0, 1, b'l', 1, b's'];
    let record = decode_session(&former).unwrap();
    let login = record.login.clone().unwrap();
    assert_eq!((login.source.as_deref(), login.groups.len()), (Some("s"), 0));
    assert_eq!(login.credential, None);
    assert_eq!(encode_session(&record), former);
}

/// As format 2 has them: the message of number 5.
#[test]
fn a_place_of_a_former_version_does_not_say_when_its_message_expires() {
    let former = [1, 0b10_0001, 200, 1, 5];
    let unknown = Some(Timestamp(0));
    let weight = Weight { qos: QoS::AtLeastOnce, size: 200, expires_at: unknown };
    assert_eq!(weigh_queued(&former), Some(weight));
    assert_eq!(queued_number(&former), Some(NonZeroU64::new(5)));
    assert_eq!(decode_queued(&former).unwrap().expires_at, unknown);
}

#[test]
fn another_version_is_no_record() {
    for mut bytes in all() {
        bytes[0] = 9;
        assert_eq!(decode_as_each(&bytes), [false; 9]);
    }
}

#[test]
fn a_record_that_ends_too_early_is_none() {
    let number = encode_number(u64::MAX);
    assert!((0..number.len()).all(|end| decode_number(&number[..end]).is_none()));
    let session = encode_session(&session());
    assert!((0..session.len()).all(|end| decode_session(&session[..end]).is_none()));
    let queued = encode_queued(&queued(None));
    assert!((0..queued.len()).all(|end| decode_queued(&queued[..end]).is_none()));
    let sent = encode_sent(sent());
    assert!((0..sent.len()).all(|end| decode_sent(&sent[..end]).is_none()));
}

proptest! {
    #[test]
    fn any_bytes_are_a_record_or_none(bytes in vec(any::<u8>(), 0..64)) {
        decode_as_each(&bytes);
    }

    /// With one byte changed, a record decodes or is refused, and a decoded one can be encoded
    /// again.
    #[test]
    fn a_record_with_a_wrong_byte_is_a_record_or_none(
        which in 0_usize..8,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = all().swap_remove(which);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        decode_as_each(&bytes);
        if let Some(entry) = decode_queued(&bytes)
            && let Content::Message(message) = &entry.content
        {
            let message = Arc::clone(message);
            prop_assert!(decode_queued(&encode_queued(&entry.with_message(message))).is_some());
        }
    }
}
