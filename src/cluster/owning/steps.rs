//! Carries out the steps of the core: requests to NATS and other nodes, and what the shards do.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    OfferedSession, OwnedSessions, RestKind,
    life::{OwnerInput, OwnerLife},
    parts::PartAsker,
};
use crate::cluster::{
    door::{AskedQuestion, KeyWrite},
    names::{ClientKey, NodeId, Term},
    owner_record::{AskNumber, ConnectNumber, ConnectRefusal, ReleaseReply, ReleaseRequest},
    owners::{LeftWhole, OwnerStep, Tombstone},
    questions::{NodeQuestion, QuestionBody, QuestionReply},
    wire,
};
use crate::journal::Revision;

/// How long a read waits for its answer. The core repeats it.
const READ_TIME_MAX: Duration = Duration::from_secs(1);
/// How long a write waits for its answer. The core finds out what became of it.
const WRITE_TIME_MAX: Duration = Duration::from_millis(1_500);
/// Records that are removed at the same time.
const REMOVALS_IN_FLIGHT_MAX: usize = 256;
/// How long the previous holder may take to end a session. The core asks again every second.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(3);

impl OwnerLife<'_> {
    pub(super) fn carry_steps(&mut self) {
        while let Some(step) = self.owners.poll_step() {
            self.carry_step(step);
        }
        while self.removals_in_flight < REMOVALS_IN_FLIGHT_MAX
            && let Some((key, revision)) = self.removals.pop_front()
        {
            self.removals_in_flight += 1;
            self.remove(key, revision);
        }
    }

    fn remove(&self, key: ClientKey, revision: Revision) {
        let door = Arc::clone(&self.parts.of.door);
        self.inputs.push(Box::pin(async move {
            let name = key.to_string();
            // A record that stays names this node, and costs the next claim nothing.
            let _ = door.remove(key.bucket(), &name, revision, WRITE_TIME_MAX).await;
            OwnerInput::Removed
        }));
    }

    fn carry_step(&mut self, step: OwnerStep) {
        match step {
            OwnerStep::Read(key) => self.read(key),
            OwnerStep::Write(write) => self.write(write),
            OwnerStep::Remove(_, key, revision) => self.removals.push_back((key, revision)),
            OwnerStep::Release(to, request) => {
                let body = QuestionBody::Release(request);
                self.ask(to, request, body, RELEASE_TIME_MAX);
            }
            OwnerStep::Confirmed(to, request) => {
                self.note_former(request.key, &to);
                let body = QuestionBody::Confirmed(request);
                self.ask(to, request, body, READ_TIME_MAX);
            }
            OwnerStep::Answer(ask, reply) => self.answer_release(ask, reply),
            OwnerStep::Offer(key, term, ask) => self.offer(key, term, ask),
            OwnerStep::Adopt(key, term, copy) => self.adopt(key, term, copy),
            OwnerStep::Leave(key, to, LeftWhole::Whole | LeftWhole::BehindOffer) => {
                self.leave(key, &to);
            }
            OwnerStep::Settle(key, term, _) => {
                self.found_elsewhere.remove(&key);
                if self.moving_in.remove(&key) {
                    self.begin_catching_up(key, term);
                }
            }
            OwnerStep::Drop(key) => self.drop_copy(key),
            OwnerStep::Regain(key, _) => {
                self.parted.remove(&key);
                self.moves.regain(key);
                self.parts.of.routes.keep(key);
            }
            OwnerStep::Fetch(..) => {} // Nothing is kept for a dead node yet.
            OwnerStep::Admit(connect, key, term) => self.admit(connect, key, term),
            OwnerStep::Refuse(connect, why) => {
                if let Some((_, answer)) = self.waiting.remove(&connect) {
                    let _ = answer.send(Err(why)); // The socket may be closed.
                }
            }
        }
    }

    fn read(&self, key: ClientKey) {
        let door = Arc::clone(&self.parts.of.door);
        self.inputs.push(Box::pin(async move {
            let name = key.to_string();
            OwnerInput::Read(key, door.read(key.bucket(), &name, READ_TIME_MAX).await)
        }));
    }

    fn write(&self, write: KeyWrite) {
        let door = Arc::clone(&self.parts.of.door);
        self.inputs.push(Box::pin(async move {
            let KeyWrite { request, bucket, key, value, expected } = write;
            let result = door.update(bucket, &key, value, expected, WRITE_TIME_MAX).await;
            // The core has made the name from the key.
            let key = ClientKey(u128::from_str_radix(&key, 16).unwrap_or_default());
            OwnerInput::Written(key, request, result)
        }));
    }

    fn ask(&self, to: NodeId, request: ReleaseRequest, body: QuestionBody, time_max: Duration) {
        let door = Arc::clone(&self.parts.of.door);
        let to_incarnation = self.lives.incarnation(&to).0;
        let (from, incarnation) = (self.parts.of.node.clone(), self.incarnation);
        let payload = wire::encode(&NodeQuestion { from: from.clone(), incarnation, body });
        self.inputs.push(Box::pin(async move {
            let asker = PartAsker { door, to, to_incarnation, from, incarnation, request };
            let reply = asker.ask(payload, time_max).await;
            OwnerInput::Released(asker.to, request, reply)
        }));
    }

    fn answer_release(&mut self, ask: AskNumber, reply: ReleaseReply) {
        let Some(question) = self.asked.remove(&ask) else { return };
        let reply = self.in_parts(&question, reply);
        self.answer(question, &reply);
    }

    /// Answers a question, unless this node has lost its leases meanwhile.
    pub(super) fn answer(&self, question: AskedQuestion, reply: &QuestionReply) {
        if !self.acts() {
            return;
        }
        let (door, payload) = (Arc::clone(&self.parts.of.door), wire::encode(reply));
        self.inputs.push(Box::pin(async move {
            let _ = door.answer(&question, payload).await; // Without an answer, the node asks again.
            OwnerInput::Nothing
        }));
    }

    /// Offers the session of a client to the node that has claimed it.
    fn offer(&mut self, key: ClientKey, term: Term, ask: AskNumber) {
        self.parts.held.give_up(key);
        // The claimant may have got the answer to its first request, so it gets the same copy again.
        if let Some(copy) = self.moves.offered(key, term) {
            return self.owners.handle_offered(ask, Some((copy, false)));
        }
        self.offering.insert(ask, (key, term));
        let offered = self.client_ids.get(&key).map(|id| self.parts.of.sessions.offer(id));
        self.inputs.push(Box::pin(async move {
            let offered = match offered {
                Some(offered) => offered.await,
                None => OfferedSession::Nothing,
            };
            OwnerInput::Offered(ask, offered)
        }));
    }

    /// Stores the session that another node has handed over. A session that lies here is an old one if another node
    /// had the client since: it ends.
    fn adopt(&mut self, key: ClientKey, term: Term, copy: Option<Bytes>) {
        let sessions = &self.parts.of.sessions;
        let is_old = self.found_elsewhere.contains(&key);
        let client_id = self.client_ids.get(&key).cloned();
        let rest_from = self.moves.come_back(key);
        let (adopted, dropped) = match copy {
            Some(copy) => {
                self.moving_in.insert(key);
                let rest = rest_from.zip(client_id).map(|(from, id)| (id, from));
                (Some(Box::pin(adopt_with(Arc::clone(sessions), copy, rest))), None)
            }
            None => {
                let old = client_id.filter(|_| is_old);
                (None, old.map(|id| sessions.drop_session(&id, false)))
            }
        };
        self.inputs.push(Box::pin(async move {
            let mut is_adopted = true;
            if let Some(adopted) = adopted {
                is_adopted = adopted.await;
            } else if let Some(dropped) = dropped {
                dropped.await;
            }
            OwnerInput::Adopted(key, term, is_adopted)
        }));
    }

    /// Drops the session that has come from another node: the claim has failed.
    fn drop_copy(&mut self, key: ClientKey) {
        if self.moving_in.remove(&key) {
            self.drop_session(key);
        }
    }

    /// Gives up the session of a client that another node has. One that was offered is kept until its rest is there.
    fn leave(&mut self, key: ClientKey, to: &Tombstone) {
        self.parts.held.give_up(key);
        self.owners.forget_tombstone(key);
        self.parted.remove(&key);
        if !self.begin_leaving(key, to) {
            self.drop_session(key);
        }
        self.client_ids.remove(&key);
    }

    fn drop_session(&self, key: ClientKey) {
        let Some(client_id) = self.client_ids.get(&key) else { return };
        let dropped = self.parts.of.sessions.drop_session(client_id, true);
        self.inputs.push(Box::pin(async move {
            dropped.await;
            OwnerInput::Nothing
        }));
    }

    fn admit(&mut self, connect: ConnectNumber, key: ClientKey, term: Term) {
        let Some((_, answer)) = self.waiting.remove(&connect) else {
            return self.give_back_unused(key);
        };
        let is_held =
            |own: &crate::cluster::owners::Custody| own.may_queue_qos2() && own.term == term;
        if !self.owners.custody(key).is_some_and(is_held) || !self.acts() {
            let _ = answer.send(Err(ConnectRefusal::Unavailable)); // The socket may be closed.
            return;
        }
        let of = (self.incarnation, &self.parts.lease);
        let held = self.parts.held.lend(key, term, of, &self.parts.commands);
        // If the socket is closed, dropping the client gives it back.
        let _ = answer.send(Ok(held));
    }

    /// Gives a client back whose socket was closed during its claim.
    fn give_back_unused(&mut self, key: ClientKey) {
        if !self.parts.held.is_used(key) {
            let _ = self.parts.commands.send(super::OwnerCommand::Ended(key));
        }
    }
}

/// Stores a session that another node has handed over. Messages that this node has taken for it since it has left come
/// behind it.
async fn adopt_with(
    sessions: Arc<dyn OwnedSessions>,
    copy: Bytes,
    rest: Option<(Arc<str>, u64)>,
) -> bool {
    let mut pages = Vec::new();
    if let Some((client_id, mut from)) = rest {
        while let Some(page) = sessions.rest(&client_id, from).await.filter(|page| !page.is_last) {
            from = page.next;
            pages.push((Arc::clone(&client_id), page.copy));
        }
    }
    let is_adopted = sessions.adopt(copy).await;
    for (client_id, page) in pages.into_iter().filter(|_| is_adopted) {
        let kind = RestKind { is_last: false, is_marked: true };
        sessions.append(&client_id, page, kind).await;
    }
    is_adopted
}
