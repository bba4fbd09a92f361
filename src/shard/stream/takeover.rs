//! A connection gives way to a newer one with its client identifier. Before that, it reads once
//! more, and its client has received its CONNACK.
//!
//! Bytes that a client sent before it connected again may have arrived and not been read yet: its
//! last messages, or the DISCONNECT that drops its Will. So the new connection waits for two
//! things: the old one reads what is there, which takes one turn, and sends its CONNACK, which may
//! wait for the store. Only then the new connection takes the session. Does not know what waits.

use tokio::sync::oneshot;

use super::ClientStream;
use crate::shard::{Shard, doors::Baton};

/// The newer connections that wait until this connection has been read.
pub(super) struct Successors {
    /// Dropping it tells the successors to continue.
    _baton: oneshot::Sender<Baton>,
    /// Whether the bytes that arrived before the successors can be read now.
    are_due: bool,
}

impl ClientStream {
    /// Begins to give way. Wherever the baton is dropped, the successors continue, so that none
    /// waits for a connection that has ended.
    pub(super) fn begin_to_give_way(&mut self, baton: oneshot::Sender<Baton>) {
        self.successors = Some(Box::new(Successors { _baton: baton, are_due: false }));
    }

    /// Notes that all other tasks had a turn since the connection began to give way, and wakes it.
    /// The stream knows by now which bytes have arrived: the reactor reports them when no other task
    /// runs.
    pub(crate) fn note_others_had_turn(&mut self, shard: &mut Shard) {
        if let Some(successors) = &mut self.successors {
            successors.are_due = true;
        }
        if let Some(slot) = shard.linked(self.slot, self.link) {
            slot.wake();
        }
    }

    /// Returns whether newer connections wait for this one.
    pub(crate) const fn has_successors(&self) -> bool {
        self.successors.is_some()
    }

    /// Lets its successors continue if they have waited long enough, or need not wait.
    pub(crate) fn give_way_if_due(&mut self, shard: &Shard) {
        let Some(successors) = &self.successors else { return };
        let may_go_on = successors.are_due && !shard.awaits_conn_ack(self.slot, self.link);
        if may_go_on || !self.is_open() {
            self.give_way();
        }
    }

    /// Lets its successors continue.
    pub(crate) fn give_way(&mut self) {
        self.successors = None;
    }
}
