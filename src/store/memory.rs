//! A store that loses everything when it is dropped: for tests, and for embedded brokers without
//! durable data.
//!
//! It applies changes in the simplest way, and tests compare other stores with it. Knows no files.

mod histories;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::histories::Histories;
use super::{
    Backlog, Bounds, Durability, PageBounds, Store, StoreError, StoredInFlight, StoredRetained,
    StoredSession, Weight,
};
use crate::{
    history::ClientHistory,
    journal::{
        Change, LoginKey, QueuePlace, QueuedMessage, Record, RecordKey, SentAs, SessionNumber,
        SessionRecord, SubscriptionRecord, WillRecord,
    },
    mqtt::{Message, PacketId, Timestamp},
};

/// A store that loses everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bounds: Bounds,
    sessions: BTreeMap<SessionNumber, SessionInMemory>,
    retained: BTreeMap<Box<str>, StoredRetained>,
    logins: BTreeMap<LoginKey, Timestamp>,
    records: BTreeMap<RecordKey, Record>,
    histories: Histories,
}

#[derive(Debug)]
struct SessionInMemory {
    record: SessionRecord,
    subscriptions: BTreeMap<Box<str>, SubscriptionRecord>,
    accepted: BTreeSet<PacketId>,
    will: Option<WillRecord>,
    queue: BTreeMap<QueuePlace, MessageState>,
}

#[derive(Debug)]
enum MessageState {
    Waiting(QueuedMessage),
    Sent(QueuedMessage, SentAs),
    Released(SentAs),
}

impl Store for MemoryStore {
    fn apply(&self, changes: &[Change], _durability: Durability) -> Result<(), StoreError> {
        let mut state = self.state();
        for change in changes {
            state.apply(change);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn is_immediate(&self) -> bool {
        true
    }

    fn bounds(&self) -> Result<Bounds, StoreError> {
        Ok(self.state().bounds)
    }

    fn sessions(&self, each: &mut dyn FnMut(StoredSession)) -> Result<(), StoreError> {
        let numbers: Vec<_> = self.state().sessions.keys().copied().collect();
        for number in numbers {
            let stored = self.state().sessions.get(&number).map(|session| session.stored(number));
            stored.into_iter().for_each(&mut *each);
        }
        Ok(())
    }

    fn retained(&self, each: &mut dyn FnMut(StoredRetained)) -> Result<(), StoreError> {
        let messages: Vec<_> = self.state().retained.values().cloned().collect();
        messages.into_iter().for_each(each);
        Ok(())
    }

    fn logins(&self, each: &mut dyn FnMut(LoginKey, Timestamp)) -> Result<(), StoreError> {
        let logins = self.state().logins.clone();
        logins.into_iter().for_each(|(key, at)| each(key, at));
        Ok(())
    }

    fn records(&self, each: &mut dyn FnMut(RecordKey, Record)) -> Result<(), StoreError> {
        let records = self.state().records.clone();
        records.into_iter().for_each(|(key, record)| each(key, record));
        Ok(())
    }

    fn history(&self, client_id: &str) -> Result<Option<ClientHistory>, StoreError> {
        Ok(self.state().histories.find(client_id).cloned())
    }

    fn histories(&self, each: &mut dyn FnMut(ClientHistory)) -> Result<(), StoreError> {
        let rings: Vec<_> = self.state().histories.all().cloned().collect();
        rings.into_iter().for_each(each);
        Ok(())
    }

    fn in_flight(&self, session: SessionNumber) -> Result<Vec<StoredInFlight>, StoreError> {
        let state = self.state();
        // The queue has all states; those that wait were not sent.
        let queue = state.sessions.get(&session).into_iter().flat_map(|session| &session.queue);
        let mut in_flight: Vec<_> = queue
            .filter_map(|(&place, state)| match state {
                MessageState::Waiting(_) => None,
                MessageState::Sent(message, sent) => {
                    Some(StoredInFlight { place, sent: *sent, message: Some(message.clone()) })
                }
                MessageState::Released(sent) => {
                    Some(StoredInFlight { place, sent: *sent, message: None })
                }
            })
            .collect();
        // In the order of sending, in which they are sent again. [MQTT-4.4.0-1]
        in_flight.sort_by_key(|entry| (entry.sent.order, entry.place));
        Ok(in_flight)
    }

    fn waiting(
        &self,
        session: SessionNumber,
        from: QueuePlace,
        page: PageBounds,
    ) -> Result<Vec<(QueuePlace, QueuedMessage)>, StoreError> {
        let state = self.state();
        let mut messages = Vec::new();
        let mut bytes = 0;
        let session = state.sessions.get(&session);
        for (&place, queued) in session.into_iter().flat_map(|session| session.queue.range(from..))
        {
            let MessageState::Waiting(message) = queued else {
                continue;
            };
            bytes += message.message.size();
            let is_over = messages.len() >= page.messages_max || bytes > page.bytes_max;
            // The first message is returned even if it is too large, or the queue would never advance.
            if is_over && !messages.is_empty() {
                break;
            }
            messages.push((place, message.clone()));
        }
        Ok(messages)
    }
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::PutSession(number, record) => {
                // An older session is written again too, so the bound only rises.
                self.bounds.session = self.bounds.session.max(number.0);
                self.put_session(*number, record);
            }
            Change::EndSession(number) => {
                self.sessions.remove(number);
            }
            Change::Retain(message, owner) => {
                // The number of a message counts as used, also after the message is gone.
                self.note(message);
                let (message, owner) = (Arc::clone(message), owner.clone());
                self.retained.insert(message.topic().into(), StoredRetained { message, owner });
            }
            Change::ClearRetained(topic) => {
                self.retained.remove(topic);
            }
            Change::ReserveVersions(up_to) => {
                self.bounds.versions = self.bounds.versions.max(*up_to);
            }
            Change::Clock(now) => self.bounds.clock = self.bounds.clock.max(*now),
            Change::NoteLogin(key, at) => drop(self.logins.insert(*key, *at)),
            Change::ForgetLogin(key) => drop(self.logins.remove(key)),
            Change::PutRecord(key, record) => {
                self.bounds.revision = self.bounds.revision.max(record.revision);
                self.records.insert(key.as_ref().clone(), record.as_ref().clone());
            }
            // A removal uses a revision too, so that revisions go on rising after a restart.
            Change::RemoveRecord(key, revision) => {
                self.bounds.revision = self.bounds.revision.max(*revision);
                self.records.remove(key.as_ref());
            }
            Change::NoteConnections(connections) => self.histories.note(connections),
            Change::TidyHistory(tidy) => self.histories.tidy(tidy),
            Change::Enqueue(number, _, QueuedMessage { message, .. }, _) => {
                self.note(message);
                self.apply_to_session(*number, change);
            }
            Change::PutWill(number, will) => {
                self.note(&will.message);
                self.apply_to_session(*number, change);
            }
            Change::Subscribe(number, ..)
            | Change::Unsubscribe(number, _)
            | Change::Send(number, ..)
            | Change::Release(number, _)
            | Change::Dequeue(number, _)
            | Change::Accept(number, _)
            | Change::Forget(number, _)
            | Change::DropWill(number) => self.apply_to_session(*number, change),
        }
    }

