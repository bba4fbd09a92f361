//! The program is killed while it sends webhooks of clients that come and go, and the endpoint fails
//! now and then: every change is delivered at least once, in the order of each client, or is covered
//! by `reset` as `docs/events.md` says.
//!
//!     HEARTHMQ_CRASH_REST_ROUNDS=20 cargo test --release --test crash -- --nocapture webhooks::
//!
//! The same seed gives the same plan. It cannot repeat the timing of threads.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use hearthmq::mqtt::ProtocolVersion::{V3_1_1, V5};
use hearthmq_test::receiver::{Call, Receiver};

use crate::{
    book::Known,
    follower::{Delivered, Follower},
    number,
    program::{Place, Program},
    wire::{Identity, PATIENCE, Wire},
};

/// Rounds unless the environment sets it.
const ROUNDS: u64 = 3;
const CLIENTS: usize = 12;
/// Runs of the program in a round.
const LIVES: usize = 4;
/// Changes that clients make before the program is killed, at most.
const CHANGES_MAX: usize = 300;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// How often a thread that waits looks whether it should go on.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the endpoint does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Applies it, and says so.
    Takes,
    /// Applies it; its answer is lost.
    IsCutOff,
    /// Says that it has failed.
    Fails,
    /// Closes the connection, as a machine that is gone does.
    IsGone,
}

/// The endpoint: it applies messages to a [`Follower`].
struct Endpoint {
    address: SocketAddr,
    follower: Arc<Mutex<Follower>>,
    /// Whether it takes each message, or none.
    is_well: Arc<AtomicBool>,
    is_away: Arc<AtomicBool>,
    fault: Arc<Mutex<Option<String>>>,
}

impl Endpoint {
    fn start(mut random: Rng) -> Self {
        let receiver = Receiver::start();
        let endpoint = Self {
            address: receiver.address,
            follower: Arc::default(),
            is_well: Arc::default(),
            is_away: Arc::default(),
            fault: Arc::default(),
        };
        let (follower, fault) = (Arc::clone(&endpoint.follower), Arc::clone(&endpoint.fault));
        let is_away = Arc::clone(&endpoint.is_away);
        let is_well = Arc::downgrade(&endpoint.is_well);
        thread::spawn(move || {
            let mut last = Manner::Takes;
            // It ends with its endpoint.
            while let Some(is_well) = is_well.upgrade() {
                let Some(call) = receiver.next_within(LOOK_EVERY) else { continue };
                // A second failure in a row takes seconds of waiting, and shows nothing new.
                let manner = match random.u8(..16) {
                    _ if is_away.load(Ordering::Relaxed) => Manner::IsGone,
                    _ if last != Manner::Takes || is_well.load(Ordering::Relaxed) => Manner::Takes,
                    0 => Manner::Fails,
                    1 => Manner::IsGone,
                    2 => Manner::IsCutOff,
                    _ => Manner::Takes,
                };
                last = manner;
                if let Err(why) = take(call, manner, &follower) {
                    fault.lock().unwrap().get_or_insert(why);
                }
            }
        });
        endpoint
    }

    /// Waits until what the endpoint knows is so.
    fn wait_for(&self, what: &str, is_so: impl Fn(&Follower) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so(&self.follower.lock().unwrap()) {
            self.assert_no_fault();
            let is_late = Instant::now() >= until;
            assert!(!is_late, "not so: {what}");
            thread::sleep(LOOK_EVERY);
        }
        self.assert_no_fault();
    }

    fn assert_no_fault(&self) {
        let fault = self.fault.lock().unwrap().clone();
        assert_eq!(fault, None);
    }
}

fn take(call: Call, manner: Manner, follower: &Mutex<Follower>) -> Result<(), String> {
    let outcome = match manner {
        Manner::Takes | Manner::IsCutOff => follower.lock().unwrap().apply(&call.json()),
        Manner::Fails | Manner::IsGone => Ok(()),
    };
    match manner {
        Manner::Takes => call.answer("204 No Content"),
        Manner::Fails => call.answer("500 Broken"),
        Manner::IsCutOff | Manner::IsGone => drop(call),
    }
    outcome
}

/// Clients that come and go until the program is killed.
struct Crowd {
    is_over: AtomicBool,
    /// They stop after this many changes, so that the endpoint can keep up.
    changes_max: usize,
    /// Connects, ends and takeovers so far.
    changes: AtomicUsize,
}

/// Ends the visits when it is dropped, also by a test that fails.
struct Closing<'a>(&'a Crowd);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// What one client has done: how often it was connected, and the connection that it has.
struct Visits {
    connections: usize,
    wire: Option<Wire>,
}

