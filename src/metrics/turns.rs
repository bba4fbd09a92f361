//! How long the turns of a shard take.

use super::cells::Counter;

/// Upper bounds of the buckets in microseconds. A turn should take less than a millisecond.
const BUCKETS_MICROS: [u64; 12] =
    [10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// The numbers and times of the turns of one shard, written by its thread.
#[derive(Debug, Default)]
pub struct TurnTimes {
    /// Turns by position in [`BUCKETS_MICROS`], not cumulative; the last has all longer turns.
    buckets: [Counter; BUCKETS_MICROS.len() + 1],
    nanos: Counter,
}

impl TurnTimes {
    /// Counts a turn that took this time.
    #[inline]
    pub(crate) fn note(&self, nanos: u64) {
        self.nanos.add(nanos);
        if nanos <= BUCKETS_MICROS[0] * 1_000 {
            self.buckets[0].increment();
        } else {
            self.note_longer(nanos);
        }
    }

    #[cold]
    fn note_longer(&self, nanos: u64) {
        let at = BUCKETS_MICROS.iter().position(|micros| nanos <= micros * 1_000);
        self.buckets[at.unwrap_or(BUCKETS_MICROS.len())].increment();
    }

    /// Returns the number of turns that took longer than `micros`, which is one of the upper bounds
    /// of the buckets: 10, 50, 100, 250, 500, 1,000, 2,500, 5,000, 10,000, 50,000, 250,000 or
    /// 1,000,000.
    #[must_use]
    pub fn longer_than(&self, micros: u64) -> u64 {
        let at = BUCKETS_MICROS.partition_point(|bound| *bound <= micros);
        self.buckets[at..].iter().map(Counter::value).sum()
    }

    /// Adds the turns to a sum in seconds, and to the upper bounds and numbers of buckets.
    pub(super) fn add_to(&self, seconds: &mut f64, buckets: &mut [(f64, u64)]) {
        #[expect(clippy::cast_precision_loss, reason = "the sum of a month is exact to 1 µs")]
        let more = self.nanos.value() as f64 / 1e9;
        *seconds += more;
        for (bucket, turns) in buckets.iter_mut().zip(&self.buckets) {
            bucket.1 += turns.value();
        }
    }

    /// Returns empty buckets with their upper bounds in seconds.
    pub(super) fn empty_buckets() -> Vec<(f64, u64)> {
        #[expect(clippy::cast_precision_loss, reason = "the bounds are below 2^52")]
        let bounds = BUCKETS_MICROS.iter().map(|micros| (*micros as f64 / 1e6, 0));
        bounds.chain([(f64::INFINITY, 0)]).collect()
    }
}
