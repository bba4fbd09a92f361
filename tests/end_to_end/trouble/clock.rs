//! A wall clock that jumps between two runs. If it is behind the times in the store, the broker's
//! clock continues from those; if it is ahead, everything that was due meanwhile has ended.

use std::{
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use hearthmq::{
    mqtt::{QoS, Timestamp},
    store::{Change, DirectoryStore, QueuePlace, SessionNumber, SessionRecord, WillRecord},
};
use serde_json::Value;

use super::{lasting, take};
use crate::{
    mqtt::{Client, connect},
    program::{PATIENCE, Place, Program},
    vocabulary::*,
};

const HOUR: u64 = 3_600_000;

fn wall_clock() -> Timestamp {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(passed.as_millis() as u64)
}

/// Returns a stored session of `ops` with this end, and a message queued for its client.
fn left(number: u64, client_id: &str, ends_at: Timestamp) -> [Change; 2] {
    let session = SessionRecord {
        username: Some("ops".into()),
        expiry_interval_secs: 3_600,
        ends_at: Some(ends_at),
        is_connected: false,
        doubtful_up_to: QueuePlace(0),
        ..record(client_id)
    };
    let message = numbered(number, client_id.as_bytes());
    [Change::PutSession(SessionNumber(number), Box::new(session)), enqueue(number, 1, &message)]
}

/// Writes a clock reading, and these changes.
fn write(directory: &Path, clock: Timestamp, changes: impl IntoIterator<Item = Change>) {
    let store = DirectoryStore::open(directory).unwrap();
    let changes: Vec<_> = [Change::Clock(clock)].into_iter().chain(changes).collect();
    apply(&store, &changes);
}

/// Checks whether the session exists, by its queued message.
fn expect_left(program: &Program, client_id: &str, is_there: bool) {
    let mut client = program.connected(lasting(client_id));
    let expected = [client_id.as_bytes()];
    take(&mut client, if is_there { &expected } else { &[] });
}

/// Returns when a client has connected, according to an event.
fn connected_at(program: &Program) -> u64 {
    let mut watcher = program.client("watcher");
    watcher.subscribe("$events/client_connected", QoS::AtMostOnce);
    let _client: Client = program.client("watched");
    let event: Value = serde_json::from_slice(&watcher.message().payload).unwrap();
    assert_eq!(event["clientid"], "watched");
    event["connected_at"].as_u64().unwrap()
}

#[test]
fn a_clock_that_has_gone_back_takes_nothing_back_and_prolongs_nothing() {
    let place = Place::new();
    let ahead = wall_clock().plus_secs(240 * 3_600);
    let [past, soon, later] =
        [Timestamp(ahead.millis() - 1), ahead.plus_millis(1_500), ahead.plus_millis(HOUR)];
    // A Will shows the moment.
    let will = WillRecord {
        message: Arc::new(message("will", b"gone")),
        delay_secs: 7_200,
        expiry_secs: None,
        due_at: Some(later.plus_millis(HOUR)),
    };
    let will = Change::PutWill(SessionNumber(2), Box::new(will));
    let sessions = [left(1, "past", past), left(2, "soon", soon), left(3, "later", later)];
    write(&place.path("data"), ahead, sessions.into_iter().flatten().chain([will]));

    let started = Instant::now();
    let mut program = place.start();
    let mut heir = program.connected(lasting("heir"));
    heir.subscribe("will", QoS::AtMostOnce);
    expect_left(&program, "past", false);
    let first = connected_at(&program);
    assert!(first >= ahead.millis());
    // A session ends after the time that it had left, whatever the wall clock says.
    assert_eq!(heir.message().payload, b"gone");
    let passed = started.elapsed().as_millis();
    assert!(passed >= 1_500, "{passed} ms");
    expect_left(&program, "soon", false);
    let last = connected_at(&program);
    let passed = started.elapsed().as_millis();
    let pace = u128::from(last - ahead.millis());
    assert!(pace <= passed + 1_000, "{pace} ms in {passed} ms: the clock runs at its usual pace");
    assert!(last >= first && last > soon.millis());
    expect_left(&program, "later", true);
    // The same a second time.
    program.signal("-KILL");
    program.killed();
    assert!(connected_at(&place.start()) >= ahead.millis());
}

/// Also where no change was stored with which the time could have been noted.
#[test]
fn where_the_clock_has_gone_back_a_run_goes_on_from_the_end_of_the_last_one() {
    let place = Place::new();
    let ahead = wall_clock().plus_secs(240 * 3_600);
    write(&place.path("data"), ahead, []);
    let mut program = place.start();
    let mut watcher = program.client("watcher");
    watcher.subscribe("$events/client_disconnected", QoS::AtMostOnce);
    let mut silent = connect("silent");
    silent.keep_alive = 1;
    let _silent = program.connected(silent);
    let event: Value = serde_json::from_slice(&watcher.message().payload).unwrap();
    let gone_at = event["disconnected_at"].as_u64().unwrap();
    assert!(gone_at >= ahead.millis() + 1_500);
    program.signal("-TERM");
    assert!(program.wait(PATIENCE).success());
    let again = connected_at(&place.start());
    assert!(again >= gone_at, "{again} after {gone_at}");
}

#[test]
fn a_clock_that_has_jumped_ahead_ends_what_was_to_end_meanwhile() {
    let place = Place::new();
    let now = wall_clock();
    let before = Timestamp(now.millis() - 24 * HOUR);
    let sessions =
        [left(1, "past", before.plus_millis(HOUR)), left(2, "future", now.plus_millis(HOUR))];
    write(&place.path("data"), before, sessions.into_iter().flatten());
    let program = place.start();
    assert!(connected_at(&program) >= now.millis());
    expect_left(&program, "past", false);
    expect_left(&program, "future", true);
}
