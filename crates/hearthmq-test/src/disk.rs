//! A store that outlives its brokers, can be pulled away from them, and fails on request.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hearthmq::{
    Broker,
    auth::AllowAll,
    broker::Builder,
    limits::Limits,
    mqtt::{Message, Publication, QoS},
    store::{
        Change, Durability, MemoryStore, PageBounds, QueuePlace, QueuedMessage, SessionNumber,
        SessionRecord, Store, StoreError, StoredSession,
    },
};

use tokio::task::yield_now;

use crate::{builder, generous, millis, pass, pause_time};

/// The store to which brokers write, one after the other.
#[derive(Default)]
pub struct Disk {
    store: Arc<MemoryStore>,
    pages_read: Arc<AtomicUsize>,
}

/// The connection of one broker to its store: it can be pulled, and fails on request.
pub struct Plug<S> {
    store: Arc<S>,
    is_pulled: Arc<AtomicBool>,
    /// Whether writes fail.
    fails: Arc<AtomicBool>,
    /// Present if the store has a thread of its own. Writes wait while this is true.
    is_held: Option<Arc<(Mutex<bool>, Condvar)>>,
    /// Number of groups that are still written before it is pulled.
    groups_left: Arc<AtomicUsize>,
    pages_read: Arc<AtomicUsize>,
}

/// A broker and its connection to the disk.
pub struct Powered {
    pub broker: Broker,
    pub plug: Plug<MemoryStore>,
}

impl Disk {
    /// Makes the next broker see that this much time has passed.
    pub fn grow_older(&self, time: Duration) {
        let clock = self.store.bounds().unwrap().clock.plus_millis(time.as_millis() as u64);
        self.store.apply(&[Change::Clock(clock)], Durability::Synced).unwrap();
    }

    /// Returns what the store has of a client's session.
    pub fn session(&self, client_id: &str) -> Option<StoredSession> {
        let mut found = None;
        self.store
            .sessions(&mut |session| {
                if &*session.record.client_id == client_id {
                    found = Some(session);
                }
            })
            .unwrap();
        found
    }

    /// Stores the session of a client as a former version would have done.
    pub fn forget_login(&self, client_id: &str) {
        let StoredSession { number, record, .. } = self.session(client_id).unwrap();
        let record = SessionRecord { login: None, ..record };
        self.store
            .apply(&[Change::PutSession(number, Box::new(record))], Durability::Synced)
            .unwrap();
    }

    /// Retains a message as a former version could.
    pub fn retain(&self, topic: &str) {
        let publication = Publication {
            topic,
            payload: b"x",
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: &[],
            expires_at: None,
        };
        let change = Change::Retain(Arc::new(Message::new(&publication)), None);
        self.store.apply(&[change], Durability::Synced).unwrap();
    }

    /// How often brokers have read a page of a queue.
    pub fn pages_read(&self) -> usize {
        self.pages_read.load(Ordering::Relaxed)
    }

    /// Returns the number of retained messages in the store.
    pub fn retained(&self) -> usize {
        let mut retained = 0;
        self.store.retained(&mut |_| retained += 1).unwrap();
        retained
    }

    /// Returns the number of clients with a history in the store.
    pub fn histories(&self) -> usize {
        let mut histories = 0;
        self.store.histories(&mut |_| histories += 1).unwrap();
        histories
    }

    /// Starts a broker on this disk.
    pub async fn power(&self) -> Powered {
        self.power_with(|builder| builder).await
    }

    /// Does the same with limits of the test.
    pub async fn power_within(&self, change: impl FnOnce(&mut Limits)) -> Powered {
        let mut limits = generous();
        change(&mut limits);
        self.power_with(|builder| builder.limits(limits)).await
    }

    /// Does the same with configuration.
    pub async fn power_with(&self, configure: impl FnOnce(Builder) -> Builder) -> Powered {
        pause_time();
        let plug = self.plug();
        let broker = configure(builder().store(plug.clone())).start().await.unwrap();
        Powered { broker, plug }
    }

    /// Does the same with a store that has a thread of its own, on virtual time.
    pub async fn power_slowly(&self) -> Powered {
        self.power_slowly_with(|builder| builder).await
    }

    /// Does the same with configuration.
    pub async fn power_slowly_with(&self, configure: impl FnOnce(Builder) -> Builder) -> Powered {
        pause_time();
        let plug = self.slow_plug();
        let broker = configure(builder().store(plug.clone())).start().await.unwrap();
        Powered { broker, plug }
    }

    /// Returns the value of a record.
    pub fn record(&self, namespace: &str) -> Option<Vec<u8>> {
        let mut value = None;
        self.store
            .records(&mut |name, record| {
                if name.namespace() == namespace {
                    value = Some(record.value.to_vec());
                }
            })
            .unwrap();
        value
    }

