//! A subscriber that never reads, one that reads a byte at a time, and a publisher that floods
//! them: other clients are not affected, memory stays within the sum of the limits, and the metrics
//! show what happened.

use std::{
    io::Read,
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use hearthmq::mqtt::{
    Ack, Packet, PacketId, Publish, PublishFlags, PublishProperties, QoS, encode,
};

use crate::{
    mqtt::{Client, connect},
    program::{Place, Program},
};

const PAIRS: u32 = 20;
const MESSAGES_OF_A_PAIR: u32 = 300;
const FLOOD_BYTES: usize = 50_000;
const MIB: u64 = 1024 * 1024;
/// The limits of the program under test, and the sum that docs/operations.md computes from them.
// The clients have one address, and with it one share, of the queues.
const LIMITS: [&str; 10] = [
    "limits.queue_bytes_max=16777216",
    "limits.queue_bytes_per_user_max=16777216",
    "limits.queue_messages_per_user_max=20000",
    "limits.queue_bytes_per_client_max=4194304",
    "limits.queue_messages_max=20000",
    "limits.queue_messages_per_client_max=10000",
    "limits.packet_bytes_max=65536",
    "limits.incomplete_packet_bytes_max=1048576",
    "limits.retained_bytes_max=1048576",
    "limits.connections_max=50",
];
const SHARDS: u64 = 2;

/// Queues, queued messages, retained messages, Wills and incomplete packets; then what each
/// connection and each shard may hold.
const fn bytes_max() -> u64 {
    let in_all = 16 * MIB + 20_000 * 256 + MIB + 2 * MIB;
    let a_connection = 600 * 1024 + 4 * 65_536;
    let a_session = 96 * 1024;
    in_all + 50 * (a_connection + a_session) + SHARDS * 24 * MIB
}

fn publish<'a>(topic: &'a str, payload: &'a [u8], packet_id: u16) -> Packet<'a> {
    Packet::Publish(Publish {
        flags: PublishFlags { qos: QoS::AtLeastOnce, ..PublishFlags::default() },
        topic,
        packet_id: PacketId::new(packet_id),
        properties: PublishProperties::default(),
        payload,
    })
}

fn acknowledge(client: &mut Client, id: PacketId) {
    client.send(&Packet::PubAck(Ack::success(id)));
}

/// Sends one message after the other, each acknowledged to its publisher and by its subscriber.
fn converse(program: &Program, pair: u32) {
    let topic = format!("pair/{pair}");
    let mut subscriber = program.client(&format!("subscriber-{pair}"));
    subscriber.subscribe(&topic, QoS::AtLeastOnce);
    let mut publisher = program.client(&format!("publisher-{pair}"));
    for number in 0..MESSAGES_OF_A_PAIR {
        let payload = number.to_be_bytes();
        publisher.publish(&topic, &payload, Some(1)).unwrap();
        let arrived = subscriber.message();
        assert_eq!((&*arrived.topic, &*arrived.payload), (&*topic, &payload[..]));
        acknowledge(&mut subscriber, arrived.packet_id.unwrap());
        publisher.receive(|packet| assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}"));
    }
}

/// Publishes as long as the broker reads, and counts acknowledged messages.
fn flood(program: &Program, is_over: &AtomicBool, acknowledged: &AtomicU64) {
    let mut client = program.client("flood");
    let payload = vec![b'x'; FLOOD_BYTES];
    let mut bytes = Vec::new();
    encode(&publish("flood", &payload, 1), connect("").version, &mut bytes).unwrap();
    let mut answers = client.stream.try_clone().unwrap();
    answers.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 4096];
            while !is_over.load(Ordering::Relaxed) {
                // A PUBACK with success has four bytes.
                if let Ok(read) = answers.read(&mut buffer) {
                    acknowledged.fetch_add(read as u64, Ordering::Relaxed);
                }
            }
        });
        client.stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut written = 0;
        while !is_over.load(Ordering::Relaxed) {
            match std::io::Write::write(&mut client.stream, &bytes[written..]) {
                Ok(n) => written = (written + n) % bytes.len(),
                Err(error) => assert!(is_timeout(&error), "{error}"),
            }
        }
    });
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// Reads one byte after the other.
fn sip(mut stream: &TcpStream, is_over: &AtomicBool) {
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut byte = [0];
    while !is_over.load(Ordering::Relaxed) {
        match stream.read(&mut byte) {
            Ok(read) => assert_eq!(read, 1, "the connection stays"),
            Err(error) => assert!(is_timeout(&error), "{error}"),
        }
        thread::yield_now();
    }
}

/// Runs everything together; returns the program's peak memory, the number of messages of the flood
/// that were acknowledged, and the metrics.
fn run(policy: &str) -> (u64, u64, String) {
    let mut place = Place::new()
        .set(format!("shards={SHARDS}"))
        .set(format!("limits.queue_full={policy}"))
        .set("limits.queue_hold_secs_max=1");
    for limit in LIMITS {
        place = place.set(limit);
    }
    let program = place.start();
    let before = program.memory_highest();
    let mut never_reads = program.client("never-reads");
    let mut sips = program.client("sips");
    for client in [&mut never_reads, &mut sips] {
        client.subscribe("flood", QoS::AtLeastOnce);
    }
    let (is_over, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| flood(&program, &is_over, &acknowledged));
        scope.spawn(|| sip(&sips.stream, &is_over));
        let program = &program;
        let pairs: Vec<_> =
            (0..PAIRS).map(|pair| scope.spawn(move || converse(program, pair))).collect();
        let outcomes: Vec<_> = pairs.into_iter().map(|pair| pair.join()).collect();
        // The flood must send more than the queues hold, however fast the other clients were.
        let enough = 8 * (32 * MIB / FLOOD_BYTES as u64);
        while acknowledged.load(Ordering::Relaxed) < enough && outcomes.iter().all(Result::is_ok) {
            thread::sleep(Duration::from_millis(10));
        }
        is_over.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            outcome.unwrap();
        }
    });
    let metrics = program.call_as(None, "GET /metrics").body;
    (program.memory_highest() - before, acknowledged.into_inner() / 4, metrics)
}

/// Returns a counter or gauge from the metrics.
fn value(metrics: &str, name: &str) -> u64 {
    let mut lines = metrics.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(found, _)| *found == name).unwrap().1.parse().unwrap()
}

fn assert_bounded(grown: u64, metrics: &str) {
    assert!(grown < bytes_max(), "{} MiB more than before", grown / MIB);
    let highest = value(metrics, "hearthmq_queue_bytes_highest");
    assert!(highest <= 16 * MIB + FLOOD_BYTES as u64, "{highest}");
}

#[test]
fn a_flood_for_those_who_do_not_read_costs_them_their_oldest_messages() {
    let (grown, acknowledged, metrics) = run("drop-oldest");
    assert_bounded(grown, &metrics);
    let dropped = value(&metrics, "hearthmq_messages_dropped_total{reason=\"queue_full\"}");
    assert!(dropped > acknowledged, "of two subscribers, {dropped} of {acknowledged}");
    assert_eq!(value(&metrics, "hearthmq_publisher_holds_total{reason=\"subscriber_full\"}"), 0);
}

#[test]
fn a_flood_is_held_until_those_who_do_not_read_are_given_up() {
    let (grown, _, metrics) = run("hold-publisher");
    assert_bounded(grown, &metrics);
    assert!(value(&metrics, "hearthmq_publisher_holds_total{reason=\"subscriber_full\"}") > 0);
    assert!(value(&metrics, "hearthmq_subscribers_given_up_total") > 0);
}
