//! Random groups of changes on every store, compared with the simplest one. A store in a directory
//! must also have the same contents after it was closed, or got a group twice.

use std::sync::Arc;

use hearthmq::{
    mqtt::{Message, QoS, Timestamp},
    store::{
        Change, Durability, HistoryShare, HistoryTidy, MemoryStore, QueuePlace, QueuedMessage,
        SentAs, SessionNumber, Store as _,
    },
};
use proptest::{collection::vec, prelude::*};

use super::{
    subject::{Directory, Subject as _},
    vocabulary::*,
};

/// An operation on a store.
#[derive(Clone, Debug)]
enum Step {
    Apply { group: Vec<Change>, synced: bool, twice: bool },
    Reopen,
}

fn session() -> impl Strategy<Value = SessionNumber> {
    (1_u64..4).prop_map(SessionNumber)
}

fn place() -> impl Strategy<Value = QueuePlace> {
    (0_u64..8).prop_map(QueuePlace)
}

fn any_message() -> impl Strategy<Value = Arc<Message>> {
    // One number always has the same content.
    prop_oneof![
        (1_u64..6).prop_map(|number| numbered(number, &vec![7; number as usize * 10])),
        vec(any::<u8>(), 0..20).prop_map(|payload| Arc::new(message("t", &payload))),
    ]
}

fn any_sent() -> impl Strategy<Value = SentAs> {
    (1_u16..5, 0_u64..5).prop_map(|(packet, order)| sent(packet, order))
}

fn any_queued() -> impl Strategy<Value = QueuedMessage> {
    let qos = (0_u8..3).prop_map(|number| QoS::from_number(number).unwrap());
    (any_message(), qos, any::<bool>(), any::<bool>()).prop_map(|(message, qos, retain, shared)| {
        QueuedMessage {
            message,
            qos,
            retain,
            identifiers: retain.then(|| [3].into()),
            share: shared.then(|| "$share/g/t".into()),
        }
    })
}

fn tidy() -> impl Strategy<Value = HistoryTidy> {
    (0_u64..9, 0_u64..12, 0_u64..12, 0_u64..12, 0_u32..3).prop_map(
        |(closed_before, open_up_to, records_max, over_limit_up_to, limit)| HistoryTidy {
            closed_before: Timestamp(closed_before),
            open_up_to,
            records_max,
            over_limit_up_to,
            limit,
        },
    )
}

fn share() -> impl Strategy<Value = HistoryShare> {
    (0_u64..9, 0_u64..12, 0_u32..4).prop_map(|(records_max, over_limit_up_to, limit)| {
        HistoryShare { records_max, over_limit_up_to, limit }
    })
}

fn change() -> impl Strategy<Value = Change> {
    let name = || prop::sample::select(vec!["a", "b", "c/d"]);
    let client_id = prop::sample::select(vec!["a", "b", "c", "d", "e"]);
    prop_oneof![
        4 => session().prop_map(|session| put(session.0)),
        1 => session().prop_map(Change::EndSession),
        2 => (session(), name()).prop_map(|(session, filter)| subscribe(session.0, filter)),
        1 => (session(), name()).prop_map(|(session, filter)| unsubscribe(session.0, filter)),
        9 => (session(), place(), any_queued(), prop::option::of(any_sent()))
            .prop_map(|(session, place, queued, sent)| Change::Enqueue(session, place, queued, sent)),
        4 => (session(), place(), any_sent())
            .prop_map(|(session, place, sent)| Change::Send(session, place, sent)),
        3 => (session(), place()).prop_map(|(session, place)| Change::Release(session, place)),
        5 => (session(), place()).prop_map(|(session, place)| Change::Dequeue(session, place)),
        1 => (session(), 1_u16..4).prop_map(|(session, packet)| accept(session.0, packet)),
        1 => (session(), 1_u16..4).prop_map(|(session, packet)| forget(session.0, packet)),
        1 => (session(), name()).prop_map(|(session, topic)| put_will(session.0, topic)),
        1 => session().prop_map(Change::DropWill),
        1 => (name(), 0_u8..3).prop_map(|(topic, payload)| retain(topic, &[payload])),
        1 => name().prop_map(|topic| Change::ClearRetained(topic.into())),
        1 => (0_u64..9).prop_map(Change::ReserveVersions),
        1 => (0_u8..3, 0_u64..9).prop_map(|(key, at)| Change::NoteLogin([key; 32], Timestamp(at))),
        1 => (0_u8..3).prop_map(|key| Change::ForgetLogin([key; 32])),
        1 => (0_u64..3, 0_u64..99).prop_map(|(key, revision)| {
            put_record("ns", &key.to_string(), revision, b"v")
        }),
        1 => (0_u64..3, 0_u64..99).prop_map(|(key, revision)| {
            remove_record("ns", &key.to_string(), revision)
        }),
        1 => (0_u64..9).prop_map(|millis| Change::Clock(Timestamp(millis))),
        6 => (share(), client_id, 1_u64..12, prop::option::of(0_u64..9), 0_u16..4).prop_map(
            |(share, client_id, version, ended_at, kept)| {
                note_within(share, client_id, connection(version, ended_at), kept)
            }
        ),
        1 => tidy().prop_map(Change::TidyHistory),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let apply = (vec(change(), 0..12), any::<bool>(), any::<bool>())
        .prop_map(|(group, synced, twice)| Step::Apply { group, synced, twice });
    prop_oneof![9 => apply, 1 => Just(Step::Reopen)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_store_in_a_directory_tells_what_the_plainest_tells(steps in vec(step(), 1..30)) {
        let mut subject = Directory::new();
        let model = MemoryStore::default();
        for step in steps {
            match step {
                Step::Reopen => subject.reopen(),
                Step::Apply { group, synced, twice } => {
                    let durability =
                        if synced { Durability::Synced } else { Durability::Written };
                    for _ in 0..=usize::from(twice) {
                        subject.store().apply(&group, durability).unwrap();
                        model.apply(&group, durability).unwrap();
                    }
                }
            }
            prop_assert_eq!(contents(subject.store()), contents(&model));
            let (found, expected) = (subject.store().bounds().unwrap(), model.bounds().unwrap());
            prop_assert_eq!((found.versions, found.clock), (expected.versions, expected.clock));
            let examined = subject.directory_store().examine().unwrap();
            let odd = |fault: &&String| !fault.contains("Packet Identifier");
            prop_assert_eq!(examined.faults.iter().find(odd), None);
        }
    }
}
