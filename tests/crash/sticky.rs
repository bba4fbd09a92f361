//! The program is killed in the middle of a call that makes many Keep Alives sticky. What the call has
//! answered is in force after the restart, and nothing else has changed.
//!
//!     HEARTHMQ_CRASH_REST_ROUNDS=20 cargo test --release --test crash -- --nocapture sticky::
//!
//! The same seed gives the same plan. It cannot repeat the timing of threads.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use fastrand::Rng;
use hearthmq::mqtt::{Packet, ProtocolVersion::V5, ReasonCode};
use hearthmq_test::{
    http::basic,
    mqtt::{Client, tcp},
    packets::{connect_lasting, disconnect},
};
use serde_json::Value;

use crate::{
    number,
    program::{PASSWORD, Place, Program},
};

/// Number of clients that a call changes.
const CLIENTS: usize = 10_000;
/// Number of items of a call of [`Way::Lists`].
const LIST: usize = 500;
/// Clients whose sessions are made at the same time.
const AT_ONCE: usize = 250;
/// The Keep Alive of clients that no call changes.
const OTHERS: u64 = 999;
/// Rounds unless the environment sets it.
const ROUNDS: u64 = 3;

/// How a round changes all clients.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// One call with a selector, which is answered line by line.
    Selector,
    /// Calls with short lists, one after the other.
    Lists,
    /// One call with one list, which is answered as a whole.
    List,
}

const WAYS: [Way; 3] = [Way::Selector, Way::Lists, Way::List];

/// When the program is killed: after this many results, and this much later.
#[derive(Clone, Copy, Debug)]
struct Moment {
    results: usize,
    later: Duration,
}

/// Returns a client that exists. Every tenth has a name of another length.
fn client_id(number: usize) -> String {
    let width = if number.is_multiple_of(10) { 40 } else { 5 };
    format!("car-{number:0width$}")
}

#[test]
fn a_kill_in_a_bulk_call_loses_no_sticky_value_that_was_answered() {
    let first = number("HEARTHMQ_CRASH_SEED").unwrap_or(1);
    let rounds = number("HEARTHMQ_CRASH_REST_ROUNDS").unwrap_or(ROUNDS);
    let place = Place::new().set("limits.sessions_per_user_max=20000");
    let mut program = place.start();
    make_sessions(&program);
    let others = ["another-1", "another-2", "car"].map(|id| (id.to_owned(), OTHERS));
    let list: Vec<_> = others.iter().map(|(id, secs)| item(id, *secs)).collect();
    let mut answered = BTreeMap::new();
    call(&program, &format!("[{}]", list.join(",")), |id, secs| {
        answered.insert(id, secs);
    });
    assert_eq!(answered.len(), others.len());
    let mut before: BTreeMap<String, u64> = others.into();
    let mut time = Duration::from_millis(500);
    let mut sum = [0; 3];
    for seed in first..first + rounds {
        let mut random = Rng::with_seed(seed);
        let way = WAYS[seed as usize % WAYS.len()];
        let secs = 100 + seed % 1_000; // differs from that of the round before
        let moment = match way {
            Way::List => Moment { results: 0, later: time.mul_f64(random.f64()) },
            Way::Selector | Way::Lists => Moment {
                results: random.usize(1..CLIENTS),
                later: Duration::from_micros(random.u64(..20_000)),
            },
        };
        let began = Instant::now();
        let answered = kill_in_a_call(&mut program, (way, secs), moment);
        if answered.len() == CLIENTS {
            time = began.elapsed(); // that of a whole call on this machine
        }
        program = place.start();
        let found = overrides(&program);
        let changed = compare(&before, &found, &answered, secs);
        eprintln!(
            "seed {seed}: {way:?}, {moment:?}: {} answered, {changed} changed, {} sticky values",
            answered.len(),
            found.len(),
        );
        assert_eq!(sessions(&program), CLIENTS, "sessions are left");
        sum = [sum[0] + 1, sum[1] + answered.len(), sum[2] + changed];
        before = found;
    }
    eprintln!("{} kills in calls: {} answered, {} changed, 0 lost", sum[0], sum[1], sum[2]);
    assert!(sum[1] > 0, "no call has come far enough to be answered");
}

/// Compares the sticky values after a kill with those before it; returns how many have changed.
fn compare(
    before: &BTreeMap<String, u64>,
    found: &BTreeMap<String, u64>,
    answered: &BTreeMap<String, u64>,
    secs: u64,
) -> usize {
    for (id, secs) in answered {
        assert_eq!(found.get(id), Some(secs), "{id} was answered");
    }
    for (id, former) in before {
        let now = found.get(id).copied();
        let may_change = id.starts_with("car-");
        let is_right = now == Some(*former) || (may_change && now == Some(secs));
        assert!(is_right, "{id} had {former}, and has {now:?}");
    }
    let new = found.iter().filter(|(id, _)| !before.contains_key(*id));
    for (id, now) in new {
        assert!(id.starts_with("car-") && *now == secs, "{id} has {now}, and had none");
    }
    found.iter().filter(|(id, now)| before.get(*id) != Some(*now)).count()
}

