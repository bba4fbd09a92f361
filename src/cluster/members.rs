//! The members of the cluster: one record for each node, and one decision for every node about the dead.
//!
//! Joins this node, keeps its leases, judges the others, and says when this node must stop. Knows no
//! clients. The driver passes what NATS shows and carries out the writes; time is an argument.
//!
//! ```text
//!              record written        two leases          store compared       record written
//! Announcing ───────────────▶ Leasing ─────────▶ Preparing ─────────▶ Confirming ──────────▶ Serving
//!     │ an older life lives:      │                  │                    │                     │
//!     │ wait for its end          └──────────────────┴────────┬───────────┴─────────────────────┘
//!     ▼                                                       ▼ lease lost (only when serving),
//!   Ended (another store is ahead)                          Ended          declared dead, superseded
//! ```
//!
//! A node that has ended never goes on: the driver makes a new incarnation.
//!
//! Death is the update of the record (incarnation, generation, joining | serving) → dead, allowed by two
//! marks of exactly this incarnation and generation, and by nothing else. It names a keeper. What
//! follows from a death is the duty of the keeper in the record, no matter which node got the answer to
//! the update. A keeper that dies is replaced; all keepers stay listed.

use std::collections::{BTreeMap, VecDeque};

pub use super::member_record::{Lives, MemberRecord, MemberStanding};
use super::{
    door::{KeyWrite, NatsWriteError},
    judging::Judge,
    lease::{LeaseWrite, OwnLeases},
    member_record::KnownMember,
    names::{Bucket, Incarnation, LEASE_BUCKETS, NodeId, RequestNumber},
    wire,
};
use crate::{journal::Revision, mqtt::Timestamp};

/// Time to wait for the result of a write of the own record before it is tried again.
const OWN_ANSWER_MILLIS: u64 = 1_500;
/// Time from a failed write of the own record to the next one.
const OWN_AGAIN_MILLIS: u64 = 300;

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipEvent {
    /// The driver compares the store with the records of owners: then [`Membership::handle_prepared`].
    Prepare,
    /// This node serves.
    Served,
    /// This node must stop to act now, and begin again as a new incarnation.
    Ended(EndOfLife),
    /// This life of a node has ended, by a verdict or because a new one began. What it has not
    /// acknowledged, it never will.
    LifeEnded(NodeId, Incarnation),
    /// This node is the present keeper of a dead one.
    Keeper(NodeId, Incarnation),
}

/// Why a life of this node has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfLife {
    /// The leases could not be renewed in time.
    LeaseLost,
    /// Others have declared it dead.
    DeclaredDead,
    /// A later life has begun, or the record has this incarnation already: the next incarnation must be
    /// higher than this one.
    Superseded(Incarnation),
}

/// The phase of this node on its way to serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifePhase {
    /// It writes its record, or waits for the end of an older process of its name.
    Announcing,
    /// It has no two leases yet.
    Leasing,
    /// It compares its store.
    Preparing,
    /// It writes that it serves.
    Confirming,
    /// It acts for its clients while its leases last.
    Serving,
    /// It never acts again.
    Ended,
}

/// A write that was asked for.
#[derive(Debug)]
enum AskedWrite {
    Renewal(LeaseWrite),
    Mark(NodeId, LeaseWrite),
    Record(NodeId, MemberRecord),
}

/// The membership of this node, and its view of the others.
#[derive(Debug)]
pub struct Membership {
    me: NodeId,
    store: u64,
    incarnation: Incarnation,
    phase: LifePhase,
    leases: OwnLeases,
    judge: Judge,
    members: BTreeMap<NodeId, KnownMember>,
    /// The own key without a value has this revision.
    own_absent: Revision,
    current: [bool; LEASE_BUCKETS + 1],
    asked: BTreeMap<RequestNumber, (AskedWrite, Timestamp)>,
    own_next_at: Timestamp,
    next_request: u64,
    events: VecDeque<MembershipEvent>,
}

impl Membership {
    /// Begins a life. The caller has stored the incarnation before, and has its store for itself.
    pub fn new(me: NodeId, store: u64, incarnation: Incarnation) -> Self {
        Self {
            me,
            store,
            incarnation,
            phase: LifePhase::Announcing,
            leases: OwnLeases::new(incarnation),
            judge: Judge::default(),
            members: BTreeMap::new(),
            own_absent: Revision(0),
            current: [false; LEASE_BUCKETS + 1],
            asked: BTreeMap::new(),
            own_next_at: Timestamp(0),
            next_request: 0,
            events: VecDeque::new(),
        }
    }

