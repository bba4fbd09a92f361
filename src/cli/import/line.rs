//! The lines of an export: what each must contain, and the changes that store it.
//!
//! Knows one line at a time.

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroU64,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearthmq::{
    mqtt::{
        Message, PacketId, Publication, PublishProperties, QoS, RetainHandling,
        SubscriptionOptions, Timestamp, validate_filter, validate_topic,
    },
    store::{
        CertificateRecord, Change, LoginKey, LoginKind, LoginRecord, Owner, QueuePlace,
        QueuedMessage, Record, RecordKey, Revision, SentAs, SessionNumber, SessionRecord,
        SubscriptionRecord, WillRecord,
    },
};
use serde::Deserialize;

use super::{history::HistoryLine, is_string};

/// The largest Subscription Identifier, and the largest Remaining Length of a packet.
const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// A line of an export.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum ExportLine {
    Bounds(BoundsLine),
    Session(Box<SessionLine>),
    Queued(Box<QueuedLine>),
    Retained(RetainedLine),
    Login(LoginLine),
    Record(RecordLine),
    History(HistoryLine),
    End(EndLine),
}

#[derive(Deserialize)]
pub(super) struct BoundsLine {
    pub(super) presence_version: u64,
    pub(super) session: u64,
    pub(super) message: u64,
    pub(super) clock: u64,
    /// Earlier versions had no records.
    #[serde(default)]
    pub(super) revision: u64,
}

#[derive(Deserialize)]
pub(super) struct SessionLine {
    pub(super) session: u64,
    pub(super) client_id: Box<str>,
    /// The former session of the client, which was about to end.
    pub(super) replaces: Option<u64>,
    username: Option<Box<str>>,
    expiry_interval_secs: u32,
    ends_at: Option<u64>,
    is_connected: bool,
    doubtful_up_to: u64,
    peer: Box<str>,
    connected_at: u64,
    login: Option<LoginOfSession>,
    subscriptions: Vec<SubscriptionLine>,
    accepted: Vec<u16>,
    will: Option<WillLine>,
}

/// How the client of a session logged in; an earlier version has not written it.
#[derive(Deserialize)]
struct LoginOfSession {
    kind: Box<str>,
    method: Option<Box<str>>,
    listener: Box<str>,
    common_name: Option<Box<str>>,
    serial_number: Option<Box<str>>,
    needs_account: bool,
    // Missing in lines of an earlier version.
    source: Option<Box<str>>,
    #[serde(default)]
    attributes: BTreeMap<Box<str>, Box<str>>,
    #[serde(default)]
    groups: Vec<Box<str>>,
    credential: Option<u64>,
    rules: Option<Box<str>>,
    rules_expire_at: Option<u64>,
}

#[derive(Deserialize)]
struct SubscriptionLine {
    filter: Box<str>,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    retain_handling: u8,
    identifier: Option<u32>,
    /// An earlier version has not written it.
    #[serde(default)]
    is_withdrawn: bool,
}

