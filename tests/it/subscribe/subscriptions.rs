//! SUBSCRIBE and UNSUBSCRIBE: their answers, and which messages come.

use hearthmq::mqtt::{Packet, ReasonCode};

use crate::support::{Client, packets::*, world};

/// [MQTT-3.8.3-3] A client's own message comes only for subscriptions without No Local.
#[actix_rt::test]
async fn no_local_counts_for_its_own_subscription_only() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    let asked = no_local(filter("t/#", QOS_2));
    client.send(subscribe_as(1, 1, vec![asked])).await;
    client.expect(suback(1, &[ReasonCode::GrantedQoS2])).await;
    client.send(subscribe_as(2, 2, vec![filter("t/a", QOS_1)])).await;
    client.expect(suback(2, &[ReasonCode::GrantedQoS1])).await;
    client.publish(publish_2(5, "t/a", "own")).await;
    client.expect_publish(identified(publish_1(1, "t/a", "own"), &[2])).await;
    client.expect(pubrec(5, ReasonCode::Success)).await;
    let mut other = Client::connected(&broker, connect("other")).await;
    other.publish(publish_2(5, "t/a", "foreign")).await;
    client.expect_publish(identified(publish_2(2, "t/a", "foreign"), &[1, 2])).await;
}

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2]
/// 3.1.1: [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.8.0-1]
/// There is no Reason Code for an ill-formed filter.
#[actix_rt::test]
async fn an_ill_formed_filter_ends_the_connection_and_nothing_of_its_packet_is_done() {
    let broker = world().await;
    for wrong in [
        "a#",
        "a/#/b",
        "#/a",
        "#/",
        "a+",
        "+a",
        "+a/b",
        "a/b+/c",
        "++",
        "+#",
        "##",
        "",
        "$share/g",
        "$share/g/",
        "$share//t",
        "$share/+/t",
        "$share/g/a#",
    ] {
        let filters = vec![filter("good", QOS_1), filter(wrong, QOS_1), filter("fine", QOS_0)];
        for version in [V3_1, V3_1_1, V5] {
            for packet in [subscribe(2, filters.clone()), unsubscribe(2, vec!["kept", wrong])] {
                let mut client = Client::connected(&broker, connect_lasting("c", version)).await;
                client.subscribe("kept", QOS_1).await;
                client.send(packet).await;
                client.expect_disconnect(ReasonCode::MalformedPacket).await;
                assert_eq!(broker.client("c").await.unwrap().unwrap().subscriptions, 1);
            }
        }
    }
}

/// Subscriptions of a thousand clients to one topic, and of one client to a thousand topics.
#[actix_rt::test]
async fn many_subscribers_each_get_the_message_once() {
    let broker = world().await;
    let mut clients = Vec::new();
    for number in 0..1000 {
        let client_id = format!("c{number}");
        let mut client = Client::on(crate::support::stream_of(&broker, 4096), V3_1_1);
        let packet = connect_in(V3_1_1, &client_id);
        client.send(Packet::Connect(Box::new(packet))).await;
        client.receive(|_| ()).await;
        client.subscribe("all", QOS_0).await;
        clients.push(client);
    }
    broker.publish("all", b"x", QOS_0, false).await.unwrap();
    for client in &mut clients {
        client.expect_publish(publish("all", "x")).await;
        client.ping().await;
    }
}
