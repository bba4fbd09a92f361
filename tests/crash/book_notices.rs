//! Breaks each promise once, on paper: the book must notice it, and must not report anything else.

use std::collections::BTreeMap;

use hearthmq::mqtt::QoS;

use super::book::{Book, Counts, Event, Fault, Kind, Known, MessageId, Receiver};

const TWICE: usize = 0;
const ONCE: usize = 1;
const GROUP: usize = 2;

fn id(number: u32) -> MessageId {
    MessageId { publisher: 0, number }
}

fn sent(number: u32, qos: QoS) -> Event {
    Event::Sent { message: id(number), qos }
}

fn acknowledged(number: u32) -> Event {
    Event::Acknowledged { message: id(number) }
}

fn received(receiver: usize, connection: u32, number: u32) -> Event {
    Event::Received { receiver, connection, message: id(number), dup: false }
}

fn received_with_dup(receiver: usize, connection: u32, number: u32) -> Event {
    Event::Received { receiver, connection, message: id(number), dup: true }
}

fn doubled(receiver: &'static str, number: u32, dup: bool) -> Fault {
    Fault::Doubled { receiver, message: id(number), dup, is_sent_again: false }
}

/// Returns the faults of these notes, for a receiver of QoS 2, one of QoS 1 and a group of QoS 2.
fn faults(notes: impl IntoIterator<Item = Event>) -> Vec<Fault> {
    closed(notes).1
}

fn closed(notes: impl IntoIterator<Item = Event>) -> (Counts, Vec<Fault>) {
    let receiver = |name, qos, kind| Receiver { name, qos, kind };
    let mut book = Book::new(vec![
        receiver("twice", QoS::ExactlyOnce, Kind::Client),
        receiver("once", QoS::AtLeastOnce, Kind::Client),
        receiver("group", QoS::ExactlyOnce, Kind::Group),
    ]);
    notes.into_iter().for_each(|note| book.note(note));
    book.close()
}

fn subscribed() -> Vec<Event> {
    vec![Event::Subscribed { receiver: TWICE }]
}

fn after_subscribing(notes: impl IntoIterator<Item = Event>) -> Vec<Fault> {
    faults(subscribed().into_iter().chain(notes))
}

#[test]
fn a_message_that_was_acknowledged_and_has_not_come_is_lost() {
    let notes = [sent(0, QoS::AtLeastOnce), acknowledged(0), sent(1, QoS::ExactlyOnce)];
    let (counts, found) = closed(subscribed().into_iter().chain(notes));
    assert_eq!(found, [Fault::Lost { receiver: "twice", message: id(0) }]);
    assert_eq!((counts.acknowledged, counts.delivered, counts.lost), (1, 0, 1));
}

#[test]
fn what_was_sent_before_the_subscription_need_not_come() {
    let notes = [
        sent(0, QoS::AtLeastOnce),
        Event::Subscribed { receiver: TWICE },
        acknowledged(0),
        sent(1, QoS::AtLeastOnce),
        acknowledged(1),
    ];
    assert_eq!(faults(notes), [Fault::Lost { receiver: "twice", message: id(1) }]);
}

#[test]
fn a_message_that_came_before_its_acknowledgement_is_not_lost() {
    let notes = [sent(0, QoS::ExactlyOnce), received(TWICE, 1, 0), acknowledged(0)];
    assert_eq!(after_subscribing(notes), []);
}

#[test]
fn what_a_group_has_not_got_is_lost_and_once_is_enough() {
    let notes = [
        Event::Subscribed { receiver: GROUP },
        sent(0, QoS::ExactlyOnce),
        sent(1, QoS::ExactlyOnce),
        acknowledged(0),
        acknowledged(1),
        received(GROUP, 7, 1),
    ];
    assert_eq!(faults(notes), [Fault::Lost { receiver: "group", message: id(0) }]);
}

#[test]
fn members_of_a_group_keep_no_order_but_exactly_once() {
    let notes = [
        sent(0, QoS::ExactlyOnce),
        sent(1, QoS::ExactlyOnce),
        received(GROUP, 7, 1),
        received(GROUP, 8, 0),
    ];
    assert_eq!(faults(notes.clone()), []);
    let twice = notes.into_iter().chain([received(GROUP, 9, 1)]);
    assert_eq!(faults(twice), [doubled("group", 1, false)]);
}

