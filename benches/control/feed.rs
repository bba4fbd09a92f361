//! Followers of the feed: of changes at the feed's door, and of connects and disconnects.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hdrhistogram::Histogram;
use hearthmq::control::SetKeepAlive;

use super::{
    Arguments,
    caller::Caller,
    fleet::{Fleet, client_id, connect},
};

/// Clients whose Keep Alive changes.
const CHANGING: usize = 1_000;
const CHANGES_PER_SEC: usize = 10_000;
const COMINGS_PER_SEC: usize = 1_000;
/// The interval in which a part of the changes is made.
const TICK: Duration = Duration::from_millis(10);

/// A caller that follows.
struct Follower {
    received: Arc<AtomicU64>,
    thread: JoinHandle<Histogram<u64>>,
}

impl Follower {
    /// Follows these changes, from after the snapshot until the broker ends.
    fn follow(http: SocketAddr, query: String) -> Self {
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        let run = move || {
            let mut caller = Caller::connect(http);
            let accept = "Accept: application/x-ndjson\r\n";
            caller.say(&format!("GET /api/v1/events?{query}"), accept, "");
            assert_eq!(caller.read_head(), None);
            let mut latency = Histogram::new_with_bounds(1, 60_000, 3).unwrap();
            let (mut bytes, mut last) = (Vec::new(), 0);
            while caller.read_chunk(&mut bytes) {
                let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                // A chunk may end inside a line; the rest is joined with the next one.
                let rest = bytes.split_off(whole);
                let lines = std::mem::replace(&mut bytes, rest);
                for line in std::str::from_utf8(&lines).unwrap().lines() {
                    last = note(line, last, &mut latency, &count);
                }
            }
            latency
        };
        let thread = std::thread::Builder::new().name("client-follows".into()).spawn(run).unwrap();
        Self { received, thread }
    }
}

/// Notes one line of the feed; returns the number of its event.
fn note(line: &str, last: u64, latency: &mut Histogram<u64>, count: &AtomicU64) -> u64 {
    let has = |name: &str| line.contains(&format!("\"event\":\"{name}\""));
    assert!(!has("reset"), "the follower was too slow");
    if line.is_empty() || has("snapshot") || has("snapshot_end") {
        return last;
    }
    let number = number_of(line, "\"number\":");
    assert!(number > last, "events are out of order: {number} after {last}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    latency.saturating_record(now.saturating_sub(number_of(line, "\"timestamp\":")));
    count.fetch_add(1, Ordering::Relaxed);
    number
}

fn number_of(line: &str, name: &str) -> u64 {
    let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("no {name} in {line}"));
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().unwrap()
}

/// 10,000 changes a second for 50 followers with ten filters.
pub(crate) async fn changes(arguments: &Arguments) {
    let mut fleet = Fleet::start(arguments.shards).await;
    fleet.grow_to(CHANGING).await;
    let followers: Vec<Follower> = (0..50)
        .map(|n| {
            let filter = format!("client_id=car-{}-*&kinds=client_keepalive_changed", n % 10);
            Follower::follow(fleet.http, filter)
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each_tick = CHANGES_PER_SEC / 100;
    let (began, mut ticks) = (Instant::now(), 0);
    let mut clock = tokio::time::interval(TICK);
    while ticks < arguments.secs * 100 {
        clock.tick().await;
        let first = ticks as usize * each_tick;
        let requests = (first..first + each_tick).map(|n| {
            // Another value each time, because an equal one would be no change.
            let interval = 30 + (n / CHANGING % 1_000) as u16;
            SetKeepAlive::new(client_id(n % CHANGING), interval)
        });
        let changed = fleet.broker.set_keep_alive_many(requests.collect()).await;
        assert!(changed.iter().all(Result::is_ok));
        ticks += 1;
    }
    let took = began.elapsed().as_secs_f64();
    let all = ticks * each_tick as u64;
    println!("{:.0} changes a second", all as f64 / took);
    report(fleet, followers, all / 10).await;
}

/// 1,000 connects and as many disconnects a second for ten followers.
pub(crate) async fn comings(arguments: &Arguments) {
    let fleet = Fleet::start(arguments.shards).await;
    let followers: Vec<Follower> = (0..10)
        .map(|_| Follower::follow(fleet.http, "kinds=client_connected,client_disconnected".into()))
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each_tick = COMINGS_PER_SEC / 100;
    let (began, mut comings) = (Instant::now(), 0);
    let (mut clock, mut here) = (tokio::time::interval(TICK), Vec::new());
    for _ in 0..arguments.secs * 100 {
        clock.tick().await;
        here.clear(); // closes the streams
        for _ in 0..each_tick {
            here.push(connect(&fleet.broker, &client_id(comings)).await);
            comings += 1;
        }
    }
    here.clear();
    println!("{:.0} connects a second", comings as f64 / began.elapsed().as_secs_f64());
    report(fleet, followers, 2 * comings as u64).await;
}

/// Waits until each follower has received what it should, and prints the latency.
async fn report(fleet: Fleet, followers: Vec<Follower>, each: u64) {
    let patience = Instant::now() + Duration::from_secs(30);
    let received = |follower: &Follower| follower.received.load(Ordering::Relaxed);
    while followers.iter().any(|follower| received(follower) < each) && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let missed: u64 =
        followers.iter().map(|follower| each.saturating_sub(received(follower))).sum();
    let long_turns = fleet.turns().long;
    let count = followers.len();
    // Ends the streams of the followers, which their threads wait for.
    fleet.end().await;
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000, 3).unwrap();
    for follower in followers {
        latency.add(follower.thread.join().unwrap()).unwrap();
    }
    println!(
        "{count} followers with {each} events each: {missed} missed; p50 {} ms, p99 {} ms, all {} ms; \
         turns > 1 ms: {long_turns}",
        latency.value_at_quantile(0.5),
        latency.value_at_quantile(0.99),
        latency.max(),
    );
}
