//! The spans of deliveries that have not ended.
//!
//! A subscriber may take its messages late, or never. So one table has the open spans, with a bound in
//! number and in time; a receipt has only the number of its span. The span of a message that still waits
//! when it leaves the table says so.

use std::{collections::BTreeMap, sync::Arc};

use super::{SpanRecord, SpanValue, Tracer, locked, nanos_now};
use crate::{
    metrics::SpanLoss,
    mqtt::{DeliveryStep, DeliveryWatcher},
};

/// Maximum number of open spans; the oldest one gives way to a new one.
const OPEN_MAX: usize = 8_192;
/// How long a span stays open.
const OPEN_NANOS_MAX: u64 = 60_000_000_000;
/// Maximum number of messages that wait with a receipt; further deliveries have no span.
const RECEIPTS_MAX: u32 = 65_536;

/// The spans that have not ended, in the order in which they began.
#[derive(Default)]
pub(super) struct OpenDeliveries {
    spans: BTreeMap<u64, SpanRecord>,
    last_number: u64,
    receipts: u32,
}

/// Ends the span of a delivery.
pub(super) struct DeliveryDraft {
    tracer: Arc<Tracer>,
    number: u64,
}

impl DeliveryDraft {
    /// Opens a span; returns `None` if too many messages wait with a receipt.
    pub(super) fn open(tracer: &Arc<Tracer>, span: SpanRecord) -> Option<Self> {
        let mut open = locked(&tracer.deliveries);
        // Each receipt is an allocation that lives as long as its message waits.
        if open.receipts >= RECEIPTS_MAX {
            drop(open);
            tracer.metrics.lost(SpanLoss::DeliveriesWaiting, 1);
            return None;
        }
        open.receipts += 1;
        open.last_number += 1;
        // Numbers only grow, so the first entry of the map is the oldest.
        let number = open.last_number;
        open.spans.insert(number, span);
        let oldest = if open.spans.len() > OPEN_MAX { open.spans.pop_first() } else { None };
        drop(open);
        // After the lock, because recording takes another one.
        if let Some((_, span)) = oldest {
            tracer.record(end(span, "waiting"));
        }
        Some(Self { tracer: Arc::clone(tracer), number })
    }
}

impl DeliveryWatcher for DeliveryDraft {
    fn note(&self, step: DeliveryStep) {
        let outcome = match step {
            // With QoS 1 and 2 the span goes on until the acknowledgement.
            DeliveryStep::Sent => {
                if let Some(span) = locked(&self.tracer.deliveries).spans.get_mut(&self.number) {
                    span.events.push(("sent", nanos_now()));
                }
                return;
            }
            DeliveryStep::SentUnacknowledged => "sent",
            DeliveryStep::Acknowledged => "acknowledged",
            DeliveryStep::Dropped => "dropped",
            DeliveryStep::Ended => "unacknowledged",
        };
        let span = locked(&self.tracer.deliveries).spans.remove(&self.number);
        // The span may have left the table before.
        if let Some(span) = span {
            self.tracer.record(end(span, outcome));
        }
    }
}

impl Drop for DeliveryDraft {
    fn drop(&mut self) {
        locked(&self.tracer.deliveries).receipts -= 1;
    }
}

impl Tracer {
    /// Ends the spans of deliveries that have been open for too long; all of them if `all`.
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only an exporter needs it"))]
    pub(crate) fn end_old_deliveries(&self, all: bool) {
        let now = nanos_now();
        loop {
            let mut open = locked(&self.deliveries);
            let Some(first) = open.spans.first_entry() else { return };
            if !all && now.saturating_sub(first.get().began) < OPEN_NANOS_MAX {
                return;
            }
            let span = first.remove();
            drop(open);
            self.record(end(span, "waiting"));
        }
    }
}

/// Ends a span now.
fn end(mut span: SpanRecord, outcome: &'static str) -> SpanRecord {
    span.ended = nanos_now();
    span.attributes.push(("hearthmq.outcome", SpanValue::from(outcome)));
    span.failed = (outcome == "dropped").then_some("the message was dropped");
    span
}
