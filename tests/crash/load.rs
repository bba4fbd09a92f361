//! How heavy the load of a round is: light enough for every run of the tests, or what the environment
//! says.
//!
//! ```text
//! HEARTHMQ_CRASH_SESSIONS=60            this many more durable subscribers, which come and go
//! HEARTHMQ_CRASH_FILLING=20000          each message is this many bytes longer
//! HEARTHMQ_CRASH_ACKNOWLEDGED=20000     the broker is ended after at most this number of acknowledgements
//! ```

use std::time::Duration;

use crate::number;

/// Maximum number of acknowledgements before the broker is ended, in an ordinary round.
const ACKNOWLEDGED_MAX: u64 = 1200;
/// How long as many take at most: a slower broker is ended then.
const TIME_MAX: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Number of durable subscribers beside those of an ordinary round.
    pub(crate) sessions: usize,
    /// Number of bytes by which each message is longer than in an ordinary round.
    pub(crate) filling: usize,
    /// Maximum number of acknowledgements before the broker is ended.
    pub(crate) acknowledged_max: u64,
}

impl Load {
    pub(crate) fn of_environment() -> Self {
        let size = |name| number(name).unwrap_or(0) as usize;
        Self {
            sessions: size("HEARTHMQ_CRASH_SESSIONS"),
            filling: size("HEARTHMQ_CRASH_FILLING"),
            acknowledged_max: number("HEARTHMQ_CRASH_ACKNOWLEDGED").unwrap_or(ACKNOWLEDGED_MAX),
        }
    }

    /// Returns whether a round needs the whole machine.
    pub(crate) const fn is_heavy(&self) -> bool {
        self.sessions > 0 || self.filling > 0
    }

    /// Returns how long the load lasts at most before the broker is ended.
    pub(crate) fn time_max(&self) -> Duration {
        TIME_MAX * (self.acknowledged_max / ACKNOWLEDGED_MAX).max(1) as u32
    }
}
