//! The owner of each client identifier: claims of this node, requests of others to release one, and the fate of
//! sessions that are doubtful after a start or a hand-over.
//!
//! The contents of a session do not matter here: the shard has the messages. Knows no leases: the driver
//! asks `Membership::may_act` before it lets a CONNACK or an answer leave. Time is an argument.
//!
//! A reconnect at home writes nothing. Otherwise a claim is a compare-and-set of the record, and if
//! another living node has the session, a hand-over: the session is stored here, **then the record is
//! confirmed, and only then CONNACK is sent**. Until the confirmation the previous holder takes the mail.

mod claiming;
mod doubting;
mod polling;
mod releasing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use foldhash::fast::RandomState;

use self::claiming::Claim;
use super::{
    custody::Doubt,
    door::KeyWrite,
    member_record::Lives,
    names::{
        Bucket, ClaimNumber, ClientKey, Incarnation, NodeId, OWNER_BUCKETS, RequestNumber, Term,
    },
};
pub use super::{
    custody::{Custody, CustodyState, Tombstone},
    owner_record::{
        AskNumber, ConnectNumber, ConnectRefusal, Hold, OlderCopy, OwnerRecord, ReleaseReply,
        ReleaseRequest,
    },
};
use crate::{journal::Revision, mqtt::Timestamp};

/// Number of claims in flight for each bucket.
pub const CLAIMS_IN_FLIGHT_MAX: usize = 64;
/// Time that a claim may wait for others. Then its CONNECT is refused, before anything is written.
pub const CLAIM_WAITS_MILLIS_MAX: u64 = 2_000;
/// Time after which a claim that makes no progress is given up, and undone if it was written.
pub const CLAIM_MILLIS_MAX: u64 = 6_000;

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerStep {
    /// Read a record: then [`ClientOwners::handle_read`].
    Read(ClientKey),
    /// Write a record: then [`ClientOwners::handle_written`].
    Write(KeyWrite),
    /// Remove the record of a client without a session. The outcome does not matter.
    Remove(Bucket, ClientKey, Revision),
    /// Ask a node for a session: then [`ClientOwners::handle_release_reply`] if there is an answer.
    Release(NodeId, ReleaseRequest),
    /// Tell the previous holder that its session is stored and confirmed here. It may be lost.
    Confirmed(NodeId, ReleaseRequest),
    /// Answer a node that asked for a session.
    Answer(AskNumber, ReleaseReply),
    /// End the connection (0x8E), stop to deliver, and store the term and the position up to which the
    /// copy reaches: then [`ClientOwners::handle_offered`]. For a term that was offered before, the same copy.
    Offer(ClientKey, Term, AskNumber),
    /// Store a copy of another node, beside what this node has: then [`ClientOwners::handle_adopted`].
    Adopt(ClientKey, Term, Option<Bytes>),
    /// The claim is confirmed: the pending copy is the session in this term, together with an older copy
    /// of this node, if it has one.
    Settle(ClientKey, Term, OlderCopy),
    /// The claim has failed: the pending copy is dropped.
    Drop(ClientKey),
    /// The claimant gave the session back: it is this node's in this term, without an offer.
    Regain(ClientKey, Term),
    /// The session is gone. Forward the mail behind the offer, or all of it, to its owner.
    Leave(ClientKey, Tombstone, LeftWhole),
    /// A dead node had a part of the session: ask its keeper for this part.
    Fetch(ClientKey, NodeId),
    /// Answer the CONNECT: the session is here, in this term.
    Admit(ConnectNumber, ClientKey, Term),
    /// Refuse the CONNECT.
    Refuse(ConnectNumber, ConnectRefusal),
}

/// Whether all of a session that has left is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftWhole {
    /// All: this node is owed.
    Whole,
    /// The mail behind the offer; the rest was handed over.
    BehindOffer,
}

/// The ownership of client identifiers, as one node has it.
#[derive(Debug)]
pub struct ClientOwners {
    me: NodeId,
    incarnation: Incarnation,
    custodies: HashMap<ClientKey, Custody, RandomState>,
    pending: HashMap<ClientKey, Term, RandomState>,
    tombstones: HashMap<ClientKey, Tombstone, RandomState>,
    claims: BTreeMap<ClientKey, Claim>,
    in_flight: [usize; OWNER_BUCKETS as usize],
    doubts: BTreeMap<ClientKey, Doubt>,
    offering: HashMap<AskNumber, (ClientKey, Term), RandomState>,
    next_claim: ClaimNumber,
    next_request: RequestNumber,
    requests: HashMap<RequestNumber, ClientKey, RandomState>,
    steps: VecDeque<OwnerStep>,
}

