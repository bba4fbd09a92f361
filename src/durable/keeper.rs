//! Stores all changes that must survive the broker: passes the changes of all shards to the store, in groups,
//! and tells each shard which tickets are stored.
//!
//! A store whose writes take time has a thread of its own; a store without that cost is called
//! where the changes arise. Knows changes, tickets and the store, and nothing of sessions.

use std::{
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    between::door::ShardHandle,
    clock::Clock,
    durable::{
        group::{SyncPolicy, resolve_retained},
        health::Health,
        in_transit::{self, IN_TRANSIT},
        writer::{Committed, Finish, Handed, Order, Writer},
    },
    flow::{StoreLoad, StoreQueue},
    journal::{Change, JournalPage, QueuePlace, SessionNumber},
    mqtt::Timestamp,
    owners::Account,
    router::{Retained, ShardNumber},
    store::{Bounds, Durability, Store, StoreError},
};

/// The store of a broker, and the changes on their way to it.
pub(crate) struct Keeper {
    store: Arc<dyn Store>,
    policy: SyncPolicy,
    pub(crate) health: Arc<Health>,
    sessions: AtomicU64,
    messages: AtomicU64,
    /// The last place given to a message in transit.
    in_transit: AtomicU64,
    /// The changes that the writer was given and has not stored yet, or will be given soon.
    queue: Arc<StoreQueue>,
    is_immediate: bool,
    is_ending: Arc<AtomicBool>,
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Changes of all shards that an immediate store has not taken so far, in the order in which
    /// they were handed over.
    unapplied: Mutex<Unapplied>,
    retained: Arc<Retained>,
}

#[derive(Default)]
struct Unapplied {
    changes: Vec<Change>,
    /// The number of times that changes were handed over.
    handed_over: u64,
    /// How many of them the store has.
    applied: u64,
}

/// The place of changes among all that were handed over to an immediate store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HandedOver(u64);

