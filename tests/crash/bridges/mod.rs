//! A bridge between two brokers under load loses nothing that was acknowledged: either side is killed at
//! any moment and started again on its data, and the connection between them is cut.
//!
//!     HEARTHMQ_CRASH_BRIDGE_ROUNDS=50 cargo test --release --test crash -- --nocapture bridges::
//!     HEARTHMQ_CRASH_BRIDGE_SEED=17 HEARTHMQ_CRASH_BRIDGE_ROUNDS=1 …      # round 17
//!
//! Publishers on both sides send numbered messages of QoS 1 and 2 to topics that the bridge takes to the
//! other side, where a durable subscriber waits. Every acknowledged message arrives there, one of QoS 2
//! once, and the messages of one publisher to one topic in their order.
//!
//! The same seed gives the same plan. It cannot repeat the timing of threads.

mod ledger;
mod link;
mod players;
mod sides;

use std::{
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use fastrand::Rng;
use hearthmq::mqtt::ProtocolVersion::{V3_1_1, V5};
use hearthmq_test::skipped::not_installed;

use self::{
    ledger::{Counts, Direction},
    link::Link,
    players::{LOOK_EVERY, Phase, Receiver, Sender, Stage},
    sides::{Far, HearthMq, Kind},
};
use crate::{number, wire::PATIENCE};

/// Rounds unless the environment sets it.
const ROUNDS: u64 = 3;
/// Troubles of a round, at most.
const TROUBLES_MAX: usize = 5;
/// Acknowledgements between two troubles, at most.
const ACKNOWLEDGED_MAX: u64 = 1_200;
/// How long as many take at most.
const LOAD_TIME_MAX: Duration = Duration::from_secs(3);
/// Silence after everything has arrived, in which nothing may come twice.
const SILENCE: Duration = Duration::from_millis(500);
/// Silence after which missing messages count as lost.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// Faults and lines of logs that are printed for a round.
const TOLD_MAX: usize = 12;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    KillNear,
    KillFar,
    KillBoth,
    Cut,
}

impl Trouble {
    fn draw(random: &mut Rng, kind: Kind) -> Self {
        let all = [Self::KillNear, Self::Cut, Self::KillFar, Self::KillBoth];
        let count = if kind == Kind::HearthMq { 4 } else { 2 };
        all[random.usize(..count)]
    }
}

struct Round {
    stage: Arc<Stage>,
    link: Link,
    near: HearthMq,
    far: Far,
    troubles: u32,
}

/// What came of a round.
struct Report {
    counts: Counts,
    troubles: u32,
    connections: u32,
    faults: Vec<String>,
}

/// Plays the round of a seed.
fn play(seed: u64, kind: Kind) -> Report {
    let mut random = Rng::with_seed(seed);
    let stage = Arc::<Stage>::default();
    let link = Link::start(if kind == Kind::HearthMq { V5 } else { V3_1_1 }, &stage);
    let near = sides::near(&link, kind);
    let mut round = Round { stage, link, near, far: Far::new(kind), troubles: 0 };
    let address = round.far.start();
    round.link.lead_to(address);
    round.near.start();
    let receivers = round.receivers();
    round.wait_until_it_carries();
    let senders = round.senders();
    for _ in 0..random.usize(2..=TROUBLES_MAX) {
        round.load(random.u64(1..ACKNOWLEDGED_MAX));
        let trouble = Trouble::draw(&mut random, kind);
        round.trouble(trouble, Duration::from_millis(random.u64(..600)));
    }
    round.load(random.u64(1..ACKNOWLEDGED_MAX));
    round.finish(senders, receivers)
}

impl Round {
    fn doors(&self, direction: Direction) -> [&Arc<players::Door>; 2] {
        let (near, far) = (&self.near.door, self.far.door());
        match direction {
            Direction::Out => [near, far],
            Direction::In => [far, near],
        }
    }

    fn receivers(&self) -> Vec<JoinHandle<()>> {
        let start = |direction| {
            let [_, there] = self.doors(direction);
            let receiver = Receiver::new(direction, there, &self.stage);
            thread::spawn(move || receiver.play())
        };
        Direction::BOTH.map(start).into()
    }

    fn senders(&self) -> Vec<JoinHandle<()>> {
        let mut senders = Vec::new();
        for direction in Direction::BOTH {
            for (index, version) in [V5, V3_1_1].into_iter().enumerate() {
                let [here, _] = self.doors(direction);
                let sender = Sender::new(direction, index, version, here, &self.stage);
                senders.push(thread::spawn(move || sender.play()));
            }
        }
        senders
    }

