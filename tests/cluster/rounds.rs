//! Rounds of kills: three brokers and three NATS servers, of which one after the other is killed and started again, under
//! publishers and subscribers with a book of promises.
//!
//! Each broker has a publisher of QoS 1 and 2 and a subscriber with a lasting session, and another subscriber moves
//! between the brokers that live. The book has what was promised, as `docs/cluster.md` says it:
//!
//! - a message that was acknowledged reaches each subscriber whose broker lived from its PUBLISH to its acknowledgement;
//! - the subscriber of a killed broker, once it is back, has all messages that were acknowledged before the kill;
//! - no message of QoS 2 comes twice (no publisher sends one again);
//! - the death of a broker ends the connections of its own clients alone, unless a broker has fenced itself.
//!
//! On a machine that is too busy, brokers lose their leases when a NATS server dies. Such a round is counted; what a
//! broker without leases does not promise is not expected then.
//!
//! `HEARTHMQ_CLUSTER_ROUNDS` is the number of rounds, and `HEARTHMQ_CLUSTER_KILL_SEED` the first one.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Packet, ReasonCode};
use hearthmq_test::{
    mqtt::{Client, connect, tcp},
    nats::NatsServers,
    packets::{publish_1, publish_2, pubrel},
};

use crate::{
    running::Node,
    subscriber::{Stream, Subscriber},
    support::PATIENCE,
};

const BROKERS: usize = 3;
const NAMES: [&str; BROKERS] = ["a", "b", "c"];
/// Time of a round before and after its kill.
const CALM: Duration = Duration::from_millis(700);
/// Between two kills of NATS servers, so that the leaders of the leases are spread again.
const SPREAD: Duration = Duration::from_secs(10);

/// The incarnation of a broker that is killed.
const DEAD: u64 = 0;

/// A message that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Promise {
    published: Instant,
    acknowledged: Instant,
}

