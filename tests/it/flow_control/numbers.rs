//! Clients that publish and take numbered messages, for dialogues about full queues.

use hearthmq::mqtt::{Connect, Packet, ReasonCode, encode};

use crate::support::{Client, millis, packets::*};

/// Returns a CONNECT of a client with one message in flight at a time.
pub(crate) fn one_at_a_time(client_id: &str) -> Connect<'_> {
    let mut packet = connect(client_id);
    packet.properties.receive_maximum = Some(1);
    packet
}

/// Sends messages `from..to` with their numbers as payload, with QoS 1 and without waiting for
/// answers.
pub(crate) async fn send_numbers(client: &mut Client, topic: &str, numbers: std::ops::Range<u32>) {
    let mut bytes = Vec::new();
    for number in numbers {
        let payload = number.to_string();
        let packet_id = (number % 60_000) as u16 + 1;
        let packet = Packet::Publish(publish_1(packet_id, topic, &payload));
        encode(&packet, client.version, &mut bytes).unwrap();
    }
    client.send_bytes(&bytes).await;
}

/// Takes messages, which must come with these numbers.
pub(crate) async fn take_numbers(client: &mut Client, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(take_number(client).await, number);
    }
}

pub(crate) async fn take_number(client: &mut Client) -> u32 {
    let (number, id) = client
        .receive(|packet| {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            let number = str::from_utf8(publish.payload).unwrap().parse().unwrap();
            (number, publish.packet_id.unwrap().number())
        })
        .await;
    client.send(puback(id, ReasonCode::Success)).await;
    number
}

/// Expects this many acknowledgements and then, for a while, no more.
pub(crate) async fn expect_acknowledged(client: &mut Client, messages: u32) {
    for _ in 0..messages {
        client.receive(|packet| assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}")).await;
    }
    client.expect_nothing_for(millis(500)).await;
}

/// Lets each of the clients take messages until its PINGREQ is answered, and then leave.
pub(crate) async fn take_until_answered(clients: Vec<Client>) {
    let answered = clients.into_iter().map(|mut client| {
        actix_rt::spawn(async move {
            loop {
                let id = client.receive(|packet| match packet {
                    Packet::Publish(publish) => publish.packet_id.map(|id| id.number()),
                    Packet::PingResp => Some(0),
                    _ => None,
                });
                match id.await {
                    Some(0) => return,
                    Some(id) => client.send(puback(id, ReasonCode::Success)).await,
                    None => {}
                }
            }
        })
    });
    for is_done in futures_util::future::join_all(answered).await {
        is_done.unwrap();
    }
}
