//! The stored data: a copy of it while the broker runs, and its permissions.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{
    Packet, ProtocolVersion, Publish, PublishFlags, PublishProperties, QoS, ReasonCode,
};
use serde_json::Value;

use crate::{
    mqtt::{Client, connect},
    program::{PATIENCE, Place},
};

/// Runs `hearthmq store …` in a place.
fn store(place: &Place, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
    command.arg("store").args(arguments).current_dir(place.path("")).output().unwrap()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Publishes until told to stop; counts acknowledged messages.
fn publish_until(mut client: Client, acknowledged: &AtomicU32, is_enough: &AtomicBool) {
    while !is_enough.load(Ordering::Relaxed) {
        let number = acknowledged.load(Ordering::Relaxed);
        client.publish("load", number.to_string().as_bytes(), Some(1)).unwrap();
        client.receive(|packet| match packet {
            Packet::PubAck(ack) => assert_eq!(ack.reason, ReasonCode::Success),
            packet => panic!("{packet:?}"),
        });
        acknowledged.store(number + 1, Ordering::Relaxed);
    }
}

#[test]
fn a_broker_at_work_is_exported_with_all_that_was_acknowledged_and_goes_on_elsewhere() {
    let place = Place::new();
    let mut program = place.start();
    let subscriber = || {
        let mut packet = connect("subscriber");
        packet.version = ProtocolVersion::V3_1_1;
        packet.clean_start = false;
        packet
    };
    let mut client = program.connected(subscriber());
    client.subscribe("load", QoS::AtLeastOnce);
    drop(client);
    while program.is_online("subscriber") {
        thread::sleep(Duration::from_millis(5));
    }
    let (acknowledged, is_enough) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let publisher = {
        let (client, acknowledged) = (program.client("publisher"), acknowledged.clone());
        let is_enough = is_enough.clone();
        thread::spawn(move || publish_until(client, &acknowledged, &is_enough))
    };
    let mut found = 0;
    for round in 1..=3 {
        while acknowledged.load(Ordering::Relaxed) < 20 * round {
            thread::sleep(Duration::from_millis(1));
        }
        let before = acknowledged.load(Ordering::Relaxed);
        succeeded(&store(&place, &["export", "--data-dir", "data", "--output", "copy"]));
        let lines = fs::read_to_string(place.path("copy")).unwrap();
        found = lines.lines().filter(|line| line.contains(r#""kind":"queued""#)).count();
        assert!(found >= before as usize, "{found} of {before}");
    }
    is_enough.store(true, Ordering::Relaxed);
    publisher.join().unwrap();
    let printed = succeeded(&store(&place, &["export", "--data-dir", "data"]));
    assert!(printed.lines().count() > found, "an export goes to standard output as well");
    assert_eq!(mode(&place.path("copy")), 0o600);
    program.killed();
    // The copy starts where it was taken.
    fs::rename(place.path("data/store"), place.path("former")).unwrap();
    let said = succeeded(&store(&place, &["import", "copy", "--data-dir", "data"]));
    assert!(said.contains("lines were imported"), "{said}");
    assert!(succeeded(&store(&place, &["check", "--data-dir", "data"])).ends_with("0 faults\n"));
    let program = place.start();
    let mut client = program.connected(subscriber());
    let mut numbers = HashSet::new();
    for _ in 0..found {
        let message = client.message();
        numbers.insert(String::from_utf8(message.payload).unwrap());
        client.send(&Packet::PubAck(hearthmq::mqtt::Ack::success(message.packet_id.unwrap())));
    }
    client.ping();
    assert!((0..found).all(|number| numbers.contains(&number.to_string())));
    // Existing data is not overwritten.
    drop(program);
    let refused = store(&place, &["import", "copy", "--data-dir", "data"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("already contains a store"), "{said}");
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Returns everything below a directory that other users can access.
fn open_to_others(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut ahead = vec![directory.to_owned()];
    while let Some(path) = ahead.pop() {
        if mode(&path) & 0o077 != 0 {
            found.push(format!("{} {:o}", path.display(), mode(&path)));
        }
        if path.is_dir() {
            ahead.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn what_is_stored_is_its_owners_alone_whatever_the_umask() {
    let place = Place::new().set("data_dir=new/data");
    let mut program = place.start_by(place.command_after(&["env"], "umask 000"));
    succeeded(&store(&place, &["export", "--data-dir", "new/data", "--output", "new/data/copy"]));
    assert_eq!(open_to_others(&place.path("new")), [""; 0]);
    program.killed();
    // Wider permissions left by an earlier version are narrowed, and logged.
    for (path, mode) in [("new/data", 0o755), ("new/data/store", 0o777), ("new/data/lock", 0o644)] {
        fs::set_permissions(place.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut program = place.start_by(place.command_after(&["env"], "umask 022"));
    assert_eq!(open_to_others(&place.path("new")), [""; 0]);
    let line = program.line_with(&["from now on only its owner can"]);
    assert!(
        line.contains("new/data") && line.contains("755") && line.contains("narrowed=3"),
        "{line}"
    );
    program.killed();
    let program = place.start();
    let line = |text: &str| program.logged().into_iter().find(|line| line.contains(text));
    assert_eq!(line("only its owner"), None, "there is nothing to be said any more");
}

/// Callers that do not read their export delay no other, up to a number of them.
#[test]
fn several_callers_export_at_the_same_time() {
    const CALLERS_MAX: usize = 8;
    let place = Place::new();
    let program = place.start();
    let mut publisher = program.client("publisher");
    let payload = "x".repeat(500_000);
    for number in 0..4 {
        let topic = format!("large/{number}");
        publisher.send(&Packet::Publish(Publish {
            flags: PublishFlags { retain: true, ..PublishFlags::default() },
            topic: &topic,
            packet_id: None,
            properties: PublishProperties::default(),
            payload: payload.as_bytes(),
        }));
    }
    publisher.ping();
    let call = || {
        let mut caller = UnixStream::connect(place.path("data/control.sock")).unwrap();
        drop(writeln!(caller, "export")); // a caller too many is answered before it asks
        let mut lines = BufReader::new(caller);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        (lines, line)
    };
    // Their first line is there: each is being answered.
    let mut slow: Vec<_> = (1..CALLERS_MAX).map(|_| call().0).collect();
    let copy = succeeded(&store(&place, &["export", "--data-dir", "data"]));
    assert_eq!(copy.lines().filter(|line| line.contains("large/")).count(), 4);
    // The place of the command is free a moment after its end.
    let until = Instant::now() + PATIENCE;
    let last = std::iter::repeat_with(call).find(|(_, line)| {
        assert!(Instant::now() < until, "{line}");
        !line.contains("too many callers")
    });
    slow.extend(last.map(|(lines, _)| lines));
    assert!(call().1.contains("too many callers"));
    for mut caller in slow {
        let mut rest = String::new();
        caller.read_to_string(&mut rest).unwrap();
        let last: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
        assert_eq!(last["kind"], "end");
    }
}
