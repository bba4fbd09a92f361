//! Lists, one client, status of many, Keep Alives by selector, and a change of the rules.

use std::{
    net::SocketAddr,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hearthmq_test::packets::{QOS_1, V3_1_1, encoded, filter, subscribe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    caller::{Caller, broker_cpu_secs},
    echo::{self, Echo},
    fleet::{Fleet, client_id, connect},
    median,
};

/// A page of the list.
const PAGE: usize = 1_000;
/// Identifiers in one question about status.
const IDS: usize = 10_000;
/// A measurement repeats its call for this time, so that the echo has enough samples.
const TIME: Duration = Duration::from_secs(2);
/// Calls about one client in one round.
const CALLS: usize = 5_000;

/// What one call cost.
struct Cost {
    secs: f64,
    cpu_secs: f64,
}

/// Runs `work` on a thread of its own that is connected to the REST interface.
async fn call<T: Send + 'static>(
    http: SocketAddr,
    work: impl FnOnce(&mut Caller) -> T + Send + 'static,
) -> T {
    let run = move || work(&mut Caller::connect(http));
    let thread: JoinHandle<T> =
        std::thread::Builder::new().name("client-caller".into()).spawn(run).unwrap();
    while !thread.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    thread.join().unwrap()
}

/// Repeats a call for some time beside an echo; prints its figures and returns the median seconds. With a
/// second broker, the same calls are made there too, beside the same echo.
async fn measure(
    name: &str,
    fleet: &Fleet,
    elsewhere: Option<&Fleet>,
    rounds: usize,
    once: impl Fn(&mut Caller) + Send + Clone + 'static,
) -> f64 {
    let (mut secs, mut cpu_secs) = (vec![], vec![]);
    let (mut alone, mut apart, mut beside) = (vec![], vec![], vec![]);
    let before = fleet.turns();
    for _ in 0..rounds {
        alone.push(echo::alone(&fleet.broker, TIME).await.as_secs_f64());
        // The same calls to another broker: the difference is what they cost this one's shards.
        if let Some(elsewhere) = elsewhere {
            let echo = Echo::begin(&fleet.broker).await;
            repeat(elsewhere.http, once.clone()).await;
            apart.push(echo.end().await.as_secs_f64());
        }
        let echo = Echo::begin(&fleet.broker).await;
        let costs = repeat(fleet.http, once.clone()).await;
        beside.push(echo.end().await.as_secs_f64());
        secs.push(median(costs.iter().map(|cost| cost.secs).collect()));
        cpu_secs.push(median(costs.iter().map(|cost| cost.cpu_secs).collect()));
    }
    let ratio = |under: &[f64]| {
        median(under.iter().zip(&beside).map(|(under, beside)| beside / under).collect())
    };
    let turns = fleet.turns();
    print!(
        "{name}: {:.1} ms, {:.1} ms of CPU; turns > 1 ms: {}, others' time in them {:.1} ms; echo p99 \
         {:.2} ms alone, {:.2} ms beside (ratio {:.2})",
        median(secs.clone()) * 1e3,
        median(cpu_secs) * 1e3,
        turns.long - before.long,
        (turns.interrupted - before.interrupted).as_secs_f64() * 1e3,
        median(alone.clone()) * 1e3,
        median(beside.clone()) * 1e3,
        ratio(&alone),
    );
    match elsewhere {
        Some(_) => {
            let ratio = ratio(&apart);
            println!(", {:.2} ms beside calls elsewhere (ratio {ratio:.2})", median(apart) * 1e3);
        }
        None => println!(),
    }
    median(secs)
}

/// Repeats a call for some time; returns what each cost.
async fn repeat(
    http: SocketAddr,
    once: impl Fn(&mut Caller) + Send + Clone + 'static,
) -> Vec<Cost> {
    let run = move |caller: &mut Caller| {
        let (until, mut costs) = (Instant::now() + TIME, Vec::new());
        while Instant::now() < until {
            let (began, cpu) = (Instant::now(), broker_cpu_secs());
            once(caller);
            let secs = began.elapsed().as_secs_f64();
            costs.push(Cost { secs, cpu_secs: broker_cpu_secs() - cpu });
        }
        costs
    };
    call(http, run).await
}

