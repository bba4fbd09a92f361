//! A node of the simulated cluster: the parts of the core, the stand-in for its shards, and the driver
//! that carries requests and results between them.

mod asking;
mod delivering;
mod holding;
mod mailing;

use std::collections::{BTreeMap, BTreeSet};

use hearthmq::{
    internals::cluster::{
        catching_up::CatchUps,
        door::{KeyWrite, NatsWriteError},
        forwards::{ForwardNumber, Forwards, Keepers},
        lanes::{Inlet, Lane, Mail, PartNumber},
        members::{EndOfLife, Lives, Membership, MembershipEvent},
        names::{
            Bucket, ClientKey, Incarnation, LEASE_BUCKETS, MessageId, NodeId, RequestNumber,
            Sequence, Term,
        },
        owners::{AskNumber, ClientOwners, ConnectNumber, OwnerRecord, ReleaseRequest},
        routes::{AppliedMarks, OwnRoutes, RemoteRoutes, SubackNumber},
        wire,
        withdrawals::Withdrawals,
    },
    mqtt::Timestamp,
    records::Revision,
};

use super::{
    io::{Input, Io},
    nats::{Led, Reply, Request, What},
    shard::Disk,
};

/// Parts of the agreement that a world can be made to break, to see that its checks notice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Broken {
    /// A node acts on although its leases have run out.
    pub(super) fencing: bool,
    /// CONNACK is sent when the session has arrived, before the record is confirmed.
    pub(super) confirmation: bool,
    /// Mail is acknowledged when it arrives, before it is stored.
    pub(super) storing: bool,
    /// The old route goes with the session.
    pub(super) withdrawal: bool,
    /// Records do not name the nodes that still have a part.
    pub(super) owed: bool,
}

/// What a reply is for.
#[derive(Clone, Debug)]
enum Awaited {
    Membership(RequestNumber),
    OwnerWrite(RequestNumber),
    OwnerRead(ClientKey),
    ForwardRead(ForwardNumber),
    WithdrawalRead(ClientKey),
    Append(u64),
    Release(ReleaseRequest),
    Forward(ForwardNumber, u64),
    Routes(ClientKey),
    Fetch(ClientKey, NodeId),
    Drained(ClientKey),
    Nothing,
}

/// A publication that waits for its acknowledgement.
#[derive(Debug)]
struct Publication {
    socket: usize,
    from: ClientKey,
    left: BTreeSet<PartNumber>,
}

/// Something that the shard is storing.
#[derive(Debug)]
struct Storing {
    due: u64,
    mail: Option<Mail>,
    applied: Option<Sequence>,
    from: Option<(NodeId, Incarnation, u64)>,
    part: Option<PartNumber>,
}

/// What a process has in memory.
struct Running {
    membership: Membership,
    owners: ClientOwners,
    own_routes: OwnRoutes,
    remote: RemoteRoutes,
    applied: AppliedMarks,
    reported: BTreeMap<NodeId, Sequence>,
    withdrawals: Withdrawals,
    catch_ups: CatchUps,
    /// The node to tell that a session is drained, how often it was told, and when it is told again.
    drained: BTreeMap<ClientKey, (NodeId, u32, u64)>,
    forwards: Forwards,
    lanes: BTreeMap<NodeId, Lane>,
    inlets: BTreeMap<NodeId, Inlet>,
    cursors: BTreeMap<Bucket, usize>,
    log_cursor: usize,
    awaited: BTreeMap<u64, (Option<NodeId>, Awaited)>,
    next_token: u64,
    next_ask: u64,
    asks: BTreeMap<AskNumber, (usize, u64)>,
    next_connect: u64,
    connecting: BTreeMap<ConnectNumber, (usize, ClientKey)>,
    sockets: BTreeMap<ClientKey, usize>,
    in_flight: BTreeMap<ClientKey, MessageId>,
    storing: Vec<Storing>,
    publications: BTreeMap<u64, Publication>,
    parts: BTreeMap<PartNumber, (u64, usize)>,
    next_part: u64,
    subacks: BTreeMap<SubackNumber, (usize, ClientKey)>,
    fetches: BTreeMap<(ClientKey, NodeId), (u32, u64)>,
    routed: BTreeSet<ClientKey>,
    versions: BTreeMap<(ClientKey, Term), u64>,
    presence: BTreeMap<ClientKey, (usize, u64)>,
    snapshot_at: Option<Sequence>,
    prepares: bool,
    is_serving: bool,
}

