//! Messages for the other shards and nodes: one batch for each collects them until the end of a turn.
//!
//! Publishing and the search for members of shared subscriptions fill the batches. The end of a
//! turn sends them (`keeping/tickets.rs`), behind the changes of the same ticket.

use std::sync::atomic::Ordering;

use crate::{
    between::{
        batch::{Awaited, Deliver, RemoteDelivery},
        door::{Sender, ToShard},
        nodes::MailToNodes,
    },
    journal::{CHANGE_BYTES, Ticket},
    router::{Host, ShardNumber},
    shard::Shard,
};

/// Bytes that may wait for a shard before publishers on other shards are held.
const BYTES_AHEAD_MAX: usize = 8 * 1024 * 1024;
/// The size that a message for another shard counts besides its topic, properties and payload.
const DELIVERY_BYTES: usize = 192;

/// Deliveries to the other shards that this turn has collected.
#[derive(Default)]
pub(in crate::shard) struct Batches {
    /// The batches, by the number of the shard.
    all: Vec<Deliver>,
    /// The number of messages ever collected that other shards or nodes must store.
    awaited: u64,
    /// Bytes of the changes that the other shards will make for the messages collected now.
    announced: usize,
    /// The messages for other nodes, and whether one of them must be stored there.
    mail: Option<Box<(Vec<MailToNodes>, bool)>>,
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

    /// Returns the bytes of the changes that the other shards will make for the messages collected now.
    pub(in crate::shard) const fn announced(&self) -> usize {
        self.announced
    }

    /// Returns whether another shard or node must store a message that is collected now.
    pub(in crate::shard) fn has_awaited(&self) -> bool {
        self.all.iter().any(|batch| batch.is_awaited)
            || self.mail.as_ref().is_some_and(|mail| mail.1)
    }

    /// Collects a message for other nodes. If it `is_awaited`, its acknowledgement waits until they have
    /// stored it.
    pub(in crate::shard) fn send_to_nodes(&mut self, mail: MailToNodes, is_awaited: bool) {
        let (mails, has_awaited) = &mut **self.mail.get_or_insert_default();
        mails.push(mail);
        *has_awaited |= is_awaited;
        self.awaited += u64::from(is_awaited);
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
        // Without a store nothing is awaited.
        if is_awaited && self.journal.is_some() {
            let batch = self.batches.of(shard);
            batch.is_awaited = true;
            // Each target on that shard causes a change of its own, which counts before it is made.
            let changes = batch.targets_of(&delivery.to, Host::Shard(shard));
            let announced = size + changes * CHANGE_BYTES;
            batch.announced += announced;
            self.batches.awaited += 1;
            self.batches.announced += announced;
        }
        let batch = self.batches.of(shard);
        batch.bytes += size + DELIVERY_BYTES;
        batch.deliveries.push(delivery);
    }

    /// Sends the collected messages to the other shards and nodes, one batch to each; returns the number of
    /// parts that the ticket awaits.
    pub(in crate::shard) fn flush_batches(&mut self, ticket: Option<Ticket>) -> usize {
        let mut awaited = 0;
        let announced = std::mem::take(&mut self.batches.announced);
        // The debtor is looked up only if something is announced.
        let debtor = if announced > 0 { self.debtor() } else { None };
        // What the ticket ends, such as a Will, stays in the store until its message is there, also if no output
        // waits for the store.
        let is_waited_for = self.core.makes_wait() || self.ends_something();
        for (at, collected) in self.batches.all.iter_mut().enumerate() {
            if collected.deliveries.is_empty() {
                continue;
            }
            // The batch is emptied even if its shard has gone, so nothing piles up at the end of the broker.
            let mut batch = std::mem::take(collected);
            batch.planned_with = self.planning_with;
            if batch.is_awaited && is_waited_for {
                batch.awaited = ticket.map(|ticket| Awaited { shard: self.number, ticket });
                awaited += usize::from(batch.awaited.is_some());
            }
            if batch.announced > 0
                && let Some(keeper) = &self.core.keeper
            {
                let now = self.core.clock.now();
                // The sender's owner pays for the changes until the other shard has handed them over.
                batch.load = keeper.announce(batch.announced, || debtor.clone(), now);
            }
            if let Some(shard) = self.core.shard(ShardNumber(at as u16)) {
                // Counted before it is sent, because the receiver subtracts.
                shard.bytes_waiting.fetch_add(batch.bytes, Ordering::Relaxed);
                shard.door.send(Sender::Shard(self.number), ToShard::Deliver(batch));
            }
        }
        if let Some(mail) = self.batches.mail.take() {
            awaited += self.flush_mail(mail.0, ticket);
        }
        awaited
    }

    /// Returns whether another shard or node is so far behind that publishers here should wait for it.
    pub(crate) fn is_congested(&self) -> bool {
        let is_behind = self.core.shards().len() > 1
            && self
                .core
                .shards()
                .iter()
                .any(|shard| shard.bytes_waiting.load(Ordering::Relaxed) > BYTES_AHEAD_MAX);
        is_behind || self.core.nodes.get().is_some_and(|nodes| nodes.is_congested())
    }
}
