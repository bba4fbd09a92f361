//! Sessions that a broker finds when it starts: accounts and permissions may have changed while no
//! broker ran, and are checked before anything else happens.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use hearthmq::{
    auth::Standing,
    hooks::{Hooks, SubscriptionChanged},
    limits::Limits,
    metrics::DropReason,
    mqtt::{LastWill, ProtocolVersion},
};

use crate::{
    authentication::rechecks::{Denied, Desk, connect_as, take_payload, with_will},
    support::{
        Client,
        disk::{Disk, Powered},
        generous,
        packets::*,
        pass, secs,
    },
};

/// Records which subscriptions end.
#[derive(Clone, Default)]
struct Ended(Arc<Mutex<Vec<String>>>);

impl Hooks for Ended {
    fn session_unsubscribed(&self, event: &SubscriptionChanged) {
        self.0.lock().unwrap().push(format!("{} {}", event.client_id, event.filter));
    }
}

/// A disk, and the rules and accounts of the brokers that use it.
#[derive(Default)]
struct House {
    disk: Disk,
    denied: Denied,
    desk: Desk,
    ended: Ended,
}

impl House {
    async fn power(&self) -> Powered {
        let (denied, desk, ended) = (self.denied.clone(), self.desk.clone(), self.ended.clone());
        self.disk
            .power_with(|builder| builder.authorizer(denied).authenticator(desk).hooks(ended))
            .await
    }

    /// Returns how many messages the store has for a client.
    fn stored(&self, client_id: &str) -> usize {
        self.disk.session(client_id).map_or(0, |session| session.waiting.messages)
    }
}

async fn say(powered: &Powered, topic: &str, payload: &str) {
    powered.broker.publish(topic, payload.as_bytes(), QOS_1, false).await.unwrap();
}

async fn queued(powered: &Powered, client_id: &str) -> usize {
    powered.broker.client(client_id).await.unwrap().unwrap().queued
}

/// Connects ann, whose session stays, with these subscriptions.
async fn ann(powered: &Powered, version: ProtocolVersion, filters: &[&str]) -> Client {
    let packet = connect_as("ann", connect_lasting("c", version));
    let mut client = Client::connected(&powered.broker, packet).await;
    for filter in filters {
        client.subscribe(filter, QOS_1).await;
    }
    client
}

/// How long it takes at most until unneeded messages have left the disk.
const SOON: Duration = secs(3);

#[actix_rt::test]
async fn a_subscription_that_is_no_longer_allowed_gets_nothing_after_a_start() {
    for version in VERSIONS {
        // In memory, and mostly in the store alone.
        for messages in [1, 500] {
            let house = House::default();
            let first = house.power().await;
            ann(&first, version, &["secret/#", "open/#"]).await.vanish().await;
            for number in 0..messages {
                say(&first, "secret/x", &format!("{number}")).await;
                say(&first, "open/x", &format!("{number}")).await;
            }
            first.crash();
            house.denied.deny("subscribe secret/#");
            let second = house.power().await;
            assert_eq!(*house.ended.0.lock().unwrap(), ["c secret/#"]);
            say(&second, "secret/x", "late").await;
            assert_eq!(second.broker.client("c").await.unwrap().unwrap().subscriptions, 1);
            pass(SOON).await;
            assert_eq!((house.stored("c"), queued(&second, "c").await), (messages, messages));
            let dropped =
                |reason| second.broker.metrics().shard(0).messages_dropped.of(reason).value();
            assert_eq!(dropped(DropReason::SubscriptionWithdrawn), messages as u64);
            // The subscription has left the store too, whatever comes.
            assert_eq!(house.disk.session("c").unwrap().subscriptions.len(), 1);
            house.denied.allow("subscribe secret/#");
            second.crash();
            let third = house.power().await;
            say(&third, "secret/x", "later").await;
            let mut client = ann(&third, version, &[]).await;
            for number in 0..messages {
                take_payload(&mut client, number as u16 + 1, &number.to_string()).await;
            }
            client.expect_nothing().await;
        }
    }
}

/// The start after it continues to look for its messages, and says nothing again.
#[actix_rt::test]
async fn the_end_of_a_subscription_is_published_by_one_start_only() {
    for version in VERSIONS {
        let house = House::default();
        let first = house.power().await;
        ann(&first, version, &["secret/#"]).await.vanish().await;
        say(&first, "secret/x", "1").await;
        first.crash();
        house.denied.deny("subscribe secret/#");
        for _ in 0..3 {
            let started = house.power().await;
            assert_eq!(*house.ended.0.lock().unwrap(), ["c secret/#"]);
            started.crash(); // Before the messages were looked for.
            let kept = house.disk.session("c").unwrap().subscriptions;
            assert!(kept[0].1.is_withdrawn && house.stored("c") == 1, "{kept:?}");
        }
        let last = house.power().await;
        pass(SOON).await;
        assert_eq!((house.stored("c"), queued(&last, "c").await), (0, 0));
        assert_eq!(house.disk.session("c").unwrap().subscriptions.len(), 0);
        assert_eq!(*house.ended.0.lock().unwrap(), ["c secret/#"]);
    }
}

