//! Measures how long a delivery takes through the whole broker.
//!
//!     cargo bench --bench fan_out
//!
//! The broker runs as one shard on this thread, and its clients on the same thread over in-process
//! streams. So nothing here waits for another thread or for the system's sockets. The work of the
//! clients, reading and writing whole packets, is part of the measurement. Throughput is in
//! deliveries.

#![expect(clippy::unwrap_used, reason = "a benchmark ends where it cannot go on")]

use std::time::{Duration, Instant};

use actix_web::rt::System;
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use hearthmq::{
    Broker,
    auth::AllowAll,
    mqtt::{Packet, ProtocolVersion, Publish},
};
use hearthmq_test::packets::{self, QOS_0, V3_1_1, connect_in, encoded, filter};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// The same allocator as the program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SUBSCRIBERS: [usize; 5] = [1, 10, 100, 500, 5_000];
const PAIRS: usize = 100;
/// Messages that a publisher writes together, so that they share wake-ups as they do under load.
const MESSAGES: usize = 10;
const VERSION: ProtocolVersion = V3_1_1;
const PAYLOAD: [u8; 64] = [b'x'; 64];
/// More bytes than the messages of one write.
const STREAM_BYTES: usize = 4096;

/// A publisher and the subscribers of its topic.
struct Group {
    publisher: DuplexStream,
    subscribers: Vec<DuplexStream>,
    /// The bytes that the publisher writes and each subscriber reads.
    packets: Vec<u8>,
}

fn fan_out(criterion: &mut Criterion) {
    let system = System::new();
    let mut cases = criterion.benchmark_group("fan out QoS 0");
    cases.sampling_mode(SamplingMode::Flat).sample_size(30);
    let fan_outs = SUBSCRIBERS.map(|subscribers| ("subscribers", 1, subscribers));
    for (name, groups, subscribers) in fan_outs.into_iter().chain([("pairs", PAIRS, 1)]) {
        let deliveries = MESSAGES * groups * subscribers;
        cases.throughput(Throughput::Elements(deliveries as u64));
        let mut world = None;
        cases.bench_function(BenchmarkId::new(name, groups * subscribers), |bencher| {
            // Called for every sample, and never for a case that was not requested.
            let (_, groups) =
                world.get_or_insert_with(|| system.block_on(start(groups, subscribers)));
            bencher.iter_custom(|times| system.block_on(publish(groups, times)));
        });
        if let Some((broker, groups)) = world {
            drop(groups);
            system.block_on(broker.shutdown(Duration::from_secs(5)));
        }
    }
    cases.finish();
}

/// Lets all publishers publish `times` times; returns the time until all subscribers have
/// everything.
async fn publish(groups: &mut [Group], times: u64) -> Duration {
    let begin = Instant::now();
    let mut read = [0; STREAM_BYTES];
    for _ in 0..times {
        // All write before one reads, so that the broker can join deliveries.
        for Group { publisher, packets, .. } in groups.iter_mut() {
            publisher.write_all(packets).await.unwrap();
        }
        for Group { subscribers, packets, .. } in groups.iter_mut() {
            for subscriber in subscribers {
                subscriber.read_exact(&mut read[..packets.len()]).await.unwrap();
            }
        }
    }
    begin.elapsed()
}

async fn start(groups: usize, subscribers: usize) -> (Broker, Vec<Group>) {
    let broker = Broker::builder().authenticator(AllowAll).authorizer(AllowAll);
    let broker = broker.on_current_arbiter().start().await.unwrap();
    let mut all = Vec::new();
    for number in 0..groups {
        let topic = format!("fleet/4711/vehicle/{number:04}/telemetry");
        let publisher = connect(&broker, &format!("publisher-{number}")).await;
        let mut heard = Vec::new();
        for at in 0..subscribers {
            let mut subscriber = connect(&broker, &format!("subscriber-{number}-{at}")).await;
            subscribe(&mut subscriber, &topic).await;
            heard.push(subscriber);
        }
        let packets = publish_packet(&topic).repeat(MESSAGES);
        all.push(Group { publisher, subscribers: heard, packets });
    }
    (broker, all)
}

async fn connect(broker: &Broker, client_id: &str) -> DuplexStream {
    let (mut here, there) = tokio::io::duplex(STREAM_BYTES);
    let serve = broker.serve(there, "192.0.2.1:1".parse().unwrap());
    let packet = Packet::Connect(Box::new(connect_in(VERSION, client_id)));
    here.write_all(&encoded(&packet, VERSION)).await.unwrap();
    serve.await;
    here.read_exact(&mut [0; 4]).await.unwrap();
    here
}

async fn subscribe(client: &mut DuplexStream, topic: &str) {
    let packet = packets::subscribe(1, vec![filter(topic, QOS_0)]);
    client.write_all(&encoded(&packet, VERSION)).await.unwrap();
    client.read_exact(&mut [0; 5]).await.unwrap();
}

fn publish_packet(topic: &str) -> Vec<u8> {
    let packet = Publish { payload: &PAYLOAD, ..packets::publish(topic, "") };
    encoded(&Packet::Publish(packet), VERSION)
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
