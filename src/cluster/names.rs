//! Plain names and numbers of the cluster: nodes, incarnations, terms, versions, sequences.
//!
//! Knows no protocol. All parts of the cluster use it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Number of lease buckets, led by different NATS servers.
pub const LEASE_BUCKETS: usize = 3;
/// Number of buckets of owner records.
pub const OWNER_BUCKETS: u8 = 16;

/// A bucket of JetStream's key-value store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// One of the [`LEASE_BUCKETS`]; one key for each node.
    Lease(u8),
    /// The record of each node, by its name.
    Members,
    /// Owner records, by the hash of the client identifier; one of the [`OWNER_BUCKETS`].
    Owners(u8),
}

impl fmt::Display for Bucket {
    /// Writes the name after the prefix of the cluster: `{prefix}_lease_0`.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(number) => write!(to, "lease_{number}"),
            Self::Members => to.write_str("members"),
            Self::Owners(number) => write!(to, "owners_{number}"),
        }
    }
}

/// A stream of JetStream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Log {
    /// The Topic Filters of all nodes, one subject for each node.
    Routes,
}

impl fmt::Display for Log {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Routes => to.write_str("routes"),
        }
    }
}

/// The name of a node, as the configuration gives it: 1 to 64 of `A-Z a-z 0-9 - _`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(std::sync::Arc<str>);

impl NodeId {
    /// Maximum bytes of a name.
    pub const BYTES_MAX: usize = 64;

    /// Returns the name if it is valid in a subject of NATS.
    pub fn new(name: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_fit = (1..=Self::BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain);
        is_fit.then(|| Self(name.into()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NodeId {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name).ok_or("a node has a name of 1 to 64 of A-Z a-z 0-9 - _")
    }
}

impl From<NodeId> for String {
    fn from(node: NodeId) -> Self {
        node.as_str().to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.as_str())
    }
}

/// One life of a node. A node that has fenced itself goes on as a new, higher one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

/// Counts the owners of a client identifier. A claim has a higher one than all before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Term(pub u64);

impl Term {
    /// The highest term: 33 bits, so that a version stays below 2^53.
    pub const MAX: Self = Self((1 << 33) - 1);
    /// The bits of a version below the term.
    pub const VERSION_BITS: u32 = 20;

    /// Returns the term of the next claim. A record that was deleted does not restart below, because a
    /// term is at least the seconds since 1970. Returns `None` when there are no more terms.
    #[must_use]
    pub fn next(before: Option<Self>, now_secs: u64) -> Option<Self> {
        let next = before.map_or(0, |before| before.0 + 1).max(now_secs);
        (next <= Self::MAX.0).then_some(Self(next))
    }

    /// Returns the version of the `n`th connection in this term; `None` if the term has no more, so that
    /// the owner must claim again.
    #[must_use]
    pub fn version(self, n: u64) -> Option<u64> {
        (n < NODE_DOWN_VERSION).then_some(self.0 << VERSION_BITS | n)
    }

    /// Returns the version of the end of a connection by the death of its node: above all others of the
    /// term.
    #[must_use]
    pub const fn node_down_version(self) -> u64 {
        self.0 << VERSION_BITS | NODE_DOWN_VERSION
    }
}

const VERSION_BITS: u32 = Term::VERSION_BITS;
const NODE_DOWN_VERSION: u64 = (1 << VERSION_BITS) - 1;

/// The number of a claim within one incarnation: tells whether a record was written by this claim.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ClaimNumber(pub u64);

/// The place of an entry in a log, from 1; 0 is before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Sequence(pub u64);

/// The key of an owner record: a hash of the client identifier, because a subject cannot carry every
/// identifier.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ClientKey(pub u128);

impl ClientKey {
    /// Returns the key of a client identifier: the first 128 bits of its SHA-256.
    #[must_use]
    pub fn of(client_id: &str) -> Self {
        let hash = Sha256::digest(client_id.as_bytes());
        let (first, _) = hash.split_at(16);
        Self(first.iter().fold(0, |key, byte| key << 8 | u128::from(*byte)))
    }

    /// Returns the bucket that has the record.
    #[must_use]
    pub const fn bucket(self) -> Bucket {
        Bucket::Owners((self.0 >> 120) as u8 % OWNER_BUCKETS)
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:032x}", self.0)
    }
}

/// Names a message in the whole cluster, also after it was sent again: the store and the incarnation
/// that sent it first, the shard, and a number that the shard gives in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId {
    /// The source that numbered it.
    pub source: MessageSource,
    /// From 1 on, in the order of the source.
    pub number: u64,
}

/// Where messages get their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageSource {
    /// The random number of a store.
    pub store: u64,
    /// The incarnation in which the message was sent first.
    pub incarnation: Incarnation,
    /// The shard of the publisher.
    pub shard: u16,
}

/// Numbers a request of one part of the cluster, so that its result finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestNumber(pub u64);