/// The checks of a reload do the same for offline clients.
/// It has ended, even if the broker ends again before it has found the messages in the store, and
/// the permission is there again.
#[actix_rt::test]
async fn a_subscription_that_ended_at_a_start_does_not_come_back() {
    for version in VERSIONS {
        let house = House::default();
        let first = house.power().await;
        ann(&first, version, &["secret/#", "open/#"]).await.vanish().await;
        say(&first, "secret/x", "0").await;
        say(&first, "open/x", "1").await;
        first.crash();
        house.denied.deny("subscribe secret/#");
        let second = house.power().await;
        assert_eq!(*house.ended.0.lock().unwrap(), ["c secret/#"]);
        second.crash();
        assert_eq!(house.stored("c"), 2, "the messages are there");
        house.denied.allow("subscribe secret/#");
        let third = house.power().await;
        say(&third, "secret/x", "2").await;
        let packet = connect_as("ann", connect_lasting("c", version));
        let mut client = Client::connected(&third.broker, packet).await;
        take_payload(&mut client, 1, "1").await;
        client.expect_nothing_for(SOON).await;
        assert_eq!(house.disk.session("c").unwrap().subscriptions.len(), 1);
        // The client may subscribe again.
        client.subscribe("secret/#", QOS_1).await;
        say(&third, "secret/x", "3").await;
        take_payload(&mut client, 2, "3").await;
    }
}

#[actix_rt::test]
async fn what_waits_under_a_subscription_that_ends_leaves_the_disk_of_a_broker_that_runs() {
    let house = House::default();
    let powered = house.power().await;
    ann(&powered, V5, &["secret/#", "open/#"]).await.vanish().await;
    for number in 0..300 {
        say(&powered, "secret/x", &format!("{number}")).await;
    }
    say(&powered, "open/x", "stays").await;
    house.denied.deny("subscribe secret/#");
    powered.broker.recheck().await;
    pass(SOON).await;
    assert_eq!((house.stored("c"), queued(&powered, "c").await), (1, 1));
    assert_eq!(house.disk.session("c").unwrap().subscriptions.len(), 1);
    let mut client = ann(&powered, V5, &[]).await;
    take_payload(&mut client, 1, "stays").await;
    client.expect_nothing().await;
}

/// Messages of a shared subscription go to the other members, all of which may be offline.
#[actix_rt::test]
async fn what_came_by_a_shared_subscription_that_ended_goes_to_the_other_members() {
    let house = House::default();
    let first = house.power().await;
    ann(&first, V5, &["$share/g/work"]).await.vanish().await;
    let other = connect_as("ben", connect_lasting("other", V5));
    let mut other = Client::connected(&first.broker, other).await;
    other.subscribe("$share/g/work", QOS_1).await;
    other.vanish().await;
    for number in 0..100 {
        say(&first, "work", &format!("{number}")).await;
    }
    assert_eq!(house.stored("c") + house.stored("other"), 100);
    assert!(house.stored("c") > 0);
    first.crash();
    house.denied.deny("connect c");
    house.desk.now("ann", Standing::Gone);
    let second = house.power().await;
    pass(SOON).await;
    assert!(second.broker.client("c").await.unwrap().is_none());
    assert!(house.disk.session("c").is_none());
    assert_eq!((house.stored("other"), queued(&second, "other").await), (100, 100));
}

#[actix_rt::test]
async fn the_session_of_a_user_that_is_gone_ends() {
    for version in VERSIONS {
        let house = House::default();
        let first = house.power().await;
        ann(&first, version, &["t"]).await.vanish().await;
        say(&first, "t", "1").await;
        first.crash();
        house.desk.now("ann", Standing::Gone);
        let second = house.power().await;
        assert!(second.broker.client("c").await.unwrap().is_none());
        assert!(house.disk.session("c").is_none());
        house.desk.now("ann", Standing::Good);
        let packet = connect_as("ann", connect_lasting("c", version));
        let (_client, present) = Client::connected_with(&second.broker, packet).await;
        assert!(!present);
    }
}

