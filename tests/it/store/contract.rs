//! Sessions and what belongs to them, retained messages, and the numbers to continue from, on every
//! store.

use std::{num::NonZeroU64, sync::Arc};

use hearthmq::{
    mqtt::{Message, Publication, QoS, Timestamp},
    store::{
        Backlog, Bounds, Change, LoginKind, Owner, QueuePlace, SessionNumber, SessionRecord,
        StoredRetained, WillRecord,
    },
};

use super::{
    subject::{Subject, on_every_store},
    vocabulary::*,
};

on_every_store!(
    a_new_store_is_empty,
    a_session_is_kept_as_it_was_put,
    a_session_that_has_ended_leaves_nothing,
    what_comes_for_a_session_that_is_not_there_is_ignored,
    a_session_can_hold_hundreds_of_subscriptions,
    a_topic_filter_may_be_as_long_as_mqtt_allows,
    qos_2_messages_are_accepted_until_they_are_forgotten,
    a_will_is_kept_until_it_is_dropped,
    a_topic_has_one_retained_message,
    a_retained_message_keeps_all_that_it_has,
    a_retained_message_keeps_its_owner,
    the_numbers_to_go_on_from_never_go_back,
    logins_that_were_right_are_kept_until_they_are_forgotten,
    records_are_ordered_by_namespace_and_key,
    a_removed_record_leaves_its_revision,
    numbers_of_messages_are_taken_wherever_they_are,
    a_group_that_is_applied_again_changes_nothing,
);

fn a_new_store_is_empty<S: Subject>() {
    let mut subject = S::new();
    for _ in 0..2 {
        let store = subject.store();
        assert_eq!(store.bounds().unwrap(), Bounds::default());
        assert_eq!(contents(store).sessions, []);
        assert_eq!(contents(store).retained, []);
        assert_eq!(store.in_flight(SessionNumber(1)).unwrap(), []);
        store.sync().unwrap();
        store.recover().unwrap();
        apply(store, &[]);
        subject.reopen();
    }
}

fn a_session_is_kept_as_it_was_put<S: Subject>() {
    let mut subject = S::new();
    let away = SessionRecord {
        client_id: "ü/#".into(),
        username: Some("".into()),
        expiry_interval_secs: u32::MAX,
        ends_at: Some(Timestamp(u64::MAX)),
        is_connected: false,
        doubtful_up_to: QueuePlace(0),
        peer: "".into(),
        connected_at: Timestamp(0),
        login: None,
    };
    let of_each_kind =
        LoginKind::ALL.map(|kind| SessionRecord { login: Some(login(kind)), ..record("c") });
    for record in of_each_kind.into_iter().chain([away]) {
        let number = SessionNumber(u64::MAX);
        apply(subject.store(), &[Change::PutSession(number, Box::new(record.clone()))]);
        subject.reopen();
        let [session] = &sessions(subject.store())[..] else { panic!("one session") };
        assert_eq!((session.number, &session.record), (number, &record));
        assert_eq!(session.waiting, Backlog::default());
        assert_eq!((session.in_flight, session.last_place.0, &session.will), (0, 0, &None));
    }
}

/// Returns changes that create a session with something of each kind.
fn furnish(session: u64, message: &Arc<Message>) -> Vec<Change> {
    vec![
        put(session),
        subscribe(session, "a/#"),
        accept(session, 3),
        put_will(session, "w"),
        enqueue_sent(session, 1, message, sent(1, 1)),
        enqueue_sent(session, 2, message, sent(2, 2)),
        release(session, 2),
        enqueue(session, 3, message),
    ]
}

