//! Mail between shards crosses what clients do meanwhile. The shards run on one thread, and each
//! dialogue holds back some of their mail.

use std::time::Duration;

use hearthmq::{
    actors::SyncPolicy,
    broker::{
        Builder,
        simulation::{Route, SimulatedShards},
    },
    limits::Limits,
    mqtt::{
        LastWill,
        ReasonCode::{GrantedQoS2, NoMatchingSubscribers, SessionTakenOver, Success},
    },
};

use tokio::time::timeout;

use crate::{
    post::{Post, between},
    support::{
        Client,
        disk::{Disk, Powered},
        generous, millis,
        packets::*,
        pass, secs,
    },
};

/// The time after which each shard has tried again to write to its store.
const SWEPT: Duration = millis(250);

/// A broker with several shards on one thread, whose mail this holds back on request.
pub(crate) struct Shards {
    pub(crate) powered: Powered,
    post: Post,
}

impl Shards {
    async fn of(number: u16, disk: &Disk) -> Self {
        Self::within(number, disk, |_| {}).await
    }

    /// Does the same with limits of the test.
    pub(crate) async fn within(number: u16, disk: &Disk, change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = generous();
        change(&mut limits);
        Self::with(number, disk, |builder| builder.limits(limits)).await
    }

    /// Does the same with configuration.
    async fn with(number: u16, disk: &Disk, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let post = Post::open(&SimulatedShards::new(number, 1), 1);
        let configure = |builder| configure(builder).simulated(post.shards());
        let powered = disk.power_with(configure).await;
        Self { powered, post }
    }

    /// Returns a client identifier that has its home on this shard.
    pub(crate) fn resident(&self, name: &str, shard: u16) -> String {
        let mut names = (0..).map(|number| format!("{name}-{number}"));
        names.find(|name| self.post.shards().home(name) == shard).unwrap()
    }

    /// Connects a client with a session that lasts, at home on this shard.
    async fn client(&self, name: &str, shard: u16) -> Client {
        let name = self.resident(name, shard);
        Client::connected(&self.powered.broker, connect_lasting(&name, V5)).await
    }

    /// Connects a client whose session ends with its connection.
    pub(crate) async fn brief_client(&self, name: &str, shard: u16) -> Client {
        let name = self.resident(name, shard);
        Client::connected(&self.powered.broker, connect(&name)).await
    }

    /// Holds back the mail from one shard to another.
    pub(crate) fn hold(&self, from: u16, to: u16) {
        self.post.hold(move |route: Route, _| between(route) == Some((from, to)));
    }

    /// Delivers what was held back.
    pub(crate) async fn release(&self) {
        self.post.release();
        pass(millis(10)).await;
    }
}

/// [MQTT-4.4.0-1]
#[actix_rt::test]
async fn a_message_on_its_way_to_a_session_that_is_taken_over_comes_to_the_new_connection() {
    let disk = Disk::default();
    let shards = Shards::of(2, &disk).await;
    let mut old = shards.client("s", 1).await;
    old.subscribe("t", QOS_2).await;
    let mut publisher = shards.client("p", 0).await;
    for (qos, id) in [(QOS_1, 1), (QOS_2, 2)] {
        shards.hold(0, 1);
        let mut packet = publish_1(id, "t", "x");
        packet.flags.qos = qos;
        publisher.publish(packet).await;
        publisher.expect_nothing().await; // It is not stored where it must be.
        let mut new = shards.client("s", 1).await;
        old.expect_disconnect(SessionTakenOver).await;
        new.expect_nothing().await;
        shards.release().await;
        publisher.expect_taken(qos, id, Success).await;
        let mut packet = publish_1(id, "t", "x");
        packet.flags.qos = qos;
        new.expect_publish(packet).await;
        new.take(qos, id).await;
        new.expect_nothing().await;
        old = new;
    }
}

