//! One round: the players, how often and when the broker is ended, and the result.
//!
//! The same seed gives the same plan and the same clients. It cannot repeat the timing of threads.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use fastrand::Rng;
use hearthmq::mqtt::{ProtocolVersion, QoS};

use super::{
    book::{Book, Counts, Event, Fault, Kind, Receiver},
    load::Load,
    publisher::{Habit, Publisher},
    stage::{Phase, Stage},
    subscriber::{Manner, Subscriber},
    wire::{Identity, Wire},
    witness,
};
use crate::program::{Place, Program};

/// What goes wrong in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The broker is usually killed, sometimes ended gracefully; now and then again while it
    /// starts.
    Kill,
    /// The broker ends gracefully.
    Terminate,
    /// Clients cut their connections, and the broker keeps running.
    CutConnections,
}

/// Silence after which missing messages count as lost; shorter if a fault was found already.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const SILENCE_MAX_OF_A_FAILURE: Duration = Duration::from_secs(1);
/// How long a graceful end may take.
const END_MAX: Duration = Duration::from_secs(120);
/// A Will Delay that outlasts every round, and no session ends before it.
const NEVER_SECS: u32 = 3_000;

/// The result of one or more rounds.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) counts: Counts,
    pub(crate) ends: u32,
    pub(crate) longest_start: Duration,
    pub(crate) faults: Vec<Fault>,
    /// Complaints in the logs of the brokers.
    pub(crate) log: Vec<String>,
}

/// How the broker is ended once, after this many acknowledgements.
struct Step {
    acknowledged: u64,
    gracefully: bool,
    /// Milliseconds after which its next starts are killed.
    again_after_ms: Vec<u64>,
}

fn plan(random: &mut Rng, trouble: Trouble, load: Load) -> Vec<Step> {
    let again = |random: &mut Rng| match trouble {
        Trouble::Kill if random.bool() => random.u8(1..3),
        Trouble::Kill | Trouble::Terminate | Trouble::CutConnections => 0,
    };
    let steps = (0..random.u8(1..4)).map(|_| Step {
        acknowledged: random.u64(1..load.acknowledged_max),
        gracefully: trouble != Trouble::Kill || random.u8(..6) == 0,
        again_after_ms: (0..again(random)).map(|_| random.u64(..300)).collect(),
    });
    steps.collect()
}

struct Round {
    place: Place,
    stage: Arc<Stage>,
    /// Index of the Will receiver in the book.
    heir: usize,
    program: Option<Program>,
    watchers: Vec<JoinHandle<()>>,
    testator: Option<Wire>,
    wills: u32,
    report: Report,
}

/// Plays the round of a seed with this value of `store.sync`.
pub(crate) fn play(seed: u64, trouble: Trouble, sync: &str, load: Load) -> Report {
    let mut random = Rng::with_seed(seed);
    let (mut receivers, groups) = receivers();
    let heir = receivers.len() - 1;
    let crowd = crowd(load.sessions);
    receivers.extend(crowd.iter().map(|(receiver, _)| receiver.clone()));
    let stage = Arc::new(Stage::new(Book::new(receivers), 5));
    let mut clients = Vec::new();
    for subscriber in subscribers(&stage, groups, heir, &mut random) {
        clients.push(thread::spawn(move || subscriber.play()));
    }
    for (at, (receiver, filter)) in crowd.into_iter().enumerate() {
        let mut subscriber = member_of_crowd(heir + 1 + at, receiver, filter, &stage);
        subscriber.random = random.fork();
        clients.push(thread::spawn(move || subscriber.play()));
    }
    for mut publisher in publishers(&stage, &mut random) {
        publisher.filling = load.filling;
        clients.push(thread::spawn(move || publisher.play()));
    }
    // A client may have many queued messages: none may be dropped for lack of room.
    let place = Place::new()
        .set("limits.queue_messages_per_client_max=1000000")
        .set("limits.queue_bytes_per_client_max=20000000000")
        .set("limits.queue_bytes_max=20000000000")
        .set("limits.stored_messages_per_user_max=1000000000")
        .set("limits.stored_bytes_per_user_max=20000000000")
        .set(format!("store.sync={sync}"));
    let mut round = Round {
        place,
        stage,
        heir,
        program: None,
        watchers: Vec::new(),
        testator: None,
        wills: 0,
        report: Report::default(),
    };
    round.start();
    for step in plan(&mut random, trouble, load) {
        round.stage.wait_for_acknowledged(step.acknowledged, load.time_max());
        if trouble == Trouble::CutConnections {
            round.cut_testator();
        } else {
            round.end(step.gracefully);
            step.again_after_ms.iter().for_each(|after| round.kill_while_starting(*after));
            round.start();
        }
    }
    round.stage.wait_for_acknowledged(random.u64(1..600), load.time_max());
    round.finish(clients)
}

