//! Lanes: mail from one life of a node to one life of another, in order and once.
//!
//! Knows neither routes nor sessions. The sender keeps each item of QoS 1 and 2 until the receiver says
//! that it is stored; the receiver takes items in the order of their numbers and drops repetitions. When
//! one of the two lives ends, the lane ends with it, and the sender gets back what was not acknowledged.
//!
//! A lane is bounded in bytes: beyond that, [`Lane::has_room`] says so, and publishers are held or
//! messages dropped, as the option `queue_full` says. The next answer replaces a lost
//! one; a lost batch is sent again.

use std::{collections::VecDeque, mem};

use bytes::Bytes;

pub use super::mail::{LaneAnswer, LaneItem, Mail, MailBatch};
use super::{
    names::{Incarnation, NodeId},
    wire::{self, WireError},
};
use crate::mqtt::{QoS, Timestamp};

/// Time without progress after which items are sent again.
pub const SEND_AGAIN_MILLIS: u64 = 1_000;
/// Bytes of a batch beside its items.
const BATCH_BYTES: usize = 160;
/// Bytes of an item beside topic and content.
const ITEM_BYTES: usize = 80;

/// Numbers one part of a ticket, which a publisher waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartNumber(pub u64);

/// An item on its way.
#[derive(Debug)]
struct Sent {
    item: LaneItem,
    bytes: usize,
    part: Option<PartNumber>,
    /// Whether it has left this node: then the receiver may have it.
    has_left: bool,
}

/// A message that comes back when a lane ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unacknowledged {
    /// The message.
    pub mail: Mail,
    /// The part of a ticket that its publisher waits for.
    pub part: Option<PartNumber>,
    /// Whether the receiver may have it.
    pub has_left: bool,
}

/// The sending end.
#[derive(Debug)]
pub struct Lane {
    me: NodeId,
    incarnation: Incarnation,
    to_incarnation: Incarnation,
    payload_bytes_max: usize,
    bytes_max: usize,
    bytes: usize,
    /// Items that are not acknowledged; the first one has the number `first`.
    items: VecDeque<Sent>,
    first: u64,
    /// The next number to send.
    next: u64,
    again_at: Timestamp,
    stored: Vec<PartNumber>,
    /// The parts of mail that travels in pieces, until the lane ends.
    large: VecDeque<(u64, Mail)>,
}

impl Lane {
    /// Begins a lane from this life to another one.
    pub fn new(
        me: NodeId,
        incarnation: Incarnation,
        to_incarnation: Incarnation,
        payload_bytes_max: usize,
        bytes_max: usize,
    ) -> Self {
        Self {
            me,
            incarnation,
            to_incarnation,
            // Large enough for a batch with one small item, whatever NATS was configured with.
            payload_bytes_max: payload_bytes_max.max(4 * BATCH_BYTES),
            bytes_max,
            bytes: 0,
            items: VecDeque::new(),
            first: 1,
            next: 1,
            again_at: Timestamp::NEVER,
            stored: Vec::new(),
            large: VecDeque::new(),
        }
    }

    /// Returns the life that it leads to.
    pub const fn to_incarnation(&self) -> Incarnation {
        self.to_incarnation
    }

    /// Returns whether the bytes on the way are below their bound.
    pub const fn has_room(&self) -> bool {
        self.bytes < self.bytes_max
    }

    /// Returns whether twice as many bytes are on the way as may be, so that messages are dropped that may be.
    pub const fn is_overfull(&self) -> bool {
        self.bytes / 2 >= self.bytes_max
    }

    /// Returns the number of items that are not acknowledged.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds a message. Its part is done when the receiver has stored it.
    pub fn push_mail(&mut self, mail: Mail, part: Option<PartNumber>) {
        let bytes = ITEM_BYTES + mail.topic.len() + mail.content.len();
        // Most messages fit into one item.
        if bytes + BATCH_BYTES <= self.payload_bytes_max {
            return self.push(LaneItem::Mail(mail), bytes, part);
        }
        // Encoded as a whole, so that the receiver decodes it only when all pieces are there.
        let encoded = wire::encode(&LaneItem::Mail(mail.clone()));
        let piece_bytes = self.payload_bytes_max - BATCH_BYTES - ITEM_BYTES;
        let mut rest = encoded;
        while rest.len() > piece_bytes {
            let bytes = rest.split_to(piece_bytes);
            // Only the last piece has the part of the ticket: before it nothing is stored.
            self.push(LaneItem::Piece { is_last: false, bytes }, piece_bytes + ITEM_BYTES, None);
        }
        let bytes = rest.len() + ITEM_BYTES;
        self.push(LaneItem::Piece { is_last: true, bytes: rest }, bytes, part);
        // The whole message too, because it may have to go to another node.
        self.large.push_back((self.first + self.items.len() as u64 - 1, mail));
    }

