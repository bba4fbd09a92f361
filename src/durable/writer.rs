//! The one thread that writes to the store. All that the shards have handed over during a write is
//! the next group, and costs one wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use crate::{
    between::{
        batch::Stored,
        door::{Sender, ShardHandle, ToShard},
    },
    clock::Clock,
    durable::{
        group::{SyncPolicy, resolve_retained},
        health::Health,
    },
    flow::{StoreLoad, StoreQueue},
    journal::{Change, Ticket},
    mqtt::Timestamp,
    router::{Retained, ShardNumber},
    store::Store,
};

/// An order for the writer.
pub(crate) enum Order {
    /// Write the changes of one shard's ticket.
    Write(Handed),
    /// Write a change that no caller waits for.
    Note(Change),
    /// Write a change that belongs to no shard, and say when it is written.
    Commit(Committed),
    /// Report when all earlier orders are written.
    Tell(mpsc::SyncSender<()>),
    /// No more orders follow.
    Stop,
}

/// The changes of one shard's ticket.
pub(crate) struct Handed {
    pub(crate) shard: ShardNumber,
    pub(crate) ticket: Ticket,
    pub(crate) changes: Vec<Change>,
    pub(crate) bytes: usize,
    /// The owners whose packets have caused them.
    pub(crate) loads: Vec<StoreLoad>,
    /// When the shard has handed them over.
    pub(crate) at: Timestamp,
}

/// A change that belongs to no shard.
pub(crate) struct Committed {
    pub(crate) change: Change,
    pub(crate) load: StoreLoad,
    pub(crate) finish: Finish,
}

/// Is called with whether a change was stored. Must not wait.
pub(crate) type Finish = Box<dyn FnOnce(bool) + Send>;

pub(crate) struct Writer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) policy: SyncPolicy,
    pub(crate) health: Arc<Health>,
    pub(crate) queue: Arc<StoreQueue>,
    /// Whether the broker has ended: then the writer tries only a few times more.
    pub(crate) is_ending: Arc<AtomicBool>,
    pub(crate) retained: Arc<Retained>,
    pub(crate) clock: Clock,
    /// Leads to the shards.
    pub(crate) shards: Arc<[ShardHandle]>,
}

/// Changes of one group; the last order may exceed it.
const GROUP_CHANGES: usize = 4_096;
/// Bytes of one group; the last order may exceed it.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// The time to the next try after the store could not be written.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The interval of checks for room while there is nothing to write.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_secs(1);
/// The minimum interval between two records of the clock; after a restart the clock continues at
/// least from the last one.
const NOTE_CLOCK_EVERY: Duration = Duration::from_secs(1);
/// The number of tries to write the store once the broker has ended.
const LAST_TRIES: usize = 4;

/// The changes that one write stores.
#[derive(Default)]
struct WriteGroup {
    changes: Vec<Change>,
    /// The tickets of each shard.
    tickets: Vec<Vec<Ticket>>,
    finishes: Vec<Finish>,
    bytes: usize,
    loads: Vec<StoreLoad>,
    /// When the first of its tickets was handed over.
    oldest: Option<Timestamp>,
}

impl WriteGroup {
    fn add(&mut self, order: Handed) {
        let at = usize::from(order.shard.0);
        if self.tickets.len() <= at {
            self.tickets.resize_with(at + 1, Vec::new);
        }
        self.tickets[at].push(order.ticket);
        self.bytes += order.bytes;
        self.oldest.get_or_insert(order.at);
        self.loads.extend(order.loads);
        // The changes of the first shard become the group without a copy, which is the normal case.
        if self.changes.is_empty() {
            self.changes = order.changes;
        } else {
            self.changes.extend(order.changes);
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Write(handed) => self.add(handed),
            Order::Note(change) => self.changes.push(change),
            Order::Commit(Committed { change, load, finish }) => {
                self.changes.push(change);
                // The load counts against the size of a group, as the changes of shards do.
                self.bytes += load.bytes();
                self.loads.push(load);
                self.finishes.push(finish);
            }
            Order::Tell(_) | Order::Stop => {}
        }
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= GROUP_CHANGES || self.bytes >= GROUP_BYTES
    }
}

/// Reports that all earlier orders are written. A caller that no longer waits is not told.
fn tell(callers: Vec<mpsc::SyncSender<()>>) {
    for waiting in callers {
        let _ = waiting.try_send(());
    }
}

