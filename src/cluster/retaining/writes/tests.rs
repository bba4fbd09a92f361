//! Dialogues with the messages on their way into the stream.

use bytes::Bytes;

use super::{RetainedWrites, StreamWrite, WRITE_MILLIS_MAX, WriteEnd, WriteOutcome};
use crate::{cluster::names::Sequence, mqtt::Timestamp};

fn write(number: u64, key: &str) -> StreamWrite {
    let payload = Bytes::from_static(b"x");
    StreamWrite { number, key: key.into(), payload, kept_secs: None, is_first_join: false }
}

fn polled(writes: &mut RetainedWrites, now: u64) -> Vec<u64> {
    std::iter::from_fn(|| writes.poll_write(Timestamp(now))).map(|write| write.number).collect()
}

#[test]
fn the_messages_of_one_topic_go_one_after_the_other_and_those_of_others_beside_them() {
    let mut writes = RetainedWrites::default();
    for (number, key) in [(1, "a"), (2, "b"), (3, "a"), (4, "a")] {
        writes.push(write(number, key), Timestamp(0));
    }
    assert_eq!(polled(&mut writes, 0), [1, 2]);
    writes.handle_end(1, WriteEnd::Written(Sequence(7)), Timestamp(1));
    assert_eq!(writes.poll_outcome(), Some((1, WriteOutcome::Written(Sequence(7)))));
    assert_eq!(polled(&mut writes, 1), [3]);
    writes.handle_end(3, WriteEnd::Refused, Timestamp(2));
    assert_eq!(writes.poll_outcome(), Some((3, WriteOutcome::Unavailable)));
    assert_eq!(polled(&mut writes, 2), [4]);
    writes.handle_end(4, WriteEnd::Present, Timestamp(2));
    writes.handle_end(2, WriteEnd::Written(Sequence(8)), Timestamp(2));
    assert!(writes.is_empty() && writes.topics.is_empty());
    assert_eq!((writes.bytes, writes.next_at()), (0, Timestamp::NEVER));
}

#[test]
fn a_write_without_an_answer_is_repeated_until_its_time_is_over() {
    let mut writes = RetainedWrites::default();
    writes.push(write(1, "a"), Timestamp(0));
    writes.push(write(2, "a"), Timestamp(4_000));
    let mut tries = 0;
    for now in 0..WRITE_MILLIS_MAX {
        writes.handle_time(Timestamp(now));
        for number in polled(&mut writes, now) {
            assert_eq!(number, 1, "its order is kept");
            writes.handle_end(number, WriteEnd::Unknown, Timestamp(now));
            tries += 1;
        }
    }
    assert_eq!((tries, writes.poll_outcome()), (20, None));
    writes.handle_time(Timestamp(WRITE_MILLIS_MAX));
    assert_eq!(writes.poll_outcome(), Some((1, WriteOutcome::Unavailable)));
    assert_eq!(polled(&mut writes, WRITE_MILLIS_MAX), [2]);
}

#[test]
fn one_message_each_second_is_tried_while_the_stream_is_away() {
    let mut writes = RetainedWrites::default();
    writes.push(write(1, "a"), Timestamp(0));
    polled(&mut writes, 0);
    writes.handle_time(Timestamp(WRITE_MILLIS_MAX));
    assert!(writes.is_away());
    writes.handle_end(1, WriteEnd::Unknown, Timestamp(WRITE_MILLIS_MAX));
    let mut now = WRITE_MILLIS_MAX + 1;
    for number in 2..2_000 {
        writes.push(write(number, "b"), Timestamp(now));
        now += 1;
    }
    assert_eq!(writes.items.len(), 1, "those that are tried");
    let [tried] = polled(&mut writes, now)[..] else { panic!("one is tried") };
    writes.handle_end(tried, WriteEnd::Written(Sequence(1)), Timestamp(now));
    assert!(!writes.is_away());
    writes.push(write(5_000, "b"), Timestamp(now));
    assert_eq!(polled(&mut writes, now), [5_000]);
}

#[test]
fn a_late_answer_of_a_write_that_was_given_up_changes_nothing() {
    let mut writes = RetainedWrites::default();
    writes.push(write(1, "a"), Timestamp(0));
    polled(&mut writes, 0);
    writes.give_up(Timestamp(1));
    assert_eq!(writes.poll_outcome(), Some((1, WriteOutcome::Unavailable)));
    writes.handle_end(1, WriteEnd::Written(Sequence(1)), Timestamp(2));
    assert_eq!((writes.poll_outcome(), writes.under_way), (None, 0));
}

#[test]
fn what_waits_is_bounded() {
    let mut writes = RetainedWrites::default();
    let large = Bytes::from(vec![0; 1 << 20]);
    for number in 0..200 {
        let large = StreamWrite { payload: large.clone(), ..write(number, "a") };
        writes.push(large, Timestamp(0));
    }
    assert!(writes.bytes <= super::WAITING_BYTES_MAX && writes.len() >= 60);
}