/// Disabled, or without a rule that lets it connect: queued messages stay, and none are added.
#[actix_rt::test]
async fn the_session_of_a_client_that_may_not_connect_rests() {
    for version in VERSIONS {
        for is_disabled in [true, false] {
            let house = House::default();
            let first = house.power().await;
            ann(&first, version, &["t", "$share/g/work"]).await.vanish().await;
            say(&first, "t", "1").await;
            first.crash();
            if is_disabled {
                house.desk.now("ann", Standing::Suspended);
            } else {
                house.denied.deny("connect c");
            }
            let second = house.power().await;
            for topic in ["t", "work"] {
                say(&second, topic, "2").await;
            }
            assert_eq!((house.stored("c"), queued(&second, "c").await), (1, 1));
            if is_disabled {
                house.desk.now("ann", Standing::Good);
            } else {
                house.denied.allow("connect c");
            }
            second.broker.recheck().await;
            say(&second, "t", "3").await;
            assert_eq!(queued(&second, "c").await, 2);
            let mut client = ann(&second, version, &[]).await;
            take_payload(&mut client, 1, "1").await;
            take_payload(&mut client, 2, "3").await;
            client.expect_nothing().await;
        }
    }
}

/// The client may connect again, but not subscribe: it finds out before any recheck.
#[actix_rt::test]
async fn a_session_that_rested_returns_with_the_subscriptions_that_it_may_have() {
    for version in VERSIONS {
        let house = House::default();
        let first = house.power().await;
        ann(&first, version, &["t", "u"]).await.vanish().await;
        say(&first, "t", "1").await;
        first.crash();
        house.denied.deny("connect c");
        house.denied.deny("subscribe t");
        let second = house.power().await;
        house.denied.allow("connect c");
        let mut client = ann(&second, version, &[]).await;
        say(&second, "t", "2").await;
        client.expect_nothing().await;
        say(&second, "u", "3").await;
        take_payload(&mut client, 1, "3").await;
    }
}

/// For sessions that outlive their connection and for others.
#[actix_rt::test]
async fn a_will_of_somebody_who_may_no_longer_is_not_published_after_a_start() {
    for version in VERSIONS {
        for reason in ["nothing", "account gone", "disabled", "connect c", "publish will/c"] {
            for is_lasting in [true, false] {
                let house = House::default();
                let first = house.power().await;
                let last_will = LastWill { qos: QOS_1, ..will("will/c", "gone") };
                let packet = match is_lasting {
                    true => connect_lasting("c", version),
                    false => connect_in(version, "c"),
                };
                let packet = with_will(connect_as("ann", packet), last_will);
                let mut client = Client::connected(&first.broker, packet).await;
                client.ping().await;
                first.crash();
                match reason {
                    "nothing" => {}
                    "account gone" => house.desk.now("ann", Standing::Gone),
                    "disabled" => house.desk.now("ann", Standing::Suspended),
                    _ => house.denied.deny(reason),
                }
                let second = house.power().await;
                let mut watcher = Client::connected(&second.broker, connect("w")).await;
                watcher.subscribe("will/#", QOS_0).await;
                pass(secs(20)).await;
                let session = house.disk.session("c");
                assert!(session.is_none_or(|session| session.will.is_none()), "{reason}");
                if reason == "nothing" && !is_lasting {
                    assert_eq!(watcher.receive_payload().await, "gone");
                }
                watcher.expect_nothing().await;
                drop(client);
            }
        }
    }
}

/// Clients have published to such topics on a version that did not reserve them.
#[actix_rt::test]
async fn what_is_retained_under_topics_of_the_broker_is_removed_at_a_start() {
    let disk = Disk::default();
    let topics = ["$SYS/x", "$events/client_connected", "$control/a/b", "t", "$other/x"];
    for topic in topics {
        disk.retain(topic);
    }
    let powered = disk.power().await;
    let mut client = Client::connected(&powered.broker, connect("c")).await;
    for (topic, stays) in topics.into_iter().zip([false, false, false, true, true]) {
        client.subscribe(topic, QOS_0).await;
        if stays {
            client.expect_publish(retained(publish(topic, "x"))).await;
        }
        client.expect_nothing().await;
    }
    assert_eq!(disk.retained(), 2);
}

/// A withdrawn subscription no longer counts towards the user's share.
#[actix_rt::test]
async fn a_subscription_that_was_withdrawn_gives_its_room_back() {
    let denied = Denied::default();
    let disk = Disk::default();
    let limits = Limits { subscription_bytes_per_user_max: 514, ..generous() };
    let rules = denied.clone();
    let powered = disk.power_with(|builder| builder.authorizer(rules).limits(limits)).await;
    let mut client = Client::connected(&powered.broker, connect("c")).await;
    client.subscribe("a", QOS_0).await;
    denied.deny("subscribe a");
    powered.broker.recheck().await;
    client.subscribe("b", QOS_0).await;
}
