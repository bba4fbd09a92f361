//! The side of the holder: requests of other nodes to release a session.

use bytes::Bytes;

use super::{
    AskNumber, ClientKey, ClientOwners, CustodyState, NodeId, OwnerStep, ReleaseReply,
    ReleaseRequest, Term, Timestamp,
};
use super::{LeftWhole, Tombstone};

impl ClientOwners {
    /// Handles the request of a node that has claimed a session. The driver has refused it if it is of
    /// an earlier life of that node.
    pub fn handle_release(&mut self, request: ReleaseRequest, ask: AskNumber, now: Timestamp) {
        let ReleaseRequest { key, term } = request;
        // This node is about to change its own state; the claimant asks again.
        if self.claims.contains_key(&key) || self.pending.contains_key(&key) {
            return self.answer(ask, ReleaseReply::Later);
        }
        let Some(custody) = self.custodies.get_mut(&key) else {
            return self.answer(ask, ReleaseReply::Nothing);
        };
        let answered = match custody.state {
            CustodyState::Own => custody.term,
            CustodyState::Offered(offered) => offered,
        };
        // The answer may have been lost, so a repeated request is answered in the same way.
        let is_repeated = custody.state == CustodyState::Offered(term);
        if term < answered || (term == answered && !is_repeated) {
            return self.answer(ask, ReleaseReply::Old);
        }
        // From here on the session is frozen: mail goes behind the offer.
        custody.state = CustodyState::Offered(term);
        // The claimant may never confirm, so the record is looked at later.
        self.note_doubt(key, now);
        self.offering.insert(ask, (key, term));
        self.steps.push_back(OwnerStep::Offer(key, term, ask));
    }

    fn answer(&mut self, ask: AskNumber, reply: ReleaseReply) {
        self.steps.push_back(OwnerStep::Answer(ask, reply));
    }

    /// Notes that the term and the position of an offer are stored; `None` if the client has no
    /// session that lasts. `has_rest` tells whether messages lie behind the position.
    pub fn handle_offered(&mut self, ask: AskNumber, copy: Option<(Bytes, bool)>) {
        let Some((key, term)) = self.offering.remove(&ask) else { return };
        let is_current =
            self.custodies.get(&key).is_some_and(|own| own.state == CustodyState::Offered(term));
        let reply = match copy {
            Some((copy, has_rest)) => ReleaseReply::Session { copy, has_rest },
            None => ReleaseReply::Nothing,
        };
        // Otherwise a later claim has asked meanwhile, or the session was given back.
        let reply = if is_current { reply } else { ReleaseReply::Later };
        self.answer(ask, reply);
    }

    /// Notes that the claimant has stored and confirmed the session.
    pub fn handle_confirmed(&mut self, from: NodeId, request: ReleaseRequest) {
        let ReleaseRequest { key, term } = request;
        let is_offered =
            self.custodies.get(&key).is_some_and(|own| own.state == CustodyState::Offered(term));
        if is_offered && !self.claims.contains_key(&key) {
            self.leave(key, from, term, LeftWhole::BehindOffer);
        }
    }

    pub(super) fn leave(&mut self, key: ClientKey, to: NodeId, term: Term, whole: LeftWhole) {
        self.custodies.remove(&key);
        self.doubts.remove(&key);
        let tombstone = Tombstone { to, term };
        self.tombstones.insert(key, tombstone.clone());
        self.steps.push_back(OwnerStep::Leave(key, tombstone, whole));
    }
}
