//! A clock that runs slow when the machine does, for tests that limit how late something may be.
//!
//! A thread of the test's own process sleeps and counts. While the machine is too busy to wake it,
//! it counts less, just as the program under test can do less; while the machine stands still, so
//! does the clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

/// How long the thread sleeps for each beat.
const BEAT: Duration = Duration::from_millis(10);

/// Time since its start, as far as the machine kept up. Clones are the same clock.
#[derive(Clone)]
pub struct Beats(Arc<AtomicU32>);

impl Beats {
    pub fn start() -> Self {
        let beats = Arc::new(AtomicU32::new(0));
        let counted = Arc::downgrade(&beats);
        thread::spawn(move || {
            while let Some(beats) = counted.upgrade() {
                beats.fetch_add(1, Ordering::Relaxed);
                drop(beats);
                thread::sleep(BEAT);
            }
        });
        Self(beats)
    }

    pub fn now(&self) -> Duration {
        BEAT * self.0.load(Ordering::Relaxed)
    }
}
