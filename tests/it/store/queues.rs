//! Queues on every store: waiting messages, messages in flight, their order, and reading by pages.

use std::sync::Arc;

use hearthmq::{
    mqtt::{Message, Publication, QoS, Timestamp},
    store::{
        Backlog, Change, PageBounds, QueuePlace, QueuedMessage, SessionNumber, StoredInFlight,
    },
};

use super::{
    subject::{Directory, Subject, on_every_store},
    vocabulary::*,
};

on_every_store!(
    a_message_waits_until_it_is_dequeued,
    a_queued_message_keeps_all_that_it_has,
    what_is_in_flight_comes_in_the_order_in_which_it_was_sent,
    a_message_that_is_released_keeps_its_packet_identifier,
    what_is_said_of_a_place_that_is_not_taken_is_ignored,
    a_queue_is_read_a_page_at_a_time,
    a_queue_is_counted_by_what_waits,
    a_place_that_is_taken_again_has_the_new_message,
    payloads_of_many_sizes_come_back_as_they_were,
);

const ONE: SessionNumber = SessionNumber(1);

fn places(subject: &impl Subject) -> Vec<u64> {
    let waiting = subject.store().waiting(ONE, QueuePlace(0), ALL).unwrap();
    waiting.into_iter().map(|(place, _)| place.0).collect()
}

fn in_flight(subject: &impl Subject) -> Vec<StoredInFlight> {
    subject.store().in_flight(ONE).unwrap()
}

fn a_message_waits_until_it_is_dequeued<S: Subject>() {
    for message in [numbered(1, b"m"), Arc::new(message("t", b"m"))] {
        let mut subject = S::new();
        let all = [1, 2, 3].map(|place| enqueue(1, place, &message));
        apply(subject.store(), &[&[put(1), put(2), enqueue(2, 9, &message)], &all[..]].concat());
        subject.reopen();
        assert_eq!(places(&subject), [1, 2, 3]);
        apply(subject.store(), &[dequeue(1, 2), enqueue(1, 4, &message), dequeue(1, 4)]);
        subject.reopen();
        assert_eq!(places(&subject), [1, 3]);
        apply(subject.store(), &[send(1, 1, sent(1, 1)), dequeue(1, 1), dequeue(1, 3)]);
        subject.reopen();
        assert_eq!(places(&subject), [0; 0]);
        assert_eq!(in_flight(&subject), []);
        // The other session still has it.
        let others = subject.store().waiting(SessionNumber(2), QueuePlace(0), ALL).unwrap();
        assert_eq!(others, [(QueuePlace(9), queued(&message))]);
    }
}

fn a_queued_message_keeps_all_that_it_has<S: Subject>() {
    let mut subject = S::new();
    let full = Message::new(&Publication {
        topic: "t/ü",
        payload: b"\0\xFF",
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: b"\x01\x01\x26\x00\x01k\x00\x01v",
        expires_at: Some(Timestamp(12_345)),
    });
    let entry = |message: Arc<Message>| QueuedMessage {
        message,
        qos: QoS::AtMostOnce,
        retain: true,
        identifiers: Some([1, 268_435_455].into()),
        share: Some("$share/g/t/+".into()),
    };
    let with_number = full.clone().numbered(7.try_into().unwrap());
    let entries = [entry(Arc::new(full)), entry(Arc::new(with_number))];
    let none = QueuedMessage { identifiers: Some([].into()), share: None, ..entries[0].clone() };
    let changes = |from: u64, as_| {
        let all = [&entries[0], &entries[1], &none].into_iter().cloned().zip(from..);
        let all =
            all.map(move |(entry, place)| Change::Enqueue(ONE, QueuePlace(place), entry, as_));
        all.collect::<Vec<_>>()
    };
    apply(
        subject.store(),
        &[vec![put(1)], changes(1, None), changes(4, Some(sent(1, 1)))].concat(),
    );
    for _ in 0..2 {
        let expected = [&entries[0], &entries[1], &none].map(Clone::clone);
        let waiting = subject.store().waiting(ONE, QueuePlace(0), ALL).unwrap();
        assert_eq!(waiting.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>(), expected);
        let sent: Vec<_> =
            in_flight(&subject).into_iter().filter_map(|sent| sent.message).collect();
        assert_eq!(sent, expected);
        subject.reopen();
    }
}

