//! The batches that are stored for one endpoint and not acknowledged yet, within bounds.
//!
//! A batch is there once the store has it, and leaves the store after the endpoint has taken it. A
//! backlog that exceeds its bounds is dropped as a whole: a receiver could not apply the rest.
//! The endpoint then gets a `reset`, and after that the collector begins a snapshot. Knows neither
//! HTTP nor where events come from.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::{sync::Notify, time::sleep};

use super::{
    batch::{Assembly, EventBatch},
    options::WebhookBounds,
};
use crate::{
    clock::Clock,
    control::FeedItem,
    metrics::WebhookMetrics,
    mqtt::Timestamp,
    records::{Expected, Put, RecordKey, Records},
};

/// The namespace of the records. Their keys are the name of a webhook, a slash, and a number in 16
/// hexadecimal digits.
pub(super) const NAMESPACE: &str = "webhooks";
/// The time to the next try after the store has not taken a record.
const STORE_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Records that are removed at the same time.
const REMOVED_AT_A_TIME: usize = 1_024;
/// The time to the next log line about events that are left out.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Bytes that a record needs besides its value, about.
const RECORD_OVERHEAD: usize = 256;

/// The batches of one webhook.
pub(super) struct WebhookBacklog {
    name: Arc<str>,
    node: Arc<str>,
    epoch: u64,
    clock: Clock,
    bounds: WebhookBounds,
    records: Arc<dyn Records>,
    metrics: Arc<WebhookMetrics>,
    state: Mutex<State>,
    /// Told when there is something to send.
    arrived: Notify,
    /// Told when the endpoint has taken something.
    taken: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<StoredBatch>,
    /// The events of all of them.
    events: u64,
    bytes: usize,
    /// The number of the next record, and of the next message.
    next_number: u64,
    reset: Option<DueReset>,
    gathering: Gathering,
    /// When it was last logged that events are left out.
    told_at: Option<Timestamp>,
    /// Records that the store has not removed.
    to_remove: Vec<RecordKey>,
}

/// Whether new events are gathered.
///
/// ```text
/// Changes ──cut──▶ Stopped ──reset taken──▶ SnapshotDue ──snapshot begun──▶ Changes
///                     ▲                          │
///                     └───────────cut────────────┘
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Gathering {
    #[default]
    Changes,
    /// Until the endpoint has taken the `reset`.
    Stopped,
    SnapshotDue,
}

/// A stored batch that waits.
struct StoredBatch {
    message_id: String,
    /// The numbers of its records.
    records: Range<u64>,
    events: u64,
    bytes: usize,
    at: Timestamp,
}

/// A `reset` that goes before all stored batches. It is not stored: each start makes one.
#[derive(Clone)]
struct DueReset(EventBatch);

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebhookMessage {
    pub(super) message_id: String,
    pub(super) body: Bytes,
}

impl WebhookBacklog {
    /// Reads the batches that an earlier run has stored for this webhook.
    pub(super) async fn restore(
        (name, node, epoch): (Arc<str>, Arc<str>, u64),
        clock: Clock,
        bounds: WebhookBounds,
        records: Arc<dyn Records>,
        metrics: Arc<WebhookMetrics>,
    ) -> Self {
        let backlog = Self {
            name,
            node,
            epoch,
            clock,
            bounds,
            records,
            metrics,
            state: Mutex::default(),
            arrived: Notify::new(),
            taken: Notify::new(),
        };
        // Before anything is gathered: new records continue the numbers of the stored ones.
        backlog.read_stored().await;
        backlog
    }

