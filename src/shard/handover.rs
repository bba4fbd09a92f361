//! A session moves to another node, or comes from one.
//!
//! The former holder ends the connection, and keeps the session until the new one has stored and confirmed it. The
//! session travels as its store has it, and begins on the new node as if a start had found it. So a broker without a
//! store hands nothing over. Called by the registry, which flushes and waits for the store afterwards; does not know how
//! a session travels.

use std::sync::Arc;

use crate::{
    hooks::DisconnectReason,
    journal::{
        Change, QueuePlace, QueuedMessage, SentAs, SessionRecord, SubscriptionRecord, WillRecord,
    },
    mqtt::{Message, PacketId, Publication, QoS, ReasonCode, Timestamp},
    shard::{Departure, Shard, keeping::restore::FoundSession},
    store::{Backlog, PageBounds, StoreError, StoredInFlight, StoredSession, Weight},
};

/// Messages that are read from the store at a time.
const PAGE: PageBounds = PageBounds { messages_max: 1_024, bytes_max: 1024 * 1024 };

/// Messages of the rest of a session that travel at a time.
const REST_PAGE: PageBounds = PageBounds { messages_max: 256, bytes_max: 256 * 1024 };

/// A session without its connection, as it travels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MovingSession {
    pub(crate) record: SessionRecord,
    pub(crate) subscriptions: Vec<(Box<str>, SubscriptionRecord)>,
    pub(crate) accepted: Vec<PacketId>,
    /// While it is delayed.
    pub(crate) will: Option<WillRecord>,
    /// In the order in which they were sent; without the message after PUBREC.
    pub(crate) in_flight: Vec<(PacketId, Option<QueuedMessage>)>,
    pub(crate) waiting: Vec<QueuedMessage>,
    /// The number of the first waiting messages that may have been sent.
    pub(crate) doubtful: usize,
    /// The place of the first message that it does not have, because the message comes later.
    pub(crate) rest_from: QueuePlace,
}

/// Messages that a node has taken for a session which has left it.
#[derive(Debug)]
pub(crate) struct RestPage {
    /// In their order; none if there are no more.
    pub(crate) messages: Vec<QueuedMessage>,
    /// The place behind them in the queue of this node.
    pub(crate) next: u64,
}

/// The session of a client that another node has claimed.
#[derive(Debug)]
pub(crate) enum Offered {
    /// It can be handed over, and stays until the other node has it.
    Session(Box<MovingSession>),
    /// There is none any more.
    Nothing,
    /// It is there, and cannot be read from the store now.
    Unreadable,
}

impl Shard {
    /// Ends the connection of a client by Session taken over, and keeps its session if it lasts and is stored; returns
    /// whether it does. Otherwise the session ends.
    pub(crate) fn part_from(&mut self, client_id: &str, now: Timestamp) -> bool {
        let Some(slot) = self.clients.get(client_id).copied() else { return false };
        let lasts = |shard: &Self| {
            shard.is_durable(slot)
                && shard.slot(slot).is_some_and(|found| found.session.expiry_interval_secs() > 0)
        };
        let stays = lasts(self);
        self.charge_leaving(slot);
        let taken_over = Departure {
            code: Some(ReasonCode::SessionTakenOver), // [MQTT-3.1.4-3]
            ends_session: !stays,
            ..Departure::unannounced(DisconnectReason::Takeovered)
        };
        self.end_connection(slot, taken_over, now);
        if !stays {
            self.drop_session(client_id, false, now); // An absent client had no connection to end.
        }
        if stays {
            self.note_session(slot, false); // All that was noted before is stored when this is.
        }
        stays
    }

    /// Returns the session of an absent client, as the store has it.
    pub(crate) fn offered(&self, client_id: &str) -> Offered {
        match self.moving_session(client_id) {
            Ok(Some(session)) => Offered::Session(Box::new(session)),
            Ok(None) => Offered::Nothing,
            Err(error) => {
                if let Some(slot) = self.clients.get(client_id) {
                    self.tell_unreadable(*slot, &error);
                }
                Offered::Unreadable
            }
        }
    }

    /// Returns messages of an absent client from this place on, as the store has them.
    pub(crate) fn rest_of(
        &self,
        client_id: &str,
        from: QueuePlace,
    ) -> Result<RestPage, StoreError> {
        let number = self.find(client_id).and_then(|found| found.session.number());
        let (Some(keeper), Some(number)) = (&self.core.keeper, number) else {
            return Ok(RestPage { messages: Vec::new(), next: from.0 });
        };
        let page = keeper.store().waiting(number, from, REST_PAGE)?;
        let next = page.last().map_or(from.0, |(last, _)| last.0 + 1);
        Ok(RestPage { messages: page.into_iter().map(|(_, queued)| queued).collect(), next })
    }