/// [MQTT-3.10.4-2] [MQTT-3.10.4-3]
#[actix_rt::test]
async fn an_unsubscribe_that_crosses_a_publish_is_answered_and_so_is_the_publish() {
    let disk = Disk::default();
    let shards = Shards::of(2, &disk).await;
    let mut subscriber = shards.client("s", 1).await;
    subscriber.subscribe("t", QOS_1).await;
    let mut publisher = shards.client("p", 0).await;
    shards.hold(0, 1);
    publisher.publish(publish_1(1, "t", "in flight")).await;
    pass(millis(1)).await;
    subscriber.send(unsubscribe(7, vec!["t"])).await;
    subscriber.expect(unsuback(7, &[Success])).await;
    publisher.publish(publish_1(2, "t", "later")).await;
    publisher.expect_nothing().await;
    shards.release().await;
    publisher.expect(puback(1, Success)).await;
    publisher.expect(puback(2, NoMatchingSubscribers)).await;
    subscriber.expect_publish(publish_1(1, "t", "in flight")).await;
    subscriber.take(QOS_1, 1).await;
    subscriber.expect_nothing().await;
}

#[actix_rt::test]
async fn a_message_on_its_way_to_a_session_that_ends_comes_to_no_other_session() {
    let disk = Disk::default();
    let shards = Shards::of(2, &disk).await;
    let mut ends = shards.brief_client("ends", 1).await;
    ends.subscribe("t", QOS_1).await;
    let mut publisher = shards.client("p", 0).await;
    shards.hold(0, 1);
    publisher.publish(publish_1(1, "t", "x")).await;
    pass(millis(1)).await;
    ends.leave().await;
    // The new session has the place of the one that has ended.
    let mut begins = shards.client("begins", 1).await;
    shards.release().await;
    publisher.expect(puback(1, Success)).await;
    begins.expect_nothing().await;
}

/// [MQTT-4.8.2-5]
#[actix_rt::test]
async fn a_message_on_its_way_to_a_member_that_leaves_goes_to_another_member() {
    let disk = Disk::default();
    let shards = Shards::of(3, &disk).await;
    let mut stays = shards.client("stays", 2).await;
    let mut publisher = shards.client("p", 0).await;
    for (qos, id) in [(QOS_1, 1), (QOS_2, 2)] {
        let mut leaves = shards.brief_client("leaves", 1).await;
        leaves.subscribe("$share/g/t", QOS_2).await;
        shards.hold(0, 1);
        let mut packet = publish_1(id, "t", "x");
        packet.flags.qos = qos;
        publisher.publish(packet).await;
        pass(millis(1)).await;
        stays.subscribe("$share/g/t", QOS_2).await;
        leaves.leave().await;
        shards.release().await;
        publisher.expect_taken(qos, id, Success).await;
        assert_eq!(stays.receive_payload().await, "x");
        stays.take(qos, id).await;
        stays.expect_nothing().await;
        stays.send(unsubscribe(8, vec!["$share/g/t"])).await;
        stays.expect(unsuback(8, &[Success])).await;
    }
}

/// The request of a member for a backlog crosses its own end: the backlog waits for the next one.
#[actix_rt::test]
async fn a_backlog_that_crosses_the_end_of_its_taker_comes_once() {
    for (from, to) in [(1, 0), (0, 1)] {
        let disk = Disk::default();
        let shards = Shards::of(2, &disk).await;
        let mut holder = shards.client("holder", 0).await;
        holder.subscribe("$share/g/t", QOS_2).await;
        holder.vanish().await;
        let mut publisher = shards.client("p", 0).await;
        for (id, payload) in [(1, "1"), (2, "2"), (3, "3")] {
            publisher.publish(publish_2(id, "t", payload)).await;
            publisher.expect_taken(QOS_2, id, Success).await;
        }
        shards.hold(from, to);
        let mut taker = shards.client("taker", 1).await;
        taker.send(subscribe(9, vec![filter("$share/g/t", QOS_2)])).await;
        taker.expect(suback(9, &[GrantedQoS2])).await;
        taker.vanish().await;
        shards.release().await;
        pass(secs(1)).await;
        let mut taker = shards.client("taker", 1).await;
        // A message that goes from member to member may lose its place in the order.
        let mut had = Vec::new();
        for _ in 1..=3 {
            had.push(taker.receive_payload().await);
        }
        had.sort();
        assert_eq!(had, ["1", "2", "3"]);
        for id in 1..=3 {
            taker.take(QOS_2, id).await;
        }
        taker.expect_nothing().await;
        let mut holder = shards.client("holder", 0).await;
        holder.expect_nothing().await;
    }
}