#[derive(Deserialize)]
struct WillLine {
    message: MessageLine,
    delay_secs: u32,
    expiry_secs: Option<u32>,
    due_at: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct QueuedLine {
    pub(super) session: u64,
    pub(super) place: u64,
    pub(super) packet_id: Option<u16>,
    order: Option<u64>,
    qos: Option<u8>,
    retain: Option<bool>,
    identifiers: Option<Vec<u32>>,
    share: Option<Box<str>>,
    message: Option<MessageLine>,
}

#[derive(Deserialize)]
pub(super) struct RetainedLine {
    pub(super) message: MessageLine,
    owner: Option<OwnerLine>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OwnerLine {
    User(Box<str>),
    Address(std::net::IpAddr),
}

#[derive(Deserialize)]
pub(super) struct LoginLine {
    key: String,
    at: u64,
}

#[derive(Deserialize)]
pub(super) struct RecordLine {
    pub(super) namespace: String,
    pub(super) key: String,
    revision: u64,
    expires_at: Option<u64>,
    value: String,
}

/// The last line.
#[derive(Deserialize)]
pub(super) struct EndLine {
    /// The number of lines before it.
    pub(super) lines: u64,
}

#[derive(Deserialize)]
pub(super) struct MessageLine {
    number: Option<NonZeroU64>,
    pub(super) topic: String,
    qos: u8,
    retain: bool,
    properties: String,
    expires_at: Option<u64>,
    /// Earlier versions did not note it.
    received_at: Option<u64>,
    payload: String,
}

/// Adds the changes that store the contents of a line.
pub(super) fn add(line: ExportLine, group: &mut Vec<Change>) -> Result<(), &'static str> {
    match line {
        // The import uses the numbers of the first and stores nothing of it; the second has no content.
        ExportLine::Bounds(_) | ExportLine::End(_) => Ok(()),
        ExportLine::Session(session) => add_session(*session, group),
        ExportLine::Queued(queued) => add_queued(*queued, group),
        ExportLine::Retained(RetainedLine { message, owner }) => {
            let owner = owner.map(|owner| match owner {
                OwnerLine::User(name) => Owner::User(name.into()),
                OwnerLine::Address(address) => Owner::Address(address),
            });
            group.push(Change::Retain(message.read()?, owner));
            Ok(())
        }
        ExportLine::Login(LoginLine { key, at }) => {
            let key = STANDARD.decode(key).ok().and_then(|key| LoginKey::try_from(key).ok());
            let key = key.ok_or("key is not 32 bytes in base64")?;
            group.push(Change::NoteLogin(key, Timestamp(at)));
            Ok(())
        }
        ExportLine::Record(record) => {
            group.push(record.read()?);
            Ok(())
        }
        ExportLine::History(history) => {
            group.push(history.read()?);
            Ok(())
        }
    }
}

fn add_session(session: SessionLine, group: &mut Vec<Change>) -> Result<(), &'static str> {
    let number = SessionNumber(session.session);
    // The session of the broker itself, which has this number, has no client.
    if session.client_id.is_empty() != (number.0 == 0) || !is_string(&session.client_id) {
        return Err("client_id is not valid");
    }
    if !session.username.as_deref().is_none_or(is_string) {
        return Err("username is not valid");
    }
    let record = SessionRecord {
        client_id: session.client_id.into(),
        username: session.username.map(Into::into),
        expiry_interval_secs: session.expiry_interval_secs,
        ends_at: session.ends_at.map(Timestamp),
        is_connected: session.is_connected,
        doubtful_up_to: QueuePlace(session.doubtful_up_to),
        peer: session.peer,
        connected_at: Timestamp(session.connected_at),
        login: session.login.map(LoginOfSession::read).transpose()?,
    };
    group.push(Change::PutSession(number, Box::new(record)));
    // A store would keep only the last of two.
    let filters: HashSet<&str> = session.subscriptions.iter().map(|it| &*it.filter).collect();
    if filters.len() < session.subscriptions.len() {
        return Err("a filter is there twice");
    }
    // The same checks as for a SUBSCRIBE: the broker trusts what its store has.
    for subscription in session.subscriptions {
        validate_filter(&subscription.filter).map_err(|_| "filter is not a valid Topic Filter")?;
        identifiers(subscription.identifier.as_slice())?;
        let options = SubscriptionOptions {
            qos: qos(subscription.qos)?,
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            retain_handling: match subscription.retain_handling {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err("retain_handling is 0, 1 or 2"),
            },
        };
        let SubscriptionLine { identifier, is_withdrawn, .. } = subscription;
        let record = SubscriptionRecord { options, identifier, is_withdrawn };
        group.push(Change::Subscribe(number, subscription.filter, record));
    }
    for id in session.accepted {
        group.push(Change::Accept(number, packet_id(id)?));
    }
    if let Some(will) = session.will {
        let record = WillRecord {
            message: will.message.read()?,
            delay_secs: will.delay_secs,
            expiry_secs: will.expiry_secs,
            due_at: will.due_at.map(Timestamp),
        };
        group.push(Change::PutWill(number, Box::new(record)));
    }
    Ok(())
}

fn add_queued(queued: QueuedLine, group: &mut Vec<Change>) -> Result<(), &'static str> {
    let (number, place) = (SessionNumber(queued.session), QueuePlace(queued.place));
    let sent = match (queued.packet_id, queued.order) {
        (Some(id), Some(order)) => Some(SentAs { packet_id: packet_id(id)?, order }),
        (None, None) => None,
        _ => return Err("packet_id and order belong together"),
    };
    let Some(message) = queued.message else {
        // PUBREC has arrived for this place, and its message is no longer stored.
        let sent = sent.ok_or("a place without a message has a packet_id")?;
        let publication = Publication {
            topic: "released",
            payload: b"",
            qos: QoS::ExactlyOnce,
            retain: false,
            properties: &[],
            expires_at: None,
        };
        let message = QueuedMessage {
            message: Arc::new(Message::new(&publication)),
            qos: QoS::ExactlyOnce,
            retain: false,
            identifiers: None,
            share: None,
        };
        group.push(Change::Enqueue(number, place, message, Some(sent)));
        // The store has no change for a released place alone, so it is queued and then released.
        group.push(Change::Release(number, place));
        return Ok(());
    };
    // Those of the broker's own session are something else.
    identifiers(queued.identifiers.as_deref().filter(|_| number.0 > 0).unwrap_or_default())?;
    let is_shared = |share: &str| validate_filter(share).is_ok_and(|it| it.share_name.is_some());
    if !queued.share.as_deref().is_none_or(is_shared) {
        return Err("share is not the Topic Filter of a shared subscription");
    }
    let message = QueuedMessage {
        message: message.read()?,
        qos: qos(queued.qos.ok_or("qos is missing")?)?,
        retain: queued.retain.ok_or("retain is missing")?,
        identifiers: queued.identifiers.map(Into::into),
        share: queued.share.map(Into::into),
    };
    group.push(Change::Enqueue(number, place, message, sent));
    Ok(())
}