#[test]
fn a_doubled_qos_2_is_found_over_connections_and_with_dup() {
    let notes = [sent(0, QoS::ExactlyOnce), received(TWICE, 1, 0), received_with_dup(TWICE, 2, 0)];
    assert_eq!(faults(notes), [doubled("twice", 0, true)]);
}

#[test]
fn qos_2_that_is_received_with_qos_1_may_be_repeated() {
    let notes = [sent(0, QoS::ExactlyOnce), received(ONCE, 1, 0), received_with_dup(ONCE, 2, 0)];
    let (counts, found) = closed(notes);
    assert_eq!((found, counts.repeated, counts.doubled), (vec![], 1, 0));
}

#[test]
fn a_repeated_qos_1_needs_a_cause() {
    let begin = || vec![sent(0, QoS::AtLeastOnce), received(ONCE, 1, 0)];
    let then = |more: &[Event]| faults(begin().into_iter().chain(more.iter().cloned()));
    let repeated = [Fault::Repeated { receiver: "once", message: id(0) }];
    assert_eq!(then(&[received(ONCE, 1, 0)]), repeated);
    assert_eq!(then(&[received_with_dup(ONCE, 1, 0)]), []);
    assert_eq!(then(&[received(ONCE, 2, 0)]), []);
    assert_eq!(then(&[Event::SentAgain { message: id(0) }, received(ONCE, 1, 0)]), []);
}

#[test]
fn a_swap_is_found_and_a_repetition_is_none() {
    let notes = || vec![sent(0, QoS::AtLeastOnce), sent(1, QoS::AtLeastOnce)];
    let swapped = notes().into_iter().chain([received(ONCE, 1, 1), received(ONCE, 1, 0)]);
    let fault = Fault::Disordered { receiver: "once", message: id(0), after: 1 };
    assert_eq!(faults(swapped), [fault]);
    let again = [(1, 0), (1, 1), (2, 0), (2, 1)];
    let again = again.map(|(connection, number)| received_with_dup(ONCE, connection, number));
    assert_eq!(faults(notes().into_iter().chain(again)), []);
}

#[test]
fn messages_of_different_qos_may_overtake_each_other() {
    let notes = [
        sent(0, QoS::ExactlyOnce),
        sent(1, QoS::AtLeastOnce),
        received(ONCE, 1, 1),
        received(ONCE, 1, 0),
    ];
    assert_eq!(faults(notes), []);
}

#[test]
fn a_session_that_was_given_up_is_owed_nothing_and_gets_nothing_of_before() {
    let notes = || {
        vec![
            Event::Subscribed { receiver: ONCE },
            sent(0, QoS::AtLeastOnce),
            acknowledged(0),
            sent(1, QoS::AtLeastOnce),
            Event::Forgets { receiver: ONCE },
            acknowledged(1),
            Event::Subscribed { receiver: ONCE },
        ]
    };
    assert_eq!(faults(notes()), []);
    let came = |number| faults(notes().into_iter().chain([received(ONCE, 2, number)]));
    assert_eq!(came(0), [Fault::Risen { receiver: "once", message: id(0) }]);
    assert_eq!(came(1), []);
    let more = [sent(2, QoS::AtLeastOnce), acknowledged(2)];
    let lost = faults(notes().into_iter().chain(more));
    assert_eq!(lost, [Fault::Lost { receiver: "once", message: id(2) }]);
}

#[test]
fn a_message_that_nobody_has_sent_is_found() {
    let found = faults([received(ONCE, 1, 3)]);
    assert_eq!(found, [Fault::Stray { receiver: "once", message: id(3) }]);
}

#[test]
fn a_false_session_present_is_found() {
    let connected =
        |known, present| faults([Event::Connected { client: "c".into(), known, present }]);
    assert_eq!(connected(Known::Yes, false), [Fault::SessionLost { client: "c".into() }]);
    assert_eq!(connected(Known::Never, true), [Fault::SessionInvented { client: "c".into() }]);
    for (known, present) in
        [(Known::Yes, true), (Known::Never, false), (Known::Perhaps, true), (Known::Perhaps, false)]
    {
        assert_eq!(connected(known, present), [], "{known:?} {present}");
    }
}

