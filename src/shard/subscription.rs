//! A subscription of the embedding application.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use tokio::sync::mpsc;

use crate::{
    between::{
        batch::TakeBacklog,
        door::{Sender, ToShard},
    },
    mqtt::{FilterParts, Message, QoS, SubscriptionOptions, validate_filter},
    router::{Host, Place, RetainedQuery, Subscriber},
    shard::{
        Core,
        in_process::{Received, TapCounts},
    },
};

/// Nodes of the retained store that are visited before other tasks of the application get their
/// turn.
const SLICE_NODES: usize = 512;

/// A subscription of the embedding application: a stream of messages. Dropping it ends it.
pub struct Subscription {
    core: Weak<Core>,
    place: Place,
    filter: Box<str>,
    /// The retained messages that the application has not taken yet.
    retained: Option<UnreadRetained>,
    messages: mpsc::Receiver<Received>,
    /// The counts of a tap: a subscription that only observes.
    tap: Option<Arc<TapCounts>>,
}

impl Subscription {
    /// Begins a tap, a subscription that only observes: it has room for few messages, and a message that it misses is
    /// not a loss. Matching retained messages come first, if they are wanted.
    pub(crate) fn tap(
        core: &Arc<Core>,
        filter: FilterParts<'_>,
        qos: QoS,
        with_retained: bool,
    ) -> Self {
        let counts = Arc::<TapCounts>::default();
        let (place, messages) = core.in_process.add_tap(&counts);
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let options = SubscriptionOptions { retain_as_published: true, ..options };
        core.index
            .subscribe(filter, Subscriber { place, options, identifier: None, is_durable: false });
        let retained = with_retained.then(|| UnreadRetained::begin(core, filter.filter, qos));
        let core = Arc::downgrade(core);
        Self { core, place, filter: filter.filter.into(), retained, messages, tap: Some(counts) }
    }

    /// Returns how many messages were missed since the last call.
    pub(crate) fn take_missed(&self) -> u64 {
        self.tap.as_ref().map_or(0, |counts| counts.take_missed())
    }

    /// Subscribes; matching retained messages come first.
    pub(crate) fn begin(
        core: &Arc<Core>,
        filter: FilterParts<'_>,
        whole_filter: &str,
        qos: QoS,
    ) -> Self {
        let (place, messages) = core.in_process.add();
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        // Before the retained messages are read: what is retained meanwhile comes through the subscription.
        core.index
            .subscribe(filter, Subscriber { place, options, identifier: None, is_durable: false });
        let mut retained = None;
        // A shared subscription gets no retained messages, but may take what waits at absent members.
        if filter.share_name.is_none() {
            retained = Some(UnreadRetained::begin(core, filter.filter, qos));
        } else if let Some(holder) = core.index.next_holder(filter, &[])
            && let Host::Shard(number) = holder.host
            && let Some(shard) = core.shard(number)
        {
            let asked = TakeBacklog::in_process(whole_filter.into(), holder, place);
            shard.door.send(Sender::Application, ToShard::TakeBacklog(asked));
        }
        // Weak, because the application may keep the subscription longer than the broker lives.
        let core = Arc::downgrade(core);
        Self { core, place, filter: whole_filter.into(), retained, messages, tap: None }
    }

    /// Returns the next message; `None` once the broker is gone.
    pub async fn next(&mut self) -> Option<Received> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Returns the next retained message; `Ready(None)` after the last one.
    fn poll_retained(&mut self, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        let Some(walk) = &mut self.retained else { return Poll::Ready(None) };
        if walk.found.is_empty()
            && !walk.is_at_end
            && let Some(core) = self.core.upgrade()
        {
            walk.read_on(&core, &self.filter);
            if walk.found.is_empty() && !walk.is_at_end {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let next = walk.found.pop_front();
        if next.is_none() {
            self.retained = None;
        }
        Poll::Ready(next)
    }
}

impl Stream for Subscription {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        match ready!(self.poll_retained(cx)) {
            Some(retained) => Poll::Ready(Some(retained)),
            None => {
                let received = ready!(self.messages.poll_recv(cx));
                if let (Some(counts), Some(received)) = (&self.tap, &received) {
                    counts.give_back(received.message.publication().size());
                }
                Poll::Ready(received)
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        if let Ok(filter) = validate_filter(&self.filter) {
            core.index.unsubscribe(filter, self.place);
        }
        core.in_process.remove(self.place);
    }
}

/// A walk along the retained messages that match a filter, in slices.
struct UnreadRetained {
    qos: QoS,
    /// Messages that were retained later come as all others do.
    until: u64,
    after: Option<Box<str>>,
    is_at_end: bool,
    found: VecDeque<Received>,
}

impl UnreadRetained {
    /// Begins with the topics of the broker itself, which are few.
    fn begin(core: &Core, filter: &str, qos: QoS) -> Self {
        let found = core.system.matching(filter);
        let found = found.into_iter().map(|message| received(message, qos)).collect();
        Self { qos, until: core.retained.last_number(), after: None, is_at_end: false, found }
    }

    /// Reads the next slice.
    fn read_on(&mut self, core: &Core, filter: &str) {
        let query = RetainedQuery { filter, after: self.after.as_deref(), until: self.until };
        let slice = core.retained.slice(&query, SLICE_NODES, core.clock.now());
        let qos = self.qos;
        self.found.extend(slice.messages.into_iter().map(|message| received(message, qos)));
        self.is_at_end = slice.go_on_after.is_none();
        self.after = slice.go_on_after;
    }
}

fn received(message: Arc<Message>, max: QoS) -> Received {
    Received { qos: message.qos().min(max), message, retain: true }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("filter", &self.filter).finish_non_exhaustive()
    }
}
