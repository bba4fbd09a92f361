//! Clients that read less than they are sent: the data stored for them is limited, and other
//! clients do not wait.

use std::time::Duration;

use hearthmq::{
    metrics::DropReason,
    mqtt::{Packet, ProtocolVersion, ReasonCode, encode},
};
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::support::{Client, packets::*, pass, secs, stream_of, world, world_within};

/// Connects a client whose stream holds little, so that the broker notices at once that it does not
/// read.
async fn slow(broker: &hearthmq::Broker, version: ProtocolVersion) -> Client {
    let mut client = Client::on(stream_of(broker, 1024), version);
    client.connect(connect_in(version, "slow")).await;
    client
}

#[actix_rt::test]
async fn who_never_reads_costs_a_bounded_queue_and_nobody_else_anything() {
    const MESSAGES: u32 = 100_000;
    let broker = world().await;
    let mut slow = slow(&broker, V5).await;
    slow.subscribe("t", QOS_0).await;
    let mut fast = Client::connected(&broker, connect("fast")).await;
    fast.subscribe("t", QOS_0).await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    for burst in 0..MESSAGES / 100 {
        let payloads: Vec<_> = (0..100).map(|n| (burst * 100 + n).to_string()).collect();
        let mut bytes = Vec::new();
        for payload in &payloads {
            encode(&Packet::Publish(publish("t", payload)), V5, &mut bytes).unwrap();
        }
        publisher.send_bytes(&bytes).await;
        for payload in &payloads {
            fast.expect_publish(publish("t", payload)).await;
        }
    }
    let found = broker.client("slow").await.unwrap().unwrap();
    assert!(found.online);
    assert_eq!(found.queued, 10_000);
    let metrics = broker.metrics();
    let dropped = metrics.shard(0).messages_dropped.of(DropReason::QueueFull).value();
    let ahead = u64::from(MESSAGES) - 10_000 - dropped;
    assert!((1000..10_000).contains(&ahead), "{ahead}");
    assert_eq!(metrics.totals().queue_messages.value(), 10_000);
    // It reads again and gets the stored messages, in order: only QoS 0 that found no room was
    // dropped.
    for number in 0..10_000 + ahead {
        slow.expect_publish(publish("t", &number.to_string())).await;
    }
    slow.ping().await;
}

/// QoS 1 is queued as long as there is room, and is not lost.
#[actix_rt::test]
async fn who_reads_late_gets_every_acknowledged_message() {
    let broker = world().await;
    for version in VERSIONS {
        let mut slow = slow(&broker, version).await;
        slow.subscribe("t", QOS_1).await;
        for number in 0..5000 {
            let payload = format!("{number:0>100}");
            broker.publish("t", payload.as_bytes(), QOS_1, false).await.unwrap();
        }
        for number in 0..5000 {
            let id = slow
                .receive(|packet| {
                    let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                    assert_eq!(publish.payload, format!("{number:0>100}").as_bytes());
                    publish.packet_id.unwrap().number()
                })
                .await;
            slow.send(puback(id, ReasonCode::Success)).await;
        }
        slow.ping().await;
    }
}

/// Answers cost memory too: the broker stops reading from a client that never reads its answers.
#[actix_rt::test]
async fn who_never_reads_its_answers_is_read_no_further() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = slow(&broker, version).await;
        let pings: Vec<u8> = [0xC0, 0].repeat(2_000_000);
        let write = timeout(secs(60), client.stream.write_all(&pings)).await;
        assert!(write.is_err(), "4 MB of PINGREQ were taken from one who reads nothing");
        // Once it reads, everything continues.
        for _ in 0..50_000 {
            client.expect(Packet::PingResp).await;
        }
    }
}

/// The broker stops reading it, so its PINGREQs do not count and its Keep Alive expires.
#[actix_rt::test]
async fn who_never_reads_its_answers_is_given_up_after_its_keep_alive() {
    let broker = world().await;
    let mut client = Client::on(stream_of(&broker, 1024), V5);
    let mut packet = connect("slow");
    packet.keep_alive = 10;
    client.connect(packet).await;
    let pings: Vec<u8> = [0xC0, 0].repeat(2_000_000);
    let write = timeout(secs(60), client.stream.write_all(&pings)).await;
    assert!(write.unwrap().is_err(), "the stream is closed");
    assert!(!broker.online("slow").await.unwrap());
}

/// A client that always has something to read, and reads slowly, is still read.
#[actix_rt::test]
async fn who_reads_slowly_is_still_heard() {
    let broker = world().await;
    let mut client = Client::on(stream_of(&broker, 1024), V5);
    let mut packet = connect("slow");
    packet.keep_alive = 10;
    client.connect(packet).await;
    client.subscribe("t", QOS_0).await;
    let payload = "x".repeat(300_000);
    let (mut pings, mut answers) = (0, 0);
    for _ in 0..20 {
        for _ in 0..3 {
            broker.publish("t", payload.as_bytes(), QOS_0, false).await.unwrap();
        }
        pass(secs(8)).await;
        client.send(Packet::PingReq).await;
        pings += 1;
        pass(Duration::from_millis(1)).await;
        answers += u32::from(client.receive(|packet| matches!(packet, Packet::PingResp)).await);
    }
    assert!(broker.online("slow").await.unwrap());
    while answers < pings {
        answers += u32::from(client.receive(|packet| matches!(packet, Packet::PingResp)).await);
    }
}

/// The limits of the queue do not apply to retained messages; repeated subscribing must not exploit
/// that.
#[actix_rt::test]
async fn subscribing_again_and_again_without_reading_piles_up_nothing() {
    let broker = world_within(|limits| limits.queue_messages_per_client_max = 500).await;
    for number in 0..1000 {
        broker.publish(&format!("t/{number}"), &[b'x'; 200], QOS_0, true).await.unwrap();
    }
    let mut slow = slow(&broker, V5).await;
    for packet_id in 1..=50 {
        slow.send(subscribe(packet_id, vec![filter("t/+", QOS_0)])).await;
        pass(Duration::from_millis(1)).await;
    }
    let queued = broker.client("slow").await.unwrap().unwrap().queued;
    assert!(queued <= 1500, "{queued} messages wait");
}

/// A client that reads nothing does not make the others wait for the end.
#[actix_rt::test]
async fn a_client_that_does_not_read_is_cut_off_early_when_the_broker_ends() {
    let broker = world_within(|limits| limits.packet_bytes_max = 2_000_000).await;
    let mut deaf = Client::connected(&broker, connect("deaf")).await;
    deaf.subscribe("much", QOS_0).await;
    let mut reads = Client::connected(&broker, connect("reads")).await;
    let payload = "x".repeat(1_000_000);
    for _ in 0..5 {
        broker.publish("much", payload.as_bytes(), QOS_0, false).await.unwrap();
    }
    let began = tokio::time::Instant::now();
    let end = broker.shutdown(secs(60));
    let told = async {
        reads.expect(disconnect(ReasonCode::ServerShuttingDown)).await;
        drop(reads);
    };
    futures_util::future::join(end, told).await;
    let took = began.elapsed();
    assert!(took >= secs(1) && took <= secs(4), "{took:?}");
    assert_eq!(broker.connections(), 0);
}
