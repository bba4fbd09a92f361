//! The messages that follow a session which has moved: the former holder sends those that it has taken meanwhile, and the
//! new one stores them before those that it takes itself.
//!
//! ```text
//!  former holder:  Offer ── claim confirmed ──▶ Leaving ── all routes changed: sends the rest, page by page ──▶ dropped
//!  new holder:     Settle ──▶ CatchingUp ── the last page is stored, or the former holder is dead ──▶ ready to move again
//! ```
//!
//! A page has a number, so one that is sent again is stored once. The last page is empty. Knows neither routes nor shards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    OwnerCommand, RestKind, RestRead,
    life::{OwnerInput, OwnerLife},
    moved::{CatchingUp, LeavingSession, PageOutcome, RestName, SessionOffer},
};
use crate::{
    cluster::{
        door::{AskedQuestion, Nats},
        members::Lives as _,
        names::{ClientKey, NodeId, Term},
        owner_record::{OwnerRecord, ReleaseReply, ReleaseRequest},
        owners::{CustodyState, Tombstone},
        questions::{NodeQuestion, QuestionBody, QuestionReply, RestPart, RestReply},
        routes::TakenSession,
        session_routes::MoveOver,
        wire,
    },
    mqtt::Timestamp,
};

/// The maximum time for which a session holds its own messages for the rest of the former holder.
const CATCH_UP_MILLIS_MAX: u64 = 3_000;
/// The time after which the rest is sent although not all routes have changed: the new holder was ended before it had
/// written the place of the hand-over.
const ROUTES_MILLIS_MAX: u64 = 15_000;
/// The pause after a question without an answer.
const AGAIN_MILLIS: u64 = 500;
/// How long one part of a page waits for its answer.
const PART_TIME_MAX: Duration = Duration::from_millis(1_500);
/// Sessions whose rest is sent at the same time.
const LEAVING_IN_FLIGHT_MAX: usize = 64;
/// Maximum bytes of a page: of one message of the largest size, and the fields around it.
const PAGE_BYTES_MAX: u64 = 269_000_000;
/// The bytes of a question besides the part.
const FRAME_BYTES: usize = 1_024;