    /// Returns the incarnation of this life.
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Returns whether this node may send now: a CONNACK, an acknowledgement, a delivery,
    /// an answer to another node, a verdict. A node whose lease has run out ends at this check, so a
    /// process that was frozen notices before anything leaves.
    pub fn may_act(&mut self, now: Timestamp) -> bool {
        if self.phase == LifePhase::Serving && !self.leases.is_valid(now) {
            self.end(EndOfLife::LeaseLost);
        }
        self.phase == LifePhase::Serving
    }

    /// Returns until when this node may act, as far as it knows.
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.leases.valid_until()
    }

    /// Returns the standing of a node; `None` if it has no record.
    pub fn standing(&self, node: &NodeId) -> Option<MemberStanding> {
        self.members.get(node).map(|known| known.record.standing)
    }

    /// Returns the phase of this life.
    pub const fn phase(&self) -> LifePhase {
        self.phase
    }

    /// Returns until when this node may act, if it serves.
    pub fn acts_until(&self) -> Option<Timestamp> {
        self.leases.valid_until().filter(|_| self.phase == LifePhase::Serving)
    }

    /// Returns the records of all members.
    pub fn members(&self) -> impl Iterator<Item = (&NodeId, &MemberRecord)> {
        self.members.iter().map(|(node, known)| (node, &known.record))
    }

    /// Returns the time since a newer revision of each lease of a member was seen.
    pub fn lease_ages_millis(&self, node: &NodeId, now: Timestamp) -> [u64; LEASE_BUCKETS] {
        self.judge.leases.ages_millis(node, now)
    }

    /// Returns the present life of a node.
    pub fn incarnation_of(&self, node: &NodeId) -> Option<Incarnation> {
        self.members.get(node).map(|known| known.record.incarnation)
    }

    /// Returns the present keeper of a dead node.
    pub fn keeper(&self, node: &NodeId) -> Option<&NodeId> {
        self.members.get(node)?.record.keeper()
    }

    /// Returns the nodes that serve, also this one.
    pub fn serving(&self) -> impl Iterator<Item = (&NodeId, Incarnation)> {
        let serving = self
            .members
            .iter()
            .filter(|(_, known)| known.record.standing == MemberStanding::Serving);
        serving.map(|(node, known)| (node, known.record.incarnation))
    }

    /// Handles a state of a lease that a watch shows. A value that cannot be read counts as none.
    pub fn handle_lease(
        &mut self,
        bucket: u8,
        node: NodeId,
        revision: Revision,
        value: Option<&[u8]>,
        now: Timestamp,
    ) {
        let lease = value.and_then(|bytes| wire::decode(bytes).ok());
        if node == self.me {
            self.leases.handle_seen(bucket, revision, lease);
        }
        self.judge.leases.handle_seen(bucket, node, revision, lease, now);
    }

    /// Handles a record of a member that the watch shows.
    pub fn handle_member(
        &mut self,
        node: NodeId,
        revision: Revision,
        value: Option<&[u8]>,
        now: Timestamp,
    ) {
        match value.and_then(|bytes| wire::decode(bytes).ok()) {
            Some(record) => self.know(node, revision, record, now),
            None if node == self.me => self.own_absent = revision,
            None => {}
        }
    }

    /// Notes that the watch of a bucket has shown all that was there.
    pub fn handle_current(&mut self, bucket: Bucket) {
        match bucket {
            Bucket::Lease(at) => {
                if let Some(current) = self.current.get_mut(usize::from(at)) {
                    *current = true;
                }
            }
            Bucket::Members => self.current[LEASE_BUCKETS] = true,
            Bucket::Owners(_) => {}
        }
    }

    /// Notes that the store agrees with the records of owners.
    pub fn handle_prepared(&mut self) {
        if self.phase == LifePhase::Preparing {
            self.phase = LifePhase::Confirming;
        }
    }

    /// Handles the result of a write.
    pub fn handle_written(
        &mut self,
        request: RequestNumber,
        result: Result<Revision, NatsWriteError>,
        now: Timestamp,
    ) {
        // A result may come after the request was forgotten.
        let Some((asked, _)) = self.asked.remove(&request) else { return };
        match asked {
            // A renewal without a certain result counts as not written: the node then stops too early at worst.
            AskedWrite::Renewal(write) => {
                let result = result.map_err(|error| match error {
                    NatsWriteError::Conflict(revision) => revision,
                    NatsWriteError::Unknown | NatsWriteError::Refused(_) => None,
                });
                self.leases.handle_written(request, &write, result, now);
            }
            AskedWrite::Mark(node, write) => {
                // Seen by this write itself, before the watch shows it.
                if let Ok(revision) = result {
                    let LeaseWrite { bucket, lease, .. } = write;
                    self.judge.leases.handle_seen(bucket, node, revision, Some(lease), now);
                }
            }
            AskedWrite::Record(node, record) => match result {
                Ok(revision) => {
                    // The next step of the own record may be due at once.
                    if node == self.me {
                        self.own_next_at = now;
                    }
                    self.know(node, revision, record, now);
                }
                // The watch tells which record is there; until then, the same is tried again.
                Err(_) if node == self.me => self.own_next_at = now.plus_millis(OWN_AGAIN_MILLIS),
                Err(_) => {}
            },
        }
    }

    /// Returns the next write to make, which is then sent at `now`.
    pub fn poll_write(&mut self, now: Timestamp) -> Option<KeyWrite> {
        // A node that may act no longer ends before it writes anything.
        self.may_act(now);
        // Without the present state of all buckets, a write would be based on the past.
        if self.phase == LifePhase::Ended || !self.current.iter().all(|current| *current) {
            return None;
        }
        // Requests without an answer for a minute have none any more.
        let long_ago = |sent: Timestamp| now >= sent.plus_millis(60_000);
        self.asked.retain(|_, (_, sent)| !long_ago(*sent));
        // The own record first: without it no lease counts.
        if let Some(record) = self.own_record_due(now) {
            self.own_next_at = now.plus_millis(OWN_ANSWER_MILLIS);
            let expected = self.members.get(&self.me).map_or(self.own_absent, |own| own.revision);
            return Some(self.write_record(self.me.clone(), record, expected, now));
        }
        // Leases come before the judgement of others, because they decide how long this node may act.
        if self.phase != LifePhase::Announcing
            && let Some(write) = self.leases.poll_renewal(RequestNumber(self.next_request), now)
        {
            let node = self.me.clone();
            return Some(self.write_lease(node, AskedWrite::Renewal(write), write, now));
        }
        // Only a serving node judges; one that waits for its predecessor judges only this.
        let me = (self.phase == LifePhase::Serving).then_some(&self.me);
        let awaited = (self.phase == LifePhase::Announcing).then_some(&self.me);
        if let Some((node, write)) = self.judge.poll_mark(&self.members, me, awaited, now) {
            return Some(self.write_lease(node.clone(), AskedWrite::Mark(node, write), write, now));
        }
        let (node, record, expected) = self.judge.poll_verdict(&self.members, me, awaited, now)?;
        Some(self.write_record(node, record, expected, now))
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<MembershipEvent> {
        self.events.pop_front()
    }

    /// Returns the next time at which [`Membership::poll_write`] may have something.
    pub fn next_at(&self, now: Timestamp) -> Timestamp {
        let tick = now.plus_millis(100);
        self.leases.next_at().max(now.plus_millis(1)).min(tick)
    }

    fn write_lease(
        &mut self,
        node: NodeId,
        asked: AskedWrite,
        write: LeaseWrite,
        now: Timestamp,
    ) -> KeyWrite {
        let LeaseWrite { bucket, lease, expected } = write;
        let request = self.note(asked, now);
        let (key, value) = (node.as_str().to_owned(), wire::encode(&lease));
        KeyWrite { request, bucket: Bucket::Lease(bucket), key, value, expected }
    }

    fn write_record(
        &mut self,
        node: NodeId,
        record: MemberRecord,
        expected: Revision,
        now: Timestamp,
    ) -> KeyWrite {
        let (key, value) = (node.as_str().to_owned(), wire::encode(&record));
        let request = self.note(AskedWrite::Record(node, record), now);
        KeyWrite { request, bucket: Bucket::Members, key, value, expected }
    }

    fn note(&mut self, asked: AskedWrite, now: Timestamp) -> RequestNumber {
        let request = RequestNumber(self.next_request);
        self.next_request += 1;
        self.asked.insert(request, (asked, now));
        request
    }

    /// Returns the own record as it should be, if it is not, and a write of it is due.
    fn own_record_due(&mut self, now: Timestamp) -> Option<MemberRecord> {
        // One write of the own record at a time.
        if now < self.own_next_at {
            return None;
        }
        // A record of this life is changed; any other is replaced if it may be.
        let own = self.members.get(&self.me).map(|known| &known.record);
        let mine = |record: &MemberRecord| self.is_this_life(record);
        let Some(record) = own.filter(|record| mine(record)) else {
            let may_replace = |record: &MemberRecord| {
                record.store == self.store || record.standing == MemberStanding::Dead
            };
            if !own.is_none_or(may_replace) {
                return None; // Another process lives under this name.
            }
            // Keepers stay listed over lives, because their duties do not end.
            let keepers = own.map_or_else(Vec::new, |record| record.keepers.clone());
            let (store, incarnation) = (self.store, self.incarnation);
            let standing = MemberStanding::Joining;
            return Some(MemberRecord { store, incarnation, generation: 0, standing, keepers });
        };
        let mut wanted = record.clone();
        // The generation rises over a mark, so that verdicts which saw the mark fail.
        wanted.generation += u32::from(self.leases.is_marked());
        if self.phase == LifePhase::Confirming && self.leases.is_valid(now) {
            wanted.standing = MemberStanding::Serving;
        }
        (wanted != *record).then_some(wanted)
    }

    fn is_this_life(&self, record: &MemberRecord) -> bool {
        record.incarnation == self.incarnation && record.store == self.store
    }

    /// Handles a record of any node.
    fn know(&mut self, node: NodeId, revision: Revision, record: MemberRecord, now: Timestamp) {
        let before = self.members.get(&node);
        // The watch and the own writes may show the same record twice.
        if before.is_some_and(|before| before.revision >= revision) {
            return;
        }
        let ended = before.filter(|before| before.record.standing != MemberStanding::Dead);
        let ended = ended.map(|before| before.record.incarnation);
        let is_same_life = |life: Incarnation| life == record.incarnation;
        let ended =
            ended.filter(|life| !is_same_life(*life) || record.standing == MemberStanding::Dead);
        if let Some(life) = ended.filter(|_| node != self.me) {
            self.events.push_back(MembershipEvent::LifeEnded(node.clone(), life));
        }
        // The life counts as new for the time of silence only if its incarnation is.
        let since = match before {
            Some(before) if is_same_life(before.record.incarnation) => before.since,
            _ => now,
        };
        let keeps = |record: &MemberRecord| record.keeper() == Some(&self.me);
        // The duty begins once, with the record that names this node.
        if keeps(&record) && !before.is_some_and(|before| keeps(&before.record)) {
            self.events.push_back(MembershipEvent::Keeper(node.clone(), record.incarnation));
        }
        if node == self.me {
            self.know_own(&record, now);
        }
        // A node without any lease must be judged too.
        self.judge.leases.expect(&node, now);
        self.members.insert(node, KnownMember { revision, record, since });
    }

    /// Follows the own record.
    fn know_own(&mut self, record: &MemberRecord, now: Timestamp) {
        if self.phase == LifePhase::Ended {
            return;
        }
        if !self.is_this_life(record) {
            let is_ahead = record.incarnation >= self.incarnation;
            let has_ended = record.store == self.store || record.standing == MemberStanding::Dead;
            if self.phase != LifePhase::Announcing || (is_ahead && has_ended) {
                self.end(EndOfLife::Superseded(record.incarnation));
            }
            return;
        }
        // Renewals carry the generation of the record, so that a mark of an older one is void.
        self.leases.generation = record.generation;
        match (record.standing, self.phase) {
            (MemberStanding::Dead, _) => self.end(EndOfLife::DeclaredDead),
            (MemberStanding::Joining, LifePhase::Announcing) => self.phase = LifePhase::Leasing,
            (MemberStanding::Serving, LifePhase::Confirming) => {
                self.phase = LifePhase::Serving;
                // The time to act may have passed while the record was written.
                if self.may_act(now) {
                    self.events.push_back(MembershipEvent::Served);
                }
            }
            (MemberStanding::Joining | MemberStanding::Serving, _) => {}
        }
    }

    /// Lets time pass: a node that has two leases goes on to compare its store.
    pub fn handle_time(&mut self, now: Timestamp) {
        if self.phase == LifePhase::Leasing && self.leases.is_valid(now) {
            self.phase = LifePhase::Preparing;
            self.events.push_back(MembershipEvent::Prepare);
        }
        self.may_act(now);
    }

    fn end(&mut self, why: EndOfLife) {
        self.phase = LifePhase::Ended;
        self.events.push_back(MembershipEvent::Ended(why));
    }
}

impl Lives for Membership {
    fn is_dead(&self, node: &NodeId) -> bool {
        self.standing(node) == Some(MemberStanding::Dead)
    }
}

#[cfg(test)]
mod tests;