    async fn read_stored(&self) {
        let mut assembly = Assembly::default();
        let mut from = None;
        // Keys of one webhook are one range, in the order of their numbers.
        let mut after = format!("{}/", self.name);
        loop {
            // Without a store that can be read the broker would not have started.
            let page = self.records.list(NAMESPACE, Some(&after), REMOVED_AT_A_TIME).await;
            let page = page.unwrap_or_default();
            // The range of the next webhook follows directly.
            let own = page.into_iter().take_while(|(name, _)| owner_of(name) == Some(&self.name));
            let mut found = 0;
            // An empty page is the end, also if other webhooks follow.
            for (name, record) in own {
                found += 1;
                name.key().clone_into(&mut after);
                let mut state = lock(&self.state);
                let Some(number) = number_of(&name) else { continue };
                // A gap in the numbers is a batch that was not stored in full.
                if number != state.next_number
                    && let Some(first) = from.take()
                {
                    // A run ended before it had stored the whole batch.
                    let end = state.next_number;
                    state.forget(&self.name, first..end);
                    assembly = Assembly::default();
                }
                state.next_number = number + 1;
                let first = *from.get_or_insert(number);
                // A large batch consists of several records.
                let Some(body) = assembly.add(&record.value) else { continue };
                from = None;
                // A body that cannot be read would stop the webhook for good.
                match EventBatch::of_body(body) {
                    Some(batch) => state.push(StoredBatch::new(&batch, first..number + 1)),
                    None => state.forget(&self.name, first..number + 1),
                }
            }
            if found == 0 {
                break;
            }
        }
        // The last batch of the former run was not stored in full.
        let mut state = lock(&self.state);
        if let Some(first) = from {
            let end = state.next_number;
            state.forget(&self.name, first..end);
        }
        state.next_number = state.next_number.max(1);
        self.note(&state);
    }

    /// Puts a `reset` before all batches, as the first message of a run.
    pub(super) fn begin_with(&self, reset: &FeedItem) {
        let mut state = lock(&self.state);
        self.set_reset(&mut state, reset);
    }

    fn set_reset(&self, state: &mut State, reset: &FeedItem) {
        let number = state.take_number();
        let items = std::slice::from_ref(reset);
        let batch = EventBatch::new((self.epoch, number), &self.node, items, self.clock.now());
        state.reset = Some(DueReset(batch));
        self.note(state);
        self.arrived.notify_one();
    }

    /// Stores events, and returns once the store has them: only then are they sent.
    pub(super) async fn store(&self, items: &[FeedItem], at: Timestamp) {
        // Records of a cut backlog go first, so that the store has room.
        self.remove_dropped().await;
        let (batch, records) = {
            let mut state = lock(&self.state);
            // Numbers are taken under the lock and never given back, even if the batch is cut.
            let first = state.next_number;
            let batch = EventBatch::new((self.epoch, first), &self.node, items, at);
            state.next_number += batch.values().len() as u64;
            (batch, first..state.next_number)
        };
        let mut puts: Vec<Put> = records
            .clone()
            .zip(batch.values())
            .filter_map(|(number, value)| Some(Put::new(key_of(&self.name, number)?, value)))
            // The records of one batch have consecutive numbers, so that a start finds its parts.
            .collect();
        loop {
            // All of them are in one group of the store, in their order.
            let stored = join_all(puts.iter().map(|put| self.records.put(put.clone()))).await;
            let mut stored = stored.iter();
            // Only what the store has not taken is tried again.
            puts.retain(|_| stored.next().is_none_or(Result::is_err));
            if puts.is_empty() {
                break;
            }
            sleep(STORE_AGAIN_AFTER).await;
        }
        let mut state = lock(&self.state);
        // A cut while the batch was being stored has made it useless.
        if state.gathering == Gathering::Changes {
            state.push(StoredBatch::new(&batch, records));
            self.note(&state);
            self.arrived.notify_one();
        } else {
            // The backlog was cut meanwhile, and the snapshot will be newer than these events.
            self.metrics.cut.add(batch.events);
            state.forget(&self.name, records);
        }
    }

    /// Returns whether the backlog exceeds a bound, so that it must be cut.
    pub(super) fn is_over_bounds(&self) -> bool {
        let state = lock(&self.state);
        let age_max = self.bounds.backlog_age_max;
        let is_old = |first: &StoredBatch| self.clock.now().since(first.at) > age_max;
        state.bytes > self.bounds.backlog_bytes_max || state.waiting.front().is_some_and(is_old)
    }

