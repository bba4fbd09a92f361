//! `hearthmq store` from an operator's view: on a store with something of each kind, without a
//! store, on one that is in use, and on an inconsistent one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there and then")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearthmq::{
    journal::{Change, SessionNumber},
    mqtt::{Message, Publication, QoS, Timestamp},
    owners::Owner,
    store::DirectoryStore,
};
use serde_json::Value;
use tempfile::TempDir;

#[expect(dead_code, reason = "the words for tests of stores say more than is needed here")]
#[path = "store/vocabulary.rs"]
mod vocabulary;

use vocabulary::*;

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
    command.arg("store").args(arguments).current_dir(dir).output().unwrap()
}

fn stdout(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns the error of a failed command: exactly one line.
fn complaint(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(1));
    let text = std::str::from_utf8(&output.stderr).unwrap();
    let line = text.strip_prefix("hearthmq: ").expect(text).strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "{line}");
    line
}

/// Creates a store with something of each kind, where a broker would look for it.
fn stored() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(dir.path().join("hearthmq-data")).unwrap();
    let shared = numbered(7, b"\xFFshared");
    let group = [
        Change::ReserveVersions(17),
        Change::Clock(Timestamp(5)),
        put(1),
        put(2),
        subscribe(1, "a/#"),
        accept(1, 9),
        put_will(1, "w"),
        enqueue(1, 1, &shared),
        enqueue_sent(2, 1, &shared, sent(3, 4)),
        enqueue_sent(2, 2, &shared, sent(4, 5)),
        release(2, 2),
        retain("r", b"kept"),
    ];
    apply(&store, &group);
    dir
}

#[test]
fn a_store_is_counted_and_found_right() {
    let dir = stored();
    for arguments in [&["check"][..], &["check", "--data-dir", "hearthmq-data"], &["stats"]] {
        let said = stdout(&run(dir.path(), arguments));
        for line in [
            "2 sessions, ",
            "1 subscriptions, ",
            "2 queued messages, ",
            "2 sent messages, ",
            "1 shared messages, ",
            "1 wills, ",
            "1 retained messages, ",
        ] {
            assert!(said.lines().any(|said| said.starts_with(line)), "{line} in {said}");
        }
        let last = said.lines().last().unwrap();
        match arguments[0] {
            "check" => assert_eq!(last, "0 faults"),
            _ => assert!(last.ends_with(" bytes on the disk"), "{last}"),
        }
    }
}

#[test]
fn an_export_has_all_that_is_needed_to_build_the_store_again() {
    let dir = stored();
    let lines = stdout(&run(dir.path(), &["export"]));
    stdout(&run(dir.path(), &["export", "--output", "lines"]));
    assert_eq!(fs::read_to_string(dir.path().join("lines")).unwrap(), lines);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(of("bounds")[0]["presence_version"], 17);
    let [one, two] = of("session")[..] else { panic!("two sessions") };
    assert_eq!((&one["client_id"], &two["client_id"]), (&"client 1".into(), &"client 2".into()));
    assert_eq!(one["subscriptions"][0]["filter"], "a/#");
    assert_eq!(one["subscriptions"][0]["identifier"], 268_435_455);
    assert_eq!(one["accepted"][0], 9);
    assert_eq!(one["will"]["message"]["topic"], "w");
    assert_eq!(two["will"], Value::Null);
    let [waiting, flying, released] = of("queued")[..] else { panic!("three places") };
    let payload = STANDARD.encode(b"\xFFshared");
    assert_eq!(waiting["message"]["payload"], payload);
    assert_eq!((&waiting["session"], &waiting["packet_id"]), (&1.into(), &Value::Null));
    assert_eq!((&flying["session"], &flying["packet_id"]), (&2.into(), &3.into()));
    assert_eq!(flying["message"]["number"], 7);
    assert_eq!((&released["packet_id"], &released["message"]), (&4.into(), &Value::Null));
    assert_eq!(of("retained")[0]["message"]["payload"], STANDARD.encode(b"kept"));
    assert_eq!(lines.len(), 7);
}

