//! A webhook on virtual time, between a scripted feed and a scripted endpoint.

mod slow_store;

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use self::slow_store::SlowStore;
use super::{backlog::WebhookMessage, endpoint::NotTaken, *};
use crate::{
    control::{EventId, FeedKind},
    durable::StoredRecords,
    journal::Revision,
    mqtt::Timestamp,
};

const EPOCH: u64 = 0xe;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A feed in which a test decides what happens.
#[derive(Default)]
struct Script {
    state: Mutex<ScriptState>,
    changed: Notify,
}

#[derive(Default)]
struct ScriptState {
    items: Vec<FeedItem>,
    last: u64,
}

impl Script {
    fn state(&self) -> std::sync::MutexGuard<'_, ScriptState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a change whose JSON has this many bytes more than usual.
    fn happens(&self, kind: FeedKind, bytes: usize) {
        let mut state = self.state();
        state.last += 1;
        let id = EventId { epoch: EPOCH, number: state.last };
        let json = serde_json::json!({ "n": state.last, "x": "x".repeat(bytes) });
        state.items.push(FeedItem::new(id, kind, json.to_string().into()));
        drop(state);
        self.changed.notify_waiters();
    }
}

#[async_trait]
impl PresenceSource for Script {
    async fn follow(&self, request: Follow) -> Result<FeedPart, ControlError> {
        let until = Instant::now() + request.wait;
        loop {
            let changed = self.changed.notified();
            let part = {
                let state = self.state();
                let end = EventId { epoch: EPOCH, number: state.last };
                match request.from {
                    FeedPosition::After(id) => {
                        let later = state.items.iter().filter(|item| item.id.number > id.number);
                        let items: Vec<_> = later.take(request.items_max).cloned().collect();
                        let last = items.last().map_or(id, |item| item.id);
                        FeedPart::new(items, FeedPosition::After(last))
                    }
                    FeedPosition::Start | FeedPosition::Inside { .. } => {
                        let end_item = FeedItem::new(end, FeedKind::SnapshotEnd, "{}".into());
                        FeedPart::new(vec![end_item], FeedPosition::After(end))
                    }
                }
            };
            if !part.items.is_empty() || timeout_at(until, changed).await.is_err() {
                return Ok(part);
            }
        }
    }

    fn reset(&self) -> Option<FeedItem> {
        let id = EventId { epoch: EPOCH, number: self.state().last };
        Some(FeedItem::new(id, FeedKind::Reset, "{}".into()))
    }
}

/// An endpoint that answers as a test says, and takes everything once nothing is said.
#[derive(Clone)]
struct Inbox(Arc<InboxState>);

struct InboxState {
    records: Arc<StoredRecords>,
    answers: Mutex<VecDeque<Result<(), NotTaken>>>,
    is_dead: Mutex<bool>,
    came: Mutex<Vec<(String, Vec<String>, Instant)>>,
}

impl Inbox {
    fn events(&self) -> Vec<String> {
        self.came().into_iter().flat_map(|(_, events, _)| events).collect()
    }

    fn came(&self) -> Vec<(String, Vec<String>, Instant)> {
        self.0.came.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn answer(&self, answer: Result<(), NotTaken>) {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner).push_back(answer);
    }

    fn die(&self, is_dead: bool) {
        *self.0.is_dead.lock().unwrap_or_else(PoisonError::into_inner) = is_dead;
    }
}

fn refused(retry_after: Option<u64>) -> Result<(), NotTaken> {
    let retry_after = retry_after.map(Duration::from_secs);
    Err(NotTaken { why: "answer 500".to_owned(), retry_after })
}

#[async_trait]
impl MessageTaker for Inbox {
    async fn post(&self, message: &WebhookMessage) -> Result<(), NotTaken> {
        let body: Value = serde_json::from_slice(&message.body).expect("it is JSON");
        assert_eq!(body["id"], message.message_id);
        let events = body["events"].as_array().expect("it has events");
        let names: Vec<_> = events
            .iter()
            .map(|event| match event["data"]["n"].as_u64() {
                None => event["event"].to_string().replace('"', ""),
                Some(number) => number.to_string(),
            })
            .collect();
        // Whatever is sent is stored, except a `reset`.
        let stored = self.0.records.list(NAMESPACE, None, 1_000).await.expect("it is read");
        let is_stored = stored.iter().any(|(_, record)| {
            record
                .value
                .windows(message.message_id.len())
                .any(|part| part == message.message_id.as_bytes())
        });
        assert!(is_stored || names == ["reset"], "{names:?} is sent before it is stored");
        if *self.0.is_dead.lock().unwrap_or_else(PoisonError::into_inner) {
            return refused(None);
        }
        let came = (message.message_id.clone(), names, Instant::now());
        self.0.came.lock().unwrap_or_else(PoisonError::into_inner).push(came);
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Ok(()))
    }
}

