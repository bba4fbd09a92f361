//! The histories of clients on every store: their connections, and the order in which they leave.

use hearthmq::{
    mqtt::Timestamp,
    store::{
        Change, ClientHistory, ConnectionNotes, ConnectionRecord, HistoryShare, HistoryTidy, Store,
    },
};

use super::{
    subject::{Subject, on_every_store},
    vocabulary::*,
};

on_every_store!(
    the_history_of_a_client_has_its_last_connections,
    histories_leave_in_their_order,
    an_owner_with_too_many_connections_loses_its_own_oldest,
    connections_of_others_stay_in_a_history_that_leaves,
);

fn the_history_of_a_client_has_its_last_connections<S: Subject>() {
    let mut subject = S::new();
    let long = "ü".repeat(30_000);
    for client_id in ["c", &*long] {
        let note = |version, ended_at| note_connection(client_id, connection(version, ended_at), 3);
        apply(subject.store(), &[note(1, None), note(2, None), note(1, Some(5)), note(3, None)]);
        subject.reopen();
        apply(subject.store(), &[note(3, Some(9)), note(7, Some(8))]);
        apply(subject.store(), &[note(1, Some(5))]);
        for _ in 0..2 {
            let found = subject.store().history(client_id).unwrap().unwrap();
            assert_eq!(&*found.client_id, client_id);
            let expected = [connection(2, None), connection(3, Some(9)), connection(7, Some(8))];
            assert_eq!(found.connections, expected);
            subject.reopen();
        }
    }
    assert_eq!(subject.store().history("other").unwrap(), None);
    assert_eq!(histories(subject.store()).len(), 2);
}

/// A tidy-up that removes nothing.
const NOTHING: HistoryTidy = HistoryTidy {
    closed_before: Timestamp(0),
    open_up_to: 0,
    records_max: u64::MAX,
    over_limit_up_to: 0,
    limit: u32::MAX,
};

fn histories_leave_in_their_order<S: Subject>() {
    let mut subject = S::new();
    let note =
        |client_id, version, ended_at| note_connection(client_id, connection(version, ended_at), 9);
    let left = |subject: &mut S, tidy: HistoryTidy| {
        apply(subject.store(), &[Change::TidyHistory(tidy)]);
        subject.reopen();
        let left = histories(subject.store());
        left.iter().map(|it| it.client_id.to_string()).collect::<Vec<_>>()
    };
    let group = [
        note("old", 1, Some(10)),
        note("older", 2, Some(5)),
        note("back", 3, Some(1)),
        note("back", 4, None),
        note("open", 5, None),
        note("new", 6, Some(30)),
    ];
    apply(subject.store(), &group);
    assert_eq!(left(&mut subject, NOTHING).len(), 5);
    let tidy = HistoryTidy { closed_before: Timestamp(11), limit: 1, ..NOTHING };
    assert_eq!(left(&mut subject, tidy), ["back", "new", "old", "open"]);
    let tidy = HistoryTidy { closed_before: Timestamp(10), open_up_to: 4, ..NOTHING };
    assert_eq!(left(&mut subject, tidy), ["new", "old", "open"]);
    // Those with an end leave first, whatever their versions are.
    let tidy = HistoryTidy { records_max: 2, over_limit_up_to: 5, ..NOTHING };
    assert_eq!(left(&mut subject, tidy), ["new", "open"]);
    let tidy = HistoryTidy { records_max: 0, over_limit_up_to: 4, ..NOTHING };
    assert_eq!(left(&mut subject, tidy), ["open"]);
    let tidy = HistoryTidy { records_max: 0, over_limit_up_to: 5, ..NOTHING };
    assert_eq!(left(&mut subject, tidy), [""; 0]);
    // The changes of a group are made in their order.
    let group = [
        note("a", 7, Some(1)),
        Change::TidyHistory(HistoryTidy { records_max: 1, ..NOTHING }),
        note("b", 8, Some(2)),
        Change::TidyHistory(HistoryTidy { records_max: 1, ..NOTHING }),
    ];
    apply(subject.store(), &group);
    assert_eq!(left(&mut subject, NOTHING), ["b"]);
}

/// Returns a connection of a user.
fn of_user(user: &str, version: u64, ended_at: Option<u64>) -> ConnectionRecord {
    ConnectionRecord { username: Some(user.into()), ..connection(version, ended_at) }
}