#[test]
fn an_identifier_in_use_brings_the_same_message_with_dup() {
    let again = |then: &str, dup| {
        let (client, packet_id) = ("c".into(), 5);
        let (first, then) = ("a".into(), then.into());
        faults([Event::CameAgain { client, packet_id, first, then, dup }])
    };
    assert_eq!(again("a", true), []);
    assert!(matches!(again("a", false)[..], [Fault::WithoutDup { .. }]));
    assert!(matches!(again("b", true)[..], [Fault::IdentifierReused { .. }]));
}

/// Sends 0, 1, nothing and 3 to topic 0; acknowledges the first `acknowledged_up_to` of them.
fn kept(acknowledged_up_to: u32, found: Option<u32>) -> Vec<Fault> {
    let mut notes = Vec::new();
    for number in 0..4 {
        notes.push(Event::SentToKeep { message: id(number), topic: 0, clears: number == 2 });
    }
    notes.extend((0..acknowledged_up_to).map(acknowledged));
    notes.push(Event::Retained { found: found.map(|it| (0, it)).into_iter().collect() });
    faults(notes)
}

#[test]
fn retained_is_the_last_that_was_acknowledged_or_a_later_one() {
    let right = [
        (0, vec![None, Some(0), Some(1), Some(3)]),
        (1, vec![None, Some(0), Some(1), Some(3)]),
        (2, vec![None, Some(1), Some(3)]),
        (3, vec![None, Some(3)]),
        (4, vec![Some(3)]),
    ];
    for (acknowledged, right) in right {
        for found in [None, Some(0), Some(1), Some(2), Some(3)] {
            let faults = kept(acknowledged, found);
            assert_eq!(faults.is_empty(), right.contains(&found), "{acknowledged} {found:?}");
        }
    }
}

#[test]
fn only_what_cannot_have_been_cleared_is_surely_retained() {
    let mut book = Book::new(Vec::new());
    book.note(Event::SentToKeep { message: id(0), topic: 0, clears: false });
    assert!(book.surely_retained().is_empty(), "nothing was acknowledged");
    book.note(acknowledged(0));
    assert_eq!(book.surely_retained(), [0]);
    book.note(Event::SentToKeep { message: id(1), topic: 0, clears: true });
    assert!(book.surely_retained().is_empty(), "it may have been cleared");
    book.note(Event::Retained { found: BTreeMap::new() });
    assert!(!book.has_faults());
}

#[test]
fn a_will_that_is_lost_late_or_of_the_living_is_found() {
    let due = || Event::WillDue { will: 4 };
    assert_eq!(faults([due()]), [Fault::WillLost { will: 4 }]);
    assert_eq!(faults([due(), Event::Will { will: 4, late_ms: 1_000 }]), []);
    assert_eq!(faults([Event::Will { will: 4, late_ms: 0 }, due()]), []);
    let late = faults([due(), Event::Will { will: 4, late_ms: 60_000 }]);
    assert_eq!(late, [Fault::WillLate { will: 4, late_ms: 60_000 }]);
    let living = faults([Event::WillOfTheLiving { client: "c".into() }]);
    assert_eq!(living, [Fault::WillOfTheLiving { client: "c".into() }]);
}

#[test]
fn a_version_that_does_not_grow_is_found() {
    let version = |version| Event::Presence { client: "c".into(), version };
    assert_eq!(faults([version(1), version(2), version(9)]), []);
    for again in [7, 6] {
        let fault = Fault::VersionWentBack { client: "c".into(), before: 7, version: again };
        assert_eq!(faults([version(7), version(again)]), [fault]);
    }
}

#[test]
fn a_message_without_an_answer_is_found() {
    let unanswered = Event::Unanswered { client: "c".into(), messages: 2 };
    assert_eq!(faults([unanswered]), [Fault::Unanswered { client: "c".into(), messages: 2 }]);
}

#[test]
fn a_refusal_and_a_connection_that_was_cut_off_are_found() {
    let refused = Event::Refused { message: id(0), reason: "QuotaExceeded".into() };
    assert!(matches!(faults([refused])[..], [Fault::Refused { .. }]));
    let cut_off = Event::CutOff { client: "c".into(), why: "reset".into() };
    assert!(matches!(faults([cut_off])[..], [Fault::CutOff { .. }]));
}
