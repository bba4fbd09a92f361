//! Sessions of offline clients with queued messages: how fast the messages come out again, and how
//! long a start with very many such sessions takes.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Packet, QoS};

use super::{
    Outcome, Settings,
    client::Outbox,
    crowd::{Crowd, Heard},
    host::{Host, Process},
    publishing::{PAYLOAD, SILENCE},
    report::Figures,
};

/// Maximum number of messages that the publisher has in flight.
const IN_FLIGHT: u16 = 1_000;
/// Number of clients that are connected at the same time while sessions are created.
const SESSIONS_AT_ONCE: usize = 1_000;
/// Number of sessions whose messages are fetched after a restart.
const SAMPLE: usize = 100;
const TURN: Duration = Duration::from_millis(100);
/// How long a broker may take for one acknowledgement.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a broker may take to start with much data.
const START_MAX: Duration = Duration::from_secs(300);
const MILLION: f64 = 1e6;

/// One subscriber comes back to this many messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    pub(crate) messages: usize,
}

impl Drain {
    pub(crate) fn measure(self, host: &Host, settings: &Settings) -> Outcome<Figures> {
        let process = host.start(settings)?;
        make_sessions(&process, 1)?;
        let begun = process.taken();
        let filled_in = publish(&process, (0..self.messages).map(|_| 0))?;
        // Waits until the store has written everything, so that its cost belongs to the right part.
        process.rest();
        let before = process.taken();
        let mut crowd = Crowd::new(process.address)?;
        let began = Instant::now();
        let came = take(&mut crowd, 0..1, self.messages)?;
        let took = (came.last - began).as_secs_f64();
        process.rest();
        let after = process.taken();
        let count = self.messages as f64;
        let mut figures = Figures::with_faults(count as u64 - came.count.min(count as u64));
        figures.put("in per s", count / filled_in.as_secs_f64());
        figures.put("out per s", came.count as f64 / took);
        figures.put("CPU µs in", (before.cpu_secs - begun.cpu_secs) / count * MILLION);
        figures.put("CPU µs out", (after.cpu_secs - before.cpu_secs) / count * MILLION);
        figures.put("written B in", (before.written - begun.written) / count);
        figures.put("written B out", (after.written - before.written) / count);
        Ok(figures)
    }
}

/// Creates `sessions` sessions with `messages` messages each, then crashes and restarts the broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restart {
    pub(crate) sessions: usize,
    pub(crate) each: usize,
}

impl Restart {
    pub(crate) fn measure(self, host: &Host, settings: &Settings) -> Outcome<Figures> {
        let mut process = host.start(settings)?;
        make_sessions(&process, self.sessions)?;
        let all = self.sessions * self.each;
        let filled_in = publish(&process, (0..all).map(|number| number % self.sessions))?;
        process.rest();
        let (full, on_disk) = (process.taken(), process.bytes_on_disk());
        // Killed, not ended: a start after a power cut is the expensive one.
        process.kill();
        let began = Instant::now();
        host.start_again(&mut process, settings)?;
        let is_present = connect_when_it_is_there(&mut process, self.sessions - 1)?;
        let took = began.elapsed().as_secs_f64();
        process.rest();
        let restarted = process.taken();
        let sample = SAMPLE.min(self.sessions);
        let mut crowd = Crowd::new(process.address)?;
        let came = take(&mut crowd, 0..sample, sample * self.each)?;
        let missing = (sample * self.each) as u64 - came.count.min((sample * self.each) as u64);
        let absent = came.absent + u64::from(!is_present);
        let mut figures = Figures::with_faults(missing + absent);
        figures.put("in per s", all as f64 / filled_in.as_secs_f64());
        figures.put("written B each", full.written / all as f64);
        figures.put("MiB on disk", on_disk / 1_048_576.0);
        figures.put("MiB", full.resident_mib);
        figures.put("start s", took);
        figures.put("start CPU s", restarted.cpu_secs);
        figures.put("MiB after", restarted.resident_mib);
        Ok(figures)
    }
}

fn client_id(number: usize) -> String {
    format!("away-{number}")
}

fn topic(number: usize) -> String {
    format!("away/{number}")
}

