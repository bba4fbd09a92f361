//! How many events a second a webhook brings to an endpoint on this machine, from a store on disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hearthmq::{
    control::SetKeepAlive,
    store::DirectoryStore,
    webhooks::{Webhook, WebhookBounds, WebhookUrl},
};
use hearthmq_test::receiver::Receiver;

use super::{
    Arguments,
    fleet::{Fleet, client_id},
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Clients whose Keep Alive changes.
const CHANGING: usize = 1_000;
/// Changes that are made while the endpoint has not received them; far below what the feed keeps.
const UNDER_WAY_MAX: u64 = 10_000;
/// How often the number of received events is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What the endpoint has received.
#[derive(Default)]
struct Received {
    messages: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
    is_over: AtomicBool,
}

impl Received {
    /// Takes all messages until the measurement is over.
    fn take_all(&self, receiver: &Receiver) {
        let change = b"\"event\":\"client_keepalive_changed\"";
        while !self.is_over.load(Ordering::Relaxed) {
            let Some(call) = receiver.next_within(LOOK_EVERY) else { continue };
            let events = call.body.windows(change.len()).filter(|part| part == change).count();
            self.messages.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(call.body.len() as u64, Ordering::Relaxed);
            self.events.fetch_add(events as u64, Ordering::Relaxed);
            call.answer("204 No Content");
        }
    }
}

/// Changes Keep Alives as fast as the endpoint receives the events, with two lengths of batches.
pub(crate) async fn throughput(arguments: &Arguments) {
    for batch_events_max in [100, WebhookBounds::BATCH_EVENTS_LARGEST] {
        measure(arguments, batch_events_max).await;
    }
}

async fn measure(arguments: &Arguments, batch_events_max: usize) {
    let receiver = Receiver::start();
    let url = WebhookUrl::new(&format!("http://{}/", receiver.address)).unwrap();
    let webhook = Webhook::new("bench", url, SECRET.parse().unwrap()).unwrap();
    let bounds = WebhookBounds { batch_events_max, ..WebhookBounds::default() };
    let webhook = webhook.bounds(bounds).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(directory.path()).unwrap();
    let mut fleet = Fleet::start_with(arguments.shards, |builder| {
        builder.webhook(webhook).shared_store(Arc::new(store))
    })
    .await;
    fleet.grow_to(CHANGING).await;
    let received = Arc::new(Received::default());
    let endpoint = std::thread::spawn({
        let received = Arc::clone(&received);
        move || received.take_all(&receiver)
    });
    let (began, mut made) = (Instant::now(), 0_u64);
    while began.elapsed() < Duration::from_secs(arguments.secs) {
        // No faster than the endpoint takes them, or the backlog would drop events.
        if made > received.events.load(Ordering::Relaxed) + UNDER_WAY_MAX {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let interval = 30 + (made / CHANGING as u64 % 1_000) as u16;
        let all = (0..CHANGING).map(|number| SetKeepAlive::new(client_id(number), interval));
        let changed = fleet.broker.set_keep_alive_many(all.collect()).await;
        assert!(changed.iter().all(Result::is_ok));
        made += CHANGING as u64;
    }
    let patience = Instant::now() + Duration::from_secs(30);
    while received.events.load(Ordering::Relaxed) < made && Instant::now() < patience {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let secs = began.elapsed().as_secs_f64();
    received.is_over.store(true, Ordering::Relaxed);
    endpoint.join().unwrap();
    fleet.end().await;
    let [messages, events, bytes] = [&received.messages, &received.events, &received.bytes]
        .map(|count| count.load(Ordering::Relaxed));
    println!(
        "webhook with batches of {batch_events_max}: {:.0} events a second, {:.0} messages, {:.1} MB; \
         {} of {made} missed",
        events as f64 / secs,
        messages as f64 / secs,
        bytes as f64 / secs / 1e6,
        made.saturating_sub(events),
    );
}
