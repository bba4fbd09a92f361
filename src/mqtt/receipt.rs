//! Reports the outcome of the deliveries of a message, for a call that waits for it, or for a trace.
//!
//! Each delivery of such a message has a [`Receipt`], which goes with the message through queues and
//! windows, and for a shared subscription to other members. It reports to the log of the shard that
//! made it, and the shard sends the reports to the shard where the call waits; or to a watcher. A
//! receipt that is dropped reports that as well. So nothing is forgotten, whatever ends a delivery:
//! the session has ended, or the message has expired, is too large, or gave way to others. Knows no
//! session and no shard.

use std::{
    fmt, mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
};

use super::Timestamp;

/// A call that waits for deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReceiptCall {
    /// The number of the shard where it waits.
    pub(crate) shard: u16,
    /// Its number there, never reused.
    pub(crate) number: u64,
    /// When it ends.
    pub(crate) until: Timestamp,
}

/// The outcomes of deliveries, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeliveryCounts {
    /// Those that were sent to their clients.
    pub(crate) delivered: u32,
    /// Those that the clients have acknowledged.
    pub(crate) acknowledged: u32,
    /// Those that were never sent and will not be.
    pub(crate) dropped: u32,
    /// Those that were sent, and that no acknowledgement can follow any more.
    pub(crate) ended: u32,
}

impl DeliveryCounts {
    /// Adds the counts that were reported since.
    pub(crate) const fn add(&mut self, since: Self) {
        self.delivered += since.delivered;
        self.acknowledged += since.acknowledged;
        self.dropped += since.dropped;
        self.ended += since.ended;
    }
}

/// The reports of one shard that are not sent yet.
#[derive(Default)]
pub(crate) struct ReceiptLog {
    has_some: AtomicBool,
    reports: Mutex<Vec<(ReceiptCall, DeliveryCounts)>>,
}

impl ReceiptLog {
    /// Notes outcomes of deliveries.
    pub(crate) fn note(&self, call: ReceiptCall, since: DeliveryCounts) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        match reports.last_mut() {
            Some((last, progress)) if *last == call => progress.add(since),
            _ => reports.push((call, since)),
        }
        self.has_some.store(true, Relaxed);
    }

    /// Returns whether there are reports.
    #[inline]
    pub(crate) fn has_some(&self) -> bool {
        self.has_some.load(Relaxed)
    }

    /// Returns the reports since the last time.
    pub(crate) fn take(&self) -> Vec<(ReceiptCall, DeliveryCounts)> {
        if !self.has_some() {
            return Vec::new();
        }
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_some.store(false, Relaxed);
        mem::take(&mut *reports)
    }
}

/// A step of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryStep {
    /// The message was sent; an acknowledgement may follow.
    Sent,
    /// The message was sent with QoS 0.
    SentUnacknowledged,
    /// The client has acknowledged the message.
    Acknowledged,
    /// The message was never sent and will not be.
    Dropped,
    /// The message was sent, and no acknowledgement can follow any more.
    Ended,
}

impl DeliveryStep {
    const fn counts(self) -> DeliveryCounts {
        let mut counts = DeliveryCounts { delivered: 0, acknowledged: 0, dropped: 0, ended: 0 };
        match self {
            Self::Sent => counts.delivered = 1,
            Self::SentUnacknowledged => (counts.delivered, counts.ended) = (1, 1),
            Self::Acknowledged => counts.acknowledged = 1,
            Self::Dropped => counts.dropped = 1,
            Self::Ended => counts.ended = 1,
        }
        counts
    }
}

/// Is told each step of one delivery.
pub(crate) trait DeliveryWatcher: Send + Sync {
    /// Takes the next step.
    fn note(&self, step: DeliveryStep);
}

/// The state of one delivery.
///
/// ```text
/// WAITING ── sent ──► SENT ── acknowledged ──► DONE
///    │                  └─ dropped ──► ended
///    ├─ sent with QoS 0 ──► DONE
///    └─ dropped
/// ```
const WAITING: u8 = 0;
const SENT: u8 = 1;
const DONE: u8 = 2;

/// Reports the outcome of one delivery.
pub(crate) struct Receipt {
    reports_to: ReportsTo,
    state: AtomicU8,
}

/// Where the reports of a receipt go.
enum ReportsTo {
    Call(ReceiptCall, Arc<ReceiptLog>),
    /// A watcher, which is told until this time.
    Watcher(Box<dyn DeliveryWatcher>, Timestamp),
}

