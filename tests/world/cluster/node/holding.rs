//! What a node holds: CONNECTs, claims, hand-overs, and what they change on the disk.

use hearthmq::internals::cluster::{
    forwards::Forward,
    names::ClientKey,
    owners::{
        AskNumber, ConnectNumber, CustodyState, LeftWhole, OlderCopy, OwnerRecord, OwnerStep,
        Tombstone,
    },
    questions::{QuestionBody, QuestionReply},
    wire,
};

use super::{
    super::{
        io::{Io, ToClient},
        nats::What,
        shard::Session,
    },
    Awaited, Node, topic,
};

impl Node {
    /// Compares the store with the records.
    pub(super) fn prepare(&mut self, io: &mut Io) {
        let now = self.now(io);
        self.run.prepares = true;
        for (key, kept) in &self.disk.sessions {
            self.run.owners.restore(*key, kept.term, kept.state, now);
            if kept.session.is_subscribed {
                self.run.own_routes.add(&topic(*key));
                self.run.routed.insert(*key);
            }
        }
        for (key, (term, _)) in &self.disk.pending {
            self.run.owners.restore_pending(*key, *term, now);
        }
        for (key, tombstone) in &self.disk.tombstones {
            self.run.owners.restore_tombstone(*key, tombstone.clone());
            let Tombstone { to, term } = tombstone.clone();
            self.run.own_routes.add(&topic(*key));
            self.run.withdrawals.push(*key, to, term, vec![topic(*key).into()], now);
        }
        for (number, forward) in &self.disk.forwards {
            self.run.forwards.restore(*number, forward.clone(), now);
        }
        for (key, mails) in std::mem::take(&mut self.disk.beside) {
            for mail in mails {
                let number = self.run.forwards.push(Forward::new(key, mail.clone()), now);
                self.disk.forwards.insert(number, Forward::new(key, mail));
            }
        }
        self.run.own_routes.begin();
    }

    pub(super) fn connect(&mut self, io: &mut Io, socket: usize, key: ClientKey) {
        let now = self.now(io);
        if !io.sockets[socket].is_open {
            return;
        }
        self.run.next_connect += 1;
        let connect = ConnectNumber(self.run.next_connect);
        self.run.connecting.insert(connect, (socket, key));
        self.run.owners.handle_connect(key, &key.to_string(), connect, now);
    }

    pub(super) fn closed(&mut self, socket: usize, key: ClientKey) {
        let waits = |(_, (waiting, _)): &(&ConnectNumber, &(usize, ClientKey))| *waiting == socket;
        if let Some((connect, _)) = self.run.connecting.iter().find(waits) {
            self.run.owners.handle_connect_gone(key, *connect);
        }
        if self.run.sockets.get(&key) == Some(&socket) {
            self.run.sockets.remove(&key);
            self.run.in_flight.remove(&key);
        }
    }

    pub(super) fn carry_owner_steps(&mut self, io: &mut Io) {
        while let Some(step) = self.run.owners.poll_step() {
            self.carry_owner_step(io, step);
        }
    }

