//! `$SYS/broker/…`: what the broker publishes about itself; clients cannot publish there.

use std::collections::BTreeMap;

use hearthmq::mqtt::{Packet, ReasonCode};

use crate::support::{Client, packets::*, pass, secs, world, world_with};

/// Returns everything that a client receives until no more comes: topic, payload and RETAIN.
async fn all_that_comes(client: &mut Client) -> BTreeMap<String, (String, bool)> {
    let mut all = BTreeMap::new();
    client.send(Packet::PingReq).await;
    loop {
        let found = client
            .receive(|packet| match packet {
                Packet::Publish(publish) => {
                    let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                    Some((publish.topic.to_owned(), (payload, publish.flags.retain)))
                }
                Packet::PingResp => None,
                other => panic!("{other:?}"),
            })
            .await;
        match found {
            Some((topic, value)) => drop(all.insert(topic, value)),
            None => return all,
        }
    }
}

#[actix_rt::test]
async fn a_new_subscription_gets_the_present_values_and_then_what_changes() {
    let broker = world().await;
    pass(secs(1)).await;
    for version in VERSIONS {
        let mut watcher = Client::connected(&broker, connect_in(version, "watcher")).await;
        watcher.subscribe("$SYS/#", QOS_2).await;
        let values = all_that_comes(&mut watcher).await;
        assert!(values.values().all(|(_, is_retained)| *is_retained), "{values:?}");
        let told = format!("HearthMQ version {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(values["$SYS/broker/version"].0, told);
        assert!(values["$SYS/broker/uptime"].0.ends_with(" seconds"));
        for name in [
            "clients/connected",
            "clients/disconnected",
            "clients/total",
            "clients/maximum",
            "messages/received",
            "messages/sent",
            "messages/stored",
            "bytes/received",
            "bytes/sent",
            "publish/messages/dropped",
            "retained messages/count",
            "subscriptions/count",
        ] {
            values[&format!("$SYS/broker/{name}")].0.parse::<u64>().unwrap();
        }
        for mean in ["1min", "5min", "15min"] {
            for name in ["messages/received", "publish/sent", "bytes/sent", "connections"] {
                values[&format!("$SYS/broker/load/{name}/{mean}")].0.parse::<f64>().unwrap();
            }
        }
        pass(secs(10)).await;
        let changed = all_that_comes(&mut watcher).await;
        assert!(changed.values().all(|(_, is_retained)| !is_retained), "{changed:?}");
        assert!(changed.contains_key("$SYS/broker/uptime"));
        assert_eq!(changed.get("$SYS/broker/version"), None, "it has not changed");
        let mut late = Client::connected(&broker, connect_in(version, "late")).await;
        late.subscribe("$SYS/broker/subscriptions/count", QOS_0).await;
        let found = all_that_comes(&mut late).await;
        assert_eq!(found["$SYS/broker/subscriptions/count"], ("1".to_owned(), true));
        late.leave().await;
        watcher.leave().await;
    }
}

#[actix_rt::test]
async fn they_are_not_retained_messages_of_anybody() {
    let broker = world().await;
    pass(secs(30)).await;
    assert_eq!(broker.metrics().totals().retained_messages.value(), 0);
    let mut everything = Client::connected(&broker, connect("everything")).await;
    for filter in ["#", "+/broker/version", "+/#"] {
        everything.subscribe(filter, QOS_0).await;
    }
    assert!(all_that_comes(&mut everything).await.is_empty(), "a wildcard does not match $SYS");
    let mut shared = Client::connected(&broker, connect("shared")).await;
    shared.subscribe("$share/g/$SYS/broker/version", QOS_0).await;
    assert!(all_that_comes(&mut shared).await.is_empty(), "not to shared subscriptions");
}

#[actix_rt::test]
async fn with_an_interval_of_zero_nothing_is_told() {
    let broker = world_with(|builder| builder.sys_interval(secs(0))).await;
    let mut client = Client::connected(&broker, connect("c")).await;
    client.subscribe("$SYS/#", QOS_0).await;
    pass(secs(60)).await;
    assert!(all_that_comes(&mut client).await.is_empty());
}

#[actix_rt::test]
async fn the_application_gets_them_too() {
    let broker = world().await;
    pass(secs(1)).await;
    let mut versions = broker.subscribe("$SYS/broker/version", QOS_0).unwrap();
    let version = versions.next().await.unwrap();
    assert!(version.retain && version.message.publication().payload.starts_with(b"HearthMQ"));
}

const OF_THE_BROKER: [&str; 7] = [
    "$SYS",
    "$SYS/broker/version",
    "$SYS/",
    "$events",
    "$events/client_connected",
    "$control",
    "$control/redirect",
];

/// Whatever the rules permit, with and without RETAIN, for publishing and for clearing.
#[actix_rt::test]
async fn no_client_may_publish_where_the_broker_does() {
    let broker = world().await;
    pass(secs(1)).await;
    let mut watcher = Client::connected(&broker, connect("watcher")).await;
    for filter in ["$SYS", "$events", "$control/#"] {
        watcher.subscribe(filter, QOS_0).await;
    }
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        let refused = if version == V5 { ReasonCode::NotAuthorized } else { ReasonCode::Success };
        for topic in OF_THE_BROKER {
            for payload in ["false", ""] {
                client.publish(publish(topic, payload)).await;
                client.publish(retained(publish(topic, payload))).await;
                client.publish(retained(publish_1(1, topic, payload))).await;
                client.expect(puback(1, refused)).await;
                client.publish(retained(publish_2(2, topic, payload))).await;
                client.expect(pubrec(2, refused)).await;
                if version != V5 {
                    client.send(pubrel(2)).await;
                    client.expect(pubcomp(2)).await;
                }
            }
        }
        client.subscribe("$SYS/broker/version", QOS_0).await;
        let values = all_that_comes(&mut client).await;
        assert!(values["$SYS/broker/version"].0.starts_with("HearthMQ"), "{values:?}");
        client.leave().await;
    }
    assert!(all_that_comes(&mut watcher).await.is_empty());
    assert_eq!(broker.metrics().totals().retained_messages.value(), 0);
}

#[actix_rt::test]
async fn nor_leave_a_will_there() {
    let broker = world().await;
    for version in VERSIONS {
        for topic in OF_THE_BROKER {
            let mut client = Client::new(&broker, version);
            let mut packet = connect_in(version, "c");
            packet.will = Some(will(topic, "false"));
            client.send(Packet::Connect(Box::new(packet))).await;
            client.expect_refused(ReasonCode::NotAuthorized).await;
        }
    }
}

/// Topics that only look like the broker's are ordinary topics.
#[actix_rt::test]
async fn other_topics_with_a_dollar_are_everybodys() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("c")).await;
    for topic in ["$SYSTEM", "$sys/x", "$eventsx/y", "a/$SYS", "$"] {
        client.subscribe(topic, QOS_0).await;
        client.publish(publish_1(1, topic, "x")).await;
        client.expect_publish(publish(topic, "x")).await;
        client.expect(puback(1, ReasonCode::Success)).await;
    }
}
