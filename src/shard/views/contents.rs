//! Answers questions about what a session contains, and clears its queue, in portions.
//!
//! A page of a queue has what waits in memory, and behind it what waits in the store alone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::oneshot, task::yield_now, time::sleep};

use crate::{
    control::{
        ControlError, ListQueue, ListSubscriptions, MessageProperties, QueuePage, QueuePosition,
        SubscriptionPage, SubscriptionView, WaitingMessage,
    },
    journal::{QueuePlace, Ticket},
    metrics::DropReason,
    mqtt::{Message, QoS, Timestamp},
    router::Place,
    session::SubscribedAs,
    shard::{Shard, SharedShard, Slot, chores::SUBSCRIPTIONS_AT_A_TIME},
    store::PageBounds,
};

/// Messages that are examined in one portion.
const MESSAGES_AT_A_TIME: usize = 64;
/// Maximum part of a queue that is read from the store in one portion.
const PAGE: PageBounds = PageBounds { messages_max: MESSAGES_AT_A_TIME, bytes_max: 64 * 1024 };
/// Bytes of topics, payloads and properties in one page; the last message may exceed it.
const BYTES_PER_PAGE: usize = 4 * 1024 * 1024;
/// The pause until a change may have been stored.
const PAUSE: Duration = Duration::from_millis(5);
/// Maximum number of these pauses.
const PAUSES_MAX: usize = 800;

/// Returns a page of a client's subscriptions; `None` if there is no such session.
pub(crate) async fn list_subscriptions(
    shard: &SharedShard,
    request: ListSubscriptions,
) -> Option<SubscriptionPage> {
    let ListSubscriptions { client_id, after, limit, .. } = request;
    let limit = limit.max(1);
    // The first ones behind `after` that were found so far, and one more.
    let mut first: BTreeMap<Arc<str>, SubscribedAs> = BTreeMap::new();
    // The walk follows the order of the table and not of the filters, so all must be seen for each page.
    let (place, mut walk) = {
        let shard = shard.borrow();
        let slot = shard.known(&client_id)?;
        (shard.place(slot)?, shard.slot(slot)?.session.walk_all())
    };
    'walk: loop {
        {
            let shard = shard.borrow();
            // The session ended during the walk; the page has what was found.
            let Some(found) = shard.slot_at(place) else { break };
            for _ in 0..SUBSCRIPTIONS_AT_A_TIME {
                let Some((filter, subscribed)) = found.session.next_of_walk(&mut walk) else {
                    break 'walk;
                };
                let is_behind = after.as_deref().is_none_or(|after| filter > after);
                // One more than the limit is kept, which tells whether there is another page.
                let is_among = first.len() <= limit
                    || first.last_key_value().is_some_and(|(last, _)| filter < &**last);
                if is_behind && is_among {
                    first.insert(filter.into(), subscribed);
                    if first.len() > limit + 1 {
                        first.pop_last();
                    }
                }
            }
        }
        // The borrow has ended, so other tasks of the shard run here.
        yield_now().await;
    }
    let has_more = first.len() > limit;
    let mut page: Vec<_> = first.into_iter().map(|(filter, as_)| view(filter, as_)).collect();
    page.truncate(limit);
    let next = page.last().filter(|_| has_more).map(|last| last.filter.clone());
    Some(SubscriptionPage::new(page, next))
}

fn view(filter: Arc<str>, subscribed: SubscribedAs) -> SubscriptionView {
    let SubscribedAs { options, identifier } = subscribed;
    SubscriptionView {
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        retain_handling: options.retain_handling,
        identifier,
        ..SubscriptionView::new(filter, options.qos)
    }
}

/// A page of a queue, and the progress of reading it.
struct QueueSearch {
    place: Place,
    is_durable: bool,
    /// The ticket that the store must have written before its pages are up to date.
    written: Option<Ticket>,
    limit: usize,
    has_payloads: bool,
    /// When the search began.
    now: Timestamp,
    /// The position behind which the search continues.
    after: Option<QueuePosition>,
    messages: Vec<WaitingMessage>,
    bytes: usize,
    has_more: bool,
}

/// The result of a portion of a search.
enum QueuePortion {
    /// There may be more.
    More,
    /// The store must write first.
    Waits,
    /// The page is complete.
    Complete,
}

