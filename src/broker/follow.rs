//! The feed of presence: a snapshot of the clients that are online, then every change.
//!
//! Nobody misses a change without being told. A snapshot begins with a place among the numbers of
//! events; then the shards are read one after the other, and the changes behind the place follow. An
//! event before the place was made by a shard in an earlier turn than its part of the snapshot, so
//! the part has its outcome. An event behind the place is told in any case, perhaps in addition to
//! the snapshot; `version` says which of them is newer.

use std::{pin::pin, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    task::yield_now,
    time::{Instant, sleep_until, timeout_at},
};

use super::{ANSWER_TIME_MAX, Broker, asking::CallUnderWay, control::QUESTIONS_MAX};
use crate::{
    actors::QueryOnlinePart,
    control::{ControlError, EventId, FeedItem, FeedKind, FeedPart, FeedPosition, Follow},
    feed::{Missed, kind_of, selects},
    hooks::json::Event,
    shard::Core,
};

/// Parts of shards that one answer reads. An answer may have no clients because the filter selects
/// few.
const PARTS_MAX: usize = 16;
/// Bytes of JSON above which an answer has no further items.
const JSON_BYTES_MAX: usize = 256 * 1024;
/// How long a follower that was waiting lets further changes come. So a follower is woken 100 times
/// a second at most, whatever happens.
const GATHER: Duration = Duration::from_millis(10);

/// Begins a snapshot with the item that tells a follower to forget all clients.
///
/// `version` is the highest version of an earlier run: with it, a follower can tell an event of that
/// run that arrives later.
pub(super) fn reset(core: &Core) -> FeedItem {
    let now = core.clock.now();
    let id = core.feed.begin_snapshot(now);
    let json = json!({
        "event": "reset",
        "node": &*core.node,
        "epoch": format!("{:016x}", id.epoch),
        "timestamp": now.millis(),
        "version": core.versions.floor(),
    });
    FeedItem::new(id, FeedKind::Reset, json.to_string().into())
}

/// Returns the position behind the snapshot of a `reset`. It misses nothing while no client is online.
#[cfg(feature = "webhooks")]
pub(super) const fn behind(reset: &FeedItem) -> FeedPosition {
    FeedPosition::After(EventId { number: reset.id.number + 1, ..reset.id })
}

/// The items of an answer, as it grows.
#[derive(Default)]
struct PartItems {
    items: Vec<FeedItem>,
    bytes: usize,
}

impl PartItems {
    fn push(&mut self, item: FeedItem) {
        self.bytes += item.json.len();
        self.items.push(item);
    }

    fn is_full(&self, request: &Follow) -> bool {
        self.items.len() >= request.items_max || self.bytes >= JSON_BYTES_MAX
    }

    fn before(self, next: FeedPosition) -> FeedPart {
        FeedPart::new(self.items, next)
    }
}

impl Broker {
    /// Returns the next part of the feed of presence: a snapshot of the clients that are online, then
    /// every change. An application asks again from [`FeedPart::next`].
    ///
    /// Events are kept from the first question on, until five minutes after the last one. A follower
    /// that asks later, or is too far behind, receives [`FeedKind::Reset`] and then a snapshot.
    ///
    /// # Errors
    /// The broker ends, or cannot answer.
    pub async fn follow(&self, request: Follow) -> Result<FeedPart, ControlError> {
        if !self.is_ready() {
            return Err(ControlError::Unavailable);
        }
        let running = &self.running;
        let _asking = CallUnderWay::new(&running.under_way.questions, QUESTIONS_MAX)?;
        tokio::select! {
            biased;
            () = running.core.ending.cancelled() => Err(ControlError::Unavailable),
            answer = self.part_of_feed(request) => answer,
        }
    }

    async fn part_of_feed(&self, request: Follow) -> Result<FeedPart, ControlError> {
        let core = &self.running.core;
        core.feed.note_follower(core.clock.now());
        match request.from {
            FeedPosition::Start => {
                // The number before the first shard is read: changes behind it follow the snapshot.
                let id = core.feed.begin_snapshot(core.clock.now());
                self.snapshot(&request, (id, 0, 0), PartItems::default()).await
            }
            FeedPosition::Inside { id, shard, slot } if core.feed.has_since(id) => {
                self.snapshot(&request, (id, shard, slot), PartItems::default()).await
            }
            // Changes since the snapshot began are no longer kept, so it could not be completed.
            FeedPosition::Inside { .. } => self.reset(&request).await,
            FeedPosition::After(id) => self.changes(&request, id).await,
        }
    }