impl Running {
    fn new(me: &NodeId, store: u64, incarnation: Incarnation) -> Self {
        Self {
            membership: Membership::new(me.clone(), store, incarnation),
            owners: ClientOwners::new(me.clone(), incarnation),
            own_routes: OwnRoutes::new(incarnation),
            remote: RemoteRoutes::new(me.clone()),
            applied: AppliedMarks::default(),
            reported: BTreeMap::new(),
            withdrawals: Withdrawals::default(),
            catch_ups: CatchUps::default(),
            drained: BTreeMap::new(),
            forwards: Forwards::new(me.clone(), incarnation),
            lanes: BTreeMap::new(),
            inlets: BTreeMap::new(),
            cursors: BTreeMap::new(),
            log_cursor: 0,
            awaited: BTreeMap::new(),
            next_token: incarnation.0 << 32,
            next_ask: 0,
            asks: BTreeMap::new(),
            next_connect: 0,
            connecting: BTreeMap::new(),
            sockets: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            storing: Vec::new(),
            publications: BTreeMap::new(),
            parts: BTreeMap::new(),
            next_part: 0,
            subacks: BTreeMap::new(),
            fetches: BTreeMap::new(),
            routed: BTreeSet::new(),
            versions: BTreeMap::new(),
            presence: BTreeMap::new(),
            snapshot_at: None,
            prepares: false,
            is_serving: false,
        }
    }
}

/// Finds keepers by the records of members.
struct ByRecord<'a>(&'a Membership);

impl Lives for ByRecord<'_> {
    fn is_dead(&self, node: &NodeId) -> bool {
        self.0.is_dead(node)
    }
}

impl Keepers for ByRecord<'_> {
    fn keeper_of(&self, dead: &NodeId) -> Option<NodeId> {
        self.0.keeper(dead).cloned()
    }
}

/// The topic of a client, which is all that it subscribes to.
pub(super) fn topic(key: ClientKey) -> String {
    format!("to/{key}")
}

pub(super) fn node_id(index: usize) -> NodeId {
    NodeId::new(&format!("n{index}")).expect("a fit name")
}

fn index_of(node: &NodeId) -> usize {
    node.as_str()[1..].parse().expect("a name of the world")
}

fn owner_record(reply: &Reply) -> Option<(Revision, Option<OwnerRecord>)> {
    match reply {
        Reply::Found(None) => Some((Revision(0), None)),
        Reply::Found(Some(entry)) => {
            let record = entry.value.as_deref().map(wire::decode);
            let record = record.map(|record| record.expect("a record of the world"));
            Some((entry.revision, record))
        }
        _ => None,
    }
}

pub(super) struct Node {
    pub(super) index: usize,
    me: NodeId,
    pub(super) disk: Disk,
    pub(super) is_up: bool,
    pub(super) frozen_until: u64,
    inbox: Vec<Input>,
    run: Running,
    clock: u64,
    broken: Broken,
}

impl Node {
    pub(super) fn new(index: usize, clock: u64, broken: Broken) -> Self {
        let me = node_id(index);
        let run = Running::new(&me, 0, Incarnation(0));
        let disk = Disk { store: index as u64 + 1, ..Disk::default() };
        let (is_up, frozen_until, inbox) = (false, 0, Vec::new());
        Self { index, me, disk, is_up, frozen_until, inbox, run, clock, broken }
    }

    fn now(&self, io: &Io) -> Timestamp {
        Timestamp(io.now + self.clock)
    }

    pub(super) fn life(&self) -> u64 {
        self.disk.incarnation.0
    }

    pub(super) fn start(&mut self, io: &mut Io) {
        self.is_up = true;
        self.disk.incarnation.0 += 1;
        self.run = Running::new(&self.me, self.disk.store, self.disk.incarnation);
        self.inbox.clear();
        let line = format!("node {} starts, life {}", self.index, self.life());
        io.tell(line);
    }

    pub(super) fn die(&mut self, io: &mut Io) {
        self.is_up = false;
        io.tell(format!("node {} ends", self.index));
        for socket in 0..io.sockets.len() {
            if io.sockets[socket].node == self.index {
                io.close(socket);
            }
        }
    }

    pub(super) fn receive(&mut self, life: Option<u64>, input: Input) {
        if self.is_up && life.is_none_or(|life| life == self.life()) {
            self.inbox.push(input);
        }
    }

