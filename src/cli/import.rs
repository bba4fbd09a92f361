//! Builds a store from the output of [`export`](super::export): line by line, in groups of changes.
//!
//! Knows the lines of an export and the changes that a store takes.

use std::{io::BufRead, num::NonZeroU64, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearthmq::{
    journal::{
        CertificateRecord, Change, LoginKey, LoginKind, LoginRecord, QueuePlace, QueuedMessage,
        SentAs, SessionNumber, SessionRecord, SubscriptionRecord, WillRecord,
    },
    mqtt::{Message, PacketId, Publication, QoS, RetainHandling, SubscriptionOptions, Timestamp},
    owners::Owner,
    store::{Durability, Store},
};
use serde::Deserialize;

use super::Failure;

/// Number of changes after which a group is written.
const GROUP_CHANGES: usize = 4_096;
/// Number of bytes of lines after which a group is written.
const GROUP_BYTES: usize = 8 << 20;

/// A line of an export.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Bounds(BoundsLine),
    Session(Box<SessionLine>),
    Queued(Box<QueuedLine>),
    Retained(RetainedLine),
    Login(LoginLine),
}

#[derive(Deserialize)]
struct BoundsLine {
    presence_version: u64,
    session: u64,
    message: u64,
    clock: u64,
}

#[derive(Deserialize)]
struct SessionLine {
    session: u64,
    client_id: Box<str>,
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
}

#[derive(Deserialize)]
struct SubscriptionLine {
    filter: Box<str>,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    retain_handling: u8,
    identifier: Option<u32>,
}

#[derive(Deserialize)]
struct WillLine {
    message: MessageLine,
    delay_secs: u32,
    expiry_secs: Option<u32>,
    due_at: Option<u64>,
}

#[derive(Deserialize)]
struct QueuedLine {
    session: u64,
    place: u64,
    packet_id: Option<u16>,
    order: Option<u64>,
    qos: Option<u8>,
    retain: Option<bool>,
    identifiers: Option<Vec<u32>>,
    share: Option<Box<str>>,
    message: Option<MessageLine>,
}

#[derive(Deserialize)]
struct RetainedLine {
    message: MessageLine,
    owner: Option<OwnerLine>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum OwnerLine {
    User(Box<str>),
    Address(std::net::IpAddr),
}

#[derive(Deserialize)]
struct LoginLine {
    key: String,
    at: u64,
}

#[derive(Deserialize)]
struct MessageLine {
    number: Option<NonZeroU64>,
    topic: String,
    qos: u8,
    retain: bool,
    properties: String,
    expires_at: Option<u64>,
    payload: String,
}

/// Why an export cannot be imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    #[error("{path} already contains a store; name an empty directory, or move that store away")]
    NotEmpty { path: String },
    #[error("cannot read {path}: {source}; name a file written by `hearthmq store export`")]
    Input { path: String, source: std::io::Error },
    #[error("line {line} is not a valid line of an export: {problem}")]
    Line { line: u64, problem: String },
    #[error("the export is empty; nothing was imported")]
    Empty,
}

/// Applies all lines of `input` to an empty `store`; returns their number.
pub(super) fn import(store: &dyn Store, input: &mut dyn BufRead) -> Result<u64, Failure> {
    let mut group = Vec::new();
    let mut group_bytes = 0;
    let mut text = String::new();
    let mut count = 0;
    loop {
        text.clear();
        let fault = |problem: String| ImportError::Line { line: count + 1, problem };
        if input.read_line(&mut text).map_err(|error| fault(error.to_string()))? == 0 {
            break;
        }
        let line: Line = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
        if let Line::Bounds(bounds) = &line {
            take_numbers(store, bounds)?;
        } else {
            add(line, &mut group).map_err(|problem| fault(problem.to_owned()))?;
        }
        count += 1;
        group_bytes += text.len();
        if group.len() >= GROUP_CHANGES || group_bytes >= GROUP_BYTES {
            store.apply(&group, Durability::Written)?;
            group.clear();
            group_bytes = 0;
        }
    }
    if count == 0 {
        return Err(ImportError::Empty.into());
    }
    store.apply(&group, Durability::Synced)?;
    store.sync()?;
    Ok(count)
}