fn what_is_in_flight_comes_in_the_order_in_which_it_was_sent<S: Subject>() {
    let mut subject = S::new();
    let message = numbered(1, b"m");
    let waiting = (1..=5).map(|place| enqueue(1, place, &message));
    apply(subject.store(), &std::iter::once(put(1)).chain(waiting).collect::<Vec<_>>());
    // Sent in another order than queued, one of them again, one at once.
    let sending = [
        send(1, 4, sent(10, 1)),
        send(1, 2, sent(11, 2)),
        send(1, 1, sent(12, 3)),
        enqueue_sent(1, 6, &message, sent(13, 4)),
        send(1, 4, sent(10, 5)),
    ];
    apply(subject.store(), &sending);
    subject.reopen();
    let order: Vec<_> = in_flight(&subject).iter().map(|sent| (sent.place.0, sent.sent)).collect();
    let expected = [(2, sent(11, 2)), (1, sent(12, 3)), (6, sent(13, 4)), (4, sent(10, 5))];
    assert_eq!(order, expected);
    assert_eq!(places(&subject), [3, 5]);
    // All of it over several groups.
    for place in [3, 5] {
        apply(subject.store(), &[send(1, place, sent(20, 100 - place))]);
    }
    let order: Vec<_> = in_flight(&subject).iter().map(|sent| sent.place.0).collect();
    assert_eq!(order, [2, 1, 6, 4, 5, 3]);
}

fn a_message_that_is_released_keeps_its_packet_identifier<S: Subject>() {
    let mut subject = S::new();
    let message = numbered(1, b"m");
    let alone = Arc::new(crate::store::vocabulary::message("t", b"m"));
    // Released in the group that brought it, and later; with a number, and without.
    let bring = [
        put(1),
        enqueue_sent(1, 1, &message, sent(1, 1)),
        release(1, 1),
        enqueue_sent(1, 2, &message, sent(2, 2)),
        enqueue_sent(1, 3, &alone, sent(3, 3)),
        enqueue(1, 4, &message),
    ];
    apply(subject.store(), &bring);
    subject.reopen();
    apply(subject.store(), &[release(1, 2), release(1, 3), send(1, 4, sent(4, 4)), release(1, 4)]);
    apply(subject.store(), &[release(1, 2)]);
    for _ in 0..2 {
        let expected = [1, 2, 3, 4].map(|number| StoredInFlight {
            place: QueuePlace(number),
            sent: sent(number as u16, number),
            message: None,
        });
        assert_eq!(in_flight(&subject), expected);
        assert_eq!(sessions(subject.store())[0].last_place, QueuePlace(4));
        subject.reopen();
    }
    apply(subject.store(), &[dequeue(1, 2), dequeue(1, 4)]);
    subject.reopen();
    let left: Vec<_> = in_flight(&subject).iter().map(|sent| sent.place.0).collect();
    assert_eq!(left, [1, 3]);
    assert_eq!(sessions(subject.store())[0].last_place, QueuePlace(3));
}

fn what_is_said_of_a_place_that_is_not_taken_is_ignored<S: Subject>() {
    let mut subject = S::new();
    let message = numbered(1, b"m");
    apply(subject.store(), &[put(1), enqueue(1, 5, &message)]);
    let before = contents(subject.store());
    for place in [0, 4, 6, u64::MAX] {
        let group = [send(1, place, sent(1, 1)), release(1, place), dequeue(1, place)];
        apply(subject.store(), &group);
    }
    // A waiting message was not sent, so it cannot be released.
    apply(subject.store(), &[release(1, 5)]);
    assert_eq!(contents(subject.store()), before);
    subject.reopen();
    assert_eq!(contents(subject.store()), before);
    apply(subject.store(), &[dequeue(1, 5), send(1, 5, sent(1, 1)), release(1, 5)]);
    assert_eq!(sessions(subject.store())[0].last_place, QueuePlace(0));
}

