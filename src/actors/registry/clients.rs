//! The connections of a shard's clients, and what waits for one of them, in the order in which the
//! registry took it.
//!
//! Everything that changes the connection of a client goes through that connection's actor. A new
//! connection of the client waits until the old one gives way: it is read once more, as what the client
//! sent before it connected again may have reached this machine and not been read yet (its last
//! messages, or the DISCONNECT that drops its Will), and its client has heard its CONNACK. What the
//! registry takes meanwhile for that client stands in a queue behind the new connection.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque, hash_map::Entry},
    rc::Rc,
    sync::Arc,
};

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use crate::{
    control::ControlError,
    mqtt::Timestamp,
    shard::{
        Shard,
        connect::Attach,
        doors::{Baton, ToConnection},
    },
};

/// Connections of one client that wait; of more, the oldest is refused.
const CONNECTIONS_WAITING_MAX: usize = 64;
/// A connection that has waited so long is refused when a later one comes: where the store is slow,
/// clients that try again and again leave no heap of connections.
const PATIENCE_SECS: u64 = 2;
/// Control messages that wait for one client beside its connections; further ones are refused.
const CONTROL_WAITING_MAX: usize = 1_024;

/// The connections of a shard, as its registry reaches them.
pub(super) struct Clients {
    shard: Rc<RefCell<Shard>>,
    /// What waits for clients whose connection is to give way, the oldest first.
    queues: RefCell<HashMap<Arc<str>, VecDeque<Waiting>, RandomState>>,
}

enum Waiting {
    /// A new connection.
    Attach(Box<Attach>, Timestamp),
    /// A message for the connection that the client has by then.
    Control(ToConnection),
}

/// What a connection that comes has to wait for.
#[expect(clippy::large_enum_variant, reason = "it is looked at where it is returned")]
pub(super) enum Turn {
    /// Nothing: it may have its session.
    Now(Attach),
    /// The holder of the session was asked to give way, and has once this is dropped.
    After(oneshot::Receiver<Baton>),
    /// Others wait before it. These are refused: they have waited too long, or are too many.
    Behind(Vec<Attach>),
}

impl Clients {
    pub(super) fn new(shard: Rc<RefCell<Shard>>) -> Self {
        Self { shard, queues: RefCell::default() }
    }

    /// Sends a message to the connection of a client, behind what waits for the client. Dropped where
    /// the client has no connection.
    ///
    /// # Errors
    /// Too much waits for the client.
    pub(super) fn send(&self, client_id: &str, message: ToConnection) -> Result<(), ControlError> {
        let mut queues = self.queues.borrow_mut();
        let Some(queue) = queues.get_mut(client_id) else {
            drop(queues);
            self.shard.borrow().send_to(client_id, message);
            return Ok(());
        };
        if queue.len() >= CONNECTIONS_WAITING_MAX + CONTROL_WAITING_MAX {
            return Err(ControlError::Unavailable);
        }
        queue.push_back(Waiting::Control(message));
        Ok(())
    }

    /// Takes a connection that comes.
    pub(super) fn take(&self, attach: Attach, now: Timestamp) -> Turn {
        let client_id = attach.connect.client_id.clone();
        let mut queues = self.queues.borrow_mut();
        match queues.entry(client_id.clone()) {
            Entry::Occupied(mut queue) => {
                let refused = overtaken(queue.get_mut(), now);
                queue.get_mut().push_back(Waiting::Attach(Box::new(attach), now));
                Turn::Behind(refused)
            }
            Entry::Vacant(place) => match self.ask_to_give_way(&client_id) {
                None => Turn::Now(attach),
                Some(gives_way) => {
                    place.insert(VecDeque::from([Waiting::Attach(Box::new(attach), now)]));
                    Turn::After(gives_way)
                }
            },
        }
    }

    /// Goes on with what waits for a client, whose connection has given way if `has_given_way`.
    pub(super) fn next(&self, client_id: &Arc<str>, mut has_given_way: bool) -> Option<Turn> {
        loop {
            let mut queues = self.queues.borrow_mut();
            let queue = queues.get_mut(client_id)?;
            if !has_given_way
                && matches!(queue.front(), Some(Waiting::Attach(..)))
                && let Some(gives_way) = self.ask_to_give_way(client_id)
            {
                return Some(Turn::After(gives_way));
            }
            match queue.pop_front() {
                Some(Waiting::Attach(attach, _)) => return Some(Turn::Now(*attach)),
                Some(Waiting::Control(message)) => {
                    // Dropped, and so answered, if the client has no connection.
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

    /// Asks the connection that a client has, if it has one, to give way.
    fn ask_to_give_way(&self, client_id: &str) -> Option<oneshot::Receiver<Baton>> {
        let (baton, gives_way) = oneshot::channel();
        let has_one = self.shard.borrow().send_to(client_id, ToConnection::GiveWay(baton));
        has_one.then_some(gives_way)
    }
}

/// Takes those connections out of a queue that are refused because one more comes.
fn overtaken(queue: &mut VecDeque<Waiting>, now: Timestamp) -> Vec<Attach> {
    let connections = queue.iter().filter(|w| matches!(w, Waiting::Attach(..))).count();
    let mut excess = (connections + 1).saturating_sub(CONNECTIONS_WAITING_MAX);
    let mut refused = Vec::new();
    for waiting in std::mem::take(queue) {
        match waiting {
            Waiting::Attach(attach, since)
                if excess > 0 || now.since(since).as_secs() >= PATIENCE_SECS =>
            {
                excess = excess.saturating_sub(1);
                refused.push(*attach);
            }
            Waiting::Attach(..) | Waiting::Control(_) => queue.push_back(waiting),
        }
    }
    refused
}
