//! The requests that a claim makes as time passes, and how a claim is undone.

use super::{
    CLAIM_MILLIS_MAX, CLAIM_WAITS_MILLIS_MAX, ClientKey, ClientOwners, ConnectRefusal, Hold,
    KeyWrite, Lives, NodeId, OwnerRecord, OwnerStep, ReleaseRequest, RequestNumber, Term,
    Timestamp,
    claiming::{ClaimStep, READ_MILLIS},
};
use crate::cluster::{
    settling::{Settling, SettlingStep},
    wire,
};

/// Time to wait for the answer of the previous holder before it is asked again.
const RELEASE_MILLIS: u64 = 1_000;

impl ClientOwners {
    /// Makes the requests that are due.
    pub(super) fn poll_claims(&mut self, lives: &dyn Lives, now: Timestamp) {
        let keys: Vec<ClientKey> = self.claims.keys().copied().collect();
        for key in keys {
            self.poll_claim(key, lives, now);
        }
    }

    pub(super) fn poll_claim(&mut self, key: ClientKey, lives: &dyn Lives, now: Timestamp) {
        let request = RequestNumber(self.next_request.0 + 1);
        let Some(claim) = self.claims.get_mut(&key) else { return };
        // A client waits for its CONNACK, so a claim has a limit.
        let is_late = now >= claim.since.plus_millis(CLAIM_MILLIS_MAX);
        match &mut claim.step {
            ClaimStep::Waiting => {
                // Waiting for room has a shorter limit: the node is overloaded, and another one may
                // serve the client.
                if now >= claim.since.plus_millis(CLAIM_WAITS_MILLIS_MAX) {
                    return self.end_claim(key, Some(ConnectRefusal::Busy), now);
                }
                self.begin_if_there_is_room(key, now);
            }
            ClaimStep::Reading { next_at } if now >= *next_at => {
                if is_late {
                    return self.end_claim(key, Some(ConnectRefusal::Unavailable), now);
                }
                // A question without an answer is asked again.
                *next_at = now.plus_millis(READ_MILLIS);
                self.steps.push_back(OwnerStep::Read(key));
            }
            ClaimStep::Claiming(settling)
            | ClaimStep::Confirming(settling)
            | ClaimStep::Undoing(settling) => match settling.poll(request, now) {
                Some(SettlingStep::Read) => self.steps.push_back(OwnerStep::Read(key)),
                Some(SettlingStep::Write(expected)) => {
                    let value = wire::encode(&settling.record);
                    let (bucket, name) = (key.bucket(), key.to_string());
                    let write = KeyWrite { request, bucket, key: name, value, expected };
                    self.next_request = request;
                    self.requests.insert(request, key);
                    self.steps.push_back(OwnerStep::Write(write));
                }
                None => {}
            },
            ClaimStep::Releasing { .. } => self.poll_release(key, lives, now),
            ClaimStep::Reading { .. } | ClaimStep::Adopting { .. } => {}
        }
    }

    fn poll_release(&mut self, key: ClientKey, lives: &dyn Lives, now: Timestamp) {
        let Some(claim) = self.claims.get_mut(&key) else { return };
        let ClaimStep::Releasing { record, revision, next_at, since } = &mut claim.step else {
            return;
        };
        let Some(previous) = record.previous.clone() else { return };
        // A holder that died while it was asked owes the session, and the claimant goes on without it.
        if lives.is_dead(&previous) {
            let (mut record, revision) = (record.clone(), *revision);
            record.owed.push(previous);
            return self.adopt(key, record, revision, None);
        }
        // The holder lives and does not answer, so the record is given back.
        if now >= since.plus_millis(CLAIM_MILLIS_MAX) {
            return self.undo(key, previous, now);
        }
        if now >= *next_at {
            *next_at = now.plus_millis(RELEASE_MILLIS);
            let request = ReleaseRequest { key, term: record.term };
            self.steps.push_back(OwnerStep::Release(previous, request));
        }
    }

    /// Gives the record back to its holder, in a term of its own.
    pub(super) fn undo(&mut self, key: ClientKey, holder: NodeId, now: Timestamp) {
        let (writer, incarnation) = (self.me.clone(), self.incarnation);
        let claim_number = self.claim_number();
        let Some(claim) = self.claims.get_mut(&key) else { return };
        let ClaimStep::Releasing { record, revision, .. } = &claim.step else { return };
        let (record, revision) = (record.clone(), *revision);
        // A term of its own, so that a late answer to the claim finds it past.
        let Some(term) = Term::next(Some(record.term), 0) else { return };
        let given_back = OwnerRecord {
            node: holder,
            term,
            hold: Hold::Holding,
            previous: None,
            writer,
            incarnation,
            claim: claim_number,
            ..record
        };
        self.set_step(key, ClaimStep::Undoing(Settling::new(given_back, revision, now)));
    }
}
