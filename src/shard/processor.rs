//! The time that the operating system gives to other threads while a turn is under way.
//!
//! An interrupted turn takes longer by the clock, although the shard does no more work. A turn that waits for the
//! disk also uses little processor time, but it does delay its clients. So two numbers of the thread are compared with
//! their values shortly before the turn: its processor time, and the time for which it was ready to run and did not
//! run. Reading them costs system calls, so they are read at the beginning of a turn only if the last reading is old.
//! Knows no shard.

#[cfg(target_os = "linux")]
use std::{cell::OnceCell, fs::File, os::unix::fs::FileExt as _};

use std::cell::Cell;

use quanta::Clock;

/// Only longer turns are examined.
pub(in crate::shard) const EXAMINED_ABOVE_NANOS: u64 = 1_000_000;
/// The minimum time between two readings of the processor time, which cost less than a thousandth of a processor. The
/// processor time of a turn may be overestimated by as much.
const READ_EVERY_NANOS: u64 = 250_000;
/// The minimum time between two readings of the file with the waiting time, which cost more. The waiting time is only
/// an upper bound of the interruption.
const READ_FILE_EVERY_NANOS: u64 = 100_000_000;

/// The times of the shard's thread at its last readings.
#[derive(Default)]
pub(in crate::shard) struct ProcessorTime {
    /// [`READ_EVERY_NANOS`] in ticks of the clock.
    read_every_ticks: u64,
    /// When the processor time was read, in ticks; the file was read at `file_read_at`.
    read_at: Cell<u64>,
    file_read_at: Cell<u64>,
    used_nanos: Cell<u64>,
    waited_nanos: Cell<u64>,
    #[cfg(target_os = "linux")]
    file: OnceCell<Option<File>>,
}

impl ProcessorTime {
    /// Prepares for turns that are measured by this clock.
    pub(in crate::shard) fn new(clock: &Clock) -> Self {
        let ticks = 1 << 30;
        let nanos = clock.delta_as_nanos(0, ticks).max(1);
        Self { read_every_ticks: READ_EVERY_NANOS.saturating_mul(ticks) / nanos, ..Self::default() }
    }

    /// Reads the times of the thread, if the last reading is old.
    #[inline]
    pub(in crate::shard) fn turn_begins(&self, now: u64, clock: &Clock) {
        if now.wrapping_sub(self.read_at.get()) > self.read_every_ticks {
            self.read(now, clock);
        }
    }

    #[cold]
    fn read(&self, now: u64, clock: &Clock) {
        self.read_at.set(now);
        self.used_nanos.set(thread_nanos().unwrap_or(0));
        if clock.delta_as_nanos(self.file_read_at.get(), now) > READ_FILE_EVERY_NANOS {
            self.file_read_at.set(now);
            self.waited_nanos.set(self.waited().unwrap_or(0));
        }
    }

    /// Returns how much of a turn that ends now other threads had the processor; 0 if it is not known.
    #[cold]
    pub(in crate::shard) fn interrupted(&self, took_nanos: u64) -> u64 {
        let (Some(used), Some(waited)) = (thread_nanos(), self.waited()) else { return 0 };
        let used = used.saturating_sub(self.used_nanos.get());
        let waited = waited.saturating_sub(self.waited_nanos.get());
        interruption(took_nanos, used, waited)
    }

    /// Returns the time for which the thread was ready to run and did not run, since its start.
    #[cfg(target_os = "linux")]
    fn waited(&self) -> Option<u64> {
        let open = || File::open("/proc/thread-self/schedstat").ok();
        let file = self.file.get_or_init(open).as_ref()?;
        let mut bytes = [0; 96];
        let read = file.read_at(&mut bytes, 0).ok()?;
        // The fields are the processor time, the waiting time, and the number of time slices.
        str::from_utf8(&bytes[..read]).ok()?.split(' ').nth(1)?.parse().ok()
    }

    #[cfg(not(target_os = "linux"))]
    const fn waited(&self) -> Option<u64> {
        None
    }
}

/// Returns the time of a turn in which other threads had the processor: at most the time that the shard did not use,
/// and at most its waiting time. The rest belongs to the turn, also if the thread waited for the disk.
fn interruption(took_nanos: u64, used_nanos: u64, waited_nanos: u64) -> u64 {
    took_nanos.saturating_sub(used_nanos).min(waited_nanos)
}

/// Returns the processor time of this thread.
#[cfg(target_os = "linux")]
fn thread_nanos() -> Option<u64> {
    // By way of the C library: rustix reads the kernel's clock page itself, which ends a program under valgrind.
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
    let (secs, nanos) = (u64::try_from(time.tv_sec()).ok()?, u64::try_from(time.tv_nsec()).ok()?);
    Some(secs * 1_000_000_000 + nanos)
}

#[cfg(not(target_os = "linux"))]
const fn thread_nanos() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_the_queue_for_the_processor_is_an_interruption() {
        for (took, used, waited, interrupted) in [
            (5_000, 1_000, 4_000, 4_000), // interrupted
            (5_000, 100, 0, 0),           // waited for the disk
            (5_000, 1_000, 1_500, 1_500), // both
            (5_000, 5_000, 90_000, 0),    // worked; it had waited before
            (2_000, 2_200, 1_000, 0),     // some of the work was before the turn
        ] {
            assert_eq!(interruption(took, used, waited), interrupted, "{took} {used} {waited}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_thread_has_used_is_read_when_a_turn_begins() {
        let clock = Clock::new();
        let processor = ProcessorTime::new(&clock);
        processor.turn_begins(clock.raw(), &clock);
        assert!(processor.used_nanos.get() > 0);
        assert!(processor.waited().is_some(), "the kernel counts it");
        let (began, used) = (std::time::Instant::now(), processor.used_nanos.get());
        while thread_nanos().is_some_and(|now| now < used + EXAMINED_ABOVE_NANOS) {}
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        assert!(
            processor.interrupted(took) <= took.saturating_sub(EXAMINED_ABOVE_NANOS),
            "it works"
        );
        processor.turn_begins(clock.raw(), &clock);
        assert!(processor.used_nanos.get() > used, "it is read again for a later turn");
    }
}
