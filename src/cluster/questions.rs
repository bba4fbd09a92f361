//! The questions that nodes ask each other beside their lanes, and the answers.
//!
//! Knows no protocol: each body belongs to the part that it names.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    attempts::CopyAttempt,
    forwards::ForwardReply,
    lanes::Mail,
    names::{ClientKey, Incarnation, MessageId, NodeId, Term},
    owner_record::{ReleaseReply, ReleaseRequest},
    wire::{Wire, octets},
    withdrawals::RouteReply,
};

/// A question of one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeQuestion {
    /// The node that asks.
    pub from: NodeId,
    /// Its incarnation: a question of an earlier one than the known one is refused.
    pub incarnation: Incarnation,
    /// The question.
    pub body: QuestionBody,
}

impl Wire for NodeQuestion {
    const KIND: u8 = 10;
}

/// The kinds of questions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuestionBody {
    /// A claim: release the session.
    Release(ReleaseRequest),
    /// The claim is confirmed.
    Confirmed(ReleaseRequest),
    /// Take a message for a session.
    Mail {
        /// The client of the session.
        key: ClientKey,
        /// The message.
        mail: Mail,
        /// The number of the attempt.
        attempt: CopyAttempt,
        /// The term of the record by which the sender asked the nodes that are owed.
        term: Term,
    },
    /// Whether the node had a message, or took this copy. If not, it refuses the attempts so far.
    Past {
        /// The client of the session.
        key: ClientKey,
        /// The message.
        id: MessageId,
        /// The number of the question among the attempts.
        attempt: CopyAttempt,
    },
    /// Keep a message for a session of a dead node.
    Shadow {
        /// The dead node.
        dead: NodeId,
        /// The client of the session.
        key: ClientKey,
        /// The message.
        mail: Mail,
        /// The number of the attempt.
        attempt: CopyAttempt,
    },
    /// The session was claimed: the keeper forwards its messages for it.
    TakeShadows {
        /// The dead node.
        dead: NodeId,
        /// The client of the session.
        key: ClientKey,
    },
    /// The place in the log of the routes of a session that the node has.
    RoutesOf(ClientKey),
    /// The old routes of a session that the node has are withdrawn, and all its mail is forwarded.
    Drained(ClientKey),
    /// A part of a session that was too large for one answer to [`QuestionBody::Release`].
    SessionPart {
        /// The claim.
        request: ReleaseRequest,
        /// The first byte.
        from: u64,
    },
    /// A part of a page of messages that the former holder has taken for a session.
    Rest(RestPart),
}

/// A part of a page of messages that the former holder of a session has taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestPart {
    /// The claim by which the session has left.
    pub request: ReleaseRequest,
    /// The number of the page.
    pub page: u64,
    /// The first byte of the part.
    pub from_byte: u64,
    /// The bytes of the whole page.
    pub bytes_in_all: u64,
    /// The bytes of the part.
    #[serde(with = "octets")]
    pub bytes: Bytes,
    /// Whether there are no more pages: this one is empty.
    pub is_last: bool,
}

/// The answer to a [`RestPart`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestReply {
    /// The page is stored.
    Kept,
    /// The part is here, and the next one is wanted.
    More,
    /// The session is not here.
    NotHere,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuestionReply {
    /// To [`QuestionBody::Release`].
    Release(ReleaseReply),
    /// The answer to mail, to a message for a keeper, and to a question about an earlier attempt.
    Forward(ForwardReply),
    /// To [`QuestionBody::RoutesOf`].
    Routes(RouteReply),
    /// To the others.
    Done,
    /// To [`QuestionBody::SessionPart`], and to [`QuestionBody::Release`] if the session is too large for one answer.
    SessionPart {
        /// The bytes of the whole session.
        bytes_in_all: u64,
        /// The bytes of this part.
        #[serde(with = "octets")]
        part: Bytes,
    },
    /// To [`QuestionBody::Rest`].
    Rest(RestReply),
}

impl Wire for QuestionReply {
    const KIND: u8 = 11;
}