impl OwnerLife<'_> {
    /// Keeps the copy of a session for its claim, so that a repeated request gets the same one; returns the copy.
    pub(super) fn keep_offer(
        &mut self,
        (key, term): (ClientKey, Term),
        copy: Bytes,
        rest_from: u64,
    ) -> Bytes {
        if let Some(copy) = self.moves.offered(key, term) {
            return copy; // A request that was repeated before the first answer.
        }
        let Some(client_id) = self.client_ids.get(&key).cloned() else { return copy };
        let is_over = Arc::new(AtomicBool::new(false));
        let (flag, commands) = (Arc::clone(&is_over), self.parts.commands.clone());
        let over = MoveOver(Box::new(move |to| {
            flag.store(true, Ordering::Release);
            // Without a driver, the broker ends.
            let _ = commands.send(OwnerCommand::Left(key, term, to));
        }));
        self.parts.of.routes.offer(TakenSession { key, term }, Arc::clone(&client_id), over);
        let kept = copy.clone();
        self.moves.offers.insert(key, SessionOffer { term, client_id, copy, rest_from, is_over });
        kept
    }

    /// Notes that the log of routes has the hand-over, and no message comes for the former holder, which is this node.
    pub(super) fn handle_left(&mut self, key: ClientKey, term: Term, to: NodeId) {
        // The claimant writes it after the confirmation, whose message may be lost.
        if self.moves.offered(key, term).is_some() {
            self.owners.handle_confirmed(to, ReleaseRequest { key, term });
        }
    }

    /// Keeps a session that has left until its rest is sent; returns whether it was offered.
    pub(super) fn begin_leaving(&mut self, key: ClientKey, tombstone: &Tombstone) -> bool {
        self.moves.marked.remove(&key);
        let Some(offer) = self.moves.offers.remove(&key) else { return false };
        let SessionOffer { term, client_id, rest_from, is_over, .. } = offer;
        let (to, now) = (tombstone.to.clone(), self.now());
        let leaving = LeavingSession {
            to,
            term,
            client_id,
            from: rest_from,
            page: 0,
            since: now,
            next_at: now,
            is_over,
            is_asking: false,
        };
        self.moves.leaving.insert(key, leaving);
        true
    }

    /// Begins to wait for the rest of a session that was handed over.
    pub(super) fn begin_catching_up(&mut self, key: ClientKey, term: Term) {
        let Some(client_id) = self.client_ids.get(&key).cloned() else { return };
        let deadline = self.now().plus_millis(CATCH_UP_MILLIS_MAX);
        let catching_up = CatchingUp { term, from: None, deadline, holds: true };
        self.moves.catching_up.insert(key, catching_up);
        self.moves.marked.insert(key, term);
        self.parts.of.routes.take(TakenSession { key, term }, client_id);
    }

    /// Notes from which node a session has come.
    pub(super) fn note_former(&mut self, key: ClientKey, from: &NodeId) {
        if let Some(catching_up) = self.moves.catching_up.get_mut(&key) {
            catching_up.from = Some(from.clone());
        }
    }

    /// Carries out what is due for sessions that move.
    pub(super) fn look_at_moves(&mut self, now: Timestamp) {
        self.give_up_late(now);
        if !self.acts() {
            return;
        }
        let moves = &mut self.moves;
        let asking = moves.leaving.values().filter(|leaving| leaving.is_asking).count();
        let is_due = |leaving: &LeavingSession| {
            let may_send = leaving.is_over.load(Ordering::Acquire)
                || now >= leaving.since.plus_millis(ROUTES_MILLIS_MAX);
            may_send && !leaving.is_asking && now >= leaving.next_at
        };
        let due = moves.leaving.iter().filter(|(_, leaving)| is_due(leaving));
        let room = LEAVING_IN_FLIGHT_MAX.saturating_sub(asking);
        let due: Vec<ClientKey> = due.map(|(key, _)| *key).take(room).collect();
        for key in due {
            self.send_rest(key);
        }
    }

    /// Gives up the order of messages whose former holder does not send its rest in time, and no longer waits for a
    /// dead one.
    fn give_up_late(&mut self, now: Timestamp) {
        let (mut late, mut alone) = (Vec::new(), Vec::new());
        for (key, catching_up) in &mut self.moves.catching_up {
            let is_dead = catching_up.from.as_ref().is_some_and(|from| self.lives.is_dead(from));
            if is_dead {
                alone.push(*key);
            }
            if catching_up.holds && (is_dead || now >= catching_up.deadline) {
                catching_up.holds = false;
                late.push(*key);
            }
        }
        for key in alone {
            self.moves.catching_up.remove(&key);
            self.moves.marked.remove(&key);
        }
        for client_id in late.iter().filter_map(|key| self.client_ids.get(key)) {
            self.parts.of.sessions.give_up_order(client_id);
        }
    }

    /// Sends the next page of a session that has left.
    fn send_rest(&mut self, key: ClientKey) {
        let Some(leaving) = self.moves.leaving.get_mut(&key) else { return };
        leaving.is_asking = true;
        let sender = RestSender {
            door: Arc::clone(&self.parts.of.door),
            to: leaving.to.clone(),
            to_incarnation: self.lives.incarnation(&leaving.to).0,
            question: NodeQuestion {
                from: self.parts.of.node.clone(),
                incarnation: self.incarnation,
                body: QuestionBody::RoutesOf(key), // Each part has its own.
            },
            request: ReleaseRequest { key, term: leaving.term },
            page: leaving.page,
        };
        let read = self.parts.of.sessions.rest(&leaving.client_id, leaving.from);
        self.inputs.push(Box::pin(async move {
            let outcome = match read.await {
                Some(read) => sender.send(read).await,
                None => PageOutcome::NoAnswer,
            };
            OwnerInput::RestSent(key, outcome)
        }));
    }

    pub(super) fn handle_rest_sent(&mut self, key: ClientKey, outcome: PageOutcome) {
        let now = self.now();
        let Some(leaving) = self.moves.leaving.get_mut(&key) else { return };
        leaving.is_asking = false;
        match outcome {
            PageOutcome::Kept(next) => {
                (leaving.from, leaving.page) = (next, leaving.page + 1);
                self.send_rest(key);
            }
            PageOutcome::Last => self.end_leaving(key),
            // The record tells which node has the session now.
            PageOutcome::NotHere => self.read_holder(key),
            PageOutcome::NoAnswer => {
                leaving.next_at = now.plus_millis(AGAIN_MILLIS);
                if self.lives.is_dead(&leaving.to) {
                    self.read_holder(key);
                }
            }
        }
    }

    fn read_holder(&mut self, key: ClientKey) {
        let Some(leaving) = self.moves.leaving.get_mut(&key) else { return };
        leaving.is_asking = true;
        let door = Arc::clone(&self.parts.of.door);
        self.inputs.push(Box::pin(async move {
            let entry = door.read(key.bucket(), &key.to_string(), PART_TIME_MAX).await;
            let record = entry.map(|entry| {
                let value = entry.and_then(|entry| entry.value)?;
                wire::decode::<OwnerRecord>(&value).ok()
            });
            OwnerInput::HolderRead(key, record.ok())
        }));
    }

    /// Handles the record of a session that has left; `None`: it cannot be read now.
    pub(super) fn handle_holder(&mut self, key: ClientKey, record: Option<Option<OwnerRecord>>) {
        let now = self.now();
        let Some(leaving) = self.moves.leaving.get_mut(&key) else { return };
        leaving.is_asking = false;
        leaving.next_at = now.plus_millis(AGAIN_MILLIS);
        let Some(record) = record else { return };
        let holder = record.as_ref().and_then(OwnerRecord::holder);
        match holder {
            Some(holder) if *holder != leaving.to => {
                // Its pages have numbers of their own.
                leaving.to = holder.clone();
            }
            // It is back with the session when it serves again.
            Some(holder) if self.lives.is_dead(holder) => {}
            Some(_) | None => self.end_leaving(key), // The session has ended there.
        }
    }

    fn end_leaving(&mut self, key: ClientKey) {
        let Some(leaving) = self.moves.leaving.remove(&key) else { return };
        let dropped = self.parts.of.sessions.drop_session(&leaving.client_id, true);
        self.inputs.push(Box::pin(async move {
            dropped.await;
            OwnerInput::Nothing
        }));
    }

    /// Takes a part of a page of a former holder.
    pub(super) fn take_rest(&mut self, question: AskedQuestion, from: &NodeId, part: RestPart) {
        let RestPart { request, page, from_byte, bytes_in_all, bytes, is_last } = part;
        let name = (request.key, from.clone(), request.term);
        let is_own = self.owners.custody(request.key).map(|own| own.state == CustodyState::Own);
        let client_id = self.client_ids.get(&request.key).cloned();
        let client_id = match (is_own, client_id) {
            (Some(true), Some(client_id)) => client_id,
            _ if is_own.is_some() || self.owners.is_claiming(request.key) => return, // Ask again.
            _ => return self.answer(question, &QuestionReply::Rest(RestReply::NotHere)),
        };
        let arriving = self.moves.arriving.entry(name.clone()).or_default();
        // The answer was lost.
        if page < arriving.next {
            return self.answer(question, &QuestionReply::Rest(RestReply::Kept));
        }
        if arriving.is_storing || bytes_in_all > PAGE_BYTES_MAX {
            return; // The node asks again.
        }
        if from_byte == 0 {
            arriving.bytes.clear();
        }
        if from_byte != arriving.bytes.len() as u64 {
            return;
        }
        arriving.bytes.extend_from_slice(&bytes);
        if (arriving.bytes.len() as u64) < bytes_in_all {
            return self.answer(question, &QuestionReply::Rest(RestReply::More));
        }
        arriving.is_storing = true;
        let copy = arriving.bytes.split().freeze();
        // A life that has not taken the session itself does not know whether the client had Clean Start since.
        let is_marked = self.moves.marked.get(&request.key) == Some(&request.term);
        let kind = RestKind { is_last, is_marked };
        let appended = self.parts.of.sessions.append(&client_id, copy, kind);
        self.inputs.push(Box::pin(async move {
            let is_here = appended.await;
            OwnerInput::RestStored(question, name, (is_last, page, is_here))
        }));
    }

    pub(super) fn handle_rest_stored(
        &mut self,
        question: AskedQuestion,
        name: RestName,
        (is_last, page, is_here): (bool, u64, bool),
    ) {
        if is_last {
            self.moves.arriving.remove(&name);
            let (key, _, term) = name;
            if self.moves.catching_up.get(&key).is_some_and(|it| it.term == term) {
                self.moves.catching_up.remove(&key);
            }
        } else if let Some(arriving) = self.moves.arriving.get_mut(&name) {
            arriving.is_storing = false;
            arriving.next = page + 1;
        }
        let reply = if is_here { RestReply::Kept } else { RestReply::NotHere };
        self.answer(question, &QuestionReply::Rest(reply));
    }

    /// Answers a claim of a session that waits for its former holder: ask again.
    pub(super) fn answer_later(&self, question: AskedQuestion) {
        self.answer(question, &QuestionReply::Release(ReleaseReply::Later));
    }
}

