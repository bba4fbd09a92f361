//! The side of the claimant.
//!
//! ```text
//!  Waiting ─▶ Reading ─▶ Claiming ─┬─ nobody, this node or a dead one had it ──────────▶ Adopting ─▶ admitted
//!              ▲            │      │                                                      ▲    │
//!              └─ conflict ─┘      └─ a living node had it: Releasing ── its answer ──────┘    │ (was taking)
//!                                        │                                                     ▼
//!                                        └── no answer: Undoing ─▶ refused      admitted ◀─ Confirming
//! ```

use bytes::Bytes;

use super::{
    Bucket, ClientKey, ClientOwners, ConnectNumber, ConnectRefusal, Custody, CustodyState, Hold,
    Lives, NodeId, OlderCopy, OwnerRecord, OwnerStep, ReleaseReply, ReleaseRequest, RequestNumber,
    Revision, Term, Timestamp,
};
use super::{CLAIM_MILLIS_MAX, CLAIMS_IN_FLIGHT_MAX};
use crate::cluster::settling::{Settled, Settling};

/// Time to wait for a record that was asked for.
pub(super) const READ_MILLIS: u64 = 1_000;
/// The pause after the answer "later".
const LATER_MILLIS: u64 = 200;

/// A claim of this node.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) client_id: Box<str>,
    /// The CONNECT that waits for it; none if its socket is closed.
    pub(super) connect: Option<ConnectNumber>,
    /// The latest CONNECT behind it.
    pub(super) next: Option<(ConnectNumber, Timestamp)>,
    pub(super) since: Timestamp,
    pub(super) own: OlderCopy,
    /// The node that the session was taken from.
    pub(super) previous: Option<NodeId>,
    pub(super) step: ClaimStep,
}

#[derive(Debug)]
pub(super) enum ClaimStep {
    Waiting,
    Reading { next_at: Timestamp },
    Claiming(Settling),
    Releasing { record: OwnerRecord, revision: Revision, next_at: Timestamp, since: Timestamp },
    Adopting { record: OwnerRecord, revision: Revision },
    Confirming(Settling),
    Undoing(Settling),
}

impl ClaimStep {
    /// Returns whether it has a place among the claims in flight. One that waits for a node has none, so
    /// that a slow node does not hold up others.
    const fn is_in_flight(&self) -> bool {
        match self {
            Self::Waiting | Self::Releasing { .. } | Self::Adopting { .. } => false,
            Self::Reading { .. } | Self::Claiming(_) | Self::Confirming(_) | Self::Undoing(_) => {
                true
            }
        }
    }
}

const fn bucket_index(key: ClientKey) -> usize {
    match key.bucket() {
        Bucket::Owners(number) => number as usize,
        Bucket::Lease(_) | Bucket::Members => 0,
    }
}

impl ClientOwners {
    /// Handles a CONNECT that is allowed. The answer is [`OwnerStep::Admit`] or [`OwnerStep::Refuse`].
    pub fn handle_connect(
        &mut self,
        key: ClientKey,
        client_id: &str,
        connect: ConnectNumber,
        now: Timestamp,
    ) {
        // One claim for each identifier at a time: the newest CONNECT waits behind it, and the one
        // before is refused.
        if let Some(claim) = self.claims.get_mut(&key) {
            if let Some((older, _)) = claim.next.replace((connect, now)) {
                self.refuse(older, ConnectRefusal::TakenOver);
            }
            return;
        }
        // This life has written the record, so nothing has to be read or written.
        if let Some(custody) = self.custodies.get(&key)
            && custody.may_queue_qos2()
        {
            let admit = OwnerStep::Admit(connect, key, custody.term);
            self.steps.push_back(admit);
            return;
        }
        let claim = Claim {
            client_id: client_id.into(),
            connect: Some(connect),
            next: None,
            since: now,
            own: OlderCopy::Whole,
            previous: None,
            step: ClaimStep::Waiting,
        };
        self.claims.insert(key, claim);
        // Claims under way are bounded, because a storm of CONNECTs must not flood NATS.
        self.begin_if_there_is_room(key, now);
    }

    /// Notes that the socket of a CONNECT is closed. A claim that is written goes on to its end.
    pub fn handle_connect_gone(&mut self, key: ClientKey, connect: ConnectNumber) {
        let Some(claim) = self.claims.get_mut(&key) else { return };
        claim.next = claim.next.filter(|(next, _)| *next != connect);
        claim.connect = claim.connect.filter(|waiting| *waiting != connect);
    }

    pub(super) fn begin_if_there_is_room(&mut self, key: ClientKey, now: Timestamp) {
        if self.in_flight[bucket_index(key)] < CLAIMS_IN_FLIGHT_MAX {
            self.set_step(key, ClaimStep::Reading { next_at: now.plus_millis(READ_MILLIS) });
            self.steps.push_back(OwnerStep::Read(key));
        }
    }

