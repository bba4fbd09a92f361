//! Retained messages of several nodes: writers race for few topics, writes and mail are lost, late or doubled, the
//! stream stalls, and nodes are restarted with what their stores had. In the end all nodes have what the stream has.
//!
//! Plays the pure parts of `cluster/retaining` alone: they know neither sessions nor owners.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fastrand::Rng;
use hearthmq::{
    internals::cluster::{
        names::Sequence,
        retaining::{
            positions::RetainedPositions,
            writes::{RetainedWrites, StreamWrite, WriteEnd, WriteOutcome},
        },
    },
    mqtt::Timestamp,
};

use crate::number;

const TICK: u64 = 20;
const TICKS: u64 = 3_000;
const TOPICS: [&str; 4] = ["a", "b", "c", "d"];

/// A value of a topic; `None` is a removal.
type Value = Option<u64>;

/// The stream: the last message of each topic, and identifiers that were written.
#[derive(Default)]
struct Stream {
    last: u64,
    topics: BTreeMap<&'static str, (u64, Value)>,
    ids: BTreeMap<(usize, u64, u64), u64>,
}

/// The part of a node that its store keeps.
#[derive(Clone, Default)]
struct Disk {
    retained: BTreeMap<&'static str, Value>,
    applied: u64,
}

struct RetainedNode {
    life: u64,
    disk: Disk,
    positions: RetainedPositions,
    writes: RetainedWrites,
    sent: BTreeMap<u64, (&'static str, Value)>,
    next: u64,
    shown: BTreeMap<&'static str, (u64, Value)>,
    /// The follower delivers nothing before this time.
    reads_at: u64,
}

/// A write on its way to the stream, or an answer on its way back.
struct UnderWay {
    at: u64,
    node: usize,
    life: u64,
    number: u64,
    topic: &'static str,
    value: Value,
    is_lost: bool,
    answer: Option<WriteEnd>,
}

struct RetainedMail {
    at: u64,
    node: usize,
    topic: &'static str,
    sequence: u64,
    value: Value,
}

struct RetainedWorld {
    rng: Rng,
    now: u64,
    stream: Stream,
    stalls_until: u64,
    nodes: Vec<RetainedNode>,
    under_way: Vec<UnderWay>,
    mail: Vec<RetainedMail>,
    /// Whether a node takes each message that arrives, whatever its place is.
    takes_all: bool,
}

impl RetainedNode {
    fn on(disk: Disk, life: u64) -> Self {
        // What was read from the store is not compared: the stream brings what is later.
        let shown = disk.retained.iter().map(|(topic, value)| (*topic, (0, *value))).collect();
        Self {
            life,
            positions: RetainedPositions::after(Sequence(disk.applied)),
            disk,
            writes: RetainedWrites::default(),
            sent: BTreeMap::new(),
            next: 0,
            shown,
            reads_at: 0,
        }
    }

    fn show(&mut self, topic: &'static str, sequence: u64, value: Value) {
        let before = self.shown.insert(topic, (sequence, value));
        assert!(before.is_none_or(|(before, _)| before <= sequence), "{topic} went back");
    }
}

impl RetainedWorld {
    fn new(seed: u64, takes_all: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let nodes = (0..rng.usize(2..=5)).map(|_| RetainedNode::on(Disk::default(), 0)).collect();
        Self {
            rng,
            now: 0,
            stream: Stream::default(),
            stalls_until: 0,
            nodes,
            under_way: Vec::new(),
            mail: Vec::new(),
            takes_all,
        }
    }

    /// Plays with faults, and then without them until nothing is left to do.
    fn play(&mut self) {
        for tick in 0..2 * TICKS {
            self.now = tick * TICK;
            let is_calm = tick >= TICKS;
            if !is_calm {
                self.disturb();
                self.publish();
            }
            for node in 0..self.nodes.len() {
                self.drive(node, is_calm);
                self.read(node, is_calm);
            }
            self.deliver();
        }
    }

    fn disturb(&mut self) {
        if self.rng.u32(..400) == 0 {
            self.stalls_until = self.now + self.rng.u64(100..9_000);
        }
        if self.rng.u32(..300) == 0 {
            let node = self.rng.usize(..self.nodes.len());
            let (disk, life) = (self.nodes[node].disk.clone(), self.nodes[node].life + 1);
            self.nodes[node] = RetainedNode::on(disk, life);
        }
        if self.rng.u32(..100) == 0 {
            let node = self.rng.usize(..self.nodes.len());
            self.nodes[node].reads_at = self.now + self.rng.u64(..4_000);
        }
    }

    fn publish(&mut self) {
        if self.rng.u32(..4) > 0 {
            return;
        }
        let topic = TOPICS[self.rng.usize(..TOPICS.len())];
        let value = (self.rng.u32(..4) > 0).then(|| self.rng.u64(1..));
        let node = self.rng.usize(..self.nodes.len());
        let node = &mut self.nodes[node];
        node.next += 1;
        node.sent.insert(node.next, (topic, value));
        let write = StreamWrite {
            number: node.next,
            key: topic.into(),
            payload: Bytes::new(),
            kept_secs: None,
            is_first_join: false,
        };
        node.writes.push(write, Timestamp(self.now));
    }