fn a_queue_is_read_a_page_at_a_time<S: Subject>() {
    let mut subject = S::new();
    let of = |bytes: usize| Arc::new(message("t", &vec![7; bytes - 1]));
    let message = of(100);
    let mut changes = vec![put(1), put(2), enqueue(2, 1, &message)];
    changes.extend((1..=20).map(|place| enqueue(1, place, &message)));
    changes.push(enqueue(1, 21, &of(1_000)));
    changes.extend([2, 3, 20].map(|place| send(1, place, sent(1, place))));
    apply(subject.store(), &changes);
    subject.reopen();
    let page = |from, messages_max, bytes_max| {
        let page = PageBounds { messages_max, bytes_max };
        let found = subject.store().waiting(ONE, QueuePlace(from), page).unwrap();
        found.into_iter().map(|(place, _)| place.0).collect::<Vec<_>>()
    };
    assert_eq!(page(0, 3, usize::MAX), [1, 4, 5]);
    assert_eq!(page(5, 3, usize::MAX), [5, 6, 7]);
    assert_eq!(page(2, usize::MAX, 250), [4, 5]);
    assert_eq!(page(2, usize::MAX, 300), [4, 5, 6]);
    assert_eq!(page(19, usize::MAX, 600), [19]);
    // At least one, however large; none if there is none.
    assert_eq!(page(20, 1, 1), [21]);
    assert_eq!(page(0, 0, 0), [1]);
    assert_eq!(page(22, 9, 9), [0; 0]);
    assert_eq!(page(u64::MAX, 9, 9), [0; 0]);
}

fn a_queue_is_counted_by_what_waits<S: Subject>() {
    let mut subject = S::new();
    let message = Arc::new(message("t", b"123"));
    let with = |place: u64, qos| {
        Change::Enqueue(ONE, QueuePlace(place), QueuedMessage { qos, ..queued(&message) }, None)
    };
    let group = [
        put(1),
        with(1, QoS::AtMostOnce),
        with(2, QoS::AtMostOnce),
        with(3, QoS::AtLeastOnce),
        with(4, QoS::ExactlyOnce),
        enqueue(1, 9, &numbered(1, b"1234567")),
        send(1, 1, sent(1, 1)),
    ];
    apply(subject.store(), &group);
    subject.reopen();
    let session = sessions(subject.store()).swap_remove(0);
    let first = Some(QueuePlace(2));
    let waiting =
        Backlog { messages: 4, bytes: 3 * 4 + 10, at_most_once: 1, first, expires_first: None };
    assert_eq!((session.waiting, session.in_flight), (waiting, 1));
    assert_eq!(session.last_place, QueuePlace(9));
    apply(subject.store(), &[2, 3, 4, 9].map(|place| dequeue(1, place)));
    let session = sessions(subject.store()).swap_remove(0);
    assert_eq!((session.waiting, session.last_place), (Backlog::default(), QueuePlace(1)));
}

fn a_place_that_is_taken_again_has_the_new_message<S: Subject>() {
    let mut subject = S::new();
    let (first, second) = (numbered(1, b"first"), numbered(2, b"second"));
    apply(subject.store(), &[put(1), enqueue_sent(1, 1, &first, sent(1, 1))]);
    apply(subject.store(), &[enqueue(1, 1, &second)]);
    for _ in 0..2 {
        assert_eq!(in_flight(&subject), []);
        let waiting = subject.store().waiting(ONE, QueuePlace(0), ALL).unwrap();
        assert_eq!(waiting, [(QueuePlace(1), queued(&second))]);
        subject.reopen();
    }
    apply(subject.store(), &[enqueue_sent(1, 1, &first, sent(2, 2)), release(1, 1)]);
    subject.reopen();
    apply(subject.store(), &[enqueue(1, 1, &second), enqueue(1, 1, &first)]);
    assert_eq!(in_flight(&subject), []);
    assert_eq!(places(&subject), [1]);
}

