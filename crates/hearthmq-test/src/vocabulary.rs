//! Short functions for changes, and all contents of a store as one value to compare.

use std::{num::NonZeroU64, sync::Arc};

use hearthmq::{
    mqtt::{Message, PacketId, Publication, QoS, RetainHandling, SubscriptionOptions, Timestamp},
    store::{
        CertificateRecord, Change, ClientHistory, ConnectionEnd, ConnectionNotes, ConnectionRecord,
        Durability, HistoryShare, LoginKey, LoginKind, LoginRecord, PageBounds, QueuePlace,
        QueuedMessage, Record, RecordKey, Revision, SentAs, SessionNumber, SessionRecord, Store,
        StoredInFlight, StoredSession, SubscriptionRecord, WillRecord,
    },
};

pub const ALL: PageBounds = PageBounds { messages_max: usize::MAX, bytes_max: usize::MAX };

/// All contents of a store, except the numbers to continue from.
#[derive(Debug, PartialEq)]
pub struct Contents {
    pub sessions: Vec<StoredSession>,
    pub waiting: Vec<Vec<(QueuePlace, QueuedMessage)>>,
    pub in_flight: Vec<Vec<StoredInFlight>>,
    pub retained: Vec<Arc<Message>>,
    pub logins: Vec<(LoginKey, Timestamp)>,
    pub records: Vec<(RecordKey, Record)>,
    pub histories: Vec<ClientHistory>,
}

pub fn contents(store: &dyn Store) -> Contents {
    let sessions = sessions(store);
    let numbers = || sessions.iter().map(|session| session.number);
    let waiting = numbers().map(|number| store.waiting(number, QueuePlace(0), ALL).unwrap());
    let (waiting, in_flight) =
        (waiting.collect(), numbers().map(|number| store.in_flight(number).unwrap()).collect());
    let (retained, logins, records) = (retained(store), logins(store), records(store));
    let histories = histories(store);
    Contents { waiting, in_flight, retained, logins, records, histories, sessions }
}

/// Returns all histories, in the order of the Client Identifiers.
pub fn histories(store: &dyn Store) -> Vec<ClientHistory> {
    let mut histories = Vec::new();
    store.histories(&mut |history| histories.push(history)).unwrap();
    histories.sort_by(|a, b| a.client_id.cmp(&b.client_id));
    histories
}

/// Returns a connection that ended at this time, if any, with something in each field.
pub fn connection(version: u64, ended_at: Option<u64>) -> ConnectionRecord {
    let address: std::net::IpAddr = match version % 2 {
        0 => [192, 0, 2, 7].into(),
        _ => "2001:db8::7".parse().unwrap(),
    };
    let end = |at| ConnectionEnd {
        at: Timestamp(at),
        reason: "kicked".into(),
        by: version.is_multiple_of(2).then(|| "ops".into()),
    };
    ConnectionRecord {
        version,
        connected_at: Timestamp(version),
        peer: (address, 4_711).into(),
        listener: if version.is_multiple_of(3) { "tls://[::]:8883" } else { "mqtt://[::]:1883" }
            .into(),
        username: (!version.is_multiple_of(2)).then(|| "ü".into()),
        protocol: 4,
        end: ended_at.map(end),
    }
}

/// Notes a connection, of which its client's history keeps this many.
pub fn note_connection(client_id: &str, record: ConnectionRecord, kept: u16) -> Change {
    note_within(HistoryShare::UNLIMITED, client_id, record, kept)
}

/// Notes a connection, whose owner has this share.
pub fn note_within(
    share: HistoryShare,
    client_id: &str,
    record: ConnectionRecord,
    kept: u16,
) -> Change {
    let notes = vec![(client_id.into(), record)];
    Change::NoteConnections(Box::new(ConnectionNotes { notes, kept, share }))
}

/// Returns all sessions, with unordered parts sorted.
pub fn sessions(store: &dyn Store) -> Vec<StoredSession> {
    let mut sessions = Vec::new();
    store.sessions(&mut |session| sessions.push(session)).unwrap();
    sessions.sort_by_key(|session| session.number);
    for session in &mut sessions {
        session.subscriptions.sort_by(|a, b| a.0.cmp(&b.0));
        session.accepted.sort();
    }
    sessions
}

pub fn retained(store: &dyn Store) -> Vec<Arc<Message>> {
    let mut messages = Vec::new();
    store.retained(&mut |found| messages.push(found.message)).unwrap();
    messages.sort_by(|a, b| a.topic().cmp(b.topic()));
    messages
}

pub fn logins(store: &dyn Store) -> Vec<(LoginKey, Timestamp)> {
    let mut logins = Vec::new();
    store.logins(&mut |key, at| logins.push((key, at))).unwrap();
    logins.sort_unstable();
    logins
}

pub fn records(store: &dyn Store) -> Vec<(RecordKey, Record)> {
    let mut records = Vec::new();
    store.records(&mut |name, record| records.push((name, record))).unwrap();
    records
}

pub fn name(namespace: &str, key: &str) -> RecordKey {
    RecordKey::new(namespace, key).unwrap()
}

pub fn put_record(namespace: &str, key: &str, revision: u64, value: &[u8]) -> Change {
    let expires_at = revision.is_multiple_of(2).then_some(Timestamp(revision));
    let value = value.to_vec().into();
    let record = Record { revision: Revision(revision), value, expires_at };
    Change::PutRecord(Box::new(name(namespace, key)), Box::new(record))
}

