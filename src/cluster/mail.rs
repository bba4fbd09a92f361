//! The traffic between nodes on a lane: mail, marks of applied routes, and pieces of large messages.
//!
//! Knows no protocol: `lanes.rs` sends and receives it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    names::{Incarnation, MessageId, NodeId, Sequence},
    wire::{Wire, octets, qos_number},
};
use crate::mqtt::QoS;

/// A message on its way to the sessions of another node, which plans for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// Its name in the whole cluster.
    pub id: MessageId,
    /// The QoS of the publisher.
    #[serde(with = "qos_number")]
    pub qos: QoS,
    /// Whether there is no other copy: it was planned for one node, and never was in a queue that was handed
    /// over.
    pub is_alone: bool,
    /// The Topic Name.
    pub topic: Box<str>,
    /// The shard's encoding of the rest: properties, publisher, payload.
    #[serde(with = "octets")]
    pub content: Bytes,
}

impl Wire for Mail {
    const KIND: u8 = 4;
}

/// One place of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaneItem {
    /// A message.
    Mail(Mail),
    /// The sender has applied the log of routes up to here: mail that it planned with older routes comes
    /// before this item.
    Applied(Sequence),
    /// Part of the encoding of an item that is too large for one batch.
    Piece {
        /// Whether it is the last part.
        is_last: bool,
        /// The bytes.
        #[serde(with = "octets")]
        bytes: Bytes,
    },
    /// A message that is not sent again: QoS 0.
    Skipped,
    /// The sender has written the stream of retained messages up to here: mail that it planned before has no
    /// higher sequence.
    Retained(Sequence),
}

impl Wire for LaneItem {
    const KIND: u8 = 5;
}

/// Items with consecutive numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailBatch {
    /// The sender.
    pub from: NodeId,
    /// Its incarnation.
    pub from_incarnation: Incarnation,
    /// The life that it is for: another one refuses it.
    pub to_incarnation: Incarnation,
    /// The number of the first item, from 1 on.
    pub first: u64,
    /// The items.
    pub items: Vec<LaneItem>,
}

impl Wire for MailBatch {
    const KIND: u8 = 6;
}

/// The answer to batches of one lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneAnswer {
    /// The receiver of the batches.
    pub from: NodeId,
    /// Its life.
    pub from_incarnation: Incarnation,
    /// The life of the sender.
    pub to_incarnation: Incarnation,
    /// All items up to this number have arrived.
    pub received: u64,
    /// All items up to this number are stored, or delivered where nothing has to be stored.
    pub stored: u64,
}

impl Wire for LaneAnswer {
    const KIND: u8 = 7;
}