/// All contents of a store come back unchanged, and assigned numbers are not assigned again.
#[test]
fn what_was_exported_is_the_same_again_once_it_is_imported() {
    let dir = stored();
    let store = DirectoryStore::open(dir.path().join("hearthmq-data")).unwrap();
    let expiring = |topic: &str, owner: Option<Owner>| {
        let publication = Publication {
            topic,
            payload: b"\0x",
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: &[1, 1],
            expires_at: Some(Timestamp(u64::MAX)),
        };
        Change::Retain(Arc::new(Message::new(&publication)), owner)
    };
    let mut record = record("\u{1F600}");
    (record.username, record.is_connected) = (Some("u".into()), false);
    record.ends_at = Some(Timestamp(77));
    let group = [
        expiring("of a user", Some(Owner::User("u".into()))),
        expiring("of an address", Some(Owner::of(None, "2001:db8::1".parse().unwrap()))),
        expiring("of nobody", None),
        Change::PutSession(SessionNumber(3), Box::new(record)),
        enqueue(3, 9, &numbered(8, b"in one queue")),
        put(40),
        Change::Retain(numbered(50, b""), None),
        Change::NoteLogin([7; 32], Timestamp(9)),
    ];
    apply(&store, &group);
    apply(&store, &[end(40), Change::ClearRetained(numbered(50, b"").topic().into())]);
    drop(store);
    stdout(&run(dir.path(), &["export", "--output", "lines"]));
    let said = stdout(&run(dir.path(), &["import", "lines", "--data-dir", "other"]));
    assert_eq!(said, "13 lines were imported\n");
    stdout(&run(dir.path(), &["export", "--data-dir", "other", "--output", "again"]));
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("again"), read("lines"));
    assert!(stdout(&run(dir.path(), &["check", "--data-dir", "other"])).ends_with("0 faults\n"));
    let stats = |place: &str| {
        let said = stdout(&run(dir.path(), &["stats", "--data-dir", place]));
        said.lines().filter(|line| !line.ends_with("on the disk")).collect::<String>()
    };
    assert_eq!(stats("other"), stats("hearthmq-data"));
}

#[test]
fn what_is_no_export_is_not_imported() {
    let dir = stored();
    let import = |file: &str, place: &str| {
        complaint(&run(dir.path(), &["import", file, "--data-dir", place])).to_owned()
    };
    assert!(import("missing", "a").contains("cannot read missing"));
    fs::write(dir.path().join("empty"), "").unwrap();
    assert!(import("empty", "b").contains("nothing was imported"));
    fs::write(dir.path().join("other"), "{\"kind\":\"bounds\"}\n").unwrap();
    assert!(import("other", "c").starts_with("line 1 is not a valid line of an export"));
    assert!(import("empty", "hearthmq-data").contains("already contains a store"));
    assert!(stdout(&run(dir.path(), &["check"])).ends_with("0 faults\n"), "it is left as it was");
}

#[test]
fn compacting_tells_what_it_came_to() {
    let dir = stored();
    let said = stdout(&run(dir.path(), &["compact"]));
    assert!(said.contains(" bytes on the disk before, ") && said.ends_with(" after\n"), "{said}");
    assert!(stdout(&run(dir.path(), &["check"])).ends_with("0 faults\n"));
}

#[test]
fn a_store_that_is_in_use_or_not_there_is_left_alone() {
    let dir = stored();
    let store = DirectoryStore::open(dir.path().join("hearthmq-data")).unwrap();
    for command in ["check", "stats", "export", "compact"] {
        let output = run(dir.path(), &[command]);
        let expected = match command {
            "export" => "does not answer at its control.sock", // not a broker
            _ => "in use by another broker; stop it",
        };
        assert!(complaint(&output).contains(expected));
        let output = run(dir.path(), &[command, "--data-dir", "elsewhere"]);
        assert!(complaint(&output).contains("there is no store in elsewhere"));
        assert!(!dir.path().join("elsewhere").exists());
    }
    drop(store);
    let output = run(dir.path(), &["export", "--output", "no/such/file"]);
    assert!(complaint(&output).contains("cannot write no/such/file"));
}

/// Removes records without the store's knowledge.
#[test]
fn what_does_not_fit_together_is_told() {
    let dir = stored();
    let path = dir.path().join("hearthmq-data/store");
    let database = fjall::Database::builder(path).open().unwrap();
    let key = |number: u64| number.to_be_bytes();
    for (space, number) in [("messages", 7), ("sessions", 2)] {
        let space = database.keyspace(space, fjall::KeyspaceCreateOptions::default).unwrap();
        assert!(space.contains_key(key(number)).unwrap());
        space.remove(key(number)).unwrap();
    }
    let retained = database.keyspace("retained", fjall::KeyspaceCreateOptions::default).unwrap();
    retained.insert(b"\0r", b"\x01no message").unwrap();
    drop((retained, database));
    let output = run(dir.path(), &["check"]);
    let faults = complaint(&output);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    for fault in [
        "fault: sent messages: their session 2 is missing",
        "fault: queued messages: their session 2 is missing",
        "fault: message 7 is queued but missing",
        "fault: counts of shared messages: message 7 has the count 2, but 1 in queues",
        "fault: retained messages: one cannot be read",
    ] {
        assert!(said.lines().any(|line| line == fault), "{fault} in {said}");
    }
    let count = said.lines().filter(|line| line.starts_with("fault: ")).count();
    assert_eq!(said.lines().last(), Some(format!("{count} faults").as_str()));
    assert!(faults.starts_with(&format!("the store has {count} faults; ")), "{faults}");
}