    pub(super) fn set_step(&mut self, key: ClientKey, step: ClaimStep) {
        let Some(claim) = self.claims.get_mut(&key) else { return };
        let count = &mut self.in_flight[bucket_index(key)];
        *count -= usize::from(claim.step.is_in_flight());
        *count += usize::from(step.is_in_flight());
        claim.step = step;
    }

    fn refuse(&mut self, connect: ConnectNumber, why: ConnectRefusal) {
        self.steps.push_back(OwnerStep::Refuse(connect, why));
    }

    /// Ends a claim, with its answer if it was refused, and begins with the CONNECT behind it.
    pub(super) fn end_claim(
        &mut self,
        key: ClientKey,
        refusal: Option<ConnectRefusal>,
        now: Timestamp,
    ) {
        // Leaves the count of claims under way, before the next one begins.
        self.set_step(key, ClaimStep::Waiting);
        let Some(claim) = self.claims.remove(&key) else { return };
        if let (Some(connect), Some(why)) = (claim.connect, refusal) {
            self.refuse(connect, why);
        }
        // The CONNECT that waited begins from the present record.
        if let Some((next, _)) = claim.next {
            self.handle_connect(key, &claim.client_id, next, now);
        }
    }

    /// Continues an earlier life's claim whose confirmation may not be written.
    pub(super) fn confirm_again(
        &mut self,
        key: ClientKey,
        revision: Revision,
        record: &OwnerRecord,
        now: Timestamp,
    ) {
        let claim = Claim {
            client_id: record.client_id.clone(),
            connect: None,
            next: None,
            since: now,
            own: OlderCopy::Whole,
            previous: None,
            step: ClaimStep::Waiting,
        };
        self.claims.insert(key, claim);
        let mut record = record.clone();
        // The earlier life knew whether the previous holder had handed over everything.
        record.owed.extend(record.previous.clone());
        let record = self.confirmation(record);
        self.set_step(key, ClaimStep::Confirming(Settling::new(record, revision, now)));
    }

    fn confirmation(&mut self, record: OwnerRecord) -> OwnerRecord {
        let mut record = OwnerRecord {
            hold: Hold::Holding,
            previous: None,
            writer: self.me.clone(),
            incarnation: self.incarnation,
            claim: self.claim_number(),
            ..record
        };
        self.tidy_owed(&mut record.owed);
        record
    }

    pub(super) fn claim_number(&mut self) -> super::ClaimNumber {
        self.next_claim.0 += 1;
        self.next_claim
    }

    /// Each node is owed once. This node owes nothing to itself: its own copy is part of the session.
    fn tidy_owed(&self, owed: &mut Vec<NodeId>) {
        owed.sort_unstable();
        owed.dedup();
        owed.retain(|node| *node != self.me);
    }

    pub(super) fn handle_claim_read(
        &mut self,
        key: ClientKey,
        revision: Revision,
        found: Option<&OwnerRecord>,
        lives: &dyn Lives,
        now: Timestamp,
    ) {
        let Some(claim) = self.claims.get_mut(&key) else { return };
        // Only steps that wait for a record take it.
        let settled = match &mut claim.step {
            ClaimStep::Reading { .. } => return self.claim(key, revision, found, lives, now),
            ClaimStep::Claiming(settling)
            | ClaimStep::Confirming(settling)
            | ClaimStep::Undoing(settling) => settling.handle_read(revision, found, &self.me, now),
            ClaimStep::Waiting | ClaimStep::Releasing { .. } | ClaimStep::Adopting { .. } => None,
        };
        if let Some(settled) = settled {
            self.go_on(key, settled, now);
        }
    }

    pub(super) fn handle_claim_written(
        &mut self,
        key: ClientKey,
        request: RequestNumber,
        result: Option<Revision>,
        now: Timestamp,
    ) {
        let Some(claim) = self.claims.get_mut(&key) else { return };
        let settled = match &mut claim.step {
            ClaimStep::Claiming(settling)
            | ClaimStep::Confirming(settling)
            | ClaimStep::Undoing(settling) => settling.handle_written(request, result, now),
            ClaimStep::Waiting
            | ClaimStep::Reading { .. }
            | ClaimStep::Releasing { .. }
            | ClaimStep::Adopting { .. } => None,
        };
        if let Some(settled) = settled {
            self.go_on(key, settled, now);
        }
    }

