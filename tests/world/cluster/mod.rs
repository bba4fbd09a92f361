//! A simulated cluster: 2 to 5 nodes, a stand-in for NATS, clients that move between nodes, and what goes
//! wrong, on one virtual clock. The nodes run the parts of `cluster` as they are; the stand-in for their
//! shards is `shard.rs`.
//!
//! ```text
//! HEARTHMQ_CLUSTER_SEEDS=100 cargo test --release --features cluster --test world -- --nocapture clusters
//! HEARTHMQ_CLUSTER_SEED=17 …        begins with this seed
//! HEARTHMQ_CLUSTER_STEPS=100000 …   worlds in which something goes wrong for this number of turns
//! HEARTHMQ_CLUSTER_WHOLE=1 …        tells the whole dialogue, without a search for fewer faults
//! ```
//!
//! A world that fails prints its seed and the fewest faults found with which it fails in the same way.

mod checks;
mod clients;
mod faults;
mod io;
mod nats;
mod node;
mod retained;
mod shard;

use std::collections::BTreeMap;

use hearthmq::internals::cluster::{
    members::{MemberRecord, MemberStanding},
    names::{ClientKey, NodeId},
    wire,
};

use self::{
    clients::Client,
    faults::Fault,
    io::{Event, Io, START, TICK},
    node::{Broken, Node, node_id},
};
use crate::{kind, number, say, shrink::shrink};

/// Time in which something goes wrong, in an ordinary run.
const TROUBLE_MILLIS: u64 = 120_000;
/// Time after that, until everything must be well again.
const PEACE_MILLIS: u64 = 90_000;
/// Number of worlds of an ordinary run.
const SEEDS: u64 = 24;

/// What a world begins with.
#[derive(Clone, Copy)]
struct Setting {
    seed: u64,
    /// Time in which something goes wrong.
    trouble: u64,
    broken: Broken,
    /// Nothing goes wrong, so messages keep their order.
    is_calm: bool,
    /// Whether it keeps the dialogue.
    tells: bool,
}

impl Setting {
    fn new(seed: u64) -> Self {
        let broken = Broken::default();
        Self { seed, trouble: TROUBLE_MILLIS, broken, is_calm: false, tells: false }
    }

    const fn nodes(&self) -> usize {
        2 + (self.seed % 4) as usize
    }

    fn faults(&self) -> Vec<Fault> {
        faults::plan(self.seed, self.nodes(), self.trouble)
    }
}

struct Played {
    violation: Option<String>,
    tally: BTreeMap<&'static str, u64>,
    story: Vec<String>,
    turns: u64,
}

struct World {
    nodes: Vec<Node>,
    clients: Vec<Client>,
    io: Io,
}

impl World {
    fn new(setting: Setting) -> Self {
        let Setting { seed, trouble, broken, is_calm, tells } = setting;
        let count = setting.nodes();
        let mut io = Io::new(seed, count, is_calm);
        io.checks.tells = tells;
        io.checks.checks_order = is_calm;
        let mut nodes: Vec<Node> =
            (0..count).map(|index| Node::new(index, io.rng.u64(0..5_000), broken)).collect();
        for node in &mut nodes {
            node.start(&mut io);
        }
        let leaves_at = (seed % 2 == 1).then(|| START + trouble - 20_000);
        let restless = if seed % 3 == 0 { 0.012 } else { 0.004 };
        let clients = 2 + (seed / 4 % 3) as usize;
        let leaves = |at: usize| leaves_at.filter(|_| at == 1);
        let clients = (0..clients).map(|at| Client::new(at, leaves(at), restless)).collect();
        Self { nodes, clients, io }
    }

    fn turn(&mut self) {
        self.io.now += TICK;
        for request in self.io.nats.poll_held(self.io.now, &mut self.io.rng) {
            let (node, life, token) = (request.node, request.life, request.token);
            let reply = self.io.nats.make(request.what);
            self.io.reply(node, life, token, reply);
        }
        while let Some(event) = self.io.poll_event() {
            self.take(event);
        }
        self.check_verdicts();
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        self.io.rng.shuffle(&mut order);
        for index in order {
            self.nodes[index].turn(&mut self.io);
        }
        for at in 0..self.clients.len() {
            let others = self.clients.iter().filter(|other| other.number != at);
            let others: Vec<ClientKey> = others.map(|other| other.key).collect();
            self.clients[at].turn(&mut self.io, &self.nodes, &others);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Arrives(request) => self.io.arrived(request),
            Event::ToNode { node, life, input } => self.nodes[node].receive(life, input),
            Event::Start(node) => {
                if !self.nodes[node].is_up {
                    self.nodes[node].start(&mut self.io);
                }
            }
            Event::Connected(node) => self.io.reaches[node] = true,
            Event::Joined(one, other) => {
                self.io.cut.remove(&(one, other));
            }
            Event::Fast(node) => {
                self.io.slow.remove(&node);
            }
            Event::Feed { key, version, is_online, life } => {
                self.io.checks.feed(key, version, is_online, life);
            }
        }
    }

    /// No node is declared dead while it may hold that it lives.
    fn check_verdicts(&mut self) {
        for (name, value) in std::mem::take(&mut self.io.nats.members_written) {
            let record: MemberRecord = wire::decode(&value).expect("a record of the world");
            let index = self.nodes.iter().position(|node| node_id(node.index) == named(&name));
            let node = &self.nodes[index.expect("a node of the world")];
            let is_it = node.life() == record.incarnation.0 && node.is_up;
            if record.standing != MemberStanding::Dead {
                continue;
            }
            self.io.tell(format!("{name} is declared dead in life {}", record.incarnation.0));
            self.io.checks.count("verdicts");
            if is_it && node.holds_a_lease(&self.io) {
                let at = format!("verdict: {name} is declared dead while it holds a lease");
                self.io.checks.fail(at);
            }
        }
    }

