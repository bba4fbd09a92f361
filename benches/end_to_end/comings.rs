//! Workloads of connections: clients that come and go, idle connections, and sessions of offline
//! clients.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Packet, QoS};

use super::{
    Outcome, Settings,
    brokers::Running,
    client::Outbox,
    crowd::{Crowd, Heard},
    report::Figures,
};

/// Number of clients that visit at the same time.
const AT_ONCE: usize = 50;
/// How long a broker may take to come to rest.
const SETTLING_TIME: Duration = Duration::from_secs(3);
/// Number of clients that are connected at the same time while sessions are created.
const SESSIONS_AT_ONCE: usize = 1000;

/// What a client does during a visit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Visit {
    /// It connects.
    Bare,
    /// It subscribes to a topic of its own, publishes to it, and receives the message.
    Whole,
}

/// Lets clients connect, do their visit, disconnect, and start again.
pub(crate) fn churn(visit: Visit, broker: &Running, settings: &Settings) -> Outcome<Figures> {
    let mut crowd = Crowd::new(broker.address)?;
    for number in 0..AT_ONCE {
        let who = crowd.open()?;
        crowd.say(who, |out| out.connect(&format!("visitor-{number}"), true));
    }
    let mut gone = Vec::new();
    let mut visits = 0_u64;
    let mut cut_off = 0;
    let mut go_on_for = |crowd: &mut Crowd, visits: &mut u64, time: Duration| -> Outcome<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            // Does not sleep: over loopback the broker would pay for waking the client.
            crowd.turn(Duration::ZERO, |who, heard, out| match heard {
                Heard::Packet(packet) if is_done(visit, who, &packet, out) => gone.push(who),
                Heard::Packet(_) => {}
                Heard::Closed => {
                    cut_off += 1;
                    gone.push(who);
                }
            })?;
            for who in gone.drain(..) {
                crowd.close(who);
                // With the same number, so that the broker meets the same Client Identifiers again.
                crowd.reopen(who)?;
                crowd.say(who, |out| out.connect(&format!("visitor-{who}"), true));
                *visits += 1;
            }
        }
        Ok(())
    };
    go_on_for(&mut crowd, &mut visits, Duration::from_millis(500))?;
    let (before, began, usage) = (visits, Instant::now(), broker.usage());
    go_on_for(&mut crowd, &mut visits, settings.time)?;
    let (took, after) = (began.elapsed().as_secs_f64(), broker.usage());
    let count = (visits - before) as f64;
    let mut figures = Figures::with_faults(cut_off);
    figures.put("per s", count / took);
    figures.put("CPU s per million", (after.cpu_secs - usage.cpu_secs) / count * 1e6);
    Ok(figures)
}

/// Answers a packet; returns whether the visit is over. DISCONNECT is written before the socket
/// closes.
fn is_done(visit: Visit, who: usize, packet: &Packet<'_>, out: &mut Outbox) -> bool {
    match (visit, packet) {
        (Visit::Bare, Packet::ConnAck(_)) | (Visit::Whole, Packet::Publish(_)) => {
            out.disconnect();
            true
        }
        (Visit::Whole, Packet::ConnAck(_)) => {
            out.subscribe(1, &[format!("bench/{who}")], QoS::AtMostOnce);
            false
        }
        (Visit::Whole, Packet::SubAck(_)) => {
            out.publish(&format!("bench/{who}"), &[b'x'; 64], QoS::AtMostOnce, 0);
            false
        }
        _ => false,
    }
}

/// Measures `count` idle connections.
pub(crate) fn idle(count: usize, broker: &Running, settings: &Settings) -> Outcome<Figures> {
    let mut crowd = Crowd::new(broker.address)?;
    let before = broker.usage();
    crowd.connect(count, true, |number| format!("idle-{number}"))?;
    sleep(SETTLING_TIME);
    let (settled, began) = (broker.usage(), Instant::now());
    sleep(settings.time);
    let (took, after) = (began.elapsed().as_secs_f64(), broker.usage());
    let mut figures = Figures::default();
    let grown = settled.resident_bytes - before.resident_bytes;
    figures.put("bytes each", grown / count as f64);
    figures.put("% of a core", (after.cpu_secs - settled.cpu_secs) / took * 100.0);
    Ok(figures)
}

/// Measures `sessions` sessions without a connection, each with `messages` queued QoS 1 messages.
pub(crate) fn away(sessions: usize, messages: usize, broker: &Running) -> Outcome<Figures> {
    let before = broker.usage();
    let name = |number: usize| format!("away-{number}");
    for begin in (0..sessions).step_by(SESSIONS_AT_ONCE) {
        let mut crowd = Crowd::new(broker.address)?;
        let count = SESSIONS_AT_ONCE.min(sessions - begin);
        crowd.connect(count, false, |number| name(begin + number))?;
        let filters = (0..count).map(|who| (who, vec![format!("away/{}", begin + who)]));
        crowd.subscribe(filters, QoS::AtLeastOnce)?;
        for who in 0..count {
            crowd.say(who, Outbox::disconnect);
        }
        crowd.turn(Duration::ZERO, |_, _, _| {})?;
    }
    // Between the two, so that sessions and messages are measured apart.
    let made = broker.usage();
    let mut crowd = Crowd::new(broker.address)?;
    crowd.connect(1, true, |_| "publisher".to_owned())?;
    for _ in 0..messages {
        for begin in (0..sessions).step_by(SESSIONS_AT_ONCE) {
            let end = (begin + SESSIONS_AT_ONCE).min(sessions);
            for (id, number) in (1..).zip(begin..end) {
                let topic = format!("away/{number}");
                crowd.say(0, |out| out.publish(&topic, &[b'x'; 64], QoS::AtLeastOnce, id));
            }
            crowd.wait_for(end - begin, |packet| matches!(packet, Packet::PubAck(_)))?;
        }
    }
    let after = broker.usage();
    let mut figures = Figures::default();
    let count = sessions as f64;
    figures.put("bytes a session", (made.resident_bytes - before.resident_bytes) / count);
    let grown = after.resident_bytes - made.resident_bytes;
    figures.put("bytes a message", grown / (count * messages as f64));
    figures.put("MiB in all", (after.resident_bytes - before.resident_bytes) / 1_048_576.0);
    Ok(figures)
}
