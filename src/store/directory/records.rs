//! The encoding of each record: a version, flags, and the fields that exist, in few bytes.
//!
//! Reading is total: any bytes give a record or `None`; the caller reports where the bytes were.
//! Knows no keys, no files and no relations between records.

mod session;

use std::{num::NonZeroU64, sync::Arc};

pub(super) use self::session::{decode_session, encode_session};
use super::bytes::{Flags, RecordReader, RecordWriter};
use crate::{
    journal::{QueuedMessage, SentAs, SubscriptionRecord, WillRecord},
    mqtt::{Message, Publication, QoS, RetainHandling, SubscriptionOptions, Timestamp},
    owners::Owner,
    store::{StoredRetained, Weight},
};

/// The version of every kind of record. A changed kind gets its own version.
const VERSION: u8 = 1;

const QOS: u8 = 0b11;
const RETAIN: u8 = 1 << 2;

/// Returns a reader after the version, if the version is known.
fn begin(bytes: &[u8]) -> Option<RecordReader<'_>> {
    let mut reader = RecordReader::new(bytes);
    (reader.byte()? == VERSION).then_some(reader)
}

fn writer(capacity: usize) -> RecordWriter {
    let mut writer = RecordWriter::with_capacity(capacity);
    writer.byte(VERSION);
    writer
}

/// Encodes a number of [`super::keys::Space::Meta`].
pub(super) fn encode_number(number: u64) -> Vec<u8> {
    let mut writer = writer(10);
    writer.number(number);
    writer.into_bytes()
}

pub(super) fn decode_number(bytes: &[u8]) -> Option<u64> {
    let mut reader = begin(bytes)?;
    let number = reader.number()?;
    reader.end(number)
}

const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
const SEND_IF_NEW: u8 = 1 << 4;
const DO_NOT_SEND: u8 = 1 << 5;
const IDENTIFIER: u8 = 1 << 6;
const WITHDRAWN: u8 = 1 << 7;

pub(super) fn encode_subscription(filter: &str, record: &SubscriptionRecord) -> Vec<u8> {
    let SubscriptionRecord { options, identifier, is_withdrawn } = record;
    let mut writer = writer(7 + filter.len());
    let flags = Flags::of_qos(options.qos)
        .with(NO_LOCAL, options.no_local)
        .with(RETAIN_AS_PUBLISHED, options.retain_as_published)
        .with(SEND_IF_NEW, options.retain_handling == RetainHandling::SendIfNew)
        .with(DO_NOT_SEND, options.retain_handling == RetainHandling::DoNotSend)
        .with(IDENTIFIER, identifier.is_some())
        .with(WITHDRAWN, *is_withdrawn);
    writer.byte(flags.0);
    if let Some(identifier) = identifier {
        writer.number((*identifier).into());
    }
    // The filter is last, so it needs no length.
    writer.rest(filter.as_bytes());
    writer.into_bytes()
}

pub(super) fn decode_subscription(bytes: &[u8]) -> Option<(Box<str>, SubscriptionRecord)> {
    let mut reader = begin(bytes)?;
    let flags = Flags(reader.byte()?);
    let retain_handling = match (flags.has(SEND_IF_NEW), flags.has(DO_NOT_SEND)) {
        (false, false) => RetainHandling::Send,
        (true, false) => RetainHandling::SendIfNew,
        (false, true) => RetainHandling::DoNotSend,
        // Both flags together mean nothing, so the record is damaged.
        (true, true) => return None,
    };
    let options = SubscriptionOptions {
        qos: flags.qos()?,
        no_local: flags.has(NO_LOCAL),
        retain_as_published: flags.has(RETAIN_AS_PUBLISHED),
        retain_handling,
    };
    let identifier = if flags.has(IDENTIFIER) { Some(reader.number_u32()?) } else { None };
    let filter = std::str::from_utf8(reader.rest()).ok()?;
    let is_withdrawn = flags.has(WITHDRAWN);
    Some((filter.into(), SubscriptionRecord { options, identifier, is_withdrawn }))
}

