//! A whole broker on virtual time, with hostile clients and well-behaved ones among them.
//!
//! Each input is a round: the actions of up to four hostile clients, packet by packet, nearly valid
//! and completely invalid. Meanwhile two pairs of clients converse, and must not notice: they lose
//! nothing, see nothing of others, get their answers and stay connected. After the round the
//! hostile clients are gone, and everything that the broker stored for them must be gone too. The
//! broker lives as long as the fuzzer.
//!
//! The broker has three shards on one thread, or as many as `HEARTHMQ_FUZZ_SHARDS` says. The input
//! decides in which order their mail is delivered. It also decides when a caller bans hostile clients and
//! denies them topics.
//!
//! `cargo +nightly fuzz run broker -- -max_total_time=3600 -max_len=1024 -len_control=0`

#![no_main]

mod access;
mod calls;
mod hostile;
mod pair;

use std::{
    alloc::System as Memory,
    cell::RefCell,
    collections::BTreeSet,
    env,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use actix_rt::{System, SystemRunner};
use futures_util::FutureExt;
use hearthmq::{
    Broker,
    actors::Subscription,
    auth::{AccessRequest, Action, AllowAll, Authorizer, Decision, FilePolicy, Rule, StoredRules},
    broker::simulation::SimulatedShards,
    limits::Limits,
    metrics::{Gauge, Metrics, ShardMetrics},
    mqtt::QoS,
};
use hearthmq_test::{line, post::Post};
use libfuzzer_sys::fuzz_target;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::time::sleep;

use self::{calls::Calls, hostile::Hostile, pair::Pair};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<Memory> = &INSTRUMENTED_SYSTEM;

/// Number of rounds until caches, buffers and tables have reached their sizes.
const WARM_UP_ROUNDS: u64 = 2_000;
/// How much the heap may grow in all later rounds together. Shards keep used output buffers, and
/// tables their capacity; every leak of a round counts against this.
const GROWTH_BYTES_MAX: usize = 256 * 1024;
/// Number of rounds between two reports of the heap on standard error.
const TOLD_EVERY_ROUNDS: u64 = 10_000;

/// Number of shards, if none is given.
const SHARDS: u16 = 3;
/// Gives the clients of both pairs homes on different shards.
const HOMES: u64 = 1;

/// Maximum time that sessions outlive their connections.
const EXPIRY_SECS_MAX: u32 = 1;
/// Time after which hostile sessions have ended, and closing connections are closed.
const CLEARING_TIME: Duration = Duration::from_millis(2_500);

const GOOD_PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 1883);
const BAD_PEER: ([u8; 4], u16) = ([192, 0, 2, 66], 1883);
/// Topics of the well-behaved clients begin with this.
const GOOD: &str = "good/";

/// Knows the well-behaved clients by their address, which no packet can change. What it allows, rules of the
/// store may deny.
struct Guard(FilePolicy);

impl Guard {
    fn new() -> Self {
        let allow = serde_json::from_str::<Rule>(r#"{"effect":"allow"}"#).expect("it is a rule");
        Self(FilePolicy::new(vec![allow]))
    }
}

impl Authorizer for Guard {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let is_good = request.peer == SocketAddr::from(GOOD_PEER);
        let is_allowed = match request.action {
            Action::Connect => request.client_id.starts_with("good") == is_good,
            // Retained messages that `#` does not match could not be cleared.
            Action::Publish { topic, retain, .. } => {
                is_good || !(topic.starts_with(GOOD) || (retain && topic.starts_with('$')))
            }
            Action::Subscribe { .. } => true,
            Action::Observe | Action::Control | Action::Administer => false,
            _ => false, // an action of a later version
        };
        if is_allowed { self.0.authorize(request) } else { Decision::Deny }
    }

    fn stored_rules(&self) -> Option<&dyn StoredRules> {
        self.0.stored_rules()
    }

    fn generation(&self) -> u64 {
        self.0.generation()
    }
}

struct World {
    broker: Broker,
    post: Post,
    pairs: [Pair; 2],
    /// Receives everything, so that all retained topics are known.
    ears: Subscription,
    /// Numbers of sessions, connections, subscriptions, queued messages and bytes, retained
    /// messages and bytes.
    baseline: [u64; 7],
    heap_bytes: usize,
}

thread_local! {
    static RUNNER: SystemRunner = System::with_tokio_rt(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().expect("a runtime can be built")
    });
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

static ROUNDS: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|bytes: &[u8]| {
    RUNNER.with(|runner| {
        let world = WORLD.with(|world| world.borrow_mut().take());
        let world = runner.block_on(async move {
            let mut world = match world {
                Some(world) => world,
                None => World::new().await,
            };
            world.round(bytes).await;
            world
        });
        WORLD.with(|kept| *kept.borrow_mut() = Some(world));
    });
});

