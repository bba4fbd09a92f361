//! The old routes of sessions that have left: they stay, with the tombstone, until every serving node has
//! applied the new ones.
//!
//! Otherwise a publisher's node could plan in the gap, find no subscriber, and acknowledge. The marks of applied
//! routes come on the lanes behind all mail that was planned before, so when all of them have come, no
//! mail for the session comes here any more. Knows neither sessions nor lanes.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{
    names::{ClientKey, Incarnation, NodeId, Sequence, Term},
    routes::{AppliedMarks, OwnRoutes},
};
use crate::mqtt::Timestamp;

/// Time until the new owner is asked again.
const ASK_AGAIN_MILLIS: u64 = 500;

/// The answer of the new owner about its routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteReply {
    /// It has the session, and its filters are in the log up to here.
    At(Sequence),
    /// It has the session, and not all its filters are in the log.
    Later,
    /// It does not have the session; `to` is the node to which the session went, if it had it.
    Gone(Option<(NodeId, Term)>),
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WithdrawalStep {
    /// Ask the new owner where its routes are: then [`Withdrawals::handle_reply`].
    Ask(NodeId, ClientKey),
    /// Ask the record for the owner: then [`Withdrawals::handle_moved`].
    Read(ClientKey),
    /// The old routes are withdrawn: the tombstone can go. When everything is forwarded too, the node that
    /// got the session is told, also if it has given it away since: mail that came straight to it need
    /// not wait any more.
    Done(ClientKey, NodeId),
}

#[derive(Debug)]
struct Withdrawal {
    /// The node that it was handed over to.
    heir: NodeId,
    /// The node that has it now, as far as is known.
    to: NodeId,
    term: Term,
    filters: Vec<Box<str>>,
    new_route: Option<Sequence>,
    next_at: Timestamp,
    asks_record: bool,
}

/// The old routes of this node.
#[derive(Debug, Default)]
pub struct Withdrawals {
    waiting: BTreeMap<ClientKey, Withdrawal>,
    steps: VecDeque<WithdrawalStep>,
}

impl Withdrawals {
    /// Adds the filters of a session that has left. They stay subscribers of [`OwnRoutes`].
    pub fn push(
        &mut self,
        key: ClientKey,
        to: NodeId,
        term: Term,
        filters: Vec<Box<str>>,
        now: Timestamp,
    ) {
        let heir = to.clone();
        let withdrawal = Withdrawal {
            heir,
            to,
            term,
            filters,
            new_route: None,
            next_at: now,
            asks_record: false,
        };
        self.waiting.insert(key, withdrawal);
    }

    /// Notes that the session is here again; returns the filters, which it goes on to use.
    pub fn handle_back(&mut self, key: ClientKey) -> Option<Vec<Box<str>>> {
        self.waiting.remove(&key).map(|withdrawal| withdrawal.filters)
    }

    /// Returns the filters of a session that has left.
    pub fn filters(&self, key: ClientKey) -> &[Box<str>] {
        self.waiting.get(&key).map_or(&[], |withdrawal| &withdrawal.filters)
    }

    /// Returns whether old routes are left.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Handles the answer of the new owner.
    pub fn handle_reply(&mut self, key: ClientKey, from: &NodeId, reply: RouteReply) {
        let Some(waiting) = self.waiting.get_mut(&key).filter(|waiting| waiting.to == *from) else {
            return;
        };
        match reply {
            RouteReply::At(sequence) => waiting.new_route = Some(sequence),
            RouteReply::Later => waiting.asks_record = false,
            RouteReply::Gone(Some((to, term))) if term > waiting.term => {
                (waiting.to, waiting.term, waiting.asks_record) = (to, term, false);
            }
            RouteReply::Gone(_) => waiting.asks_record = true,
        }
    }

    /// Notes that a later holder is in the record.
    pub fn handle_moved(&mut self, key: ClientKey, to: NodeId, term: Term) {
        if let Some(waiting) = self.waiting.get_mut(&key)
            && term > waiting.term
        {
            (waiting.to, waiting.term, waiting.new_route) = (to, term, None);
        }
    }

    /// Returns the next step. Withdraws routes whose time has come.
    pub fn poll_step<'a, I: Iterator<Item = (&'a NodeId, Incarnation)>>(
        &mut self,
        own: &mut OwnRoutes,
        applied: &AppliedMarks,
        serving: impl Fn() -> I,
        now: Timestamp,
    ) -> Option<WithdrawalStep> {
        // Steps that are ready go before new ones.
        if let Some(step) = self.steps.pop_front() {
            return Some(step);
        }
        let mut done = Vec::new();
        for (key, waiting) in &mut self.waiting {
            // The new route is everywhere, so nobody plans for the old one.
            if waiting.new_route.is_some_and(|at| applied.is_everywhere(at, serving())) {
                done.push(*key);
            // shows who is next.
            } else if waiting.new_route.is_none() && now >= waiting.next_at {
                // The heir is asked for the position of its route. If it does not answer, the record
                // shows which node is next.
                waiting.next_at = now.plus_millis(ASK_AGAIN_MILLIS);
                self.steps.push_back(if std::mem::take(&mut waiting.asks_record) {
                    WithdrawalStep::Read(*key)
                } else {
                    waiting.asks_record = true; // If the owner does not answer.
                    WithdrawalStep::Ask(waiting.to.clone(), *key)
                });
            }
        }
        // After the loop, because it borrows the map.
        for key in done {
            let Some(waiting) = self.waiting.remove(&key) else { continue };
            for filter in waiting.filters {
                own.remove(&filter);
            }
            self.steps.push_back(WithdrawalStep::Done(key, waiting.heir));
        }
        self.steps.pop_front()
    }
}
