//! No acknowledged message is lost: the program is killed at any moment and restarted on the same
//! data, and clients that follow the standard find what they were promised.
//!
//!     cargo test --test crash                                              # 20 rounds
//!     HEARTHMQ_CRASH_ROUNDS=1000 cargo test --release --test crash -- --nocapture rounds
//!     HEARTHMQ_CRASH_SEED=17 HEARTHMQ_CRASH_ROUNDS=1 …                     # round 17
//!     HEARTHMQ_CRASH_SESSIONS=60 …            # this many more durable subscribers (`load.rs`)
//!     HEARTHMQ_CRASH_REST_ROUNDS=20 …         # of kills in bulk calls, and of kills with a webhook
//!     HEARTHMQ_CRASH_BRIDGE_ROUNDS=20 …       # of kills on both sides of a bridge (`bridges`)
//!
//! Works from outside alone: sockets, signals and the data directory. A program of its own, because
//! its load takes all cores: logins of other tests, which are checked by threads of the lowest
//! priority, would have to wait for it.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::print_stderr,
    reason = "a test that cannot go on fails there, and one that has failed tells how"
)]

mod book;
mod book_notices;
mod bridges;
mod follower;
mod load;
#[path = "../end_to_end/program.rs"]
#[expect(dead_code, reason = "some of it is for other tests")]
mod program;
mod publisher;
mod round;
mod stage;
mod sticky;
mod subscriber;
mod unsynced;
mod webhooks;
mod wire;
mod witness;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use load::Load;
use round::{Report, Trouble, play};

/// Number of rounds unless the environment sets it.
const ROUNDS: u64 = 20;
/// Rounds that run at the same time: a round mostly waits.
const AT_ONCE: usize = 3;
/// Maximum number of faults that are printed for a round.
const FAULTS_TOLD: usize = 12;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// Prevents that tests whose rounds take all of the machine run at the same time.
static HEAVY: Mutex<()> = Mutex::new(());

/// Plays rounds of these seeds with this value of `store.sync`, prints the results, and fails if a
/// promise was broken.
fn rounds(first: u64, count: u64, trouble: Trouble, sync: &str) {
    let load = Load::of_environment();
    let _alone = load.is_heavy().then(|| HEAVY.lock());
    let at_once = if load.is_heavy() { 1 } else { AT_ONCE };
    let next = AtomicU64::new(first);
    let all = Mutex::new((Report::default(), Vec::new()));
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let report = play(seed, trouble, sync, load);
                    let mut all = all.lock().unwrap();
                    tell(seed, &report);
                    if !report.faults.is_empty() {
                        all.1.push(seed);
                    }
                    all.0.add(&report);
                }
            });
        }
    });
    let (sum, failed) = all.into_inner().unwrap();
    let counts = sum.counts;
    eprintln!(
        "{trouble:?}, sync {sync}: {count} rounds, broker ended {} times; {} messages acknowledged, {} delivered, \
         {} lost, {} doubled (QoS 2), {} repeated (QoS 1); longest start {} ms",
        sum.ends,
        counts.acknowledged,
        counts.delivered,
        counts.lost,
        counts.doubled,
        counts.repeated,
        sum.longest_start.as_millis(),
    );
    assert!(failed.is_empty(), "promises were broken in the rounds of seeds {failed:?}, see above");
    // Without any load no promise could be broken.
    assert!(counts.acknowledged > count && counts.delivered > counts.acknowledged, "{counts:?}");
}

fn tell(seed: u64, report: &Report) {
    if report.faults.is_empty() {
        return;
    }
    eprintln!("round {seed}: {} faults; {:?}", report.faults.len(), report.counts);
    report.faults.iter().take(FAULTS_TOLD).for_each(|fault| eprintln!("  {fault}"));
    report.log.iter().for_each(|line| eprintln!("  broker: {line}"));
}

impl Report {
    fn add(&mut self, other: &Self) {
        let (sum, counts) = (&mut self.counts, &other.counts);
        sum.acknowledged += counts.acknowledged;
        sum.delivered += counts.delivered;
        sum.lost += counts.lost;
        sum.doubled += counts.doubled;
        sum.repeated += counts.repeated;
        self.ends += other.ends;
        self.longest_start = self.longest_start.max(other.longest_start);
    }
}

#[test]
fn rounds_of_kills_lose_nothing_that_was_acknowledged() {
    let first = number("HEARTHMQ_CRASH_SEED").unwrap_or(1);
    let count = number("HEARTHMQ_CRASH_ROUNDS").unwrap_or(ROUNDS);
    rounds(first, count, Trouble::Kill, "always");
}

/// The end of the process loses nothing that was written, only a power failure does.
#[test]
fn rounds_of_kills_lose_nothing_between_two_syncs() {
    let first = number("HEARTHMQ_CRASH_SEED").unwrap_or(1);
    let count = number("HEARTHMQ_CRASH_ROUNDS").unwrap_or(6);
    rounds(first, count, Trouble::Kill, "interval");
}

/// A kill may lose what was acknowledged shortly before; an end in order loses nothing.
#[test]
fn a_graceful_end_without_syncs_loses_nothing() {
    rounds(1, 3, Trouble::Terminate, "off");
}

#[test]
fn a_graceful_end_keeps_what_a_kill_keeps() {
    rounds(1, 3, Trouble::Terminate, "always");
}

#[test]
fn connections_that_clients_cut_lose_nothing() {
    rounds(1, 6, Trouble::CutConnections, "always");
}