/// A webhook, its feed and its endpoint.
struct Stage {
    script: Arc<Script>,
    inbox: Inbox,
    records: Arc<StoredRecords>,
    metrics: Arc<WebhookMetrics>,
    ending: CancellationToken,
}

fn clock() -> Clock {
    Clock::start_after(Timestamp(0))
}

fn records() -> Arc<StoredRecords> {
    Arc::new(StoredRecords::new(None, clock(), Revision(0)))
}

fn webhook(name: &str) -> Webhook {
    let url = WebhookUrl::new("https://fleet.example/events").expect("it is one");
    Webhook::new(name, url, SECRET.parse().expect("it is one")).expect("it is one")
}

/// Starts a webhook in the place of an earlier one with the same records.
async fn stage_with(records: &Arc<StoredRecords>, webhook: Webhook) -> Stage {
    stage_on(records, Arc::clone(records) as _, webhook).await
}

/// Starts a webhook with a store in front of the records.
async fn stage_on(
    records: &Arc<StoredRecords>,
    store: Arc<dyn Records>,
    webhook: Webhook,
) -> Stage {
    let script = Arc::<Script>::default();
    let inbox = Inbox(Arc::new(InboxState {
        records: Arc::clone(records),
        answers: Mutex::default(),
        is_dead: Mutex::default(),
        came: Mutex::default(),
    }));
    let ending = CancellationToken::new();
    let clock = clock();
    let metrics = WebhookMetrics::new(webhook.name().into(), move || clock.now().millis());
    let metrics = Arc::new(metrics);
    let parts = WebhookParts {
        node: "n".into(),
        epoch: EPOCH,
        clock,
        records: store,
        presence: Arc::clone(&script) as _,
        ending: ending.clone(),
    };
    let reset = script.reset().expect("it goes on");
    let from = FeedPosition::After(reset.id);
    let endpoint = Box::new(inbox.clone());
    let prepared = PreparedWebhook::with_endpoint(
        webhook,
        parts,
        (&reset, from),
        Arc::clone(&metrics),
        endpoint,
    );
    actix_rt::spawn(prepared.await.run());
    Stage { script, inbox, records: Arc::clone(records), metrics, ending }
}

async fn stage() -> Stage {
    tokio::time::pause();
    stage_with(&records(), webhook("fleet")).await
}

async fn secs(secs: u64) {
    sleep(Duration::from_secs(secs)).await;
}

impl Stage {
    fn changes(&self, count: usize) {
        (0..count).for_each(|_| self.script.happens(FeedKind::ClientConnected, 0));
    }

    async fn stored(&self) -> usize {
        self.records.list(NAMESPACE, None, 100_000).await.expect("it is read").len()
    }
}

#[actix_rt::test]
async fn a_reset_comes_first_and_then_all_events_in_batches() {
    let stage = stage().await;
    stage.changes(1);
    secs(1).await;
    stage.changes(230);
    secs(1).await;
    let came = stage.inbox.came();
    let sizes: Vec<_> = came.iter().map(|(_, events, _)| events.len()).collect();
    assert_eq!(sizes, [1, 1, 100, 100, 30]);
    let expected: Vec<_> =
        ["reset".to_owned()].into_iter().chain((1..=231).map(|n| n.to_string())).collect();
    assert_eq!(stage.inbox.events(), expected);
    assert_eq!(stage.stored().await, 0, "what was taken leaves the store");
    assert_eq!((stage.metrics.delivered.value(), stage.metrics.pending.value()), (232, 0));
}