/// Returns a page of the messages that wait for a client; `None` if there is no such session.
pub(crate) async fn list_queue(
    shard: &SharedShard,
    request: ListQueue,
) -> Result<Option<QueuePage>, ControlError> {
    let Some(mut search) = shard.borrow().begin_search(&request) else { return Ok(None) };
    let mut pauses = 0;
    loop {
        let portion = shard.borrow().search_queue(&mut search)?;
        match portion {
            QueuePortion::Complete => break,
            QueuePortion::More => yield_now().await,
            // The store may be in trouble, so the caller does not wait without end.
            QueuePortion::Waits if pauses >= PAUSES_MAX => return Err(ControlError::Timeout),
            QueuePortion::Waits => {
                pauses += 1;
                sleep(PAUSE).await;
            }
        }
    }
    let next = search.after.filter(|_| search.has_more);
    Ok(Some(QueuePage::new(search.messages, next)))
}

impl QueueSearch {
    /// Adds a message; returns whether the page is complete without it.
    fn is_full(
        &mut self,
        at: QueuePosition,
        message: &Message,
        (qos, retain): (QoS, bool),
    ) -> bool {
        // Checked before the message is added, so `has_more` is true only if there is another one.
        if self.messages.len() >= self.limit || self.bytes >= BYTES_PER_PAGE {
            self.has_more = true;
            return true;
        }
        // The next page begins behind this message.
        self.after = Some(at);
        self.bytes += message.topic().len();
        let properties = self.has_payloads.then(|| MessageProperties::of(message));
        // Payloads count only if they are sent.
        self.bytes += if self.has_payloads { message.payload().len() } else { 0 };
        self.bytes += properties.as_ref().map_or(0, MessageProperties::bytes);
        let (expires_at, received_at) = (message.expires_at(), message.received_at());
        self.messages.push(WaitingMessage {
            retain,
            payload: self.has_payloads.then(|| message.payload_bytes()),
            properties,
            expires_at_millis: expires_at.map(|at| at.millis()),
            received_at_millis: received_at.map(Timestamp::millis),
            age_millis: received_at.map(|at| self.now.millis().saturating_sub(at.millis())),
            ..WaitingMessage::new(message.topic(), qos, message.payload().len())
        });
        false
    }
}

impl Shard {
    /// Returns the slot of a client that has a connection or a session.
    pub(in crate::shard) fn known(&self, client_id: &str) -> Option<u32> {
        self.clients.get(client_id).copied().filter(|slot| !self.is_last_will(*slot))
    }

    fn begin_search(&self, request: &ListQueue) -> Option<QueueSearch> {
        let slot = self.known(&request.client_id)?;
        let is_durable = self.slot(slot)?.session.number().is_some();
        Some(QueueSearch {
            place: self.place(slot)?,
            is_durable,
            written: self.noted_so_far(),
            limit: request.limit.max(1),
            has_payloads: request.has_payloads,
            now: self.core.clock.now(),
            after: request.after,
            messages: Vec::new(),
            bytes: 0,
            has_more: false,
        })
    }

    /// Examines a portion of a queue.
    fn search_queue(&self, search: &mut QueueSearch) -> Result<QueuePortion, ControlError> {
        let Some(found) = self.slot_at(search.place) else { return Ok(QueuePortion::Complete) };
        match search.after {
            Some(QueuePosition::InMemory(after)) => Ok(search_memory(found, search, after + 1)),
            _ if !search.is_durable => Ok(search_memory(found, search, 0)),
            after => {
                let after = match after {
                    Some(QueuePosition::Stored(after)) => QueuePlace(after),
                    _ => QueuePlace(0),
                };
                self.search_stored(found, search, after)
            }
        }
    }

