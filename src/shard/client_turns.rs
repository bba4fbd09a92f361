//! The connections of a shard's clients, and the requests that wait for a client, in the order in
//! which the registry accepted them.
//!
//! Every change to a client's connection goes through the actor of that connection. A new
//! connection of the client waits until the old one gives way. The old connection first reads once
//! more, because bytes that the client sent before it connected again may have arrived and not been
//! read (its last messages, or the DISCONNECT that drops its Will), and its client has received its
//! CONNACK. Requests that the registry accepts meanwhile for that client wait in a queue behind the
//! new connection.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use crate::{
    control::ControlError,
    mqtt::Timestamp,
    shard::{
        common::Core,
        connect::TakeClient,
        doors::{Baton, ToConnection},
        shared::SharedShard,
    },
};

/// Maximum number of waiting connections of one client; beyond it, the oldest is refused.
const CONNECTIONS_WAITING_MAX: usize = 64;
/// A connection that has waited this long is refused when a later one arrives. So clients that try
/// again and again do not pile up connections while the store is slow.
const PATIENCE_SECS: u64 = 2;
/// Maximum number of control messages that wait for one client, besides its connections; further
/// ones are refused.
const CONTROL_WAITING_MAX: usize = 1_024;

/// The connections of a shard, as its registry reaches them.
pub(crate) struct ClientTurns {
    pub(in crate::shard) shard: SharedShard,
    pub(in crate::shard) core: Arc<Core>,
    /// Requests for clients whose connection must give way, the oldest first.
    queues: RefCell<HashMap<Arc<str>, VecDeque<WaitingConnect>, RandomState>>,
}

enum WaitingConnect {
    /// A new connection.
    Client(Box<TakeClient>, Timestamp),
    /// A message for the connection that the client has when the message's turn comes.
    Control(ToConnection),
}

/// The event that a new connection must wait for.
#[expect(clippy::large_enum_variant, reason = "it is looked at where it is returned")]
pub(crate) enum Handover {
    /// Nothing: the connection may have its session.
    Now(TakeClient),
    /// The connection that has the session was asked to give way; it has done so once this is
    /// dropped.
    After(oneshot::Receiver<Baton>),
    /// Others wait before it. These connections are refused: they have waited too long, or are too
    /// many.
    Behind(Vec<TakeClient>),
}

impl ClientTurns {
    pub(crate) fn new(shard: SharedShard, core: Arc<Core>) -> Self {
        Self { shard, core, queues: RefCell::default() }
    }

    /// Sends a message to the connection of a client, behind what waits for that client. Drops it
    /// if the client has no connection.
    ///
    /// # Errors
    /// Fails if too much waits for the client.
    pub(crate) fn send(&self, client_id: &str, message: ToConnection) -> Result<(), ControlError> {
        let mut queues = self.queues.borrow_mut();
        let Some(queue) = queues.get_mut(client_id) else {
            drop(queues);
            self.shard.borrow().send_to(client_id, message);
            return Ok(());
        };
        if queue.len() >= CONNECTIONS_WAITING_MAX + CONTROL_WAITING_MAX {
            return Err(ControlError::Unavailable);
        }
        queue.push_back(WaitingConnect::Control(message));
        Ok(())
    }

    /// Accepts a new connection.
    pub(crate) fn take(&self, arrival: TakeClient, now: Timestamp) -> Handover {
        let client_id = arrival.connect.client_id.clone();
        let mut queues = self.queues.borrow_mut();
        match queues.entry(client_id.clone()) {
            Entry::Occupied(mut queue) => {
                let refused = overtaken(queue.get_mut(), now);
                queue.get_mut().push_back(WaitingConnect::Client(Box::new(arrival), now));
                Handover::Behind(refused)
            }
            Entry::Vacant(place) => match self.ask_to_give_way(&client_id) {
                None => Handover::Now(arrival),
                Some(gives_way) => {
                    place.insert(VecDeque::from([WaitingConnect::Client(Box::new(arrival), now)]));
                    Handover::After(gives_way)
                }
            },
        }
    }

    /// Continues with what waits for a client; `has_given_way` says that its connection has given
    /// way.
    pub(crate) fn next(&self, client_id: &Arc<str>, mut has_given_way: bool) -> Option<Handover> {
        loop {
            let mut queues = self.queues.borrow_mut();
            let queue = queues.get_mut(client_id)?;
            if !has_given_way
                && matches!(queue.front(), Some(WaitingConnect::Client(..)))
                && let Some(gives_way) = self.ask_to_give_way(client_id)
            {
                return Some(Handover::After(gives_way));
            }
            match queue.pop_front() {
                Some(WaitingConnect::Client(arrival, _)) => return Some(Handover::Now(*arrival)),
                Some(WaitingConnect::Control(message)) => {
                    // If the client has no connection, this drops the message, which answers its
                    // sender.
                    self.shard.borrow().send_to(client_id, message);
                }
                None => {
                    queues.remove(client_id);
                    return None;
                }
            }
            has_given_way = false;
        }
    }

    /// Asks the connection of a client, if there is one, to give way.
    fn ask_to_give_way(&self, client_id: &str) -> Option<oneshot::Receiver<Baton>> {
        let (baton, gives_way) = oneshot::channel();
        let has_one = self.shard.borrow().send_to(client_id, ToConnection::GiveWay(baton));
        has_one.then_some(gives_way)
    }
}

/// Removes the connections from a queue that are refused because one more arrives, and returns
/// them.
fn overtaken(queue: &mut VecDeque<WaitingConnect>, now: Timestamp) -> Vec<TakeClient> {
    let connections = queue.iter().filter(|w| matches!(w, WaitingConnect::Client(..))).count();
    let mut excess = (connections + 1).saturating_sub(CONNECTIONS_WAITING_MAX);
    let mut refused = Vec::new();
    for waiting in std::mem::take(queue) {
        match waiting {
            WaitingConnect::Client(arrival, since)
                if excess > 0 || now.since(since).as_secs() >= PATIENCE_SECS =>
            {
                excess = excess.saturating_sub(1);
                refused.push(*arrival);
            }
            WaitingConnect::Client(..) | WaitingConnect::Control(_) => queue.push_back(waiting),
        }
    }
    refused
}