/// Sends a page in parts.
struct RestSender {
    door: Arc<dyn Nats>,
    to: NodeId,
    to_incarnation: u64,
    question: NodeQuestion,
    request: ReleaseRequest,
    page: u64,
}

impl RestSender {
    async fn send(self, read: RestRead) -> PageOutcome {
        let RestRead { copy, next, is_last } = read;
        let bytes_max = self.door.payload_bytes_max().saturating_sub(FRAME_BYTES).max(FRAME_BYTES);
        let mut from = 0;
        loop {
            let to = copy.len().min(from + bytes_max);
            let part = RestPart {
                request: self.request,
                page: self.page,
                from_byte: from as u64,
                bytes_in_all: copy.len() as u64,
                bytes: copy.slice(from..to),
                is_last,
            };
            match self.ask(part).await {
                Some(RestReply::More) if to < copy.len() => from = to,
                Some(RestReply::Kept) if is_last => return PageOutcome::Last,
                Some(RestReply::Kept) => return PageOutcome::Kept(next),
                Some(RestReply::NotHere) if is_last => return PageOutcome::Last,
                Some(RestReply::NotHere) => return PageOutcome::NotHere,
                Some(RestReply::More) | None => return PageOutcome::NoAnswer,
            }
        }
    }

    async fn ask(&self, part: RestPart) -> Option<RestReply> {
        let question = NodeQuestion { body: QuestionBody::Rest(part), ..self.question.clone() };
        let question = wire::encode(&question);
        let asked = self.door.ask(&self.to, self.to_incarnation, question, PART_TIME_MAX);
        match wire::decode(&asked.await.ok()?).ok()? {
            QuestionReply::Rest(reply) => Some(reply),
            QuestionReply::Release(_)
            | QuestionReply::Forward(_)
            | QuestionReply::Routes(_)
            | QuestionReply::Done
            | QuestionReply::SessionPart { .. } => None,
        }
    }
}