impl Crowd {
    /// Plays one client until the end of the load, or of the program.
    fn play(&self, address: SocketAddr, name: &str, mut random: Rng) -> Visits {
        let mut visits = Visits { connections: 0, wire: None };
        let goes_on = || {
            !self.is_over.load(Ordering::Relaxed)
                && self.changes.load(Ordering::Relaxed) < self.changes_max
        };
        while goes_on() {
            if self.visit(address, name, &mut random, &mut visits).is_err() {
                break; // the program was killed
            }
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        visits
    }

    fn visit(
        &self,
        address: SocketAddr,
        name: &str,
        random: &mut Rng,
        visits: &mut Visits,
    ) -> std::io::Result<()> {
        match (random.u8(..8), visits.wire.take()) {
            (0..3, Some(wire)) => wire.take_leave(),
            (3..6, Some(wire)) => {
                drop(wire); // the line breaks
                Ok(())
            }
            // A takeover, if there was a connection.
            (_, former) => {
                let version = if random.bool() { V5 } else { V3_1_1 };
                let is_durable = random.bool();
                let clean_start = !is_durable;
                let identity = Identity::durable(name, version);
                let identity = Identity { is_durable, clean_start, ..identity };
                let (wire, _) = Wire::open(address, &identity, &mut { Known::Never })?;
                visits.connections += 1;
                visits.wire = Some(wire);
                drop(former);
                Ok(())
            }
        }
    }
}

fn client_id(client: usize) -> String {
    format!("client-{client}")
}

/// Lets clients come and go until there were this many changes; then does `end`. Returns how often
/// each was connected, with its connection if it has one.
fn load<T>(
    program: &mut Program,
    changes: usize,
    random: &mut Rng,
    end: impl FnOnce(&mut Program) -> T,
) -> (Vec<Visits>, T) {
    let address = program.address("mqtt");
    let crowd = Crowd {
        is_over: AtomicBool::new(false),
        changes_max: changes + CHANGES_MAX,
        changes: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        let players: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (crowd, random) = (&crowd, random.fork());
                scope.spawn(move || crowd.play(address, &client_id(client), random))
            })
            .collect();
        let closing = Closing(&crowd);
        let until = Instant::now() + PATIENCE;
        while crowd.changes.load(Ordering::Relaxed) < changes {
            assert!(Instant::now() < until, "clients cannot connect: {:#?}", program.logged());
            thread::sleep(LOOK_EVERY);
        }
        let outcome = end(program);
        drop(closing);
        (players.into_iter().map(|player| player.join().unwrap()).collect(), outcome)
    })
}

/// Connects a client, and waits until the endpoint knows. It knows all changes before this one then.
fn wait_for_sentinel(program: &Program, endpoint: &Endpoint, life: usize) -> Wire {
    let name = sentinel(life);
    let identity = Identity::durable(&*name, V5);
    let opened = Wire::open(program.address("mqtt"), &identity, &mut { Known::Never });
    let (wire, _) = opened.unwrap();
    endpoint.wait_for("the sentinel is online", |follower| follower.is_online(&name));
    wire
}

/// Returns the name of a client that connects in this life alone.
fn sentinel(life: usize) -> String {
    format!("sentinel-{life}")
}

/// A round: the endpoint and the program, and what is owed.
struct Round {
    endpoint: Endpoint,
    place: Place,
    random: Rng,
    /// Connections of all clients so far.
    connections: usize,
    /// Changes that were stored for the endpoint when the program was killed while the endpoint was away:
    /// they must come later.
    owed: usize,
}

impl Round {
    fn begin(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let endpoint = Endpoint::start(random.fork());
        let place = Place::new();
        let file = place.path("hearthmq.toml");
        let text = fs::read_to_string(&file).unwrap();
        let webhook = format!(
            "[[webhook]]\nname = \"fleet\"\nurl = \"http://{}/\"\nsecrets = [\"{SECRET}\"]\n\
             batch_events_max = {}\ndelay_ms = {}\n",
            endpoint.address,
            random.u16(1..20),
            random.u16(..100),
        );
        fs::write(&file, format!("{text}\n{webhook}")).unwrap();
        Self { endpoint, place, random, connections: 0, owed: 0 }
    }