impl ClientOwners {
    /// Begins a life, without any session.
    pub fn new(me: NodeId, incarnation: Incarnation) -> Self {
        Self {
            me,
            incarnation,
            custodies: HashMap::default(),
            pending: HashMap::default(),
            tombstones: HashMap::default(),
            claims: BTreeMap::new(),
            in_flight: [0; OWNER_BUCKETS as usize],
            doubts: BTreeMap::new(),
            offering: HashMap::default(),
            next_claim: ClaimNumber(0),
            next_request: RequestNumber(0),
            requests: HashMap::default(),
            steps: VecDeque::new(),
        }
    }

    /// Returns the next thing to do.
    pub fn poll_step(&mut self) -> Option<OwnerStep> {
        self.steps.pop_front()
    }

    /// Returns the custody of a session, if this node has it.
    pub fn custody(&self, key: ClientKey) -> Option<&Custody> {
        self.custodies.get(&key)
    }

    /// Returns where a session went that this node had.
    pub fn tombstone(&self, key: ClientKey) -> Option<&Tombstone> {
        self.tombstones.get(&key)
    }

    /// Returns whether this node is in the middle of a claim: mail for the client goes to the holder.
    pub fn is_claiming(&self, key: ClientKey) -> bool {
        self.claims.contains_key(&key) || self.pending.contains_key(&key)
    }

    /// Returns the number of claims that wait or are under way.
    pub fn claims(&self) -> usize {
        self.claims.len()
    }

    /// Forgets where a session went: no mail for it comes here any more.
    pub fn forget_tombstone(&mut self, key: ClientKey) {
        self.tombstones.remove(&key);
    }

    /// Learns that the next owner of a session has given it to another one.
    pub fn move_tombstone(&mut self, key: ClientKey, to: Tombstone) {
        if let Some(tombstone) = self.tombstones.get_mut(&key)
            && to.term > tombstone.term
        {
            *tombstone = to;
        }
    }

    /// Notes that a term has no more versions: the next CONNECT claims again.
    pub fn handle_versions_spent(&mut self, key: ClientKey) {
        if let Some(custody) = self.custodies.get_mut(&key) {
            custody.is_proven = false;
        }
    }

    /// Notes that a client has neither a connection nor a session any more.
    ///
    /// The record is removed only if a claim after the removal gets a higher term, which is at least the
    /// seconds since 1970.
    pub fn handle_session_ended(&mut self, key: ClientKey, now: Timestamp) {
        let is_own = |custody: &Custody| custody.may_queue_qos2();
        if self.claims.contains_key(&key) || !self.custodies.get(&key).is_some_and(is_own) {
            return; // Another node asks for it, or the record is not known: it may stay.
        }
        if let Some(custody) = self.custodies.remove(&key) {
            self.doubts.remove(&key);
            if custody.term.0 < now.millis() / 1000 {
                self.steps.push_back(OwnerStep::Remove(key.bucket(), key, custody.revision));
            }
        }
    }

    /// Handles a record that was read, or `None` for an absent or removed one.
    pub fn handle_read(
        &mut self,
        key: ClientKey,
        revision: Revision,
        record: Option<&OwnerRecord>,
        lives: &dyn Lives,
        now: Timestamp,
    ) {
        if self.claims.contains_key(&key) {
            self.handle_claim_read(key, revision, record, lives, now);
        } else if let Some(record) = record {
            self.handle_doubt_read(key, revision, record, now);
        } else if let Some(doubt) = self.doubts.get_mut(&key) {
            doubt.was_seen = true;
        }
    }

    /// Handles the result of a write; `None` is a conflict or an unknown outcome.
    pub fn handle_written(
        &mut self,
        request: RequestNumber,
        result: Option<Revision>,
        now: Timestamp,
    ) {
        let Some(key) = self.requests.remove(&request) else { return };
        self.handle_claim_written(key, request, result, now);
    }

    /// Lets time pass, and makes the requests that are due.
    pub fn handle_time(&mut self, lives: &dyn Lives, now: Timestamp) {
        self.handle_time_of_claims(lives, now);
        self.handle_time_of_doubts(now);
    }

    /// Makes the requests of all claims that are due.
    pub fn handle_time_of_claims(&mut self, lives: &dyn Lives, now: Timestamp) {
        self.poll_claims(lives, now);
    }

    /// Makes the requests of one claim that are due: the driver calls it after each input for this claim, because all
    /// claims are many.
    pub fn handle_time_of(&mut self, key: ClientKey, lives: &dyn Lives, now: Timestamp) {
        self.poll_claim(key, lives, now);
    }

    /// Reads the records of some doubtful sessions.
    pub fn handle_time_of_doubts(&mut self, now: Timestamp) {
        self.poll_doubts(now);
    }
}
