//! One life of the driver: takes in CONNECTs, records, answers and questions, and passes them to the core.
//!
//! A question of an earlier life of a node is refused. A record by a life that this node does not know yet decides
//! nothing: it could name a node that was dead and has come back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::warn;

use super::{
    HeldClient, OfferedSession, OwnerCommand, OwnerParts, WaitingClaim,
    moved::{PageOutcome, SessionMoves},
};
use crate::{
    cluster::{
        door::{AskedQuestion, BucketEntry, NatsAskError, NatsWriteError},
        members::{Lives, MemberStanding},
        names::{ClientKey, Incarnation, NodeId, RequestNumber, Term},
        node::{MemberStatus, NodeStatus, PreparedLife},
        owner_record::{AskNumber, ConnectNumber, ConnectRefusal, ReleaseReply, ReleaseRequest},
        owners::{ClientOwners, CustodyState, OwnerRecord},
        questions::{NodeQuestion, QuestionBody, QuestionReply},
        wire,
    },
    journal::Revision,
    mqtt::Timestamp,
};

/// Between two looks at the claims.
const TICK: Duration = Duration::from_millis(50);
/// Between two looks at doubtful sessions.
const DOUBTS_EVERY: Duration = Duration::from_secs(1);
/// A session ends by a record that names another node only if the record is the same after this time. A server of NATS
/// without a quorum may answer from the past, and finds within about ten seconds that it has none.
const SAME_RECORD_MILLIS: u64 = 15_000;

/// The result of something that the driver waits for.
pub(super) enum OwnerInput {
    Read(ClientKey, Result<Option<BucketEntry>, NatsAskError>),
    Written(ClientKey, RequestNumber, Result<Revision, NatsWriteError>),
    Released(NodeId, ReleaseRequest, Option<ReleaseReply>),
    Offered(AskNumber, OfferedSession),
    Adopted(ClientKey, Term, bool),
    RestSent(ClientKey, PageOutcome),
    HolderRead(ClientKey, Option<Option<OwnerRecord>>),
    RestStored(AskedQuestion, (ClientKey, NodeId, Term), (bool, u64, bool)),
    Removed,
    Nothing,
}

pub(super) type ClaimAnswer = oneshot::Sender<Result<Arc<HeldClient>, ConnectRefusal>>;

/// The living and dead nodes, as far as this node knows.
#[derive(Default)]
pub(super) struct KnownLives {
    dead: BTreeSet<NodeId>,
    incarnations: BTreeMap<NodeId, Incarnation>,
}

impl Lives for KnownLives {
    fn is_dead(&self, node: &NodeId) -> bool {
        self.dead.contains(node)
    }
}

impl KnownLives {
    pub(super) fn incarnation(&self, node: &NodeId) -> Incarnation {
        self.incarnations.get(node).copied().unwrap_or_default()
    }

    fn follow(&mut self, status: &NodeStatus) {
        let dead = |(node, member): (&NodeId, &MemberStatus)| {
            (member.standing == MemberStanding::Dead).then(|| node.clone())
        };
        self.dead = status.members.iter().filter_map(dead).collect();
        let members = status.members.iter();
        self.incarnations =
            members.map(|(node, member)| (node.clone(), member.incarnation)).collect();
    }
}

/// One life of the driver.
pub(super) struct OwnerLife<'a> {
    pub(super) parts: &'a OwnerParts,
    pub(super) incarnation: Incarnation,
    pub(super) owners: ClientOwners,
    pub(super) lives: KnownLives,
    /// The identifiers of the clients that this life knows, because a key is only a hash.
    pub(super) client_ids: HashMap<ClientKey, Arc<str>, RandomState>,
    pub(super) waiting: HashMap<ConnectNumber, (ClientKey, ClaimAnswer), RandomState>,
    /// Clients whose claim has found another node as the holder: a session that lies here is an old one.
    pub(super) found_elsewhere: HashSet<ClientKey, RandomState>,
    /// Records that name another node for a session that lies here, and since when they are the same.
    left: HashMap<ClientKey, (Revision, Timestamp), RandomState>,
    /// Clients that are gone, and when their terms are in the past.
    ending: BTreeSet<(Timestamp, ClientKey)>,
    /// Records of clients that are gone.
    pub(super) removals: VecDeque<(ClientKey, Revision)>,
    pub(super) removals_in_flight: usize,
    /// Clients whose session has come from another node, and is not confirmed yet.
    pub(super) moving_in: HashSet<ClientKey, RandomState>,
    /// Sessions that other nodes read in parts.
    pub(super) parted: HashMap<ClientKey, (Term, Bytes), RandomState>,
    pub(super) asked: HashMap<AskNumber, AskedQuestion, RandomState>,
    /// The claims whose requests are answered with a session.
    pub(super) offering: HashMap<AskNumber, (ClientKey, Term), RandomState>,
    pub(super) moves: SessionMoves,
    next_ask: u64,
    pub(super) inputs: FuturesUnordered<BoxFuture<'static, OwnerInput>>,
    questions: BoxStream<'static, AskedQuestion>,
}

