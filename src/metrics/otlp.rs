//! Metrics of the export by OpenTelemetry's protocol. `spans` and `otlp` count; this module only names
//! the numbers.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{Metrics, encode::TextWriter};
use crate::labels::{Label, labels};

labels! {
    /// Why a span was not exported.
    pub enum SpanLoss {
        /// Too many messages and calls were to be traced; they have no spans.
        Rate = "rate",
        /// Too many spans waited to be exported.
        QueueFull = "queue_full",
        /// Too many traced messages waited for their subscribers; the delivery has no span.
        DeliveriesWaiting = "deliveries_waiting",
        /// The collector has not taken the span.
        NotTaken = "not_taken",
    }
}

labels! {
    /// The signals that are exported.
    pub enum OtlpSignal {
        /// The metrics.
        Metrics = "metrics",
        /// The spans.
        Traces = "traces",
    }
}

/// Number of different losses.
const LOSSES: usize = 4;
/// Number of signals.
const SIGNALS: usize = 2;

/// The numbers of the export, which any thread may count.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct OtlpMetrics {
    spans: AtomicU64,
    lost: [AtomicU64; LOSSES],
    failed: [AtomicU64; SIGNALS],
}

#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only an exporter counts these"))]
impl OtlpMetrics {
    /// Counts spans that the collector has taken.
    pub(crate) fn exported(&self, spans: usize) {
        self.spans.fetch_add(spans as u64, Relaxed);
    }

    /// Counts an attempt to export that failed.
    pub(crate) fn failed(&self, signal: OtlpSignal) {
        self.failed[signal.index()].fetch_add(1, Relaxed);
    }
}

impl OtlpMetrics {
    /// Counts spans that are not exported.
    pub(crate) fn lost(&self, why: SpanLoss, spans: usize) {
        self.lost[why.index()].fetch_add(spans as u64, Relaxed);
    }

    /// Returns the number of spans that the collector has taken.
    #[must_use]
    pub fn spans_exported(&self) -> u64 {
        self.spans.load(Relaxed)
    }

    /// Returns how often a span was not exported for this reason.
    #[must_use]
    pub fn spans_lost(&self, why: SpanLoss) -> u64 {
        self.lost[why.index()].load(Relaxed)
    }

    /// Returns the number of attempts to export that failed.
    #[must_use]
    pub fn exports_failed(&self, signal: OtlpSignal) -> u64 {
        self.failed[signal.index()].load(Relaxed)
    }
}

impl Metrics {
    /// Returns the metrics of the export by OpenTelemetry's protocol; `None` if nothing is exported.
    #[must_use]
    pub fn otlp(&self) -> Option<&Arc<OtlpMetrics>> {
        self.otlp.get()
    }

    /// Sets the metrics of the export; only the first call has an effect.
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only an exporter has some"))]
    pub(crate) fn set_otlp(&self, otlp: Arc<OtlpMetrics>) {
        drop(self.otlp.set(otlp));
    }
}

impl TextWriter<'_, '_> {
    pub(super) fn otlp(&mut self, metrics: &Metrics) -> fmt::Result {
        let Some(otlp) = metrics.otlp() else { return Ok(()) };
        let help = "Spans that the collector has taken";
        self.counted("otlp_spans_exported", help, otlp.spans_exported())?;
        let lost: Vec<_> = SpanLoss::ALL
            .iter()
            .map(|why| ([("reason", why.name())], otlp.spans_lost(*why)))
            .collect();
        self.family("otlp_spans_lost", "Spans that were not exported, by reason", &lost)?;
        let failed: Vec<_> = OtlpSignal::ALL
            .iter()
            .map(|signal| ([("signal", signal.name())], otlp.exports_failed(*signal)))
            .collect();
        self.family("otlp_exports_failed", "Attempts to export that failed, by signal", &failed)
    }
}
