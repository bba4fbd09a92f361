//! The one thread that writes the store: what all shards have handed over meanwhile is one group,
//! and costs one wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use crate::{
    between::{
        batch::Kept,
        door::{ShardHandle, ToShard},
    },
    clock::Clock,
    durable::{
        group::{SyncPolicy, resolve_retained},
        health::Health,
    },
    journal::{Change, Ticket},
    router::{Host, Retained},
    store::Store,
};

/// What the writer is told.
pub(crate) enum Order {
    /// Write what belongs to one shard's ticket.
    Write(Handed),
    /// Write what nobody waits for.
    Note(Change),
    /// Say when all that came before is written.
    Tell(mpsc::SyncSender<()>),
    /// Nothing comes any more.
    Stop,
}

/// Changes of one shard's ticket.
pub(crate) struct Handed {
    pub(crate) host: Host,
    pub(crate) ticket: Ticket,
    pub(crate) changes: Vec<Change>,
    pub(crate) bytes: usize,
}

pub(crate) struct Writer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) policy: SyncPolicy,
    pub(crate) health: Arc<Health>,
    pub(crate) bytes_waiting: Arc<AtomicUsize>,
    /// The broker has ended: what cannot be written is not tried for ever.
    pub(crate) is_ending: Arc<AtomicBool>,
    pub(crate) retained: Arc<Retained>,
    pub(crate) clock: Clock,
    /// Leads to the shards.
    pub(crate) shards: Arc<[ShardHandle]>,
}

/// Changes of one group; the last order may pass it.
const GROUP_CHANGES: usize = 4_096;
/// Bytes of one group; the last order may pass it.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// After the store could not be written, so long until it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Where nothing is to be written, room is looked for so often.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_secs(1);
/// How often the clock is noted, at most: after a restart it goes on from there at least.
const NOTE_CLOCK_EVERY: Duration = Duration::from_secs(1);
/// Once the broker has ended, a store that cannot be written is tried so often.
const LAST_TRIES: usize = 4;

/// What one write keeps.
#[derive(Default)]
struct Group {
    changes: Vec<Change>,
    /// Which tickets of which shard.
    tickets: Vec<Vec<Ticket>>,
    bytes: usize,
}

impl Group {
    fn add(&mut self, order: Handed) {
        let at = usize::from(order.host.0);
        if self.tickets.len() <= at {
            self.tickets.resize_with(at + 1, Vec::new);
        }
        self.tickets[at].push(order.ticket);
        self.bytes += order.bytes;
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
            Order::Tell(_) | Order::Stop => {}
        }
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= GROUP_CHANGES || self.bytes >= GROUP_BYTES
    }
}

/// Says that what came before is written; who does not wait any more is not told.
fn tell(whom: Vec<mpsc::SyncSender<()>>) {
    for waiting in whom {
        let _ = waiting.try_send(());
    }
}

impl Writer {
    /// Writes what comes, until it is told that nothing comes any more.
    pub(crate) fn run(&self, orders: &Receiver<Order>) {
        let mut clock_noted_at: Option<Instant> = None;
        let mut unsynced_since: Option<Instant> = None;
        let mut is_sync_wanting = false;
        let mut goes_on = true;
        while goes_on {
            match orders.recv_timeout(self.time_to_wait(unsynced_since)) {
                Ok(order @ (Order::Write(_) | Order::Note(_))) => {
                    let mut group = Group::default();
                    group.take(order);
                    let mut told = Vec::new();
                    while !group.is_full() && goes_on {
                        match orders.try_recv() {
                            Ok(order @ (Order::Write(_) | Order::Note(_))) => group.take(order),
                            Ok(Order::Tell(whom)) => told.push(whom),
                            Ok(Order::Stop) => goes_on = false,
                            Err(_) => break,
                        }
                    }
                    if clock_noted_at.is_none_or(|at| at.elapsed() >= NOTE_CLOCK_EVERY) {
                        clock_noted_at = Some(Instant::now());
                        group.changes.push(Change::Clock(self.clock.now()));
                    }
                    self.write(group);
                    tell(told);
                    unsynced_since.get_or_insert_with(Instant::now);
                }
                Ok(Order::Tell(whom)) => tell(vec![whom]),
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => goes_on = false,
                Err(RecvTimeoutError::Timeout) if is_sync_wanting => {}
                Err(RecvTimeoutError::Timeout) => self.look_for_room(),
            }
            if self.is_sync_due(unsynced_since, goes_on) {
                is_sync_wanting = !self.sync();
                if !is_sync_wanting {
                    unsynced_since = None;
                }
            }
        }
        self.note_clock();
    }

    /// The next run goes on from here where the wall clock is behind. If it cannot be noted, the next
    /// one goes on from the last time that it was.
    fn note_clock(&self) {
        if let Err(error) =
            self.store.apply(&[Change::Clock(self.clock.now())], self.policy.durability())
        {
            tracing::debug!(%error, "the clock could not be noted at the end");
        }
    }

    /// How long to wait for changes before something else is to be done.
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

    /// Whether what was written is durable; if it is not, it is to be tried again.
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

    /// Writes a group, however often it takes, and tells the shards.
    fn write(&self, mut group: Group) {
        resolve_retained(&mut group.changes, &self.retained);
        let durability = self.policy.durability();
        let mut tries_left = LAST_TRIES;
        self.health.note_writing(true);
        while let Err(error) = self.store.apply(&group.changes, durability) {
            self.health.note_failure(&error);
            if self.is_ending.load(Ordering::Relaxed) {
                tries_left -= 1;
                if tries_left == 0 {
                    tracing::error!(%error, "the broker ends with changes that could not be kept");
                    return;
                }
            }
            self.try_to_recover();
        }
        self.health.note_writing(false);
        self.look_for_room();
        self.bytes_waiting.fetch_sub(group.bytes, Ordering::Relaxed);
        for (shard, tickets) in self.shards.iter().zip(group.tickets) {
            if !tickets.is_empty() {
                shard.door.send(ToShard::Kept(Kept { tickets, is_by_store: true }));
            }
        }
    }
}