/// Changes all clients, and kills the program at this moment; returns what was answered.
fn kill_in_a_call(
    program: &mut Program,
    (way, secs): (Way, u64),
    moment: Moment,
) -> BTreeMap<String, u64> {
    let mut answered = BTreeMap::new();
    let ids: Vec<_> = (0..CLIENTS).map(client_id).collect();
    let list = |ids: &[String]| {
        let items: Vec<_> = ids.iter().map(|id| item(id, secs)).collect();
        format!("[{}]", items.join(","))
    };
    let bodies: Vec<String> = match way {
        Way::Selector => {
            vec![format!(r#"{{"clients":"car-*","interval":{secs},"sticky":true}}"#)]
        }
        Way::Lists => ids.chunks(LIST).map(list).collect(),
        Way::List => vec![list(&ids)],
    };
    let (passed, reached) = std::sync::mpsc::channel();
    let calls = CallsOf(program.address("http"));
    std::thread::scope(|scope| {
        let answered = &mut answered;
        scope.spawn(move || {
            for body in bodies {
                // A call that is cut off has answered less.
                let is_whole = calls.call(&body, |id, secs| {
                    answered.insert(id, secs);
                    if answered.len() == moment.results {
                        let _ = passed.send(());
                    }
                });
                if !is_whole {
                    break;
                }
            }
        });
        if moment.results > 0 {
            let _ = reached.recv(); // an end without it is found by the caller
        }
        let _ = reached.recv_timeout(moment.later);
        program.killed();
    });
    answered
}

fn item(id: &str, secs: u64) -> String {
    format!(r#"{{"client_id":"{id}","interval":{secs},"sticky":true}}"#)
}

fn call(program: &Program, body: &str, each: impl FnMut(String, u64)) {
    assert!(CallsOf(program.address("http")).call(body, each), "the answer is whole");
}

/// The caller of the program at this address.
#[derive(Clone, Copy)]
struct CallsOf(std::net::SocketAddr);

impl CallsOf {
    /// Makes a bulk call; hears each result when it comes. Returns whether the answer was whole.
    fn call(self, body: &str, mut each: impl FnMut(String, u64)) -> bool {
        self.try_call(body, &mut each).unwrap_or(false)
    }

    fn try_call(self, body: &str, each: &mut dyn FnMut(String, u64)) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(self.0)?;
        let authorization = basic(&format!("ops:{PASSWORD}"));
        let head = format!(
            "POST /api/v1/keep-alive HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\
             Authorization: {authorization}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut is_whole = false;
        for line in BufReader::new(stream).lines() {
            // Lines that are no JSON are the head, and the lengths of chunks.
            let line = line?;
            is_whole |= line == "0"; // the length of the last chunk
            let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
            let Some(object) = value.as_object() else { continue };
            match object.get("results") {
                Some(results) => {
                    results.as_array().unwrap().iter().for_each(|one| result(one, each));
                    is_whole = true;
                }
                None => result(&value, each),
            }
        }
        Ok(is_whole)
    }
}

fn result(result: &Value, each: &mut dyn FnMut(String, u64)) {
    assert_eq!(result["success"], true, "{result}");
    let id = result["client_id"].as_str().unwrap().to_owned();
    each(id, result["keepalive"].as_u64().unwrap());
}

/// Makes a session for each client, which stays.
fn make_sessions(program: &Program) {
    let address = program.address("mqtt");
    for first in (0..CLIENTS).step_by(AT_ONCE) {
        let ids: Vec<_> = (first..first + AT_ONCE).map(client_id).collect();
        let clients: Vec<_> = std::thread::scope(|scope| {
            let connect = |id: &String| {
                let mut connect = connect_lasting(id, V5);
                (connect.username, connect.password) = (Some("ops"), Some(PASSWORD.as_bytes()));
                Client::on(tcp(address), connect).unwrap()
            };
            let parts = ids.chunks(AT_ONCE / 10);
            let threads: Vec<_> = parts
                .map(|part| scope.spawn(move || part.iter().map(connect).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        for (mut client, reason) in clients {
            assert_eq!(reason, ReasonCode::Success);
            let packet: Packet<'_> = disconnect(ReasonCode::Success);
            client.send(&packet);
            client.expect_closed();
        }
    }
}

/// Returns all sticky values.
fn overrides(program: &Program) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let line = format!("GET /api/v1/keep-alive/overrides?limit=1000{cursor}");
        let page: Value = serde_json::from_str(&program.call(&line).body).unwrap();
        for item in page["items"].as_array().unwrap() {
            let id = item["client_id"].as_str().unwrap().to_owned();
            let former = found.insert(id, item["interval"].as_u64().unwrap());
            assert_eq!(former, None, "listed twice: {item}");
        }
        let Some(next) = page["next"].as_str() else { return found };
        cursor = format!("&cursor={next}");
    }
}

/// Returns how many sessions of the clients there are.
fn sessions(program: &Program) -> usize {
    let answer = program.call("GET /api/v1/clients?client_id=car-*&count=true&limit=1");
    let page: Value = serde_json::from_str(&answer.body).unwrap();
    page["total"].as_u64().expect(&answer.body) as usize
}