fn a_session_that_has_ended_leaves_nothing<S: Subject>() {
    let mut subject = S::new();
    let message = numbered(1, b"m");
    // One that the store has, and one that is created and removed within a group.
    apply(subject.store(), &[furnish(1, &message), furnish(2, &message)].concat());
    let ending = [vec![end(1)], furnish(3, &message), vec![end(3), end(4)]];
    apply(subject.store(), &ending.concat());
    for _ in 0..2 {
        let kept = contents(subject.store());
        assert_eq!(kept.sessions.len(), 1);
        let session = &kept.sessions[0];
        assert_eq!(session.number, SessionNumber(2));
        assert_eq!((session.waiting.messages, session.in_flight), (1, 2));
        assert_eq!(kept.waiting[0][0].1.message, message);
        for number in [1, 3] {
            assert_eq!(subject.store().in_flight(SessionNumber(number)).unwrap(), []);
        }
        subject.reopen();
    }
    // A new session has nothing of the former one.
    apply(subject.store(), &[end(2), put(2), accept(2, 9), put(1)]);
    subject.reopen();
    for session in sessions(subject.store()) {
        let accepted = if session.number.0 == 2 { vec![packet_id(9)] } else { vec![] };
        assert_eq!((session.subscriptions, session.accepted), (vec![], accepted));
        assert_eq!((session.will, session.in_flight, session.last_place.0), (None, 0, 0));
    }
}

fn what_comes_for_a_session_that_is_not_there_is_ignored<S: Subject>() {
    let mut subject = S::new();
    let message = numbered(1, b"m");
    let without_session = &furnish(1, &message)[1..];
    apply(subject.store(), without_session);
    apply(subject.store(), &[put(1), end(1)]);
    apply(subject.store(), without_session);
    apply(subject.store(), &[&[put(1), end(1)], without_session].concat());
    assert_eq!(sessions(subject.store()), []);
    apply(subject.store(), &[put(1)]);
    subject.reopen();
    let session = &sessions(subject.store())[0];
    assert_eq!((&session.subscriptions[..], &session.accepted[..]), (&[][..], &[][..]));
    assert_eq!((&session.will, session.last_place.0), (&None, 0));
}

fn a_session_can_hold_hundreds_of_subscriptions<S: Subject>() {
    let mut subject = S::new();
    let filters: Vec<_> = (100..400).map(|number| format!("a/{number}/#")).collect();
    let mut changes = vec![put(1), put(2), subscribe(2, "other")];
    changes.extend(filters.iter().map(|filter| subscribe(1, filter)));
    apply(subject.store(), &changes);
    subject.reopen();
    let now = |subject: &S| sessions(subject.store()).swap_remove(0).subscriptions;
    let expected: Vec<_> = filters
        .iter()
        .map(|filter| (filter.as_str().into(), subscription(QoS::ExactlyOnce)))
        .collect();
    assert_eq!(now(&subject), expected);

    // A subscription to the same filter replaces the old one; removed ones are gone.
    let again = subscription(QoS::AtMostOnce);
    let filter = filters[0].as_str();
    apply(subject.store(), &[Change::Subscribe(SessionNumber(1), filter.into(), again)]);
    let back: Vec<_> = filters[1..].iter().map(|filter| unsubscribe(1, filter)).collect();
    apply(subject.store(), &back);
    apply(subject.store(), &[unsubscribe(1, "never"), unsubscribe(1, filters[1].as_str())]);
    subject.reopen();
    assert_eq!(now(&subject), [(filter.into(), again)]);
    assert_eq!(sessions(subject.store())[1].subscriptions.len(), 1);
}

fn a_topic_filter_may_be_as_long_as_mqtt_allows<S: Subject>() {
    let mut subject = S::new();
    let long = |last: &str| format!("{}{last}", "a".repeat(65_534));
    let changes = [put(1), subscribe(1, &long("b")), subscribe(1, &long("c"))];
    apply(subject.store(), &[&changes[..], &[retain(&long("b"), b"x")]].concat());
    apply(subject.store(), &[unsubscribe(1, &long("b")), retain(&long("b"), b"y")]);
    subject.reopen();
    let subscriptions = &sessions(subject.store())[0].subscriptions;
    assert_eq!(subscriptions[..], [(long("c").into(), subscription(QoS::ExactlyOnce))]);
    assert_eq!(retained(subject.store()), [Arc::new(message(&long("b"), b"y"))]);
}

fn qos_2_messages_are_accepted_until_they_are_forgotten<S: Subject>() {
    let mut subject = S::new();
    let group = [put(1), put(2), accept(1, u16::MAX), accept(1, 1), accept(2, 1), accept(2, 7)];
    apply(subject.store(), &group);
    apply(subject.store(), &[accept(1, 1), forget(1, 9), forget(2, 7), accept(1, 8), forget(1, 8)]);
    subject.reopen();
    let accepted: Vec<_> = sessions(subject.store()).into_iter().map(|s| s.accepted).collect();
    assert_eq!(accepted, [vec![packet_id(1), packet_id(u16::MAX)], vec![packet_id(1)]]);
}