impl Round {
    /// Starts the broker, inspects it, and admits the clients.
    fn start(&mut self) {
        let began = Instant::now();
        let program = self.place.start();
        self.report.longest_start = self.report.longest_start.max(began.elapsed());
        let address = program.address("mqtt");
        self.program = Some(program);
        witness::inspect_retained(&self.stage, address);
        self.watchers.push(witness::watch_versions(&self.stage, address));
        self.make_will(address);
        self.stage.enter(address);
    }

    fn make_will(&mut self, address: std::net::SocketAddr) {
        self.wills += 1;
        self.testator = Some(witness::leave_will(address, self.wills));
    }

    /// Notes that the client with the Will is about to disappear. The Will counts only if its
    /// receiver is connected.
    fn will_is_due(&self) {
        let (heir, will) = (self.heir, self.wills);
        self.stage.look(|book| {
            if book.is_subscribed(heir) {
                book.note(Event::WillDue { will });
            }
        });
    }

    fn cut_testator(&mut self) {
        self.will_is_due();
        self.testator = None;
        let address = self.program.as_ref().map(|program| program.address("mqtt"));
        self.make_will(address.unwrap());
    }

    fn end(&mut self, gracefully: bool) {
        let mut program = self.program.take().unwrap();
        self.will_is_due();
        self.stage.leave();
        if gracefully {
            program.signal("-TERM");
            let status = program.wait(END_MAX);
            assert!(status.success(), "{status}: {}", program.killed());
        }
        self.report.ends += 1;
        self.keep_log(&program.killed());
        self.testator = None;
        self.watchers.drain(..).for_each(|watcher| watcher.join().unwrap());
    }

    /// Starts the broker, and kills it when it listens or after this many milliseconds.
    fn kill_while_starting(&mut self, after_ms: u64) {
        let mut child = self.place.command().stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (listens, heard) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut lines = Vec::new();
            for line in log.lines().map_while(Result::ok) {
                if line.contains("listening on ") {
                    let _ = listens.send(()); // it may be too late already
                }
                lines.push(line);
            }
            lines.join("\n")
        });
        // Both outcomes are fine: it is killed wherever it happens to be.
        let _ = heard.recv_timeout(Duration::from_millis(after_ms));
        drop(child.kill());
        child.wait().unwrap();
        self.report.ends += 1;
        self.keep_log(&reader.join().unwrap());
    }

    fn keep_log(&mut self, log: &str) {
        let complaints = log.lines().filter(|line| line.contains("ERROR") || line.contains("WARN"));
        self.report.log.extend(complaints.take(5).map(str::to_owned));
    }

    /// Lets all players finish, and closes the book.
    fn finish(mut self, clients: Vec<JoinHandle<()>>) -> Report {
        self.stage.set_phase(Phase::Drain);
        self.stage.wait_until_settled(SILENCE_MAX, SILENCE_MAX_OF_A_FAILURE);
        self.stage.set_phase(Phase::Over);
        clients.into_iter().for_each(|client| client.join().unwrap());
        let program = self.program.as_mut().unwrap();
        witness::inspect_retained(&self.stage, program.address("mqtt"));
        self.watchers.drain(..).for_each(|watcher| watcher.join().unwrap());
        let log = program.killed();
        self.keep_log(&log);
        (self.report.counts, self.report.faults) = self.stage.look(Book::close);
        self.report
    }
}

const ALL: &str = "load/#";
/// Number of publishers to it.
const LOADERS: usize = 4;
const GROUP: &str = "$share/group/load/#";
const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
const V5: ProtocolVersion = ProtocolVersion::V5;