fn payloads_of_many_sizes_come_back_as_they_were<S: Subject>() {
    let mut subject = S::new();
    let sizes = [0, 1, 127, 128, 4_095, 4_096, 64 << 10, 1 << 20];
    let payload = |size: usize| (0..size).map(|at| at as u8).collect::<Vec<_>>();
    let messages = sizes.map(|size| {
        [numbered(size as u64 + 1, &payload(size)), Arc::new(message("t", &payload(size)))]
    });
    let changes = messages.iter().flatten().zip(1..).map(|(message, at)| enqueue(1, at, message));
    apply(subject.store(), &std::iter::once(put(1)).chain(changes).collect::<Vec<_>>());
    subject.reopen();
    let waiting = subject.store().waiting(ONE, QueuePlace(0), ALL).unwrap();
    let found = waiting.iter().map(|(_, entry)| &entry.message);
    assert!(found.eq(messages.iter().flatten()));
}

/// Returns how many messages are stored by their number.
fn shared(subject: &Directory) -> u64 {
    let found = subject.directory_store().examine().unwrap();
    assert_eq!(found.faults, [""; 0]);
    found.records("shared messages")
}

#[test]
fn a_message_of_many_queues_is_stored_once_and_goes_with_the_last() {
    let mut subject = Directory::new();
    let large = numbered(1, &vec![7; 64 << 10]);
    let mut changes: Vec<_> = (1..=100).map(put).collect();
    changes.extend((1..=100).map(|session| enqueue(session, 1, &large)));
    apply(subject.store(), &changes);
    apply(subject.store(), &[enqueue(1, 2, &large)]);
    assert_eq!(shared(&subject), 1);
    let bytes: u64 =
        subject.directory_store().examine().unwrap().kinds.iter().map(|k| k.bytes).sum();
    assert!(bytes < 100_000, "{bytes}");

    subject.reopen();
    apply(subject.store(), &(2..=50).map(|session| dequeue(session, 1)).collect::<Vec<_>>());
    apply(subject.store(), &(51..=100).map(end).collect::<Vec<_>>());
    assert_eq!(shared(&subject), 1);
    apply(subject.store(), &[dequeue(1, 1)]);
    apply(subject.store(), &[send(1, 2, sent(1, 1))]);
    assert_eq!(shared(&subject), 1);
    apply(subject.store(), &[release(1, 2)]);
    assert_eq!(shared(&subject), 0);
    subject.reopen();
    assert_eq!(shared(&subject), 0);
}

#[test]
fn what_is_queued_again_is_counted_once() {
    let mut subject = Directory::new();
    let message = numbered(1, b"m");
    let group = [put(1), enqueue(1, 1, &message), enqueue(1, 2, &message)];
    for _ in 0..3 {
        apply(subject.store(), &group);
        subject.reopen();
        assert_eq!(shared(&subject), 1);
    }
    // The same places, filled and emptied again in one group.
    let both = [&group[..], &[dequeue(1, 1)], &[dequeue(1, 2)]].concat();
    for _ in 0..2 {
        apply(subject.store(), &both);
        assert_eq!(shared(&subject), 0);
    }
}

#[test]
fn what_comes_and_goes_within_a_group_is_not_written() {
    let subject = Directory::new();
    apply(subject.store(), &[put(1), enqueue(1, 1, &numbered(1, b"m"))]);
    let before = subject.directory_store().examine().unwrap();
    let journal = || std::fs::read(subject.last_journal()).unwrap();
    let written = journal();
    for place in 2..50 {
        let message = numbered(place, b"fleeting");
        let group = [
            enqueue(1, place, &message),
            send(1, place, sent(1, place)),
            release(1, place),
            dequeue(1, place),
        ];
        apply(subject.store(), &group);
    }
    apply(subject.store(), &[put(2), enqueue(2, 1, &numbered(99, b"m")), end(2)]);
    assert_eq!(subject.directory_store().examine().unwrap(), before);
    assert!(journal() == written, "not even the journal has grown");
}
