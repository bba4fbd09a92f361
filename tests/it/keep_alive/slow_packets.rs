//! Packets that take longer to arrive than the client's Keep Alive.

use std::time::Duration;

use hearthmq::mqtt::{Connect, Packet, ProtocolVersion, ReasonCode, encode};
use tokio::time::Instant;

use crate::support::{Client, packets::*, pass, secs, world};

/// Returns the bytes of a large PUBLISH.
fn large(version: ProtocolVersion, bytes: usize) -> Vec<u8> {
    let payload = "x".repeat(bytes);
    let mut encoded = Vec::new();
    encode(&Packet::Publish(publish_1(1, "t", &payload)), version, &mut encoded).unwrap();
    encoded
}

async fn client(broker: &hearthmq::Broker, version: ProtocolVersion) -> Client {
    let packet = Connect { keep_alive: 10, ..connect_in(version, "c") };
    Client::connected(broker, packet).await
}

/// Expects the client to be disconnected within a second of `at`.
async fn expect_given_up_at(client: &mut Client, begun: Instant, at: Duration) {
    tokio::time::sleep_until(begun + at - secs(1)).await;
    client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
    let after = begun.elapsed();
    assert!(after >= at && after < at + secs(1), "given up after {after:?}, not {at:?}");
}

#[actix_rt::test]
async fn a_packet_that_keeps_coming_keeps_the_connection() {
    let broker = world().await;
    for version in [V3_1, V3_1_1, V5] {
        let mut client = client(&broker, version).await;
        for piece in large(version, 300_000).chunks(10_000) {
            client.send_bytes(piece).await;
            pass(secs(1)).await;
        }
        let reason =
            if version == V5 { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        client.expect(puback(1, reason)).await;
        let begun = Instant::now();
        client.ping().await;
        expect_given_up_at(&mut client, begun, secs(15)).await;
    }
}

#[actix_rt::test]
async fn a_trickle_does_not_keep_the_connection() {
    let broker = world().await;
    for version in [V3_1, V3_1_1, V5] {
        let mut client = client(&broker, version).await;
        let begun = Instant::now();
        for piece in large(version, 300_000).chunks(50).take(14) {
            client.send_bytes(piece).await;
            pass(secs(1)).await;
        }
        expect_given_up_at(&mut client, begun, secs(15)).await;
    }
}

#[actix_rt::test]
async fn a_packet_that_stops_coming_is_waited_for_as_long_as_any() {
    let broker = world().await;
    for version in [V3_1, V3_1_1, V5] {
        let mut client = client(&broker, version).await;
        let begun = Instant::now();
        for piece in large(version, 300_000).chunks(10_000).take(20) {
            pass(secs(1)).await;
            client.send_bytes(piece).await;
        }
        expect_given_up_at(&mut client, begun, secs(35)).await;
    }
}