const DUE_AT: u8 = 1 << 0;
const WILL_EXPIRY: u8 = 1 << 1;

pub(super) fn encode_will(will: &WillRecord) -> Vec<u8> {
    let WillRecord { message, delay_secs, expiry_secs, due_at } = will;
    let mut writer = writer(48 + message.size());
    writer.byte(Flags(0).with(DUE_AT, due_at.is_some()).with(WILL_EXPIRY, expiry_secs.is_some()).0);
    writer.number((*delay_secs).into());
    if let Some(secs) = expiry_secs {
        writer.number((*secs).into());
    }
    if let Some(at) = due_at {
        writer.time(*at);
    }
    put_message(&mut writer, message);
    writer.into_bytes()
}

pub(super) fn decode_will(bytes: &[u8]) -> Option<WillRecord> {
    let mut reader = begin(bytes)?;
    let flags = Flags(reader.byte()?).known(DUE_AT | WILL_EXPIRY)?;
    let delay_secs = reader.number_u32()?;
    let expiry_secs = if flags.has(WILL_EXPIRY) { Some(reader.number_u32()?) } else { None };
    let due_at = if flags.has(DUE_AT) { Some(reader.time()?) } else { None };
    let message = Arc::new(take_message(&mut reader)?);
    Some(WillRecord { message, delay_secs, expiry_secs, due_at })
}

pub(super) fn encode_message(message: &Message) -> Vec<u8> {
    let mut writer = writer(32 + message.size());
    put_message(&mut writer, message);
    writer.into_bytes()
}

pub(super) fn decode_message(bytes: &[u8]) -> Option<Message> {
    take_message(&mut begin(bytes)?)
}

/// The version of a retained message with an owner. Without one, [`VERSION`] is used as before.
const VERSION_OWNED: u8 = 2;

const OWNER_USER: u8 = 0;
const OWNER_ADDRESS: u8 = 1;

pub(super) fn encode_retained(message: &Message, owner: Option<&Owner>) -> Vec<u8> {
    // Messages without an owner keep the former encoding.
    let Some(owner) = owner else { return encode_message(message) };
    let mut writer = RecordWriter::with_capacity(48 + message.size());
    writer.byte(VERSION_OWNED);
    match owner {
        Owner::User(name) => {
            writer.byte(OWNER_USER);
            writer.binary(name.as_bytes());
        }
        Owner::Address(address) => {
            writer.byte(OWNER_ADDRESS);
            writer.binary(address.to_string().as_bytes());
        }
    }
    put_message(&mut writer, message);
    writer.into_bytes()
}

pub(super) fn decode_retained(bytes: &[u8]) -> Option<StoredRetained> {
    let mut reader = RecordReader::new(bytes);
    let owner = match reader.byte()? {
        VERSION => None,
        VERSION_OWNED => Some(match (reader.byte()?, reader.text()?) {
            (OWNER_USER, name) => Owner::User(name.into()),
            (OWNER_ADDRESS, address) => Owner::Address(address.parse().ok()?),
            _ => return None,
        }),
        _ => return None,
    };
    Some(StoredRetained { message: Arc::new(take_message(&mut reader)?), owner })
}

const EXPIRES_AT: u8 = 1 << 3;
const NUMBERED: u8 = 1 << 4;
const RECEIVED_AT: u8 = 1 << 5;

/// Appends a message, which must be the last field: its payload has no length.
fn put_message(writer: &mut RecordWriter, message: &Message) {
    let publication = message.publication();
    let Publication { topic, payload, qos, retain, properties, expires_at } = publication;
    // The flags come first, because they tell a reader which fields follow.
    let flags = Flags::of_qos(qos)
        .with(RETAIN, retain)
        .with(EXPIRES_AT, expires_at.is_some())
        .with(NUMBERED, message.number().is_some())
        .with(RECEIVED_AT, message.received_at().is_some());
    writer.byte(flags.0);
    if let Some(at) = expires_at {
        writer.time(at);
    }
    if let Some(number) = message.number() {
        writer.number(number.get());
    }
    if let Some(at) = message.received_at() {
        writer.time(at);
    }
    writer.binary(topic.as_bytes());
    writer.binary(properties);
    writer.rest(payload);
}