    /// Drops all batches. The endpoint gets this `reset`, and then a snapshot.
    pub(super) async fn cut(&self, reset: &FeedItem) {
        let dropped = {
            let mut state = lock(&self.state);
            // Set first, so that the collector stops, and nothing is added behind the `reset`.
            state.gathering = Gathering::Stopped;
            let events = state.events;
            while let Some(batch) = state.pop() {
                state.forget(&self.name, batch.records);
            }
            self.set_reset(&mut state, reset);
            self.metrics.cut.add(events);
            events
        };
        // Without the lock, because a log may be slow.
        tracing::warn!(
            webhook = &*self.name,
            dropped,
            "the endpoint of a webhook is too far behind; its events are dropped until it answers"
        );
        self.remove_dropped().await;
    }

    /// Returns whether events are gathered.
    pub(super) fn gathering(&self) -> Gathering {
        lock(&self.state).gathering
    }

    /// Notes that a snapshot begins.
    pub(super) fn begin_snapshot(&self) {
        let mut state = lock(&self.state);
        if state.gathering == Gathering::SnapshotDue {
            state.gathering = Gathering::Changes;
        }
    }

    /// Notes events that are not stored because there are too many of their kind.
    pub(super) fn note_left_out(&self, events: usize) {
        if events == 0 {
            return;
        }
        self.metrics.cut.add(events as u64);
        let now = self.clock.now();
        let mut state = lock(&self.state);
        // Once in a while, because the cause lasts.
        if state.told_at.is_none_or(|at| now.since(at) >= TELL_AGAIN_AFTER) {
            state.told_at = Some(now);
            // The log may be slow, and others need the lock.
            drop(state);
            tracing::warn!(
                webhook = &*self.name,
                "clients subscribe and unsubscribe too often for a webhook; events of subscriptions are left out"
            );
        }
    }

    /// Returns whether there is room for events that matter less than presence, because the endpoint keeps up.
    pub(super) fn has_room_for_less(&self) -> bool {
        lock(&self.state).bytes <= self.bounds.backlog_bytes_max / 2
    }

    /// Waits until the endpoint takes a message, or has taken one since the last call.
    pub(super) async fn taken(&self) {
        self.taken.notified().await;
    }

    /// Waits for a message to send, and returns it.
    pub(super) async fn next(&self) -> WebhookMessage {
        loop {
            match self.first() {
                Some(Ok(outgoing)) => return outgoing,
                Some(Err(records)) => {
                    if let Some(outgoing) = self.read(records).await {
                        return outgoing;
                    }
                    self.drop_unreadable().await;
                }
                None => self.arrived.notified().await,
            }
        }
    }

    /// Returns the first message, or the records of the first batch.
    fn first(&self) -> Option<Result<WebhookMessage, Range<u64>>> {
        let state = lock(&self.state);
        if let Some(DueReset(batch)) = &state.reset {
            let EventBatch { message_id, body, .. } = batch.clone();
            return Some(Ok(WebhookMessage { message_id, body }));
        }
        state.waiting.front().map(|batch| Err(batch.records.clone()))
    }

    async fn read(&self, records: Range<u64>) -> Option<WebhookMessage> {
        let mut assembly = Assembly::default();
        let mut body = None;
        for number in records {
            let record = self.records.get(&key_of(&self.name, number)?).await.ok()??;
            body = assembly.add(&record.value);
        }
        let batch = EventBatch::of_body(body?)?;
        Some(WebhookMessage { message_id: batch.message_id, body: batch.body })
    }

    /// Drops the first batch after another part of the broker has removed it from the records.
    async fn drop_unreadable(&self) {
        {
            let mut state = lock(&self.state);
            let Some(batch) = state.pop() else { return };
            self.metrics.cut.add(batch.events);
            state.forget(&self.name, batch.records);
            self.note(&state);
        }
        tracing::warn!(webhook = &*self.name, "stored events of a webhook cannot be read");
        self.remove_dropped().await;
    }