    /// Claims over a record.
    fn claim(
        &mut self,
        key: ClientKey,
        revision: Revision,
        found: Option<&OwnerRecord>,
        lives: &dyn Lives,
        now: Timestamp,
    ) {
        let Some(claim) = self.claims.get(&key) else { return };
        // The claim is read again after each conflict, so nothing of a former attempt is kept.
        let client_id = claim.client_id.clone();
        if claim.connect.is_none() && claim.next.is_none() {
            return self.end_claim(key, None, now); // Nothing is written, and the socket is closed.
        }
        let is_other = |record: &OwnerRecord| record.client_id != client_id;
        // Terms are also times, so that a record which was removed does not begin at 1 again.
        let term = Term::next(found.map(|record| record.term), now.millis() / 1000);
        // Two identifiers with the same hash: the second one cannot be served.
        let Some(term) = term.filter(|_| !found.is_some_and(is_other)) else {
            return self.end_claim(key, Some(ConnectRefusal::Unavailable), now);
        };
        // Taken from the confirmed holder only; one that still takes has nothing to give.
        let holder = found.and_then(OwnerRecord::holder).filter(|holder| **holder != self.me);
        let mut owed = found.map_or_else(Vec::new, |record| record.owed.clone());
        // What a dead node has is owed: its keeper, or it itself when it is back, delivers the rest.
        owed.extend(holder.filter(|holder| lives.is_dead(holder)).cloned());
        let previous = holder.filter(|holder| !lives.is_dead(holder)).cloned();
        // Without a living holder there is nobody to ask, and the claim is the confirmation.
        let hold = if previous.is_some() { Hold::Taking } else { Hold::Holding };
        if hold == Hold::Holding {
            self.tidy_owed(&mut owed); // A claim that may be undone keeps all debts, also this node's.
        }
        // Looked at now, because the custody may change while the claim is under way.
        let own = self.own_copy(key, found);
        let (node, incarnation, claim_number) =
            (self.me.clone(), self.incarnation, self.claim_number());
        let record = OwnerRecord {
            client_id,
            node,
            incarnation,
            term,
            hold,
            previous,
            owed,
            writer: self.me.clone(),
            claim: claim_number,
        };
        if let Some(claim) = self.claims.get_mut(&key) {
            claim.own = own;
        }
        self.set_step(key, ClaimStep::Claiming(Settling::new(record, revision, now)));
    }

    /// Returns the fate of an old copy of this node.
    fn own_copy(&self, key: ClientKey, found: Option<&OwnerRecord>) -> OlderCopy {
        let is_offered = |custody: &Custody| custody.state != CustodyState::Own;
        let is_ours =
            |found: &OwnerRecord| found.holder() == Some(&self.me) || found.owes(&self.me);
        if self.custodies.get(&key).is_some_and(is_offered) && !found.is_some_and(is_ours) {
            OlderCopy::BehindOffer
        } else {
            OlderCopy::Whole
        }
    }

    /// Continues after a write whose outcome is known.
    fn go_on(&mut self, key: ClientKey, settled: Settled, now: Timestamp) {
        let Some(claim) = self.claims.get(&key) else { return };
        match (&claim.step, settled) {
            // The claim is written; the session must still come from its holder.
            (ClaimStep::Claiming(settling), Settled::Done(revision)) => {
                let record = settling.record.clone();
                if record.hold == Hold::Holding {
                    self.adopt(key, record, revision, None);
                } else {
                    let step = ClaimStep::Releasing { record, revision, next_at: now, since: now };
                    self.set_step(key, step);
                }
            }
            // Another node was faster, so everything begins with its record.
            (ClaimStep::Claiming(_), Settled::DoneAndGone | Settled::Lost) => {
                if now >= claim.since.plus_millis(CLAIM_MILLIS_MAX) {
                    return self.end_claim(key, Some(ConnectRefusal::Unavailable), now);
                }
                self.set_step(key, ClaimStep::Waiting);
                self.begin_if_there_is_room(key, now);
            }
            (ClaimStep::Confirming(settling), Settled::Done(revision)) => {
                let record = settling.record.clone();
                self.finish(key, &record, Some(revision), now);
            }
            (ClaimStep::Confirming(settling), Settled::DoneAndGone) => {
                let record = settling.record.clone();
                self.finish(key, &record, None, now);
            }
            // Another node has claimed over this claim, so this copy is void.
            (ClaimStep::Confirming(_), Settled::Lost) => {
                self.pending.remove(&key);
                self.steps.push_back(OwnerStep::Drop(key));
                self.end_claim(key, Some(ConnectRefusal::TakenOver), now);
            }
            // Whatever the outcome, this CONNECT has lost.
            (ClaimStep::Undoing(_), _) => {
                self.end_claim(key, Some(ConnectRefusal::Unavailable), now);
            }
            (
                ClaimStep::Waiting
                | ClaimStep::Reading { .. }
                | ClaimStep::Releasing { .. }
                | ClaimStep::Adopting { .. },
                _,
            ) => {}
        }
    }