fn take_message(reader: &mut RecordReader<'_>) -> Option<Message> {
    let flags = Flags(reader.byte()?);
    // A flag of a later format makes the record unreadable rather than misread.
    let flags = flags.known(QOS | RETAIN | EXPIRES_AT | NUMBERED | RECEIVED_AT)?;
    let expires_at = if flags.has(EXPIRES_AT) { Some(reader.time()?) } else { None };
    let number = if flags.has(NUMBERED) { Some(NonZeroU64::new(reader.number()?)?) } else { None };
    // An older program stored no time; 0 stands for an unknown one.
    let received_at = if flags.has(RECEIVED_AT) { reader.time()? } else { Timestamp(0) };
    let topic = reader.text()?;
    let properties = reader.binary()?;
    u32::try_from(properties.len()).ok()?;
    let message = Message::new(&Publication {
        topic,
        payload: reader.rest(),
        qos: flags.qos()?,
        retain: flags.has(RETAIN),
        properties,
        expires_at,
    })
    .received(received_at);
    Some(match number {
        Some(number) => message.numbered(number),
        None => message,
    })
}

const IDENTIFIERS: u8 = 1 << 3;
const SHARE: u8 = 1 << 4;
const BY_NUMBER: u8 = 1 << 5;
const EXPIRES: u8 = 1 << 6;

/// Of a place in a queue that says when its message expires.
const VERSION_WITH_EXPIRY: u8 = 2;

/// A queue record: how to send a message, and the message or its number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueEntry {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) identifiers: Option<Arc<[u32]>>,
    pub(super) share: Option<Arc<str>>,
    /// [`Message::size`], so that a queue can be counted without its messages.
    pub(super) size: usize,
    /// The same for when it expires, or a time before that.
    pub(super) expires_at: Option<Timestamp>,
    pub(super) content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Number(NonZeroU64),
    Message(Arc<Message>),
}

impl QueueEntry {
    pub(super) fn with_message(self, message: Arc<Message>) -> QueuedMessage {
        let Self { qos, retain, identifiers, share, .. } = self;
        QueuedMessage { message, qos, retain, identifiers, share }
    }
}

pub(super) fn encode_queued(queued: &QueuedMessage) -> Vec<u8> {
    let QueuedMessage { message, qos, retain, identifiers, share } = queued;
    let number = message.number();
    let expires_at = message.publication().expires_at;
    // Large enough for the usual record, so that it is encoded in one allocation.
    let capacity = if number.is_some() { 34 } else { 58 + message.size() };
    let mut writer = RecordWriter::with_capacity(capacity);
    writer.byte(VERSION_WITH_EXPIRY);
    let flags = Flags::of_qos(*qos)
        .with(RETAIN, *retain)
        .with(IDENTIFIERS, identifiers.is_some())
        .with(SHARE, share.is_some())
        .with(BY_NUMBER, number.is_some())
        .with(EXPIRES, expires_at.is_some());
    writer.byte(flags.0);
    // The size is in the record, so a queue is weighed without reading its messages.
    writer.number(message.size() as u64);
    if let Some(at) = expires_at {
        writer.time(at);
    }
    if let Some(identifiers) = identifiers {
        writer.number(identifiers.len() as u64);
        identifiers.iter().for_each(|identifier| writer.number((*identifier).into()));
    }
    if let Some(share) = share {
        writer.binary(share.as_bytes());
    }
    match number {
        Some(number) => writer.number(number.get()),
        None => put_message(&mut writer, message),
    }
    writer.into_bytes()
}