impl<'a> OwnerLife<'a> {
    pub(super) fn new(
        parts: &'a OwnerParts,
        incarnation: Incarnation,
        mut moves: SessionMoves,
    ) -> Self {
        moves.begin_life();
        let questions = parts.of.door.questions(&parts.of.node, incarnation.0);
        Self {
            parts,
            incarnation,
            owners: ClientOwners::new(parts.of.node.clone(), incarnation),
            lives: KnownLives::default(),
            client_ids: HashMap::default(),
            waiting: HashMap::default(),
            found_elsewhere: HashSet::default(),
            left: HashMap::default(),
            ending: BTreeSet::new(),
            removals: VecDeque::new(),
            removals_in_flight: 0,
            moving_in: HashSet::default(),
            parted: HashMap::default(),
            asked: HashMap::default(),
            offering: HashMap::default(),
            moves,
            next_ask: 0,
            inputs: FuturesUnordered::new(),
            questions,
        }
    }

    /// Lives until the node's incarnation ends.
    pub(super) async fn run(
        mut self,
        status: &mut watch::Receiver<NodeStatus>,
        commanded: &mut mpsc::UnboundedReceiver<OwnerCommand>,
        prepared: &PreparedLife,
    ) -> SessionMoves {
        self.prepare().await;
        self.lives.follow(&status.borrow_and_update());
        prepared.store(self.incarnation.0, Ordering::Release);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut doubts_at = Instant::now() + DOUBTS_EVERY;
        while !self.parts.lease.has_ended(self.incarnation) {
            tokio::select! {
                Some(command) = commanded.recv() => self.take_command(command),
                Some(input) = self.inputs.next() => self.take_input(input),
                Some(question) = self.questions.next() => self.take_question(question),
                Ok(()) = status.changed() => self.lives.follow(&status.borrow_and_update()),
                _ = tick.tick() => {
                    let now = self.now();
                    self.end_clients(now);
                    self.owners.handle_time_of_claims(&self.lives, now);
                    self.look_at_moves(now);
                    if self.acts() && Instant::now() >= doubts_at {
                        doubts_at = Instant::now() + DOUBTS_EVERY;
                        self.owners.handle_time_of_doubts(now);
                    }
                }
            }
            self.carry_steps();
        }
        for (_, (_, answer)) in self.waiting.drain() {
            let _ = answer.send(Err(ConnectRefusal::Unavailable)); // The socket may be closed.
        }
        self.moves
    }