    /// Lets a node send what is due, and take in outcomes.
    fn drive(&mut self, at: usize, is_calm: bool) {
        let node = &mut self.nodes[at];
        node.writes.handle_time(Timestamp(self.now));
        while let Some(write) = node.writes.poll_write(Timestamp(self.now)) {
            let is_lost = !is_calm && self.rng.u32(..10) == 0;
            let (life, number) = (node.life, write.number);
            let (topic, value) = node.sent[&number];
            self.under_way.push(UnderWay {
                at: self.now + self.rng.u64(..200),
                node: at,
                life,
                number,
                topic,
                value,
                is_lost,
                answer: None,
            });
        }
        while let Some((number, outcome)) = node.writes.poll_outcome() {
            let Some((topic, value)) = node.sent.remove(&number) else { continue };
            let WriteOutcome::Written(Sequence(sequence)) = outcome else { continue };
            self.take_directly(at, topic, sequence, value);
            let node = &self.nodes[at];
            assert!(
                node.shown.get(topic).is_some_and(|(shown, _)| *shown >= sequence)
                    || node.positions.applied().0 >= sequence
                    || self.takes_all,
                "it is acknowledged and not shown"
            );
            for other in (0..self.nodes.len()).filter(|other| *other != at) {
                // Some of it is lost: QoS 0, and nodes without a subscriber.
                if self.rng.u32(..3) > 0 {
                    let at = self.now + self.rng.u64(..3_000);
                    self.mail.push(RetainedMail { at, node: other, topic, sequence, value });
                }
            }
            return self.drive(at, is_calm);
        }
    }

    fn take_directly(&mut self, at: usize, topic: &'static str, sequence: u64, value: Value) {
        let node = &mut self.nodes[at];
        if self.takes_all {
            node.shown.insert(topic, (sequence, value));
        } else if node.positions.takes_directly(topic, Sequence(sequence)) {
            node.show(topic, sequence, value);
        }
    }

    /// Lets the follower of a node deliver some messages, and the store have them.
    fn read(&mut self, at: usize, is_calm: bool) {
        let node = &mut self.nodes[at];
        if !is_calm && self.now < node.reads_at {
            return;
        }
        for _ in 0..self.rng.usize(..4) {
            let applied = node.positions.applied().0;
            let behind = self.stream.topics.iter().filter(|(_, (sequence, _))| *sequence > applied);
            let next = behind.min_by_key(|(_, (at, _))| *at);
            let Some((&topic, &(sequence, value))) = next else { break };
            if node.positions.takes_replayed(topic, Sequence(sequence)) {
                if self.takes_all {
                    node.shown.insert(topic, (sequence, value));
                } else {
                    node.show(topic, sequence, value);
                }
            }
            // The store takes what is shown then, and the place behind it later.
            let shown = node.shown.get(topic).copied().unwrap_or_default();
            node.disk.retained.insert(topic, shown.1);
            if self.rng.bool() {
                node.disk.applied = node.positions.applied().0;
            }
        }
    }

    /// Lets writes reach the stream, answers their nodes, and mail the nodes it is for.
    fn deliver(&mut self) {
        let now = self.now;
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.under_way).into_iter().partition(|it| it.at <= now);
        self.under_way = rest;
        for mut it in due {
            let node = &mut self.nodes[it.node];
            if let Some(end) = it.answer {
                if node.life == it.life {
                    node.writes.handle_end(it.number, end, Timestamp(now));
                }
                continue;
            }
            let mut end = WriteEnd::Unknown;
            // Also after its node was restarted, or has given it up.
            if now >= self.stalls_until && !it.is_lost {
                let (topic, value) = (it.topic, it.value);
                let id = (it.node, it.life, it.number);
                let sequence = *self.stream.ids.entry(id).or_insert_with(|| {
                    self.stream.last += 1;
                    self.stream.topics.insert(topic, (self.stream.last, value));
                    self.stream.last
                });
                if self.rng.u32(..10) > 0 {
                    end = WriteEnd::Written(Sequence(sequence)); // Otherwise the answer is lost.
                }
            }
            it.at = now + if end == WriteEnd::Unknown { 2_000 } else { self.rng.u64(..200) };
            it.answer = Some(end);
            self.under_way.push(it);
        }
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.mail).into_iter().partition(|it| it.at <= now);
        self.mail = rest;
        for RetainedMail { node, topic, sequence, value, .. } in due {
            self.take_directly(node, topic, sequence, value);
        }
    }

    /// Returns whether all nodes have what the stream has.
    fn agrees(&self) -> bool {
        let stream: BTreeSet<_> = self
            .stream
            .topics
            .iter()
            .filter_map(|(topic, (_, it))| Some((*topic, (*it)?)))
            .collect();
        self.nodes.iter().all(|node| {
            let shown = node.shown.iter().filter_map(|(topic, (_, it))| Some((*topic, (*it)?)));
            shown.collect::<BTreeSet<_>>() == stream && node.writes.is_empty()
        })
    }
}

#[test]
fn all_nodes_have_the_same_retained_messages_in_the_end() {
    let count = number("HEARTHMQ_CLUSTER_SEEDS").unwrap_or(super::SEEDS);
    let first = number("HEARTHMQ_CLUSTER_SEED").unwrap_or(1);
    let mut written = 0;
    for seed in first..first + count {
        let mut world = RetainedWorld::new(seed, false);
        world.play();
        written += world.stream.last;
        assert!(world.agrees(), "seed {seed}: the nodes do not agree");
    }
    assert!(written > 1_000, "little was written: {written}");
}

#[test]
fn nodes_that_take_each_message_disagree() {
    let disagrees = |seed: &u64| {
        let mut world = RetainedWorld::new(*seed, true);
        world.play();
        !world.agrees()
    };
    assert!((0..20).any(|seed| disagrees(&seed)), "the check notices nothing");
}
