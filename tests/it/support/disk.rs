//! A store that outlives its brokers, can be pulled away from them, and fails on request.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hearthmq::{
    Broker,
    auth::AllowAll,
    broker::Builder,
    limits::Limits,
    mqtt::{Message, Publication, QoS, Timestamp},
    store::{
        Bounds, Change, Durability, LoginKey, MemoryStore, PageBounds, QueuePlace, QueuedMessage,
        Record, RecordKey, SessionNumber, SessionRecord, Store, StoreError, StoredInFlight,
        StoredRetained, StoredSession,
    },
};

use super::{builder, generous};

/// The store to which brokers write, one after the other.
#[derive(Default)]
pub(crate) struct Disk {
    store: Arc<MemoryStore>,
    pages_read: Arc<AtomicUsize>,
}

thread_local! {
    /// Each test has a thread of its own.
    static IS_TIME_PAUSED: Cell<bool> = const { Cell::new(false) };
}

/// The connection of one broker to the disk.
#[derive(Clone)]
pub(crate) struct Plug {
    store: Arc<MemoryStore>,
    is_pulled: Arc<AtomicBool>,
    fails: Arc<AtomicBool>,
    /// Number of groups that are still written before it is pulled.
    groups_left: Arc<AtomicUsize>,
    pages_read: Arc<AtomicUsize>,
}

/// A broker and its connection to the disk.
pub(crate) struct Powered {
    pub(crate) broker: Broker,
    pub(crate) plug: Plug,
}

impl Disk {
    /// Makes the next broker see that this much time has passed.
    pub(crate) fn grow_older(&self, time: Duration) {
        let clock = self.store.bounds().unwrap().clock.plus_millis(time.as_millis() as u64);
        self.store.apply(&[Change::Clock(clock)], Durability::Synced).unwrap();
    }

    /// Returns what the store has of a client's session.
    pub(crate) fn session(&self, client_id: &str) -> Option<StoredSession> {
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
    pub(crate) fn forget_login(&self, client_id: &str) {
        let StoredSession { number, record, .. } = self.session(client_id).unwrap();
        let record = SessionRecord { login: None, ..record };
        self.store
            .apply(&[Change::PutSession(number, Box::new(record))], Durability::Synced)
            .unwrap();
    }

    /// Retains a message as a former version could.
    pub(crate) fn retain(&self, topic: &str) {
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
    pub(crate) fn pages_read(&self) -> usize {
        self.pages_read.load(Ordering::Relaxed)
    }

    /// Returns the number of retained messages in the store.
    pub(crate) fn retained(&self) -> usize {
        let mut retained = 0;
        self.store.retained(&mut |_| retained += 1).unwrap();
        retained
    }

    /// Starts a broker on this disk.
    pub(crate) async fn power(&self) -> Powered {
        self.power_with(|builder| builder).await
    }

    /// Does the same with limits of the test.
    pub(crate) async fn power_within(&self, change: impl FnOnce(&mut Limits)) -> Powered {
        let mut limits = generous();
        change(&mut limits);
        self.power_with(|builder| builder.limits(limits)).await
    }

    /// Does the same with configuration.
    pub(crate) async fn power_with(&self, configure: impl FnOnce(Builder) -> Builder) -> Powered {
        if !IS_TIME_PAUSED.replace(true) {
            tokio::time::pause();
        }
        let plug = self.plug();
        let broker = configure(builder().store(plug.clone())).start().await.unwrap();
        Powered { broker, plug }
    }

    /// Does the same on threads of its own, and in real time.
    pub(crate) async fn power_on_shards(
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

    fn plug(&self) -> Plug {
        Plug {
            store: self.store.clone(),
            is_pulled: Arc::default(),
            fails: Arc::default(),
            groups_left: Arc::new(AtomicUsize::new(usize::MAX)),
            pages_read: self.pages_read.clone(),
        }
    }
}

impl Powered {
    /// Ends the broker without giving it time for anything.
    pub(crate) fn crash(self) {
        self.pull();
        drop(self.broker);
    }

    /// Stops storing anything, unnoticed by the broker.
    pub(crate) fn pull(&self) {
        self.plug.is_pulled.store(true, Ordering::Relaxed);
    }

    /// Cuts the broker off after this many groups.
    pub(crate) fn cut_off_after(&self, groups: usize) {
        self.plug.groups_left.store(groups, Ordering::Relaxed);
    }

    /// Makes the disk fail from now on, or no longer.
    pub(crate) fn fail(&self, fails: bool) {
        self.plug.fails.store(fails, Ordering::Relaxed);
    }
}

impl Store for Plug {
    fn apply(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
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
        if left == 0 { Ok(()) } else { self.store.apply(changes, durability) }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }

    fn is_immediate(&self) -> bool {
        true
    }

    fn bounds(&self) -> Result<Bounds, StoreError> {
        self.store.bounds()
    }

    fn sessions(&self, each: &mut dyn FnMut(StoredSession)) -> Result<(), StoreError> {
        self.store.sessions(each)
    }

    fn retained(&self, each: &mut dyn FnMut(StoredRetained)) -> Result<(), StoreError> {
        self.store.retained(each)
    }

    fn logins(&self, each: &mut dyn FnMut(LoginKey, Timestamp)) -> Result<(), StoreError> {
        self.store.logins(each)
    }

    fn records(&self, each: &mut dyn FnMut(RecordKey, Record)) -> Result<(), StoreError> {
        self.store.records(each)
    }

    fn in_flight(&self, session: SessionNumber) -> Result<Vec<StoredInFlight>, StoreError> {
        self.store.in_flight(session)
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
}
