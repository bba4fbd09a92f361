//! Messages for one client that must follow its session: mail that came to a node which the session has
//! left, mail behind an offer, and mail that a dead node has not acknowledged.
//!
//! A message is here in the store of its node until another node has it. QoS 1 may go two ways. QoS 2
//! goes on only when no node that may have had it is left to ask (the rules of `mod.rs`):
//!
//! - a node that it was sent to and that did not answer is asked whether it took it, when it is back;
//! - so is every node that the record still owes a part of the session, again for each later record;
//! - a keeper gets it only if the dead node has certainly not had it.
//!
//! Knows no sessions: the driver answers for those of this node. Time is an argument.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{
    attempts::CopyAttempt,
    lanes::Mail,
    member_record::Lives,
    names::{ClientKey, Incarnation, MessageId, NodeId, Term},
    owner_record::OwnerRecord,
    wire::Wire,
};
use crate::mqtt::{QoS, Timestamp};

/// Maximum number of messages on their way at the same time.
const UNDER_WAY_MAX: usize = 64;
/// Time until a message is tried again.
const AGAIN_MILLIS: u64 = 1_000;
/// Time until an answer is given up.
const ANSWER_MILLIS: u64 = 1_500;

/// A message that follows a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The client of the session.
    pub key: ClientKey,
    /// The message.
    pub mail: Mail,
    /// Nodes that may have it, and were not asked.
    pub tried: BTreeSet<NodeId>,
    /// Nodes that have not had it: when the record had this term, or (without a term) never.
    pub cleared: BTreeMap<NodeId, Option<Term>>,
    /// The number of this copy at this node; 0 until it is pushed.
    pub copy: u64,
    /// The node whose lane it left on first.
    pub lane: Option<NodeId>,
}

impl Forward {
    /// Returns a message that was sent to no node.
    pub const fn new(key: ClientKey, mail: Mail) -> Self {
        Self { key, mail, tried: BTreeSet::new(), cleared: BTreeMap::new(), copy: 0, lane: None }
    }

    /// Returns a message that came back from the lane to a node that has ended: it may have taken it.
    pub fn left_for(key: ClientKey, mail: Mail, node: NodeId) -> Self {
        let tried = BTreeSet::from([node.clone()]);
        Self { tried, lane: Some(node), ..Self::new(key, mail) }
    }

    /// Returns whether a node has not had the message, by an answer that still counts.
    fn is_cleared(&self, node: &NodeId, term: Term) -> bool {
        self.cleared.get(node).is_some_and(|at| at.is_none_or(|at| at == term))
    }

    fn attempt_to(&self, node: &NodeId, attempt: u64) -> CopyAttempt {
        // A lane to another node had a copy of its own.
        let was_on_lane = self.lane.as_ref() == Some(node);
        CopyAttempt { copy: self.copy, attempt, was_on_lane }
    }
}

impl Wire for Forward {
    const KIND: u8 = 9;
}

/// Numbers a message that follows a session, in the store of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForwardNumber(pub u64);

/// The next step for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardStep {
    /// Read the record of the owner: then [`Forwards::handle_record`].
    Read(ForwardNumber, ClientKey),
    /// Store that a node may have it, before [`ForwardStep::Send`] or [`ForwardStep::Shadow`] leaves.
    Store(ForwardNumber, Forward),
    /// Send it to the holder: then [`Forwards::handle_reply`].
    Send {
        /// The number of the message.
        number: ForwardNumber,
        /// The holder.
        to: NodeId,
        /// The client of the session.
        key: ClientKey,
        /// The message.
        mail: Mail,
        /// The number of the attempt.
        attempt: CopyAttempt,
        /// The term of the record by which the nodes that are owed were asked.
        term: Term,
    },
    /// Ask a node whether it had the message. If not, the node refuses the attempts so far, which may still be on
    /// their way.
    Ask(ForwardNumber, NodeId, ClientKey, MessageId, CopyAttempt),
    /// Give it to the keeper of a dead node.
    Shadow {
        /// The number of the message.
        number: ForwardNumber,
        /// The keeper.
        keeper: NodeId,
        /// The dead node.
        dead: NodeId,
        /// The client of the session.
        key: ClientKey,
        /// The message.
        mail: Mail,
        /// The number of the attempt.
        attempt: CopyAttempt,
    },
    /// Another node has it: remove it from the store.
    Done(ForwardNumber),
}

/// The answer of a node, this one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardReply {
    /// It is stored there.
    Kept,
    /// There is no session, and nothing that leads to it.
    NotHere,
    /// Not now: the session is not confirmed, or the node is not known to be dead.
    Later,
    /// It had the message.
    Had,
    /// It has not had the message, and refuses the attempts that were made so far. So do
    /// [`ForwardReply::NotHere`] and [`ForwardReply::Later`].
    NotHad,
}

/// Finds the keeper of a dead node.
pub trait Keepers: Lives {
    /// Returns the present keeper of a node, if the node is dead.
    fn keeper_of(&self, dead: &NodeId) -> Option<NodeId>;
}