/// Reads the size and the expiry of a queue record, without its message.
pub(super) fn weigh_queued(bytes: &[u8]) -> Option<Weight> {
    let QueuedHead { flags, size, expires_at } = queued_head(&mut RecordReader::new(bytes))?;
    Some(Weight { qos: flags.qos()?, size, expires_at })
}

pub(super) fn decode_queued(bytes: &[u8]) -> Option<QueueEntry> {
    let mut reader = RecordReader::new(bytes);
    let QueuedHead { flags, size, expires_at } = queued_head(&mut reader)?;
    let identifiers =
        if flags.has(IDENTIFIERS) { Some(take_identifiers(&mut reader)?) } else { None };
    let share = if flags.has(SHARE) { Some(reader.text()?.into()) } else { None };
    let content = if flags.has(BY_NUMBER) {
        Content::Number(NonZeroU64::new(reader.number()?)?)
    } else {
        let message = take_message(&mut reader)?;
        // A size that differs from the content would let the counts of the queue drift.
        if message.size() != size {
            return None;
        }
        Content::Message(Arc::new(message))
    };
    let (qos, retain) = (flags.qos()?, flags.has(RETAIN));
    reader.end(QueueEntry { qos, retain, identifiers, share, size, expires_at, content })
}

/// Returns the number of the message that a queue record refers to.
pub(super) fn queued_number(bytes: &[u8]) -> Option<Option<NonZeroU64>> {
    if !queued_head(&mut RecordReader::new(bytes))?.flags.has(BY_NUMBER) {
        return Some(None);
    }
    decode_queued(bytes).map(|entry| match entry.content {
        Content::Number(number) => Some(number),
        Content::Message(_) => None,
    })
}

/// The beginning of a record in a queue.
struct QueuedHead {
    flags: Flags,
    size: usize,
    expires_at: Option<Timestamp>,
}

fn queued_head(reader: &mut RecordReader<'_>) -> Option<QueuedHead> {
    let says_expiry = match reader.byte()? {
        VERSION => false,
        VERSION_WITH_EXPIRY => true,
        _ => return None,
    };
    let known = QOS | RETAIN | IDENTIFIERS | SHARE | BY_NUMBER;
    // A flag of a later format makes the record unreadable rather than misread.
    let flags = Flags(reader.byte()?).known(if says_expiry { known | EXPIRES } else { known })?;
    let size = reader.length()?;
    let expires_at = match (says_expiry, flags.has(EXPIRES)) {
        (true, true) => Some(reader.time()?),
        (true, false) => None,
        // It may, and may have.
        (false, _) => Some(Timestamp(0)),
    };
    Some(QueuedHead { flags, size, expires_at })
}

fn take_identifiers(reader: &mut RecordReader<'_>) -> Option<Arc<[u32]>> {
    let count = reader.length()?;
    // Collected one by one, because a corrupt count must not allocate memory.
    (0..count).map(|_| reader.number_u32()).collect::<Option<Vec<_>>>().map(Into::into)
}

/// How a message was sent, and whether PUBREC has acknowledged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SentRecord {
    pub(super) sent: SentAs,
    pub(super) is_released: bool,
}

pub(super) fn encode_sent(record: SentRecord) -> Vec<u8> {
    let SentRecord { sent: SentAs { packet_id, order }, is_released } = record;
    let mut writer = writer(13);
    writer.byte(is_released.into());
    writer.packet_id(packet_id);
    writer.number(order);
    writer.into_bytes()
}

pub(super) fn decode_sent(bytes: &[u8]) -> Option<SentRecord> {
    let mut reader = begin(bytes)?;
    let is_released = Flags(reader.byte()?).known(1)?.has(1);
    let sent = SentAs { packet_id: reader.packet_id()?, order: reader.number()? };
    reader.end(SentRecord { sent, is_released })
}

#[cfg(test)]
mod tests;