/// [MQTT-4.3.3-10]
#[actix_rt::test]
async fn a_qos_2_message_on_its_way_at_a_crash_comes_once_after_it() {
    let disk = Disk::default();
    let first = Shards::of(2, &disk).await;
    let mut subscriber = first.client("s", 1).await;
    subscriber.subscribe("t", QOS_2).await;
    let mut publisher = first.client("p", 0).await;
    first.hold(0, 1);
    publisher.publish(publish_2(1, "t", "x")).await;
    pass(millis(1)).await;
    let names = (first.resident("s", 1), first.resident("p", 0));
    first.powered.crash();
    let second = Shards::of(3, &disk).await;
    let broker = &second.powered.broker;
    let mut publisher = Client::connected(broker, connect_lasting(&names.1, V5)).await;
    publisher.publish(dup(publish_2(1, "t", "x"))).await;
    publisher.expect_taken(QOS_2, 1, Success).await;
    let mut subscriber = Client::connected(broker, connect_lasting(&names.0, V5)).await;
    assert_eq!(subscriber.receive_payload().await, "x");
    subscriber.take(QOS_2, 1).await;
    subscriber.expect_nothing().await;
}

/// The Will of a session that is discarded, for a session on another shard, comes with whatever group
/// of changes the broker ends. Between the groups of the two shards it comes again. [MQTT-3.1.2-8]
#[actix_rt::test]
async fn the_will_of_a_discarded_session_is_not_lost_wherever_the_broker_ends() {
    const WILL_DELAY_SECS: u64 = 100;
    let mut came = Vec::new();
    for groups in 0..6 {
        let disk = Disk::default();
        let first = Shards::of(2, &disk).await;
        let mut heir = first.client("s", 1).await;
        heir.subscribe("will", QOS_2).await;
        heir.vanish().await;
        let names = (first.resident("s", 1), first.resident("p", 0));
        let mut packet = connect_lasting(&names.1, V5);
        let mut last = will("will", "gone");
        last.qos = QOS_2;
        last.properties.will_delay_interval = Some(WILL_DELAY_SECS as u32);
        packet.will = Some(last);
        Client::connected(&first.powered.broker, packet).await.vanish().await;
        pass(secs(1)).await;
        first.powered.cut_off_after(groups);
        let mut packet = connect_lasting(&names.1, V5);
        packet.clean_start = true;
        Client::connected(&first.powered.broker, packet).await;
        pass(millis(10)).await;
        first.powered.crash();
        let second = Shards::of(2, &disk).await;
        pass(secs(2 * WILL_DELAY_SECS)).await;
        let broker = &second.powered.broker;
        let mut heir = Client::connected(broker, connect_lasting(&names.0, V5)).await;
        let mut times = 0;
        while let Ok(payload) = timeout(secs(1), heir.receive_payload()).await {
            assert_eq!(payload, "gone");
            times += 1;
        }
        came.push(times);
    }
    assert!(came.iter().all(|times| *times >= 1), "{came:?}");
    assert!(came.iter().filter(|times| **times > 1).count() <= 1, "{came:?}");
}

/// An immediate store gets the changes of all shards in their order, also those that it has not
/// taken at first.
#[actix_rt::test]
async fn a_qos_2_message_between_shards_leaves_the_outbox_after_its_store_has_failed() {
    let disk = Disk::default();
    let first = Shards::of(2, &disk).await;
    let mut subscriber = first.client("s", 0).await;
    subscriber.subscribe("t", QOS_2).await;
    let mut publisher = first.client("p", 1).await;
    first.powered.fail(true);
    publisher.publish(publish_2(1, "t", "x")).await;
    pass(millis(1)).await;
    first.powered.fail(false);
    publisher.expect_taken(QOS_2, 1, Success).await;
    subscriber.expect_publish(publish_2(1, "t", "x")).await;
    subscriber.take(QOS_2, 1).await;
    pass(secs(1)).await;
    let name = first.resident("s", 0);
    first.powered.crash();
    let second = Shards::of(2, &disk).await;
    let again = connect_lasting(&name, V5);
    let mut subscriber = Client::connected(&second.powered.broker, again).await;
    subscriber.expect_nothing().await;
}