    /// Starts the program and kills it in the middle of the load.
    fn live(&mut self, life: usize) {
        // The endpoint does not answer in one life. In some others, all changes up to a moment are
        // known, and the kill comes behind it.
        let is_away = life == 1;
        let asks_first = !is_away && self.random.bool();
        self.endpoint.is_away.store(is_away, Ordering::Relaxed);
        let mut program = self.place.start();
        let changes = self.random.usize(1..CHANGES_MAX);
        let later = Duration::from_micros(self.random.u64(..50_000));
        let endpoint = &self.endpoint;
        let (visits, stored) = load(&mut program, changes, &mut self.random, |program| {
            let _sentinel = asks_first.then(|| wait_for_sentinel(program, endpoint, life));
            thread::sleep(later); // a random moment; nothing is waited for
            let stored = if is_away { wait_for_stored(program) } else { 0 };
            program.killed();
            stored
        });
        self.endpoint.assert_no_fault();
        if is_away {
            self.owed = stored;
            self.endpoint.follower.lock().unwrap().late.clear();
        }
        let sentinels = usize::from(asks_first);
        self.connections += sentinels;
        self.connections += visits.iter().map(|visits| visits.connections).sum::<usize>();
    }

    /// Starts the program once more, and compares what the endpoint knows in the end. Returns what was
    /// delivered, and how many connections were not, because the program was killed before it had
    /// stored them.
    fn finish(mut self) -> (Delivered, usize) {
        self.endpoint.is_away.store(false, Ordering::Relaxed);
        let mut program = self.place.start();
        let changes = self.random.usize(1..CHANGES_MAX);
        let (visits, ()) = load(&mut program, changes, &mut self.random, |_| ());
        compare(&program, &self.endpoint, &visits);
        let follower = self.endpoint.follower.lock().unwrap();
        let late = follower.late.len();
        assert!(late >= self.owed, "{} changes were stored, and {late} have come", self.owed);
        let made = self.connections + 1; // the sentinel
        let made = made + visits.iter().map(|visits| visits.connections).sum::<usize>();
        (follower.delivered, made - follower.all_connections())
    }
}

/// Waits until some changes are stored that the endpoint has not taken; returns how many.
fn wait_for_stored(program: &Program) -> usize {
    let until = Instant::now() + PATIENCE;
    loop {
        let metrics = program.call("GET /metrics").body;
        let mut lines = metrics.lines();
        let pending = lines.find_map(|line| line.strip_prefix("hearthmq_webhook_pending{"));
        let pending = pending.and_then(|rest| rest.split(' ').nth(1)).unwrap();
        let changes = pending.parse::<usize>().unwrap() - 1; // beside the reset
        if changes > 0 {
            return changes;
        }
        assert!(Instant::now() < until, "nothing is stored");
        thread::sleep(LOOK_EVERY);
    }
}

/// Compares what the endpoint knows with the clients that are there.
fn compare(program: &Program, endpoint: &Endpoint, visits: &[Visits]) {
    endpoint.is_well.store(true, Ordering::Relaxed);
    // An end that nobody answers may come to the broker after the sentinel.
    let online: BTreeSet<String> = visits
        .iter()
        .enumerate()
        .filter(|(_, visits)| visits.wire.is_some())
        .map(|(client, _)| client_id(client))
        .collect();
    let is_right =
        || (0..CLIENTS).map(client_id).all(|id| program.is_online(&id) == online.contains(&id));
    let until = Instant::now() + PATIENCE;
    while !is_right() {
        assert!(Instant::now() < until, "{online:?}");
        thread::sleep(LOOK_EVERY);
    }
    let _sentinel = wait_for_sentinel(program, endpoint, LIVES);
    let follower = endpoint.follower.lock().unwrap();
    let known: BTreeSet<String> = follower.online().into_iter().map(str::to_owned).collect();
    let expected: BTreeSet<String> = online.into_iter().chain([sentinel(LIVES)]).collect();
    assert_eq!(known, expected);
    for (client, visits) in visits.iter().enumerate() {
        let told = follower.connections(&client_id(client));
        assert_eq!(told, visits.connections, "connections of client {client} in the last run");
    }
}

#[test]
fn kills_lose_no_change_that_a_webhook_is_owed() {
    let first = number("HEARTHMQ_CRASH_SEED").unwrap_or(1);
    let rounds = number("HEARTHMQ_CRASH_REST_ROUNDS").unwrap_or(ROUNDS);
    for seed in first..first + rounds {
        let mut round = Round::begin(seed);
        (0..LIVES - 1).for_each(|life| round.live(life));
        let (delivered, not_stored) = round.finish();
        eprintln!(
            "seed {seed}: {} kills; {delivered:?}, {not_stored} connections covered by reset, 0 lost",
            LIVES - 1
        );
        assert!(delivered.changes > 0, "{delivered:?}");
    }
}
