//! Wills of clients whose sessions end with their connections. The end of the broker ends these
//! sessions too; the Will is published after the next start unless the client reconnects in time.

use hearthmq::mqtt::{Connect, Packet, ProtocolVersion::V3_1, ReasonCode};

use crate::support::{
    Client,
    disk::{Disk, Powered},
    millis,
    packets::*,
    pass, secs,
};

/// How long a client has to reconnect, according to docs/operations.md.
const GRACE_SECS: u64 = 10;

/// Returns a CONNECT with Clean Session, or without a Session Expiry Interval, and a retained Will.
fn connect_with_will(version: hearthmq::mqtt::ProtocolVersion) -> Connect<'static> {
    let mut packet = connect_in(version, "device");
    let mut last = will("status", "dead");
    (last.qos, last.retain) = (QOS_1, true);
    packet.will = Some(last);
    packet
}

const ALL: [hearthmq::mqtt::ProtocolVersion; 3] = [V3_1, V3_1_1, V5];

/// [MQTT-3.1.2-8]
#[actix_rt::test]
async fn a_will_of_a_session_that_does_not_last_outlives_the_broker() {
    for version in ALL {
        let disk = Disk::default();
        let first = disk.power().await;
        let mut device = Client::connected(&first.broker, connect_with_will(version)).await;
        device.ping().await;
        first.crash();
        // A start that is cut short does not shorten the time.
        let second = disk.power().await;
        pass(secs(GRACE_SECS - 1)).await;
        second.crash();
        let third = disk.power().await;
        let mut watcher = Client::connected(&third.broker, connect("watcher")).await;
        watcher.subscribe("status", QOS_1).await;
        watcher.expect_nothing_for(secs(GRACE_SECS - 1)).await;
        pass(secs(2)).await;
        watcher.expect_publish(publish_1(1, "status", "dead")).await;
        watcher.take(QOS_1, 1).await;
        let mut late = Client::connected(&third.broker, connect("late")).await;
        late.subscribe("status", QOS_1).await;
        late.expect_publish(retained(publish_1(1, "status", "dead"))).await;
        drop(device);
        third.crash();
        let fourth = disk.power().await;
        assert_eq!(disk.retained(), 1);
        let mut watcher = Client::connected(&fourth.broker, connect("watcher")).await;
        watcher.subscribe("status", QOS_0).await;
        watcher.expect_publish(retained(publish("status", "dead"))).await;
        watcher.expect_nothing_for(secs(5 * GRACE_SECS)).await;
    }
}

#[actix_rt::test]
async fn a_client_that_is_back_in_time_is_not_reported_dead() {
    for version in ALL {
        for clean_start in [true, false] {
            let disk = Disk::default();
            let first = disk.power().await;
            let mut device = Client::connected(&first.broker, connect_with_will(version)).await;
            device.ping().await;
            first.crash();
            let second = disk.power().await;
            let mut watcher = Client::connected(&second.broker, connect("watcher")).await;
            watcher.subscribe("status", QOS_1).await;
            pass(secs(GRACE_SECS - 1)).await;
            let packet = Connect { clean_start, ..connect_with_will(version) };
            let (back, present) = Client::connected_with(&second.broker, packet).await;
            assert!(!present, "the session ended with the broker");
            watcher.expect_nothing_for(secs(5 * GRACE_SECS)).await;
            back.leave().await;
            watcher.expect_nothing_for(secs(5 * GRACE_SECS)).await;
            second.crash();
            drop(device);
            let third = disk.power().await;
            pass(secs(5 * GRACE_SECS)).await;
            let mut watcher = Client::connected(&third.broker, connect("watcher")).await;
            watcher.subscribe("status", QOS_1).await;
            watcher.expect_nothing().await;
        }
    }
}

/// [MQTT-3.14.4-3]
#[actix_rt::test]
async fn a_client_that_has_taken_its_leave_is_not_reported_dead() {
    for version in ALL {
        let disk = Disk::default();
        let first = disk.power().await;
        Client::connected(&first.broker, connect_with_will(version)).await.leave().await;
        pass(secs(1)).await;
        first.crash();
        let second = disk.power().await;
        pass(secs(5 * GRACE_SECS)).await;
        let mut watcher = Client::connected(&second.broker, connect("watcher")).await;
        watcher.subscribe("status", QOS_1).await;
        watcher.expect_nothing().await;
    }
}

#[actix_rt::test]
async fn a_will_that_a_shutdown_publishes_is_not_published_again() {
    for version in ALL {
        let disk = Disk::default();
        let first = disk.power().await;
        let mut watcher = Client::connected(&first.broker, connect_lasting("c", V5)).await;
        watcher.subscribe("status", QOS_1).await;
        let _device = Client::connected(&first.broker, connect_with_will(version)).await;
        first.broker.shutdown(secs(5)).await;
        first.crash();
        let second = disk.power().await;
        let mut watcher = Client::connected(&second.broker, connect_lasting("c", V5)).await;
        let payload = watcher.receive_payload().await;
        assert_eq!(payload, "dead");
        watcher.take(QOS_1, 1).await;
        watcher.expect_nothing_for(secs(5 * GRACE_SECS)).await;
    }
}