#[derive(Debug)]
struct WaitingForward {
    forward: Forward,
    next_at: Timestamp,
    /// The nodes that were asked, and the question to each, until the answer.
    asked: Option<PendingAsk>,
}

#[derive(Debug)]
struct PendingAsk {
    node: NodeId,
    what: AskedFor,
    /// The number of the question: an answer to an earlier one tells nothing.
    attempt: u64,
    /// The term of the record that led to it.
    term: Term,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AskedFor {
    Record,
    Delivery,
    Past,
}

/// The messages of this node that follow a session elsewhere.
#[derive(Debug)]
pub struct Forwards {
    me: NodeId,
    incarnation: Incarnation,
    attempts: u64,
    waiting: BTreeMap<ForwardNumber, WaitingForward>,
    /// In their order, for each client and QoS.
    queues: BTreeMap<(ClientKey, u8), VecDeque<ForwardNumber>>,
    next: u64,
    steps: VecDeque<ForwardStep>,
}

impl Forwards {
    /// Begins without messages.
    pub const fn new(me: NodeId, incarnation: Incarnation) -> Self {
        Self {
            me,
            incarnation,
            attempts: 0,
            waiting: BTreeMap::new(),
            queues: BTreeMap::new(),
            next: 0,
            steps: VecDeque::new(),
        }
    }

    /// Adds a message; the driver stores it under the number before anything is acknowledged.
    pub fn push(&mut self, forward: Forward, now: Timestamp) -> ForwardNumber {
        self.restore(ForwardNumber(self.next), forward, now)
    }

    /// Adds a message that the store had at the start.
    pub fn restore(
        &mut self,
        number: ForwardNumber,
        mut forward: Forward,
        now: Timestamp,
    ) -> ForwardNumber {
        // Stored by an earlier life before it had an attempt of its own.
        if forward.copy == 0 {
            forward.copy = self.next_attempt();
        }
        // Numbers of this life begin above those in the store.
        self.next = self.next.max(number.0 + 1);
        let queue = (forward.key, forward.mail.qos.number());
        self.queues.entry(queue).or_default().push_back(number);
        self.waiting.insert(number, WaitingForward { forward, next_at: now, asked: None });
        number
    }

    /// Returns the number of messages.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns whether anything waits for a client.
    pub fn has_any(&self, key: ClientKey) -> bool {
        (0..=2).any(|qos| self.queues.contains_key(&(key, qos)))
    }

    /// Returns the next thing to do.
    pub fn poll_step(&mut self, now: Timestamp) -> Option<ForwardStep> {
        if self.steps.is_empty() {
            self.begin(now);
        }
        self.steps.pop_front()
    }

    /// Begins with the first message of each queue that is due.
    fn begin(&mut self, now: Timestamp) {
        // Bounded, so that the death of a node with many clients does not flood NATS.
        let under_way =
            self.waiting.values().filter(|at| at.asked.is_some() && now < at.next_at).count();
        let room = UNDER_WAY_MAX.saturating_sub(under_way);
        // Only the first message of a queue, so that messages of one client stay in order.
        let firsts = self.queues.values().filter_map(|queue| queue.front().copied());
        let is_due = |number: &ForwardNumber| {
            self.waiting.get(number).is_some_and(|waiting| now >= waiting.next_at)
        };
        let due: Vec<_> = firsts.filter(is_due).take(room).collect();
        for number in due {
            let Some(waiting) = self.waiting.get_mut(&number) else { continue };
            // The question is repeated after this time, unless its answer comes before.
            waiting.next_at = now.plus_millis(AGAIN_MILLIS);
            let (node, what) = (self.me.clone(), AskedFor::Record);
            waiting.asked = Some(PendingAsk { node, what, attempt: 0, term: Term(0) });
            // The record of the owner is read first: the session may have moved since the last attempt.
            self.steps.push_back(ForwardStep::Read(number, waiting.forward.key));
        }
    }

