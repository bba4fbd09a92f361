//! Huge pages of memory: withheld from a program with little memory, allowed to one with much.

use std::{
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Packet, Publish, PublishFlags, PublishProperties};

use crate::{
    program::{PATIENCE, Place},
    skipped::skipped,
};

#[test]
fn a_program_gets_huge_pages_once_it_has_much_memory() {
    let place = Place::new().set("limits.retained_bytes_per_user_max=134217728");
    let program = place.start();
    let Some(at_start) = program.may_have_huge_pages() else {
        return skipped("the system does not tell whether a process may have huge pages");
    };
    assert!(!at_start);
    let mut publisher = program.client("publisher");
    let payload = vec![b'x'; 1_000_000];
    for number in 0..70 {
        publisher.send(&Packet::Publish(Publish {
            flags: PublishFlags { retain: true, ..PublishFlags::default() },
            topic: &format!("large/{number}"),
            packet_id: None,
            properties: PublishProperties::default(),
            payload: &payload,
        }));
    }
    publisher.ping();
    let until = Instant::now() + PATIENCE;
    while program.may_have_huge_pages() == Some(false) {
        assert!(Instant::now() < until, "{} bytes", program.memory_highest());
        thread::sleep(Duration::from_millis(20));
    }
}