/// A receiver outside the group: name, version, QoS, manner, Receive Maximum.
type Alone = (&'static str, ProtocolVersion, QoS, Manner, Option<u16>);

const ALONE: [Alone; 6] = [
    ("steady-5-2", V5, QoS::ExactlyOnce, Manner::Steady, None),
    ("steady-3-1", V3, QoS::AtLeastOnce, Manner::Steady, None),
    ("restless-3-2", V3, QoS::ExactlyOnce, Manner::Restless, None),
    ("restless-5-1", V5, QoS::AtLeastOnce, Manner::Restless, None),
    ("forgetful-5-1", V5, QoS::AtLeastOnce, Manner::Forgetful, None),
    ("slow-5-2", V5, QoS::ExactlyOnce, Manner::Slow, Some(5)),
];

/// Returns all receivers, the one for Wills last, and the index of the group.
fn receivers() -> (Vec<Receiver>, usize) {
    let mut all: Vec<Receiver> = ALONE
        .iter()
        .map(|(name, _, qos, ..)| Receiver { name, qos: *qos, kind: Kind::Client })
        .collect();
    let group = all.len();
    all.push(Receiver { name: "group", qos: QoS::ExactlyOnce, kind: Kind::Group });
    all.push(Receiver { name: "heir", qos: QoS::AtLeastOnce, kind: Kind::Heir });
    (all, group)
}

/// Returns a durable client; with MQTT 5.0 it has a Will that must never be published.
fn durable(name: &str, version: ProtocolVersion) -> Identity {
    let mut identity = Identity::durable(name, version);
    if version == V5 {
        identity.will = Some((format!("will/never/{name}"), "0".to_owned(), NEVER_SECS));
    }
    identity
}

fn subscribers(stage: &Arc<Stage>, group: usize, heir: usize, random: &mut Rng) -> Vec<Subscriber> {
    let mut all = Vec::new();
    for (place, (name, version, qos, manner, receive_maximum)) in ALONE.into_iter().enumerate() {
        let mut identity = Identity { receive_maximum, ..durable(name, version) };
        if manner == Manner::Forgetful {
            identity.will = None; // The end of a session publishes its Will. [MQTT-3.1.2-8]
        }
        let mut subscriber = Subscriber::new(place, identity, ALL, qos, stage.clone());
        subscriber.manner = manner;
        all.push(subscriber);
    }
    for (name, manner) in [
        ("member-1", Manner::Steady),
        ("member-2", Manner::Restless),
        ("member-3", Manner::Restless),
    ] {
        let identity = durable(name, V5);
        let qos = QoS::ExactlyOnce;
        let mut member = Subscriber::new(group, identity, GROUP, qos, stage.clone());
        member.manner = manner;
        all.push(member);
    }
    let identity = durable("heir", V5);
    all.push(Subscriber::new(heir, identity, "will/#", QoS::AtLeastOnce, stage.clone()));
    all.iter_mut().for_each(|subscriber| subscriber.random = random.fork());
    all
}

/// Returns durable receivers of the messages of one publisher each, and their filters.
fn crowd(sessions: usize) -> Vec<(Receiver, &'static str)> {
    let one = |number: usize| {
        let of = number % LOADERS;
        let qos = if number.is_multiple_of(3) { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        let name = format!("crowd-{number}").leak();
        let filter = format!("load/{of}").leak();
        (Receiver { name, qos, kind: Kind::ClientOf(of) }, &*filter)
    };
    (0..sessions).map(one).collect()
}

fn member_of_crowd(
    place: usize,
    Receiver { name, qos, .. }: Receiver,
    filter: &'static str,
    stage: &Arc<Stage>,
) -> Subscriber {
    let version = if place.is_multiple_of(2) { V5 } else { V3 };
    let identity = Identity::durable(name, version);
    let mut subscriber = Subscriber::new(place, identity, filter, qos, stage.clone());
    subscriber.manner = Manner::Absent;
    subscriber
}

fn publishers(stage: &Arc<Stage>, random: &mut Rng) -> Vec<Publisher> {
    let all = [
        ("publisher-5", V5, Habit::Load(None)),
        ("publisher-3", V3, Habit::Load(None)),
        ("publisher-5-1", V5, Habit::Load(Some(QoS::AtLeastOnce))),
        ("publisher-3-2", V3, Habit::Load(Some(QoS::ExactlyOnce))),
        ("keeper", V5, Habit::Keep),
    ];
    let all = all.into_iter().enumerate().map(|(index, (name, version, habit))| {
        let mut publisher = Publisher::new(index, durable(name, version), habit, stage.clone());
        publisher.window = random.usize(1..40);
        publisher.is_restless = random.bool();
        publisher.random = random.fork();
        publisher
    });
    all.collect()
}