    /// Examines stored messages behind a place: those that are in memory too, then the others.
    fn search_stored(
        &self,
        found: &Slot,
        search: &mut QueueSearch,
        after: QueuePlace,
    ) -> Result<QueuePortion, ControlError> {
        let mut examined = 0;
        // Messages in memory are the head of the queue, so they come before the next page of the store.
        for waiting in found.session.waiting_from(0) {
            let Some(place) = waiting.stored_at.filter(|place| *place > after) else { continue };
            if examined >= MESSAGES_AT_A_TIME {
                return Ok(QueuePortion::More);
            }
            examined += 1;
            let as_ = (waiting.qos, waiting.retain);
            if search.is_full(QueuePosition::Stored(place.0), waiting.message, as_) {
                return Ok(QueuePortion::Complete);
            }
        }
        // Memory may have changed when the next portion begins, so the store is read only if memory
        // has no more.
        if examined > 0 {
            return Ok(QueuePortion::More);
        }
        let unread = found.session.unread_from().zip(self.core.keeper.as_ref());
        let Some(((number, from), keeper)) = unread else {
            return Ok(search_memory(found, search, 0));
        };
        // A page of the store misses messages whose changes are still on their way.
        if !self.is_written(search.written) {
            return Ok(QueuePortion::Waits);
        }
        let from = from.max(QueuePlace(after.0.saturating_add(1)));
        let page = keeper.store().waiting(number, from, PAGE);
        let page = page.map_err(|_| ControlError::Unavailable)?;
        if page.is_empty() {
            return Ok(search_memory(found, search, 0));
        }
        for (place, queued) in page {
            let at = QueuePosition::Stored(place.0);
            let as_ = (queued.qos, queued.retain);
            // The store still has it, but another member of the group took it, or it has expired.
            let is_waiting = !found.session.was_taken_out(place);
            if is_waiting && search.is_full(at, &queued.message, as_) {
                return Ok(QueuePortion::Complete);
            }
            // Also for a message that is not shown; the next portion must not read it again.
            search.after = Some(at);
        }
        Ok(QueuePortion::More)
    }

    /// Drops some of the messages that wait for a session; returns how many, and whether others must
    /// be stored first.
    fn clear_portion(&mut self, place: Place, messages_max: usize) -> Option<usize> {
        let now = self.core.clock.now();
        self.slot_at(place)?;
        let mut dropped = self.slots[place.slot as usize].session.clear_some(messages_max);
        if dropped == 0 && self.read_page(place.slot) {
            dropped = self.slots.get_mut(place.slot as usize)?.session.clear_some(messages_max);
        }
        self.count_dropped(place.slot, DropReason::Cleared, dropped);
        self.note_taken(place.slot, now);
        self.flush();
        Some(dropped)
    }
}

/// Examines messages in memory from a position on. Of a durable session only those that are not
/// stored, because the others came before.
fn search_memory(found: &Slot, search: &mut QueueSearch, from: u64) -> QueuePortion {
    let mut waiting = found.session.waiting_from(from);
    for waiting in waiting.by_ref().take(MESSAGES_AT_A_TIME) {
        let at = QueuePosition::InMemory(waiting.position);
        if search.is_durable && waiting.stored_at.is_some() {
            continue;
        }
        if search.is_full(at, waiting.message, (waiting.qos, waiting.retain)) {
            return QueuePortion::Complete;
        }
    }
    match waiting.next() {
        Some(next) => {
            search.after = Some(QueuePosition::InMemory(next.position.saturating_sub(1)));
            QueuePortion::More
        }
        None => QueuePortion::Complete,
    }
}

/// Drops the messages that wait for a client now; returns how many, after the store agrees. `None`
/// if there is no such session.
pub(crate) async fn clear_queue(
    shard: &SharedShard,
    client_id: &str,
) -> Result<Option<u64>, ControlError> {
    // What comes after this moment is not cleared, so a busy queue ends the call all the same.
    let begun = {
        let shard = shard.borrow();
        let slot = shard.known(client_id);
        slot.and_then(|slot| Some((shard.place(slot)?, shard.slot(slot)?.session.queued())))
    };
    let Some((place, mut left)) = begun else { return Ok(None) };
    let (mut cleared, mut pauses) = (0, 0);
    // Portions, because dropping a message writes a change to the store.
    while left > 0 {
        let dropped = shard.borrow_mut().clear_portion(place, left.min(MESSAGES_AT_A_TIME));
        let Some(dropped) = dropped else { break };
        (cleared, left) = (cleared + dropped as u64, left - dropped);
        if dropped > 0 {
            yield_now().await;
            continue;
        }
        let is_empty = shard.borrow().slot_at(place).is_none_or(|it| it.session.queued() == 0);
        if is_empty {
            break; // The client has received them.
        }
        // Messages that are on their way to the store cannot be dropped yet.
        if pauses >= PAUSES_MAX {
            return Err(ControlError::Timeout);
        }
        pauses += 1;
        sleep(PAUSE).await;
    }
    let (stored, is_stored) = oneshot::channel();
    {
        // The caller is told when the last of the changes is stored, not when it is handed over.
        let mut shard = shard.borrow_mut();
        shard.tell_when_stored(stored);
        shard.flush();
    }
    let _ = is_stored.await;
    Ok(Some(cleared))
}