fn a_will_is_kept_until_it_is_dropped<S: Subject>() {
    let mut subject = S::new();
    apply(subject.store(), &[put(1), put_will(1, "first"), put_will(1, "second")]);
    subject.reopen();
    let now = |subject: &S| sessions(subject.store()).swap_remove(0).will;
    assert_eq!(now(&subject), Some(will("second")));
    let bare = WillRecord { delay_secs: 0, expiry_secs: None, due_at: None, ..will("third") };
    apply(subject.store(), &[Change::PutWill(SessionNumber(1), Box::new(bare.clone()))]);
    subject.reopen();
    assert_eq!(now(&subject), Some(bare));
    for _ in 0..2 {
        apply(subject.store(), &[Change::DropWill(SessionNumber(1))]);
        subject.reopen();
        assert_eq!(now(&subject), None);
    }
}

fn a_topic_has_one_retained_message<S: Subject>() {
    let mut subject = S::new();
    let clear = |topic: &str| Change::ClearRetained(topic.into());
    apply(subject.store(), &[retain("a", b"1"), retain("b", b"1"), retain("a/b", b"1")]);
    apply(subject.store(), &[retain("a", b"2"), clear("b"), clear("never")]);
    apply(subject.store(), &[retain("c", b"1"), clear("c"), clear("a/b"), retain("a/b", b"3")]);
    for _ in 0..2 {
        let expected = [message("a", b"2"), message("a/b", b"3")].map(Arc::new);
        assert_eq!(retained(subject.store()), expected);
        subject.reopen();
    }
}

/// Properties in every form, as in a PUBLISH: Payload Format Indicator, Content Type, Response
/// Topic, Correlation Data, two User Properties of one name.
const PROPERTIES: &[u8] =
    b"\x01\x01\x03\x00\x01t\x08\x00\x03r/t\x09\x00\x02\x00\xFF\x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x01w";

fn a_retained_message_keeps_all_that_it_has<S: Subject>() {
    let mut subject = S::new();
    let payload = vec![0xA5; 64 << 10];
    let full = Message::new(&Publication {
        topic: "t/ü",
        payload: &payload,
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: PROPERTIES,
        expires_at: Some(Timestamp(u64::MAX)),
    });
    let numbered = full.clone().numbered(NonZeroU64::MAX);
    let empty = message("u", b"");
    for changes in [[&full, &empty], [&numbered, &empty]] {
        let changes_made = changes.map(|message| Change::Retain(Arc::new(message.clone()), None));
        apply(subject.store(), &changes_made);
        subject.reopen();
        assert_eq!(retained(subject.store()), changes.map(|message| Arc::new(message.clone())));
    }
}

fn a_retained_message_keeps_its_owner<S: Subject>() {
    let mut subject = S::new();
    let owners = [
        None,
        Some(Owner::User("".into())),
        Some(Owner::User("10.0.0.1".into())),
        Some(Owner::of(None, [10, 0, 0, 1].into())),
        Some(Owner::of(None, "2001:db8::1".parse().unwrap())),
    ];
    for owner in owners {
        let message = Arc::new(message("t", b"x"));
        apply(subject.store(), &[Change::Retain(message.clone(), owner.clone())]);
        subject.reopen();
        let mut found = Vec::new();
        subject.store().retained(&mut |retained| found.push(retained)).unwrap();
        assert_eq!(found, [StoredRetained { message, owner }]);
    }
}

fn the_numbers_to_go_on_from_never_go_back<S: Subject>() {
    let mut subject = S::new();
    let reserve = Change::ReserveVersions;
    let clock = |millis| Change::Clock(Timestamp(millis));
    apply(subject.store(), &[reserve(7), clock(9), put(5), end(5), put(4)]);
    apply(subject.store(), &[reserve(8), reserve(3), clock(2)]);
    apply(subject.store(), &[clock(1)]);
    subject.reopen();
    let bounds = subject.store().bounds().unwrap();
    assert_eq!((bounds.versions, bounds.clock), (8, Timestamp(9)));
    assert!(bounds.session >= 4);
    let before = bounds.session;
    apply(subject.store(), &[end(4)]);
    subject.reopen();
    assert_eq!(subject.store().bounds().unwrap().session, before);
}