    /// Handles the answer of the previous holder.
    pub fn handle_release_reply(
        &mut self,
        from: &NodeId,
        request: ReleaseRequest,
        reply: ReleaseReply,
        now: Timestamp,
    ) {
        let Some(claim) = self.claims.get_mut(&request.key) else { return };
        let ClaimStep::Releasing { record, revision, next_at, .. } = &mut claim.step else {
            return;
        };
        if record.term != request.term || record.previous.as_ref() != Some(from) {
            return; // The answer to an earlier claim.
        }
        let (mut record, revision) = (record.clone(), *revision);
        match reply {
            ReleaseReply::Session { copy, has_rest } => {
                // The holder still has a part, so the record must say so.
                record.owed.extend(has_rest.then(|| from.clone()));
                self.adopt(request.key, record, revision, Some(copy));
            }
            ReleaseReply::Nothing => self.adopt(request.key, record, revision, None),
            ReleaseReply::Old => {
                self.end_claim(request.key, Some(ConnectRefusal::TakenOver), now);
            }
            // The holder is busy with the session; it is asked again.
            ReleaseReply::Later => *next_at = now.plus_millis(LATER_MILLIS),
        }
    }

    pub(super) fn adopt(
        &mut self,
        key: ClientKey,
        record: OwnerRecord,
        revision: Revision,
        copy: Option<Bytes>,
    ) {
        self.pending.insert(key, record.term);
        if let Some(claim) = self.claims.get_mut(&key) {
            claim.previous = record.previous.clone();
        }
        self.steps.push_back(OwnerStep::Adopt(key, record.term, copy));
        self.set_step(key, ClaimStep::Adopting { record, revision });
    }

    /// Notes that the copy is stored: it is in the hands of this node, whatever happens to it.
    pub fn handle_adopted(&mut self, key: ClientKey, term: Term, now: Timestamp) {
        let Some(claim) = self.claims.get(&key) else { return };
        let ClaimStep::Adopting { record, revision } = &claim.step else { return };
        if record.term != term {
            return;
        }
        let (record, revision) = (record.clone(), *revision);
        if record.hold == Hold::Holding {
            return self.finish(key, &record, Some(revision), now);
        }
        let record = self.confirmation(record);
        self.set_step(key, ClaimStep::Confirming(Settling::new(record, revision, now)));
    }

    /// Notes that the copy cannot be stored: the claim is undone.
    pub fn handle_not_adopted(&mut self, key: ClientKey, term: Term, now: Timestamp) {
        let Some(claim) = self.claims.get(&key) else { return };
        let ClaimStep::Adopting { record, revision } = &claim.step else { return };
        if record.term != term {
            return;
        }
        let (record, revision) = (record.clone(), *revision);
        self.pending.remove(&key);
        match record.previous.clone() {
            Some(previous) if record.hold == Hold::Taking => {
                let step = ClaimStep::Releasing { record, revision, next_at: now, since: now };
                self.set_step(key, step);
                self.undo(key, previous, now);
            }
            Some(_) | None => self.end_claim(key, Some(ConnectRefusal::Unavailable), now),
        }
    }

    /// Finishes a claim after the record has named this node as the holder. Without a revision, the record
    /// has changed since.
    fn finish(
        &mut self,
        key: ClientKey,
        record: &OwnerRecord,
        revision: Option<Revision>,
        now: Timestamp,
    ) {
        // Read before the claim ends.
        let Some(claim) = self.claims.get(&key) else { return };
        let (own, connect, previous) = (claim.own, claim.connect, claim.previous.clone());
        self.pending.remove(&key);
        // A tombstone of an earlier departure is void: the session is here again.
        self.tombstones.remove(&key);
        let custody = Custody {
            term: record.term,
            state: CustodyState::Own,
            is_proven: revision.is_some(),
            is_owed: !record.owed.is_empty(),
            revision: revision.unwrap_or_default(),
        };
        self.custodies.insert(key, custody);
        self.note_doubt(key, now);
        self.steps.push_back(OwnerStep::Settle(key, record.term, own));
        if let Some(previous) = previous {
            let request = ReleaseRequest { key, term: record.term };
            // The former holder may forget its copy from now on.
            self.steps.push_back(OwnerStep::Confirmed(previous, request));
        }
        // Parts that other nodes owe are fetched after the client is served.
        for node in &record.owed {
            self.steps.push_back(OwnerStep::Fetch(key, node.clone()));
        }
        // Without a revision another node has already claimed, so the client must not be admitted.
        if let (Some(connect), Some(_)) = (connect, revision) {
            self.steps.push_back(OwnerStep::Admit(connect, key, record.term));
            return self.end_claim(key, None, now);
        }
        self.end_claim(key, Some(ConnectRefusal::TakenOver), now);
    }
}