/// Creates durable sessions with a subscription each, whose clients then disconnect. Works in
/// groups, so that few files are open.
fn make_sessions(process: &Process, count: usize) -> Outcome<()> {
    for begin in (0..count).step_by(SESSIONS_AT_ONCE) {
        let mut crowd = Crowd::new(process.address)?;
        let some = SESSIONS_AT_ONCE.min(count - begin);
        crowd.connect(some, false, |number| client_id(begin + number))?;
        for who in 0..some {
            let filters = [topic(begin + who)];
            crowd.say(who, |out| out.subscribe(1, &filters, QoS::AtLeastOnce));
        }
        crowd.wait_for(some, |packet| matches!(packet, Packet::SubAck(_)))?;
        for who in 0..some {
            crowd.say(who, Outbox::disconnect);
        }
        crowd.turn(Duration::ZERO, |_, _, _| {})?;
    }
    Ok(())
}

/// Publishes a message to each of these sessions and waits for every PUBACK; returns the time it
/// took.
fn publish(process: &Process, sessions: impl Iterator<Item = usize>) -> Outcome<Duration> {
    let mut crowd = Crowd::new(process.address)?;
    crowd.connect(1, true, |_| "publisher".to_owned())?;
    let began = Instant::now();
    let mut topics = sessions.map(topic);
    let mut under_way = 0;
    for (id, topic) in (1..=IN_FLIGHT).zip(topics.by_ref()) {
        crowd.say(0, |out| out.publish(&topic, &PAYLOAD, QoS::AtLeastOnce, id));
        under_way += 1;
    }
    let mut last = Instant::now();
    while under_way > 0 {
        crowd.turn(TURN, |_, heard, out| {
            let Heard::Packet(Packet::PubAck(ack)) = heard else { return };
            last = Instant::now();
            match topics.next() {
                Some(topic) => {
                    out.publish(&topic, &PAYLOAD, QoS::AtLeastOnce, ack.packet_id.number());
                }
                None => under_way -= 1,
            }
        })?;
        // Judged by the last acknowledgement: a slow broker may take longer in all.
        if last.elapsed() > PATIENCE {
            return Err(format!("PUBACK does not come within {PATIENCE:?}").into());
        }
    }
    Ok(began.elapsed())
}

/// The queued messages that arrived.
struct Came {
    count: u64,
    /// When the last of them arrived.
    last: Instant,
    /// Number of sessions that were missing.
    absent: u64,
}

/// Connects these sessions and receives their queued messages, until `expected` messages have come
/// or none comes any more.
fn take(crowd: &mut Crowd, sessions: std::ops::Range<usize>, expected: usize) -> Outcome<Came> {
    for number in sessions {
        let who = crowd.open()?;
        crowd.say(who, |out| out.connect(&client_id(number), false));
    }
    let mut came = Came { count: 0, last: Instant::now(), absent: 0 };
    while came.count < expected as u64 && came.last.elapsed() < SILENCE {
        crowd.turn(TURN, |_, heard, out| {
            let Heard::Packet(packet) = heard else { return };
            if let Packet::Publish(_) = packet {
                came.count += 1;
                came.last = Instant::now();
            } else if let Packet::ConnAck(ack) = &packet {
                came.absent += u64::from(!ack.session_present);
            }
            out.acknowledge(&packet);
        })?;
    }
    // Writes the last acknowledgements.
    crowd.turn(Duration::ZERO, |_, _, _| {})?;
    Ok(came)
}

/// Tries to connect as this session until CONNACK comes; returns whether the session exists.
fn connect_when_it_is_there(process: &mut Process, session: usize) -> Outcome<bool> {
    let mut outbox = Outbox::default();
    outbox.connect(&client_id(session), false);
    let connect = outbox.take();
    let give_up_at = Instant::now() + START_MAX;
    let attempt = |process: &Process| -> std::io::Result<[u8; 4]> {
        let mut stream = TcpStream::connect(process.address)?;
        stream.set_read_timeout(Some(START_MAX))?;
        stream.write_all(&connect)?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    loop {
        match attempt(process) {
            Ok([0x20, 2, present, 0]) => return Ok(present == 1),
            Ok(other) => return Err(format!("CONNACK of {other:02x?} accepts nobody").into()),
            Err(_) => process.is_up(give_up_at)?, // the broker does not listen yet
        }
    }
}