impl LoginOfSession {
    fn read(self) -> Result<LoginRecord, &'static str> {
        let certificate = match (self.common_name, self.serial_number) {
            (Some(common_name), Some(serial_number)) => {
                Some(CertificateRecord { common_name, serial_number })
            }
            (None, None) => None,
            // A certificate is stored with both, so the line was changed or damaged.
            _ => return Err("common_name and serial_number belong together"),
        };
        Ok(LoginRecord {
            kind: LoginKind::of_name(&self.kind).ok_or("kind of a login is not known")?,
            method: self.method.map(Into::into),
            listener: self.listener.into(),
            certificate,
            needs_account: self.needs_account,
            source: self.source.map(Into::into),
            attributes: self.attributes.into_iter().collect(),
            groups: self.groups.into(),
            credential: self.credential,
            rules: self.rules,
            rules_expire_at: self.rules_expire_at.map(Timestamp),
        })
    }
}

impl RecordLine {
    fn read(self) -> Result<Change, &'static str> {
        let name = RecordKey::new(&self.namespace, &self.key);
        let name = name.ok_or("namespace is empty, or namespace or key is too long")?;
        let value = STANDARD.decode(self.value).map_err(|_| "value is not base64")?.into();
        let (revision, expires_at) = (Revision(self.revision), self.expires_at.map(Timestamp));
        Ok(Change::PutRecord(Box::new(name), Box::new(Record { revision, value, expires_at })))
    }
}

impl MessageLine {
    fn read(&self) -> Result<Arc<Message>, &'static str> {
        let decode =
            |text: &str| STANDARD.decode(text).map_err(|_| "payload or properties are not base64");
        let (payload, properties) = (decode(&self.payload)?, decode(&self.properties)?);
        validate_topic(&self.topic).map_err(|_| "topic is not a valid Topic Name")?;
        // They are copied into PUBLISH packets without another check.
        if !are_forwarded(&properties) {
            return Err("properties are not those of a PUBLISH");
        }
        let bytes = payload.len() + properties.len() + self.topic.len();
        // The broker trusts its store, and such a message could never be encoded.
        if bytes > VARIABLE_BYTE_INTEGER_MAX as usize {
            return Err("no packet can have a message of this size");
        }
        let message = Message::new(&Publication {
            topic: &self.topic,
            payload: &payload,
            qos: qos(self.qos)?,
            retain: self.retain,
            properties: &properties,
            expires_at: self.expires_at.map(Timestamp),
        });
        let message = message.received(Timestamp(self.received_at.unwrap_or_default()));
        Ok(Arc::new(match self.number {
            Some(number) => message.numbered(number),
            None => message,
        }))
    }
}

/// Returns whether these are properties that a message may have in the store.
fn are_forwarded(encoded: &[u8]) -> bool {
    let found = PublishProperties::decode_forwarded(encoded);
    let is_invalid = found == PublishProperties::default();
    encoded.is_empty()
        || !is_invalid
            && found.message_expiry_interval.is_none()
            && found.topic_alias.is_none()
            && found.subscription_identifiers.is_empty()
}

fn identifiers(numbers: &[u32]) -> Result<(), &'static str> {
    let is_valid = |number: &u32| (1..=VARIABLE_BYTE_INTEGER_MAX).contains(number);
    match numbers.iter().all(is_valid) {
        true => Ok(()),
        false => Err("a Subscription Identifier is 1 to 268435455"),
    }
}

fn qos(number: u8) -> Result<QoS, &'static str> {
    match number {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        2 => Ok(QoS::ExactlyOnce),
        _ => Err("qos is 0, 1 or 2"),
    }
}

fn packet_id(number: u16) -> Result<PacketId, &'static str> {
    PacketId::new(number).ok_or("a packet identifier is not 0")
}
