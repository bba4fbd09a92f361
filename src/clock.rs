//! The one place that reads a clock for the data path.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::mqtt::Timestamp;

/// Counts milliseconds since the Unix epoch by the runtime's monotonic clock, so that tests can
/// pause it and the wall clock may jump as it likes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_unix_millis: u64,
}

impl Clock {
    /// Starts a clock from the wall clock's time, but not before `earlier`, where an earlier run has
    /// ended: so nothing ends later because the wall clock has gone back.
    #[must_use]
    pub(crate) fn start_after(earlier: Timestamp) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_unix_millis = (unix.as_millis() as u64).max(earlier.millis());
        Self { started: Instant::now(), started_unix_millis }
    }

    /// Returns when the clock was started.
    pub(crate) const fn started(&self) -> Timestamp {
        Timestamp(self.started_unix_millis)
    }

    /// Now.
    #[must_use]
    pub(crate) fn now(&self) -> Timestamp {
        let passed = Instant::now().saturating_duration_since(self.started);
        Timestamp(self.started_unix_millis).plus_millis(passed.as_millis() as u64)
    }
}