    /// Does the same on threads of its own, and in real time.
    pub async fn power_on_shards(
        &self,
        shards: usize,
        change: impl FnOnce(&mut Limits),
    ) -> Powered {
        let plug = self.plug();
        let mut limits = generous();
        change(&mut limits);
        let builder = Broker::builder().shards(shards).limits(limits).store(plug.clone());
        let builder = builder.authenticator(AllowAll).authorizer(AllowAll);
        Powered { broker: builder.start().await.unwrap(), plug }
    }

    /// Connects a broker whose store has a thread of its own: its writes can be made to wait.
    pub fn slow_plug(&self) -> Plug<MemoryStore> {
        Plug { is_held: Some(Arc::default()), ..self.plug() }
    }

    fn plug(&self) -> Plug<MemoryStore> {
        Plug { pages_read: self.pages_read.clone(), ..Plug::new(self.store.clone()) }
    }
}

/// Waits until the store of a broker on virtual time, which has a thread of its own, has everything. Until then,
/// a wait of the test may end at once, because its clock does not wait for that thread.
pub async fn until_written(broker: &Broker) {
    let begun = Instant::now();
    let waiting = || broker.metrics().totals().store_waiting_bytes.value();
    let held = || broker.metrics().shard(0).publishers_held.value();
    pass(millis(10)).await;
    while waiting() > 0 || held() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} bytes wait", waiting());
        pass(millis(5)).await;
        yield_now().await;
    }
    pass(millis(100)).await;
}

impl Powered {
    /// Ends the broker without giving it time for anything.
    pub fn crash(self) {
        self.pull();
        drop(self.broker);
    }

    /// Makes the writes of a slow store wait, or go on.
    pub fn hold_writes(&self, is_held: bool) {
        let (held, changed) = &**self.plug.is_held.as_ref().unwrap();
        *held.lock().unwrap() = is_held;
        changed.notify_all();
    }

    /// Stops storing anything, unnoticed by the broker.
    pub fn pull(&self) {
        self.plug.pull();
    }

    /// Cuts the broker off after this many groups.
    pub fn cut_off_after(&self, groups: usize) {
        self.plug.groups_left.store(groups, Ordering::Relaxed);
    }

    /// Makes the disk fail from now on, or no longer.
    pub fn fail(&self, fails: bool) {
        self.plug.fails.store(fails, Ordering::Relaxed);
    }
}

impl<S> Plug<S> {
    /// Connects a broker to this store.
    pub fn new(store: Arc<S>) -> Self {
        Self {
            store,
            is_pulled: Arc::default(),
            fails: Arc::default(),
            is_held: None,
            groups_left: Arc::new(AtomicUsize::new(usize::MAX)),
            pages_read: Arc::default(),
        }
    }

    /// Lets it fail together with others: the disk itself fails.
    pub fn failing_with(self, fails: Arc<AtomicBool>) -> Self {
        Self { fails, ..self }
    }

    /// Stops storing anything, unnoticed by the broker.
    pub fn pull(&self) {
        self.is_pulled.store(true, Ordering::Relaxed);
    }
}

impl<S> Clone for Plug<S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            is_pulled: self.is_pulled.clone(),
            fails: self.fails.clone(),
            is_held: self.is_held.clone(),
            groups_left: self.groups_left.clone(),
            pages_read: self.pages_read.clone(),
        }
    }
}

impl<S: Store> Store for Plug<S> {
    fn apply(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        // Blocks the thread of the writer, as a disk that hangs does.
        if let Some(is_held) = &self.is_held {
            let (held, changed) = &**is_held;
            drop(changed.wait_while(held.lock().unwrap(), |held| *held).unwrap());
        }
        if self.is_pulled.load(Ordering::Relaxed) {
            return Ok(()); // the broker has ended already
        }
        if self.fails.load(Ordering::Relaxed) {
            let path = "disk".to_owned();
            let source = std::io::ErrorKind::Other.into();
            return Err(StoreError::Io { doing: "write", path, source });
        }
        let left = self.groups_left.load(Ordering::Relaxed);
        self.groups_left.store(left.saturating_sub(1), Ordering::Relaxed);
        // After the last group the disk answers, but stores nothing more: a cut of power.
        if left == 0 { Ok(()) } else { self.store.apply(changes, durability) }
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(()) // each group is durable when it is written
    }

    fn is_immediate(&self) -> bool {
        self.is_held.is_none()
    }

    fn waiting(
        &self,
        session: SessionNumber,
        from: QueuePlace,
        page: PageBounds,
    ) -> Result<Vec<(QueuePlace, QueuedMessage)>, StoreError> {
        self.pages_read.fetch_add(1, Ordering::Relaxed);
        self.store.waiting(session, from, page)
    }

    crate::from_below!(|this| &*this.store =>
        bounds sessions retained logins records histories in_flight);
}
