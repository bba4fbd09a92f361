//! Where records are stored: the keyspaces, and the keys in each.
//!
//! Numbers in keys are big-endian, so that keys sort by number. Knows no record.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use crate::{
    history::HistoryPlace,
    journal::{QueuePlace, RecordKey, SessionNumber},
    mqtt::{PacketId, Timestamp},
    owners::Owner,
};

/// A keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Space {
    /// The store's format, and the counters.
    Meta,
    /// Sessions, by session number.
    Sessions,
    /// Wills, by session number.
    Wills,
    /// Subscriptions, by session number and Topic Filter.
    Subscriptions,
    /// Unreleased QoS 2 messages of the client, by session number and Packet Identifier.
    Accepted,
    /// Queued and sent messages, by session number and position. Written once, never updated.
    Queue,
    /// How messages were sent, by session number and position. A record may outlive its message,
    /// see `Change::Release`.
    Sent,
    /// Messages that may be in several queues, by message number.
    Messages,
    /// How many records of `Queue` refer to a message, by message number.
    Counts,
    /// Retained messages, by topic.
    Retained,
    /// Times of successful logins, by user and address.
    Logins,
    /// Records, by namespace and key.
    Records,
    /// The histories of clients, by Client Identifier.
    History,
    /// The order in which they leave: by place and Client Identifier, without values.
    HistoryOrder,
    /// The same order for each owner: by owner, place and Client Identifier, without values.
    OwnerOrder,
    /// The number of connections in the histories of an owner, by owner.
    OwnerCounts,
}

impl Space {
    pub(super) const ALL: [Self; 16] = [
        Self::Meta,
        Self::Sessions,
        Self::Wills,
        Self::Subscriptions,
        Self::Accepted,
        Self::Queue,
        Self::Sent,
        Self::Messages,
        Self::Counts,
        Self::Retained,
        Self::Logins,
        Self::Records,
        Self::History,
        Self::HistoryOrder,
        Self::OwnerOrder,
        Self::OwnerCounts,
    ];

    /// Keyspaces whose keys begin with a session number.
    pub(super) const OF_SESSIONS: [Self; 6] =
        [Self::Sessions, Self::Wills, Self::Subscriptions, Self::Accepted, Self::Queue, Self::Sent];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Sessions => "sessions",
            Self::Wills => "wills",
            Self::Subscriptions => "subscriptions",
            Self::Accepted => "accepted",
            Self::Queue => "queue",
            Self::Sent => "sent",
            Self::Messages => "messages",
            Self::Counts => "counts",
            Self::Retained => "retained",
            Self::Logins => "logins",
            Self::Records => "records",
            Self::History => "history",
            Self::HistoryOrder => "history-order",
            Self::OwnerOrder => "history-owner-order",
            Self::OwnerCounts => "history-owner-counts",
        }
    }
}

/// The keys in [`Space::Meta`].
pub(super) mod meta {
    pub(in crate::store::directory) const FORMAT: &[u8] = b"format";
    pub(in crate::store::directory) const VERSIONS: &[u8] = b"versions";
    pub(in crate::store::directory) const CLOCK: &[u8] = b"clock";
    pub(in crate::store::directory) const SESSION: &[u8] = b"session";
    pub(in crate::store::directory) const MESSAGE: &[u8] = b"message";
    pub(in crate::store::directory) const REVISION: &[u8] = b"revision";
    /// The number of connections in the histories of all clients.
    pub(in crate::store::directory) const CONNECTIONS: &[u8] = b"connections";
}

/// A longer text is replaced by its hash: keys are limited to 65,535 bytes, and long keys make each
/// comparison expensive.
const TEXT_BYTES_MAX: usize = 1_024;
const PLAIN: u8 = 0;
const HASHED: u8 = 1;

pub(super) const fn session(number: SessionNumber) -> [u8; 8] {
    number.0.to_be_bytes()
}

pub(super) fn place(number: SessionNumber, place: QueuePlace) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.0.to_be_bytes());
    key[8..].copy_from_slice(&place.0.to_be_bytes());
    key
}

pub(super) fn accepted(number: SessionNumber, packet_id: PacketId) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&number.0.to_be_bytes());
    key[8..].copy_from_slice(&packet_id.number().to_be_bytes());
    key
}

pub(super) fn subscription(number: SessionNumber, filter: &str) -> Vec<u8> {
    text(&number.0.to_be_bytes(), filter)
}

pub(super) fn retained(topic: &str) -> Vec<u8> {
    text(&[], topic)
}