    fn note(&mut self, message: &Message) {
        let number = message.number().map_or(0, |number| number.get());
        self.bounds.message = self.bounds.message.max(number);
    }

    fn put_session(&mut self, number: SessionNumber, record: &SessionRecord) {
        // A session that exists keeps its parts; only its own record changes.
        if let Some(session) = self.sessions.get_mut(&number) {
            session.record = record.clone();
            return;
        }
        let session = SessionInMemory {
            record: record.clone(),
            subscriptions: BTreeMap::new(),
            accepted: BTreeSet::new(),
            will: None,
            queue: BTreeMap::new(),
        };
        self.sessions.insert(number, session);
    }

    fn apply_to_session(&mut self, number: SessionNumber, change: &Change) {
        if let Some(session) = self.sessions.get_mut(&number) {
            session.apply(change);
        }
    }
}

impl SessionInMemory {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Subscribe(_, filter, subscription) => {
                self.subscriptions.insert(filter.clone(), *subscription);
            }
            Change::Unsubscribe(_, filter) => {
                self.subscriptions.remove(filter);
            }
            Change::Enqueue(_, place, message, sent) => {
                let message = message.clone();
                let queued = match *sent {
                    None => MessageState::Waiting(message),
                    Some(sent) => MessageState::Sent(message, sent),
                };
                self.queue.insert(*place, queued);
            }
            Change::Send(_, place, sent) => self.change_place(*place, |queued| match queued {
                MessageState::Waiting(message) | MessageState::Sent(message, _) => {
                    MessageState::Sent(message, *sent)
                }
                // After PUBREC, the content is gone for good.
                MessageState::Released(_) => MessageState::Released(*sent),
            }),
            Change::Release(_, place) => self.change_place(*place, |queued| match queued {
                MessageState::Sent(_, sent) | MessageState::Released(sent) => {
                    MessageState::Released(sent)
                }
                MessageState::Waiting(message) => MessageState::Waiting(message), // not sent yet
            }),
            Change::Dequeue(_, place) => {
                self.queue.remove(place);
            }
            Change::Accept(_, packet_id) => {
                self.accepted.insert(*packet_id);
            }
            Change::Forget(_, packet_id) => {
                self.accepted.remove(packet_id);
            }
            Change::PutWill(_, will) => self.will = Some(will.as_ref().clone()),
            Change::DropWill(_) => self.will = None,
            Change::PutSession(..)
            | Change::EndSession(_)
            | Change::Retain(..)
            | Change::ClearRetained(_)
            | Change::ReserveVersions(_)
            | Change::Clock(_)
            | Change::NoteLogin(..)
            | Change::ForgetLogin(_)
            | Change::PutRecord(..)
            | Change::RemoveRecord(..)
            | Change::NoteConnections(_)
            | Change::TidyHistory(_) => {}
        }
    }

    fn change_place(
        &mut self,
        place: QueuePlace,
        change: impl FnOnce(MessageState) -> MessageState,
    ) {
        if let Some(queued) = self.queue.remove(&place) {
            self.queue.insert(place, change(queued));
        }
    }

    fn stored(&self, number: SessionNumber) -> StoredSession {
        let mut waiting = Backlog::default();
        let mut in_flight_bytes = 0;
        for (place, queued) in &self.queue {
            match queued {
                MessageState::Waiting(QueuedMessage { message, qos, .. }) => {
                    let expires_at = message.publication().expires_at;
                    let weight = Weight { qos: *qos, size: message.size(), expires_at };
                    waiting.add(*place, &weight);
                }
                MessageState::Sent(message, _) => in_flight_bytes += message.message.size(),
                // Only its PUBREL is left to send, and its content is gone.
                MessageState::Released(_) => {}
            }
        }
        let subscriptions = self.subscriptions.iter();
        StoredSession {
            number,
            record: self.record.clone(),
            subscriptions: subscriptions.map(|(filter, of)| (filter.clone(), *of)).collect(),
            accepted: self.accepted.iter().copied().collect(),
            will: self.will.clone(),
            waiting,
            // Everything in the queue waits or is in flight.
            in_flight: self.queue.len() - waiting.messages,
            in_flight_bytes,
            last_place: self.queue.keys().next_back().copied().unwrap_or(QueuePlace(0)),
        }
    }
}
