//! The last hour and the last day of the most important numbers, in two rings: a sample every ten
//! seconds, and one every two minutes.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use super::{ConnectRefusal, Counter, DropReason, Metrics, ShardMetrics};
use crate::labels::Label as _;

/// The number of samples of which one goes to the ring of the day.
const DAY_EVERY: u64 = 12;
/// Samples of an hour, and the one before it.
const HOUR_SAMPLES_MAX: usize = 361;
/// Samples of a day, and the one before it.
const DAY_SAMPLES_MAX: usize = 721;

/// The counters, whose growth each second is shown.
const RATES: [&str; 8] = [
    "messages_received",
    "messages_sent",
    "messages_dropped",
    "bytes_received",
    "bytes_sent",
    "connects_accepted",
    "connects_refused",
    "keep_alive_timeouts",
];

/// The values that are shown as they were.
const LEVELS: [&str; 6] = [
    "connections",
    "sessions",
    "subscriptions",
    "queue_messages",
    "retained_messages",
    "publishers_held",
];

/// The span of time that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrendSpan {
    /// The last hour.
    Hour,
    /// The last day.
    Day,
}

/// One number over time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trend {
    /// Its name.
    pub(crate) name: &'static str,
    /// Whether it is a growth per second.
    pub(crate) is_rate: bool,
    /// Its value at each time.
    pub(crate) values: Vec<f64>,
}

/// Some numbers over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trends {
    /// The times, in milliseconds since the Unix epoch, oldest first.
    pub(crate) at_millis: Vec<u64>,
    /// The numbers.
    pub(crate) trends: Vec<Trend>,
}

/// Both rings.
#[derive(Debug, Default)]
pub(super) struct TrendSamples(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    taken: u64,
    hour: VecDeque<TrendSample>,
    day: VecDeque<TrendSample>,
}

#[derive(Clone, Copy, Debug)]
struct TrendSample {
    at_millis: u64,
    counts: [u64; RATES.len()],
    levels: [u64; LEVELS.len()],
}

impl TrendSample {
    fn of(metrics: &Metrics, at_millis: u64) -> Self {
        let sum = |of: fn(&ShardMetrics) -> u64| metrics.shards().map(of).sum::<u64>();
        // In the order of `RATES`, whose names go with these positions.
        let counts = [
            sum(|shard| shard.messages_received.iter().map(Counter::value).sum()),
            sum(|shard| shard.messages_sent.iter().map(Counter::value).sum()),
            sum(|shard| {
                let reasons = DropReason::ALL.iter();
                reasons.map(|reason| shard.messages_dropped.of(*reason).value()).sum()
            }),
            sum(|shard| shard.bytes_received.value()),
            sum(|shard| shard.bytes_sent.value()),
            sum(|shard| shard.connects_accepted.value()),
            sum(|shard| {
                let reasons = ConnectRefusal::ALL.iter();
                reasons.map(|reason| shard.connects_refused.of(*reason).value()).sum()
            }),
            sum(|shard| shard.keep_alive_timeouts.value()),
        ];
        let totals = metrics.totals();
        // In the order of `LEVELS`.
        let levels = [
            sum(|shard| shard.connections.value()),
            sum(|shard| shard.sessions.value()),
            totals.subscriptions.value(),
            totals.queue_messages.value() + totals.queue_stored_messages.value(),
            totals.retained_messages.value(),
            sum(|shard| shard.publishers_held.value()),
        ];
        Self { at_millis, counts, levels }
    }
}

impl Rings {
    fn push(&mut self, sample: TrendSample) {
        let push = |ring: &mut VecDeque<_>, max| {
            if ring.len() == max {
                ring.pop_front();
            }
            ring.push_back(sample);
        };
        push(&mut self.hour, HOUR_SAMPLES_MAX);
        if self.taken.is_multiple_of(DAY_EVERY) {
            push(&mut self.day, DAY_SAMPLES_MAX);
        }
        self.taken += 1;
    }
}