/// Lists all clients by pages; returns the seconds for each client.
pub(crate) async fn list(fleet: &Fleet, elsewhere: Option<&Fleet>, rounds: usize) -> f64 {
    let name = format!("list of {} clients by pages of {PAGE}", fleet.len());
    let expected = fleet.len();
    let secs = measure(&name, fleet, elsewhere, rounds, move |caller| {
        assert!(walk(caller) >= expected, "a client is missing in the list");
    });
    secs.await / fleet.len() as f64
}

/// Walks through the list; returns how many clients it had.
fn walk(caller: &mut Caller) -> usize {
    let (mut clients, mut cursor) = (0, String::new());
    loop {
        let page = caller.call(&format!("GET /api/v1/clients?limit={PAGE}{cursor}"), "", "");
        let text = std::str::from_utf8(&page).unwrap();
        clients += text.matches("\"client_id\":").count();
        let Some((_, rest)) = text.rsplit_once("\"next\":\"") else { return clients };
        cursor = format!("&cursor={}", rest.split_once('"').unwrap().0);
    }
}

/// Compares everything about one client that has ten subscriptions with whether it is online.
pub(crate) async fn one_client(fleet: &mut Fleet, rounds: usize) {
    let mut client = connect(&fleet.broker, "one").await;
    let filters: Vec<String> = (0..10).map(|n| format!("to/one/{n}")).collect();
    let asked = filters.iter().map(|text| filter(text, QOS_1)).collect();
    client.write_all(&encoded(&subscribe(1, asked), V3_1_1)).await.unwrap();
    client.read_exact(&mut [0; 14]).await.unwrap();
    let (mut times, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let of_call = |line: &'static str| {
            call(fleet.http, move |caller| {
                let (began, cpu) = (Instant::now(), broker_cpu_secs());
                (0..CALLS).for_each(|_| drop(caller.call(line, "", "")));
                (began.elapsed().as_secs_f64(), broker_cpu_secs() - cpu)
            })
        };
        let online = of_call("GET /client-id/one/status").await;
        let whole = of_call("GET /api/v1/clients/one").await;
        // A ratio for each round, because the speed of the machine changes between rounds.
        times.push(whole.0 / online.0);
        cpu.push(whole.1 / online.1);
    }
    println!(
        "one client with ten subscriptions to QueryOnline: {:.2} of its time, {:.2} of its CPU",
        median(times),
        median(cpu)
    );
}

/// Asks for the status of many clients.
pub(crate) async fn status(fleet: &Fleet, elsewhere: &Fleet, rounds: usize) {
    let step = (fleet.len() / IDS).max(1);
    let ids: Vec<String> =
        (0..IDS).map(|n| format!("\"{}\"", client_id(n * step % fleet.len()))).collect();
    let body = format!("{{\"client_ids\":[{}]}}", ids.join(","));
    measure(
        &format!("status of {IDS} identifiers"),
        fleet,
        Some(elsewhere),
        rounds,
        move |caller| {
            let answer = caller.call("POST /api/v1/status", JSON, &body);
            let online = std::str::from_utf8(&answer).unwrap().matches("\"online\":true").count();
            assert_eq!(online, IDS);
        },
    )
    .await;
}

/// Changes the Keep Alive of all clients.
pub(crate) async fn selector(fleet: &Fleet, elsewhere: &Fleet, rounds: usize) {
    let (name, expected) = (format!("Keep Alive of {} by selector", fleet.len()), fleet.len());
    measure(&name, fleet, Some(elsewhere), rounds, move |caller| {
        let body = format!("{{\"clients\":\"car-*\",\"interval\":{}}}", fastrand::u32(600..=1200));
        let answer = caller.call("POST /api/v1/keep-alive", JSON, &body);
        let changed = std::str::from_utf8(&answer).unwrap().matches("\"success\":true").count();
        assert_eq!(changed, expected);
    })
    .await;
}

/// Changes a rule of the store, after which the broker examines all sessions again.
pub(crate) async fn rule(fleet: &Fleet, elsewhere: &Fleet, rounds: usize) {
    let name = format!("change of a rule with {} sessions, each with a subscription", fleet.len());
    measure(&name, fleet, Some(elsewhere), rounds, |caller| {
        let other = fastrand::u32(..);
        let body = format!(
            "{{\"effect\":\"deny\",\"actions\":[\"subscribe\"],\"topics\":[\"other/{other}\"]}}"
        );
        let answer = caller.call("PUT /api/v1/rules/bench", JSON, &body);
        assert!(str::from_utf8(&answer).unwrap().contains("\"sessions_touched\":0"));
    })
    .await;
}

const JSON: &str = "Content-Type: application/json\r\n";
