//! A disk that is slow, hangs, or does not sync, and an embedded broker on it, in real time.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use actix_rt::System;
use hearthmq::{
    Broker,
    actors::SyncPolicy,
    auth::AllowAll,
    mqtt::QoS,
    store::{Change, Durability, MemoryStore, Store, StoreError},
};
use tokio::sync::oneshot;

use super::lasting;
use crate::mqtt::{Client, connect};

/// Time that a slow disk needs for a group.
const SYNC: Duration = Duration::from_millis(100);

/// A store that keeps everything in memory, and takes as long as a disk.
#[derive(Clone, Default)]
pub(super) struct SlowDisk {
    store: Arc<MemoryStore>,
    groups: Arc<AtomicUsize>,
    /// Time of each sync that was requested.
    syncs: Arc<Mutex<Vec<Instant>>>,
    does_not_sync: Arc<AtomicBool>,
    /// While this is set, the store does nothing.
    is_held: Arc<(Mutex<bool>, Condvar)>,
}

impl SlowDisk {
    pub(super) fn hold(&self, hold: bool) {
        let (is_held, changed) = &*self.is_held;
        *is_held.lock().unwrap() = hold;
        changed.notify_all();
    }

    pub(super) fn sync_fails(&self, fails: bool) {
        self.does_not_sync.store(fails, Ordering::Relaxed);
    }

    /// Returns the time of each sync requested so far.
    pub(super) fn syncs(&self) -> Vec<Instant> {
        self.syncs.lock().unwrap().clone()
    }

    pub(super) fn groups(&self) -> usize {
        self.groups.load(Ordering::Relaxed)
    }
}

impl Store for SlowDisk {
    fn apply(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        let (is_held, changed) = &*self.is_held;
        drop(changed.wait_while(is_held.lock().unwrap(), |is_held| *is_held).unwrap());
        thread::sleep(SYNC);
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.store.apply(changes, durability)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.syncs.lock().unwrap().push(Instant::now());
        if self.does_not_sync.load(Ordering::Relaxed) {
            let source = std::io::Error::other("the disk is gone");
            return Err(StoreError::Io { doing: "write", path: "disk".to_owned(), source });
        }
        self.store.sync()
    }

    hearthmq_test::from_below!(|this| &*this.store =>
        bounds sessions retained logins records histories in_flight waiting);
}

/// A broker on a slow disk, with a durable session that is subscribed to `durable`.
pub(super) struct Slow {
    pub(super) disk: SlowDisk,
    pub(super) broker: Broker,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Slow {
    pub(super) fn new() -> Self {
        Self::with(SyncPolicy::Always)
    }

    pub(super) fn with(policy: SyncPolicy) -> Self {
        let disk = SlowDisk::default();
        let (end, ended) = oneshot::channel();
        let (listens, broker) = mpsc::channel();
        let store = disk.clone();
        let thread = thread::spawn(move || {
            System::new().block_on(async move {
                let builder = Broker::builder().tcp("127.0.0.1:0").shards(2);
                let builder =
                    builder.authenticator(AllowAll).authorizer(AllowAll).store(store).sync(policy);
                let broker = builder.start().await.unwrap();
                listens.send(broker.clone()).unwrap();
                drop(ended.await); // it is over in either case
                broker.shutdown(Duration::from_secs(5)).await;
            });
        });
        let broker: Broker = broker.recv().unwrap();
        let slow = Self { disk, broker, end: Some(end), thread: Some(thread) };
        let mut subscriber = Client::connected(slow.broker.local_addrs()[0], lasting("subscriber"));
        subscriber.subscribe("durable", QoS::AtLeastOnce);
        slow
    }

    pub(super) fn client(&self, client_id: &str) -> Client {
        Client::connected(self.broker.local_addrs()[0], connect(client_id))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.disk.hold(false);
        drop(self.end.take());
        let outcome = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || outcome.is_none_or(|outcome| outcome.is_ok()));
    }
}
