//! A simulated world: the whole broker on one thread and on virtual time, clients whose actions
//! come from a seed, and beside them a naive model of MQTT's promises. Now and then the broker is
//! cut off and another one starts on its store, or the store fails for a while.
//!
//! A broker has 1 to 4 shards. The mail between them is delivered in any order that their doors
//! allow, and some of it is held back while another client acts (`cross.rs`).
//!
//! An ordinary run of the tests is short. For a longer one:
//!
//! ```text
//! HEARTHMQ_WORLD_STEPS=1000000 cargo test --release --test world -- --nocapture random
//! HEARTHMQ_WORLD_SEED=17 …    the same run again, or the one that has failed
//! HEARTHMQ_WORLD_SHARDS=3 …   all brokers have 3 shards
//! ```
//!
//! A failing run prints its seed, and the shortest dialogue found that fails in the same way.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect fails"
)]

mod access;
mod asking;
mod client;
#[cfg(feature = "cluster")]
mod cluster;
mod cross;
mod disk;
mod draw;
mod farewell;
mod finish;
mod identity;
mod model;
mod play;
mod power;
mod shrink;
mod steps;
mod stored;
mod tokens;
mod vocabulary;
mod watchdog;
mod watching;
mod world;

use std::{
    cell::Cell,
    collections::BTreeMap,
    env,
    hash::Hasher,
    panic,
    sync::{LazyLock, Once},
    time::Instant,
};

use actix_rt::{System, SystemRunner};
use hearthmq_test::{beats::Beats, line, post};

use self::{
    draw::steps,
    steps::{Planned, Step},
    watchdog::Watchdog,
    world::World,
};

/// Number of steps of one world; then a new one begins.
const STEPS_AT_A_TIME: usize = 1000;
/// Number of steps of an ordinary run.
const STEPS: usize = 8000;

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Returns how often this thread has panicked: a task that panics is dropped silently.
fn panics() -> usize {
    PANICS.get()
}

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
    PANICS.set(0);
}

/// The result of a world.
struct Outcome {
    verdict: model::Verdict,
    played: usize,
    /// Everything that was observed, as one number.
    trace: u64,
    tally: BTreeMap<&'static str, u64>,
    dialogue: Vec<String>,
}

/// Returns a thread whose time advances when it is idle.
fn system() -> SystemRunner {
    count_panics();
    System::with_tokio_rt(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().expect("a runtime can be built")
    })
}

/// Runs a world from start to end.
fn live(seed: u64, steps: &[Planned], tells: bool) -> Outcome {
    static CLOCK: LazyLock<Beats> = LazyLock::new(Beats::start);
    let watchdog = Watchdog::start(seed, &CLOCK);
    system().block_on(async {
        let mut world = World::new(seed, tells).await;
        let mut verdict = Ok(());
        let mut played = 0;
        for step in steps {
            played += 1;
            watchdog.note_step();
            verdict = world.step(step).await;
            if verdict.is_err() {
                break;
            }
        }
        if verdict.is_ok() {
            verdict = world.finish().await;
        }
        Outcome {
            verdict,
            played,
            trace: world.trace.finish(),
            tally: world.tally,
            dialogue: world.dialogue.unwrap_or_default(),
        }
    })
}

#[expect(clippy::print_stderr, reason = "what a long run has done is worth seeing")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Fails, after searching for the shortest dialogue that fails.
fn report(seed: u64, steps: Vec<Planned>, what: &str) -> ! {
    say(&format!("seed {seed}: {what}; looking for less that goes wrong"));
    let is_it = |verdict: model::Verdict| verdict.is_err_and(|other| kind(&other) == kind(what));
    let shortest = shrink::shrink(steps, |steps| is_it(live(seed, steps, false).verdict));
    let outcome = live(seed, &shortest, true);
    for line in &outcome.dialogue {
        say(line);
    }
    panic!("seed {seed}, in {} steps: {:?}", shortest.len(), outcome.verdict);
}

/// Returns the kind of a failure, without its place.
fn kind(what: &str) -> &str {
    what.split([':', '{']).next().unwrap_or_default()
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn random_worlds_are_as_mqtt_promises() {
    let started = Instant::now();
    let count = number("HEARTHMQ_WORLD_STEPS").map_or(STEPS, |count| count as usize);
    let first = number("HEARTHMQ_WORLD_SEED").unwrap_or(1);
    let mut tally = BTreeMap::<&str, u64>::new();
    let worlds = count.div_ceil(STEPS_AT_A_TIME);
    for seed in first..first + worlds as u64 {
        let steps = steps(seed, STEPS_AT_A_TIME.min(count));
        let outcome = live(seed, &steps, false);
        if let Err(what) = outcome.verdict {
            report(seed, steps[..outcome.played].to_vec(), &what);
        }
        for (what, times) in outcome.tally {
            *tally.entry(what).or_default() += times;
        }
    }
    let seconds = started.elapsed().as_secs_f32();
    say(&format!("seeds {first} and on, {worlds} worlds, {count} steps, {seconds:.1} s"));
    for (what, times) in &tally {
        say(&format!("{times:>10}  {what}"));
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 100..103 {
        let steps = steps(seed, 500);
        let (one, other) = (live(seed, &steps, false), live(seed, &steps, false));
        assert_eq!(one.verdict, Ok(()), "seed {seed}");
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!(one.tally, other.tally, "seed {seed}");
    }
}

#[test]
fn a_thread_that_ends_takes_its_connections_with_it_in_peace() {
    let system = system();
    system.block_on(async {
        let mut world = World::new(1, false).await;
        for step in steps(1, 40) {
            assert_eq!(world.step(&step).await, Ok(()));
        }
        assert!((0..vocabulary::NAMES.len()).any(|client| world.model.link(client).is_some()));
    });
    drop(system);
    assert_eq!(panics(), 0);
}

#[test]
fn a_list_that_fails_is_made_as_short_as_it_can_be() {
    let steps = steps(7, 300);
    let is_wait = |planned: &&Planned| matches!(planned.step, Step::Wait { .. });
    let waits = |steps: &[Planned]| steps.iter().filter(is_wait).count();
    assert!(waits(&steps) > 3);
    assert_eq!(shrink::shrink(steps, |steps| waits(steps) >= 2).len(), 2);
}
