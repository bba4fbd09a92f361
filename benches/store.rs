//! Measures the store in a directory: groups of one to a thousand messages, acknowledged later or
//! within the same group, with the bytes that the process writes for each; and a start with many
//! sessions.
//!
//! `cargo bench --bench store`; the data goes to a directory under `TMPDIR`.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends there and then")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::{fs, num::NonZeroU64, sync::Arc, time::Instant};

use hearthmq::{
    mqtt::{Message, Publication, QoS, Timestamp},
    store::{
        Change, DirectoryStore, Durability, QueuePlace, QueuedMessage, SessionNumber,
        SessionRecord, Store as _,
    },
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAYLOAD: [u8; 128] = [7; 128];
const SESSIONS: u64 = 100_000;
const PLACES: u64 = 10;

fn put(session: u64) -> Change {
    let record = SessionRecord {
        client_id: format!("client-{session}").into(),
        username: Some("user".into()),
        expiry_interval_secs: 3_600,
        ends_at: None,
        is_connected: false,
        doubtful_up_to: QueuePlace(0),
        peer: "192.0.2.1:1883".into(),
        connected_at: Timestamp(1),
        login: None,
    };
    Change::PutSession(SessionNumber(session), Box::new(record))
}

fn enqueue(session: u64, place: u64, number: u64) -> Change {
    let message = Message::new(&Publication {
        topic: "a/topic/of/some/levels",
        payload: &PAYLOAD,
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: &[],
        expires_at: None,
    });
    let queued = QueuedMessage {
        message: Arc::new(message.numbered(NonZeroU64::new(number).unwrap())),
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: None,
        share: None,
    };
    Change::Enqueue(SessionNumber(session), QueuePlace(place), queued, None)
}

fn dequeue(session: u64, place: u64) -> Change {
    Change::Dequeue(SessionNumber(session), QueuePlace(place))
}

/// Returns the bytes that the process has handed to the disk.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.map_or(0, |bytes| bytes.parse().unwrap())
}

/// Writes groups of `size` messages in and as many out: those of the previous group, or its own.
fn groups(size: u64, durability: Durability, within: bool) {
    let dir = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(dir.path()).unwrap();
    let sessions = 1_000;
    let all: Vec<_> = (0..sessions).map(put).collect();
    store.apply(&all, Durability::Synced).unwrap();
    let rounds = (100_000 / size).clamp(100, 5_000);
    // Prepared before the clock starts: only the store is measured.
    let prepared: Vec<Vec<Change>> = (1..=rounds)
        .map(|round| {
            let numbers =
                |round: u64| (round * size..(round + 1) * size).map(|n| (n % sessions, n));
            let out = if within { round } else { round - 1 };
            let enqueued = numbers(round).map(|(session, number)| enqueue(session, number, number));
            let dequeued = numbers(out).map(|(session, number)| dequeue(session, number));
            enqueued.chain(dequeued).collect()
        })
        .collect();
    let (begin, bytes) = (Instant::now(), written());
    for group in &prepared {
        store.apply(group, durability).unwrap();
    }
    let secs = begin.elapsed().as_secs_f64();
    let messages = (rounds * size) as f64;
    println!(
        "{durability:?} {} {size:>5} a group: {:>9.0} messages/s, {:>6.0} bytes written each",
        if within { "within a group" } else { "between groups" },
        messages / secs,
        (written() - bytes) as f64 / messages,
    );
}

fn start() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(dir.path()).unwrap();
    for first in (1..=SESSIONS).step_by(100) {
        let mut group: Vec<_> = (first..first + 100).map(put).collect();
        for session in first..first + 100 {
            let number = |place| session * PLACES + place;
            group.extend((1..=PLACES).map(|place| enqueue(session, place, number(place))));
        }
        store.apply(&group, Durability::Written).unwrap();
    }
    // Closed and opened again, as after a restart.
    drop(store);
    let begin = Instant::now();
    let store = DirectoryStore::open(dir.path()).unwrap();
    let opened = begin.elapsed();
    let begin = Instant::now();
    let mut found = (0, 0);
    store
        .sessions(&mut |session| {
            found.0 += 1;
            found.1 += session.waiting.messages;
        })
        .unwrap();
    let read = begin.elapsed();
    println!(
        "{} sessions with {} messages: opened in {opened:?}, read in {read:?}",
        found.0, found.1
    );
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return; // `cargo test` builds it, only `cargo bench` measures
    }
    for within in [true, false] {
        for durability in [Durability::Synced, Durability::Written] {
            for size in [1, 16, 128, 1_024] {
                groups(size, durability, within);
            }
        }
    }
    start();
}
