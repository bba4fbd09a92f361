//! How long the turns of a shard take.

use std::{fmt, time::Duration};

use prometheus_client::{encoding::NoLabelSet, metrics::MetricType, registry::Unit};

use super::{cells::Counter, encode::TextWriter};

/// Upper bounds of the buckets in microseconds. A turn should take less than a millisecond.
const BUCKETS_MICROS: [u64; 12] =
    [10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// The numbers and times of the turns of one shard, written by its thread.
#[derive(Debug, Default)]
pub struct TurnTimes {
    /// Turns by position in [`BUCKETS_MICROS`], not cumulative; the last has all longer turns.
    buckets: [Counter; BUCKETS_MICROS.len() + 1],
    nanos: Counter,
    interrupted_nanos: Counter,
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

    /// Counts a turn during which the operating system ran other threads for a part of its time.
    pub(crate) fn note_interrupted(&self, nanos: u64, interrupted_nanos: u64) {
        self.interrupted_nanos.add(interrupted_nanos);
        self.note(nanos.saturating_sub(interrupted_nanos));
    }

    /// Returns the number of turns that took longer than `micros`, which is one of the upper bounds
    /// of the buckets: 10, 50, 100, 250, 500, 1,000, 2,500, 5,000, 10,000, 50,000, 250,000 or
    /// 1,000,000. Time that the operating system gave to other threads is not counted in turns above
    /// a millisecond.
    #[must_use]
    pub fn longer_than(&self, micros: u64) -> u64 {
        let at = BUCKETS_MICROS.partition_point(|bound| *bound <= micros);
        self.buckets[at..].iter().map(Counter::value).sum()
    }

    /// Returns the time that the operating system gave to other threads during turns above a
    /// millisecond.
    #[must_use]
    pub fn interrupted(&self) -> Duration {
        Duration::from_nanos(self.interrupted_nanos.value())
    }

    /// Adds the turns to a sum in seconds, and to the upper bounds and numbers of buckets.
    fn add_to(&self, seconds: &mut f64, buckets: &mut [(f64, u64)]) {
        #[expect(clippy::cast_precision_loss, reason = "the sum of a month is exact to 1 µs")]
        let more = self.nanos.value() as f64 / 1e9;
        *seconds += more;
        for (bucket, turns) in buckets.iter_mut().zip(&self.buckets) {
            bucket.1 += turns.value();
        }
    }

    /// Returns empty buckets with their upper bounds in seconds.
    fn empty_buckets() -> Vec<(f64, u64)> {
        #[expect(clippy::cast_precision_loss, reason = "the bounds are below 2^52")]
        let bounds = BUCKETS_MICROS.iter().map(|micros| (*micros as f64 / 1e6, 0));
        bounds.chain([(f64::INFINITY, 0)]).collect()
    }
}

impl TextWriter<'_, '_> {
    pub(super) fn turns(&mut self) -> fmt::Result {
        let (mut seconds, mut buckets) = (0.0, TurnTimes::empty_buckets());
        // One histogram for all shards: labels for each would multiply the series.
        self.shards.iter().for_each(|shard| shard.turns.add_to(&mut seconds, &mut buckets));
        let count = buckets.iter().map(|(_, turns)| turns).sum();
        let mut encoder = self.encoder.encode_descriptor(
            "turn_duration",
            "Time that a shard takes for one piece of work, while all its other clients wait",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        encoder.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)?;
        let interrupted: Duration = self.shards.iter().map(|shard| shard.turns.interrupted()).sum();
        let mut encoder = self.encoder.encode_descriptor(
            "turn_interrupted",
            "Time within pieces of work above a millisecond in which other threads had the processor",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        encoder.encode_counter::<NoLabelSet, f64, u64>(&interrupted.as_secs_f64(), None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::metrics::Metrics;

    #[test]
    fn turns_of_all_shards_are_in_one_histogram() {
        let metrics = Arc::new(Metrics::new(2));
        metrics.shard(0).turns.note(10_000);
        metrics.shard(0).turns.note(10_001);
        metrics.shard(1).turns.note_interrupted(2_000_000_000, 500_000_000);
        assert_eq!(metrics.shard(0).turns.longer_than(10), 1);
        assert_eq!(metrics.shard(1).turns.longer_than(1_000_000), 1);
        metrics.shard(1).turns.note_interrupted(2_000_000, 1_500_000);
        assert_eq!(metrics.shard(1).turns.longer_than(500), 1, "one was only interrupted");
        let text = metrics.encode();
        for line in [
            "hearthmq_turn_duration_seconds_bucket{le=\"0.00001\"} 1",
            "hearthmq_turn_duration_seconds_bucket{le=\"0.00005\"} 2",
            "hearthmq_turn_duration_seconds_bucket{le=\"1.0\"} 3",
            "hearthmq_turn_duration_seconds_bucket{le=\"+Inf\"} 4",
            "hearthmq_turn_duration_seconds_count 4",
            "hearthmq_turn_interrupted_seconds_total 0.5015",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
