//! Questions of nodes to each other, and their answers.

use hearthmq::internals::cluster::{
    attempts::CopyAttempt,
    forwards::{Forward, ForwardReply},
    lanes::Mail,
    members::{Lives, MemberStanding},
    names::{ClientKey, MessageId, NodeId},
    owners::{AskNumber, Hold, OwnerRecord, Tombstone},
    questions::{NodeQuestion, QuestionBody, QuestionReply},
    wire,
    withdrawals::RouteReply,
};

use super::{
    super::io::{Input, Io},
    Awaited, Node, index_of,
    mailing::Way,
    node_id, topic,
};

impl Node {
    pub(super) fn ask(&mut self, io: &mut Io, to: &NodeId, body: QuestionBody, awaited: Awaited) {
        let token = self.token(Some(to.clone()), awaited);
        let incarnation = self.disk.incarnation;
        let question = NodeQuestion { from: self.me.clone(), incarnation, body };
        let (from, bytes) = (self.index, wire::encode(&question));
        io.send(from, index_of(to), Input::Question { from, token, bytes });
    }

    pub(super) fn take_question(&mut self, io: &mut Io, from: usize, token: u64, bytes: &[u8]) {
        let question: NodeQuestion = wire::decode(bytes).expect("a question of the world");
        let known = self.run.membership.incarnation_of(&question.from);
        let is_dead = self.run.membership.standing(&question.from) == Some(MemberStanding::Dead);
        if known.is_some_and(|known| known > question.incarnation)
            || (is_dead && known == Some(question.incarnation))
        {
            return; // Of an earlier life.
        }
        self.run.next_ask += 1;
        let ask = AskNumber(self.run.next_ask);
        self.run.asks.insert(ask, (from, token));
        let now = self.now(io);
        let reply = match question.body {
            QuestionBody::Release(request) => {
                self.run.owners.handle_release(request, ask, now);
                return self.carry_owner_steps(io);
            }
            QuestionBody::Confirmed(request) => {
                self.run.owners.handle_confirmed(question.from, request);
                self.carry_owner_steps(io);
                QuestionReply::Done
            }
            QuestionBody::Mail { key, mail, attempt, term } => {
                let (told, id, from) = (mail.clone(), mail.id, &question.from);
                let reply = self.on_attempt(from, key, id, attempt, |node| {
                    node.on_mail(io, mail, key, Way::From(term))
                });
                io.tell_mail(self.index, &told, &format!("from {}: {reply:?}", question.from));
                QuestionReply::Forward(reply)
            }
            QuestionBody::Past { key, id, attempt } => {
                let reply = self.on_past(&question.from, key, id, attempt);
                let message = io.checks.names.get(&id).copied().unwrap_or_default();
                io.tell(format!("node {}: had {message}? {reply:?}", self.index));
                QuestionReply::Forward(reply)
            }
            QuestionBody::Shadow { dead, key, mail, attempt } => {
                let (id, from) = (mail.id, &question.from);
                let reply = self
                    .on_attempt(from, key, id, attempt, |node| node.on_shadow(&dead, key, mail));
                QuestionReply::Forward(reply)
            }
            QuestionBody::TakeShadows { dead, key } => {
                self.give_shadows(&dead, key, now);
                QuestionReply::Done
            }
            QuestionBody::SessionPart { .. } => return, // Sessions of the world fit into one answer.
            QuestionBody::Rest(_) => return, // Messages of the world follow a session one by one.
            QuestionBody::RoutesOf(key) => QuestionReply::Routes(self.on_routes_of(key)),
            QuestionBody::Drained(key) => {
                let mails = self.run.catch_ups.handle_drained(key, &question.from);
                self.caught_up(io, key, mails);
                QuestionReply::Done
            }
        };
        self.answer(io, ask, reply);
    }

    /// Takes an attempt of another node, and notes the answer.
    fn on_attempt(
        &mut self,
        from: &NodeId,
        key: ClientKey,
        id: MessageId,
        attempt: CopyAttempt,
        take: impl FnOnce(&mut Self) -> ForwardReply,
    ) -> ForwardReply {
        if self.disk.answers.is_taken(from, key, id, attempt) {
            return ForwardReply::Kept;
        }
        if self.disk.answers.is_refused(from, key, id, attempt) {
            return ForwardReply::NotHere;
        }
        let reply = take(self);
        if reply == ForwardReply::Kept {
            self.disk.answers.handle_taken(from, key, id, attempt.copy);
        } else {
            self.disk.answers.handle_refused(from, key, id, attempt);
        }
        reply
    }

    fn on_past(
        &mut self,
        from: &NodeId,
        key: ClientKey,
        id: MessageId,
        attempt: CopyAttempt,
    ) -> ForwardReply {
        if self.disk.answers.is_taken(from, key, id, attempt) || self.has_had(key, id) {
            return ForwardReply::Had;
        }
        self.disk.answers.handle_refused(from, key, id, attempt);
        ForwardReply::NotHad
    }

    /// Returns whether a session has had a message here, and no other node was handed it.
    pub(super) fn has_had(&self, key: ClientKey, id: MessageId) -> bool {
        let kept = self.disk.sessions.get(&key);
        kept.is_some_and(|kept| kept.session.seen.contains(&id))
            || self.disk.had.get(&key).is_some_and(|had| had.contains(&id))
    }