/// Reserves the numbers that the exported store has already assigned: stores a record under the
/// last number of each kind and removes it again, which leaves nothing else behind.
fn take_numbers(store: &dyn Store, bounds: &BoundsLine) -> Result<(), Failure> {
    let BoundsLine { presence_version, session, message, clock } = *bounds;
    let mut group =
        vec![Change::ReserveVersions(presence_version), Change::Clock(Timestamp(clock))];
    let mut taken_out = Vec::new();
    if session > 0 {
        let record = SessionRecord {
            client_id: "".into(),
            username: None,
            expiry_interval_secs: 0,
            ends_at: None,
            is_connected: false,
            doubtful_up_to: QueuePlace(0),
            peer: "".into(),
            connected_at: Timestamp(0),
            login: None,
        };
        group.push(Change::PutSession(SessionNumber(session), Box::new(record)));
        taken_out.push(Change::EndSession(SessionNumber(session)));
    }
    if let Some(number) = NonZeroU64::new(message) {
        let topic = "number";
        let publication = Publication {
            topic,
            payload: b"",
            qos: QoS::AtMostOnce,
            retain: true,
            properties: &[],
            expires_at: None,
        };
        let message = Arc::new(Message::new(&publication).numbered(number));
        group.push(Change::Retain(message, None));
        taken_out.push(Change::ClearRetained(topic.into()));
    }
    store.apply(&group, Durability::Written)?;
    Ok(store.apply(&taken_out, Durability::Written)?)
}

/// Adds the changes that store the contents of a line.
fn add(line: Line, group: &mut Vec<Change>) -> Result<(), &'static str> {
    match line {
        Line::Bounds(_) => Ok(()), // handled by `take_numbers`
        Line::Session(session) => add_session(*session, group),
        Line::Queued(queued) => add_queued(*queued, group),
        Line::Retained(RetainedLine { message, owner }) => {
            let owner = owner.map(|owner| match owner {
                OwnerLine::User(name) => Owner::User(name.into()),
                OwnerLine::Address(address) => Owner::Address(address),
            });
            group.push(Change::Retain(message.read()?, owner));
            Ok(())
        }
        Line::Login(LoginLine { key, at }) => {
            let key = STANDARD.decode(key).ok().and_then(|key| LoginKey::try_from(key).ok());
            let key = key.ok_or("key is not 32 bytes in base64")?;
            group.push(Change::NoteLogin(key, Timestamp(at)));
            Ok(())
        }
    }
}

fn add_session(session: SessionLine, group: &mut Vec<Change>) -> Result<(), &'static str> {
    let number = SessionNumber(session.session);
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
    for subscription in session.subscriptions {
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
        let record = SubscriptionRecord { options, identifier: subscription.identifier };
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
        group.push(Change::Release(number, place));
        return Ok(());
    };
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
            _ => return Err("common_name and serial_number belong together"),
        };
        Ok(LoginRecord {
            kind: LoginKind::of_name(&self.kind).ok_or("kind of a login is not known")?,
            method: self.method.map(Into::into),
            listener: self.listener.into(),
            certificate,
            needs_account: self.needs_account,
        })
    }
}

impl MessageLine {
    fn read(&self) -> Result<Arc<Message>, &'static str> {
        let decode =
            |text: &str| STANDARD.decode(text).map_err(|_| "payload or properties are not base64");
        let (payload, properties) = (decode(&self.payload)?, decode(&self.properties)?);
        let message = Message::new(&Publication {
            topic: &self.topic,
            payload: &payload,
            qos: qos(self.qos)?,
            retain: self.retain,
            properties: &properties,
            expires_at: self.expires_at.map(Timestamp),
        });
        Ok(Arc::new(match self.number {
            Some(number) => message.numbered(number),
            None => message,
        }))
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