/// The promises of all publishers, and where the brokers are.
#[derive(Default)]
struct Book {
    promises: Mutex<BTreeMap<(Stream, u64), Promise>>,
    addresses: Mutex<[Option<SocketAddr>; BROKERS]>,
    /// The number of connections that ended, by broker.
    ended: Mutex<[u32; BROKERS]>,
    stop: AtomicBool,
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Publishes on one broker until the end; what is not acknowledged when a connection ends is not promised.
fn publish(book: &Book, broker: usize) {
    let name = format!("p-{}", NAMES[broker]);
    let mut number = 0;
    while !book.stop.load(Ordering::Relaxed) {
        let address = lock(&book.addresses)[broker];
        let client = address.and_then(|address| {
            let (client, reason) = Client::on(try_tcp(address)?, connect(&name)).ok()?;
            (reason == ReasonCode::Success).then_some(client)
        });
        let Some(mut client) = client else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        while !book.stop.load(Ordering::Relaxed) {
            number += 1;
            if publish_both(book, &mut client, &name, number).is_none() {
                lock(&book.ended)[broker] += 1;
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn try_tcp(address: SocketAddr) -> Option<std::net::TcpStream> {
    std::net::TcpStream::connect(address).ok()?;
    Some(tcp(address))
}

/// Publishes a message of each QoS; returns whether both were acknowledged.
fn publish_both(book: &Book, client: &mut Client, name: &str, number: u64) -> Option<()> {
    let text = format!("{name} {number}");
    let published = Instant::now();
    client.try_send(&Packet::Publish(publish_1(1, "hop/one", &text))).ok()?;
    client.try_send(&Packet::Publish(publish_2(2, "hop/two", &text))).ok()?;
    let mut left = 3; // PUBACK, PUBREC and PUBCOMP.
    while left > 0 {
        let (qos, release) = client
            .try_receive(|packet| match packet {
                Packet::PubAck(_) => Some((Some(1), None)),
                Packet::PubRec(ack) => Some((Some(2), Some(ack.packet_id.0.get()))),
                Packet::PubComp(_) => Some((None, None)),
                Packet::Disconnect(_) => None,
                packet @ (Packet::Connect(_)
                | Packet::ConnAck(_)
                | Packet::Publish(_)
                | Packet::PubRel(_)
                | Packet::Subscribe(_)
                | Packet::SubAck(_)
                | Packet::Unsubscribe(_)
                | Packet::UnsubAck(_)
                | Packet::PingReq
                | Packet::PingResp
                | Packet::Auth(_)
                | _) => panic!("{packet:?}"),
            })
            .ok()
            .flatten()?;
        left -= 1;
        if let Some(qos) = qos {
            let promise = Promise { published, acknowledged: Instant::now() };
            lock(&book.promises).insert(((name.to_owned(), qos), number), promise);
        }
        if let Some(id) = release {
            client.try_send(&pubrel(id)).ok()?;
        }
    }
    Some(())
}

/// A subscriber, and the times in which its broker is not there for it.
struct Reader {
    subscriber: Subscriber,
    id: String,
    broker: usize,
    away: Vec<(Instant, Instant)>,
}

impl Reader {
    fn start(id: &str, broker: usize, node: &Node) -> Self {
        let mut subscriber = Subscriber::default();
        subscriber.connect(node, id);
        subscriber.subscribe();
        Self { subscriber, id: id.to_owned(), broker, away: Vec::new() }
    }

    /// Connects again, and subscribes; returns Session Present. It was away from this time on.
    fn come_back(&mut self, node: &Node, from: Instant) -> bool {
        let is_present = self.subscriber.connect(node, &self.id);
        self.subscriber.subscribe();
        self.away.push((from, Instant::now()));
        is_present
    }

    /// Returns what was promised to it in this time and has not come.
    fn missing(&self, book: &Book, (since, until): (Instant, Instant)) -> Vec<(Stream, u64)> {
        let is_due = |promise: &Promise| {
            let meets = |(from, to): &(Instant, Instant)| {
                promise.acknowledged >= *from && promise.published <= *to
            };
            let is_in_time = promise.published > since && promise.acknowledged < until;
            is_in_time && !self.away.iter().any(meets)
        };
        let promises = lock(&book.promises);
        let due = promises.iter().filter(|(_, promise)| is_due(promise));
        let is_missing = |(stream, number): &(Stream, u64)| {
            let received = self.subscriber.received.get(stream);
            !received.is_some_and(|received| received.contains_key(number))
        };
        due.map(|(name, _)| name.clone()).filter(is_missing).collect()
    }
}

/// What a round kills.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Broker(usize),
    Nats(usize),
}

/// The rounds, with the connections that have ended in the present one.
struct Rounds {
    servers: NatsServers,
    nodes: Vec<Node>,
    readers: Vec<Reader>,
    hopper: Reader,
    began: Instant,
    nats_at: Instant,
    round_at: Instant,
    incarnations: Vec<u64>,
    /// Rounds in which a broker has fenced itself.
    fenced: u64,
}

impl Rounds {
    fn start(book: &Book) -> Option<Self> {
        let servers = NatsServers::start(3)?;
        let nodes: Vec<Node> = NAMES.iter().map(|name| Node::serving(name, &servers)).collect();
        *lock(&book.addresses) = [0, 1, 2].map(|broker| Some(nodes[broker].address()));
        let reader =
            |broker: usize| Reader::start(&format!("s-{}", NAMES[broker]), broker, &nodes[broker]);
        let readers = (0..BROKERS).map(reader).collect();
        let hopper = Reader::start("hopper", 0, &nodes[0]);
        let now = Instant::now();
        let mut rounds = Self {
            servers,
            nodes,
            readers,
            hopper,
            began: now,
            nats_at: now,
            round_at: now,
            incarnations: Vec::new(),
            fenced: 0,
        };
        rounds.incarnations = rounds.incarnations();
        Some(rounds)
    }

    /// Lets all subscribers receive for a time.
    fn receive(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for reader in self.readers.iter_mut().chain([&mut self.hopper]) {
                reader.subscriber.receive(Duration::from_millis(5), |_| false);
            }
        }
    }

    /// Lets subscribers whose connection has ended come back.
    fn come_back(&mut self, dead: Option<usize>) {
        for reader in self.readers.iter_mut().filter(|reader| Some(reader.broker) != dead) {
            if reader.subscriber.has_ended {
                reader.come_back(&self.nodes[reader.broker], self.round_at);
            }
        }
        if self.hopper.subscriber.has_ended {
            self.hopper.come_back(&self.nodes[self.hopper.broker], self.round_at);
        }
    }

    fn hop(&mut self, dead: Option<usize>) {
        let living: Vec<usize> = (0..BROKERS).filter(|broker| Some(*broker) != dead).collect();
        for _ in 0..3 {
            let others: Vec<_> = living.iter().filter(|to| **to != self.hopper.broker).collect();
            let Some(to) = others.first() else { return };
            let (to, id) = (**to, self.hopper.id.clone());
            // A broker that has fenced itself may be dead: then its part of the session comes later, or never.
            let is_whole = !self.hopper.subscriber.has_ended;
            let is_present = self.hopper.subscriber.connect(&self.nodes[to], &id);
            assert!(is_present || !is_whole || self.is_fenced(), "the session has moved");
            if !is_present || !is_whole {
                self.hopper.subscriber.subscribe();
                self.hopper.away.push((self.round_at, Instant::now()));
            }
            self.hopper.broker = to;
            self.receive(Duration::from_millis(60));
        }
    }

    fn round(&mut self, book: &Book, number: u64, victim: Victim) {
        self.receive(CALM);
        self.hop(None);
        let ended = *lock(&book.ended);
        self.round_at = Instant::now();
        match victim {
            Victim::Broker(broker) => self.kill_broker(book, number, broker),
            Victim::Nats(server) => self.kill_nats(server),
        }
        self.receive(CALM);
        let is_fenced = self.is_fenced();
        for (broker, before) in ended.into_iter().enumerate() {
            let may_end = matches!(victim, Victim::Broker(killed) if killed == broker);
            let has_ended = lock(&book.ended)[broker] != before;
            assert!(
                may_end || is_fenced || !has_ended,
                "{victim:?}: connections to {broker} ended"
            );
        }
        if is_fenced {
            println!("a broker has fenced itself");
            self.fenced += 1;
            self.nodes.iter().for_each(|node| drop(node.wait_for("serving")));
        }
        self.come_back(None);
        self.incarnations = self.incarnations();
    }

    /// Returns the lives of the brokers that live.
    fn incarnations(&self) -> Vec<u64> {
        let life = |node: &Node| node.get("/api/v1/cluster").1["incarnation"].as_u64();
        self.nodes.iter().map(|node| life(node).unwrap_or_default()).collect()
    }

    /// Returns whether a broker has begun another life in this round, or is without leases.
    fn is_fenced(&self) -> bool {
        let is_it = |(node, life): (&Node, &u64)| {
            if *life == DEAD {
                return false;
            }
            let cluster = node.get("/api/v1/cluster").1;
            cluster["state"] != "serving" || cluster["incarnation"].as_u64() != Some(*life)
        };
        self.nodes.iter().zip(&self.incarnations).any(is_it)
    }

    fn kill_broker(&mut self, book: &Book, number: u64, broker: usize) {
        // The hopper is elsewhere: its session would lie on a dead broker.
        if self.hopper.broker == broker {
            self.hop(Some(broker));
        }
        let from = Instant::now();
        self.nodes[broker].kill();
        lock(&book.addresses)[broker] = None;
        self.incarnations[broker] = DEAD;
        // Sometimes it is back before the others declare it dead.
        let rest = Duration::from_millis(500 + number * 3_700 % 9_000);
        self.receive(rest);
        self.hop(Some(broker));
        let node = self.nodes.remove(broker).start_again();
        node.wait_for("serving");
        let life = node.get("/api/v1/cluster").1["incarnation"].as_u64();
        self.incarnations[broker] = life.unwrap_or_default();
        self.nodes.insert(broker, node);
        let (node, reader) = (&self.nodes[broker], &mut self.readers[broker]);
        assert!(reader.come_back(node, from), "its session lies on its broker");
        lock(&book.addresses)[broker] = Some(node.address());
    }

    fn kill_nats(&mut self, server: usize) {
        let spread = SPREAD.saturating_sub(self.nats_at.elapsed());
        self.receive(spread);
        self.servers.kill(server);
        self.receive(Duration::from_secs(3));
        self.hop(None);
        self.servers.start_again(server);
        self.nats_at = Instant::now();
    }

    /// Waits for what is missing, and compares all with the book.
    fn check(&mut self, book: &Book) {
        // The publishers go on meanwhile.
        let time = (self.began, Instant::now());
        let is_missing = |rounds: &Self| {
            let mut all = rounds.readers.iter().chain([&rounds.hopper]);
            all.any(|reader| !reader.missing(book, time).is_empty())
        };
        while is_missing(self) && time.1.elapsed() < PATIENCE / 2 {
            self.receive(Duration::from_millis(100));
        }
        for reader in self.readers.iter().chain([&self.hopper]) {
            assert_eq!(reader.missing(book, time), vec![], "{} misses", reader.id);
            assert_eq!(reader.subscriber.doubled(), vec![], "{} has twice", reader.id);
        }
    }
}

fn number_of(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Three rounds, or as many as the variable says.
#[test]
fn what_was_promised_is_kept_when_brokers_and_nats_servers_are_killed() {
    let count = number_of("HEARTHMQ_CLUSTER_ROUNDS").unwrap_or(3);
    let first = number_of("HEARTHMQ_CLUSTER_KILL_SEED").unwrap_or(0);
    let book = Book::default();
    let Some(mut rounds) = Rounds::start(&book) else { return };
    thread::scope(|scope| {
        for broker in 0..BROKERS {
            let book = &book;
            scope.spawn(move || publish(book, broker));
        }
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in first..first + count {
                let which = (number / 2) as usize % 3;
                let victim =
                    if number % 2 == 0 { Victim::Broker(which) } else { Victim::Nats(which) };
                println!("round {number}: {victim:?}");
                rounds.round(&book, number, victim);
                rounds.check(&book);
            }
        }));
        book.stop.store(true, Ordering::Relaxed);
        if let Err(failed) = played {
            std::panic::resume_unwind(failed);
        }
    });
    let (promises, out_of_order) =
        (lock(&book.promises).len(), |reader: &Reader| reader.subscriber.out_of_order.len());
    println!(
        "{count} rounds ({} with a fenced broker): {promises} messages acknowledged, none lost, none of \
         QoS 2 twice; out of order: {}",
        rounds.fenced,
        rounds.readers.iter().chain([&rounds.hopper]).map(out_of_order).sum::<usize>()
    );
    assert!(promises > 0);
}
