//! Large packets are read into buffers of their own, and their payloads are shared, not copied. No
//! client notices, however they are split and whatever comes between them.

use hearthmq::mqtt::{Packet, ProtocolVersion, Publish, ReasonCode, encode};

use crate::support::{Client, packets::*, stream_of, world};

/// Lengths near each threshold, with small ones between them.
const LENGTHS: [usize; 12] =
    [0, 70, 71, 16_383, 16_384, 32_768, 40_000, 65_536, 131_072, 300_000, 1_000_000, 300_001];

fn payload(random: &mut fastrand::Rng) -> String {
    let length = random.choice(LENGTHS).unwrap();
    let fill = random.alphanumeric();
    (0..length).map(|at| if at % 97 == 0 { fill } else { 'x' }).collect()
}

async fn subscriber(broker: &hearthmq::Broker, version: ProtocolVersion, qos: u8) -> Client {
    let mut client = Client::on(stream_of(broker, 50_000), version);
    client.connect(connect_in(version, &format!("{version:?}{qos}"))).await;
    client.subscribe("t", if qos == 0 { QOS_0 } else { QOS_1 }).await;
    client
}

/// Takes a message, and acknowledges it if required.
async fn take(client: &mut Client, expected: &Publish<'_>) {
    let id = client
        .receive(|packet| {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            assert_eq!(publish.topic, expected.topic);
            assert!(publish.payload == expected.payload, "{} bytes", publish.payload.len());
            publish.packet_id
        })
        .await;
    if let Some(id) = id {
        client.send(puback(id.number(), ReasonCode::Success)).await;
    }
}

#[actix_rt::test]
async fn large_messages_arrive_unchanged_whatever_comes_between_them() {
    let broker = world().await;
    let mut subscribers = Vec::new();
    for version in VERSIONS {
        for qos in 0..2 {
            subscribers.push(subscriber(&broker, version, qos).await);
        }
    }
    let mut publisher = Client::connected(&broker, connect("p")).await;
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..40 {
        let payloads: Vec<_> = (0..random.usize(1..4)).map(|_| payload(&mut random)).collect();
        let mut bytes = Vec::new();
        for payload in &payloads {
            encode(&Packet::Publish(publish_1(1, "t", payload)), V5, &mut bytes).unwrap();
        }
        while !bytes.is_empty() {
            let rest = bytes.split_off(random.usize(1..100_000).min(bytes.len()));
            publisher.send_bytes(&bytes).await;
            bytes = rest;
        }
        for payload in &payloads {
            publisher.expect(puback(1, ReasonCode::Success)).await;
            for subscriber in &mut subscribers {
                take(subscriber, &publish("t", payload)).await;
            }
        }
    }
}

/// A stored message does not change when the next one reuses the buffer.
#[actix_rt::test]
async fn large_messages_that_wait_keep_what_they_are() {
    let broker = world().await;
    let mut slow = subscriber(&broker, V5, 1).await;
    let mut publisher = Client::connected(&broker, connect("p")).await;
    let payloads: Vec<_> = (b'a'..b'k').map(|fill| [fill; 100_000]).collect();
    for payload in &payloads {
        let payload = std::str::from_utf8(payload).unwrap();
        publisher.send(Packet::Publish(publish_1(1, "t", payload))).await;
        publisher.expect(puback(1, ReasonCode::Success)).await;
    }
    for payload in &payloads {
        take(&mut slow, &publish("t", std::str::from_utf8(payload).unwrap())).await;
    }
}