    /// What must be so at the end.
    fn check_end(&mut self) {
        let lost = self.io.checks.published.iter().find_map(|(message, published)| {
            let client = self.clients.iter().find(|client| client.key == published.to)?;
            let acked_at = published.acked_at?;
            let is_due = client.subscribed_at.is_some_and(|at| at < acked_at) && !client.has_left;
            let in_doubt = |id| self.io.checks.names.get(id) == Some(message);
            let is_lost = published.delivered == 0 && is_due;
            (is_lost && !self.io.checks.in_doubt.iter().any(in_doubt))
                .then(|| format!("loss: {:?} message {message} to {}", published.qos, published.to))
        });
        if let Some(lost) = lost {
            self.io.checks.fail(lost);
        }
        for client in &self.clients {
            let (key, presence) = (client.key, self.io.checks.presence(client.key));
            if client.has_left {
                if presence.is_some_and(|(is_online, _)| is_online) {
                    self.io.checks.fail(format!("presence: {key} has left and is online"));
                }
                continue;
            }
            if !client.is_connected(&self.io) {
                self.io.checks.fail(format!("liveness: {key} cannot connect"));
                continue;
            }
            let socket = client.socket.expect("a connection");
            let node = self.io.sockets[socket].node;
            let expected = (true, (node, self.nodes[node].life()));
            if presence != Some(expected) {
                let what = format!("presence: {key} is {presence:?}, expected {expected:?}");
                self.io.checks.fail(what);
            }
        }
    }
}

fn named(name: &str) -> NodeId {
    NodeId::new(name).expect("a node of the world")
}

fn play(setting: Setting, faults: &[Fault]) -> Played {
    let mut world = World::new(setting);
    let mut faults = faults.iter().peekable();
    let mut turns = 0;
    while world.io.now < START + setting.trouble + PEACE_MILLIS {
        turns += 1;
        world.io.is_quiet = world.io.now >= START + setting.trouble;
        while let Some(fault) = faults.next_if(|fault| START + fault.at <= world.io.now) {
            faults::begin(*fault, &mut world.nodes, &mut world.io);
        }
        world.turn();
        if world.io.checks.violation.is_some() {
            break;
        }
    }
    if world.io.checks.violation.is_none() {
        world.check_end();
    }
    let checks = world.io.checks;
    Played { violation: checks.violation, tally: checks.tally, story: checks.story, turns }
}

/// Fails with the fewest faults that fail in the same way.
fn report(setting: Setting, faults: Vec<Fault>, what: &str) -> ! {
    let seed = setting.seed;
    say(&format!("cluster seed {seed}: {what}; looking for fewer faults"));
    let is_it = |faults: &[Fault]| {
        let other = play(setting, faults).violation;
        other.is_some_and(|other| kind(&other) == kind(what))
    };
    let fewest = match number("HEARTHMQ_CLUSTER_WHOLE") {
        Some(_) => faults,
        None => shrink(faults, is_it),
    };
    let played = play(Setting { tells: true, ..setting }, &fewest);
    for line in &played.story {
        say(line);
    }
    panic!("cluster seed {seed} with {fewest:?}: {:?}", played.violation);
}

#[test]
fn random_clusters_keep_their_promises() {
    let count = number("HEARTHMQ_CLUSTER_SEEDS").unwrap_or(SEEDS);
    let first = number("HEARTHMQ_CLUSTER_SEED").unwrap_or(1);
    let trouble = number("HEARTHMQ_CLUSTER_STEPS").map_or(TROUBLE_MILLIS, |steps| steps * TICK);
    let (mut tally, mut turns) = (BTreeMap::<&str, u64>::new(), 0);
    for seed in first..first + count {
        let setting = Setting { trouble, ..Setting::new(seed) };
        let faults = setting.faults();
        let played = play(setting, &faults);
        if let Some(what) = played.violation {
            report(setting, faults, &what);
        }
        turns += played.turns;
        for (what, times) in played.tally {
            *tally.entry(what).or_default() += times;
        }
    }
    say(&format!("clusters {first} and on, {count} worlds, {turns} turns"));
    for (what, times) in &tally {
        say(&format!("{times:>10}  {what}"));
    }
}

#[test]
fn without_faults_messages_keep_their_order_while_clients_move() {
    for seed in 1..9 {
        let played = play(Setting { is_calm: true, ..Setting::new(seed) }, &[]);
        assert_eq!(played.violation, None, "seed {seed}");
    }
}

#[test]
fn the_same_cluster_seed_is_the_same_cluster() {
    let setting = Setting::new(3);
    let faults = setting.faults();
    assert_eq!(play(setting, &faults).tally, play(setting, &faults).tally);
}

/// Returns the first world that notices what is broken, and what it notices.
fn noticed(broken: Broken, seeds: u64) -> Option<(u64, String)> {
    (1..=seeds).find_map(|seed| {
        let setting = Setting { broken, ..Setting::new(seed) };
        Some((seed, play(setting, &setting.faults()).violation?))
    })
}

#[test]
fn each_part_that_is_broken_is_noticed() {
    let whole = Broken::default();
    let parts = [
        ("fencing", Broken { fencing: true, ..whole }),
        ("confirmation", Broken { confirmation: true, ..whole }),
        ("storing", Broken { storing: true, ..whole }),
        ("withdrawal", Broken { withdrawal: true, ..whole }),
        ("owed", Broken { owed: true, ..whole }),
    ];
    for (part, broken) in parts {
        let found = noticed(broken, 150);
        say(&format!("without {part}: {found:?}"));
        assert!(found.is_some(), "no world notices that {part} is broken");
    }
}
