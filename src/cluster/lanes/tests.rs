//! Dialogues with the two ends of a lane.

use super::{Inlet, Lane, LaneItem, Mail, MailBatch, PartNumber, SEND_AGAIN_MILLIS};
use crate::{
    cluster::names::{Incarnation, MessageId, MessageSource, NodeId},
    mqtt::{QoS, Timestamp},
};

const NOW: Timestamp = Timestamp(1_000_000);
const A: Incarnation = Incarnation(3);
const B: Incarnation = Incarnation(7);

fn mail(number: u64, qos: QoS, bytes: usize) -> Mail {
    let source = MessageSource { store: 1, incarnation: A, shard: 0 };
    let id = MessageId { source, number };
    Mail { id, qos, is_alone: true, topic: "t".into(), content: vec![b'x'; bytes].into() }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn ends() -> (Lane, Inlet) {
    let lane = Lane::new(node("a"), A, B, 1_000, 2_000);
    (lane, Inlet::new(node("b"), B, A, 10_000))
}

fn batches(lane: &mut Lane, now: Timestamp) -> Vec<MailBatch> {
    std::iter::from_fn(|| lane.poll_batch(now)).collect()
}

fn numbers(items: &[(u64, LaneItem)]) -> Vec<u64> {
    let number = |(_, item): &(u64, LaneItem)| match item {
        LaneItem::Mail(mail) => Some(mail.id.number),
        LaneItem::Applied(_)
        | LaneItem::Piece { .. }
        | LaneItem::Skipped
        | LaneItem::Retained(_) => None,
    };
    items.iter().filter_map(number).collect()
}

#[test]
fn a_part_is_done_when_its_message_is_stored_and_not_when_it_has_arrived() {
    let (mut lane, mut inlet) = ends();
    lane.push_mail(mail(1, QoS::AtLeastOnce, 10), Some(PartNumber(5)));
    for batch in batches(&mut lane, NOW) {
        assert_eq!(numbers(&inlet.handle_batch(batch).unwrap()), [1]);
    }
    lane.handle_answer(&inlet.poll_answer().unwrap(), NOW);
    assert_eq!(lane.poll_stored(), None);
    inlet.handle_stored(1);
    lane.handle_answer(&inlet.poll_answer().unwrap(), NOW);
    assert_eq!(lane.poll_stored(), Some(PartNumber(5)));
    assert!(lane.is_empty());
}

#[test]
fn a_lost_batch_is_sent_again_and_a_repeated_one_is_taken_once() {
    let (mut lane, mut inlet) = ends();
    for number in 1..=3 {
        lane.push_mail(mail(number, QoS::ExactlyOnce, 400), None);
    }
    let sent = batches(&mut lane, NOW);
    assert_eq!(sent.len(), 3, "each has its own batch");
    // The first one is lost: nothing is taken of those behind it.
    assert!(inlet.handle_batch(sent[1].clone()).unwrap().is_empty());
    assert!(inlet.handle_batch(sent[2].clone()).unwrap().is_empty());
    assert!(batches(&mut lane, NOW.plus_millis(SEND_AGAIN_MILLIS - 1)).is_empty());
    let again = batches(&mut lane, NOW.plus_millis(SEND_AGAIN_MILLIS));
    let taken =
        again.iter().chain(&sent).flat_map(|batch| inlet.handle_batch(batch.clone()).unwrap());
    assert_eq!(numbers(&taken.collect::<Vec<_>>()), [1, 2, 3]);
}

#[test]
fn qos_0_is_not_sent_again_and_does_not_stop_what_is_behind_it() {
    let (mut lane, mut inlet) = ends();
    lane.push_mail(mail(1, QoS::AtMostOnce, 10), None);
    lane.push_mail(mail(2, QoS::AtLeastOnce, 10), None);
    drop(batches(&mut lane, NOW));
    let again = batches(&mut lane, NOW.plus_millis(SEND_AGAIN_MILLIS));
    let taken: Vec<_> =
        again.into_iter().flat_map(|batch| inlet.handle_batch(batch).unwrap()).collect();
    assert_eq!(numbers(&taken), [2]);
}

#[test]
fn a_message_above_the_payload_travels_in_pieces_and_comes_back_whole() {
    let (mut lane, mut inlet) = ends();
    lane.push_mail(mail(1, QoS::AtLeastOnce, 5_000), Some(PartNumber(1)));
    assert!(!lane.has_room(), "the bytes on the way are bounded");
    let sent = batches(&mut lane, NOW);
    assert!(sent.len() > 5);
    let taken: Vec<_> =
        sent.into_iter().flat_map(|batch| inlet.handle_batch(batch).unwrap()).collect();
    assert_eq!(numbers(&taken), [1]);
    let back = lane.end();
    assert_eq!((back[0].mail.content.len(), back[0].part), (5_000, Some(PartNumber(1))));
    assert!(back[0].has_left);
}

#[test]
fn an_item_that_is_larger_than_any_ends_the_lane() {
    let (mut lane, _) = ends();
    let mut inlet = Inlet::new(node("b"), B, A, 1_000);
    lane.push_mail(mail(1, QoS::AtLeastOnce, 5_000), None);
    let results = batches(&mut lane, NOW).into_iter().map(|batch| inlet.handle_batch(batch));
    assert!(results.collect::<Result<Vec<_>, _>>().is_err());
}

#[test]
fn mail_of_another_life_is_refused() {
    let (mut lane, _) = ends();
    lane.push_mail(mail(1, QoS::AtLeastOnce, 10), None);
    let batch = batches(&mut lane, NOW).remove(0);
    let mut later = Inlet::new(node("b"), Incarnation(8), A, 10_000);
    assert!(later.handle_batch(batch).unwrap().is_empty());
    assert_eq!(later.poll_answer(), None);
}