    fn carry_owner_step(&mut self, io: &mut Io, step: OwnerStep) {
        match step {
            OwnerStep::Read(key) => self.read(io, key, Awaited::OwnerRead(key)),
            OwnerStep::Write(mut write) => {
                if self.broken.owed {
                    let mut record: OwnerRecord = wire::decode(&write.value).expect("a record");
                    record.owed.clear();
                    write.value = wire::encode(&record);
                }
                let request = write.request;
                self.write(io, write, Awaited::OwnerWrite(request));
            }
            OwnerStep::Remove(bucket, key, expected) => {
                let what = What::Remove { bucket, key: key.to_string(), expected };
                self.request(io, what, Awaited::Nothing);
            }
            OwnerStep::Release(to, request) => {
                let body = QuestionBody::Release(request);
                self.ask(io, &to, body, Awaited::Release(request));
            }
            OwnerStep::Confirmed(to, request) => {
                let now = self.now(io);
                self.run.catch_ups.begin(request.key, to.clone(), now);
                self.ask(io, &to, QuestionBody::Confirmed(request), Awaited::Nothing);
            }
            OwnerStep::Answer(ask, reply) => {
                self.answer(io, ask, QuestionReply::Release(reply));
            }
            OwnerStep::Offer(key, term, ask) => {
                io.tell(format!("node {} offers {key} in term {}", self.index, term.0));
                self.drop_socket(io, key);
                let copy = self.disk.offer(key, term);
                self.run.owners.handle_offered(ask, copy);
            }
            OwnerStep::Adopt(key, term, copy) => {
                let copy = copy.map(|bytes| wire::decode(&bytes).expect("a session"));
                self.adopt(io, key, term, copy);
            }
            OwnerStep::Settle(key, term, own) => {
                io.tell(format!("node {} holds {key} in term {}", self.index, term.0));
                self.disk.settle(key, term, own);
                self.route(io, key);
            }
            OwnerStep::Drop(key) => {
                self.disk.pending.remove(&key);
            }
            OwnerStep::Regain(key, term) => {
                if let Some(kept) = self.disk.sessions.get_mut(&key) {
                    kept.term = term;
                    kept.state = CustodyState::Own;
                    kept.position = None;
                }
            }
            OwnerStep::Leave(key, tombstone, whole) => self.leave(io, key, &tombstone, whole),
            OwnerStep::Fetch(key, dead) => {
                self.run.fetches.insert((key, dead), (0, 0));
            }
            OwnerStep::Admit(connect, key, term) => self.admit(io, connect, key, term),
            OwnerStep::Refuse(connect, why) => {
                if let Some((socket, _)) = self.run.connecting.remove(&connect) {
                    io.tell(format!("node {} refuses socket {socket}: {why:?}", self.index));
                    io.checks.count("refused");
                    io.close(socket);
                }
            }
        }
    }

    fn adopt(&mut self, io: &mut Io, key: ClientKey, term: super::Term, copy: Option<Session>) {
        let now = self.now(io);
        if copy.is_some() {
            io.checks.count("sessions moved");
        }
        self.disk.pending.insert(key, (term, copy));
        let early = self.run.connecting.iter().find(|(_, (_, of))| *of == key);
        if self.broken.confirmation
            && let Some((_, (socket, _))) = early.map(|(connect, at)| (*connect, *at))
        {
            self.disk.settle(key, term, OlderCopy::Whole);
            self.route(io, key);
            self.let_in(io, socket, key, term);
        }
        self.run.owners.handle_adopted(key, term, now);
    }

    /// The filters of a session that is here are routes of this node.
    fn route(&mut self, io: &Io, key: ClientKey) {
        let is_subscribed = io.subscribed.contains(&key);
        if let Some(kept) = self.disk.sessions.get_mut(&key) {
            kept.session.is_subscribed |= is_subscribed;
        }
        if let Some(filters) = self.run.withdrawals.handle_back(key) {
            for filter in filters {
                self.run.own_routes.remove(&filter);
            }
        }
        if is_subscribed && self.run.routed.insert(key) {
            self.run.own_routes.add(&topic(key));
        }
    }

    fn leave(&mut self, io: &mut Io, key: ClientKey, tombstone: &Tombstone, whole: LeftWhole) {
        let now = self.now(io);
        let Tombstone { to, term } = tombstone;
        io.tell(format!("node {}: {key} has left to {to} in term {}", self.index, term.0));
        self.drop_socket(io, key);
        let left = self.disk.leave(key, tombstone, whole);
        for mail in left.forwards {
            io.tell_mail(self.index, &mail, "is left and forwarded");
            self.forward(Forward::new(key, mail), now);
        }
        io.checks.in_doubt.extend(left.in_doubt);
        let is_routed = self.run.routed.remove(&key);
        let filters = is_routed.then(|| topic(key).into()).into_iter().collect();
        if self.broken.withdrawal {
            if is_routed {
                self.run.own_routes.remove(&topic(key));
            }
            self.disk.tombstones.remove(&key);
            return self.run.owners.forget_tombstone(key);
        }
        self.run.withdrawals.push(key, to.clone(), *term, filters, now);
    }

