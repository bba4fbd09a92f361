//! The record with the owner of a client identifier, and the messages of nodes about it.
//!
//! Knows no protocol: `claims.rs` and `custody.rs` write and read it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    names::{ClaimNumber, ClientKey, Incarnation, NodeId, Term},
    wire::{Wire, octets},
};

/// How far a claim has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// The node asks the previous holder for the session. Until it has it, the previous holder takes the
    /// mail.
    Taking,
    /// The node has the session.
    Holding,
}

/// The owner of a client identifier. There is a record for each identifier that is online or has a
/// session that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// The identifier, of which the key is only a hash.
    pub client_id: Box<str>,
    /// The node that owns it.
    pub node: NodeId,
    /// The life of the node that wrote it.
    pub incarnation: Incarnation,
    /// Counts the owners.
    pub term: Term,
    /// How far the claim has come.
    pub hold: Hold,
    /// The last confirmed holder, while the node is taking. A node that never confirmed is never here.
    pub previous: Option<NodeId>,
    /// The other nodes that still have a part of the session, each once.
    pub owed: Vec<NodeId>,
    /// The node that wrote it: a claim that is undone names another one as the owner.
    pub writer: NodeId,
    /// Tells this write from all others of its writer in this life.
    pub claim: ClaimNumber,
}

impl Wire for OwnerRecord {
    const KIND: u8 = 3;
}

impl OwnerRecord {
    /// Returns the last node that confirmed that it has the session, and so takes its mail.
    pub fn holder(&self) -> Option<&NodeId> {
        match self.hold {
            Hold::Taking => self.previous.as_ref(),
            Hold::Holding => Some(&self.node),
        }
    }

    /// Returns whether both are of one write.
    pub(super) fn is_same_write(&self, other: &Self) -> bool {
        (&self.writer, self.incarnation, self.claim)
            == (&other.writer, other.incarnation, other.claim)
    }

    pub(super) fn owes(&self, node: &NodeId) -> bool {
        self.owed.contains(node)
    }
}

/// The answer to `release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReleaseReply {
    /// The session, as far as it travels now.
    Session {
        /// The shard's encoding of the session and its first messages.
        #[serde(with = "octets")]
        copy: Bytes,
        /// More messages follow: the holder is owed until it has forwarded them.
        has_rest: bool,
    },
    /// The node has no session of this client.
    Nothing,
    /// A claim of a higher or the same term was answered already.
    Old,
    /// The node is in the middle of a claim or a hand-over of its own: ask again.
    Later,
}

/// The request of a claimant to the previous holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// The client.
    pub key: ClientKey,
    /// The term of the claim.
    pub term: Term,
}

/// Numbers a CONNECT that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectNumber(pub u64);

/// Numbers a question of another node that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskNumber(pub u64);

/// The fate of an older copy that this node has, when its claim is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OlderCopy {
    /// It is part of the session: messages that are not in the session that was handed over are added behind it.
    Whole,
    /// Only the mail behind the offer counts: another node has the rest.
    BehindOffer,
}

/// Why a CONNECT is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectRefusal {
    /// Too many claims wait: Server unavailable, before anything is written.
    Busy,
    /// The previous holder, or NATS, does not answer: Server unavailable.
    Unavailable,
    /// A later CONNECT of the same client has won.
    TakenOver,
}
