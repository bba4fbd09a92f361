//! Numbered messages in both directions while connections are cut at any moment: none is lost with QoS
//! 1, each comes once with QoS 2, and both in their order.

use hearthmq::{
    Broker,
    bridge::Direction,
    mqtt::{Packet, QoS},
};

use super::network::{Network, bridge_with, connected, topic};
use crate::support::{Client, millis, packets::*, pass, secs, world, world_with};

const MESSAGES: u32 = 200;

/// Collects the numbers of what a session gets.
async fn collected(client: &mut Client, last: u32) -> Vec<u32> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let (number, qos, id) = client
            .receive(|packet| match packet {
                Packet::Publish(publish) => {
                    let text = str::from_utf8(publish.payload).unwrap();
                    (text.parse().unwrap(), publish.flags.qos, publish.packet_id)
                }
                other => panic!("{other:?}"),
            })
            .await;
        numbers.push(number);
        assert_eq!((qos, id), (QOS_0, None));
    }
    numbers
}

async fn run(from: &Broker, to: &Broker, network: &Network, name: &'static str, qos: QoS) {
    let mut subscriber = Client::connected(to, connect("subscriber")).await;
    subscriber.patience = secs(600);
    subscriber.subscribe(name, QOS_0).await;
    let cutting = network.clone();
    let (publishing, cut) = (from.clone(), async move {
        for wait in [3, 1, 7, 2, 11, 5, 13, 4, 6, 17, 8, 9] {
            pass(millis(wait * 37)).await;
            cutting.cut().await;
        }
    });
    let publishing = async move {
        for number in 0..MESSAGES {
            publishing.publish(name, number.to_string().as_bytes(), qos, false).await.unwrap();
            pass(millis(fastrand::u64(0..20))).await;
        }
    };
    let ((), (), numbers) = tokio::join!(publishing, cut, collected(&mut subscriber, MESSAGES - 1));
    let expected: Vec<u32> = (0..MESSAGES).collect();
    match qos {
        QoS::ExactlyOnce => assert_eq!(numbers, expected),
        QoS::AtMostOnce | QoS::AtLeastOnce => {
            let mut firsts = Vec::new();
            numbers.iter().for_each(|number| {
                if !firsts.contains(number) {
                    firsts.push(*number);
                }
            });
            assert_eq!(firsts, expected, "each comes, and for the first time in order");
        }
    }
    let waits = from.client("$bridge/hub").await.unwrap();
    drop(waits);
}

#[actix_rt::test]
async fn nothing_is_lost_or_doubled_while_connections_are_cut() {
    let network = Network::default();
    let hub = world().await;
    network.host("hub", &hub);
    let topics = vec![topic("out/#", Direction::Out, QOS_2), topic("in/#", Direction::In, QOS_2)];
    let bridge = bridge_with("hub", topics, |it| it.reconnect_max = secs(1));
    let edge = world_with(|builder| network.join(builder, [bridge])).await;
    connected(&edge, "hub").await;
    run(&edge, &hub, &network, "out/1", QOS_1).await;
    run(&edge, &hub, &network, "out/2", QOS_2).await;
    run(&hub, &edge, &network, "in/1", QOS_1).await;
    run(&hub, &edge, &network, "in/2", QOS_2).await;
}
