//! Handles accept errors when the process has no file descriptor left.
//!
//! The connection limits are meant to leave descriptors free, but the application or the system may
//! have used them. A connection that cannot be accepted stays in the kernel's queue, and the
//! listener becomes ready again immediately, in a busy loop. To break the loop, one connection
//! before CONNACK is evicted; if there is none, a spare file is closed for a moment and the new
//! connection is accepted and closed.

use std::{
    fs::File,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::io::Errno;
use tokio::time::Instant;

/// Minimum time between two log lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Accept failures of all listeners of one broker.
pub(super) struct Shortage {
    spare: Mutex<Option<File>>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    at: Option<Instant>,
    /// Failures since the last log line.
    untold: u64,
}

impl Shortage {
    pub(super) fn new() -> Self {
        Self { spare: Mutex::new(spare()), told: Mutex::default() }
    }

    /// Logs a failure, unless one was logged within `LINE_EVERY`.
    pub(super) fn tell(&self, error: &io::Error) {
        let mut told = lock(&self.told);
        told.untold += 1;
        if told.at.is_some_and(|at| at.elapsed() < LINE_EVERY) {
            return;
        }
        let failures = std::mem::take(&mut told.untold);
        told.at = Some(Instant::now());
        drop(told);
        tracing::warn!(%error, failures, "accept failed");
    }

    /// Calls `accept_and_close` while the spare file is closed. Returns false if there is no spare
    /// file.
    pub(super) fn with_spare_file(&self, accept_and_close: impl FnOnce()) -> bool {
        let mut file = lock(&self.spare);
        let had_one = file.take().is_some();
        if had_one {
            accept_and_close();
        }
        *file = spare();
        had_one
    }
}

/// Returns whether the process or the system has no file descriptor left.
pub(super) fn is_of_files(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
