//! Mail of other nodes, until the shards have it.
//!
//! A message that its node has planned with a later place of the log of routes than this node has applied waits, with
//! all behind it: a session that moves must know the place of its hand-over before. What waits is bounded by the
//! lanes of the senders.

use std::collections::{BTreeMap, VecDeque};

use tracing::{error, warn};

use super::{MailDriver, NatsTraffic};
use crate::{
    between::{
        door::ToShard,
        nodes::{ArrivedMail, MailHere, RoutesPlace},
    },
    cluster::{
        lanes::{LaneAnswer, MailBatch},
        mailing::{MailOrder, arrivals::TakenBatch, content, peers::PeerStanding},
        names::{Incarnation, NodeId, Sequence},
        node::now,
        wire::{self, Wire as _},
    },
    router::ShardNumber,
};

/// A batch of another node, by the shards of its messages and the places with which they were planned.
struct ReadBatch {
    number: u64,
    from: NodeId,
    life: Incarnation,
    applied: Option<Sequence>,
    divided: BTreeMap<(u16, RoutesPlace), Vec<MailHere>>,
    last_place: RoutesPlace,
}

/// Batches that wait, for each sender in their order.
#[derive(Default)]
pub(super) struct BatchesAhead(BTreeMap<NodeId, VecDeque<ReadBatch>>);

impl MailDriver {
    pub(super) fn take_bytes(&mut self, bytes: &[u8], traffic: &mut NatsTraffic) {
        if wire::kind(bytes) == Some(LaneAnswer::KIND) {
            match wire::decode::<LaneAnswer>(bytes) {
                Ok(answer) => self.peers.handle_answer(&answer, now()),
                Err(fault) => warn!(reason = %fault, "an answer of another node is unreadable"),
            }
            return;
        }
        let length = bytes.len() as u64;
        let batch = match wire::decode::<MailBatch>(bytes) {
            Ok(batch) => batch,
            Err(fault) => {
                warn!(reason = %fault, "mail of another node is unreadable");
                return;
            }
        };
        let (from, life) = (batch.from.clone(), batch.from_incarnation);
        // A later life, or the verdict, makes an earlier life void.
        match self.peers.of(&from).standing {
            PeerStanding::Serving(known) if known > life => return,
            PeerStanding::Dead => return,
            PeerStanding::Serving(_) | PeerStanding::Joining => {}
        }
        match traffic.arrivals.handle_batch(batch) {
            Ok(None) => {}
            Ok(Some(taken)) => {
                let counts = &mut self.peers.of(&from).counts;
                counts.bytes_received += length;
                counts.messages_received += taken.mails.len() as u64;
                if let Some(sequence) = taken.retained {
                    self.host.retained.note_seen(sequence);
                }
                let read = self.read_batch(from, life, taken);
                let waiting = traffic.ahead.0.get(&read.from);
                let is_ahead = read.last_place.0 > self.filters.applied().0;
                if is_ahead || waiting.is_some_and(|waiting| !waiting.is_empty()) {
                    traffic.ahead.0.entry(read.from.clone()).or_default().push_back(read);
                } else {
                    self.divide(read, traffic);
                }
            }
            Err(fault) => error!(node = %from, reason = %fault, "mail in pieces is lost"),
        }
    }

    /// Takes in the batches whose places are applied now.
    pub(super) fn take_waiting(&mut self, traffic: &mut NatsTraffic) {
        let applied = self.filters.applied().0;
        let mut due = Vec::new();
        for waiting in traffic.ahead.0.values_mut() {
            let is_due = |read: &mut ReadBatch| read.last_place.0 <= applied;
            while let Some(read) = waiting.pop_front_if(is_due) {
                due.push(read);
            }
        }
        for read in due {
            self.divide(read, traffic);
        }
    }

    /// Reads the messages of a batch. All messages of one publisher go to the shard of its Client Identifier, in their
    /// order.
    fn read_batch(&mut self, from: NodeId, life: Incarnation, taken: TakenBatch) -> ReadBatch {
        let TakenBatch { number, mails, applied, .. } = taken;
        let shards = self.host.shards.len().max(1) as u16;
        let mut divided: BTreeMap<(u16, RoutesPlace), Vec<MailHere>> = BTreeMap::new();
        let mut last_place = RoutesPlace(0);
        let at_broker = self.host.clock.now();
        for mail in mails {
            match content::decode(&mail, at_broker) {
                Ok(arrived) => {
                    let place = arrived.planned_with;
                    let here = self.searched(arrived);
                    let shard = match &here.publisher {
                        Some(client_id) => self.host.homes.home(client_id).0,
                        None => mail.id.source.shard % shards,
                    };
                    last_place = last_place.max(place);
                    divided.entry((shard, place)).or_default().push(here);
                }
                Err(fault) => error!(node = %from, reason = %fault, "mail is unreadable"),
            }
        }
        ReadBatch { number, from, life, applied, divided, last_place }
    }

    /// Divides a batch among the shards.
    fn divide(&mut self, read: ReadBatch, traffic: &mut NatsTraffic) {
        let ReadBatch { number, from, life, applied, divided, .. } = read;
        traffic.arrivals.divide(&from, number, divided.len());
        // Places grow along a lane, so the order of the messages of a publisher stays.
        for ((shard, planned_with), mails) in divided {
            let bytes = mails.iter().map(|mail| mail.message.size()).sum();
            let (orders, node) = (self.orders.clone(), from.clone());
            let stored = Box::new(move || drop(orders.send(MailOrder::Stored(node, number))));
            if let Some(handle) = self.host.shards.get(usize::from(shard)) {
                handle.bytes_waiting.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            }
            let arrived = ArrivedMail { mails, bytes, planned_with, stored };
            self.tell(ShardNumber(shard), ToShard::Mail(arrived));
        }
        // Behind the messages, which were planned before.
        if let Some(applied) = applied {
            self.filters.handle_applied(&from, life, applied);
        }
    }
}
