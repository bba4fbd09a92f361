//! Walks: retained messages, however many, on their way to a new subscription.
//!
//! The shard fetches them slice by slice, as the client reads them, so that none of them waits in
//! the queue. A walk has a position in the queue: after messages queued before it, and before
//! messages published later. So the order is preserved. This module does not know where the
//! messages come from.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use foldhash::fast::RandomState;

use crate::mqtt::{Message, QoS};

/// A walk along the retained messages of one subscription.
#[derive(Debug)]
pub struct RetainedWalk {
    /// The Topic Filter of the subscription, which is not shared.
    pub filter: Box<str>,
    /// The QoS of the subscription.
    pub qos: QoS,
    /// The Subscription Identifier.
    pub identifier: Option<u32>,
    /// The last topic that was fetched; while no messages are fetched, also the last that was sent.
    /// `None` before the first.
    pub after: Option<Box<str>>,
    /// Retained messages that the store numbered higher than this are not part of the walk: the
    /// client receives them as they are published.
    pub until: u64,
}

/// A walk that has begun.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) retained: RetainedWalk,
    pub(super) identifiers: Option<Arc<[u32]>>,
    /// The walk begins after this number of messages was taken from the queue.
    begins_at: u64,
    /// Messages that are fetched and not sent.
    fetched: VecDeque<Arc<Message>>,
    /// Bytes of the fetched messages.
    bytes: usize,
    /// The last topic that was sent; empty before the first, as no topic is empty.
    sent_up_to: String,
    is_fetched: bool,
    /// Distinguishes this walk from a later one of the same filter.
    number: u64,
}

/// The walks of one session, in the order of their subscriptions. Most sessions have none.
#[derive(Debug, Default)]
pub(super) struct Walks(Option<Box<WalksUnderWay>>);

/// The walks of a session that has some. A hub may begin thousands at once, and then begin them
/// again, so cancelling does not search the list. A cancelled walk is removed when its turn comes,
/// or together with the others once there are as many cancelled walks as active ones. The first
/// walk is never a cancelled one.
#[derive(Debug, Default)]
struct WalksUnderWay {
    walks: VecDeque<Walk>,
    /// The number of the active walk of each filter.
    numbers: HashMap<Box<str>, u64, RandomState>,
    last_number: u64,
}

/// This many cancelled walks may stay in the list beyond the number of active walks.
const CANCELLED_MAX: usize = 16;

/// The next step of the walk whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is no walk's turn.
    Nothing,
    /// Send a message that has this QoS.
    Message(QoS),
    /// Fetch a slice.
    Slice,
}

impl Walks {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Begins a walk; an earlier one of the same subscription ends.
    pub(super) fn begin(&mut self, retained: RetainedWalk, begins_at: u64) {
        let identifiers = retained.identifier.map(|identifier| [identifier].into());
        let under_way = self.0.get_or_insert_default();
        under_way.last_number += 1;
        let number = under_way.last_number;
        // A new subscription to the same filter ends the former walk.
        under_way.numbers.insert(retained.filter.clone(), number);
        under_way.walks.push_back(Walk {
            retained,
            identifiers,
            begins_at,
            fetched: VecDeque::new(),
            bytes: 0,
            sent_up_to: String::new(),
            is_fetched: false,
            number,
        });
        under_way.tidy();
    }

    /// Cancels the walk of a subscription.
    pub(super) fn cancel(&mut self, filter: &str) {
        if let Some(under_way) = &mut self.0
            && under_way.numbers.remove(filter).is_some()
        {
            under_way.tidy();
            self.0.take_if(|under_way| under_way.walks.is_empty());
        }
    }

