//! Workloads of HearthMQ only: calls with very many connected clients, and messages with very many
//! calls.

use std::time::{Duration, Instant};

use hearthmq::mqtt::QoS;

use super::{
    Outcome, Settings,
    brokers::Named,
    calls::{CALLERS, Call, Callers},
    crowd::Crowd,
    publishing::{Pattern, Publishing},
    report::Figures,
};

/// Allows everything to everybody, but the rules are still evaluated.
pub(crate) const POLICY: &str = "
[[rules]]
effect = \"allow\"
actions = [\"connect\", \"publish\", \"subscribe\"]
";

/// Number of clients that are connected during calls.
const CLIENTS: usize = 15_000;
const CALLS_PER_SEC: f64 = 10_000.0;
/// Messages per second during calls.
const MESSAGES_PER_SEC: u32 = 20_000;

pub(crate) fn calls(call: Call, server: &Named, settings: &Settings) -> Outcome<Figures> {
    let running = server.start(&settings.cores)?;
    let mut crowd = Crowd::new(running.address)?;
    let http = match running.http {
        Some(http) => {
            crowd.connect(CLIENTS, true, |number| format!("idle-{number}"))?;
            http
        }
        None => running.address, // the empty handler has no clients and listens for HTTP only
    };
    Callers::connect(http, call, CLIENTS)?.measure(&running, settings)
}

/// Runs pairs at a rate. Measures the latency of their messages in every other second, in which
/// calls are made at a rate of their own, and in the seconds between.
pub(crate) fn beside(broker: &Named, settings: &Settings) -> Outcome<Figures> {
    let running = broker.start(&settings.cores)?;
    let mut crowd = Crowd::new(running.address)?;
    crowd.connect(CLIENTS, true, |number| format!("idle-{number}"))?;
    let messages = Publishing {
        pattern: Pattern::Pairs(100),
        qos: QoS::AtLeastOnce,
        payload_bytes: 64,
        rate: Some(MESSAGES_PER_SEC),
    };
    let http = running.http.ok_or("no address for HTTP")?;
    let mut callers = Callers::connect(http, Call::SetKeepAlive, CLIENTS)?;
    let mut free: Vec<usize> = (0..CALLERS).collect();
    let (mut time_asking, mut last, mut asked) = (Duration::ZERO, Instant::now(), 0_u64);
    // Each second with calls has one without beside it.
    let turns = 2 * settings.time.as_secs_f64().ceil() as usize;
    let outcome = messages.latencies_in_turns(&running, turns, &mut |is_asking| {
        let now = Instant::now();
        let passed = now - std::mem::replace(&mut last, now);
        if is_asking {
            time_asking += passed;
        }
        let due = (time_asking.as_secs_f64() * CALLS_PER_SEC) as u64;
        // Only as many as are due: a broker that is late does not get fewer calls.
        while is_asking
            && asked < due
            && let Some(who) = free.pop()
        {
            callers.ask(who, Instant::now());
            asked += 1;
        }
        free.extend(callers.turn(Duration::ZERO)?);
        Ok(())
    });
    let ([alone, beside], faults) = outcome?;
    let mut figures = Figures::with_faults(faults + callers.failures);
    figures.put("calls per s", callers.answers as f64 / time_asking.as_secs_f64());
    for (share, [name_alone, name_beside, name_times]) in SHARES {
        let [alone, beside] = [&alone, &beside].map(|all| all.value_at_quantile(share) as f64);
        figures.put(name_alone, alone / 1e3);
        figures.put(name_beside, beside / 1e3);
        figures.put(name_times, beside / alone);
    }
    Ok(figures)
}

/// Columns for the latency of messages: alone, during calls, and the ratio.
const SHARES: [(f64, [&str; 3]); 3] = [
    (0.5, ["p50 us", "p50 beside", "p50 times"]),
    (0.9, ["p90 us", "p90 beside", "p90 times"]),
    (0.99, ["p99 us", "p99 beside", "p99 times"]),
];