    /// Handles the record of the owner, which may be old.
    pub fn handle_record(
        &mut self,
        number: ForwardNumber,
        record: &OwnerRecord,
        keepers: &dyn Keepers,
        now: Timestamp,
    ) {
        let next_attempt = self.next_attempt();
        let Some(waiting) = self.waiting.get_mut(&number) else { return };
        // The answer to an earlier question is out of date.
        if waiting.asked.as_ref().is_none_or(|asked| asked.what != AskedFor::Record) {
            return;
        }
        waiting.asked = None;
        let (forward, term) = (&mut waiting.forward, record.term);
        let (key, is_qos2) = (forward.key, forward.mail.qos == QoS::ExactlyOnce);
        // The confirmed holder has the session; before a confirmation it is still the previous one.
        let to = record.holder().unwrap_or(&record.node).clone();
        // A QoS 2 message must not be at two nodes, so all that may have had it are asked before.
        if is_qos2 {
            let owed = record.owed.iter().filter(|node| !forward.is_cleared(node, term)).cloned();
            let owed: Vec<_> = owed.collect();
            forward.tried.extend(owed);
            let others = || forward.tried.iter().filter(|node| **node != to);
            // This node answers without a message, so it is asked first.
            let asked = others().find(|node| **node == self.me).or_else(|| others().next());
            if let Some(node) = asked.cloned() {
                // It may have been delivered there: only that node knows.
                if !keepers.is_dead(&node) {
                    let id = forward.mail.id;
                    let attempt = forward.attempt_to(&node, next_attempt);
                    let step = ForwardStep::Ask(number, node.clone(), key, id, attempt);
                    let (what, attempt) = (AskedFor::Past, next_attempt);
                    self.ask(number, PendingAsk { node, what, attempt, term }, step, now);
                }
                // The message waits until this question is answered, or until its node is back.
                return;
            }
        }
        let mail = forward.mail.clone();
        let asks = |node: &NodeId| {
            let (node, what) = (node.clone(), AskedFor::Delivery);
            PendingAsk { node, what, attempt: next_attempt, term }
        };
        // The normal case: the holder of the session lives.
        if !keepers.is_dead(&to) {
            forward.tried.insert(to.clone());
            let attempt = forward.attempt_to(&to, next_attempt);
            let asked = asks(&to);
            let step = ForwardStep::Send { number, to, key, mail, attempt, term };
            return self.ask(number, asked, step, now);
        }
        // Its keeper takes the message, unless the dead node may have delivered it.
        let is_clear = forward.cleared.get(&to) == Some(&None) && !forward.tried.contains(&to);
        let Some(keeper) = keepers.keeper_of(&to) else { return };
        if is_qos2 && !is_clear {
            return;
        }
        // Noted as tried before it is sent: after a crash the keeper must be asked.
        forward.tried.insert(keeper.clone());
        let attempt = forward.attempt_to(&keeper, next_attempt);
        let asked = asks(&keeper);
        let step = ForwardStep::Shadow { number, keeper, dead: to, key, mail, attempt };
        self.ask(number, asked, step, now);
    }

    /// Unique over the lives of this node: a message may leave it, come back and leave again.
    const fn next_attempt(&mut self) -> u64 {
        self.attempts += 1;
        self.incarnation.0 << 32 | self.attempts
    }

    fn ask(&mut self, number: ForwardNumber, asked: PendingAsk, step: ForwardStep, now: Timestamp) {
        let Some(waiting) = self.waiting.get_mut(&number) else { return };
        let what = asked.what;
        waiting.asked = Some(asked);
        waiting.next_at = now.plus_millis(ANSWER_MILLIS);
        if what == AskedFor::Delivery {
            self.steps.push_back(ForwardStep::Store(number, waiting.forward.clone()));
        }
        self.steps.push_back(step);
    }

    /// Handles the answer of a node to the attempt or question of this number. An answer to an earlier one
    /// tells nothing.
    pub fn handle_reply(
        &mut self,
        number: ForwardNumber,
        from: &NodeId,
        attempt: u64,
        reply: ForwardReply,
        now: Timestamp,
    ) {
        let Some(waiting) = self.waiting.get_mut(&number) else { return };
        // An answer to an earlier attempt says nothing about the present one.
        let is_it = |asked: &mut PendingAsk| asked.node == *from && asked.attempt == attempt;
        let Some(asked) = waiting.asked.take_if(is_it) else { return };
        // Due again in any case; the arms below put it off where the answer asks for that.
        waiting.next_at = now;
        let Forward { tried, cleared, .. } = &mut waiting.forward;
        match (asked.what, reply) {
            (AskedFor::Delivery, ForwardReply::Kept) | (AskedFor::Past, ForwardReply::Had) => {
                // The other node has stored it, so it is no longer this node's.
                self.remove(number);
            }
            (AskedFor::Delivery, ForwardReply::NotHere | ForwardReply::Later) => {
                // The refusal is final for this attempt, so the node need not be asked again.
                tried.remove(&asked.node);
                waiting.next_at = now.plus_millis(AGAIN_MILLIS / 4);
            }
            (AskedFor::Past, ForwardReply::NotHad) => {
                // Certainly not there; it is asked again only for a later term.
                tried.remove(&asked.node);
                let at = cleared.entry(asked.node).or_insert(Some(asked.term));
                *at = at.map(|_| asked.term);
            }
            // Answers that do not fit the question come from a fault of the other node.
            (AskedFor::Record, _)
            | (AskedFor::Past, ForwardReply::Kept | ForwardReply::NotHere | ForwardReply::Later)
            | (AskedFor::Delivery, ForwardReply::Had | ForwardReply::NotHad) => {
                waiting.next_at = now.plus_millis(AGAIN_MILLIS);
            }
        }
    }

    fn remove(&mut self, number: ForwardNumber) {
        let Some(waiting) = self.waiting.remove(&number) else { return };
        let name = (waiting.forward.key, waiting.forward.mail.qos.number());
        if let Some(queue) = self.queues.get_mut(&name) {
            queue.retain(|waiting| *waiting != number);
            if queue.is_empty() {
                self.queues.remove(&name);
            }
        }
        self.steps.push_back(ForwardStep::Done(number));
    }
}