impl Metrics {
    /// Takes a sample. Called by one thread, every ten seconds.
    pub(super) fn sample_trends(&self, now_millis: u64) {
        let sample = TrendSample::of(self, now_millis);
        self.trends.0.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
    }

    /// Returns the last hour or day; nothing before the second sample.
    pub(crate) fn trends(&self, span: TrendSpan) -> Trends {
        // Copied, so that the lock is not held while rates are computed.
        let samples: Vec<_> = {
            let rings = self.trends.0.lock().unwrap_or_else(PoisonError::into_inner);
            let ring = match span {
                TrendSpan::Hour => &rings.hour,
                TrendSpan::Day => &rings.day,
            };
            ring.iter().copied().collect()
        };
        let pairs = || samples.iter().zip(samples.iter().skip(1));
        let rates = RATES.iter().enumerate().map(|(number, name)| Trend {
            name,
            is_rate: true,
            values: pairs().map(|(earlier, later)| rate(earlier, later, number)).collect(),
        });
        #[expect(clippy::cast_precision_loss, reason = "it is drawn")]
        let levels = LEVELS.iter().enumerate().map(|(number, name)| Trend {
            name,
            is_rate: false,
            // Without the first sample, so that levels and rates have the same times.
            values: samples.iter().skip(1).map(|sample| sample.levels[number] as f64).collect(),
        });
        Trends {
            at_millis: samples.iter().skip(1).map(|sample| sample.at_millis).collect(),
            trends: rates.chain(levels).collect(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is not an exact number")]
fn rate(earlier: &TrendSample, later: &TrendSample, number: usize) -> f64 {
    let millis = later.at_millis.saturating_sub(earlier.at_millis).max(1);
    let grown = later.counts[number].saturating_sub(earlier.counts[number]);
    (grown as f64 * 1_000.0 / millis as f64 * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(trends: &Trends, name: &str) -> Vec<f64> {
        trends.trends.iter().find(|trend| trend.name == name).unwrap().values.clone()
    }

    #[test]
    fn numbers_are_kept_for_an_hour_and_for_a_day() {
        let metrics = Metrics::new(2);
        metrics.sample_trends(0);
        assert_eq!(metrics.trends(TrendSpan::Hour).at_millis, [0_u64; 0]);
        for sample in 1..=10_000 {
            metrics.shard(0).bytes_sent.add(300);
            metrics.shard(1).bytes_sent.add(100);
            metrics.shard(1).connections.set(sample);
            metrics.sample_trends(sample * 10_000);
        }
        let hour = metrics.trends(TrendSpan::Hour);
        assert_eq!(hour.at_millis.len(), 360);
        assert_eq!(hour.at_millis[0], (10_000 - 359) * 10_000);
        assert_eq!(hour.at_millis.last(), Some(&100_000_000));
        assert!(of(&hour, "bytes_sent").iter().all(|rate| *rate == 40.0));
        assert_eq!(of(&hour, "connections").last(), Some(&10_000.0));
        assert_eq!(of(&hour, "connections").len(), 360);
        let day = metrics.trends(TrendSpan::Day);
        assert_eq!(day.at_millis.len(), 720);
        assert!(day.at_millis.windows(2).all(|pair| pair[1] - pair[0] == 120_000));
        assert!(of(&day, "bytes_sent").iter().all(|rate| *rate == 40.0));
        assert_eq!(day.trends.len(), RATES.len() + LEVELS.len());
    }

    #[test]
    fn a_counter_that_grows_between_two_samples_shows_in_one_value() {
        let metrics = Metrics::new(1);
        metrics.sample_trends(1_000);
        metrics.shard(0).messages_dropped.of(DropReason::QueueFull).add(3);
        metrics.sample_trends(11_000);
        metrics.sample_trends(21_000);
        let trends = metrics.trends(TrendSpan::Hour);
        assert_eq!(of(&trends, "messages_dropped"), [0.3, 0.0]);
        assert_eq!(trends.at_millis, [11_000, 21_000]);
    }
}
