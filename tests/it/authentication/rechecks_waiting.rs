//! Messages queued under a subscription that is no longer allowed: in the store, and of a shared
//! subscription.

use hearthmq::{
    Broker,
    auth::{AccessRequest, Authorizer, Decision, Standing},
    broker::{Builder, simulation::SimulatedShards},
    mqtt::Packet,
};

use crate::{
    authentication::rechecks::{Denied, Desk, connect_as, take_payload},
    post::Post,
    support::{Client, disk::Disk, packets::*, pass, secs},
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

/// Number of members of a group that get nothing, which is more than a message is offered to.
const MANY: usize = 40;

/// Connects a client whose session stays, which becomes a member of a group and goes.
async fn absent_member(broker: &Broker, client_id: &str) {
    let mut client = Client::connected(broker, connect_lasting(client_id, V5)).await;
    client.subscribe("$share/g/t", QOS_1).await;
    client.vanish().await;
}

fn denied_names(is_meant: impl Fn(&str) -> bool) -> Vec<String> {
    let names = (0..).map(|number| format!("denied-{number}")).filter(|name| is_meant(name));
    names.take(MANY).collect()
}

/// Publishes messages to the group, and expects that each waits for this member.
async fn expect_all_for(broker: &Broker, member: &str) {
    let queued = async || broker.client(member).await.unwrap().unwrap().queued;
    let before = queued().await;
    for _ in 0..2 * MANY {
        broker.publish("t", b"x", QOS_1, false).await.unwrap();
    }
    assert_eq!(queued().await - before, 2 * MANY);
}

#[actix_rt::test]
async fn a_group_passes_over_many_members_that_may_not_connect() {
    for is_started_again in [false, true] {
        let rules = Denied::default();
        let disk = Disk::default();
        let power = || disk.power_with(|builder| builder.authorizer(rules.clone()));
        let mut powered = power().await;
        // They come first in the turns of the group.
        for name in denied_names(|_| true) {
            absent_member(&powered.broker, &name).await;
            rules.deny(&format!("connect {name}"));
        }
        absent_member(&powered.broker, "good").await;
        if is_started_again {
            powered.crash();
            powered = power().await;
        } else {
            powered.broker.recheck().await;
        }
        expect_all_for(&powered.broker, "good").await;
        // One of them may connect again, and takes its turn although its client is away.
        rules.allow("connect denied-0");
        powered.broker.recheck().await;
        Client::connected(&powered.broker, connect("good")).await.leave().await;
        pass(secs(1)).await;
        expect_all_for(&powered.broker, "denied-0").await;
    }
}

#[actix_rt::test]
async fn a_group_passes_over_such_members_on_another_shard() {
    for (here, there) in [(0, 1), (1, 0)] {
        let rules = Denied::default();
        let post = Post::open(&SimulatedShards::new(2, 1), 1);
        let configure =
            |builder: Builder| builder.simulated(post.shards()).authorizer(rules.clone());
        let powered = Disk::default().power_with(configure).await;
        let home = |name: &str| post.shards().home(name);
        let good = (0..).map(|n| format!("good-{n}")).find(|name| home(name) == here).unwrap();
        absent_member(&powered.broker, &good).await;
        for name in denied_names(|name| home(name) == there) {
            absent_member(&powered.broker, &name).await;
            rules.deny(&format!("connect {name}"));
        }
        powered.broker.recheck().await;
        expect_all_for(&powered.broker, &good).await;
    }
}

/// Their subscriptions leave the index in portions.
#[actix_rt::test]
async fn a_group_passes_over_many_members_whose_sessions_are_being_removed() {
    let desk = Desk::default();
    let powered = Disk::default().power_with(|builder| builder.authenticator(desk.clone())).await;
    let broker = &powered.broker;
    absent_member(broker, "good").await;
    for number in 0..MANY {
        let name = format!("gone-{number}");
        let packet = connect_as("ann", connect_lasting(&name, V5));
        let mut client = Client::connected(broker, packet).await;
        // The group is left last.
        let others = (0..600).map(|number| format!("$share/g/other/{number}"));
        let filters: Vec<String> = std::iter::once("$share/g/t".to_owned()).chain(others).collect();
        let filters = filters.iter().map(|name| filter(name, QOS_1)).collect();
        client.send(subscribe(1, filters)).await;
        client.receive(|packet| assert!(matches!(packet, Packet::SubAck(_)))).await;
        client.vanish().await;
    }
    desk.now("ann", Standing::Gone);
    let subscriptions = || broker.metrics().totals().subscriptions.value();
    let checked = broker.clone();
    let check = actix_rt::spawn(async move { checked.recheck().await });
    while broker.client(&format!("gone-{}", MANY - 1)).await.unwrap().is_some() {}
    assert!(subscriptions() > MANY as u64, "all are removed already");
    expect_all_for(broker, "good").await;
    check.await.unwrap();
}
