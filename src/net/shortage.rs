//! What happens when the process has no file left for a connection.
//!
//! The bounds on connections are meant to leave files free, but the application or the system may
//! have taken them. A connection that cannot be accepted stays in the kernel's queue, and the
//! listener is ready at once again. So room is made: of the connections before CONNACK one goes; if
//! there is none, a spare file is closed for a moment, and the newcomer is accepted and closed.

use std::{
    fs::File,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::io::Errno;
use tokio::time::Instant;

/// Time between two lines in the log.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Failures to accept of all listeners of one broker.
pub(super) struct Shortage {
    spare: Mutex<Option<File>>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    at: Option<Instant>,
    /// Failures since then.
    untold: u64,
}

impl Shortage {
    pub(super) fn new() -> Self {
        Self { spare: Mutex::new(spare()), told: Mutex::default() }
    }

    /// Tells the log of a failure, unless it was told a moment ago.
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

    /// Does `accept_and_close` with one file more than there are. Returns false if there is no spare
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

/// Whether the process, or the system, has no file left.
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
