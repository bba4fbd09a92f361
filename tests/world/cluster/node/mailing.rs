//! Mail of a node: publications, lanes, what the shard stores, and messages that follow a session.

use hearthmq::{
    internals::cluster::{
        attempts::LANE_COPY,
        forwards::{Forward, ForwardReply, ForwardStep},
        lanes::{Inlet, Lane, LaneAnswer, LaneItem, Mail, MailBatch, PartNumber},
        members::{Lives, MemberStanding},
        names::{ClientKey, Incarnation, NodeId, Term},
        questions::QuestionBody,
        wire,
        withdrawals::WithdrawalStep,
    },
    mqtt::QoS,
};

use super::{
    super::{
        io::{Input, Io, TICK},
        nats::What,
        shard::Queued,
    },
    Awaited, ByRecord, Node, Publication, Storing, index_of, topic,
};

/// Bytes of one message of NATS core; small, so that mail travels in pieces.
const PAYLOAD_BYTES_MAX: usize = 700;
const LANE_BYTES_MAX: usize = 64 * 1024;
const ITEM_BYTES_MAX: usize = 16 * 1024;

/// How mail for a session comes to its node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// It was planned for this node.
    Planned,
    /// Another node forwards it, by a record of this term.
    From(Term),
    /// This node forwards it to itself, by a record of this term.
    Again(Term),
}

impl Node {
    pub(super) fn publish(
        &mut self,
        io: &mut Io,
        socket: usize,
        from: ClientKey,
        to: ClientKey,
        message: u64,
        qos: QoS,
    ) {
        if self.run.sockets.get(&from) != Some(&socket) {
            return;
        }
        let id = self.disk.next_id();
        io.checks.names.insert(id, message);
        let length = if message.is_multiple_of(7) { 1500 } else { 10 };
        let mut content = vec![b'x'; length];
        content[..8].copy_from_slice(&message.to_be_bytes());
        let topic = topic(to);
        let remote: Vec<NodeId> = self.run.remote.nodes_with(&topic).cloned().collect();
        let is_here = self.disk.sessions.contains_key(&to)
            || self.disk.pending.contains_key(&to)
            || self.disk.tombstones.contains_key(&to);
        let ways = remote.len() + usize::from(is_here);
        let is_alone = ways == 1;
        let topic = topic.into();
        let mail = Mail { id, qos, is_alone, topic, content: content.into() };
        io.tell(format!("node {}: message {message} for {to} goes {ways} ways", self.index));
        let mut publication = Publication { socket, from, left: Default::default() };
        if is_here {
            let part = self.part(message, ways);
            publication.left.insert(part);
            let due = io.now + io.rng.u64(0..3) * TICK;
            let (mail, part) = (Some(mail.clone()), Some(part));
            self.run.storing.push(Storing { due, mail, applied: None, from: None, part });
        }
        for node in remote {
            if let Some(part) = self.send(io, &node, to, mail.clone(), (message, ways)) {
                publication.left.insert(part);
            }
        }
        self.run.publications.insert(message, publication);
    }

    fn part(&mut self, message: u64, ways: usize) -> PartNumber {
        self.run.next_part += 1;
        let part = PartNumber(self.run.next_part);
        self.run.parts.insert(part, (message, ways));
        part
    }

    /// Sends mail that was planned for a node; returns what to wait for.
    fn send(
        &mut self,
        io: &Io,
        node: &NodeId,
        to: ClientKey,
        mail: Mail,
        (message, ways): (u64, usize),
    ) -> Option<PartNumber> {
        let now = self.now(io);
        let life = self.run.membership.incarnation_of(node);
        if self.run.membership.standing(node) != Some(MemberStanding::Serving) {
            let mut forward = Forward::new(to, mail);
            if ways == 1 && self.run.membership.is_dead(node) {
                forward.cleared.insert(node.clone(), None);
            }
            self.forward(forward, now);
            return None;
        }
        let part = self.part(message, ways);
        self.lane(node, life.unwrap_or_default()).push_mail(mail, Some(part));
        Some(part)
    }

    fn lane(&mut self, node: &NodeId, life: Incarnation) -> &mut Lane {
        let (me, mine) = (self.me.clone(), self.disk.incarnation);
        self.run
            .lanes
            .entry(node.clone())
            .or_insert_with(|| Lane::new(me, mine, life, PAYLOAD_BYTES_MAX, LANE_BYTES_MAX))
    }

    /// Stores a message that follows a session.
    pub(super) fn forward(&mut self, forward: Forward, now: super::Timestamp) {
        let number = self.run.forwards.push(forward.clone(), now);
        self.disk.forwards.insert(number, forward);
    }