    /// Returns whether this node holds that it may act, by a clock that does not stand still.
    pub(super) fn holds_a_lease(&self, io: &Io) -> bool {
        let until = self.run.membership.valid_until();
        self.run.is_serving && until.is_some_and(|until| self.now(io) < until)
    }

    pub(super) fn is_serving(&self) -> bool {
        self.is_up && self.run.is_serving
    }

    /// Returns whether something may leave now.
    fn may_act(&mut self, io: &Io) -> bool {
        let now = self.now(io);
        let may_act = self.run.membership.may_act(now);
        self.run.is_serving && (may_act || self.broken.fencing)
    }

    fn token(&mut self, to: Option<NodeId>, awaited: Awaited) -> u64 {
        self.run.next_token += 1;
        self.run.awaited.insert(self.run.next_token, (to, awaited));
        self.run.next_token
    }

    fn request(&mut self, io: &mut Io, what: What, awaited: Awaited) {
        let token = self.token(None, awaited);
        io.request(Request { node: self.index, life: self.life(), token, what });
    }

    fn write(&mut self, io: &mut Io, write: KeyWrite, awaited: Awaited) {
        let KeyWrite { bucket, key, value, expected, .. } = write;
        self.request(io, What::Update { bucket, key, value, expected }, awaited);
    }

    fn read(&mut self, io: &mut Io, key: ClientKey, awaited: Awaited) {
        let what = What::Read { bucket: key.bucket(), key: key.to_string() };
        self.request(io, what, awaited);
    }

    /// One turn of the process.
    pub(super) fn turn(&mut self, io: &mut Io) {
        if !self.is_up || io.now < self.frozen_until {
            return;
        }
        self.follow(io);
        let mut inbox = std::mem::take(&mut self.inbox);
        if !io.is_calm {
            io.rng.shuffle(&mut inbox);
        }
        for input in inbox {
            self.take(io, input);
        }
        self.keep_membership(io);
        if !self.is_up {
            return self.start(io);
        }
        if self.run.prepares || self.run.is_serving {
            let now = self.now(io);
            self.run.owners.handle_time(&ByRecord(&self.run.membership), now);
            self.carry_owner_steps(io);
            self.append(io);
        }
        if self.run.is_serving {
            self.carry_mail(io);
            self.follow_presence(io);
        }
    }

    /// Follows buckets and the log, as far as NATS shows them.
    fn follow(&mut self, io: &mut Io) {
        if !io.reaches[self.index] {
            return;
        }
        let now = self.now(io);
        let leases = (0..LEASE_BUCKETS as u8).map(Bucket::Lease);
        for bucket in leases.chain([Bucket::Members]) {
            if io.nats.is_stalled(Led::Bucket(bucket), io.now) || io.rng.f32() < 0.3 {
                continue;
            }
            let from = self.run.cursors.entry(bucket).or_default();
            for entry in io.nats.changes(bucket, *from) {
                *from += 1;
                let node = NodeId::new(&entry.key).expect("a node");
                let value = entry.value.as_deref();
                match bucket {
                    Bucket::Lease(number) => {
                        self.run.membership.handle_lease(number, node, entry.revision, value, now);
                    }
                    _ => self.run.membership.handle_member(node, entry.revision, value, now),
                }
            }
            self.run.membership.handle_current(bucket);
        }
        if io.nats.is_stalled(Led::Routes, io.now) || io.rng.f32() < 0.4 {
            return;
        }
        for entry in &io.nats.log[self.run.log_cursor..] {
            self.run.log_cursor += 1;
            self.run.remote.handle_entry(&entry.node, entry.sequence, &entry.payload);
        }
    }

    fn take(&mut self, io: &mut Io, input: Input) {
        match input {
            Input::Reply(token, reply) => self.take_reply(io, token, reply),
            _ if !self.may_act(io) => {}
            Input::Batch(bytes) => self.take_batch(io, &bytes),
            Input::Answer(bytes) => {
                let answer = wire::decode(&bytes).expect("an answer of the world");
                self.take_lane_answer(io, &answer);
            }
            Input::Question { from, token, bytes } => self.take_question(io, from, token, &bytes),
            Input::Answered { from, token, bytes } => self.take_answer(io, from, token, &bytes),
            Input::Connect { socket, key } => self.connect(io, socket, key),
            Input::Closed { socket, key } => self.closed(socket, key),
            Input::Subscribe { socket, key } => self.subscribe(io, socket, key),
            Input::Publish { socket, from, to, message, qos } => {
                self.publish(io, socket, from, to, message, qos);
            }
            Input::Taken { socket, key, id } => self.taken(socket, key, id),
        }
    }

