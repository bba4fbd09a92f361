//! Notices that the time of a world stands still.
//!
//! Virtual time passes when the thread has nothing to do. A broker that never comes to rest, for example
//! because a timer is due again and again, would stop the test without a word.

use std::{
    process::abort,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use hearthmq_test::beats::Beats;

use crate::say;

/// How long the time of the world may stand still, by a clock that runs slow when the machine does.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Watches a world until it is dropped.
pub(crate) struct Watchdog(Arc<AtomicU64>);

impl Watchdog {
    /// Ends the process, with the seed of the world and the number of the step, if time stands still.
    pub(crate) fn start(seed: u64, clock: &Beats) -> Self {
        let passed = Arc::new(AtomicU64::new(0));
        let (seen, clock) = (Arc::downgrade(&passed), clock.clone());
        thread::spawn(move || {
            let mut last = (0, clock.now());
            while let Some(passed) = seen.upgrade().map(|passed| passed.load(Ordering::Relaxed)) {
                if passed != last.0 {
                    last = (passed, clock.now());
                } else if clock.now().saturating_sub(last.1) > STANDSTILL_MAX {
                    say(&format!("seed {seed}: after {passed} steps the broker never rests"));
                    abort(); // its thread takes no orders any more
                }
                thread::sleep(LOOK_EVERY);
            }
        });
        Self(passed)
    }

    /// Notes that a step was played.
    pub(crate) fn note_step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
