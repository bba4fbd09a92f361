//! A disk that takes its time: groups keep the throughput up, nobody else notices, and what is on its
//! way is bounded. In real time, on a store that waits before it is done.

use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use hearthmq::{
    actors::SyncPolicy,
    mqtt::{
        Packet, PacketId, ProtocolVersion, Publish, PublishFlags, PublishProperties, QoS,
        ReasonCode, encode,
    },
};

use super::{
    disk::{SYNC, Slow},
    puback, publish_1,
};
use crate::mqtt::Client;

#[test]
fn hundreds_of_publishers_are_acknowledged_within_a_few_groups() {
    const PUBLISHERS: usize = 300;
    const MESSAGES_OF_EACH: u16 = 10;
    let slow = Slow::new();
    let mut publishers: Vec<Client> =
        (0..PUBLISHERS).map(|number| slow.client(&number.to_string())).collect();
    let (groups, began) = (slow.disk.groups(), Instant::now());
    for id in 1..=MESSAGES_OF_EACH {
        for publisher in &mut publishers {
            publisher.publish("durable", b"m", Some(id)).unwrap();
        }
    }
    for publisher in &mut publishers {
        for _ in 0..MESSAGES_OF_EACH {
            assert_eq!(puback(publisher), ReasonCode::Success);
        }
    }
    // As many as go by while they are sent, and one or two more; one by one it would take minutes.
    let (groups, took) = (slow.disk.groups() - groups, began.elapsed());
    assert!(groups as u128 <= took.as_millis() / SYNC.as_millis() + 1);
    assert!(groups <= 30, "{groups} groups in {took:?}");
}

#[test]
fn who_needs_nothing_kept_does_not_wait_for_the_disk() {
    let slow = Slow::new();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..4 {
            let (slow, is_over) = (&slow, &is_over);
            scope.spawn(move || {
                let mut busy = slow.client(&format!("busy-{number}"));
                while !is_over.load(Ordering::Relaxed) {
                    busy.publish("durable", b"m", Some(1)).unwrap();
                    assert_eq!(puback(&mut busy), ReasonCode::Success);
                }
            });
        }
        let measured = scope.spawn(|| measure(&slow)).join();
        is_over.store(true, Ordering::Relaxed);
        let (mut live, mut pings, mut kept) = measured.unwrap();
        let middle = |times: &mut Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        let (live, pings, kept) = (middle(&mut live), middle(&mut pings), middle(&mut kept));
        assert!(kept >= SYNC, "{kept:?}: what is kept waits");
        assert!(live < SYNC / 4, "{live:?} for QoS 0");
        assert!(pings < SYNC / 4, "{pings:?} for PINGREQ behind a message that is not kept yet");
    });
}

/// How long a QoS 0 message takes, PINGREQ that comes behind a message to be kept, and that message.
fn measure(slow: &Slow) -> (Vec<Duration>, Vec<Duration>, Vec<Duration>) {
    let mut subscriber = slow.client("live");
    subscriber.subscribe("live", QoS::AtMostOnce);
    let mut publisher = slow.client("publisher");
    let (mut live, mut pings, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..20 {
        let began = Instant::now();
        publisher.publish("durable", b"m", Some(1)).unwrap();
        publisher.ping();
        pings.push(began.elapsed());
        let at = Instant::now();
        publisher.publish("live", b"m", None).unwrap();
        subscriber.message();
        live.push(at.elapsed());
        assert_eq!(puback(&mut publisher), ReasonCode::Success);
        kept.push(began.elapsed());
    }
    (live, pings, kept)
}

/// While 64 MiB are on their way to the disk nobody is read who could bring more.
#[test]
fn what_is_on_its_way_to_a_disk_that_hangs_is_bounded() {
    const PUBLISHERS: usize = 40;
    const MESSAGE_BYTES: usize = 256 << 10;
    const MIB: usize = 1 << 20;
    let slow = Slow::new();
    let mut publishers: Vec<Client> =
        (0..PUBLISHERS).map(|number| slow.client(&number.to_string())).collect();
    let payload = vec![7; MESSAGE_BYTES];
    let message = Packet::Publish(Publish {
        flags: PublishFlags { qos: QoS::AtLeastOnce, ..PublishFlags::default() },
        topic: "durable",
        packet_id: PacketId::new(1),
        properties: PublishProperties::default(),
        payload: &payload,
    });
    let mut bytes = Vec::new();
    encode(&message, ProtocolVersion::V5, &mut bytes).unwrap();
    slow.disk.hold(true);
    let taken: usize = thread::scope(|scope| {
        let flood = |publisher: &mut Client| {
            publisher.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            let mut written = 0;
            // Two hundred of them would be 2 GiB in all.
            while written < 200 * bytes.len()
                && let Ok(more) = publisher.stream.write(&bytes[written % bytes.len()..])
            {
                written += more;
            }
            written
        };
        let floods: Vec<_> =
            publishers.iter_mut().map(|publisher| scope.spawn(move || flood(publisher))).collect();
        floods.into_iter().map(|flood| flood.join().unwrap()).sum()
    });
    // What each socket holds, on both ends, comes on top.
    assert!(taken > 32 * MIB, "{} MiB", taken / MIB);
    assert!(taken < (64 + 16 * PUBLISHERS) * MIB, "{} MiB", taken / MIB);
    slow.disk.hold(false);
    for publisher in &mut publishers {
        publisher.receive(|packet| assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}"));
    }
}

/// Where syncing is left to an interval, a disk that does not sync is tried again, and no more often
/// than one that does not write.
#[test]
fn a_disk_that_does_not_sync_is_trouble_until_it_does() {
    let slow = Slow::with(SyncPolicy::Interval(Duration::from_millis(10)));
    let mut publisher = slow.client("publisher");
    slow.disk.sync_fails(true);
    let before = slow.disk.syncs().len();
    assert_eq!(publish_1(&mut publisher, "durable", b"m", 1), ReasonCode::Success);
    // PINGREQ and its answer pass the time.
    let mut wait_for = |is_so: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !is_so() {
            publisher.ping();
            assert!(began.elapsed() < Duration::from_secs(10));
        }
    };
    wait_for(&|| slow.disk.syncs().len() >= before + 4);
    let tried: Vec<Instant> = slow.disk.syncs()[before..].to_vec();
    assert!(!slow.broker.is_storing());
    assert!(tried[3] - tried[1] >= Duration::from_millis(800), "not as fast as it can");
    assert_eq!(
        publish_1(&mut slow.client("other"), "durable", b"m", 1),
        ReasonCode::ImplementationSpecificError
    );
    slow.disk.sync_fails(false);
    wait_for(&|| slow.broker.is_storing());
    assert_eq!(publish_1(&mut slow.client("other"), "durable", b"m", 1), ReasonCode::Success);
}