impl Writer {
    /// Carries out orders until no more follow.
    pub(crate) fn run(&self, orders: &Receiver<Order>) {
        let mut clock_noted_at: Option<Instant> = None;
        let mut unsynced_since: Option<Instant> = None;
        let mut is_sync_wanting = false;
        let mut goes_on = true;
        while goes_on {
            // The time to wait is bounded by the next sync, so that `interval` is kept without traffic.
            match orders.recv_timeout(self.time_to_wait(unsynced_since)) {
                Ok(order @ (Order::Write(_) | Order::Note(_) | Order::Commit(_))) => {
                    let mut group = WriteGroup::default();
                    group.take(order);
                    let mut told = Vec::new();
                    // What came meanwhile shares the commit, and its sync.
                    while !group.is_full() && goes_on {
                        // Without waiting: a group is what came during the last write, and not more.
                        match orders.try_recv() {
                            Ok(order @ (Order::Write(_) | Order::Note(_) | Order::Commit(_))) => {
                                group.take(order)
                            }
                            Ok(Order::Tell(caller)) => told.push(caller),
                            Ok(Order::Stop) => goes_on = false,
                            Err(_) => break,
                        }
                    }
                    // The next start needs the time only roughly.
                    if clock_noted_at.is_none_or(|at| at.elapsed() >= NOTE_CLOCK_EVERY) {
                        clock_noted_at = Some(Instant::now());
                        group.changes.push(Change::Clock(self.clock.now()));
                    }
                    self.write(group);
                    // After the group, because the callers wait for what came before them.
                    tell(told);
                    // The age counts from the first unsynced group, not from the last.
                    unsynced_since.get_or_insert_with(Instant::now);
                }
                Ok(Order::Tell(caller)) => tell(vec![caller]),
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => goes_on = false,
                // A disk that cannot sync is not asked for room; the sync is tried again below.
                Err(RecvTimeoutError::Timeout) if is_sync_wanting => {}
                Err(RecvTimeoutError::Timeout) => self.look_for_room(),
            }
            // At the end of the broker a sync is due whatever the interval says.
            if self.is_sync_due(unsynced_since, goes_on) {
                is_sync_wanting = !self.sync();
                if !is_sync_wanting {
                    unsynced_since = None;
                }
            }
        }
        self.note_clock();
    }

    /// Records the clock. The next run continues from this time if the wall clock is behind it. If
    /// the record fails, the next run continues from the last one that succeeded.
    fn note_clock(&self) {
        if let Err(error) =
            self.store.apply(&[Change::Clock(self.clock.now())], self.policy.durability())
        {
            tracing::debug!(%error, "the clock could not be noted at the end");
        }
    }

    /// Returns how long to wait for changes before other work is due.
    fn time_to_wait(&self, unsynced_since: Option<Instant>) -> Duration {
        match (self.policy, unsynced_since) {
            (SyncPolicy::Interval(every), Some(since)) => every.saturating_sub(since.elapsed()),
            _ => LOOK_FOR_ROOM_EVERY,
        }
    }

    fn is_sync_due(&self, unsynced_since: Option<Instant>, goes_on: bool) -> bool {
        match (self.policy, unsynced_since) {
            (SyncPolicy::Always, _) | (_, None) => false,
            (_, Some(_)) if !goes_on => true,
            (SyncPolicy::Interval(every), Some(since)) => since.elapsed() >= every,
            (SyncPolicy::Off, Some(_)) => false,
        }
    }

    fn look_for_room(&self) {
        self.health.note_room(self.store.has_room());
    }

    /// Makes written changes durable; returns whether that succeeded. If not, the writer must try
    /// again.
    fn sync(&self) -> bool {
        let Err(error) = self.store.sync() else { return true };
        self.health.note_failure(&error);
        self.try_to_recover();
        false
    }

    fn try_to_recover(&self) {
        std::thread::sleep(RETRY_AFTER);
        if let Err(error) = self.store.recover() {
            self.health.note_failure(&error);
        }
    }

    /// Writes a group, with as many tries as it takes, and tells the shards.
    fn write(&self, mut group: WriteGroup) {
        // As late as possible, because shards may have handed over one topic in different orders.
        resolve_retained(&mut group.changes, &self.retained);
        if let Some(at) = group.oldest {
            self.queue.note_oldest(at);
        }
        let durability = self.policy.durability();
        let mut tries_left = LAST_TRIES;
        self.health.note_writing(true);
        // Trying again is the only choice: later changes may depend on these, and must not overtake them.
        while let Err(error) = self.store.apply(&group.changes, durability) {
            self.health.note_failure(&error);
            // While the broker runs, the tries have no end; at its end, a broken disk must not keep it alive.
            if self.is_ending.load(Ordering::Relaxed) {
                tries_left -= 1;
                if tries_left == 0 {
                    tracing::error!(%error, "the broker ends with changes that could not be stored");
                    group.finishes.into_iter().for_each(|finish| finish(false));
                    return;
                }
            }
            self.try_to_recover();
        }
        self.health.note_writing(false);
        // Judged after each group, before more is promised.
        self.look_for_room();
        group.finishes.into_iter().for_each(|finish| finish(true));
        for (shard, tickets) in self.shards.iter().zip(group.tickets) {
            if !tickets.is_empty() {
                let report = ToShard::Stored(Stored { tickets, is_by_store: true });
                shard.door.send(Sender::Store, report);
            }
        }
        // Only now may the owners hand over more.
        drop(group.loads);
    }
}