    /// Notes that the endpoint has taken a message, and removes it from the store.
    pub(super) async fn take(&self, message_id: &str) {
        {
            let mut state = lock(&self.state);
            let is_reset = |reset: &mut DueReset| reset.0.message_id == message_id;
            // The receiver has the `reset`, so a snapshot may follow now.
            if let Some(DueReset(reset)) = state.reset.take_if(is_reset) {
                self.metrics.delivered.add(reset.events);
                if state.gathering == Gathering::Stopped {
                    state.gathering = Gathering::SnapshotDue;
                }
            } else if state.waiting.front().is_some_and(|first| first.message_id == message_id)
                && let Some(batch) = state.pop()
            {
                // The answer may belong to a batch that was cut meanwhile.
                self.metrics.delivered.add(batch.events);
                state.forget(&self.name, batch.records);
            }
            self.note(&state);
        }
        // The collector may wait for room, or for this `reset`.
        self.taken.notify_one();
        self.remove_dropped().await;
    }

    /// Removes events that are not needed any more from the store. Those that cannot be removed now are removed
    /// later; after a crash it is sent again.
    async fn remove_dropped(&self) {
        let mut names = std::mem::take(&mut lock(&self.state).to_remove);
        while !names.is_empty() {
            let some = names.split_off(names.len().saturating_sub(REMOVED_AT_A_TIME));
            let removed = some.iter().map(|name| self.records.remove(name.clone(), Expected::Any));
            let failed = join_all(removed).await.into_iter().zip(some);
            let failed: Vec<_> =
                failed.filter(|(removed, _)| removed.is_err()).map(|(_, name)| name).collect();
            if !failed.is_empty() {
                let mut state = lock(&self.state);
                state.to_remove.extend(failed.into_iter().chain(names));
                return;
            }
        }
    }

    fn note(&self, state: &State) {
        let of_reset = state.reset.as_ref().map_or(0, |DueReset(reset)| reset.events);
        let first = state.reset.as_ref().map(|DueReset(reset)| reset.at);
        let oldest = state.waiting.front().map(|batch| batch.at).into_iter().chain(first).min();
        self.metrics.pending.set(state.events + of_reset);
        self.metrics.pending_bytes.set(state.bytes as u64);
        self.metrics.oldest_at.set(oldest.map_or(0, Timestamp::millis));
    }
}

impl State {
    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    fn push(&mut self, batch: StoredBatch) {
        self.bytes += batch.bytes;
        self.events += batch.events;
        self.waiting.push_back(batch);
    }

    fn pop(&mut self) -> Option<StoredBatch> {
        let batch = self.waiting.pop_front()?;
        self.bytes -= batch.bytes;
        self.events -= batch.events;
        Some(batch)
    }

    /// Notes records that must be removed.
    fn forget(&mut self, name: &str, records: Range<u64>) {
        self.to_remove.extend(records.filter_map(|number| key_of(name, number)));
    }
}

impl StoredBatch {
    fn new(batch: &EventBatch, records: Range<u64>) -> Self {
        let overhead = (records.end - records.start) as usize * RECORD_OVERHEAD;
        Self {
            message_id: batch.message_id.clone(),
            records,
            events: batch.events,
            bytes: batch.body.len() + overhead,
            at: batch.at,
        }
    }
}

fn key_of(name: &str, number: u64) -> Option<RecordKey> {
    RecordKey::new(NAMESPACE, &format!("{name}/{number:016x}"))
}

/// Returns the webhook to which a record belongs.
pub(super) fn owner_of(key: &RecordKey) -> Option<&str> {
    key.key().rsplit_once('/').map(|(name, _)| name)
}

fn number_of(key: &RecordKey) -> Option<u64> {
    let (_, number) = key.key().rsplit_once('/')?;
    u64::from_str_radix(number, 16).ok()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
