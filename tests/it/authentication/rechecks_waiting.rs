//! Messages queued under a subscription that is no longer allowed: in the store, and of a shared
//! subscription.

use hearthmq::{
    auth::{AccessRequest, Authorizer, Decision},
    mqtt::Packet,
};

use crate::{
    authentication::rechecks::{Denied, connect_as, take_payload},
    support::{Client, disk::Disk, packets::*},
};

/// Only `c` loses it, because of its user.
#[actix_rt::test]
async fn what_came_by_a_shared_subscription_that_ends_goes_to_the_other_members() {
    /// Denies members with the user name `ann` once they are told to lose it.
    struct NotAnn(Denied);

    impl Authorizer for NotAnn {
        fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
            match request.identity.username.as_deref() {
                Some("ann") => self.0.authorize(request),
                _ => Decision::Allow,
            }
        }
    }

    for (waits, is_there) in [(4, true), (4, false), (300, false)] {
        let rules = Denied::default();
        let authorizer = NotAnn(rules.clone());
        let powered = Disk::default().power_with(|builder| builder.authorizer(authorizer)).await;
        let broker = &powered.broker;
        let connect = || connect_as("ann", connect_lasting("c", V5));
        let mut packet = connect();
        packet.properties.receive_maximum = Some(1);
        let mut client = Client::connected(broker, packet).await;
        client.subscribe("$share/g/work/#", QOS_1).await;
        let mut client = Some(client);
        if !is_there {
            client.take().unwrap().vanish().await;
        }
        let say = async |number: usize| {
            let payload = number.to_string();
            broker.publish("work/x", payload.as_bytes(), QOS_1, false).await.unwrap();
        };
        for number in 0..waits {
            say(number).await;
        }
        let mut other = Client::connected(broker, connect_lasting("other", V5)).await;
        other.subscribe("$share/g/work/#", QOS_1).await;
        rules.deny("subscribe work/#");
        broker.recheck().await;
        if !is_there {
            // Stored messages are found when the session is resumed.
            client = Some(Client::connected(broker, connect()).await);
        }
        for (packet_id, number) in (1..).zip(usize::from(is_there)..waits) {
            take_payload(&mut other, packet_id, &number.to_string()).await;
        }
        let mut client = client.unwrap();
        if is_there {
            assert_eq!(client.receive_payload().await, "0");
            client.take(QOS_1, 1).await;
        }
        client.expect_nothing().await;
        other.expect_nothing().await;
    }
}

/// More than the session has in memory of its queue, so that most of it is in the store.
#[actix_rt::test]
async fn what_the_store_has_under_a_subscription_that_ends_is_not_delivered() {
    for is_cut_off in [false, true] {
        let (disk, rules) = (Disk::default(), Denied::default());
        let first = disk.power_with(|builder| builder.authorizer(rules.clone())).await;
        let mut client = Client::connected(&first.broker, connect_lasting("c", V5)).await;
        client.subscribe("secret/#", QOS_1).await;
        client.subscribe("open/#", QOS_1).await;
        client.vanish().await;
        for (topic, messages) in [("secret/x", 300), ("open/x", 100), ("secret/y", 100)] {
            for number in 0..messages {
                let payload = number.to_string();
                first.broker.publish(topic, payload.as_bytes(), QOS_1, false).await.unwrap();
            }
        }
        rules.deny("subscribe secret/#");
        first.broker.recheck().await;
        let powered = if is_cut_off {
            first.crash();
            disk.power_with(|builder| builder.authorizer(rules.clone())).await
        } else {
            first
        };
        powered.broker.publish("secret/x", b"late", QOS_1, false).await.unwrap();
        let mut client = Client::connected(&powered.broker, connect_lasting("c", V5)).await;
        for number in 0..100_u16 {
            client
                .receive(|packet| {
                    let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                    assert_eq!(publish.topic, "open/x");
                    assert_eq!(publish.payload, number.to_string().as_bytes());
                })
                .await;
            client.take(QOS_1, number + 1).await;
        }
        client.expect_nothing().await;
        client.vanish().await;
        // They are removed durably, and so is the subscription.
        rules.allow("subscribe secret/#");
        powered.crash();
        let last = disk.power_with(|builder| builder.authorizer(rules.clone())).await;
        last.broker.publish("secret/x", b"later", QOS_1, false).await.unwrap();
        let connect = connect_lasting("c", V5);
        let (mut client, present) = Client::connected_with(&last.broker, connect).await;
        assert!(present);
        client.expect_nothing().await;
    }
}
