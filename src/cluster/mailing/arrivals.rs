//! Mail that arrives from other nodes, until the shards have stored it.
//!
//! A batch is divided among the shards. The sender gets its answer when all shards have stored their parts of this
//! batch and of all before it. A message that a former lane has brought already is dropped by its name. Knows no
//! shards and no NATS.

use std::collections::{BTreeMap, VecDeque};

use crate::cluster::{
    lanes::{Inlet, LaneAnswer, LaneItem, Mail, MailBatch},
    names::{Incarnation, MessageSource, NodeId, Sequence},
    wire::WireError,
};

/// Maximum bytes of a message in pieces: those of the largest MQTT packet, and the fields around it.
const ITEM_BYTES_MAX: usize = 269_000_000;
/// Lives of a sender whose messages are remembered. A message waits for a lane over few of them.
const LIVES_REMEMBERED: u64 = 16;

/// The content of a batch.
pub(super) struct TakenBatch {
    /// Its number, for [`Arrivals::handle_stored`].
    pub(super) number: u64,
    pub(super) mails: Vec<Mail>,
    /// The position in the log of routes that the sender has applied.
    pub(super) applied: Option<Sequence>,
    /// The position in the stream of retained messages that the sender has written.
    pub(super) retained: Option<Sequence>,
}

/// A batch that was divided among shards.
#[derive(Debug)]
struct OpenBatch {
    number: u64,
    /// The last item of the lane that it has; 0 if the lane has ended since.
    last: u64,
    /// The number of shards that have not stored their parts.
    left: usize,
}

#[derive(Debug)]
struct LaneArrival {
    inlet: Inlet,
    open: VecDeque<OpenBatch>,
    /// The last message of each source.
    seen: BTreeMap<MessageSource, u64>,
}

/// The receiving ends of the lanes to this life.
#[derive(Debug)]
pub(super) struct Arrivals {
    me: NodeId,
    incarnation: Incarnation,
    from: BTreeMap<NodeId, LaneArrival>,
    next_number: u64,
}

impl Arrivals {
    pub(super) const fn new(me: NodeId) -> Self {
        Self { me, incarnation: Incarnation(0), from: BTreeMap::new(), next_number: 0 }
    }

    /// Begins a life. Lanes to the life before have ended; what they brought is remembered.
    pub(super) fn begin_life(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
        for arrival in self.from.values_mut() {
            let from = arrival.inlet.from_incarnation();
            arrival.renew(&self.me, incarnation, from);
        }
    }

    /// Takes in a batch. `None` if it is of another life than the sender's present one, or brings nothing new.
    ///
    /// # Errors
    /// A [`WireError`] for invalid pieces: what they were is lost.
    pub(super) fn handle_batch(
        &mut self,
        batch: MailBatch,
    ) -> Result<Option<TakenBatch>, WireError> {
        let (from, life) = (batch.from.clone(), batch.from_incarnation);
        if batch.to_incarnation != self.incarnation {
            return Ok(None);
        }
        let (me, mine) = (&self.me, self.incarnation);
        let arrival = self.from.entry(from).or_insert_with(|| LaneArrival {
            inlet: Inlet::new(me.clone(), mine, life, ITEM_BYTES_MAX),
            open: VecDeque::new(),
            seen: BTreeMap::new(),
        });
        if arrival.inlet.from_incarnation() > life {
            return Ok(None);
        }
        if arrival.inlet.from_incarnation() < life {
            arrival.renew(me, mine, life);
        }
        let before = arrival.inlet.received();
        let items = arrival.inlet.handle_batch(batch);
        if arrival.inlet.received() == before {
            return items.map(|_| None);
        }
        let number = self.next_number;
        self.next_number += 1;
        let last = arrival.inlet.received();
        // Not stored before it is divided, which may be later. A batch with damaged pieces has nothing to store.
        let left = if items.is_ok() { usize::MAX } else { 0 };
        arrival.open.push_back(OpenBatch { number, last, left });
        let mut taken = TakenBatch { number, mails: Vec::new(), applied: None, retained: None };
        for (_, item) in items? {
            match item {
                LaneItem::Mail(mail) => {
                    let seen = arrival.seen.entry(mail.id.source).or_default();
                    if mail.id.number > *seen {
                        *seen = mail.id.number;
                        taken.mails.push(mail);
                    }
                }
                LaneItem::Applied(sequence) => taken.applied = Some(sequence),
                LaneItem::Retained(sequence) => taken.retained = Some(sequence),
                LaneItem::Piece { .. } | LaneItem::Skipped => {}
            }
        }
        Ok(Some(taken))
    }

    /// Notes among how many shards a batch is divided. Each of them reports by [`Arrivals::handle_stored`].
    pub(super) fn divide(&mut self, from: &NodeId, number: u64, shards: usize) {
        let Some(arrival) = self.from.get_mut(from) else { return };
        if let Some(open) = arrival.open.iter_mut().find(|open| open.number == number) {
            open.left = shards;
        }
        arrival.settle();
    }

    /// Notes that one shard has stored its part of a batch.
    pub(super) fn handle_stored(&mut self, from: &NodeId, number: u64) {
        let Some(arrival) = self.from.get_mut(from) else { return };
        if let Some(open) = arrival.open.iter_mut().find(|open| open.number == number) {
            open.left = open.left.saturating_sub(1);
        }
        arrival.settle();
    }

    /// Returns the next answer, with its receiver.
    pub(super) fn poll_answer(&mut self) -> Option<(NodeId, LaneAnswer)> {
        self.from.iter_mut().find_map(|(node, arrival)| {
            let answer = arrival.inlet.poll_answer()?;
            Some((node.clone(), answer))
        })
    }
}

impl LaneArrival {
    /// Begins a new lane. Messages of the former one that are not stored yet come first.
    fn renew(&mut self, me: &NodeId, mine: Incarnation, from: Incarnation) {
        self.inlet = Inlet::new(me.clone(), mine, from, ITEM_BYTES_MAX);
        for open in &mut self.open {
            open.last = 0;
        }
        let first = from.0.saturating_sub(LIVES_REMEMBERED);
        self.seen.retain(|source, _| source.incarnation.0 >= first);
    }

    fn settle(&mut self) {
        while let Some(stored) = self.open.pop_front_if(|open| open.left == 0) {
            self.inlet.handle_stored(stored.last);
        }
    }
}

#[cfg(test)]
mod tests;