/// A stored session that ends with its last connection: its subscriptions end at the start, its
/// Will waits. [MQTT-3.1.2-23]
#[actix_rt::test]
async fn a_session_that_no_longer_lasts_leaves_its_will_alone() {
    let disk = Disk::default();
    let first = disk.power().await;
    let mut device = Client::connected(&first.broker, connect_lasting("device", V5)).await;
    device.subscribe("$share/g/work", QOS_1).await;
    device.vanish().await;
    let packet = Connect { clean_start: false, ..connect_with_will(V5) };
    let (device, present) = Client::connected_with(&first.broker, packet).await;
    assert!(present);
    first.crash();
    let second = disk.power().await;
    pass(secs(1)).await;
    let mut watcher = Client::connected(&second.broker, connect_lasting("watcher", V5)).await;
    watcher.subscribe("status", QOS_1).await;
    watcher.subscribe("$share/g/work", QOS_1).await;
    watcher.vanish().await;
    second.broker.publish("work", b"1", QOS_1, false).await.unwrap();
    second.crash();
    drop(device);
    let third = disk.power().await;
    let mut watcher = Client::connected(&third.broker, connect_lasting("watcher", V5)).await;
    watcher.expect_publish(publish_1(1, "work", "1")).await;
    watcher.take(QOS_1, 1).await;
    watcher.expect_nothing_for(secs(GRACE_SECS - 2)).await;
    pass(secs(4)).await;
    watcher.expect_publish(publish_1(2, "status", "dead")).await;
}

/// Returns once the broker knows that its store fails. The client waits for an acknowledgement.
async fn notice_trouble(broker: &Powered) -> Client {
    let mut publisher = Client::connected(&broker.broker, connect("p")).await;
    broker.fail(true);
    publisher.publish(retained(publish_1(1, "t", "tried"))).await;
    pass(millis(1)).await;
    publisher
}

/// While the store fails, Wills are not stored, and clients that need no store connect and
/// disconnect.
#[actix_rt::test]
async fn a_store_in_trouble_does_not_keep_a_client_with_a_will_away() {
    let disk = Disk::default();
    let first = disk.power().await;
    let _publisher = notice_trouble(&first).await;
    for _ in 0..3 {
        Client::connected(&first.broker, connect_with_will(V5)).await.leave().await;
    }
    first.fail(false);
}

/// No CONNACK waits for the removal of a Will that was stored, or for what becomes of it.
#[actix_rt::test]
async fn a_store_in_trouble_does_not_stop_a_takeover_from_a_client_with_a_will() {
    for knows in [true, false] {
        for version in ALL {
            let disk = Disk::default();
            let first = disk.power().await;
            let mut watcher = Client::connected(&first.broker, connect("watcher")).await;
            watcher.subscribe("status", QOS_0).await;
            let _old = Client::connected(&first.broker, connect_with_will(version)).await;
            if knows {
                drop(notice_trouble(&first).await);
            }
            first.fail(true);
            let mut clients = Vec::new();
            for _ in 0..3 {
                // Each CONNECT ends the session before it, whose Will is due then.
                let new = Client::connected(&first.broker, connect_with_will(version)).await;
                watcher.expect_publish(publish("status", "dead")).await;
                pass(secs(4)).await;
                clients.push(new);
            }
            first.fail(false);
            pass(secs(1)).await;
            first.crash();
            drop(clients);
            let second = disk.power().await;
            let mut watcher = Client::connected(&second.broker, connect("watcher")).await;
            watcher.subscribe("status", QOS_0).await;
            watcher.expect_publish(retained(publish("status", "dead"))).await;
            watcher.expect_nothing_for(secs(2 * GRACE_SECS)).await;
        }
    }
}

/// A client whose session ended with the broker needs no store when it is back. If the broker ends
/// before the store can be written, the client has to come back again.
#[actix_rt::test]
async fn a_client_whose_will_waits_comes_back_while_the_store_fails() {
    for version in ALL {
        for has_subscription in [true, false] {
            let disk = Disk::default();
            let first = disk.power().await;
            let mut device = Client::connected(&first.broker, connect_lasting("device", V5)).await;
            if has_subscription {
                device.subscribe("t", QOS_1).await;
            }
            device.vanish().await;
            let packet = Connect { clean_start: false, ..connect_with_will(V5) };
            let (device, _) = Client::connected_with(&first.broker, packet).await;
            first.crash();
            let second = disk.power().await;
            let _publisher = notice_trouble(&second).await;
            pass(secs(1)).await;
            let mut watcher = Client::connected(&second.broker, connect("watcher")).await;
            watcher.subscribe("status", QOS_0).await;
            let packet = connect_with_will(version);
            let back = Client::connected(&second.broker, packet).await;
            watcher.expect_nothing_for(secs(2 * GRACE_SECS)).await;
            second.crash();
            drop((device, back));
            let third = disk.power().await;
            let mut watcher = Client::connected(&third.broker, connect("watcher")).await;
            watcher.subscribe("status", QOS_0).await;
            watcher.expect_nothing_for(secs(GRACE_SECS - 1)).await;
            let back = Client::connected(&third.broker, connect_in(version, "device")).await;
            watcher.expect_nothing_for(secs(2 * GRACE_SECS)).await;
            drop(back);
        }
    }
}

/// A client that wants a session that lasts is refused while the store fails, and does not wait for
/// its CONNACK, also where only its Will is left of the session before.
#[actix_rt::test]
async fn a_client_that_asks_for_a_session_is_refused_while_the_store_fails() {
    let disk = Disk::default();
    let first = disk.power().await;
    let device = Client::connected(&first.broker, connect_with_will(V5)).await;
    first.crash();
    let second = disk.power().await;
    let mut publisher = notice_trouble(&second).await;
    for version in ALL {
        let mut back = Client::new(&second.broker, version);
        let packet = connect_lasting("device", version);
        back.send(Packet::Connect(Box::new(packet))).await;
        back.expect_refused(ReasonCode::ServerUnavailable).await;
    }
    second.fail(false);
    publisher.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
    let back = Client::connected(&second.broker, connect_lasting("device", V5)).await;
    drop((device, back));
}