    /// Returns the next step after `taken` messages have left the queue. Removes finished walks.
    pub(super) fn next(&mut self, taken: u64) -> Next {
        while let Some(walk) = self.front_mut(taken) {
            // A fetched message goes before the next slice.
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

    /// Takes the next message; returns it with its walk.
    pub(super) fn pop(&mut self) -> Option<(Arc<Message>, &Walk)> {
        let walk = self.0.as_mut()?.walks.front_mut()?;
        let message = walk.fetched.pop_front()?;
        walk.bytes -= message.size();
        walk.sent_up_to.clear();
        walk.sent_up_to.push_str(message.topic());
        Some((message, walk))
    }

    /// Returns the bytes that are fetched and not sent. Only the first walk has any.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().and_then(|under_way| under_way.walks.front()).map_or(0, |walk| walk.bytes)
    }

    /// Drops messages that are fetched and not sent. They are fetched again when the client can
    /// take them.
    pub(super) fn drop_fetched(&mut self) {
        let first = self.0.as_mut().and_then(|under_way| under_way.walks.front_mut());
        if let Some(walk) = first.filter(|walk| !walk.fetched.is_empty()) {
            let sent_up_to = std::mem::take(&mut walk.sent_up_to);
            walk.retained.after = (!sent_up_to.is_empty()).then(|| sent_up_to.into());
            walk.fetched = VecDeque::new();
            walk.bytes = 0;
            walk.is_fetched = false;
        }
    }

    /// Returns the walk that needs a slice.
    pub(super) fn first(&self) -> Option<&RetainedWalk> {
        Some(&self.0.as_ref()?.walks.front()?.retained)
    }

    /// Takes messages fetched for the first walk. It goes on after the topic `after`, or ends if
    /// there is none.
    pub(super) fn fetched(&mut self, messages: Vec<Arc<Message>>, after: Option<Box<str>>) {
        if let Some(walk) = self.0.as_mut().and_then(|under_way| under_way.walks.front_mut()) {
            walk.bytes = messages.iter().map(|message| message.size()).sum();
            walk.fetched = messages.into();
            walk.is_fetched = after.is_none();
            let sent_up_to = std::mem::replace(&mut walk.retained.after, after);
            walk.sent_up_to = sent_up_to.map(String::from).unwrap_or_default();
        }
    }

    /// Notes that messages are about to leave the queue out of order: `leaving(n)` of the `n` that
    /// are ahead of a walk.
    pub(super) fn move_up(&mut self, taken: u64, leaving: impl Fn(usize) -> usize) {
        for walk in self.0.iter_mut().flat_map(|under_way| under_way.walks.iter_mut()) {
            let ahead = walk.begins_at.saturating_sub(taken) as usize;
            walk.begins_at -= leaving(ahead) as u64;
        }
    }

    fn front_mut(&mut self, taken: u64) -> Option<&mut Walk> {
        self.0.as_mut()?.walks.front_mut().filter(|walk| walk.begins_at <= taken)
    }

    fn end_first(&mut self) {
        if let Some(under_way) = &mut self.0 {
            if let Some(walk) = under_way.walks.pop_front() {
                under_way.numbers.remove(&walk.retained.filter);
            }
            under_way.tidy();
            self.0.take_if(|under_way| under_way.walks.is_empty());
        }
    }
}

impl WalksUnderWay {
    /// Removes cancelled walks from the front, and all of them if there are many.
    fn tidy(&mut self) {
        let Self { walks, numbers, .. } = self;
        let goes_on = |walk: &Walk| numbers.get(&walk.retained.filter) == Some(&walk.number);
        if walks.len() > 2 * numbers.len() + CANCELLED_MAX {
            walks.retain(goes_on);
        }
        while walks.front().is_some_and(|walk| !goes_on(walk)) {
            walks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(filter: &str) -> RetainedWalk {
        let (after, identifier) = (None, None);
        RetainedWalk { filter: filter.into(), qos: QoS::AtMostOnce, identifier, after, until: 0 }
    }

    /// Compares with a list that removes cancelled walks at once.
    #[test]
    fn walks_that_are_cancelled_or_begun_again_have_no_turn() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut walks, mut naive) = (Walks::default(), VecDeque::<String>::new());
        for _ in 0..20_000 {
            let filter = format!("f/{}", rng.usize(..40));
            match rng.u8(..8) {
                0..4 => {
                    walks.begin(walk(&filter), 0);
                    naive.retain(|known| *known != filter);
                    naive.push_back(filter);
                }
                4..6 => {
                    walks.cancel(&filter);
                    naive.retain(|known| *known != filter);
                }
                _ => {
                    walks.fetched(Vec::new(), None); // the first walk has no messages
                    if naive.pop_front().is_some() {
                        walks.next(0);
                    }
                }
            }
            let first = walks.first().map(|walk| walk.filter.to_string());
            assert_eq!(first.as_ref(), naive.front());
            assert_eq!(walks.is_empty(), naive.is_empty());
            let kept = walks.0.as_ref().map_or(0, |under_way| under_way.walks.len());
            assert!(kept <= 2 * naive.len() + CANCELLED_MAX, "{kept} for {}", naive.len());
        }
    }

    /// A hub subscribes twice to all its filters. This would take minutes if each walk were
    /// searched for.
    #[test]
    fn thousands_of_walks_are_begun_again_without_looking_for_each() {
        let mut walks = Walks::default();
        for filter in (0..2).flat_map(|_| (0..100_000).map(|n| format!("hub/device-{n}/state"))) {
            walks.begin(walk(&filter), 0);
        }
        let under_way = walks.0.expect("they go on");
        assert_eq!(under_way.numbers.len(), 100_000);
        assert!(under_way.walks.len() <= 200_000 + CANCELLED_MAX);
    }
}
