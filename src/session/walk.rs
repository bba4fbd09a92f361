//! Retained messages on their way to a new subscription, however many they are.
//!
//! They are fetched slice by slice, as the client takes them, so that none of them waits in the
//! queue. A walk has its place behind what was queued before it, and what is published afterwards
//! waits behind the walk: order stays what it was. It does not know where the messages come from.

use std::{collections::VecDeque, sync::Arc};

use crate::mqtt::{Message, QoS};

/// A walk along the retained messages of one subscription.
#[derive(Debug)]
pub struct RetainedWalk {
    /// The Topic Filter of the subscription, which is not shared.
    pub filter: Box<str>,
    /// Its QoS.
    pub qos: QoS,
    /// Its Subscription Identifier.
    pub identifier: Option<u32>,
    /// The topic up to which slices were fetched, and, while nothing is fetched, sent; `None` before
    /// the first.
    pub after: Option<Box<str>>,
    /// Messages that were retained later, in numbers of the store, come by themselves.
    pub until: u64,
}

/// A walk that has begun.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) retained: RetainedWalk,
    pub(super) identifiers: Option<Arc<[u32]>>,
    /// Its turn comes once so many messages were taken from the queue.
    begins_at: u64,
    /// Fetched and not sent.
    fetched: VecDeque<Arc<Message>>,
    /// Bytes of what is fetched.
    bytes: usize,
    /// The topic up to which messages were sent; empty, as no topic is, before the first.
    sent_up_to: String,
    is_fetched: bool,
}

/// The walks of one session, in the order in which they were asked for. Most sessions have none.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "most sessions have none, and there are many sessions")]
pub(super) struct Walks(Option<Box<VecDeque<Walk>>>);

/// What is next on the walk whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// No walk has its turn.
    Nothing,
    /// This QoS is what the next message comes with.
    Message(QoS),
    /// A slice is to be fetched.
    Slice,
}

impl Walks {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Begins a walk in place of an earlier one of the same subscription.
    pub(super) fn begin(&mut self, retained: RetainedWalk, begins_at: u64) {
        self.cancel(&retained.filter);
        let identifiers = retained.identifier.map(|identifier| [identifier].into());
        let walk = Walk {
            retained,
            identifiers,
            begins_at,
            fetched: VecDeque::new(),
            bytes: 0,
            sent_up_to: String::new(),
            is_fetched: false,
        };
        self.0.get_or_insert_default().push_back(walk);
    }

    /// Ends the walk of a subscription.
    pub(super) fn cancel(&mut self, filter: &str) {
        if let Some(walks) = &mut self.0 {
            walks.retain(|walk| &*walk.retained.filter != filter);
            self.0.take_if(|walks| walks.is_empty());
        }
    }

    /// What is next once so many messages were taken from the queue. Walks that are done end.
    pub(super) fn next(&mut self, taken: u64) -> Next {
        while let Some(walk) = self.front_mut(taken) {
            if let Some(message) = walk.fetched.front() {
                return Next::Message(message.qos().min(walk.retained.qos));
            }
            if !walk.is_fetched {
                return Next::Slice;
            }
            self.end_first();
        }
        Next::Nothing
    }

    /// The next message, and the walk that it comes by.
    pub(super) fn pop(&mut self) -> Option<(Arc<Message>, &Walk)> {
        let walk = self.0.as_mut()?.front_mut()?;
        let message = walk.fetched.pop_front()?;
        walk.bytes -= message.size();
        walk.sent_up_to.clear();
        walk.sent_up_to.push_str(message.topic());
        Some((message, walk))
    }

    /// Bytes of what is fetched and not sent. Only the first walk has any.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().and_then(|walks| walks.front()).map_or(0, |walk| walk.bytes)
    }

    /// Forgets what is fetched and not sent: it is fetched again once somebody takes it.
    pub(super) fn drop_fetched(&mut self) {
        let first = self.0.as_mut().and_then(|walks| walks.front_mut());
        if let Some(walk) = first.filter(|walk| !walk.fetched.is_empty()) {
            let sent_up_to = std::mem::take(&mut walk.sent_up_to);
            walk.retained.after = (!sent_up_to.is_empty()).then(|| sent_up_to.into());
            walk.fetched = VecDeque::new();
            walk.bytes = 0;
            walk.is_fetched = false;
        }
    }

    /// The walk that a slice is to be fetched for.
    pub(super) fn first(&self) -> Option<&RetainedWalk> {
        Some(&self.0.as_ref()?.front()?.retained)
    }

    /// Takes what was fetched for the first walk; it goes on after this topic, or is at its end.
    pub(super) fn fetched(&mut self, messages: Vec<Arc<Message>>, after: Option<Box<str>>) {
        if let Some(walk) = self.0.as_mut().and_then(|walks| walks.front_mut()) {
            walk.bytes = messages.iter().map(|message| message.size()).sum();
            walk.fetched = messages.into();
            walk.is_fetched = after.is_none();
            let sent_up_to = std::mem::replace(&mut walk.retained.after, after);
            walk.sent_up_to = sent_up_to.map(String::from).unwrap_or_default();
        }
    }

    /// Messages are about to leave the queue out of turn: of those that are ahead of a walk so many
    /// as `leaving` says.
    pub(super) fn move_up(&mut self, taken: u64, leaving: impl Fn(usize) -> usize) {
        for walk in self.0.iter_mut().flat_map(|walks| walks.iter_mut()) {
            let ahead = walk.begins_at.saturating_sub(taken) as usize;
            walk.begins_at -= leaving(ahead) as u64;
        }
    }

    fn front_mut(&mut self, taken: u64) -> Option<&mut Walk> {
        self.0.as_mut()?.front_mut().filter(|walk| walk.begins_at <= taken)
    }

    fn end_first(&mut self) {
        if let Some(walks) = &mut self.0 {
            walks.pop_front();
            self.0.take_if(|walks| walks.is_empty());
        }
    }
}