    /// A life of another node has ended: what it has not acknowledged follows the sessions.
    pub(super) fn life_ended(&mut self, io: &Io, node: &NodeId, life: Incarnation) {
        let now = self.now(io);
        self.run.reported.remove(node);
        if self.run.inlets.get(node).is_some_and(|inlet| inlet.from_incarnation() <= life) {
            self.run.inlets.remove(node);
        }
        if self.run.lanes.get(node).is_none_or(|lane| lane.to_incarnation() > life) {
            return;
        }
        let Some(lane) = self.run.lanes.remove(node) else { return };
        for back in lane.end() {
            let ways = back.part.and_then(|part| self.run.parts.get(&part)).map(|(_, ways)| *ways);
            let key = key_of(&back.mail.topic);
            let forward = if back.has_left {
                Forward::left_for(key, back.mail, node.clone())
            } else {
                let mut forward = Forward::new(key, back.mail);
                forward.cleared.extend((ways == Some(1)).then(|| (node.clone(), None)));
                forward
            };
            self.forward(forward, now);
            if let Some(part) = back.part {
                self.done(part);
            }
        }
    }

    fn done(&mut self, part: PartNumber) {
        if let Some((message, _)) = self.run.parts.remove(&part)
            && let Some(publication) = self.run.publications.get_mut(&message)
        {
            publication.left.remove(&part);
        }
    }

    pub(super) fn take_batch(&mut self, io: &mut Io, bytes: &[u8]) {
        let batch: MailBatch = wire::decode(bytes).expect("a batch of the world");
        let (from, life) = (batch.from.clone(), batch.from_incarnation);
        let known = self.run.membership.incarnation_of(&from);
        let is_dead = self.run.membership.is_dead(&from) && known == Some(life);
        if known.is_some_and(|known| known > life) || is_dead {
            return; // Of an earlier life.
        }
        if self.run.inlets.get(&from).is_some_and(|inlet| inlet.from_incarnation() < life) {
            self.run.inlets.remove(&from);
        }
        let (me, mine) = (self.me.clone(), self.disk.incarnation);
        let inlet = self.run.inlets.entry(from.clone());
        let inlet = inlet.or_insert_with(|| Inlet::new(me, mine, life, ITEM_BYTES_MAX));
        let items = inlet.handle_batch(batch).expect("pieces of the world");
        if self.broken.storing {
            inlet.handle_stored(inlet.received());
        }
        let due = io.now + io.rng.u64(0..4) * TICK;
        for (number, item) in items {
            let (mail, applied) = match item {
                LaneItem::Mail(mail) => (Some(mail), None),
                LaneItem::Applied(sequence) => (None, Some(sequence)),
                LaneItem::Piece { .. } | LaneItem::Skipped | LaneItem::Retained(_) => (None, None),
            };
            let from = Some((from.clone(), life, number));
            self.run.storing.push(Storing { due, mail, applied, from, part: None });
        }
    }

    pub(super) fn take_lane_answer(&mut self, io: &Io, answer: &LaneAnswer) {
        let now = self.now(io);
        let Some(lane) = self.run.lanes.get_mut(&answer.from) else { return };
        lane.handle_answer(answer, now);
        let mut done = Vec::new();
        while let Some(part) = lane.poll_stored() {
            done.push(part);
        }
        for part in done {
            self.done(part);
        }
    }

    /// Takes mail for a session of this node.
    pub(super) fn on_mail(
        &mut self,
        io: &Io,
        mail: Mail,
        key: ClientKey,
        way: Way,
    ) -> ForwardReply {
        let now = self.now(io);
        let follows = |node: &mut Self, mail: Mail| {
            if matches!(way, Way::Again(_)) {
                return ForwardReply::Later;
            }
            node.forward(Forward::new(key, mail), now);
            ForwardReply::Kept
        };
        let term = match way {
            Way::Planned => None,
            Way::From(term) | Way::Again(term) => Some(term),
        };
        let custody = self.run.owners.custody(key);
        let may_queue = custody.is_some_and(|own| own.may_queue_mail(&mail, term));
        let Some(kept) = self.disk.sessions.get_mut(&key) else {
            let leads_on =
                self.disk.pending.contains_key(&key) || self.disk.tombstones.contains_key(&key);
            return if leads_on { follows(self, mail) } else { ForwardReply::NotHere };
        };
        if kept.session.seen.contains(&mail.id) {
            return ForwardReply::Kept;
        }
        if mail.qos == QoS::ExactlyOnce && !may_queue {
            return follows(self, mail);
        }
        if !mail.is_alone {
            kept.session.seen.insert(mail.id);
        }
        kept.session.queue.push(Queued { mail, is_sent: false });
        ForwardReply::Kept
    }