/// Further events do not put off those before them, with the longest delay that may be configured.
#[actix_rt::test]
async fn each_event_is_stored_at_most_a_second_after_it_happened() {
    tokio::time::pause();
    let records = records();
    let store = SlowStore::new(Arc::clone(&records) as _, Duration::from_millis(200));
    let bounds = WebhookBounds {
        delay: WebhookBounds::DELAY_LARGEST,
        batch_events_max: WebhookBounds::BATCH_EVENTS_LARGEST,
        ..WebhookBounds::default()
    };
    let webhook = webhook("fleet").bounds(bounds).expect("they are in range");
    let stage = stage_on(&records, Arc::clone(&store) as _, webhook).await;
    stage.inbox.die(true);
    let mut happened = Vec::new();
    for _ in 0..400 {
        happened.push(Instant::now());
        stage.changes(1);
        sleep(Duration::from_millis(25)).await;
    }
    secs(2).await;
    let stored = store.stored();
    let numbers: Vec<_> = stored.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=400).collect::<Vec<_>>());
    for ((number, at), since) in stored.into_iter().zip(happened) {
        let behind = at.duration_since(since);
        assert!(behind <= Duration::from_secs(1), "event {number} is stored after {behind:?}");
    }
}

#[actix_rt::test]
async fn an_event_is_stored_within_a_second_while_the_endpoint_is_dead() {
    let stage = stage().await;
    stage.inbox.die(true);
    stage.changes(3);
    secs(1).await;
    assert_eq!(stage.stored().await, 1);
    assert_eq!(stage.metrics.pending.value(), 4);
    secs(9).await;
    assert_eq!(stage.metrics.oldest_age().as_secs(), 10);
    assert!(stage.metrics.failed.value() >= 3);
}

#[actix_rt::test]
async fn a_message_that_was_not_taken_is_sent_again_later_and_later() {
    let stage = stage().await;
    (0..12).for_each(|_| stage.inbox.answer(refused(None)));
    secs(2_000).await;
    let came = stage.inbox.came();
    assert_eq!(came.len(), 13);
    assert!(came.iter().all(|attempt| attempt.0 == came[0].0), "it is the same message");
    let waits: Vec<_> = came.windows(2).map(|pair| (pair[1].2 - pair[0].2).as_secs_f64()).collect();
    for (wait, least) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]) {
        assert!((least..=2.0 * least + 0.1).contains(wait), "{waits:?}");
    }
}

#[actix_rt::test]
async fn the_endpoint_may_ask_for_a_longer_time() {
    let stage = stage().await;
    stage.inbox.answer(refused(Some(300)));
    stage.inbox.answer(refused(Some(1_000_000)));
    secs(10_000).await;
    let came = stage.inbox.came();
    let waits: Vec<_> = came.windows(2).map(|pair| (pair[1].2 - pair[0].2).as_secs()).collect();
    assert_eq!(waits, [300, 3_600]);
}

/// Returns a webhook with the smallest backlog.
fn small(name: &str) -> Webhook {
    let bounds = WebhookBounds {
        backlog_bytes_max: WebhookBounds::BACKLOG_BYTES_SMALLEST,
        ..WebhookBounds::default()
    };
    webhook(name).bounds(bounds).expect("they are in range")
}

#[actix_rt::test]
async fn a_backlog_beyond_its_bound_is_dropped_and_a_reset_with_a_snapshot_follows() {
    tokio::time::pause();
    let stage = stage_with(&records(), small("fleet")).await;
    secs(1).await;
    stage.inbox.die(true);
    // 10 MB, more than twice the bound.
    for _ in 0..100 {
        stage.script.happens(FeedKind::ClientConnected, 100_000);
        secs(1).await;
    }
    assert!(stage.metrics.cut.value() > 30);
    assert!(stage.metrics.pending_bytes.value() <= 5_000_000);
    stage.inbox.die(false);
    secs(200).await;
    stage.changes(1);
    secs(1).await;
    // Nothing between `reset` and the snapshot, which covers all that was dropped.
    assert_eq!(stage.inbox.events(), ["reset", "reset", "snapshot_end", "101"]);
    assert_eq!(stage.stored().await, 0);
}

