//! With `store.sync = "off"`, acknowledgements do not wait for the store, so a kill may lose the last
//! changes. The others are there, complete and in order: of each queue, what is left is a beginning.
//!
//!     HEARTHMQ_CRASH_ROUNDS=100 cargo test --release --test crash -- --nocapture unsynced::
//!
//! The same seed gives the same plan. It cannot repeat the timing of threads.

use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use hearthmq::mqtt::{Packet, ProtocolVersion::V5, QoS, ReasonCode};
use hearthmq_test::{
    mqtt::{Client, arrived},
    packets::{connect_lasting, disconnect, filter, puback, publish_1, retained, subscribe},
};

use crate::{
    number,
    program::{PATIENCE, Place, Program},
};

/// Durable clients that are absent at the kill. Several, so that each shard has one.
const ABSENT: [&str; 4] = ["absent-0", "absent-1", "absent-2", "absent-3"];
/// The topic of the messages, which have consecutive numbers and are retained.
const TOPIC: &str = "unsynced/number";
/// The topic of the message after which a queue is empty.
const END: &str = "unsynced/end";
/// Rounds unless the environment sets it.
const ROUNDS: u64 = 6;

/// The numbers of a round.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    /// The last number that was stored before the kill.
    stored: u32,
    /// The last one that was acknowledged.
    acknowledged: u32,
}

#[test]
fn a_kill_without_syncs_leaves_a_beginning_of_each_queue() {
    let first = number("HEARTHMQ_CRASH_SEED").unwrap_or(1);
    let rounds = number("HEARTHMQ_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let place = Place::new().set("store.sync=off");
    let mut program = place.start();
    for id in ABSENT {
        let mut client = program.connected(connect_lasting(id, V5));
        client.subscribe("unsynced/#", QoS::AtLeastOnce);
        leave(client);
    }
    let (mut next, mut lost) = (1, 0);
    for seed in first..first + rounds {
        let numbers = kill_in_a_load(&mut program, next, &mut Rng::with_seed(seed));
        program = place.start();
        let kept = retained_number(&program);
        end_queues(&program);
        for id in ABSENT {
            let found = drain(&program, id);
            let whole: Vec<u32> = (next..next + found.len() as u32).collect();
            assert_eq!(found, whole, "seed {seed}: {id} has a gap, or messages twice; {numbers:?}");
            let last = next + found.len() as u32 - 1;
            // One more may be stored than was acknowledged.
            let allowed = numbers.stored..=numbers.acknowledged + 1;
            assert!(allowed.contains(&last), "seed {seed}: {id} has up to {last}; {numbers:?}");
            assert!(allowed.contains(&kept), "seed {seed}: {kept} is retained; {numbers:?}");
            lost += u64::from(numbers.acknowledged.saturating_sub(last));
        }
        next = numbers.acknowledged + 2;
    }
    eprintln!("{rounds} kills without syncs: {lost} of {} messages lost at their end", next - 1);
}

/// Publishes until the program is killed in the middle.
fn kill_in_a_load(program: &mut Program, first: u32, random: &mut Rng) -> Numbers {
    let (before, during) = (random.u32(1..200), random.u32(1..400));
    let later = Duration::from_micros(random.u64(..5_000));
    let address = program.address("mqtt");
    let mut publisher = publisher(program);
    for number in first..first + before {
        publish(&mut publisher, TOPIC, number).unwrap();
    }
    wait_until_stored(program);
    let stored = first + before - 1;
    let acknowledged = AtomicU32::new(stored);
    thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut number = stored + 1;
            while publish(&mut publisher, TOPIC, number).is_ok() {
                acknowledged.store(number, Ordering::Release);
                number += 1;
            }
        });
        let until = Instant::now() + PATIENCE;
        while acknowledged.load(Ordering::Acquire) < stored + during {
            assert!(Instant::now() < until, "{address} acknowledges nothing");
            thread::yield_now();
        }
        thread::sleep(later);
        program.killed();
        publishing.join().unwrap();
    });
    Numbers { stored, acknowledged: acknowledged.into_inner() }
}

fn publisher(program: &Program) -> Client {
    program.connected(connect_lasting("publisher", V5))
}

/// Publishes a retained number; returns after PUBACK.
fn publish(client: &mut Client, topic: &str, number: u32) -> io::Result<()> {
    let payload = number.to_string();
    client.try_send(&Packet::Publish(retained(publish_1(1, topic, &payload))))?;
    client.try_receive(|packet| match packet {
        Packet::PubAck(ack) => assert_eq!(ack.reason, ReasonCode::Success),
        packet => panic!("PUBACK expected, not {packet:?}"),
    })
}

/// Waits until the operating system has all changes.
fn wait_until_stored(program: &Program) {
    let until = Instant::now() + PATIENCE;
    loop {
        let metrics = program.call("GET /metrics").body;
        let waiting = metrics.lines().find_map(|line| {
            line.strip_prefix("hearthmq_store_waiting_bytes ")?.parse::<f64>().ok()
        });
        if waiting.expect("the metric is there") == 0.0 {
            return;
        }
        assert!(Instant::now() < until, "{waiting:?} bytes are not stored");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Appends a last message to each queue.
fn end_queues(program: &Program) {
    let mut publisher = publisher(program);
    publish(&mut publisher, END, 0).unwrap();
    leave(publisher);
}

/// Returns the numbers in the queue of an absent client, which it takes and acknowledges.
fn drain(program: &Program, id: &str) -> Vec<u32> {
    let mut client = program.connected(connect_lasting(id, V5));
    let mut numbers = Vec::new();
    loop {
        let message = client.message();
        client.send(&puback(message.packet_id.unwrap().0.get(), ReasonCode::Success));
        if message.topic == END {
            leave(client);
            wait_until_stored(program);
            return numbers;
        }
        numbers.push(number_of(&message.payload));
    }
}

fn number_of(payload: &[u8]) -> u32 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

/// Returns the number that a new subscriber receives.
fn retained_number(program: &Program) -> u32 {
    let mut client = program.client("inspector");
    client.send(&subscribe(1, vec![filter(TOPIC, QoS::AtMostOnce)]));
    loop {
        let found = client.receive(|packet| match packet {
            Packet::Publish(publish) => Some(number_of(&arrived(&publish).payload)),
            _ => None,
        });
        if let Some(number) = found {
            return number;
        }
    }
}

fn leave(mut client: Client) {
    client.send(&disconnect(ReasonCode::Success));
    client.expect_closed();
}