impl Keeper {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        policy: SyncPolicy,
        bounds: &Bounds,
        retained: Arc<Retained>,
    ) -> Self {
        Self {
            is_immediate: store.is_immediate(),
            store,
            policy,
            health: Arc::default(),
            sessions: AtomicU64::new(bounds.session),
            messages: AtomicU64::new(bounds.message),
            in_transit: AtomicU64::new(0),
            queue: Arc::default(),
            is_ending: Arc::default(),
            orders: Mutex::new(None),
            writer: Mutex::new(None),
            unapplied: Mutex::default(),
            retained,
        }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Returns a number for a new session.
    pub(crate) fn next_session(&self) -> SessionNumber {
        SessionNumber(self.sessions.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Returns a number for a message that several sessions may store.
    pub(crate) fn next_message(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.messages.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Returns a place for a message in transit between shards.
    pub(crate) fn next_in_transit(&self) -> QueuePlace {
        QueuePlace(self.in_transit.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Returns whether acknowledgements wait for the store.
    pub(crate) fn makes_wait(&self) -> bool {
        self.policy != SyncPolicy::Off
    }

    /// Returns whether the changes on their way to the store exceed their limit, so that nothing
    /// that needs the store goes on. While the store is in trouble, more may wait: the broker then
    /// accepts nothing durable.
    pub(crate) fn is_congested(&self) -> bool {
        self.queue.is_full(self.health.trouble().is_some())
    }

    /// Returns the bytes of the changes on their way to the store.
    pub(crate) fn bytes_waiting(&self) -> usize {
        self.queue.bytes()
    }

    /// Returns whether packets of this owner that need the store must wait, because the owner has
    /// more than its share on the way, `more` bytes included that are about to be handed over.
    pub(crate) fn holds(&self, account: &Account, more: usize, now: Timestamp) -> bool {
        !self.is_immediate
            && self.queue.may_be_long(more)
            && self.queue.holds(account, more, now, self.health.trouble().is_some())
    }

    /// Returns whether this owner has too much on the way to begin work that needs the
    /// store.
    pub(crate) fn is_exhausted_by(&self, account: &Account, now: Timestamp) -> bool {
        self.queue.is_exhausted_by(account, now)
    }

    /// Counts changes that another shard will hand over, for the owner whose packets cause them.
    /// Returns `None` if nothing waits for this store.
    pub(crate) fn announce(
        &self,
        bytes: usize,
        account: impl FnOnce() -> Option<Arc<Account>>,
        now: Timestamp,
    ) -> Option<StoreLoad> {
        (!self.is_immediate).then(|| self.queue.add(bytes, account(), now))
    }

    /// Starts the thread of a store whose writes take time.
    pub(crate) fn start(&self, clock: Clock, shards: Arc<[ShardHandle]>) -> std::io::Result<()> {
        if self.is_immediate {
            // Such a store blocks nobody, so the shards apply their changes themselves.
            return Ok(());
        }
        self.health.note_room(self.store.has_room()); // Before any promise.
        let (sender, orders) = mpsc::channel();

        let writer = Writer {
            store: self.store.clone(),
            policy: self.policy,
            health: self.health.clone(),
            queue: self.queue.clone(),
            is_ending: self.is_ending.clone(),
            retained: self.retained.clone(),
            clock,
            shards,
        };
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&orders))?;
        *lock(&self.orders) = Some(sender);
        *lock(&self.writer) = Some(thread);
        Ok(())
    }

    /// Returns a sender to the writer for one shard; `None` if the store is called directly.
    pub(crate) fn orders(&self) -> Option<mpsc::Sender<Order>> {
        lock(&self.orders).clone()
    }

    /// Gives changes to the writer. Packets of `debtor` have caused them, except those in `loads`.
    pub(crate) fn hand_over(
        &self,
        orders: &mpsc::Sender<Order>,
        shard: ShardNumber,
        page: &mut JournalPage,
        (debtor, mut loads): (Option<Arc<Account>>, Vec<StoreLoad>),
        at: Timestamp,
    ) {
        // The loads that came with the messages already count these bytes for other owners.
        let others = loads.iter().map(StoreLoad::bytes).sum();
        let bytes = page.bytes;
        let load = self.queue.add(bytes.saturating_sub(others), debtor, at);
        loads.push(load);
        let changes = std::mem::take(&mut page.changes);
        // Without a writer the broker has ended, and no caller waits for the result any more.
        let handed = Handed { shard, ticket: page.ticket, changes, bytes, loads, at };
        let _ = orders.send(Order::Write(handed));
    }

    /// Applies changes of a shard immediately, to a store whose writes take no time. The store takes
    /// the changes of all shards in the order in which they were handed over.
    ///
    /// # Errors
    /// Returns the place of the changes if the store does not take them now;
    /// [`apply_again`](Self::apply_again) applies them.
    pub(crate) fn apply(
        &self,
        changes: &mut Vec<Change>,
        now: Timestamp,
    ) -> Result<(), HandedOver> {
        // The lock gives the changes of all shards one order.
        let mut unapplied = lock(&self.unapplied);
        unapplied.handed_over += 1;
        unapplied.changes.append(changes);
        match self.apply_all(&mut unapplied, now) {
            true => Ok(()),
            // The changes stay in the list, and `apply_again` tries them with those that follow.
            false => Err(HandedOver(unapplied.handed_over)),
        }
    }

    /// Tries to apply the changes that an immediate store has not taken so far, or finds out whether the
    /// store works again; returns the place up to which the store has all changes.
    pub(crate) fn apply_again(&self, now: Timestamp) -> HandedOver {
        let mut unapplied = lock(&self.unapplied);
        if !unapplied.changes.is_empty() || self.health.trouble().is_some() {
            self.apply_all(&mut unapplied, now);
        }
        HandedOver(unapplied.applied)
    }

    /// Applies a change that belongs to no shard, after the changes that an immediate store has not taken so
    /// far; returns whether the store has it.
    fn apply_behind_others(&self, change: Change, now: Timestamp) -> bool {
        // Locked until the end, because a store takes one group at a time.
        let mut unapplied = lock(&self.unapplied);
        let are_others_applied =
            unapplied.changes.is_empty() || self.apply_all(&mut unapplied, now);
        are_others_applied && self.try_to_apply(&mut vec![change], now)
    }

    fn apply_all(&self, unapplied: &mut Unapplied, now: Timestamp) -> bool {
        let is_applied = self.try_to_apply(&mut unapplied.changes, now);
        if is_applied {
            unapplied.changes.clear();
            unapplied.applied = unapplied.handed_over;
        }
        is_applied
    }

    fn try_to_apply(&self, changes: &mut Vec<Change>, now: Timestamp) -> bool {
        // The time goes with each group, so that the clock of the next run begins behind it.
        changes.push(Change::Clock(now));
        resolve_retained(changes, &self.retained);
        match self.store.apply(changes, self.policy.durability()) {
            Ok(()) => {
                self.health.note_success();
                true
            }
            Err(error) => {
                // The time is added again by the next attempt.
                changes.pop();
                self.health.note_failure(&error);
                let _ = self.store.recover();
                false
            }
        }
    }

    /// Stores a change that no caller waits for. It is lost while the store is in trouble: the way
    /// to the store must not fill up with dispensable changes.
    pub(crate) fn note(&self, change: Change, now: Timestamp) {
        if self.is_immediate {
            self.apply_behind_others(change, now);
        } else if self.takes_more()
            && let Some(orders) = self.orders()
        {
            drop(orders.send(Order::Note(change)));
        }
    }

    /// Returns whether changes can be promised now: the store can be written and keeps up.
    pub(crate) fn takes_more(&self) -> bool {
        self.is_immediate || (self.health.trouble().is_none() && !self.is_congested())
    }

    /// Stores a change that belongs to no shard. Returns whether it is stored if the store has
    /// answered. Otherwise returns `None`, and the writer calls `finish` with that later.
    pub(crate) fn commit(&self, change: Change, now: Timestamp, finish: Finish) -> Option<bool> {
        if self.is_immediate {
            return Some(self.apply_behind_others(change, now));
        }
        // Nobody is charged: these are changes of operators, or of the broker itself.
        let load = self.queue.add(change.bytes(), None, now);
        let order = Order::Commit(Committed { change, load, finish });
        match self.orders().is_some_and(|orders| orders.send(order).is_ok()) {
            true => None,
            false => Some(false), // The broker has ended.
        }
    }

    /// Waits until the store has all changes given to the writer so far, at most `time_max`;
    /// returns whether it has them.
    pub(crate) fn flush(&self, time_max: Duration) -> bool {
        let Some(orders) = self.orders() else { return self.is_immediate };
        let (tell, told) = mpsc::sync_channel(1);
        orders.send(Order::Tell(tell)).is_ok() && told.recv_timeout(time_max).is_ok()
    }

    /// Tells the writer that no more changes follow.
    pub(crate) fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        if let Some(orders) = lock(&self.orders).take() {
            let _ = orders.send(Order::Stop);
        }
    }

    /// Stores the changes under way, and ends the writer. Takes as long as the store does.
    pub(crate) fn stop(&self) {
        self.end();
        let writer = lock(&self.writer).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the store's thread has failed");
        }
    }

    /// Makes the first reservation of presence versions, before any other writes.
    pub(crate) fn prepare(
        store: &dyn Store,
        versions_up_to: u64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let in_transit = Change::PutSession(IN_TRANSIT, Box::new(in_transit::record()));
        let changes = [Change::ReserveVersions(versions_up_to), Change::Clock(now), in_transit];
        store.apply(&changes, Durability::Synced)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
