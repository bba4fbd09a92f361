//! Dialogues with the lanes to other nodes.

use bytes::Bytes;

use super::{PeerStanding, Peers};
use crate::{
    cluster::{
        lanes::{LaneAnswer, LaneItem, Mail, MailBatch, PartNumber},
        names::{Incarnation, MessageId, MessageSource, NodeId},
    },
    mqtt::{QoS, Timestamp},
};

const NOW: Timestamp = Timestamp(1_000_000);
const MINE: Incarnation = Incarnation(3);
const LIFE: Incarnation = Incarnation(7);
const NEXT: Incarnation = Incarnation(8);

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn mail(number: u64, qos: QoS) -> Mail {
    let source = MessageSource { store: 1, incarnation: MINE, shard: 0 };
    let id = MessageId { source, number };
    Mail { id, qos, is_alone: true, topic: "t".into(), content: Bytes::from_static(b"x") }
}

/// Node b serves in a life, in a process.
fn serve(peers: &mut Peers, life: Incarnation, process: u64) {
    peers.handle_standing(&node("b"), PeerStanding::Serving(life));
    peers.handle_hello(&node("b"), life, process);
    peers.open_lanes(&node("a"), MINE, 64 * 1024);
}

/// Returns the numbers of the messages that are sent now.
fn sent(peers: &mut Peers) -> Vec<u64> {
    let batches = std::iter::from_fn(|| peers.poll_batch(NOW)).map(|(_, batch)| batch);
    let items = batches.flat_map(|batch: MailBatch| batch.items);
    let number = |item| match item {
        LaneItem::Mail(mail) => Some(mail.id.number),
        LaneItem::Applied(_)
        | LaneItem::Piece { .. }
        | LaneItem::Skipped
        | LaneItem::Retained(_) => None,
    };
    items.filter_map(number).collect()
}

fn answer(stored: u64, life: Incarnation) -> LaneAnswer {
    let (from, to_incarnation) = (node("b"), MINE);
    LaneAnswer { from, from_incarnation: life, to_incarnation, received: stored, stored }
}

#[test]
fn mail_that_a_life_has_not_acknowledged_goes_first_to_the_next_life_of_the_process() {
    let mut peers = Peers::default();
    let b = peers.number(&node("b"));
    serve(&mut peers, LIFE, 1);
    for number in 1..=3 {
        peers.send(b, mail(number, QoS::ExactlyOnce), Some(PartNumber(number)));
    }
    assert_eq!(sent(&mut peers), [1, 2, 3]);
    peers.handle_answer(&answer(1, LIFE), NOW);
    assert_eq!(peers.take_done(), [PartNumber(1)]);
    peers.handle_standing(&node("b"), PeerStanding::Joining);
    peers.send(b, mail(4, QoS::AtLeastOnce), Some(PartNumber(4)));
    peers.send(b, mail(5, QoS::AtMostOnce), None);
    assert_eq!((sent(&mut peers).len(), peers.take_done().len()), (0, 0));
    serve(&mut peers, NEXT, 1);
    assert_eq!(sent(&mut peers), [2, 3, 4]);
    peers.handle_answer(&answer(3, NEXT), NOW);
    let mut done = peers.take_done();
    done.sort_unstable();
    assert_eq!(done, [2, 3, 4].map(PartNumber));
    assert_eq!(peers.of(&node("b")).counts.dropped, 1, "QoS 0 waits for no lane");
}

#[test]
fn qos_2_that_has_left_goes_to_no_other_process() {
    let mut peers = Peers::default();
    let b = peers.number(&node("b"));
    serve(&mut peers, LIFE, 1);
    peers.send(b, mail(1, QoS::ExactlyOnce), Some(PartNumber(1)));
    peers.send(b, mail(2, QoS::AtLeastOnce), Some(PartNumber(2)));
    assert_eq!(sent(&mut peers), [1, 2]);
    peers.send(b, mail(3, QoS::ExactlyOnce), Some(PartNumber(3)));
    serve(&mut peers, NEXT, 2);
    assert_eq!(sent(&mut peers), [2, 3]);
    assert_eq!(peers.take_done(), [PartNumber(1)]);
    assert_eq!(peers.of(&node("b")).counts.dropped, 1);
}

#[test]
fn the_mail_of_a_dead_node_comes_back_without_qos_2_that_has_left() {
    let mut peers = Peers::default();
    let b = peers.number(&node("b"));
    serve(&mut peers, LIFE, 1);
    peers.send(b, mail(1, QoS::AtLeastOnce), Some(PartNumber(1)));
    peers.send(b, mail(2, QoS::ExactlyOnce), Some(PartNumber(2)));
    assert_eq!(sent(&mut peers), [1, 2]);
    peers.send(b, mail(3, QoS::ExactlyOnce), Some(PartNumber(3)));
    peers.end_lanes();
    assert!(peers.take_done().is_empty(), "this life has ended, and not the other node");
    peers.handle_standing(&node("b"), PeerStanding::Dead);
    assert_eq!(peers.take_done(), [PartNumber(2)]);
    peers.send(b, mail(4, QoS::AtLeastOnce), Some(PartNumber(4)));
    let returned = peers.take_returned();
    let [(from, back)] = &returned[..] else { panic!("of one node") };
    let numbers: Vec<_> = back.iter().map(|back| (back.mail.id.number, back.part)).collect();
    assert_eq!((*from, numbers), (b, [1, 3, 4].map(|it| (it, Some(PartNumber(it)))).to_vec()));
    peers.drop_returned(b, Some(PartNumber(4)));
    assert_eq!(peers.take_done(), [PartNumber(4)]);
    assert_eq!(peers.of(&node("b")).counts.dropped, 2);
    serve(&mut peers, NEXT, 2);
    assert!(sent(&mut peers).is_empty());
}

#[test]
fn no_lane_begins_before_the_life_has_greeted() {
    let mut peers = Peers::default();
    let b = peers.number(&node("b"));
    peers.handle_standing(&node("b"), PeerStanding::Serving(LIFE));
    peers.handle_hello(&node("b"), Incarnation(6), 1);
    peers.open_lanes(&node("a"), MINE, 64 * 1024);
    peers.send(b, mail(1, QoS::AtLeastOnce), Some(PartNumber(1)));
    assert!(sent(&mut peers).is_empty());
    serve(&mut peers, LIFE, 1);
    assert_eq!(sent(&mut peers), [1]);
}

#[test]
fn publishers_wait_while_too_much_is_on_the_way_and_qos_0_is_dropped() {
    let mut peers = Peers::default();
    let b = peers.number(&node("b"));
    serve(&mut peers, LIFE, 1);
    let large = |qos| Mail { content: vec![0; 1024 * 1024].into(), ..mail(1, qos) };
    let mut sent = 0;
    while !peers.is_congested() {
        peers.send(b, large(QoS::AtMostOnce), None);
        sent += 1;
    }
    assert_eq!(sent, 8);
    for _ in 0..10 {
        peers.send(b, large(QoS::AtMostOnce), None);
    }
    assert_eq!(peers.of(&node("b")).counts.dropped, 2);
    peers.handle_standing(&node("b"), PeerStanding::Dead);
    assert!(!peers.is_congested());
}
