//! How a broker starts in an application: without holding up the thread of its caller.

use std::{
    net::TcpListener,
    sync::{Mutex, mpsc as blocking},
    time::Duration,
};

use hearthmq::{
    Broker,
    auth::AllowAll,
    mqtt::Timestamp,
    store::{
        Bounds, Change, Durability, LoginKey, MemoryStore, PageBounds, QueuePlace, QueuedMessage,
        Record, RecordKey, SessionNumber, Store, StoreError, StoredInFlight, StoredRetained,
        StoredSession,
    },
};
use hearthmq_test::free_address;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A store that waits for a permit in each call that reads all of something.
struct Slow {
    store: MemoryStore,
    asked: UnboundedSender<&'static str>,
    permits: Mutex<blocking::Receiver<()>>,
}

/// Names the calls of a slow store, and gives it permits.
struct Gate {
    asked: UnboundedReceiver<&'static str>,
    permits: blocking::Sender<()>,
}

fn slow() -> (Slow, Gate) {
    let (asking, asked) = unbounded_channel();
    let (permits, permitted) = blocking::channel();
    let store = MemoryStore::default();
    (Slow { store, asked: asking, permits: Mutex::new(permitted) }, Gate { asked, permits })
}

impl Slow {
    fn wait(&self, call: &'static str) {
        let _ = self.asked.send(call);
        let permit = self.permits.lock().unwrap().recv_timeout(Duration::from_secs(60));
        permit.expect("the caller's thread goes on and gives a permit");
    }
}

impl Store for Slow {
    fn apply(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        self.store.apply(changes, durability)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }

    fn bounds(&self) -> Result<Bounds, StoreError> {
        self.wait("bounds");
        self.store.bounds()
    }

    fn sessions(&self, each: &mut dyn FnMut(StoredSession)) -> Result<(), StoreError> {
        self.wait("sessions");
        self.store.sessions(each)
    }

    fn retained(&self, each: &mut dyn FnMut(StoredRetained)) -> Result<(), StoreError> {
        self.wait("retained");
        self.store.retained(each)
    }

    fn logins(&self, each: &mut dyn FnMut(LoginKey, Timestamp)) -> Result<(), StoreError> {
        self.store.logins(each)
    }

    fn records(&self, each: &mut dyn FnMut(RecordKey, Record)) -> Result<(), StoreError> {
        self.wait("records");
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
        self.store.waiting(session, from, page)
    }
}

#[actix_rt::test]
async fn a_start_leaves_the_thread_of_its_caller_free() {
    for on_own_threads in [true, false] {
        let (store, mut gate) = slow();
        let builder = Broker::builder().tcp("localhost:0").store(store).authenticator(AllowAll);
        let builder = if on_own_threads { builder.shards(2) } else { builder.on_current_arbiter() };
        let starting = actix_rt::spawn(builder.start());
        let mut calls = Vec::new();
        while calls.len() < 4 {
            calls.push(gate.asked.recv().await.unwrap());
            assert!(!starting.is_finished(), "the store has not answered");
            gate.permits.send(()).unwrap();
        }
        calls.sort_unstable();
        assert_eq!(calls, ["bounds", "records", "retained", "sessions"]);
        let broker = starting.await.unwrap().unwrap();
        assert!(broker.is_ready());
        broker.shutdown(Duration::from_secs(60)).await;
    }
}

#[actix_rt::test]
async fn a_start_that_is_given_up_leaves_nothing_behind() {
    let address = free_address();
    let (store, mut gate) = slow();
    let builder = Broker::builder().tcp(address.to_string()).store(store).shards(1);
    let starting = actix_rt::spawn(builder.start());
    let mut calls = 0;
    while gate.asked.recv().await != Some("sessions") {
        calls += 1;
        gate.permits.send(()).unwrap();
    }
    assert!(calls > 0);
    starting.abort();
    assert!(starting.await.unwrap_err().is_cancelled());
    // The broker ends, and with it its store, perhaps before it asks for a second permit.
    gate.permits.send(()).unwrap();
    let _ = gate.permits.send(());
    while gate.asked.recv().await.is_some() {}
    TcpListener::bind(address).unwrap();
}

/// What a store says about itself reaches the caller.
#[actix_rt::test]
async fn a_store_that_panics_does_so_in_its_caller() {
    let (store, gate) = slow();
    drop(gate);
    let starting = actix_rt::spawn(Broker::builder().store(store).start());
    let panicked = starting.await.unwrap_err();
    assert!(panicked.is_panic());
}
