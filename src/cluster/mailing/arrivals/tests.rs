//! Dialogues with the receiving ends of lanes.

use bytes::Bytes;

use super::{Arrivals, TakenBatch};
use crate::{
    cluster::{
        lanes::{LaneItem, Mail, MailBatch},
        names::{Incarnation, MessageId, MessageSource, NodeId},
    },
    mqtt::QoS,
};

const MINE: Incarnation = Incarnation(3);
const LIFE: Incarnation = Incarnation(7);

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn batch(life: Incarnation, first: u64, numbers: &[u64]) -> MailBatch {
    let source = MessageSource { store: 1, incarnation: LIFE, shard: 0 };
    let items = numbers.iter().map(|number| {
        let (id, qos) = (MessageId { source, number: *number }, QoS::ExactlyOnce);
        let content = Bytes::from_static(b"x");
        LaneItem::Mail(Mail { id, qos, is_alone: true, topic: "t".into(), content })
    });
    let (from, to_incarnation) = (node("a"), MINE);
    MailBatch { from, from_incarnation: life, to_incarnation, first, items: items.collect() }
}

fn numbers(taken: &TakenBatch) -> Vec<u64> {
    taken.mails.iter().map(|mail| mail.id.number).collect()
}

fn stored(arrivals: &mut Arrivals) -> Option<u64> {
    arrivals.poll_answer().map(|(_, answer)| answer.stored)
}

#[test]
fn a_batch_is_answered_when_all_shards_have_stored_it_and_all_before_it() {
    let mut arrivals = Arrivals::new(node("b"));
    arrivals.begin_life(MINE);
    let first = arrivals.handle_batch(batch(LIFE, 1, &[1, 2])).unwrap().unwrap();
    arrivals.divide(&node("a"), first.number, 2);
    let second = arrivals.handle_batch(batch(LIFE, 3, &[3])).unwrap().unwrap();
    arrivals.divide(&node("a"), second.number, 1);
    assert_eq!((numbers(&first), numbers(&second)), (vec![1, 2], vec![3]));
    assert_eq!(stored(&mut arrivals), Some(0));
    arrivals.handle_stored(&node("a"), second.number);
    arrivals.handle_stored(&node("a"), first.number);
    assert_eq!(stored(&mut arrivals), None, "one shard has not stored the first batch");
    arrivals.handle_stored(&node("a"), first.number);
    assert_eq!(stored(&mut arrivals), Some(3));
    // A batch that is sent again is answered, and brings nothing.
    assert!(arrivals.handle_batch(batch(LIFE, 1, &[1, 2])).unwrap().is_none());
    assert_eq!(stored(&mut arrivals), Some(3));
}

#[test]
fn a_message_that_a_former_lane_has_brought_is_dropped_and_answered_when_it_is_stored() {
    let mut arrivals = Arrivals::new(node("b"));
    arrivals.begin_life(MINE);
    let first = arrivals.handle_batch(batch(LIFE, 1, &[1, 2])).unwrap().unwrap();
    arrivals.divide(&node("a"), first.number, 1);
    let again = arrivals.handle_batch(batch(Incarnation(8), 1, &[1, 2, 3])).unwrap().unwrap();
    arrivals.divide(&node("a"), again.number, 1);
    assert_eq!(numbers(&again), [3]);
    arrivals.handle_stored(&node("a"), again.number);
    assert_eq!(stored(&mut arrivals), Some(0));
    arrivals.handle_stored(&node("a"), first.number);
    assert_eq!(stored(&mut arrivals), Some(3));
    // The former life is void.
    assert!(arrivals.handle_batch(batch(LIFE, 3, &[4])).unwrap().is_none());
}

#[test]
fn a_batch_for_a_former_life_of_this_node_brings_nothing() {
    let mut arrivals = Arrivals::new(node("b"));
    arrivals.begin_life(Incarnation(4));
    assert!(arrivals.handle_batch(batch(LIFE, 1, &[1])).unwrap().is_none());
    assert!(arrivals.poll_answer().is_none());
}
