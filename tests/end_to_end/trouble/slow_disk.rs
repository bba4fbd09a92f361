//! A slow disk: groups keep the throughput up, other clients do not notice, and changes on their
//! way to the disk are limited. In real time, on a store that waits before it finishes.

use std::{
    io::Write as _,
    sync::atomic::{AtomicUsize, Ordering},
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

use super::{disk::Slow, puback, publish_1};
use crate::{mqtt::Client, program::PATIENCE};

#[test]
fn hundreds_of_publishers_are_acknowledged_within_a_few_groups() {
    const PUBLISHERS: usize = 300;
    const MESSAGES_OF_EACH: u16 = 10;
    let slow = Slow::new();
    let mut publishers: Vec<Client> =
        (0..PUBLISHERS).map(|number| slow.client(&number.to_string())).collect();
    let metrics = slow.broker.metrics();
    let received = || metrics.shards().map(|shard| shard.messages_received[1].value()).sum::<u64>();
    let before = received();
    slow.disk.hold(true);
    let groups = slow.disk.groups();
    for id in 1..=MESSAGES_OF_EACH {
        for publisher in &mut publishers {
            publisher.publish("durable", b"m", Some(id)).unwrap();
        }
    }
    let until = Instant::now() + PATIENCE;
    while received() < before + (PUBLISHERS as u64) * u64::from(MESSAGES_OF_EACH) {
        assert!(Instant::now() < until, "{} messages have come", received() - before);
        thread::yield_now();
    }
    slow.disk.hold(false);
    for publisher in &mut publishers {
        for _ in 0..MESSAGES_OF_EACH {
            assert_eq!(puback(publisher), ReasonCode::Success);
        }
    }
    // The group that was held, one of what came meanwhile, and perhaps one that was being gathered.
    let groups = slow.disk.groups() - groups;
    assert!(groups <= 4, "{groups} groups");
}

#[test]
fn who_needs_nothing_kept_does_not_wait_for_the_disk() {
    let slow = Slow::new();
    let mut subscriber = slow.client("live");
    subscriber.subscribe("live", QoS::AtMostOnce);
    let mut publisher = slow.client("publisher");
    slow.disk.hold(true);
    for number in 0..20_u8 {
        publisher.publish("durable", b"m", Some(u16::from(number) + 1)).unwrap();
        publisher.ping(); // PINGRESP comes, and no PUBACK before it
        publisher.publish("live", &[number], None).unwrap();
        assert_eq!(subscriber.message().payload, [number]);
    }
    slow.disk.hold(false);
    for _ in 0..20 {
        assert_eq!(puback(&mut publisher), ReasonCode::Success);
    }
}

/// While 64 MiB are on their way to the disk, publishers that could add more are not read.
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
    let (in_all, until) = (AtomicUsize::new(0), Instant::now() + PATIENCE);
    let flood = |publisher: &mut Client| {
        publisher.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut written = 0;
        // Two hundred of them would be 2 GiB in all.
        while written < 200 * bytes.len() {
            match publisher.stream.write(&bytes[written % bytes.len()..]) {
                Ok(more) => {
                    written += more;
                    in_all.fetch_add(more, Ordering::Relaxed);
                }
                // A busy machine may take long to accept what it can accept.
                Err(_) if in_all.load(Ordering::Relaxed) <= 32 * MIB => {
                    assert!(Instant::now() < until, "nothing is taken");
                }
                Err(_) => break,
            }
        }
        written
    };
    let flood = &flood;
    let taken: usize = thread::scope(|scope| {
        let floods: Vec<_> =
            publishers.iter_mut().map(|publisher| scope.spawn(move || flood(publisher))).collect();
        floods.into_iter().map(|flood| flood.join().unwrap()).sum()
    });
    // The buffers of each socket, on both ends, come on top.
    assert!(taken > 32 * MIB, "{} MiB", taken / MIB);
    assert!(taken < (64 + 16 * PUBLISHERS) * MIB, "{} MiB", taken / MIB);
    slow.disk.hold(false);
    for publisher in &mut publishers {
        publisher.receive(|packet| assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}"));
    }
}

/// With an interval for syncs, a failed sync is tried again, no more often than a failed write.
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
            assert!(began.elapsed() < PATIENCE);
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