    fn admit(&mut self, io: &mut Io, connect: ConnectNumber, key: ClientKey, term: super::Term) {
        let Some((socket, _)) = self.run.connecting.remove(&connect) else { return };
        let custody = self.run.owners.custody(key);
        let is_ours = custody.is_some_and(|own| own.may_queue_qos2() && own.term == term);
        if !is_ours || !self.may_act(io) {
            return io.close(socket);
        }
        self.let_in(io, socket, key, term);
    }

    fn let_in(&mut self, io: &mut Io, socket: usize, key: ClientKey, term: super::Term) {
        if self.run.sockets.get(&key) != Some(&socket) {
            self.drop_socket(io, key);
        }
        if !io.sockets[socket].is_open {
            return;
        }
        io.acts(key, term, self.index, self.life(), "CONNACK");
        io.tell(format!("node {}: CONNACK for {key} in term {}", self.index, term.0));
        io.checks.count("admitted");
        io.sockets[socket].is_admitted = true;
        self.run.sockets.insert(key, socket);
        let n = self.run.versions.entry((key, term)).or_default();
        *n += 1;
        let version = term.version(*n).expect("a version");
        self.end_presence(io, key);
        self.run.presence.insert(key, (socket, version));
        io.feed(self.index, self.life(), key, version, true);
    }

    pub(super) fn drop_socket(&mut self, io: &mut Io, key: ClientKey) {
        self.run.in_flight.remove(&key);
        if let Some(socket) = self.run.sockets.remove(&key) {
            io.close(socket);
        }
    }

    fn end_presence(&mut self, io: &mut Io, key: ClientKey) {
        if let Some((_, version)) = self.run.presence.remove(&key) {
            io.feed(self.index, self.life(), key, version, false);
        }
    }

    /// Reports connections that have ended.
    pub(super) fn follow_presence(&mut self, io: &mut Io) {
        if !self.may_act(io) {
            return;
        }
        let ended: Vec<ClientKey> = self
            .run
            .presence
            .iter()
            .filter(|(key, (socket, _))| self.run.sockets.get(key) != Some(socket))
            .map(|(key, _)| *key)
            .collect();
        for key in ended {
            self.end_presence(io, key);
        }
    }

    pub(super) fn subscribe(&mut self, io: &mut Io, socket: usize, key: ClientKey) {
        let now = self.now(io);
        if self.run.sockets.get(&key) != Some(&socket) {
            return;
        }
        io.subscribed.insert(key);
        self.route(io, key);
        let number = self.run.own_routes.wait(vec![topic(key).into()], now);
        self.run.subacks.insert(number, (socket, key));
    }

    pub(super) fn answer_subscribes(&mut self, io: &mut Io) {
        let now = self.now(io);
        loop {
            let serving = self.run.membership.serving();
            let ready = self.run.own_routes.poll_suback(&self.run.applied, serving, now);
            let Some(ready) = ready else { return };
            io.checks.count(if ready.is_everywhere { "SUBACK" } else { "SUBACK before all" });
            if let Some((socket, key)) = self.run.subacks.remove(&ready.number)
                && self.run.sockets.get(&key) == Some(&socket)
                && self.may_act(io)
            {
                io.sockets[socket].to_client.push_back(ToClient::SubAck);
            }
        }
    }

    pub(super) fn answer(&mut self, io: &mut Io, ask: AskNumber, reply: QuestionReply) {
        if let Some((to, token)) = self.run.asks.remove(&ask)
            && self.may_act(io)
        {
            let bytes = wire::encode(&reply);
            let input = super::Input::Answered { from: self.index, token, bytes };
            io.send(self.index, to, input);
        }
    }
}