    /// Takes mail that was planned for this node.
    fn on_planned_mail(&mut self, io: &Io, mail: Mail, key: ClientKey) -> ForwardReply {
        match self.run.catch_ups.push(key, mail.clone()) {
            Some(mail) => self.on_mail(io, mail, key, Way::Planned),
            None => {
                self.disk.beside.entry(key).or_default().push(mail);
                ForwardReply::Kept
            }
        }
    }

    fn catch_up(&mut self, io: &mut Io) {
        let now = self.now(io);
        loop {
            let late = self.run.catch_ups.poll_late(&ByRecord(&self.run.membership), now);
            let Some((key, mails)) = late else { return };
            io.checks.count("order given up");
            self.caught_up(io, key, mails);
        }
    }

    /// Everything about mail that is due in this turn.
    pub(super) fn carry_mail(&mut self, io: &mut Io) {
        if !self.may_act(io) {
            return;
        }
        self.store(io);
        self.carry_forwards(io);
        self.carry_withdrawals(io);
        self.catch_up(io);
        self.tell_drained(io);
        self.fetch(io);
        self.wake_shadows(io);
        self.report_routes(io);
        self.run_lanes(io);
        self.answer_subscribes(io);
        self.acknowledge(io);
        self.deliver(io);
    }

    fn store(&mut self, io: &mut Io) {
        let (due, rest) = std::mem::take(&mut self.run.storing)
            .into_iter()
            .partition::<Vec<_>, _>(|storing| storing.due <= io.now);
        // In the order of arrival: what comes behind something that is not stored yet waits.
        let mut waiting: Vec<Storing> = rest;
        for storing in due {
            let same = |other: &Storing| {
                other.from.as_ref().map(|from| &from.0) == storing.from.as_ref().map(|from| &from.0)
                    && other.number() < storing.number()
            };
            if storing.from.is_some() && waiting.iter().any(same) {
                waiting.push(storing);
                continue;
            }
            self.stored(io, storing);
        }
        waiting.sort_by_key(Storing::number);
        self.run.storing = waiting;
    }

    fn stored(&mut self, io: &mut Io, storing: Storing) {
        if let Some(mail) = storing.mail {
            let key = key_of(&mail.topic);
            let name = io.checks.names.get(&mail.id).copied().unwrap_or_default();
            let id = mail.id;
            let reply = self.on_planned_mail(io, mail, key);
            if let (Some((from, ..)), ForwardReply::Kept) = (&storing.from, reply) {
                self.disk.answers.handle_taken(from, key, id, LANE_COPY);
            }
            io.tell(format!("node {}: message {name} for {key}: {reply:?}", self.index));
        }
        if let Some((from, life, number)) = storing.from {
            if let Some(sequence) = storing.applied {
                self.run.applied.handle_applied(&from, life, sequence);
            }
            if let Some(inlet) = self.run.inlets.get_mut(&from)
                && inlet.from_incarnation() == life
            {
                inlet.handle_stored(number);
            }
        }
        if let Some(part) = storing.part {
            self.done(part);
        }
    }

