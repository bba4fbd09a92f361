//! Shared subscriptions, section 4.8.2: one member of a group gets each message.

use hearthmq::{
    Broker,
    control::{KickOptions, WillRequest},
    mqtt::{Packet, ReasonCode},
};

use crate::support::{Client, packets::*, world};

async fn member(broker: &Broker, client_id: &str) -> Client {
    let mut client = Client::connected(broker, connect_lasting(client_id, V5)).await;
    client.subscribe("$share/g/t/#", QOS_1).await;
    client
}

async fn publish_numbers(broker: &Broker, numbers: std::ops::Range<u16>) {
    for number in numbers {
        let payload = number.to_string();
        broker.publish("t/x", payload.as_bytes(), QOS_1, false).await.unwrap();
    }
}

/// Returns the messages that have come so far, after acknowledging them.
async fn taken(client: &mut Client) -> Vec<u16> {
    let mut numbers = Vec::new();
    client.send(Packet::PingReq).await;
    loop {
        let got = client
            .receive(|packet| match packet {
                Packet::PingResp => None,
                Packet::Publish(publish) => Some((
                    str::from_utf8(publish.payload).unwrap().parse().unwrap(),
                    publish.packet_id.map(|id| id.number()),
                )),
                other => panic!("{other:?}"),
            })
            .await;
        let Some((number, id)) = got else {
            return numbers;
        };
        numbers.push(number);
        if let Some(id) = id {
            client.send(puback(id, ReasonCode::Success)).await;
        }
    }
}

/// Section 4.8.2.
#[actix_rt::test]
async fn the_members_take_turns() {
    let broker = world().await;
    let mut members = Vec::new();
    for client_id in ["a", "b", "c"] {
        members.push(member(&broker, client_id).await);
    }
    publish_numbers(&broker, 0..30).await;
    let mut all = Vec::new();
    for client in &mut members {
        let numbers = taken(client).await;
        assert_eq!(numbers.len(), 10);
        all.extend(numbers);
    }
    all.sort_unstable();
    assert_eq!(all, (0..30).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn subscriptions_of_mqtt_3_can_be_shared_as_well() {
    let broker = world().await;
    let mut old = Client::connected(&broker, connect_in(V3_1_1, "old")).await;
    old.subscribe("$share/g/t/#", QOS_0).await;
    let mut new = member(&broker, "new").await;
    publish_numbers(&broker, 0..10).await;
    assert_eq!((taken(&mut old).await.len(), taken(&mut new).await.len()), (5, 5));
}

#[actix_rt::test]
async fn while_a_member_is_away_the_others_get_its_share() {
    let broker = world().await;
    let mut here = member(&broker, "here").await;
    member(&broker, "away").await.vanish().await;
    publish_numbers(&broker, 0..10).await;
    assert_eq!(taken(&mut here).await, (0..10).collect::<Vec<_>>());
    let mut back = Client::connected(&broker, connect_lasting("away", V5)).await;
    publish_numbers(&broker, 10..20).await;
    assert_eq!(taken(&mut back).await.len(), 5);
    assert_eq!(taken(&mut here).await.len(), 5);
}

#[actix_rt::test]
async fn when_all_are_away_the_messages_wait_with_one_of_them() {
    let broker = world().await;
    for client_id in ["a", "b"] {
        member(&broker, client_id).await.vanish().await;
    }
    publish_numbers(&broker, 0..10).await;
    let mut all = Vec::new();
    for client_id in ["a", "b"] {
        let mut client = Client::connected(&broker, connect_lasting(client_id, V5)).await;
        all.extend(taken(&mut client).await);
        client.vanish().await;
    }
    all.sort_unstable();
    assert_eq!(all, (0..10).collect::<Vec<_>>());
}

/// A member whose session has ended is no longer a member.
#[actix_rt::test]
async fn the_end_of_a_session_ends_its_membership() {
    let broker = world().await;
    let mut here = member(&broker, "here").await;
    let mut packet = connect_in(V3_1_1, "gone");
    packet.clean_start = true;
    let mut gone = Client::connected(&broker, packet).await;
    gone.subscribe("$share/g/t/#", QOS_1).await;
    gone.vanish().await;
    let _kicked = member(&broker, "kicked").await;
    broker.kick("kicked", KickOptions::new().end_session()).await.unwrap();
    publish_numbers(&broker, 0..10).await;
    assert_eq!(taken(&mut here).await.len(), 10);
    assert_eq!(broker.metrics().totals().subscriptions.value(), 1);
}

#[actix_rt::test]
async fn groups_and_plain_subscriptions_do_not_know_each_other() {
    let broker = world().await;
    let mut clients = Vec::new();
    for (client_id, asked) in
        [("a", "$share/one/t"), ("b", "$share/two/t"), ("c", "$share/one/+"), ("d", "t")]
    {
        let mut client = Client::connected(&broker, connect(client_id)).await;
        client.subscribe(asked, QOS_0).await;
        clients.push(client);
    }
    for payload in ["1", "2", "3"] {
        broker.publish("t", payload.as_bytes(), QOS_0, false).await.unwrap();
    }
    for client in &mut clients {
        assert_eq!(taken(client).await, [1, 2, 3]);
    }
}

#[actix_rt::test]
async fn unsubscribing_leaves_the_group_and_not_the_other_subscriptions() {
    let broker = world().await;
    let mut a = member(&broker, "a").await;
    let mut b = member(&broker, "b").await;
    a.subscribe("t/x", QOS_0).await;
    a.send(unsubscribe(1, vec!["$share/g/t/#", "$share/other/t/x"])).await;
    let answers = [ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    a.expect(unsuback(1, &answers)).await;
    publish_numbers(&broker, 0..4).await;
    assert_eq!(taken(&mut b).await, [0, 1, 2, 3]);
    assert_eq!(taken(&mut a).await, [0, 1, 2, 3]);
}

/// Section 4.8.2: a member that acknowledges nothing does not withhold messages from one that does.
#[actix_rt::test]
async fn a_member_whose_window_is_full_is_passed_over() {
    let broker = world().await;
    for qos in [QOS_1, QOS_2] {
        let mut packet = connect_lasting("stuck", V5);
        packet.properties.receive_maximum = Some(1);
        let mut stuck = Client::connected(&broker, packet).await;
        let mut other = Client::connected(&broker, connect_lasting("other", V5)).await;
        for client in [&mut stuck, &mut other] {
            client.subscribe("$share/g/t", qos).await;
        }
        for number in 0..100 {
            broker.publish("t", number.to_string().as_bytes(), qos, false).await.unwrap();
        }
        stuck.receive(|packet| assert!(matches!(packet, Packet::Publish(_)))).await;
        stuck.ping().await;
        for _ in 1..100 {
            other.receive(|packet| assert!(matches!(packet, Packet::Publish(_)))).await;
        }
        assert_eq!(broker.client("stuck").await.unwrap().unwrap().queued, 0);
        for client_id in ["stuck", "other"] {
            broker
                .kick(client_id, KickOptions::new().end_session().will(WillRequest::Discard))
                .await
                .unwrap();
        }
    }
}
