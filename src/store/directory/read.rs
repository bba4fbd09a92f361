//! Reads the stored state and assembles it from its records.
//!
//! Sessions come from one ordered pass over each keyspace, in parallel, so that a start with very
//! many sessions needs no lookups. Knows no changes.

use std::sync::Arc;

use super::{
    keys::{self, Space, meta},
    records::{self, Content, QueueEntry},
    rings, shared_records,
    view::{BySession, View},
};
use crate::{
    history::ClientHistory,
    journal::{LoginKey, QueuePlace, QueuedMessage, Record, RecordKey, Revision, SessionNumber},
    mqtt::Timestamp,
    store::{
        Backlog, Bounds, PageBounds, StoreError, StoredInFlight, StoredRetained, StoredSession,
    },
};

pub(super) fn bounds(view: &View<'_>) -> Result<Bounds, StoreError> {
    // A counter that was never written begins at 0.
    let number = |key| match view.read(Space::Meta, key)? {
        None => Ok(0),
        Some(value) => {
            let number = records::decode_number(&value);
            number.ok_or_else(|| view.damaged("a counter cannot be read"))
        }
    };
    Ok(Bounds {
        versions: number(meta::VERSIONS)?,
        session: number(meta::SESSION)?,
        message: number(meta::MESSAGE)?,
        clock: Timestamp(number(meta::CLOCK)?),
        revision: Revision(number(meta::REVISION)?),
    })
}

pub(super) fn sessions(
    view: &View<'_>,
    each: &mut dyn FnMut(StoredSession),
) -> Result<(), StoreError> {
    let mut parts = SessionParts {
        wills: BySession::new(view, Space::Wills)?,
        subscriptions: BySession::new(view, Space::Subscriptions)?,
        accepted: BySession::new(view, Space::Accepted)?,
        queue: BySession::new(view, Space::Queue)?,
        sent: BySession::new(view, Space::Sent)?,
        sent_places: Vec::new(),
    };
    // Keys sort by session number in every keyspace, so all passes move forward together.
    for entry in view.all(Space::Sessions) {
        let (key, value) = entry?;
        let number = keys::split(&key).map(|(number, _)| SessionNumber(number));
        let session = number.zip(records::decode_session(&value));
        let (number, record) = session.ok_or_else(|| view.damaged("a session cannot be read"))?;
        let mut stored = StoredSession {
            number,
            record,
            subscriptions: Vec::new(),
            accepted: Vec::new(),
            will: None,
            waiting: Backlog::default(),
            in_flight: 0,
            in_flight_bytes: 0,
            last_place: QueuePlace(0),
        };
        parts.add_state(view, &mut stored)?;
        parts.add_queue(view, &mut stored)?;
        // One at a time, so that the pass itself holds one session.
        each(stored);
    }
    Ok(())
}

/// One pass over each keyspace with parts of sessions.
struct SessionParts<'a> {
    wills: BySession<'a>,
    subscriptions: BySession<'a>,
    accepted: BySession<'a>,
    queue: BySession<'a>,
    sent: BySession<'a>,
    /// Reused for each session to save allocations.
    sent_places: Vec<QueuePlace>,
}

impl SessionParts<'_> {
    fn add_state(&mut self, view: &View<'_>, to: &mut StoredSession) -> Result<(), StoreError> {
        if let Some((_, value)) = self.wills.next_of(to.number)? {
            let will = records::decode_will(&value);
            to.will = Some(will.ok_or_else(|| view.damaged("a Will cannot be read"))?);
        }
        while let Some((_, value)) = self.subscriptions.next_of(to.number)? {
            let subscription = records::decode_subscription(&value);
            let damaged = || view.damaged("a subscription cannot be read");
            to.subscriptions.push(subscription.ok_or_else(damaged)?);
        }
        while let Some((key, _)) = self.accepted.next_of(to.number)? {
            let packet_id = keys::split(&key).and_then(|(_, rest)| keys::packet_id(rest));
            let damaged = || view.damaged("a Packet Identifier cannot be read");
            to.accepted.push(packet_id.ok_or_else(damaged)?);
        }
        Ok(())
    }

    fn add_queue(&mut self, view: &View<'_>, to: &mut StoredSession) -> Result<(), StoreError> {
        let place_of = |key: &[u8]| {
            let place = keys::split_place(key).map(|(_, place)| place);
            place.ok_or_else(|| view.damaged("a place in a queue cannot be read"))
        };
        // The buffer is reused, because most sessions have nothing in flight.
        self.sent_places.clear();
        while let Some((key, _)) = self.sent.next_of(to.number)? {
            self.sent_places.push(place_of(&key)?);
        }
        to.in_flight = self.sent_places.len();
        // The last place is the highest of both, because a released message is in `sent` only.
        to.last_place = self.sent_places.last().copied().unwrap_or(QueuePlace(0));
        let mut sent = self.sent_places.iter().copied().peekable();
        while let Some((key, value)) = self.queue.next_of(to.number)? {
            let place = place_of(&key)?;
            to.last_place = to.last_place.max(place);
            // A released message has an entry in `sent` but none in `queue`.
            while sent.next_if(|sent| *sent < place).is_some() {}
            let weight = records::weigh_queued(&value);
            let weight = weight.ok_or_else(|| view.damaged("a queued message cannot be read"))?;
            // A message in flight is not waiting, and counts for its own sum.
            if sent.peek() == Some(&place) {
                to.in_flight_bytes += weight.size;
                continue;
            }
            to.waiting.add(place, &weight);
        }
        Ok(())
    }
}