    fn carry_forwards(&mut self, io: &mut Io) {
        let now = self.now(io);
        for _ in 0..1000 {
            let Some(step) = self.run.forwards.poll_step(now) else { return };
            match step {
                ForwardStep::Read(number, key) => self.read(io, key, Awaited::ForwardRead(number)),
                ForwardStep::Store(number, forward) => {
                    self.disk.forwards.insert(number, forward);
                }
                ForwardStep::Done(number) => {
                    if let Some(forward) = self.disk.forwards.remove(&number) {
                        io.tell_mail(self.index, &forward.mail, "needs no more forwarding");
                    }
                }
                ForwardStep::Send { number, to, key, mail, attempt, term } => {
                    io.tell_mail(self.index, &mail, &format!("is forwarded to {to}"));
                    if to == self.me {
                        let reply = self.on_mail(io, mail, key, Way::Again(term));
                        self.run.forwards.handle_reply(number, &to, attempt.attempt, reply, now);
                    } else {
                        let body = QuestionBody::Mail { key, mail, attempt, term };
                        self.ask(io, &to, body, Awaited::Forward(number, attempt.attempt));
                    }
                }
                ForwardStep::Ask(number, to, key, id, attempt) => {
                    if let Some(forward) = self.disk.forwards.get(&number) {
                        let what = format!("asks {to} for {key}");
                        io.tell_mail(self.index, &forward.mail, &what);
                    }
                    if to == self.me {
                        let is_had = self.has_had(key, id);
                        let reply = if is_had { ForwardReply::Had } else { ForwardReply::NotHad };
                        self.run.forwards.handle_reply(number, &to, attempt.attempt, reply, now);
                    } else {
                        let body = QuestionBody::Past { key, id, attempt };
                        self.ask(io, &to, body, Awaited::Forward(number, attempt.attempt));
                    }
                }
                ForwardStep::Shadow { number, keeper, dead, key, mail, attempt } => {
                    if keeper == self.me {
                        let reply = self.on_shadow(&dead, key, mail);
                        self.run.forwards.handle_reply(
                            number,
                            &keeper,
                            attempt.attempt,
                            reply,
                            now,
                        );
                    } else {
                        let body = QuestionBody::Shadow { dead, key, mail, attempt };
                        self.ask(io, &keeper, body, Awaited::Forward(number, attempt.attempt));
                    }
                }
            }
        }
    }

    fn carry_withdrawals(&mut self, io: &mut Io) {
        let now = self.now(io);
        loop {
            let membership = &self.run.membership;
            let step = self.run.withdrawals.poll_step(
                &mut self.run.own_routes,
                &self.run.applied,
                || membership.serving(),
                now,
            );
            match step {
                None => return,
                Some(WithdrawalStep::Ask(to, key)) if to != self.me => {
                    self.ask(io, &to, QuestionBody::RoutesOf(key), Awaited::Routes(key));
                }
                Some(WithdrawalStep::Ask(..)) => {}
                Some(WithdrawalStep::Read(key)) => {
                    self.read(io, key, Awaited::WithdrawalRead(key));
                }
                Some(WithdrawalStep::Done(key, to)) => {
                    self.run.drained.insert(key, (to, 0, 0));
                    io.checks.count("routes withdrawn");
                    self.run.owners.forget_tombstone(key);
                    self.disk.tombstones.remove(&key);
                }
            }
        }
    }

    /// A dead node is back: what was kept for it follows its sessions.
    fn wake_shadows(&mut self, io: &Io) {
        let now = self.now(io);
        let lives = ByRecord(&self.run.membership);
        let back: Vec<_> =
            self.disk.shadows.keys().filter(|(dead, _)| !lives.is_dead(dead)).cloned().collect();
        for (dead, key) in back {
            self.give_shadows(&dead, key, now);
        }
    }

    /// Tells the others how far the routes are applied, behind the mail that was planned before.
    fn report_routes(&mut self, io: &Io) {
        let applied = self.run.remote.applied();
        self.run.applied.handle_applied(&self.me, self.disk.incarnation, applied);
        let others: Vec<_> =
            self.run.membership.serving().map(|(node, life)| (node.clone(), life)).collect();
        for (node, life) in others {
            if node == self.me || self.run.reported.get(&node) == Some(&applied) {
                continue;
            }
            self.run.reported.insert(node.clone(), applied);
            self.lane(&node, life).push_applied(applied);
        }
        let _ = io;
    }

    fn run_lanes(&mut self, io: &mut Io) {
        let now = self.now(io);
        for (node, lane) in &mut self.run.lanes {
            while let Some(batch) = lane.poll_batch(now) {
                io.send(self.index, index_of(node), Input::Batch(wire::encode(&batch)));
            }
        }
        for (node, inlet) in &mut self.run.inlets {
            if let Some(answer) = inlet.poll_answer() {
                io.send(self.index, index_of(node), Input::Answer(wire::encode(&answer)));
            }
        }
    }

    /// Appends to the log of routes.
    pub(super) fn append(&mut self, io: &mut Io) {
        let now = self.now(io);
        if let Some(append) = self.run.own_routes.poll_append(now) {
            let (node, id, payload) = (self.me.clone(), append.id, append.payload);
            let what = What::Append { node, id, payload };
            self.request(io, what, Awaited::Append(append.number));
        }
    }
}

impl Storing {
    fn number(&self) -> u64 {
        self.from.as_ref().map_or(0, |(_, _, number)| *number)
    }
}

/// Returns the client of a topic: each has one of its own.
fn key_of(topic: &str) -> ClientKey {
    let name = topic.trim_start_matches("to/");
    ClientKey(u128::from_str_radix(name, 16).expect("a topic of the world"))
}
