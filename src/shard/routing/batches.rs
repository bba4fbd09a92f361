//! Messages for the other shards: one batch for each shard collects them until the end of a turn.
//!
//! Publishing and the search for members of shared subscriptions fill the batches. The end of a
//! turn sends them (`keeping/tickets.rs`), behind the changes of the same ticket.

use std::sync::atomic::Ordering;

use crate::{
    between::{
        batch::{Awaited, Deliver, RemoteDelivery},
        door::{Sender, ToShard},
    },
    journal::Ticket,
    router::ShardNumber,
    shard::Shard,
};

/// Bytes that may wait for a shard before publishers on other shards are held.
const BYTES_AHEAD_MAX: usize = 8 * 1024 * 1024;
/// The size that a message for another shard counts besides its topic, properties and payload.
const DELIVERY_BYTES: usize = 192;

/// Deliveries to the other shards that this turn has collected.
#[derive(Default)]
pub(in crate::shard) struct Batches {
    /// By the number of the shard.
    all: Vec<Deliver>,
    /// The number of messages ever collected for durable sessions of other shards.
    awaited: u64,
}

impl Batches {
    /// Returns the batch for a shard.
    pub(in crate::shard) fn of(&mut self, shard: ShardNumber) -> &mut Deliver {
        let at = usize::from(shard.0);
        if self.all.len() <= at {
            self.all.resize_with(at + 1, Deliver::default);
        }
        &mut self.all[at]
    }

    /// Returns how many messages were ever collected that the other shards must store.
    pub(in crate::shard) const fn awaited(&self) -> u64 {
        self.awaited
    }

    /// Returns whether another shard must store some of what is collected now.
    pub(in crate::shard) fn has_awaited(&self) -> bool {
        self.all.iter().any(|batch| batch.is_awaited)
    }
}

impl Shard {
    /// Collects a message for another shard. If it `is_awaited`, its acknowledgement waits until
    /// that shard has stored it.
    pub(in crate::shard) fn send_away(
        &mut self,
        shard: ShardNumber,
        delivery: RemoteDelivery,
        size: usize,
        is_awaited: bool,
    ) {
        if is_awaited && self.journal.is_some() {
            self.batches.of(shard).is_awaited = true;
            self.batches.awaited += 1;
        }
        let batch = self.batches.of(shard);
        batch.bytes += size + DELIVERY_BYTES;
        batch.deliveries.push(delivery);
    }

    /// Sends what was collected for the other shards, one batch to each; returns how many of them
    /// the ticket awaits.
    pub(in crate::shard) fn flush_batches(&mut self, ticket: Option<Ticket>) -> usize {
        let mut awaited = 0;
        for (at, collected) in self.batches.all.iter_mut().enumerate() {
            if collected.deliveries.is_empty() {
                continue;
            }
            let mut batch = std::mem::take(collected);
            if batch.is_awaited && self.core.makes_wait() {
                batch.awaited = ticket.map(|ticket| Awaited { shard: self.number, ticket });
                awaited += usize::from(batch.awaited.is_some());
            }
            if let Some(shard) = self.core.shard(ShardNumber(at as u16)) {
                shard.bytes_waiting.fetch_add(batch.bytes, Ordering::Relaxed);
                shard.door.send(Sender::Shard(self.number), ToShard::Deliver(batch));
            }
        }
        awaited
    }

    /// Returns whether another shard, or the store, is so far behind that publishers here should
    /// wait for it.
    pub(crate) fn is_congested(&self) -> bool {
        if self.core.keeper.as_ref().is_some_and(|keeper| keeper.is_congested()) {
            return true;
        }
        self.core.shards().len() > 1
            && self
                .core
                .shards()
                .iter()
                .any(|shard| shard.bytes_waiting.load(Ordering::Relaxed) > BYTES_AHEAD_MAX)
    }
}