/// Returns the key of a record: the length of the namespace, the namespace, and the record's key.
/// The records of a namespace thus lie together, in the order of their keys.
pub(super) fn record(name: &RecordKey) -> Vec<u8> {
    let (namespace, key) = (name.namespace(), name.key());
    let mut bytes = Vec::with_capacity(1 + namespace.len() + key.len());
    bytes.push(namespace.len() as u8); // at most 255, see `RecordKey::new`
    bytes.extend_from_slice(namespace.as_bytes());
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

/// Returns the name of a record.
pub(super) fn split_record(bytes: &[u8]) -> Option<RecordKey> {
    let (length, rest) = bytes.split_first()?;
    let (namespace, key) = rest.split_at_checked((*length).into())?;
    RecordKey::new(str::from_utf8(namespace).ok()?, str::from_utf8(key).ok()?)
}

pub(super) fn history(client_id: &str) -> Vec<u8> {
    text(&[], client_id)
}

/// The first byte of a place in the order of histories.
pub(super) const CLOSED: u8 = 0;
pub(super) const OPEN: u8 = 1;

pub(super) const fn kind_of(place: HistoryPlace) -> u8 {
    match place {
        HistoryPlace::Closed(_) => CLOSED,
        HistoryPlace::Open(_) => OPEN,
    }
}

/// Returns the key of the place of the history with this key.
pub(super) fn history_place(place: HistoryPlace, history: &[u8]) -> Vec<u8> {
    let (HistoryPlace::Closed(Timestamp(number)) | HistoryPlace::Open(number)) = place;
    let mut key = Vec::with_capacity(1 + size_of::<u64>() + history.len());
    key.push(kind_of(place));
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(history);
    key
}

/// Returns the place of a history, and its key.
pub(super) fn split_history_place(key: &[u8]) -> Option<(HistoryPlace, Vec<u8>)> {
    let (kind, rest) = key.split_first()?;
    let (number, history) = split(rest)?;
    let place = match *kind {
        CLOSED => HistoryPlace::Closed(Timestamp(number)),
        OPEN => HistoryPlace::Open(number),
        _ => return None,
    };
    Some((place, history.to_vec()))
}

/// The key of an owner of histories: a part of a hash, because a user name may be long.
pub(super) type OwnerKey = [u8; 16];

pub(super) fn owner(owner: &Owner) -> OwnerKey {
    // The first byte keeps users and addresses apart, whatever their bytes are.
    let digest = match owner {
        Owner::User(name) => Sha256::new().chain_update([0]).chain_update(name.as_bytes()),
        Owner::Address(IpAddr::V4(address)) => {
            Sha256::new().chain_update([1]).chain_update(address.octets())
        }
        Owner::Address(IpAddr::V6(address)) => {
            Sha256::new().chain_update([2]).chain_update(address.octets())
        }
    };
    let mut key = OwnerKey::default();
    // Half of the digest: nobody can find a name with the key of another one.
    key.copy_from_slice(&digest.finalize()[..size_of::<OwnerKey>()]);
    key
}

/// Returns the key of the place of a history among those of its owner.
pub(super) fn owner_place(owner: &OwnerKey, place: HistoryPlace, history: &[u8]) -> Vec<u8> {
    [owner, &*history_place(place, history)].concat()
}

/// Returns the owner of a history, its place, and its key.
pub(super) fn split_owner_place(key: &[u8]) -> Option<(OwnerKey, HistoryPlace, Vec<u8>)> {
    let (owner, rest) = key.split_first_chunk()?;
    let (place, history) = split_history_place(rest)?;
    Some((*owner, place, history))
}

pub(super) const fn message(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn text(prefix: &[u8], text: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + 1 + text.len().min(TEXT_BYTES_MAX));
    key.extend_from_slice(prefix);
    if text.len() <= TEXT_BYTES_MAX {
        key.push(PLAIN);
        key.extend_from_slice(text.as_bytes());
    } else {
        key.push(HASHED);
        key.extend_from_slice(&Sha256::digest(text.as_bytes()));
    }
    key
}

/// Returns the number at the beginning of a key, and the rest.
pub(super) fn split(key: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = key.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// Returns session number and position of a key in `Queue` or `Sent`.
pub(super) fn split_place(key: &[u8]) -> Option<(SessionNumber, QueuePlace)> {
    let (session, rest) = split(key)?;
    let (place, []) = split(rest)? else {
        return None;
    };
    Some((SessionNumber(session), QueuePlace(place)))
}

/// Returns the Packet Identifier after the session number.
pub(super) fn packet_id(rest: &[u8]) -> Option<PacketId> {
    PacketId::new(u16::from_be_bytes(rest.try_into().ok()?))
}
