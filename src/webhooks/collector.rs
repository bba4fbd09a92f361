//! Follows the feed for one webhook, and stores its events in batches.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    PresenceSource,
    backlog::{Gathering, WebhookBacklog},
    batch::BATCH_BYTES,
    options::WebhookBounds,
    shares::{SubscriptionShares, is_of_subscription},
};
use crate::{
    clock::Clock,
    control::{FeedFilter, FeedItem, FeedPosition, Follow},
};

/// How long one question waits for a change. Short, because a question under way keeps the broker
/// from ending with its last handle.
const WAIT: Duration = Duration::from_secs(1);
/// The time to the next question after the broker could not answer.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The half of a webhook that reads events.
pub(super) struct Collector {
    pub(super) clock: Clock,
    pub(super) presence: Arc<dyn PresenceSource>,
    pub(super) backlog: Arc<WebhookBacklog>,
    pub(super) filter: FeedFilter,
    pub(super) bounds: WebhookBounds,
    pub(super) position: FeedPosition,
    pub(super) shares: SubscriptionShares,
}

impl Collector {
    /// Follows until it is dropped.
    pub(super) async fn run(&mut self) {
        loop {
            match self.backlog.gathering() {
                // Nothing is gathered until the endpoint has taken the `reset`.
                Gathering::Stopped => self.backlog.taken().await,
                Gathering::SnapshotDue => {
                    self.position = FeedPosition::Start;
                    self.backlog.begin_snapshot();
                }
                // A snapshot waits for the endpoint. If that takes too long, the feed begins another.
                Gathering::Changes
                    if self.is_in_snapshot() && !self.backlog.has_room_for_less() =>
                {
                    self.backlog.taken().await;
                }
                Gathering::Changes => self.gather_and_store().await,
            }
        }
    }

    async fn gather_and_store(&mut self) {
        let at = self.clock.now();
        let items = self.gather().await;
        if items.is_empty() {
            return;
        }
        self.backlog.store(&items, at).await;
        if self.backlog.is_over_bounds()
            && let Some(reset) = self.presence.reset()
        {
            self.backlog.cut(&reset).await;
        }
    }

    /// Reads the items of one batch; none if nothing has happened for a while.
    async fn gather(&mut self) -> Vec<FeedItem> {
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut complete_at = None;
        // A batch is complete a while after its first event, so that events do not wait for others.
        loop {
            let now = Instant::now();
            let wait = complete_at.map_or(WAIT, |at: Instant| at.saturating_duration_since(now));
            // The feed is asked for no more than the batch may have.
            let room = self.bounds.batch_events_max.saturating_sub(items.len());
            let request = Follow::new(self.position).matching(self.filter.clone());
            let Ok(part) = self.presence.follow(request.waiting(wait).at_most(room)).await else {
                // The broker cannot answer now; what was found so far is stored.
                sleep(ASK_AGAIN_AFTER).await;
                return items;
            };
            // Moved on even if the events are left out, so that they are not asked for again.
            self.position = part.next;
            let found = self.without_excess(part.items);
            bytes += found.iter().map(|item| item.json.len()).sum::<usize>();
            items.extend(found);
            if items.is_empty() {
                return items;
            }
            let complete_at =
                *complete_at.get_or_insert_with(|| Instant::now() + self.bounds.delay);
            // The whole batch is one request, so it has a bound in bytes too.
            let is_full = items.len() >= self.bounds.batch_events_max || bytes >= BATCH_BYTES;
            if is_full || Instant::now() >= complete_at {
                return items;
            }
        }
    }

    /// Leaves out events of subscriptions beyond the share of their client, and all of them while the
    /// backlog is half full: presence has the rest.
    fn without_excess(&mut self, mut items: Vec<FeedItem>) -> Vec<FeedItem> {
        let (before, now) = (items.len(), self.clock.now());
        let has_room = self.backlog.has_room_for_less();
        let shares = &mut self.shares;
        items.retain(|item| shares.take(item, now) && (has_room || !is_of_subscription(item)));
        self.backlog.note_left_out(before - items.len());
        items
    }

    const fn is_in_snapshot(&self) -> bool {
        !matches!(self.position, FeedPosition::After(_))
    }
}