impl Receipt {
    pub(crate) fn new(call: ReceiptCall, log: &Arc<ReceiptLog>) -> Self {
        let reports_to = ReportsTo::Call(call, Arc::clone(log));
        Self { reports_to, state: AtomicU8::new(WAITING) }
    }

    /// Returns a receipt that reports to a watcher.
    pub(crate) fn watched(watcher: Box<dyn DeliveryWatcher>, until: Timestamp) -> Self {
        Self { reports_to: ReportsTo::Watcher(watcher, until), state: AtomicU8::new(WAITING) }
    }

    /// Returns from when on nothing needs the receipt.
    pub(crate) const fn until(&self) -> Timestamp {
        match &self.reports_to {
            ReportsTo::Call(call, _) => call.until,
            ReportsTo::Watcher(_, until) => *until,
        }
    }

    /// Notes that the message was sent; with QoS 0, that is the end of the delivery.
    pub(crate) fn sent(&self, has_qos_0: bool) {
        let (next, step) = match has_qos_0 {
            true => (DONE, DeliveryStep::SentUnacknowledged),
            false => (SENT, DeliveryStep::Sent),
        };
        if self.state.compare_exchange(WAITING, next, Relaxed, Relaxed).is_ok() {
            self.report(step);
        }
    }

    /// Notes that the client has acknowledged the message.
    pub(crate) fn acknowledged(&self) {
        if self.state.swap(DONE, Relaxed) == SENT {
            self.report(DeliveryStep::Acknowledged);
        }
    }

    fn report(&self, step: DeliveryStep) {
        match &self.reports_to {
            ReportsTo::Call(call, log) => log.note(*call, step.counts()),
            ReportsTo::Watcher(watcher, _) => watcher.note(step),
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        match *self.state.get_mut() {
            WAITING => self.report(DeliveryStep::Dropped),
            SENT => self.report(DeliveryStep::Ended),
            _ => {}
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("until", &self.until()).finish_non_exhaustive()
    }
}

/// The receipt that a message has, if any. It is not part of the message's content.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnReceipt(pub(super) Option<Arc<Receipt>>);

impl PartialEq for OwnReceipt {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for OwnReceipt {}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> ReceiptCall {
        ReceiptCall { shard: 0, number: 7, until: Timestamp(1) }
    }

    fn progress(log: &ReceiptLog) -> [u32; 4] {
        let mut sum = DeliveryCounts::default();
        log.take().into_iter().for_each(|(_, since)| sum.add(since));
        [sum.delivered, sum.acknowledged, sum.dropped, sum.ended]
    }

    #[test]
    fn a_delivery_ends_once_in_one_way() {
        let log = Arc::new(ReceiptLog::default());
        let receipt = || Receipt::new(call(), &log);
        drop(receipt());
        assert_eq!(progress(&log), [0, 0, 1, 0]);
        let sent = receipt();
        sent.sent(false);
        sent.sent(false);
        assert_eq!(progress(&log), [1, 0, 0, 0]);
        drop(sent);
        assert_eq!(progress(&log), [0, 0, 0, 1]);
        let acknowledged = receipt();
        acknowledged.sent(false);
        acknowledged.acknowledged();
        acknowledged.acknowledged();
        drop(acknowledged);
        assert_eq!(progress(&log), [1, 1, 0, 0]);
        receipt().sent(true);
        assert_eq!(progress(&log), [1, 0, 0, 1], "QoS 0");
        assert!(log.take().is_empty());
    }

    #[test]
    fn a_watcher_learns_each_step() {
        #[derive(Clone, Default)]
        struct Seen(Arc<Mutex<Vec<DeliveryStep>>>);
        impl DeliveryWatcher for Seen {
            fn note(&self, step: DeliveryStep) {
                self.0.lock().expect("no panic").push(step);
            }
        }
        let seen = Seen::default();
        let receipt = || Receipt::watched(Box::new(seen.clone()), Timestamp(9));
        assert_eq!(receipt().until(), Timestamp(9));
        let acknowledged = receipt();
        acknowledged.sent(false);
        acknowledged.acknowledged();
        drop(acknowledged);
        receipt().sent(true);
        let steps = seen.0.lock().expect("no panic").clone();
        let expected = [
            DeliveryStep::Dropped,
            DeliveryStep::Sent,
            DeliveryStep::Acknowledged,
            DeliveryStep::SentUnacknowledged,
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn reports_of_one_call_in_a_row_are_one() {
        let log = Arc::new(ReceiptLog::default());
        (0..3).for_each(|_| Receipt::new(call(), &log).sent(true));
        assert_eq!(log.take().len(), 1);
    }
}
