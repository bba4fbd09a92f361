//! An unusable store is reported in one line with its remedy, and the program ends with 1.
//!
//! `../start.rs` tests two brokers on one directory, `tests/it/store/damage.rs` how a store
//! reacts to each changed byte.

use std::{fs, path::PathBuf, process::Output};

use hearthmq::{
    mqtt::QoS,
    store::{DirectoryStore, Store as _},
};

use super::{lasting, own_mounts, retain_1};
use crate::{program::Place, vocabulary::*};

/// Returns the last line. The database may have logged more before it.
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    last.strip_prefix("hearthmq: ").expect(&said).to_owned()
}

/// Returns a place in which a broker has run and was killed.
fn used() -> Place {
    let place = Place::new();
    let mut program = place.start();
    let mut client = program.connected(lasting("subscriber"));
    client.subscribe("durable", QoS::AtLeastOnce);
    retain_1(&mut client, "retained", b"kept", 1);
    program.signal("-KILL");
    program.killed();
    place
}

fn files(place: &Place, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut left = vec![place.path("data/store")];
    let mut found = Vec::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if is_wanted(&path.display().to_string()) && fs::metadata(&path).unwrap().len() > 0 {
            found.push(path);
        }
    }
    assert!(!found.is_empty());
    found
}

#[test]
fn a_later_format_is_named_and_left_alone() {
    let place = used();
    let database = fjall::Database::builder(place.path("data/store")).open().unwrap();
    let meta = database.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
    meta.insert("format", [1, 9]).unwrap();
    database.persist(fjall::PersistMode::SyncAll).unwrap();
    drop((meta, database));
    for _ in 0..2 {
        let said = complaint(&place.run());
        assert!(said.contains("data/store has format 9, and this program supports"), "{said}");
        assert!(said.ends_with("run the version of hearthmq that wrote it, or a later one"));
    }
}

#[test]
fn data_files_that_are_damaged_or_cut_off_are_named() {
    for cuts in [false, true] {
        let place = used();
        // Moves the contents of the journal into data files.
        let store = DirectoryStore::open(place.path("data")).unwrap();
        apply(&store, &[put(100), enqueue(100, 1, &numbered(1, &[7; 4096]))]);
        store.compact().unwrap();
        drop(store);
        for path in files(&place, |path| path.contains("/tables/")) {
            let mut bytes = fs::read(&path).unwrap();
            let half = bytes.len() / 2;
            match cuts {
                true => bytes.truncate(half),
                false => bytes[..half].iter_mut().for_each(|byte| *byte ^= 0x55),
            }
            fs::write(&path, bytes).unwrap();
        }
        let said = complaint(&place.run());
        assert!(said.contains("data/store is damaged: "), "{said}");
        assert!(said.ends_with("restore it from a backup"), "{said}");
    }
}

/// The end of the journal may be missing after a power cut: that is not damage.
#[test]
fn a_journal_that_is_cut_off_ends_there() {
    let place = used();
    let journals = files(&place, |path| path.ends_with(".jnl"));
    for path in &journals {
        let bytes = fs::read(path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        fs::write(path, &bytes[..used - 3]).unwrap();
    }
    let program = place.start();
    assert_eq!(program.readiness().0, 200);
    assert!(!program.is_online("subscriber"));
}

#[test]
fn a_directory_that_is_mounted_read_only_is_named() {
    let Some(shell) = own_mounts() else { return };
    let place = used();
    let mount = "mount --bind data data && mount -o remount,bind,ro data";
    let said = complaint(&place.command_after(shell, mount).output().unwrap());
    assert!(said.contains("data/lock: it is read-only for this user; change its owner"), "{said}");
    assert!(said.ends_with("or choose another data_dir"), "{said}");
    let store = DirectoryStore::open(place.path("data")).unwrap();
    assert_eq!(store.examine().unwrap().faults, [""; 0]);
    assert_eq!(retained(&store).len(), 1);
    assert!(store.has_room());
}