fn versions(store: &dyn Store) -> Vec<(String, Vec<u64>)> {
    let versions =
        |it: &ClientHistory| it.connections.iter().map(|it| it.version).collect::<Vec<_>>();
    histories(store).iter().map(|it| (it.client_id.to_string(), versions(it))).collect()
}

fn an_owner_with_too_many_connections_loses_its_own_oldest<S: Subject>() {
    let mut subject = S::new();
    let share = HistoryShare { records_max: 3, over_limit_up_to: 4, limit: 9 };
    let note = |client_id: &str, record| note_within(share, client_id, record, 9);
    let clients = |subject: &S| {
        let found = versions(subject.store());
        found.into_iter().map(|(client_id, _)| client_id).collect::<Vec<_>>()
    };
    // The oldest connections of all are those of another owner.
    apply(
        subject.store(),
        &[note("b1", of_user("b", 1, Some(1))), note("b2", of_user("b", 2, None))],
    );
    let group = [
        note("a1", of_user("a", 3, None)),
        note("a2", of_user("a", 5, None)),
        note("a3", of_user("a", 6, Some(9))),
    ];
    apply(subject.store(), &group);
    assert_eq!(clients(&subject), ["a1", "a2", "a3", "b1", "b2"]);
    // In another group and after a restart: the one with an end, and then one of a former run.
    subject.reopen();
    apply(subject.store(), &[note("a4", of_user("a", 7, Some(10)))]);
    assert_eq!(clients(&subject), ["a1", "a2", "a4", "b1", "b2"]);
    apply(subject.store(), &[note("a5", of_user("a", 8, None)), note("a6", of_user("a", 9, None))]);
    assert_eq!(clients(&subject), ["a2", "a5", "a6", "b1", "b2"]);
    // Clients that are online stay.
    subject.reopen();
    apply(subject.store(), &[note("a7", of_user("a", 10, None))]);
    assert_eq!(clients(&subject), ["a2", "a5", "a6", "a7", "b1", "b2"]);
    // Clients without a user name count by their network.
    let unnamed = |version, last| ConnectionRecord {
        username: None,
        peer: (std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), 1).into(),
        ..connection(version, Some(version))
    };
    for number in 0..5 {
        let client_id = format!("n{number}");
        apply(subject.store(), &[note(&client_id, unnamed(20 + u64::from(number), number))]);
        subject.reopen();
    }
    assert_eq!(clients(&subject), ["a2", "a5", "a6", "a7", "b1", "b2", "n2", "n3", "n4"]);
    // The limit of rings that leave is one of the whole change.
    let notes = (0..3).map(|number| ("b3".into(), of_user("b", 30 + number, Some(30))));
    let share = HistoryShare { records_max: 1, limit: 1, ..share };
    let notes = ConnectionNotes { notes: notes.collect(), kept: 9, share };
    apply(subject.store(), &[Change::NoteConnections(Box::new(notes))]);
    assert_eq!(clients(&subject)[4..6], ["b2", "b3"]);
}

fn connections_of_others_stay_in_a_history_that_leaves<S: Subject>() {
    let mut subject = S::new();
    let share = HistoryShare { records_max: 2, over_limit_up_to: 0, limit: 9 };
    let note = |client_id: &str, record| note_within(share, client_id, record, 9);
    // One user comes under the identifiers of another one.
    apply(
        subject.store(),
        &[note("c", of_user("b", 1, Some(1))), note("d", of_user("b", 2, Some(2)))],
    );
    apply(
        subject.store(),
        &[note("c", of_user("a", 3, Some(3))), note("d", of_user("a", 4, Some(4)))],
    );
    subject.reopen();
    assert_eq!(versions(subject.store()), [("c".into(), vec![1]), ("d".into(), vec![2, 4])]);
    apply(subject.store(), &[note("e", of_user("a", 5, Some(5)))]);
    let left = |client_id: &str, version| (client_id.to_owned(), vec![version]);
    assert_eq!(versions(subject.store()), [left("c", 1), left("d", 2), left("e", 5)]);
    // They count for the other one again.
    subject.reopen();
    apply(subject.store(), &[note("f", of_user("b", 6, Some(6)))]);
    assert_eq!(versions(subject.store()), [left("d", 2), left("e", 5), left("f", 6)]);
}