    /// Adds the mark that routes are applied, behind all mail that was planned with older ones.
    pub fn push_applied(&mut self, sequence: super::names::Sequence) {
        self.push(LaneItem::Applied(sequence), ITEM_BYTES, None);
    }

    /// Adds the mark of how far this node has written the stream of retained messages.
    pub fn push_retained(&mut self, sequence: super::names::Sequence) {
        self.push(LaneItem::Retained(sequence), ITEM_BYTES, None);
    }

    fn push(&mut self, item: LaneItem, bytes: usize, part: Option<PartNumber>) {
        self.bytes += bytes;
        self.items.push_back(Sent { item, bytes, part, has_left: false });
    }

    /// Returns the next batch, which is then sent at `now`.
    pub fn poll_batch(&mut self, now: Timestamp) -> Option<MailBatch> {
        // Nothing was acknowledged in time, so everything from the first item is sent again.
        if now >= self.again_at {
            self.next = self.first;
        }
        let at = (self.next - self.first) as usize;
        let mut room = self.payload_bytes_max - BATCH_BYTES;
        let mut items = Vec::new();
        for sent in self.items.iter_mut().skip(at) {
            // At least one item, or a large one would never be sent.
            if sent.bytes > room && !items.is_empty() {
                break;
            }
            room = room.saturating_sub(sent.bytes);
            // A QoS 0 message is sent once; its place in the numbers stays.
            let is_at_most_once =
                matches!(&sent.item, LaneItem::Mail(mail) if mail.qos == QoS::AtMostOnce);
            sent.has_left = true;
            items.push(if is_at_most_once {
                mem::replace(&mut sent.item, LaneItem::Skipped)
            } else {
                sent.item.clone()
            });
        }
        if items.is_empty() {
            return None;
        }
        let first = self.next;
        self.next += items.len() as u64;
        self.again_at = now.plus_millis(SEND_AGAIN_MILLIS);
        let (from, from_incarnation) = (self.me.clone(), self.incarnation);
        let to_incarnation = self.to_incarnation;
        Some(MailBatch { from, from_incarnation, to_incarnation, first, items })
    }

    /// Handles an answer of the receiver. One of another life is ignored.
    pub fn handle_answer(&mut self, answer: &LaneAnswer, now: Timestamp) {
        // The answer may belong to a lane between earlier lives.
        let is_ours = answer.from_incarnation == self.to_incarnation
            && answer.to_incarnation == self.incarnation;
        if !is_ours {
            return;
        }
        let progresses = answer.stored >= self.first;
        // Numbers that were never sent cannot be acknowledged, whatever the answer says.
        while self.first <= answer.stored && self.first < self.next {
            let Some(sent) = self.items.pop_front() else { break };
            self.bytes -= sent.bytes;
            self.stored.extend(sent.part);
            self.first += 1;
        }
        while self.large.front().is_some_and(|(number, _)| *number < self.first) {
            self.large.pop_front();
        }
        // Progress shows that the lane works, so the repetition is put off.
        if progresses {
            self.again_at = now.plus_millis(SEND_AGAIN_MILLIS);
        }
        if self.items.is_empty() {
            self.again_at = Timestamp::NEVER;
        } else if answer.received + 1 < self.next
            && answer.received + 1 >= self.first
            && !progresses
        {
            // The receiver has a gap: what it lacks is sent again sooner.
            self.again_at = self.again_at.min(now.plus_millis(SEND_AGAIN_MILLIS / 10));
        }
    }

    /// Returns the next part that is done.
    pub fn poll_stored(&mut self) -> Option<PartNumber> {
        self.stored.pop()
    }