/// Lets all clients do what they have to do.
async fn moment() {
    sleep(Duration::from_millis(1)).await;
}

impl World {
    async fn new() -> Self {
        let limits = Limits {
            connects_per_address_per_sec: 0,
            packet_bytes_max: 64 * 1024,
            session_expiry_secs_max: EXPIRY_SECS_MAX,
            queue_messages_per_client_max: 50,
            retained_messages_max: 100,
            subscriptions_per_client_max: 20,
            receive_maximum: 10,
            sessions_max: 50,
            ..Limits::default()
        };
        let shards =
            env::var("HEARTHMQ_FUZZ_SHARDS").map_or(SHARDS, |n| n.parse().expect("a number"));
        let post = Post::open(&SimulatedShards::new(shards, HOMES), 0);
        let builder = Broker::builder()
            .simulated(post.shards())
            .limits(limits)
            .authenticator(AllowAll)
            .authorizer(Guard::new());
        let broker = builder.start().await.expect("a broker starts");
        let ears = broker.subscribe("#", QoS::AtMostOnce).expect("a filter");
        // From the first request on, the broker is subscribed to replies.
        drop(broker.new_response_topic());
        let pairs = [Pair::new(&broker, 0).await, Pair::new(&broker, 1).await];
        let mut world = Self { baseline: [0; 7], heap_bytes: 0, broker, post, pairs, ears };
        world.baseline = numbers(&world.broker.metrics());
        world
    }

    async fn round(&mut self, bytes: &[u8]) {
        let mut order = DefaultHasher::new();
        bytes.hash(&mut order);
        self.post.reseed(order.finish());
        let mut hostile = Hostile::new(&self.broker, bytes);
        let (mut acts, mut calls) = (0, Calls::default());
        while hostile.act().await {
            acts += 1;
            if acts % 4 == 0 {
                calls.begin(&self.broker, if acts % 8 == 0 { "a" } else { "a/b" });
            }
            if acts % 16 == 0 {
                self.converse().await;
            }
        }
        drop(hostile);
        self.converse().await;
        access::clear(&self.broker).await;
        let round = ROUNDS.fetch_add(1, Ordering::Relaxed) + 1;
        let pair = &mut self.pairs[(round % 2) as usize];
        match round % 8 {
            0 => pair.retains(&self.broker).await,
            4 => pair.has_a_will(&self.broker).await,
            _ => {}
        }
        self.clear().await;
        calls.end().await;
        self.converse().await;
        self.clear_retained().await;
        drop(self.post.take_delivered());
        assert_eq!(numbers(&self.broker.metrics()), self.baseline, "what a round leaves");
        self.check_heap(round);
    }

    async fn converse(&mut self) {
        for pair in &mut self.pairs {
            pair.converse().await;
        }
    }

    /// Lets time pass until all hostile sessions have ended.
    async fn clear(&mut self) {
        sleep(CLEARING_TIME).await;
    }

    /// Clears retained messages on every topic seen.
    async fn clear_retained(&mut self) {
        let mut topics = BTreeSet::new();
        while let Some(Some(received)) = self.ears.next().now_or_never() {
            let topic = received.message.topic();
            if !topic.starts_with(GOOD) {
                topics.insert(topic.to_owned());
            }
        }
        for topic in &topics {
            let cleared = self.broker.publish(topic, b"", QoS::AtMostOnce, true).await;
            cleared.expect("the topic is one");
        }
        while let Some(Some(_)) = self.ears.next().now_or_never() {}
    }

    fn check_heap(&mut self, round: u64) {
        let stats = ALLOCATOR.stats();
        let held = stats.bytes_allocated - stats.bytes_deallocated;
        if round <= WARM_UP_ROUNDS {
            self.heap_bytes = self.heap_bytes.max(held);
        }
        if round % TOLD_EVERY_ROUNDS == 0 || round == WARM_UP_ROUNDS {
            eprintln!("round {round}: {held} bytes on the heap, {} after warm-up", self.heap_bytes);
        }
        assert!(
            held <= self.heap_bytes + GROWTH_BYTES_MAX,
            "{held} bytes on the heap after {round} rounds, {} after warm-up",
            self.heap_bytes
        );
    }
}

fn numbers(metrics: &Metrics) -> [u64; 7] {
    let totals = metrics.totals();
    let of_shards = |gauge: fn(&ShardMetrics) -> &Gauge| -> u64 {
        metrics.shards().map(|shard| gauge(&shard).value()).sum()
    };
    [
        of_shards(|shard| &shard.sessions),
        of_shards(|shard| &shard.connections),
        totals.subscriptions.value(),
        totals.queue_messages.value(),
        totals.queue_bytes.value(),
        totals.retained_messages.value(),
        totals.retained_bytes.value(),
    ]
}
