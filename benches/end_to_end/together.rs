//! HearthMQ's own: calls beside very many connected clients, and messages beside very many calls.

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

/// Everybody may do everything, and is asked all the same.
pub(crate) const POLICY: &str = "
[[rules]]
effect = \"allow\"
actions = [\"connect\", \"publish\", \"subscribe\"]
";

/// Clients that are connected while calls are made.
const CLIENTS: usize = 15_000;
const CALLS_PER_SEC: f64 = 10_000.0;
/// Messages a second beside the calls.
const MESSAGES_PER_SEC: u32 = 20_000;

pub(crate) fn calls(call: Call, server: &Named, settings: &Settings) -> Outcome<Figures> {
    let running = server.start(&settings.cores)?;
    let mut crowd = Crowd::new(running.address)?;
    let http = match running.http {
        Some(http) => {
            crowd.connect(CLIENTS, true, |number| format!("idle-{number}"))?;
            http
        }
        None => running.address, // The empty handler has no clients, and listens for HTTP alone.
    };
    Callers::connect(http, call, CLIENTS)?.measure(&running, settings)
}

/// Pairs at a rate, and how late their messages are, with or without calls at a rate of their own.
pub(crate) fn beside(with_calls: bool, broker: &Named, settings: &Settings) -> Outcome<Figures> {
    let running = broker.start(&settings.cores)?;
    let mut crowd = Crowd::new(running.address)?;
    crowd.connect(CLIENTS, true, |number| format!("idle-{number}"))?;
    let messages = Publishing {
        pattern: Pattern::Pairs(100),
        qos: QoS::AtLeastOnce,
        payload_bytes: 64,
        rate: Some(MESSAGES_PER_SEC),
    };
    if !with_calls {
        return messages.measure(&running, settings);
    }
    let http = running.http.ok_or("no address for HTTP")?;
    let mut callers = Callers::connect(http, Call::SetKeepAlive, CLIENTS)?;
    let mut free: Vec<usize> = (0..CALLERS).collect();
    let (began, mut asked) = (Instant::now(), 0_u64);
    let mut figures = messages.measure_while(&running, settings, &mut || {
        let due = (began.elapsed().as_secs_f64() * CALLS_PER_SEC) as u64;
        while asked < due
            && let Some(who) = free.pop()
        {
            callers.ask(who, Instant::now());
            asked += 1;
        }
        free.extend(callers.turn(Duration::ZERO)?);
        Ok(())
    })?;
    figures.put("calls per s", callers.answers as f64 / began.elapsed().as_secs_f64());
    figures.faults += callers.failures;
    Ok(figures)
}