pub(super) fn logins(
    view: &View<'_>,
    each: &mut dyn FnMut(LoginKey, Timestamp),
) -> Result<(), StoreError> {
    for entry in view.all(Space::Logins) {
        let (key, value) = entry?;
        let key = LoginKey::try_from(&*key).ok();
        let login = key.zip(records::decode_number(&value));
        let (key, at) = login.ok_or_else(|| view.damaged("a login cannot be read"))?;
        each(key, Timestamp(at));
    }
    Ok(())
}

pub(super) fn records(
    view: &View<'_>,
    each: &mut dyn FnMut(RecordKey, Record),
) -> Result<(), StoreError> {
    for entry in view.all(Space::Records) {
        let (key, value) = entry?;
        let record = keys::split_record(&key).zip(shared_records::decode(&value));
        let (key, record) = record.ok_or_else(|| view.damaged("a record cannot be read"))?;
        each(key, record);
    }
    Ok(())
}

pub(super) fn history(
    view: &View<'_>,
    client_id: &str,
) -> Result<Option<ClientHistory>, StoreError> {
    let value = view.read(Space::History, &keys::history(client_id))?;
    value.map(|value| history_of(view, &value)).transpose()
}

pub(super) fn histories(
    view: &View<'_>,
    each: &mut dyn FnMut(ClientHistory),
) -> Result<(), StoreError> {
    for entry in view.all(Space::History) {
        each(history_of(view, &entry?.1)?);
    }
    Ok(())
}

fn history_of(view: &View<'_>, value: &[u8]) -> Result<ClientHistory, StoreError> {
    rings::decode(value).ok_or_else(|| view.damaged("the history of a client cannot be read"))
}

pub(super) fn retained(
    view: &View<'_>,
    each: &mut dyn FnMut(StoredRetained),
) -> Result<(), StoreError> {
    for entry in view.all(Space::Retained) {
        let retained = records::decode_retained(&entry?.1);
        each(retained.ok_or_else(|| view.damaged("a retained message cannot be read"))?);
    }
    Ok(())
}

pub(super) fn in_flight(
    view: &View<'_>,
    session: SessionNumber,
) -> Result<Vec<StoredInFlight>, StoreError> {
    let mut in_flight = Vec::new();
    for entry in view.beginning(Space::Sent, &keys::session(session)) {
        let (key, value) = entry?;
        let read = keys::split_place(&key).zip(records::decode_sent(&value));
        let damaged = || view.damaged("the record of a sent message cannot be read");
        let ((_, place), record) = read.ok_or_else(damaged)?;
        // A released message has no content any more; only its PUBREL is left to send.
        let message = match view.read(Space::Queue, &key)? {
            Some(value) => Some(queued(view, &value)?),
            None if record.is_released => None,
            None => return Err(view.damaged("a sent message is missing")),
        };
        in_flight.push(StoredInFlight { place, sent: record.sent, message });
    }
    // In the order of sending, in which they are sent again. [MQTT-4.4.0-1]
    in_flight.sort_by_key(|entry| (entry.sent.order, entry.place));
    Ok(in_flight)
}

pub(super) fn waiting(
    view: &View<'_>,
    session: SessionNumber,
    from: QueuePlace,
    page: PageBounds,
) -> Result<Vec<(QueuePlace, QueuedMessage)>, StoreError> {
    let (first, last) = (keys::place(session, from), keys::place(session, QueuePlace(u64::MAX)));
    // Messages in flight are passed over, because they do not wait any more.
    let mut sent = view.between(Space::Sent, &first, &last).peekable();
    let mut messages = Vec::new();
    let mut bytes = 0;
    for entry in view.between(Space::Queue, &first, &last) {
        let (key, value) = entry?;
        // Both passes are in key order, so the entry of a sent message comes up beside it.
        while sent.next_if(|sent| sent.as_ref().is_ok_and(|(sent, _)| sent < &key)).is_some() {}
        match sent.peek() {
            Some(Ok((sent, _))) if *sent == key => continue,
            Some(Err(_)) => {
                sent.next().transpose()?;
            }
            Some(Ok(_)) | None => {}
        }
        let weight = records::weigh_queued(&value);
        // Counted before it is decoded, so that a page beyond its bound reads nothing large.
        bytes += weight.ok_or_else(|| view.damaged("a queued message cannot be read"))?.size;
        // The first message is returned even if it is too large, or the queue would never advance.
        let is_over = messages.len() >= page.messages_max || bytes > page.bytes_max;
        if is_over && !messages.is_empty() {
            break;
        }
        let place = keys::split_place(&key).map(|(_, place)| place);
        let place = place.ok_or_else(|| view.damaged("a place in a queue cannot be read"))?;
        messages.push((place, queued(view, &value)?));
    }
    Ok(messages)
}

/// Returns the message of a queue record.
fn queued(view: &View<'_>, value: &[u8]) -> Result<QueuedMessage, StoreError> {
    let entry: QueueEntry = records::decode_queued(value)
        .ok_or_else(|| view.damaged("a queued message cannot be read"))?;
    let message = match &entry.content {
        Content::Message(message) => Arc::clone(message),
        Content::Number(number) => {
            let value = view.read(Space::Messages, &keys::message(number.get()))?;
            let value = value.ok_or_else(|| view.damaged("a queued message is missing"))?;
            // A mismatch means damage, and a wrong message must not be delivered.
            let message = records::decode_message(&value).filter(|message| {
                message.size() == entry.size && message.number() == Some(*number)
            });
            Arc::new(message.ok_or_else(|| view.damaged("a message cannot be read"))?)
        }
    };
    Ok(entry.with_message(message))
}