    pub(super) fn on_shadow(&mut self, dead: &NodeId, key: ClientKey, mail: Mail) -> ForwardReply {
        if self.has_had(key, mail.id) {
            return ForwardReply::Kept;
        }
        if !self.run.membership.is_dead(dead) {
            return ForwardReply::Later;
        }
        let shadows = self.disk.shadows.entry((dead.clone(), key)).or_default();
        if !shadows.iter().any(|shadow| shadow.id == mail.id) {
            shadows.push(mail);
        }
        ForwardReply::Kept
    }

    pub(super) fn give_shadows(&mut self, dead: &NodeId, key: ClientKey, now: super::Timestamp) {
        let shadows = self.disk.shadows.remove(&(dead.clone(), key));
        for mail in shadows.into_iter().flatten() {
            let mut forward = Forward::new(key, mail);
            forward.cleared.insert(dead.clone(), None);
            self.forward(forward, now);
        }
    }

    fn on_routes_of(&self, key: ClientKey) -> RouteReply {
        if self.run.owners.is_claiming(key) {
            return RouteReply::Later;
        }
        match (self.run.owners.custody(key), self.run.owners.tombstone(key)) {
            (Some(own), _) if own.may_queue_qos2() => {
                let topic = topic(key);
                let placed = self.run.own_routes.placed([topic.as_str()]);
                placed.map_or(RouteReply::Later, RouteReply::At)
            }
            (Some(_), _) => RouteReply::Later,
            (None, Some(Tombstone { to, term })) => RouteReply::Gone(Some((to.clone(), *term))),
            (None, None) => RouteReply::Gone(None),
        }
    }

    pub(super) fn take_answer(&mut self, io: &mut Io, from: usize, token: u64, bytes: &[u8]) {
        let reply = wire::decode(bytes).expect("a reply of the world");
        let Some((Some(to), awaited)) = self.run.awaited.remove(&token) else { return };
        if to != node_id(from) {
            return;
        }
        let now = self.now(io);
        match (awaited, reply) {
            (Awaited::Release(request), QuestionReply::Release(reply)) => {
                self.run.owners.handle_release_reply(&to, request, reply, now);
                self.carry_owner_steps(io);
            }
            (Awaited::Forward(number, attempt), QuestionReply::Forward(reply)) => {
                self.run.forwards.handle_reply(number, &to, attempt, reply, now);
            }
            (Awaited::Routes(key), QuestionReply::Routes(reply)) => {
                if let RouteReply::Gone(Some((node, term))) = &reply {
                    let tombstone = Tombstone { to: node.clone(), term: *term };
                    self.run.owners.move_tombstone(key, tombstone);
                }
                self.run.withdrawals.handle_reply(key, &to, reply);
            }
            (Awaited::Drained(key), QuestionReply::Done) => {
                self.run.drained.remove(&key);
            }
            (Awaited::Fetch(key, dead), QuestionReply::Done) => {
                self.run.fetches.remove(&(key, dead));
            }
            _ => {}
        }
    }

    /// A record shows where a session is that has left.
    pub(super) fn moved(&mut self, key: ClientKey, record: &OwnerRecord) {
        if record.hold == Hold::Holding {
            let (to, term) = (record.node.clone(), record.term);
            self.run.owners.move_tombstone(key, Tombstone { to: to.clone(), term });
            self.run.withdrawals.handle_moved(key, to, term);
        }
    }

    /// Tells new owners that everything is forwarded.
    pub(super) fn tell_drained(&mut self, io: &mut Io) {
        let now = io.now;
        let is_due = |node: &Self, key: ClientKey, at: u64| {
            now >= at && !node.run.forwards.has_any(key) && !node.run.catch_ups.is_behind(key)
        };
        let told = self.run.drained.clone();
        for (key, (to, tries, at)) in told {
            if tries > 5 || to == self.me {
                self.run.drained.remove(&key);
            } else if is_due(self, key, at) {
                self.run.drained.insert(key, (to.clone(), tries + 1, now + 500));
                self.ask(io, &to, QuestionBody::Drained(key), Awaited::Drained(key));
            }
        }
    }

    /// Mail that waited for the previous holder goes its way.
    pub(super) fn caught_up(&mut self, io: &Io, key: ClientKey, mails: Vec<Mail>) {
        let now = self.now(io);
        self.disk.beside.remove(&key);
        for mail in mails {
            if self.on_mail(io, mail.clone(), key, Way::Planned) == ForwardReply::NotHere {
                self.forward(Forward::new(key, mail), now);
            }
        }
    }

    /// Asks keepers of dead nodes for what they have for sessions that were claimed.
    pub(super) fn fetch(&mut self, io: &mut Io) {
        let now = io.now;
        let due: Vec<_> = self.run.fetches.iter().filter(|(_, (_, at))| now >= *at).collect();
        let due: Vec<_> =
            due.into_iter().map(|(what, (tries, _))| (what.clone(), *tries)).collect();
        for ((key, dead), tries) in due {
            let keeper = self.run.membership.keeper(&dead).cloned();
            let Some(keeper) = keeper.filter(|_| tries < 30) else {
                self.run.fetches.remove(&(key, dead));
                continue;
            };
            self.run.fetches.insert((key, dead.clone()), (tries + 1, now + 1000));
            if keeper == self.me {
                let at = self.now(io);
                self.give_shadows(&dead, key, at);
                self.run.fetches.remove(&(key, dead));
            } else {
                let body = QuestionBody::TakeShadows { dead: dead.clone(), key };
                self.ask(io, &keeper, body, Awaited::Fetch(key, dead));
            }
        }
    }
}
