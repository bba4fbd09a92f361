//! Metrics of the sources of identities. The chain of authenticators counts; this module only names
//! the numbers.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{encoding::NoLabelSet, metrics::MetricType, registry::Unit};

use super::{Metrics, encode::TextWriter};
use crate::labels::{Label as _, labels};

/// Upper bounds of the buckets in microseconds: from a token that is checked in memory, over a password
/// hash, to a service that is slow.
const BUCKETS_MICROS: [u64; 11] =
    [50, 100, 250, 1_000, 5_000, 25_000, 100_000, 500_000, 1_000_000, 2_000_000, 10_000_000];

/// Number of different answers.
const ANSWERS: usize = 4;

labels! {
    /// The answer of a source of identities about a client.
    pub enum SourceAnswer {
        /// The client is admitted.
        Allowed = "allowed",
        /// The client is refused.
        Refused = "refused",
        /// The source does not know the client.
        Passed = "passed",
        /// The source cannot answer now.
        Unavailable = "unavailable",
    }
}

/// The numbers of one source of identities, which any thread may count.
#[non_exhaustive]
pub struct SourceMetrics {
    name: Arc<str>,
    answers: [AtomicU64; ANSWERS],
    /// Answers by position in [`BUCKETS_MICROS`], not cumulative; the last bucket has all later ones.
    buckets: [AtomicU64; BUCKETS_MICROS.len() + 1],
    micros_sum: AtomicU64,
}

impl SourceMetrics {
    /// Creates the metrics of a source.
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            answers: Default::default(),
            buckets: Default::default(),
            micros_sum: AtomicU64::new(0),
        }
    }

    /// Counts an answer that took this time.
    pub(crate) fn note(&self, answer: SourceAnswer, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = BUCKETS_MICROS.iter().position(|bound| micros <= *bound);
        self.buckets[at.unwrap_or(BUCKETS_MICROS.len())].fetch_add(1, Relaxed);
        self.micros_sum.fetch_add(micros, Relaxed);
        self.answers[answer as usize].fetch_add(1, Relaxed);
    }

    /// Returns the name of the source.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns how often the source has given this answer.
    #[must_use]
    pub fn answers(&self, answer: SourceAnswer) -> u64 {
        self.answers[answer as usize].load(Relaxed)
    }

    /// Returns the time of all answers.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.micros_sum.load(Relaxed))
    }
}

impl fmt::Debug for SourceMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceMetrics").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Returns the metrics of the sources of identities, in the order in which they are asked; none
    /// without a chain of authenticators.
    #[must_use]
    pub fn sources(&self) -> &[Arc<SourceMetrics>] {
        self.sources.get().map_or(&[], |sources| sources)
    }

    /// Sets the metrics of the sources; only the first call has an effect.
    pub(crate) fn set_sources(&self, sources: Vec<Arc<SourceMetrics>>) {
        drop(self.sources.set(sources.into()));
    }
}

impl TextWriter<'_, '_> {
    pub(super) fn sources(&mut self, metrics: &Metrics) -> fmt::Result {
        let all = metrics.sources();
        // Without sources the families are left out, and a scrape is shorter.
        if all.is_empty() {
            return Ok(());
        }
        let answers: Vec<_> = all
            .iter()
            .flat_map(|one| SourceAnswer::ALL.iter().map(move |answer| (one, *answer)))
            .map(|(one, answer)| {
                let labels =
                    [("source", one.name().to_owned()), ("answer", answer.name().to_owned())];
                (labels, one.answers(answer))
            })
            .collect();
        let help = "Answers of the sources of identities, by source and answer";
        self.family("login_source_answers", help, &answers)?;
        let mut family = self.encoder.encode_descriptor(
            "login_source_duration",
            "Time that a source of identities took for its answer, by source",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for one in all {
            let bounds = BUCKETS_MICROS.iter().map(|micros| Duration::from_micros(*micros));
            // The last bucket has all that is slower; the format requires it.
            let bounds = bounds.map(|bound| bound.as_secs_f64()).chain([f64::INFINITY]);
            let counts = one.buckets.iter().map(|answers| answers.load(Relaxed));
            let buckets: Vec<_> = bounds.zip(counts).collect();
            // The sum of the buckets and not a counter of its own: both are read at one moment.
            let count = buckets.iter().map(|(_, answers)| answers).sum();
            let sum = one.time().as_secs_f64();
            family
                .encode_family(&[("source", one.name())])?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}