    /// Ends what is left of an earlier life, and learns of the sessions in the store.
    async fn prepare(&mut self) {
        self.parts.held.give_up_all();
        self.parts.of.sessions.fence().await;
        let now = self.now();
        for client_id in self.parts.of.sessions.lasting().await {
            let key = ClientKey::of(&client_id);
            self.owners.restore(key, Term(0), CustodyState::Own, now);
            self.client_ids.insert(key, client_id);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// Returns whether this life may act now.
    pub(super) fn acts(&self) -> bool {
        self.parts.lease.acts_as(self.incarnation)
    }

    fn take_command(&mut self, command: OwnerCommand) {
        let now = self.now();
        match command {
            OwnerCommand::Connect(waiting) if !self.acts() => {
                waiting.refuse(ConnectRefusal::Unavailable);
            }
            OwnerCommand::Connect(WaitingClaim { client_id, number, answer }) => {
                let key = ClientKey::of(&client_id);
                self.waiting.insert(number, (key, answer));
                self.owners.handle_connect(key, &client_id, number, now);
                self.client_ids.insert(key, client_id);
            }
            OwnerCommand::Gone(key, number) => {
                self.waiting.remove(&number);
                self.owners.handle_connect_gone(key, number);
            }
            OwnerCommand::Ended(key) => self.end_client(key, now),
            OwnerCommand::VersionsSpent(key) => self.owners.handle_versions_spent(key),
            OwnerCommand::Left(key, term, to) => {
                self.handle_left(key, term, to);
                self.carry_steps();
                self.look_at_moves(now);
            }
        }
    }

    /// Gives up a client, if it has neither a connection nor a session. A record that names nodes with a part of
    /// the session stays, so that these nodes find it. The term must be in the past, or a later one could be as high.
    fn end_client(&mut self, key: ClientKey, now: Timestamp) {
        if self.parts.held.is_used(key) {
            return;
        }
        if let Some(custody) = self.owners.custody(key) {
            let past_at = Timestamp(0).plus_secs(custody.term.0.saturating_add(1));
            if custody.is_owed {
                return;
            }
            if now < past_at {
                self.ending.insert((past_at, key));
                return;
            }
        }
        self.owners.handle_session_ended(key, now);
        if self.owners.custody(key).is_none() {
            self.parts.held.forget(key);
            self.moves.forget(key);
            if !self.owners.is_claiming(key) {
                self.client_ids.remove(&key);
            }
        }
    }

    /// Gives up the clients whose term is in the past now.
    fn end_clients(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.ending.first().copied().filter(|(at, _)| *at <= now) {
            self.ending.pop_first();
            self.end_client(key, now);
        }
    }

    fn take_input(&mut self, input: OwnerInput) {
        let now = self.now();
        let key = match input {
            OwnerInput::Nothing => return,
            OwnerInput::Removed => return self.removals_in_flight -= 1,
            OwnerInput::Read(_, Err(_)) => return, // It is read again.
            OwnerInput::Read(key, Ok(entry)) => {
                self.take_record(key, entry, now);
                key
            }
            OwnerInput::Written(key, request, result) => {
                self.owners.handle_written(request, result.ok(), now);
                key
            }
            OwnerInput::Released(from, request, Some(reply)) => {
                self.owners.handle_release_reply(&from, request, reply, now);
                request.key
            }
            OwnerInput::Released(_, _, None) => return, // It is asked again.
            OwnerInput::Offered(ask, offered) => return self.take_offered(ask, offered),
            OwnerInput::RestSent(key, outcome) => return self.handle_rest_sent(key, outcome),
            OwnerInput::HolderRead(key, record) => return self.handle_holder(key, record),
            OwnerInput::RestStored(question, name, outcome) => {
                return self.handle_rest_stored(question, name, outcome);
            }
            OwnerInput::Adopted(key, term, true) => {
                self.owners.handle_adopted(key, term, now);
                key
            }
            OwnerInput::Adopted(key, term, false) => {
                self.owners.handle_not_adopted(key, term, now);
                key
            }
        };
        self.owners.handle_time_of(key, &self.lives, now);
    }

    fn take_offered(&mut self, ask: AskNumber, offered: OfferedSession) {
        let claim = self.offering.remove(&ask);
        match offered {
            OfferedSession::Copy(copy, rest_from) => {
                let Some(claim) = claim else { return };
                let copy = self.keep_offer(claim, copy, rest_from);
                self.owners.handle_offered(ask, Some((copy, false)));
            }
            OfferedSession::Nothing => self.owners.handle_offered(ask, None),
            OfferedSession::Unreadable => {
                self.asked.remove(&ask); // Without an answer, the node asks again.
            }
        }
    }

    fn take_record(&mut self, key: ClientKey, entry: Option<BucketEntry>, now: Timestamp) {
        let Some(BucketEntry { revision, value: Some(value), .. }) = entry else {
            let revision = entry.map_or(Revision(0), |entry| entry.revision);
            return self.owners.handle_read(key, revision, None, &self.lives, now);
        };
        let record: OwnerRecord = match wire::decode(&value) {
            Ok(record) => record,
            Err(error) => {
                return warn!(%key, reason = %error, "a record of an owner cannot be read");
            }
        };
        if record.incarnation > self.lives.incarnation(&record.writer) {
            return; // The record of the member comes soon.
        }
        let is_mine = record.writer == self.parts.of.node && record.incarnation == self.incarnation;
        let is_elsewhere = record.holder().is_some_and(|holder| *holder != self.parts.of.node);
        if self.owners.is_claiming(key) {
            if is_elsewhere && !is_mine {
                self.found_elsewhere.insert(key);
            } else if !is_mine {
                self.found_elsewhere.remove(&key); // The former record was from the past.
            }
        } else if is_elsewhere && !self.is_same_since_long(key, revision, now) {
            return;
        }
        self.owners.handle_read(key, revision, Some(&record), &self.lives, now);
    }

    /// Returns whether the record of a session that lies here has named another node for a while.
    fn is_same_since_long(&mut self, key: ClientKey, revision: Revision, now: Timestamp) -> bool {
        let (seen, since) = self.left.entry(key).or_insert((revision, now));
        if *seen != revision {
            (*seen, *since) = (revision, now);
        }
        let is_same = now >= since.plus_millis(SAME_RECORD_MILLIS);
        if is_same {
            self.left.remove(&key);
        }
        is_same
    }

    /// Handles a question of another node about a client. Other questions are for other parts.
    fn take_question(&mut self, question: AskedQuestion) {
        let Ok(asked) = wire::decode::<NodeQuestion>(&question.payload) else { return };
        let is_old = asked.incarnation < self.lives.incarnation(&asked.from);
        if is_old || !self.acts() {
            return; // Without an answer, the node asks again.
        }
        match asked.body {
            QuestionBody::Release(request) if self.moves.is_catching_up(request.key) => {
                self.answer_later(question);
            }
            QuestionBody::Release(request) => {
                let ask = AskNumber(self.next_ask);
                self.next_ask += 1;
                self.asked.insert(ask, question);
                self.owners.handle_release(request, ask, self.now());
            }
            QuestionBody::Confirmed(request) => {
                self.owners.handle_confirmed(asked.from, request);
                self.answer(question, &QuestionReply::Done);
            }
            QuestionBody::SessionPart { request, from } => {
                let part = self.part(request, from);
                if let Some(part) = part {
                    self.answer(question, &part);
                }
            }
            QuestionBody::Rest(part) => self.take_rest(question, &asked.from, part),
            QuestionBody::Mail { .. }
            | QuestionBody::Past { .. }
            | QuestionBody::Shadow { .. }
            | QuestionBody::TakeShadows { .. }
            | QuestionBody::RoutesOf(_)
            | QuestionBody::Drained(_) => {}
        }
    }
}
