//! `hearthmq store` from an operator's view: on a store with something of each kind, without a
//! store, on one that is in use, and on an inconsistent one.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearthmq::{
    mqtt::{Message, Publication, QoS, Timestamp},
    store::{Change, DirectoryStore, Owner, SessionNumber, StoreError},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::vocabulary::*;

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
    assert_eq!(lines.len(), 8);
    assert_eq!(lines[7], json!({ "kind": "end", "lines": 7 }));
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
        withdraw(3, "no/longer"),
        put(40),
        Change::Retain(numbered(50, b""), None),
        Change::NoteLogin([7; 32], Timestamp(9)),
        put_record("ns", "\u{1F600}", 2, b"\0v"),
        put_record("ns", "gone", 3, b""),
        note_connection("\u{1F600}", connection(1, Some(9)), 5),
        note_connection("\u{1F600}", connection(2, None), 5),
        note_connection("b", connection(4, Some(8)), 5),
    ];
    apply(&store, &group);
    apply(&store, &[end(40), Change::ClearRetained(numbered(50, b"").topic().into())]);
    apply(&store, &[remove_record("ns", "gone", 4)]);
    drop(store);
    stdout(&run(dir.path(), &["export", "--output", "lines"]));
    let said = stdout(&run(dir.path(), &["import", "lines", "--data-dir", "other"]));
    assert_eq!(said, "16 lines were imported\n");
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
    assert!(import("empty", "b").contains("empty is empty; nothing was imported"));
    fs::write(dir.path().join("other"), "{\"kind\":\"bounds\"}\n").unwrap();
    assert!(import("other", "c").starts_with("other, line 1 is not a valid line of an export"));
    assert!(import("empty", "hearthmq-data").contains("already contains a store"));
    assert!(stdout(&run(dir.path(), &["check"])).ends_with("0 faults\n"), "it is left as it was");
}

