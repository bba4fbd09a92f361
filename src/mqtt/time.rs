//! A point in time as the pure layers see it. They are told what time it is and never ask.

use std::time::Duration;

/// Milliseconds since the Unix epoch, counted on by a monotonic clock from the broker's start.
///
/// Being monotonic, it never goes back while the broker runs; being anchored at the wall clock,
/// it can be shown to people and survive a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// A time that is never reached.
    pub const NEVER: Self = Self(u64::MAX);

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// This time and `millis` milliseconds; stays at [`Timestamp::NEVER`] on overflow.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// This time and `secs` seconds; stays at [`Timestamp::NEVER`] on overflow.
    #[must_use]
    pub const fn plus_secs(self, secs: u64) -> Self {
        self.plus_millis(secs.saturating_mul(1000))
    }

    /// The time that has passed since `earlier`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
