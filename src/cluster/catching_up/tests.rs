//! Mail that waits for its order.

use super::{CATCH_UP_MILLIS_MAX, CatchUps};
use crate::{
    cluster::{
        lanes::Mail,
        members::Lives,
        names::{ClientKey, Incarnation, MessageId, MessageSource, NodeId},
    },
    mqtt::{QoS, Timestamp},
};

const NOW: Timestamp = Timestamp(1_000_000);

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn mail(number: u64, qos: QoS, bytes: usize) -> Mail {
    let source = MessageSource { store: 1, incarnation: Incarnation(3), shard: 0 };
    let id = MessageId { source, number };
    Mail { id, qos, is_alone: true, topic: "t".into(), content: vec![b'x'; bytes].into() }
}

struct Alive;

impl Lives for Alive {
    fn is_dead(&self, _: &NodeId) -> bool {
        false
    }
}

#[test]
fn straight_mail_waits_for_the_previous_holder_within_a_bound() {
    let (mut catch_ups, key) = (CatchUps::default(), ClientKey(1));
    assert!(catch_ups.push(key, mail(1, QoS::AtLeastOnce, 1)).is_some());
    catch_ups.begin(key, node("a"), NOW);
    assert!(catch_ups.push(key, mail(2, QoS::AtLeastOnce, 1)).is_none());
    assert!(catch_ups.handle_drained(key, &node("c")).is_empty(), "another node");
    assert_eq!(catch_ups.handle_drained(key, &node("a")).len(), 1);
    catch_ups.begin(key, node("a"), NOW);
    assert!(catch_ups.push(key, mail(3, QoS::AtLeastOnce, 1)).is_none());
    assert_eq!(catch_ups.poll_late(&Alive, NOW), None);
    let late = catch_ups.poll_late(&Alive, NOW.plus_millis(CATCH_UP_MILLIS_MAX));
    assert_eq!(late.map(|(_, mails)| mails.len()), Some(1));
}
