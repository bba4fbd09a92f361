//! The surroundings of the nodes: time, NATS, links between nodes, sockets, and what the checks note.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use bytes::Bytes;
use fastrand::Rng;
use hearthmq::{
    internals::cluster::{
        lanes::Mail,
        names::{ClientKey, MessageId, Term},
    },
    mqtt::QoS,
};

use super::{
    checks::Checks,
    nats::{Nats, Reply, Request},
};

/// Time of a turn.
pub(super) const TICK: u64 = 50;
/// When a world begins.
pub(super) const START: u64 = 1_000_000_000;

/// Something that happens later.
#[derive(Debug)]
pub(super) enum Event {
    /// A request arrives at NATS.
    Arrives(Request),
    /// A node receives something, if this life of its process still lasts.
    ToNode { node: usize, life: Option<u64>, input: Input },
    /// A node starts.
    Start(usize),
    /// A node reaches NATS again.
    Connected(usize),
    /// Two nodes reach each other again.
    Joined(usize, usize),
    /// A link is fast again.
    Fast(usize),
    /// An event of presence is in the feed.
    Feed { key: ClientKey, version: u64, is_online: bool, life: (usize, u64) },
}

/// What a node receives.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Reply(u64, Reply),
    Batch(Bytes),
    Answer(Bytes),
    Question { from: usize, token: u64, bytes: Bytes },
    Answered { from: usize, token: u64, bytes: Bytes },
    Connect { socket: usize, key: ClientKey },
    Closed { socket: usize, key: ClientKey },
    Subscribe { socket: usize, key: ClientKey },
    Publish { socket: usize, from: ClientKey, to: ClientKey, message: u64, qos: QoS },
    Taken { socket: usize, key: ClientKey, id: MessageId },
}

struct Timed {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// A connection of a client.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) node: usize,
    pub(super) is_open: bool,
    pub(super) is_admitted: bool,
    /// What arrives at the client.
    pub(super) to_client: VecDeque<ToClient>,
}

#[derive(Clone, Debug)]
pub(super) enum ToClient {
    SubAck,
    PubAck,
    Publish { message: u64, id: MessageId, is_repeated: bool, qos: QoS },
}

/// Everything around the nodes.
pub(super) struct Io {
    pub(super) now: u64,
    pub(super) rng: Rng,
    events: BinaryHeap<Timed>,
    next_event: u64,
    pub(super) nats: Nats,
    /// Which nodes reach NATS.
    pub(super) reaches: Vec<bool>,
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// Additional delay of messages from and to a node.
    pub(super) slow: BTreeMap<usize, u64>,
    pub(super) sockets: Vec<Socket>,
    /// Stands in for the stream of subscriptions by client, which is written before SUBACK.
    pub(super) subscribed: BTreeSet<ClientKey>,
    pub(super) checks: Checks,
    pub(super) is_quiet: bool,
    /// Nothing is lost and nothing is late: for worlds without faults.
    pub(super) is_calm: bool,
}

impl Io {
    pub(super) fn new(seed: u64, nodes: usize, is_calm: bool) -> Self {
        Self {
            now: START,
            rng: Rng::with_seed(seed),
            events: BinaryHeap::new(),
            next_event: 0,
            nats: Nats::default(),
            reaches: vec![true; nodes],
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            sockets: Vec::new(),
            subscribed: BTreeSet::new(),
            checks: Checks::default(),
            is_quiet: false,
            is_calm,
        }
    }

    /// Adds a line to the dialogue.
    pub(super) fn tell(&mut self, line: impl Into<String>) {
        if self.checks.tells {
            let at = (self.now - START) as f64 / 1000.0;
            self.checks.story.push(format!("{at:8.2} {}", line.into()));
        }
    }

    /// Adds a line about a message.
    pub(super) fn tell_mail(&mut self, node: usize, mail: &Mail, what: &str) {
        let message = self.checks.names.get(&mail.id).copied().unwrap_or_default();
        self.tell(format!("node {node}: message {message} {what}"));
    }

    pub(super) fn later(&mut self, delay: u64, event: Event) {
        self.next_event += 1;
        self.events.push(Timed { at: self.now + delay, number: self.next_event, event });
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        let is_due = self.events.peek().is_some_and(|timed| timed.at <= self.now);
        is_due.then(|| self.events.pop().map(|timed| timed.event)).flatten()
    }

    fn delay(&mut self, ticks: u64) -> u64 {
        self.rng.u64(0..=ticks) * TICK
    }

    fn is_lost(&mut self) -> bool {
        !self.is_calm && self.rng.f32() < 0.02
    }

    /// Sends a request to NATS. Of a node that does not reach it, some lie in a buffer.
    pub(super) fn request(&mut self, request: Request) {
        let delay = self.delay(4) + self.slow.get(&request.node).copied().unwrap_or(0);
        if self.reaches[request.node] {
            self.later(delay, Event::Arrives(request));
        } else if self.rng.f32() < 0.3 {
            let delay = self.rng.u64(500..6000);
            self.later(delay, Event::Arrives(request));
        }
    }

    /// A request has arrived: makes it, and sends the answer back.
    pub(super) fn arrived(&mut self, request: Request) {
        let (node, life, token) = (request.node, request.life, request.token);
        let now = self.now;
        let reply = self.nats.handle(request, now, &mut self.rng);
        if let Some(reply) = reply {
            self.reply(node, life, token, reply);
        }
    }

    pub(super) fn reply(&mut self, node: usize, life: u64, token: u64, reply: Reply) {
        if self.reaches[node] && !self.is_lost() {
            let delay = self.delay(2) + self.slow.get(&node).copied().unwrap_or(0);
            let input = Input::Reply(token, reply);
            self.later(delay, Event::ToNode { node, life: Some(life), input });
        }
    }

    pub(super) fn is_linked(&self, one: usize, other: usize) -> bool {
        let pair = (one.min(other), one.max(other));
        self.reaches[one] && self.reaches[other] && !self.cut.contains(&pair)
    }

    /// Sends a message of NATS core.
    pub(super) fn send(&mut self, from: usize, to: usize, input: Input) {
        if !self.is_linked(from, to) || self.is_lost() {
            return;
        }
        let slow = [from, to].iter().filter_map(|node| self.slow.get(node)).sum::<u64>();
        let ticks = if self.is_calm { 1 } else { 4 };
        let slow = if slow > 0 { self.rng.u64(0..=slow) } else { 0 };
        let delay = self.delay(ticks) + slow;
        self.later(delay, Event::ToNode { node: to, life: None, input });
    }

    pub(super) fn close(&mut self, socket: usize) {
        self.sockets[socket].is_open = false;
    }

    /// Writes an event of presence.
    pub(super) fn feed(
        &mut self,
        node: usize,
        life: u64,
        key: ClientKey,
        version: u64,
        is_online: bool,
    ) {
        let mut delay = if self.reaches[node] { self.delay(8) } else { self.rng.u64(1000..15_000) };
        if self.rng.f32() < 0.05 {
            delay += 4000;
        }
        self.later(delay, Event::Feed { key, version, is_online, life: (node, life) });
    }

    /// Notes that a node acts for a client.
    pub(super) fn acts(&mut self, key: ClientKey, term: Term, node: usize, life: u64, what: &str) {
        self.checks.acts(key, term, node, life, what);
    }
}
