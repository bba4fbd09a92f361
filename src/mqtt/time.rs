//! A point in time for the pure layers, which get the time as an argument and read no clock.

use std::time::Duration;

/// Milliseconds since the Unix epoch, advanced by a monotonic clock since the broker's start.
///
/// Being monotonic, it never goes back while the broker runs; being based on the wall clock, it can
/// be displayed and survives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// A time that is never reached.
    pub const NEVER: Self = Self(u64::MAX);

    /// Returns the milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Adds `millis` milliseconds; an overflow gives [`Timestamp::NEVER`].
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Adds `secs` seconds; an overflow gives [`Timestamp::NEVER`].
    #[must_use]
    pub const fn plus_secs(self, secs: u64) -> Self {
        self.plus_millis(secs.saturating_mul(1000))
    }

    /// Returns the time since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