    /// Waits until the bridge is connected and has its subscriptions, and so have the receivers: before
    /// that, a broker has no session to keep a message for.
    fn wait_until_it_carries(&self) {
        let until = Instant::now() + PATIENCE;
        while self.stage.subscribed.load(Ordering::SeqCst) < 2 || !self.near.is_bridge_up() {
            assert!(Instant::now() < until, "the bridge does not connect: {:#?}", self.near.log());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for as many acknowledgements.
    fn load(&self, acknowledged: u64) {
        let (until, goal) =
            (Instant::now() + LOAD_TIME_MAX, self.stage.ledger.count_of_acknowledged());
        let goal = goal + acknowledged;
        while self.stage.ledger.count_of_acknowledged() < goal && Instant::now() < until {
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Makes a trouble that lasts this long.
    fn trouble(&mut self, trouble: Trouble, lasts: Duration) {
        self.troubles += 1;
        let (near, far) = match trouble {
            Trouble::KillNear => (true, false),
            Trouble::KillFar => (false, true),
            Trouble::KillBoth => (true, true),
            Trouble::Cut => (false, false),
        };
        if near {
            self.near.kill();
        }
        if far {
            self.far.kill();
        }
        if far || trouble == Trouble::Cut {
            self.link.cut();
        }
        thread::sleep(lasts);
        if far {
            let address = self.far.start();
            self.link.lead_to(address);
        } else if trouble == Trouble::Cut {
            self.link.lead_to(self.far.address());
        }
        if near {
            self.near.start();
        }
    }

    /// Lets everything arrive, and closes the ledger.
    fn finish(mut self, senders: Vec<JoinHandle<()>>, receivers: Vec<JoinHandle<()>>) -> Report {
        let ledger = &self.stage.ledger;
        self.stage.enter(Phase::Drain);
        let began = Instant::now();
        loop {
            let is_sent = senders.iter().all(JoinHandle::is_finished);
            let last = ledger.last_arrival().map_or(began, |last| last.max(began));
            let is_complete = is_sent && ledger.is_settled();
            if last.elapsed() > if is_complete { SILENCE } else { SILENCE_MAX } {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        self.stage.enter(Phase::Over);
        for player in senders.into_iter().chain(receivers) {
            player.join().unwrap();
        }
        let (counts, mut faults) = self.stage.ledger.close();
        self.near.kill();
        self.far.kill();
        if !faults.is_empty() {
            for (side, log) in [("near", self.near.log()), ("far", self.far.log())] {
                faults.extend(log.iter().take(TOLD_MAX).map(|line| format!("{side}: {line}")));
            }
        }
        Report { counts, troubles: self.troubles, connections: self.link.count(), faults }
    }
}

/// Plays rounds one after another, prints what came of them, and fails if a promise was broken.
fn rounds(kind: Kind) {
    if !kind.is_installed() {
        not_installed("mosquitto");
        return;
    }
    let first = number("HEARTHMQ_CRASH_BRIDGE_SEED").unwrap_or(1);
    let count = number("HEARTHMQ_CRASH_BRIDGE_ROUNDS").unwrap_or(ROUNDS);
    let (mut counts, mut troubles, mut connections) = (Counts::default(), 0, 0);
    let mut failed = Vec::new();
    for seed in first..first + count {
        let report = play(seed, kind);
        counts.add(report.counts);
        troubles += report.troubles;
        connections += report.connections;
        if !report.faults.is_empty() {
            failed.push(seed);
            eprintln!("round {seed}: {}", report.counts);
            report.faults.iter().for_each(|fault| eprintln!("  {fault}"));
        }
    }
    eprintln!(
        "bridge to {kind:?}: {count} rounds, {troubles} troubles, {connections} connections; {counts}"
    );
    assert!(failed.is_empty(), "promises were broken in the rounds of seeds {failed:?}, see above");
    // Without any load no promise could be broken.
    assert!(counts.arrived > count * 100, "{counts}");
}

#[test]
fn a_bridge_to_hearthmq_loses_nothing_when_either_side_is_killed() {
    rounds(Kind::HearthMq);
}

#[test]
fn a_bridge_to_mosquitto_loses_nothing_when_it_is_killed_or_cut_off() {
    rounds(Kind::Mosquitto);
}