    /// Ends the lane, because one of the lives has ended: returns what was not acknowledged, in order.
    pub fn end(self) -> Vec<Unacknowledged> {
        // Pieces of a message go back as this message.
        let mut large: std::collections::HashMap<u64, Mail> = self.large.into_iter().collect();
        let numbered = (self.first..).zip(self.items);
        let mails = numbered.filter_map(|(number, sent)| {
            let Sent { item, part, has_left, .. } = sent;
            match item {
                // The sender must know whether the receiver may have it: QoS 2 asks before it goes elsewhere.
                LaneItem::Mail(mail) => Some(Unacknowledged { mail, part, has_left }),
                LaneItem::Piece { is_last: true, .. } => {
                    let mail = large.remove(&number)?;
                    Some(Unacknowledged { mail, part, has_left })
                }
                LaneItem::Piece { .. }
                | LaneItem::Applied(_)
                | LaneItem::Skipped
                | LaneItem::Retained(_) => None,
            }
        });
        mails.collect()
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Inlet {
    me: NodeId,
    incarnation: Incarnation,
    from_incarnation: Incarnation,
    received: u64,
    stored: u64,
    pieces: Vec<u8>,
    item_bytes_max: usize,
    has_answer: bool,
}

impl Inlet {
    /// Begins the receiving end of a lane from a life of another node. What is larger than
    /// `item_bytes_max` in pieces is refused.
    pub const fn new(
        me: NodeId,
        incarnation: Incarnation,
        from_incarnation: Incarnation,
        item_bytes_max: usize,
    ) -> Self {
        Self {
            me,
            incarnation,
            from_incarnation,
            received: 0,
            stored: 0,
            pieces: Vec::new(),
            item_bytes_max,
            has_answer: false,
        }
    }

    /// Returns the life of the sender.
    pub const fn from_incarnation(&self) -> Incarnation {
        self.from_incarnation
    }

    /// Handles a batch; returns its new items with their numbers, in order. Of a batch behind a gap
    /// nothing is taken: the sender sends again.
    ///
    /// # Errors
    /// A [`WireError`] for invalid pieces: the lane cannot go on, and the driver ends it.
    pub fn handle_batch(&mut self, batch: MailBatch) -> Result<Vec<(u64, LaneItem)>, WireError> {
        // A batch for an earlier life would be counted in the numbers of this one.
        let is_ours = batch.to_incarnation == self.incarnation
            && batch.from_incarnation == self.from_incarnation;
        if !is_ours {
            return Ok(Vec::new());
        }
        // Also for a repetition: its sender has missed the answer.
        self.has_answer = true;
        // Items behind a gap are sent again anyway, and keeping them would need memory.
        if batch.first > self.received + 1 {
            return Ok(Vec::new());
        }
        let mut taken = Vec::new();
        for (number, item) in (batch.first..).zip(batch.items) {
            // A repeated batch overlaps with what is known.
            if number <= self.received {
                continue;
            }
            self.received = number;
            match item {
                LaneItem::Piece { is_last, bytes } => {
                    taken.extend(self.add_piece(is_last, &bytes)?.map(|item| (number, item)));
                }
                LaneItem::Skipped => {}
                LaneItem::Mail(_) | LaneItem::Applied(_) | LaneItem::Retained(_) => {
                    taken.push((number, item));
                }
            }
        }
        Ok(taken)
    }

    fn add_piece(&mut self, is_last: bool, bytes: &Bytes) -> Result<Option<LaneItem>, WireError> {
        if self.pieces.len() + bytes.len() > self.item_bytes_max {
            self.pieces = Vec::new();
            return Err(WireError::TooLarge);
        }
        self.pieces.extend_from_slice(bytes);
        if !is_last {
            return Ok(None);
        }
        wire::decode(&mem::take(&mut self.pieces)).map(Some)
    }

    /// Notes that everything up to a number is stored, or needs no storing.
    pub fn handle_stored(&mut self, up_to: u64) {
        if up_to > self.stored && up_to <= self.received {
            self.stored = up_to;
            self.has_answer = true;
        }
    }

    /// Returns the number up to which everything has arrived.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Returns the answer that is due.
    pub fn poll_answer(&mut self) -> Option<LaneAnswer> {
        mem::take(&mut self.has_answer).then(|| LaneAnswer {
            from: self.me.clone(),
            from_incarnation: self.incarnation,
            to_incarnation: self.from_incarnation,
            received: self.received,
            stored: self.stored,
        })
    }
}

#[cfg(test)]
mod tests;
