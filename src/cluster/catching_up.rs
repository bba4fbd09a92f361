//! Order after a hand-over: mail that comes directly to the new owner waits until the previous holder has
//! forwarded everything that comes before it.
//!
//! Publishers plan for the previous holder, then for both nodes, then for the new owner. The previous holder
//! forwards its mail in order; direct mail would overtake it. So direct mail waits beside the queue until the
//! previous holder reports that its route is withdrawn and all its mail is forwarded. A message that came
//! both ways is dropped once, by its identity. A previous holder that dies or does not answer ends the wait.
//!
//! If the session has left again meanwhile, the waiting mail is forwarded to it like mail behind a tombstone,
//! even if the tombstone is gone: this mail is acknowledged.
//!
//! Knows no sessions. The driver stores the waiting mail before it is acknowledged.

use std::collections::BTreeMap;

use super::{
    lanes::Mail,
    member_record::Lives,
    names::{ClientKey, NodeId},
};
use crate::mqtt::Timestamp;

/// Maximum time that mail waits for the previous holder. Then its order is given up, and counted.
pub const CATCH_UP_MILLIS_MAX: u64 = 3_000;

#[derive(Debug)]
struct CatchUp {
    previous: NodeId,
    deadline: Timestamp,
    mails: Vec<Mail>,
}

/// The sessions of this node that were handed over a short time ago.
#[derive(Debug, Default)]
pub struct CatchUps {
    waiting: BTreeMap<ClientKey, CatchUp>,
}

impl CatchUps {
    /// Begins to wait for the previous holder. Mail that waits for an earlier holder waits for this one too.
    pub fn begin(&mut self, key: ClientKey, previous: NodeId, now: Timestamp) {
        let mails = self.waiting.remove(&key).map_or_else(Vec::new, |earlier| earlier.mails);
        let deadline = now.plus_millis(CATCH_UP_MILLIS_MAX);
        self.waiting.insert(key, CatchUp { previous, deadline, mails });
    }

    /// Returns whether direct mail must wait, also after the session has left again.
    pub fn is_behind(&self, key: ClientKey) -> bool {
        self.waiting.contains_key(&key)
    }

    /// Takes mail that must wait; returns it if it need not.
    pub fn push(&mut self, key: ClientKey, mail: Mail) -> Option<Mail> {
        match self.waiting.get_mut(&key) {
            Some(waiting) => {
                waiting.mails.push(mail);
                None
            }
            None => Some(mail),
        }
    }

    /// Notes that the previous holder has forwarded everything; returns the mail that has waited.
    pub fn handle_drained(&mut self, key: ClientKey, from: &NodeId) -> Vec<Mail> {
        let is_it = self.waiting.get(&key).is_some_and(|waiting| waiting.previous == *from);
        let waiting = if is_it { self.waiting.remove(&key) } else { None };
        waiting.map_or_else(Vec::new, |waiting| waiting.mails)
    }

    /// Returns the mail that waits for a node that is dead or does not answer.
    pub fn poll_late(
        &mut self,
        lives: &dyn Lives,
        now: Timestamp,
    ) -> Option<(ClientKey, Vec<Mail>)> {
        let is_late =
            |waiting: &CatchUp| now >= waiting.deadline || lives.is_dead(&waiting.previous);
        let key = *self.waiting.iter().find(|(_, waiting)| is_late(waiting))?.0;
        self.waiting.remove(&key).map(|waiting| (key, waiting.mails))
    }
}

#[cfg(test)]
mod tests;
