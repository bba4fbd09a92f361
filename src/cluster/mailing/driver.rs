//! The thread of the mail: carries what the pure parts ask for to NATS, and the results back.
//!
//! It begins with the broker, and answers SUBACKs that wait also before NATS is reached. Nothing leaves a node
//! that may not act ([`NodeWatch::may_act`]). Knows no client of NATS: only the door.

mod arriving;
mod groups;
mod lives;
mod moves;
mod subacks;

use std::{
    collections::BTreeMap,
    future,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use tokio::{sync::mpsc, time::sleep};

use self::{arriving::BatchesAhead, subacks::SubacksBehind};
use super::{
    MailHost, MailOrder, MailStatus, PeerMail, SharedMail,
    arrivals::Arrivals,
    content,
    cuts::Cuts,
    filters::NodeFilters,
    hello::{HELLO_EVERY_MILLIS, NodeHello},
    peers::{Peer, Peers},
    planning::Planning,
};
use crate::{
    between::{
        batch::Stored,
        door::{Sender, ToShard},
        nodes::{AwaitedRoutes, OutgoingMail},
    },
    cluster::{
        door::{Address, LogEntry, Nats},
        lanes::PartNumber,
        mail::Mail,
        names::{Incarnation, Log, MessageId, MessageSource, NodeId, Sequence},
        node::{NodeWatch, now},
        routes::FilterChange,
        wire,
    },
    journal::Ticket,
    mqtt::{QoS, Timestamp},
    router::ShardNumber,
};

/// The maximum time between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many events of one kind are taken in before others get their turn.
const AT_A_TIME: usize = 1_024;
/// The time between two reports of how far the log of routes is applied.
const REPORT_EVERY_MILLIS: u64 = 5;
/// The time between two updates of what callers see.
const STATUS_EVERY_MILLIS: u64 = 100;
/// How long an append to the log of routes waits for its answer.
const APPEND_TIME_MAX: Duration = Duration::from_secs(2);

/// NATS, and the node in the cluster.
pub(super) struct JoinedNats {
    pub(super) door: Arc<dyn Nats>,
    pub(super) node: NodeId,
    pub(super) watch: NodeWatch,
}

type Appended = (Incarnation, u64, Option<Sequence>);

/// The streams and requests of a node that has joined.
struct NatsTraffic {
    joined: JoinedNats,
    log: BoxStream<'static, LogEntry>,
    hellos: BoxStream<'static, Bytes>,
    /// Mail to the present life; none before it prepares to serve.
    mail: Option<BoxStream<'static, Bytes>>,
    appends: FuturesUnordered<BoxFuture<'static, Appended>>,
    arrivals: Arrivals,
    /// Batches that were planned with a later place of the log of routes than this node has applied.
    ahead: BatchesAhead,
    life: Incarnation,
    is_serving: bool,
    hello_at: Timestamp,
    report_at: Timestamp,
}

/// The driver of the mail.
pub(super) struct MailDriver {
    inbox: mpsc::UnboundedReceiver<MailOrder>,
    orders: mpsc::UnboundedSender<MailOrder>,
    shared: Arc<SharedMail>,
    host: MailHost,
    /// This node; none before it has joined.
    me: Option<NodeId>,
    /// A random number of this process.
    process: u64,
    /// The last number of a message, for each shard.
    numbers: BTreeMap<u16, u64>,
    peers: Peers,
    filters: NodeFilters,
    behind: SubacksBehind,
    planning: Planning,
    cuts: Cuts,
    status_at: Timestamp,
}

impl MailDriver {
    pub(super) fn new(
        inbox: mpsc::UnboundedReceiver<MailOrder>,
        orders: mpsc::UnboundedSender<MailOrder>,
        shared: Arc<SharedMail>,
        host: MailHost,
    ) -> Self {
        let mut random = [0; 8];
        // Without it, two processes may look like one, which matters for QoS 2 over a restart alone.
        let _ = getrandom::fill(&mut random);
        Self {
            inbox,
            orders,
            shared,
            planning: Planning::new(host.shards.len()),
            cuts: Cuts::default(),
            host,
            me: None,
            process: u64::from_le_bytes(random),
            numbers: BTreeMap::new(),
            peers: Peers::default(),
            filters: NodeFilters::default(),
            behind: SubacksBehind::default(),
            status_at: Timestamp(0),
        }
    }

    /// Runs until the broker ends.
    pub(super) async fn run(mut self) {
        let mut traffic = loop {
            match self.inbox.recv().await {
                None => return,
                Some(MailOrder::Join(joined)) => break self.join(joined),
                Some(order) => self.take_order(order, None),
            }
            self.settle();
        };
        loop {
            self.wait(&mut traffic).await;
            self.look_at_members(&mut traffic);
            self.turn(&mut traffic).await;
        }
    }

    fn join(&mut self, joined: JoinedNats) -> NatsTraffic {
        self.filters.join(joined.node.clone());
        self.me = Some(joined.node.clone());
        NatsTraffic {
            log: joined.door.follow(Log::Routes, Sequence(0)),
            hellos: joined.door.subscribe(&Address::All, 0),
            mail: None,
            appends: FuturesUnordered::new(),
            arrivals: Arrivals::new(joined.node.clone()),
            ahead: BatchesAhead::default(),
            life: Incarnation(0),
            is_serving: false,
            hello_at: Timestamp(0),
            report_at: Timestamp(0),
            joined,
        }
    }

    /// Waits for an event, and takes in what there is.
    async fn wait(&mut self, traffic: &mut NatsTraffic) {
        let NatsTraffic { log, hellos, mail, appends, joined, .. } = traffic;
        let next_mail = async {
            match mail {
                Some(mail) => mail.next().await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            Some(order) = self.inbox.recv() => self.take_order(order, Some(traffic)),
            Some(bytes) = next_mail => self.take_bytes(&bytes, traffic),
            Some(entry) = log.next() => {
                // A hand-over in the log must find the order that came before it.
                self.take_orders(traffic);
                self.apply(&entry);
            }
            Some(bytes) = hellos.next() => self.take_hello(&bytes, joined),
            Some(appended) = appends.next() => self.note_appended(appended, joined),
            _ = joined.watch.status.changed() => {}
            () = sleep(LOOK_EVERY) => {}
        }
        self.take_more(traffic);
    }

    /// Takes in what is there already, so that batches are large when there is much.
    fn take_more(&mut self, traffic: &mut NatsTraffic) {
        self.take_orders(traffic);
        for _ in 0..AT_A_TIME {
            let next = traffic.mail.as_mut().and_then(|mail| mail.next().now_or_never());
            let Some(Some(bytes)) = next else { break };
            self.take_bytes(&bytes, traffic);
        }
        for _ in 0..AT_A_TIME {
            let Some(Some(entry)) = traffic.log.next().now_or_never() else { break };
            self.take_orders(traffic);
            self.apply(&entry);
        }
    }

    /// Takes in all orders that are there.
    fn take_orders(&mut self, traffic: &mut NatsTraffic) {
        for _ in 0..self.inbox.len() {
            let Ok(order) = self.inbox.try_recv() else { break };
            self.take_order(order, Some(traffic));
        }
    }

    fn take_order(&mut self, order: MailOrder, traffic: Option<&mut NatsTraffic>) {
        match order {
            MailOrder::Send(mail) => {
                let life = traffic.map_or(Incarnation(0), |traffic| traffic.life);
                self.send(mail, life);
            }
            MailOrder::Await(awaited) => {
                let awaited = self.filters.wait(awaited, now());
                awaited.into_iter().for_each(|awaited| self.tell_known(&awaited));
            }
            MailOrder::Wanted(filter, is_wanted) => self.filters.handle_wanted(filter, is_wanted),
            MailOrder::Stored(node, number) => {
                if let Some(traffic) = traffic {
                    traffic.arrivals.handle_stored(&node, number);
                }
            }
            MailOrder::Done(parts) => self.peers.note_done(parts),
            MailOrder::Join(_) => {} // A node joins once.
            MailOrder::Planning(shard, round) => self.planning.handle_planning(shard.0, round),
            MailOrder::Move(step) => self.take_move(step),
        }
    }

    /// Gives the messages of a turn of a shard to the lanes of their nodes.
    fn send(&mut self, outgoing: OutgoingMail, life: Incarnation) {
        let OutgoingMail { shard, ticket, mails, bytes, planned_with } = outgoing;
        self.shared.handed_over.fetch_sub(bytes, Ordering::Relaxed);
        // Before the node has joined, no plan names another one.
        let Some(me) = self.me.clone() else { return };
        // A node reports in order, so its last message stands for all of them.
        let mut last = BTreeMap::new();
        for (at, mail) in mails.iter().enumerate() {
            if mail.message.qos() != QoS::AtMostOnce {
                last.extend(mail.nodes().map(|node| (node, at)));
            }
        }
        let number = self.numbers.entry(shard.0).or_default();
        let at_broker = self.host.clock.now();
        for (at, mail) in mails.iter().enumerate() {
            *number += 1;
            let source = MessageSource { store: self.process, incarnation: life, shard: shard.0 };
            let sent = Mail {
                id: MessageId { source, number: *number },
                qos: mail.message.qos(),
                is_alone: mail.plan.len() == 1,
                topic: mail.message.topic().into(),
                content: content::encode(
                    mail,
                    &me,
                    |node| self.peers.name(node),
                    planned_with,
                    at_broker,
                ),
            };
            for node in mail.nodes() {
                let is_last = last.get(&node) == Some(&at);
                let part = ticket.filter(|_| is_last).map(|ticket| part_of(shard, ticket));
                self.peers.send(node, sent.clone(), part);
            }
        }
    }

    fn tell(&self, shard: ShardNumber, message: ToShard) {
        if let Some(handle) = self.host.shards.get(usize::from(shard.0)) {
            handle.door.send(Sender::Cluster, message);
        }
    }

    fn tell_known(&self, awaited: &AwaitedRoutes) {
        awaited.known.set();
        self.tell(awaited.shard, ToShard::RoutesKnown(awaited.slot));
    }

    /// Applies an entry of the log of routes.
    fn apply(&mut self, entry: &LogEntry) {
        let changes = self.filters.handle_entry(&entry.node, entry.sequence, &entry.payload);
        self.change_index(&entry.node, &changes);
        if self.peers.is_dead(&entry.node) {
            self.forget_filters(&entry.node);
        }
        self.cut_sessions();
    }

    fn change_index(&mut self, node: &NodeId, changes: &[FilterChange]) {
        if changes.is_empty() {
            return; // Also of this node, which is not a peer of itself.
        }
        let number = self.peers.number(node);
        for FilterChange { filter, is_added } in changes {
            (self.host.change_route)(filter, number, *is_added);
        }
    }

    fn forget_filters(&mut self, node: &NodeId) {
        let changes = self.filters.forget(node);
        self.change_index(node, &changes);
    }

    fn take_hello(&mut self, bytes: &[u8], joined: &JoinedNats) {
        let Ok(hello) = wire::decode::<NodeHello>(bytes) else { return };
        if hello.from != joined.node {
            self.peers.handle_hello(&hello.from, hello.incarnation, hello.process);
        }
    }

    fn note_appended(&mut self, (life, number, sequence): Appended, joined: &JoinedNats) {
        let Some(sequence) = sequence else { return };
        let Some(before) = self.filters.handle_appended(life, number, sequence) else { return };
        let (door, node) = (Arc::clone(&joined.door), joined.node.clone());
        // What it does not cut off, a later snapshot does.
        drop(tokio::spawn(async move { door.cut(Log::Routes, &node, before).await }));
    }

    /// Carries out everything that is due.
    async fn turn(&mut self, traffic: &mut NatsTraffic) {
        let now = now();
        let (door, me) = (Arc::clone(&traffic.joined.door), traffic.joined.node.clone());
        if let Some(life) = self.filters.prepared() {
            self.shared.prepared.store(life.0, Ordering::Release);
        }
        self.go_through_shards(traffic);
        self.take_waiting(traffic);
        if let Some(append) = self.filters.poll_append(now) {
            let (door, me, life) = (Arc::clone(&door), me.clone(), traffic.life);
            traffic.appends.push(Box::pin(async move {
                let (id, payload) = (append.id, append.payload);
                let at = door.append(Log::Routes, &me, &id, payload, APPEND_TIME_MAX).await;
                (life, append.number, at.ok())
            }));
        }
        if traffic.is_serving && traffic.joined.watch.may_act() {
            self.peers.open_lanes(&me, traffic.life, door.payload_bytes_max());
            self.greet(traffic, now).await;
            self.exchange(traffic, now).await;
        }
        let plan_here = (&me, traffic.life);
        while let Some(awaited) =
            self.filters.poll_suback(self.peers.serving().chain([plan_here]), now)
        {
            self.await_retained(awaited, now);
        }
        self.tell_retained(now);
        self.settle();
    }

    async fn greet(&self, traffic: &mut NatsTraffic, now: Timestamp) {
        if now < traffic.hello_at {
            return;
        }
        traffic.hello_at = now.plus_millis(HELLO_EVERY_MILLIS);
        let (from, incarnation) = (traffic.joined.node.clone(), traffic.life);
        let hello = NodeHello { from, incarnation, process: self.process };
        // The next one follows in any case.
        let _ = traffic.joined.door.publish(&Address::All, 0, wire::encode(&hello)).await;
    }

    /// Sends batches and answers.
    async fn exchange(&mut self, traffic: &mut NatsTraffic, now: Timestamp) {
        if now >= traffic.report_at {
            traffic.report_at = now.plus_millis(REPORT_EVERY_MILLIS);
            // Read behind the routes: a message that was planned without them is written already.
            self.peers.report(self.planning.place(), self.host.retained.written());
        }
        let NatsTraffic { joined: JoinedNats { door, watch, .. }, arrivals, .. } = traffic;
        while let Some((node, batch)) = self.peers.poll_batch(now) {
            let life = batch.to_incarnation.0;
            let payload = wire::encode(&batch);
            if !watch.may_act() || door.publish(&Address::Mail(node), life, payload).await.is_err()
            {
                return; // It is sent again.
            }
        }
        while let Some((node, answer)) = arrivals.poll_answer() {
            let life = answer.to_incarnation.0;
            let payload = wire::encode(&answer);
            if !watch.may_act() || door.publish(&Address::Mail(node), life, payload).await.is_err()
            {
                return; // The next batch gets another one.
            }
        }
    }

    /// Reports parts of tickets that are done, and updates what others see.
    fn settle(&mut self) {
        self.return_mail();
        let mut by_shard: BTreeMap<u16, Vec<Ticket>> = BTreeMap::new();
        for part in self.peers.take_done() {
            let (ShardNumber(shard), ticket) = ticket_of(part);
            by_shard.entry(shard).or_default().push(ticket);
        }
        for (shard, tickets) in by_shard {
            let stored = Stored { tickets, is_by_store: false };
            self.tell(ShardNumber(shard), ToShard::Stored(stored));
        }
        self.shared.is_congested.store(self.peers.is_congested(), Ordering::Relaxed);
        let now = now();
        if now >= self.status_at {
            self.status_at = now.plus_millis(STATUS_EVERY_MILLIS);
            let peers = self.peers.iter().map(|peer| (peer.node.clone(), mail_of(peer)));
            let subacks_early = self.filters.early() + self.behind.early();
            let status = MailStatus { peers: peers.collect(), subacks_early };
            *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
        }
    }
}

fn mail_of(peer: &Peer) -> PeerMail {
    let counts = peer.counts;
    PeerMail {
        messages_sent: counts.messages_sent,
        bytes_sent: counts.bytes_sent,
        messages_received: counts.messages_received,
        bytes_received: counts.bytes_received,
        unacknowledged: peer.unacknowledged() as u64,
        dropped: counts.dropped,
    }
}

/// Bits of the number of a part that are the ticket. A shard that closes a million tickets each second has enough
/// of them for eight years.
const TICKET_BITS: u32 = 48;

const fn part_of(ShardNumber(shard): ShardNumber, Ticket(ticket): Ticket) -> PartNumber {
    PartNumber((shard as u64) << TICKET_BITS | (ticket & ((1 << TICKET_BITS) - 1)))
}

const fn ticket_of(PartNumber(part): PartNumber) -> (ShardNumber, Ticket) {
    let shard = ShardNumber((part >> TICKET_BITS) as u16);
    (shard, Ticket(part & ((1 << TICKET_BITS) - 1)))
}