    fn take_reply(&mut self, io: &mut Io, token: u64, reply: Reply) {
        let Some((_, awaited)) = self.run.awaited.remove(&token) else { return };
        let now = self.now(io);
        let written = match &reply {
            Reply::Written(revision) => Ok(*revision),
            Reply::Conflict(revision) => Err(NatsWriteError::Conflict(Some(*revision))),
            _ => Err(NatsWriteError::Unknown),
        };
        match awaited {
            Awaited::Membership(request) => {
                self.run.membership.handle_written(request, written, now);
            }
            Awaited::OwnerWrite(request) => {
                self.run.owners.handle_written(request, written.ok(), now);
            }
            Awaited::Append(number) => {
                if let Reply::Appended(sequence) = reply {
                    self.run.own_routes.handle_appended(number, sequence);
                    self.run.snapshot_at.get_or_insert(sequence);
                }
            }
            Awaited::OwnerRead(key) => {
                if let Some((revision, record)) = owner_record(&reply) {
                    let lives = ByRecord(&self.run.membership);
                    self.run.owners.handle_read(key, revision, record.as_ref(), &lives, now);
                }
            }
            Awaited::ForwardRead(number) => {
                if let Some((_, Some(record))) = owner_record(&reply) {
                    let keepers = ByRecord(&self.run.membership);
                    self.run.forwards.handle_record(number, &record, &keepers, now);
                }
            }
            Awaited::WithdrawalRead(key) => {
                if let Some((_, Some(record))) = owner_record(&reply) {
                    self.moved(key, &record);
                }
            }
            _ => {}
        }
    }

    fn keep_membership(&mut self, io: &mut Io) {
        let now = self.now(io);
        self.run.membership.handle_time(now);
        while let Some(write) = self.run.membership.poll_write(now) {
            let request = write.request;
            self.write(io, write, Awaited::Membership(request));
        }
        while let Some(event) = self.run.membership.poll_event() {
            self.take_event(io, event);
            if !self.is_up {
                return;
            }
        }
        let may_prepare = self.run.owners.is_restored() && self.run.own_routes.is_begun();
        let is_applied = self.run.snapshot_at.is_some_and(|at| self.run.remote.applied() >= at);
        if self.run.prepares && may_prepare && is_applied {
            self.run.membership.handle_prepared();
        }
        self.keep_for_the_dead(io);
    }

    fn take_event(&mut self, io: &mut Io, event: MembershipEvent) {
        match event {
            MembershipEvent::Prepare => self.prepare(io),
            MembershipEvent::Served => {
                (self.run.is_serving, self.run.prepares) = (true, false);
                io.tell(format!("node {} serves, life {}", self.index, self.life()));
                for life in 1..self.life() {
                    io.checks.feed_down((self.index, life));
                }
            }
            MembershipEvent::Ended(EndOfLife::LeaseLost) if self.broken.fencing => {}
            MembershipEvent::Ended(why) => {
                io.tell(format!("node {} ends itself: {why:?}", self.index));
                io.checks.count(match why {
                    EndOfLife::LeaseLost => "fenced",
                    EndOfLife::DeclaredDead => "found dead",
                    EndOfLife::Superseded(_) => "superseded",
                });
                self.die(io);
            }
            MembershipEvent::LifeEnded(node, life) => {
                io.tell(format!("node {} sees the end of {node}, life {}", self.index, life.0));
                self.life_ended(io, &node, life);
            }
            MembershipEvent::Keeper(node, _) => {
                io.tell(format!("node {} keeps for {node}", self.index));
                io.checks.count("keepers");
            }
        }
    }

    /// The duty of a keeper, by the records: the feed learns of the end of a life.
    fn keep_for_the_dead(&mut self, io: &mut Io) {
        if !self.run.is_serving || io.rng.f32() > 0.1 {
            return;
        }
        for index in 0..io.reaches.len() {
            let node = node_id(index);
            if self.run.membership.keeper(&node) == Some(&self.me)
                && let Some(life) = self.run.membership.incarnation_of(&node)
            {
                io.checks.feed_down((index, life.0));
            }
        }
    }
}