/// A client that subscribes and unsubscribes without end pushes out nobody's presence.
#[actix_rt::test]
async fn events_of_subscriptions_take_a_share_and_never_cut_a_backlog() {
    tokio::time::pause();
    let stage = stage_with(&records(), small("fleet")).await;
    secs(1).await;
    stage.inbox.die(true);
    for _ in 0..100 {
        // 5 MB each second, from one client.
        (0..50).for_each(|_| stage.script.happens(FeedKind::SessionSubscribed, 100_000));
        stage.changes(1);
        secs(1).await;
    }
    assert!(stage.metrics.cut.value() > 4_000);
    assert!(stage.metrics.pending_bytes.value() <= 3_000_000);
    stage.inbox.die(false);
    secs(200).await;
    let events = stage.inbox.events();
    assert_eq!(events.iter().filter(|event| *event == "reset").count(), 1, "{events:?}");
    for connected in 1..=100 {
        assert!(events.contains(&(51 * connected).to_string()), "{connected}: {events:?}");
    }
}

#[actix_rt::test]
async fn events_that_become_too_old_are_dropped() {
    let stage = stage().await;
    secs(1).await;
    stage.inbox.die(true);
    stage.changes(1);
    secs(24 * 60 * 60 - 600).await;
    assert_eq!(stage.metrics.cut.value(), 0);
    secs(1_200).await;
    assert_eq!((stage.metrics.cut.value(), stage.stored().await), (1, 0));
    stage.inbox.die(false);
    secs(200).await;
    assert_eq!(stage.inbox.events(), ["reset", "reset", "snapshot_end"]);
}

#[actix_rt::test]
async fn what_was_stored_and_not_taken_is_sent_after_the_reset_of_the_next_run() {
    let stage = stage().await;
    stage.changes(1);
    secs(1).await;
    stage.inbox.die(true);
    stage.changes(2);
    stage.script.happens(FeedKind::ClientConnected, 300_000); // several records
    secs(1).await;
    stage.ending.cancel();
    let next = stage_with(&stage.records, webhook("fleet")).await;
    next.changes(1);
    secs(1).await;
    assert_eq!(stage.inbox.events(), ["reset", "1"]);
    assert_eq!(next.inbox.events(), ["reset", "2", "3", "4", "1"]);
    assert_eq!(next.stored().await, 0);
    let mut ids: Vec<_> = next.inbox.came().into_iter().map(|(id, ..)| id).collect();
    ids.dedup();
    assert_eq!(ids.len(), next.inbox.came().len(), "messages have different identifiers");
}

#[actix_rt::test]
async fn a_batch_of_which_a_part_is_missing_is_not_sent() {
    let stage = stage().await;
    stage.inbox.die(true);
    stage.script.happens(FeedKind::ClientConnected, 300_000);
    secs(1).await;
    stage.ending.cancel();
    let found = stage.records.list(NAMESPACE, None, 100).await.expect("it is read");
    let (last, _) = found.last().expect("there are some").clone();
    assert!(found.len() > 1);
    stage.records.remove(last, Expected::Any).await.expect("it is removed");
    let next = stage_with(&stage.records, webhook("fleet")).await;
    next.changes(1);
    secs(1).await;
    assert_eq!(next.inbox.events(), ["reset", "1"]);
    assert_eq!(next.stored().await, 0);
}

#[actix_rt::test]
async fn a_dead_endpoint_does_not_hold_up_another() {
    tokio::time::pause();
    let records = records();
    let dead = stage_with(&records, webhook("dead")).await;
    let good = stage_with(&records, webhook("good")).await;
    dead.inbox.die(true);
    for _ in 0..5 {
        dead.changes(1);
        good.changes(1);
        secs(1).await;
    }
    assert_eq!(good.inbox.events(), ["reset", "1", "2", "3", "4", "5"]);
    assert_eq!(dead.metrics.pending.value(), 6);
}

#[actix_rt::test]
async fn events_of_webhooks_that_are_gone_leave_the_store() {
    let stage = stage().await;
    stage.inbox.die(true);
    stage.changes(1);
    secs(1).await;
    forget_others(&*stage.records, &[webhook("fleet"), webhook("other")]).await;
    assert_eq!(stage.stored().await, 1);
    forget_others(&*stage.records, &[webhook("fleet-2")]).await;
    assert_eq!(stage.stored().await, 0);
    assert!(check_names(&[webhook("a"), webhook("b"), webhook("a")]).is_err());
    assert!(check_names(&[webhook("a"), webhook("b")]).is_ok());
}