fn logins_that_were_right_are_kept_until_they_are_forgotten<S: Subject>() {
    let mut subject = S::new();
    let note = |key, millis| Change::NoteLogin([key; 32], Timestamp(millis));
    apply(subject.store(), &[note(1, 5), note(2, 6), note(1, 7)]);
    subject.reopen();
    let both = [([1; 32], Timestamp(7)), ([2; 32], Timestamp(6))];
    assert_eq!(logins(subject.store()), both);
    apply(subject.store(), &[Change::ForgetLogin([1; 32]), Change::ForgetLogin([3; 32])]);
    subject.reopen();
    assert_eq!(logins(subject.store()), both[1..]);
}

fn records_are_ordered_by_namespace_and_key<S: Subject>() {
    let mut subject = S::new();
    let long = "k".repeat(4_096);
    let changes = [
        put_record("ab", "", 1, b"1"),
        put_record("a", "ü", 2, b""),
        put_record("a", "z", 3, &[0xFF; 65_536]),
        put_record("a", &long, 4, b"4"),
        put_record("a", "z", 5, b"5"),
    ];
    apply(subject.store(), &changes);
    subject.reopen();
    let found = records(subject.store());
    let names = found.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names, [name("a", &long), name("a", "z"), name("a", "ü"), name("ab", "")]);
    let revisions = found.iter().map(|(_, record)| record.revision.0).collect::<Vec<_>>();
    assert_eq!(revisions, [4, 5, 2, 1]);
    assert_eq!(found[1].1.value, &b"5"[..]);
    let expiries = found.iter().map(|(_, record)| record.expires_at).collect::<Vec<_>>();
    assert_eq!(expiries, [Some(Timestamp(4)), None, Some(Timestamp(2)), None]);
}

fn a_removed_record_leaves_its_revision<S: Subject>() {
    let mut subject = S::new();
    apply(subject.store(), &[put_record("a", "k", 7, b"v"), put_record("b", "k", 8, b"v")]);
    apply(subject.store(), &[remove_record("a", "k", 9), remove_record("a", "unknown", 10)]);
    apply(subject.store(), &[put_record("c", "k", 11, b""), remove_record("c", "k", 12)]);
    subject.reopen();
    let names = records(subject.store()).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names, [name("b", "k")]);
    assert_eq!(subject.store().bounds().unwrap().revision.0, 12);
}

fn numbers_of_messages_are_taken_wherever_they_are<S: Subject>() {
    let mut subject = S::new();
    let highest = |subject: &S| subject.store().bounds().unwrap().message;
    apply(subject.store(), &[put(1), enqueue(1, 1, &numbered(3, b""))]);
    subject.reopen();
    assert_eq!(highest(&subject), 3);
    apply(subject.store(), &[Change::Retain(numbered(5, b""), None)]);
    subject.reopen();
    assert_eq!(highest(&subject), 5);
    let message = numbered(8, b"");
    let will = WillRecord { message, ..will("w") };
    apply(subject.store(), &[Change::PutWill(SessionNumber(1), Box::new(will))]);
    subject.reopen();
    assert_eq!(highest(&subject), 8);
}

fn a_group_that_is_applied_again_changes_nothing<S: Subject>() {
    let mut subject = S::new();
    let message = numbered(1, b"shared");
    let mut groups = vec![furnish(1, &message), furnish(2, &message)];
    groups.push(vec![send(1, 3, sent(5, 9)), dequeue(1, 1), dequeue(1, 2), retain("a", b"1")]);
    groups.push(vec![enqueue(1, 4, &message), enqueue(1, 5, &message), dequeue(1, 4)]);
    groups.push(vec![end(1), Change::ClearRetained("a".into()), unsubscribe(2, "a/#")]);
    for group in groups {
        apply(subject.store(), &group);
        let once = contents(subject.store());
        apply(subject.store(), &group);
        assert_eq!(contents(subject.store()), once);
        subject.reopen();
        apply(subject.store(), &group);
        assert_eq!(contents(subject.store()), once);
    }
}
