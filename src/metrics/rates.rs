//! Rates of the most important counters over the last 10 and 60 seconds.
//!
//! A shard takes a sample of the counters every ten seconds; a rate is the difference of two samples. So a
//! caller sees the same rates, however often it and others ask.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{DropReason, Metrics, ShardMetrics};
use crate::labels::Label as _;

/// Milliseconds between two samples.
const SAMPLE_MILLIS: u64 = 10_000;
/// The number of samples: the first and the last are a minute apart.
const SAMPLES_MAX: usize = 7;

/// The counters, by their names in `/metrics`.
const NAMES: [&str; 6] = [
    "hearthmq_connects_accepted_total",
    "hearthmq_messages_received_total",
    "hearthmq_messages_sent_total",
    "hearthmq_messages_dropped_total",
    "hearthmq_bytes_received_total",
    "hearthmq_bytes_sent_total",
];

/// The rate of a counter, per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CounterRate {
    /// Its name in `/metrics`.
    pub(crate) name: &'static str,
    /// The rate over the last ten seconds.
    pub(crate) per_sec_10s: f64,
    /// The rate over the last minute, or since the start.
    pub(crate) per_sec_60s: f64,
}

/// The last samples.
#[derive(Debug, Default)]
pub(super) struct RateSamples {
    due_at: AtomicU64,
    samples: Mutex<VecDeque<RateSample>>,
}

#[derive(Clone, Copy, Debug)]
struct RateSample {
    at_millis: u64,
    counts: [u64; NAMES.len()],
}

impl RateSample {
    fn of(metrics: &Metrics, at_millis: u64) -> Self {
        let sum = |of: fn(&ShardMetrics) -> u64| metrics.shards().map(of).sum::<u64>();
        let counts = [
            sum(|shard| shard.connects_accepted.value()),
            sum(|shard| shard.messages_received.iter().map(|qos| qos.value()).sum()),
            sum(|shard| shard.messages_sent.iter().map(|qos| qos.value()).sum()),
            sum(|shard| {
                let reasons = DropReason::ALL.iter();
                reasons.map(|reason| shard.messages_dropped.of(*reason).value()).sum()
            }),
            sum(|shard| shard.bytes_received.value()),
            sum(|shard| shard.bytes_sent.value()),
        ];
        Self { at_millis, counts }
    }

    /// Returns how much a counter has grown each second since an earlier sample.
    #[expect(clippy::cast_precision_loss, reason = "a rate is not an exact number")]
    fn rate_since(&self, earlier: &Self, counter: usize) -> f64 {
        let millis = self.at_millis.saturating_sub(earlier.at_millis).max(1);
        let grown = self.counts[counter].saturating_sub(earlier.counts[counter]);
        (grown as f64 * 1_000.0 / millis as f64 * 100.0).round() / 100.0
    }
}

impl Metrics {
    /// Takes a sample, if one is due. Called by one thread.
    pub(crate) fn sample_rates(&self, now_millis: u64) {
        if now_millis < self.rates.due_at.load(Relaxed) {
            return;
        }
        self.rates.due_at.store(now_millis + SAMPLE_MILLIS, Relaxed);
        let sample = RateSample::of(self, now_millis);
        let mut samples = self.rates.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
        drop(samples);
        self.sample_trends(now_millis);
    }

    /// Returns the rates; none in the first ten seconds.
    pub(crate) fn rates(&self) -> Vec<CounterRate> {
        let samples = self.rates.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first), Some(last)) = (samples.front(), samples.back()) else {
            return Vec::new();
        };
        // Two samples are needed for a difference.
        let Some(before) = samples.len().checked_sub(2).map(|at| samples[at]) else {
            return Vec::new();
        };
        let rates = NAMES.iter().enumerate().map(|(counter, name)| CounterRate {
            name,
            per_sec_10s: last.rate_since(&before, counter),
            per_sec_60s: last.rate_since(first, counter),
        });
        rates.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_ten_seconds_and_of_the_last_minute() {
        let metrics = Metrics::new(2);
        let received = || metrics.rates().into_iter().find(|rate| rate.name == NAMES[4]);
        let rates = |rate: CounterRate| (rate.per_sec_10s, rate.per_sec_60s);
        metrics.sample_rates(1_000);
        assert_eq!(received(), None, "there is one sample");
        for second in 1..=60 {
            metrics.shard(0).bytes_received.add(300);
            metrics.shard(1).bytes_received.add(if second > 50 { 700 } else { 100 });
            metrics.sample_rates(1_000 + second * 1_000);
            let expected = match second {
                1..10 => None,
                10..60 => Some((400.0, 400.0)),
                _ => Some((1_000.0, 500.0)),
            };
            assert_eq!(received().map(rates), expected, "{second}");
        }
        // The first minute is forgotten.
        for second in 61..=120 {
            metrics.sample_rates(1_000 + second * 1_000);
        }
        assert_eq!(received().map(rates), Some((0.0, 0.0)));
    }
}
