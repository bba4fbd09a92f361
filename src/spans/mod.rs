//! Traces: selects the messages and calls that are traced, and has the spans that wait for their export.
//!
//! ```text
//! shards, HTTP workers ── spans ──▶ queue ──▶ exporter
//!                 deliveries that have not ended ─┘
//! ```
//!
//! The broker traces a message if its publisher requests it by the user property `traceparent` of MQTT 5.0; a call
//! of the REST interface by the header of this name. The queue is bounded: a span that finds no room is
//! dropped and counted, and nobody waits. Knows no protocol by which spans are exported.

mod deliveries;
mod message;
mod parent;
mod record;

use std::{
    collections::VecDeque,
    fmt,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Notify;

use self::deliveries::OpenDeliveries;
pub(crate) use self::{
    message::{MessageTrace, ReceiveSpan, ReceivedMessage},
    parent::{TRACEPARENT, TraceParent},
    record::{SpanKind, SpanRecord, SpanValue, nanos_now},
};
use crate::metrics::{OtlpMetrics, SpanLoss};

/// The spans that are exported at a time.
const BATCH_SPANS: usize = 512;

/// Which messages and calls are traced, and what their spans show.
#[cfg_attr(not(feature = "otlp"), expect(unreachable_pub, reason = "only an exporter needs it"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceOptions {
    /// The share, in percent, of those traces that their callers record.
    pub percent: u8,
    /// Maximum number of messages and calls that are traced in a second.
    pub per_sec_max: NonZeroU32,
    /// Whether spans have the topics of messages.
    pub shows_topics: bool,
    /// Whether spans have the client identifiers of publishers and subscribers.
    pub shows_client_ids: bool,
    /// Maximum number of spans for the deliveries of one message; further deliveries have none.
    pub deliveries_max: u16,
    /// Maximum number of spans that wait to be exported; further ones are dropped.
    pub queue_spans_max: u32,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self {
            percent: 100,
            per_sec_max: NonZeroU32::new(1_000).unwrap_or(NonZeroU32::MIN),
            shows_topics: true,
            shows_client_ids: true,
            deliveries_max: 16,
            queue_spans_max: 8_192,
        }
    }
}

/// Makes spans, and keeps them until they are exported.
pub(crate) struct Tracer {
    options: TraceOptions,
    rate: DefaultDirectRateLimiter,
    ids: SpanIds,
    queue: Mutex<VecDeque<SpanRecord>>,
    deliveries: Mutex<OpenDeliveries>,
    metrics: Arc<OtlpMetrics>,
    /// Notified when a batch is full.
    has_batch: Notify,
}

impl Tracer {
    /// Creates a tracer that counts dropped spans in `metrics`. `seed` is random.
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only an exporter needs it"))]
    pub(crate) fn new(options: TraceOptions, metrics: Arc<OtlpMetrics>, seed: u64) -> Arc<Self> {
        let rate = RateLimiter::direct(Quota::per_second(options.per_sec_max));
        Arc::new(Self {
            options,
            rate,
            ids: SpanIds { seed, last: AtomicU64::new(0) },
            queue: Mutex::default(),
            deliveries: Mutex::default(),
            metrics,
            has_batch: Notify::new(),
        })
    }

    /// Returns the caller's span if the broker traces this message or call.
    pub(crate) fn accept(&self, traceparent: &str) -> Option<TraceParent> {
        let parent = TraceParent::parse(traceparent)?;
        if !parent.is_sampled || !parent.is_within(self.options.percent) {
            return None;
        }
        if self.rate.check().is_err() {
            self.metrics.lost(SpanLoss::Rate, 1);
            return None;
        }
        Some(parent)
    }

    /// Returns the identifier of a new span.
    pub(crate) fn next_id(&self) -> [u8; 8] {
        self.ids.next()
    }

    /// Appends a span to the queue.
    pub(crate) fn record(&self, span: SpanRecord) {
        let mut queue = locked(&self.queue);
        // Nobody waits for the exporter, so a span without room is lost and counted.
        if queue.len() >= self.options.queue_spans_max as usize {
            drop(queue);
            self.metrics.lost(SpanLoss::QueueFull, 1);
            return;
        }
        queue.push_back(span);
        // Once for each batch, and not for each span behind it.
        let has_batch = queue.len() == BATCH_SPANS;
        drop(queue);
        if has_batch {
            self.has_batch.notify_one();
        }
    }

    /// Takes the next spans to export: at most a batch.
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only an exporter needs it"))]
    pub(crate) fn take(&self) -> Vec<SpanRecord> {
        let mut queue = locked(&self.queue);
        let count = queue.len().min(BATCH_SPANS);
        queue.drain(..count).collect()
    }

    /// Returns when a batch is full.
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only an exporter needs it"))]
    pub(crate) async fn full_batch(&self) {
        self.has_batch.notified().await;
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Gives each span of a process another identifier, which looks random.
struct SpanIds {
    seed: u64,
    last: AtomicU64,
}

impl SpanIds {
    fn next(&self) -> [u8; 8] {
        loop {
            let id = mixed(self.seed.wrapping_add(self.last.fetch_add(1, Relaxed)));
            if id != 0 {
                return id.to_be_bytes();
            }
        }
    }
}

/// Maps each number to another one (the finalizer of SplitMix64).
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