/// Returns the lines of an export of [`stored`]: `bounds`, two sessions, three places of queues, a
/// retained message and `end`.
fn exported(dir: &Path) -> Vec<Value> {
    let lines = stdout(&run(dir, &["export"]));
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write_lines(dir: &Path, lines: &[Value]) {
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(dir.join("lines"), lines).unwrap();
}

/// Returns `line` with another value at `pointer`.
fn with(line: &Value, pointer: &str, value: impl Into<Value>) -> Value {
    let mut line = line.clone();
    *line.pointer_mut(pointer).unwrap() = value.into();
    line
}

#[test]
fn a_line_that_no_export_can_have_is_refused_by_its_number() {
    let dir = stored();
    let lines = exported(dir.path());
    let [bounds, one, _, waiting, flying, released, kept, end] = &lines[..] else {
        panic!("8 lines")
    };
    let long = "x".repeat(65_536);
    let alias = STANDARD.encode([0x23, 0, 1]);
    let shared = json!({
        "kind": "record", "namespace": "ns", "key": "k", "revision": 1, "expires_at": null,
        "value": "",
    });
    for (at, is_added, line, problem) in [
        (0, false, one.clone(), "the line of the kind bounds is the first one"),
        (1, true, bounds.clone(), "the line of the kind bounds is the first one"),
        (0, false, with(bounds, "/presence_version", 1_u64 << 52), "not below 2^52"),
        (2, true, with(one, "/client_id", "other"), "session 1 is there already"),
        (2, true, with(one, "/session", 9), r#"the client "client 1" has session 1 already"#),
        (2, true, with(&with(one, "/session", 0), "/client_id", "zero"), "client_id is not valid"),
        (2, true, with(&with(one, "/session", 9), "/client_id", ""), "client_id is not valid"),
        (2, true, with(&with(one, "/session", 9), "/client_id", "a\0"), "client_id is not valid"),
        (2, true, with(&with(one, "/session", 9), "/client_id", &*long), "client_id is not valid"),
        (1, false, with(one, "/username", &*long), "username is not valid"),
        (1, false, with(one, "/subscriptions/0/filter", "a/#/b"), "not a valid Topic Filter"),
        (1, false, with(one, "/subscriptions/0/filter", ""), "not a valid Topic Filter"),
        (1, false, with(one, "/subscriptions/0/filter", "$share/g"), "not a valid Topic Filter"),
        (1, false, with(one, "/subscriptions/0/identifier", 0), "Subscription Identifier"),
        (1, false, with(one, "/will/message/topic", "w/+"), "not a valid Topic Name"),
        (3, false, with(waiting, "/session", 9), "session 9 has no line before this one"),
        (4, true, waiting.clone(), "place 1 of session 1's queue is there already"),
        (5, false, with(released, "/place", 1), "place 1 of session 2's queue is there already"),
        (
            5,
            false,
            with(released, "/packet_id", 3),
            "the packet_id is in session 2's queue already",
        ),
        (6, true, with(waiting, "/place", 2), "the lines of session 1's queue are apart"),
        (3, false, with(waiting, "/message/topic", "#"), "not a valid Topic Name"),
        (3, false, with(waiting, "/message/topic", &*long), "not a valid Topic Name"),
        (3, false, with(waiting, "/message/properties", "/w=="), "not those of a PUBLISH"),
        (3, false, with(waiting, "/message/properties", alias), "not those of a PUBLISH"),
        (3, false, with(waiting, "/identifiers", vec![0]), "Subscription Identifier"),
        (3, false, with(waiting, "/share", "a/b"), "not the Topic Filter of a shared subscription"),
        (4, false, with(flying, "/packet_id", 0), "a packet identifier is not 0"),
        (6, false, with(kept, "/message/topic", ""), "not a valid Topic Name"),
        (7, true, kept.clone(), r#"the topic "r" has a retained message already"#),
        (7, true, with(&shared, "/namespace", ""), "namespace is empty"),
        (7, true, with(&shared, "/key", &*long), "key is too long"),
        (7, true, with(&shared, "/value", "?"), "value is not base64"),
        (0, false, end.clone(), "the line of the kind bounds is the first one"),
        (7, false, with(end, "/lines", 6), "the export had 6 lines before this one, not 7"),
        (7, false, with(end, "/lines", 8), "the export had 8 lines before this one, not 7"),
        (8, true, kept.clone(), "the line of the kind end is the last one"),
        (8, true, end.clone(), "the line of the kind end is the last one"),
    ] {
        let mut lines = lines.clone();
        lines.splice(at..at + usize::from(!is_added), [line]);
        write_lines(dir.path(), &lines);
        let output = run(dir.path(), &["import", "lines", "--data-dir", "new"]);
        let said = complaint(&output);
        let expected = format!("lines, line {} is not a valid line of an export: ", at + 1);
        assert!(said.starts_with(&expected) && said.contains(problem), "{problem}: {said}");
        assert!(said.contains("nothing was imported, correct the line or export again"));
    }
    // Nothing of them was left.
    assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 1, "the lock");
    write_lines(dir.path(), &lines);
    stdout(&run(dir.path(), &["import", "lines", "--data-dir", "new"]));
    assert!(stdout(&run(dir.path(), &["check", "--data-dir", "new"])).ends_with("0 faults\n"));
}

/// While a client gets a new session, an export may see the former one too. A start ends it.
#[test]
fn a_session_that_was_about_to_end_is_imported_with_the_one_that_replaces_it() {
    let dir = stored();
    let store = DirectoryStore::open(dir.path().join("hearthmq-data")).unwrap();
    apply(&store, &[Change::PutSession(SessionNumber(3), Box::new(record("client 1")))]);
    drop(store);
    let lines = exported(dir.path());
    assert_eq!(lines[3]["replaces"], 1);
    write_lines(dir.path(), &lines);
    stdout(&run(dir.path(), &["import", "lines", "--data-dir", "other"]));
    let again = stdout(&run(dir.path(), &["export", "--data-dir", "other"]));
    assert_eq!(again, fs::read_to_string(dir.path().join("lines")).unwrap());
    // Two files put together.
    write_lines(dir.path(), &[&lines[..3], &[with(&lines[3], "/replaces", Value::Null)]].concat());
    let output = run(dir.path(), &["import", "lines", "--data-dir", "new"]);
    assert!(complaint(&output).contains(r#"the client "client 1" has session 1 already"#));
}

/// Also one that was cut between two lines, which nothing else shows.
#[test]
fn a_part_of_an_export_is_not_taken_for_a_whole_one() {
    let dir = stored();
    let lines = exported(dir.path());
    for count in 1..lines.len() {
        write_lines(dir.path(), &lines[..count]);
        let output = run(dir.path(), &["import", "lines", "--data-dir", "new"]);
        let said = complaint(&output);
        assert!(said.starts_with("lines does not have the last line of an export; "), "{said}");
        assert!(said.ends_with("import what it has with --incomplete"), "{said}");
        assert!(!dir.path().join("new/store").exists());
    }
    let said = stdout(&run(dir.path(), &["import", "lines", "--incomplete", "--data-dir", "new"]));
    let doubt = "the export has no last line, so it may be incomplete";
    assert_eq!(said, format!("7 lines were imported; {doubt}\n"));
    write_lines(dir.path(), &lines);
    let said = stdout(&run(dir.path(), &["import", "lines", "--incomplete", "--data-dir", "b"]));
    assert_eq!(said, "7 lines were imported\n");
}

#[test]
fn a_line_has_a_maximum_length() {
    let dir = stored();
    let lines = exported(dir.path());
    write_lines(dir.path(), &lines);
    let longest = lines.iter().map(|line| line.to_string().len()).max().unwrap();
    let (enough, less) = (longest.to_string(), (longest - 1).to_string());
    let import = |place: &str, bytes_max: &str| {
        let bounded = ["--line-bytes-max", bytes_max];
        run(dir.path(), &[&["import", "lines", "--data-dir", place][..], &bounded].concat())
    };
    let output = import("a", &less);
    let said = complaint(&output);
    assert!(said.starts_with("lines, line 2 is longer than "), "{said}");
    assert!(said.ends_with("allow longer lines with --line-bytes-max"), "{said}");
    stdout(&import("b", &enough));
    // A file without lines, which is longer than any memory, is not read to its end.
    let file = fs::File::create(dir.path().join("lines")).unwrap();
    file.set_len(1 << 40).unwrap();
    let output = run(dir.path(), &["import", "lines", "--data-dir", "c"]);
    assert!(complaint(&output).starts_with("lines, line 1 is longer than 67108864 bytes"));
}

/// An import that is killed leaves nothing that a broker would take for a store.
#[test]
fn an_import_that_was_cut_short_is_begun_again() {
    let dir = stored();
    let lines = exported(dir.path());
    write_lines(dir.path(), &lines);
    let place = dir.path().join("new");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
    command.args(["store", "import", "-", "--data-dir", "new"]).current_dir(dir.path());
    let mut importing = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = importing.stdin.take().unwrap();
    input.write_all(format!("{}\n{}\n", lines[0], lines[1]).as_bytes()).unwrap();
    input.flush().unwrap();
    while !place.join("store.new").exists() {
        assert!(importing.try_wait().unwrap().is_none());
        thread::sleep(Duration::from_millis(5));
    }
    let output = run(dir.path(), &["import", "lines", "--data-dir", "new"]);
    assert!(complaint(&output).contains("in use"));
    importing.kill().unwrap();
    importing.wait().unwrap();
    assert!(!place.join("store").exists());
    for command in ["check", "export"] {
        let output = run(dir.path(), &[command, "--data-dir", "new"]);
        let said = complaint(&output);
        assert!(said.contains("new/store.new is a store that was not finished"), "{said}");
    }
    let opened = DirectoryStore::open(&place).unwrap_err();
    assert!(matches!(opened, StoreError::Unfinished { .. }), "{opened}");
    stdout(&run(dir.path(), &["import", "lines", "--data-dir", "new"]));
    assert!(!place.join("store.new").exists());
    let again = stdout(&run(dir.path(), &["export", "--data-dir", "new"]));
    assert_eq!(again, fs::read_to_string(dir.path().join("lines")).unwrap());
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