    /// Tells a follower that it has missed changes, and begins a snapshot.
    async fn reset(&self, request: &Follow) -> Result<FeedPart, ControlError> {
        let reset = reset(&self.running.core);
        let id = reset.id;
        let mut items = PartItems::default();
        items.push(reset);
        self.snapshot(request, (id, 0, 0), items).await
    }

    /// Reads a snapshot from a shard and a slot on.
    async fn snapshot(
        &self,
        request: &Follow,
        (id, mut shard, mut slot): (EventId, u16, u32),
        mut items: PartItems,
    ) -> Result<FeedPart, ControlError> {
        let core = &self.running.core;
        let filter = Arc::new(request.filter.clone());
        let caller = request.caller.clone().map(Arc::new);
        for _ in 0..PARTS_MAX {
            let Some(registry) = self.running.registries.get(usize::from(shard)) else {
                let (now, end) = (core.clock.now().millis(), core.feed.id(id.number + 1));
                let json =
                    json!({ "event": "snapshot.end", "node": &*core.node, "timestamp": now });
                items.push(FeedItem::new(end, FeedKind::SnapshotEnd, json.to_string().into()));
                return Ok(items.before(FeedPosition::After(end)));
            };
            // After the look for the end: the last item must not wait for another request.
            if items.is_full(request) {
                break;
            }
            let (filter, caller) = (Arc::clone(&filter), caller.clone());
            let clients_max = request.items_max.saturating_sub(items.items.len()).max(1);
            let number = id.number;
            let question = QueryOnlinePart { filter, caller, from: slot, clients_max, number };
            // Followers take turns, so that many of them
            // together cannot fill the mailbox of a shard.
            let turn = core.feed.turn().await;
            let part = self.ask(registry.send(question).timeout(ANSWER_TIME_MAX)).await?;
            drop(turn);
            for client in part.clients {
                let json = Event::Connected(client).to_json();
                items.push(FeedItem::new(id, FeedKind::Snapshot, json.into()));
            }
            // The position is inside the answer, so the broker keeps nothing for a follower.
            (shard, slot) = match part.next {
                Some(next) => (shard, next),
                None => (shard.saturating_add(1), 0),
            };
            // A large snapshot shares this thread with other calls.
            yield_now().await;
        }
        Ok(items.before(FeedPosition::Inside { id, shard, slot }))
    }

    /// Returns changes behind a place, and waits for them if there are none.
    async fn changes(&self, request: &Follow, from: EventId) -> Result<FeedPart, ControlError> {
        let feed = &self.running.core.feed;
        let until = Instant::now() + request.wait;
        let mut after = from;
        let mut items = PartItems::default();
        loop {
            let mut changed = pin!(feed.changed());
            changed.as_mut().enable(); // before the look, so that no change is missed
            loop {
                let found = match feed.after(after) {
                    Ok(found) => found,
                    Err(Missed) if items.items.is_empty() => return self.reset(request).await,
                    // Changes that were found are answered first;
                    // the next request finds the gap and resets.
                    Err(Missed) => return Ok(items.before(FeedPosition::After(after))),
                };
                if found.is_empty() {
                    break;
                }
                for recent in found {
                    // Also behind events that the caller does not
                    // want, so that they are not examined again.
                    after = feed.id(recent.number_behind());
                    if let Some(event) = recent.event()
                        && self.wants(request, event)
                    {
                        items.push(FeedItem::new(after, kind_of(event), recent.json()));
                    }
                    if items.is_full(request) {
                        return Ok(items.before(FeedPosition::After(after)));
                    }
                }
                yield_now().await;
            }
            if !items.items.is_empty() || Instant::now() >= until {
                return Ok(items.before(FeedPosition::After(after)));
            }
            // Waits a little longer, so that events of the same moment go into one answer.
            if timeout_at(until, changed).await.is_ok() {
                sleep_until(until.min(Instant::now() + GATHER)).await;
            }
            feed.note_follower(self.running.core.clock.now());
        }
    }

    /// Returns whether the follower wants an event, and may see it now.
    fn wants(&self, request: &Follow, event: &Event) -> bool {
        let rules = &*self.running.core.authorizer;
        let caller = request.caller.as_ref();
        selects(&request.filter, event)
            && caller.is_none_or(|caller| caller.may_observe(rules, event.client().0))
    }
}