pub fn remove_record(namespace: &str, key: &str, revision: u64) -> Change {
    Change::RemoveRecord(Box::new(name(namespace, key)), Revision(revision))
}

pub fn apply(store: &dyn Store, changes: &[Change]) {
    store.apply(changes, Durability::Synced).unwrap();
}

pub fn message(topic: &str, payload: &[u8]) -> Message {
    Message::new(&Publication {
        topic,
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: &[],
        expires_at: None,
    })
}

pub fn numbered(number: u64, payload: &[u8]) -> Arc<Message> {
    Arc::new(message("a/b", payload).numbered(NonZeroU64::new(number).unwrap()))
}

pub fn queued(message: &Arc<Message>) -> QueuedMessage {
    QueuedMessage {
        message: Arc::clone(message),
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: None,
        share: None,
    }
}

pub fn packet_id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

pub fn sent(packet: u16, order: u64) -> SentAs {
    SentAs { packet_id: packet_id(packet), order }
}

pub fn record(client_id: &str) -> SessionRecord {
    SessionRecord {
        client_id: client_id.into(),
        username: None,
        expiry_interval_secs: 60,
        ends_at: None,
        is_connected: true,
        doubtful_up_to: QueuePlace(0),
        peer: "192.0.2.1:1883".into(),
        connected_at: Timestamp(1_000),
        login: Some(login(LoginKind::Password)),
    }
}

pub fn login(kind: LoginKind) -> LoginRecord {
    let certificate =
        CertificateRecord { common_name: "device-1".into(), serial_number: "0a1b".into() };
    LoginRecord {
        kind,
        method: (kind == LoginKind::Scram).then(|| "SCRAM-SHA-256".into()),
        listener: "mqtts://[::]:8883".into(),
        certificate: (kind == LoginKind::Certificate).then_some(certificate),
        needs_account: kind == LoginKind::Certificate,
        source: (kind != LoginKind::Anonymous).then(|| "accounts".into()),
        attributes: match kind {
            LoginKind::Other => [("plan".into(), "gold".into())].into(),
            _ => [].into(),
        },
        groups: match kind {
            LoginKind::Other => ["cars".into()].into(),
            _ => [].into(),
        },
        credential: (kind == LoginKind::Password).then_some(7),
        rules: (kind == LoginKind::Other).then(|| r#"[{"effect":"allow"}]"#.into()),
        rules_expire_at: None,
    }
}

pub fn put(session: u64) -> Change {
    let record = record(&format!("client {session}"));
    Change::PutSession(SessionNumber(session), Box::new(record))
}

pub fn end(session: u64) -> Change {
    Change::EndSession(SessionNumber(session))
}

pub fn subscription(qos: QoS) -> SubscriptionRecord {
    let options = SubscriptionOptions {
        qos,
        no_local: true,
        retain_as_published: false,
        retain_handling: RetainHandling::SendIfNew,
    };
    SubscriptionRecord { options, identifier: Some(268_435_455), is_withdrawn: false }
}

pub fn subscribe(session: u64, filter: &str) -> Change {
    Change::Subscribe(SessionNumber(session), filter.into(), subscription(QoS::ExactlyOnce))
}

/// Marks a subscription whose messages are still to be dropped.
pub fn withdraw(session: u64, filter: &str) -> Change {
    let record = SubscriptionRecord { is_withdrawn: true, ..subscription(QoS::ExactlyOnce) };
    Change::Subscribe(SessionNumber(session), filter.into(), record)
}

pub fn unsubscribe(session: u64, filter: &str) -> Change {
    Change::Unsubscribe(SessionNumber(session), filter.into())
}

pub fn enqueue(session: u64, place: u64, message: &Arc<Message>) -> Change {
    Change::Enqueue(SessionNumber(session), QueuePlace(place), queued(message), None)
}

pub fn enqueue_sent(session: u64, place: u64, message: &Arc<Message>, as_: SentAs) -> Change {
    Change::Enqueue(SessionNumber(session), QueuePlace(place), queued(message), Some(as_))
}

pub fn send(session: u64, place: u64, as_: SentAs) -> Change {
    Change::Send(SessionNumber(session), QueuePlace(place), as_)
}

pub fn release(session: u64, place: u64) -> Change {
    Change::Release(SessionNumber(session), QueuePlace(place))
}

pub fn dequeue(session: u64, place: u64) -> Change {
    Change::Dequeue(SessionNumber(session), QueuePlace(place))
}

pub fn accept(session: u64, packet: u16) -> Change {
    Change::Accept(SessionNumber(session), packet_id(packet))
}

pub fn forget(session: u64, packet: u16) -> Change {
    Change::Forget(SessionNumber(session), packet_id(packet))
}

pub fn will(topic: &str) -> WillRecord {
    WillRecord {
        message: Arc::new(message(topic, b"gone")),
        delay_secs: 5,
        expiry_secs: Some(7),
        due_at: Some(Timestamp(99)),
    }
}

pub fn put_will(session: u64, topic: &str) -> Change {
    Change::PutWill(SessionNumber(session), Box::new(will(topic)))
}

pub fn retain(topic: &str, payload: &[u8]) -> Change {
    Change::Retain(Arc::new(message(topic, payload)), None)
}