/// What a shard stores later than the rest of its changes says nothing of what another shard must
/// store. [MQTT-4.3.2-4]
#[actix_rt::test]
async fn a_store_that_works_again_confirms_no_message_that_is_on_its_way() {
    let disk = Disk::default();
    let shards = Shards::of(2, &disk).await;
    let mut here = shards.client("here", 0).await;
    here.subscribe("here", QOS_1).await;
    let mut away = shards.client("away", 1).await;
    away.subscribe("away", QOS_1).await;
    let mut publisher = shards.client("p", 0).await;
    shards.hold(0, 1);
    publisher.publish(publish_1(1, "away", "x")).await;
    pass(millis(1)).await;
    shards.powered.fail(true);
    publisher.publish(publish_1(2, "here", "y")).await;
    pass(millis(1)).await;
    shards.powered.fail(false);
    pass(SWEPT).await;
    publisher.expect_nothing().await;
    shards.release().await;
    publisher.expect(puback(1, Success)).await;
    publisher.expect(puback(2, Success)).await;
}

/// The Will is due when its session expires. A crash finds the message between the shards.
#[actix_rt::test]
async fn a_will_on_its_way_outlives_the_session_that_ends_with_it() {
    let disk = Disk::default();
    let shards = Shards::of(2, &disk).await;
    let mut heir = shards.client("heir", 1).await;
    heir.subscribe("w", QOS_1).await;
    heir.vanish().await;
    let name = shards.resident("testator", 0);
    let mut packet = connect_lasting(&name, V5);
    packet.properties.session_expiry_interval = Some(10);
    let mut last_will = LastWill { qos: QOS_1, ..will("w", "gone") };
    last_will.properties.will_delay_interval = Some(10);
    packet.will = Some(last_will);
    Client::connected(&shards.powered.broker, packet).await.vanish().await;
    shards.hold(0, 1);
    pass(secs(11)).await;
    assert!(shards.powered.broker.client(&name).await.unwrap().is_none());
    let heir_name = shards.resident("heir", 1);
    shards.powered.crash();
    assert!(disk.session(&name).is_some_and(|session| session.will.is_some()));
    assert_eq!(disk.session(&heir_name).unwrap().waiting.messages, 0);
    let shards = Shards::of(2, &disk).await;
    pass(secs(11)).await;
    assert_eq!(disk.session(&heir_name).unwrap().waiting.messages, 1);
    let mut heir = shards.client("heir", 1).await;
    assert_eq!(heir.receive_payload().await, "gone");
    heir.take(QOS_1, 1).await;
    heir.expect_nothing().await;
}

/// An end of the broker in order may find the message between the shards, too: a Will may be due while the
/// broker ends. With this setting no output waits for the store, but the Will does. [MQTT-3.1.2-8]
#[actix_rt::test]
async fn a_will_stays_until_its_message_is_stored_though_nothing_else_waits_for_the_store() {
    let disk = Disk::default();
    let shards = Shards::with(2, &disk, |builder| builder.sync(SyncPolicy::Off)).await;
    let mut heir = shards.client("heir", 1).await;
    heir.subscribe("w", QOS_1).await;
    heir.vanish().await;
    let name = shards.resident("testator", 0);
    let mut packet = connect_lasting(&name, V5);
    let mut last_will = LastWill { qos: QOS_1, ..will("w", "gone") };
    last_will.properties.will_delay_interval = Some(1);
    packet.will = Some(last_will);
    Client::connected(&shards.powered.broker, packet).await.vanish().await;
    shards.hold(0, 1);
    pass(secs(2)).await;
    let has_will = || disk.session(&name).unwrap().will.is_some();
    assert!(has_will(), "the message is still between the shards");
    shards.release().await;
    let heir_name = shards.resident("heir", 1);
    assert_eq!(disk.session(&heir_name).unwrap().waiting.messages, 1);
    assert!(!has_will());
}