    fn moving_session(&self, client_id: &str) -> Result<Option<MovingSession>, StoreError> {
        let slot = self.clients.get(client_id).copied();
        let Some(found) = slot.and_then(|slot| self.slot(slot)) else { return Ok(None) };
        let (Some(keeper), Some(number)) = (&self.core.keeper, found.session.number()) else {
            return Ok(None);
        };
        let record = found.record(false, &*self.core.authorizer);
        let subscriptions = found.session.subscriptions().map(|(filter, as_)| {
            let is_withdrawn = false;
            let (options, identifier) = (as_.options, as_.identifier);
            (filter.into(), SubscriptionRecord { options, identifier, is_withdrawn })
        });
        let in_flight = keeper.store().in_flight(number)?;
        let in_flight = in_flight
            .into_iter()
            .map(|StoredInFlight { sent, message, .. }| (sent.packet_id, message));
        let (mut waiting, mut doubtful, mut from) = (Vec::new(), 0, QueuePlace(0));
        loop {
            let page = keeper.store().waiting(number, from, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            from = QueuePlace(last.0 + 1);
            doubtful += page.iter().filter(|(place, _)| *place <= record.doubtful_up_to).count();
            waiting.extend(page.into_iter().map(|(_, queued)| queued));
        }
        Ok(Some(MovingSession {
            subscriptions: subscriptions.collect(),
            accepted: found.session.accepted(),
            will: self.delayed_will(slot.unwrap_or_default()),
            in_flight: in_flight.collect(),
            waiting,
            doubtful,
            rest_from: from,
            record,
        }))
    }

    /// Ends the session of an absent client. `has_moved`: another node has it, with its Will and its messages.
    pub(crate) fn drop_session(&mut self, client_id: &str, has_moved: bool, now: Timestamp) {
        let Some(slot) = self.clients.get(client_id).copied() else { return };
        let Some(found) = self.slot_mut(slot).filter(|found| found.connected.is_none()) else {
            return;
        };
        if has_moved {
            found.will = None;
        }
        self.forget_as(slot, now, has_moved);
    }

    /// Begins a session that has come from another node, in the place of one that lies here; returns it in the form of
    /// a session that a start has found. Its changes are noted: they must be stored before another node forgets it.
    pub(crate) fn take_moved(&mut self, moved: MovingSession) -> Option<StoredSession> {
        let keeper = self.core.keeper.clone()?;
        let number = keeper.next_session();
        let MovingSession {
            mut record,
            subscriptions,
            accepted,
            will,
            in_flight,
            waiting,
            doubtful,
            rest_from: _,
        } = moved;
        record.doubtful_up_to = QueuePlace((in_flight.len() + doubtful) as u64);
        self.note(|| Change::PutSession(number, Box::new(record.clone())));
        for (filter, subscription) in &subscriptions {
            self.note(|| Change::Subscribe(number, filter.clone(), *subscription));
        }
        for id in &accepted {
            self.note(|| Change::Accept(number, *id));
        }
        let mut place = QueuePlace(0);
        let (messages_in_flight, mut in_flight_bytes) = (in_flight.len(), 0);
        for (packet_id, queued) in in_flight {
            place.0 += 1;
            let sent = Some(SentAs { packet_id, order: place.0 });
            let is_released = queued.is_none();
            let queued = queued.unwrap_or_else(released);
            if !is_released {
                in_flight_bytes += queued.message.size();
            }
            self.note(|| Change::Enqueue(number, place, queued, sent));
            if is_released {
                self.note(|| Change::Release(number, place));
            }
        }
        let mut backlog = Backlog::default();
        for queued in waiting {
            place.0 += 1;
            let (qos, size) = (queued.qos, queued.message.size());
            backlog.add(place, &Weight { qos, size, expires_at: queued.message.expires_at() });
            self.note(|| Change::Enqueue(number, place, queued, None));
        }
        Some(StoredSession {
            number,
            record,
            subscriptions,
            accepted,
            will,
            waiting: backlog,
            in_flight: messages_in_flight,
            in_flight_bytes,
            last_place: place,
        })
    }

    /// Ends a session that lies here, and begins the one that has come from another node.
    pub(crate) fn begin_moved(&mut self, found: &FoundSession, now: Timestamp) {
        let client_id = &found.session.record.client_id;
        let formerly = self.places_here(client_id);
        self.drop_session(client_id, true, now);
        self.restore(found, &mut Arc::from(""), now);
        self.begin_arriving(client_id, formerly);
    }
}

/// Returns a message in the place of one that is not needed after PUBREC.
fn released() -> QueuedMessage {
    let publication = Publication {
        topic: "",
        payload: &[],
        qos: QoS::ExactlyOnce,
        retain: false,
        properties: &[],
        expires_at: None,
    };
    QueuedMessage {
        message: Arc::new(Message::new(&publication)),
        qos: QoS::ExactlyOnce,
        retain: false,
        identifiers: None,
        share: None,
    }
}
