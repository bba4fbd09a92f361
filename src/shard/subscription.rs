//! A subscription of the embedding application.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use futures_util::Stream;
use tokio::sync::mpsc;

use crate::{
    between::{
        batch::TakeBacklog,
        door::{Sender, ToShard},
    },
    mqtt::{FilterParts, QoS, SubscriptionOptions, Timestamp, validate_filter},
    router::{Host, Place, RetainedQuery, Subscriber},
    shard::{Core, in_process::Received},
};

/// Nodes of the retained store that are visited before publishers get their turn.
const SLICE_NODES: usize = 512;

/// A subscription of the embedding application: a stream of messages. Dropping it ends it.
pub struct Subscription {
    core: Weak<Core>,
    place: Place,
    filter: Box<str>,
    messages: mpsc::Receiver<Received>,
}

impl Subscription {
    /// Subscribes, and delivers matching retained messages.
    pub(crate) fn begin(
        core: &Arc<Core>,
        filter: FilterParts<'_>,
        whole_filter: &str,
        qos: QoS,
        now: Timestamp,
    ) -> Self {
        let (place, sender, messages) = core.in_process.add();
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        core.index
            .subscribe(filter, Subscriber { place, options, identifier: None, is_durable: false });
        if filter.share_name.is_none() {
            send_retained(core, filter.filter, qos, &sender, now);
        } else if let Some(holder) = core.index.next_holder(filter, &[])
            && let Host::Shard(number) = holder.host
            && let Some(shard) = core.shard(number)
        {
            let asked = TakeBacklog::in_process(whole_filter.into(), holder, place);
            shard.door.send(Sender::Application, ToShard::TakeBacklog(asked));
        }
        Self { core: Arc::downgrade(core), place, filter: whole_filter.into(), messages }
    }

    /// Returns the next message; `None` once the broker is gone.
    pub async fn next(&mut self) -> Option<Received> {
        self.messages.recv().await
    }
}

impl Stream for Subscription {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        self.messages.poll_recv(cx)
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

/// Delivers matching retained messages, slice by slice, as long as there is room.
fn send_retained(
    core: &Core,
    filter: &str,
    max: QoS,
    sender: &mpsc::Sender<Received>,
    now: Timestamp,
) {
    for message in core.system.matching(filter) {
        let qos = message.qos().min(max);
        if sender.try_send(Received { message, qos, retain: true }).is_err() {
            return;
        }
    }
    let until = core.retained.last_number();
    let mut after: Option<Box<str>> = None;
    loop {
        let query = RetainedQuery { filter, after: after.as_deref(), until };
        let slice = core.retained.slice(&query, SLICE_NODES, now);
        for message in slice.messages {
            let qos = message.qos().min(max);
            if sender.try_send(Received { message, qos, retain: true }).is_err() {
                return;
            }
        }
        if slice.go_on_after.is_none() {
            return;
        }
        after = slice.go_on_after;
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("filter", &self.filter).finish_non_exhaustive()
    }
}
