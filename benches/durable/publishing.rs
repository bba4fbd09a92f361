//! QoS 1 into durable sessions: messages per second, and the time from PUBLISH to PUBACK.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hearthmq::mqtt::{Packet, QoS};

use super::{
    Outcome, Settings,
    client::Outbox,
    crowd::{Crowd, Heard},
    host::{Host, Process},
    report::Figures,
};

pub(crate) const PAYLOAD: [u8; 64] = [b'x'; 64];
const WARM_UP: Duration = Duration::from_millis(500);
/// Silence after the last message, after which missing messages count as lost.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);
const TURN: Duration = Duration::from_millis(10);
/// A minute; longer times count as this much.
const LATENCY_MICROS_MAX: u64 = 60_000_000;

/// Publishers, each with a topic and a durable subscriber of its own, and each with `in_flight`
/// unacknowledged messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publishing {
    pub(crate) publishers: usize,
    pub(crate) in_flight: u16,
    /// Whether the subscribers are online.
    pub(crate) is_online: bool,
}

fn topic(number: usize) -> String {
    format!("durable/{number}")
}

struct Run {
    crowd: Crowd,
    first_publisher: usize,
    publishers: usize,
    /// When each unacknowledged message was sent: by publisher, then by Packet Identifier.
    sent_at: Vec<Vec<Instant>>,
    latency: Histogram<u64>,
    acknowledged: u64,
    delivered: u64,
    cut_off: u64,
    last_delivery: Instant,
}

impl Publishing {
    pub(crate) fn measure(self, host: &Host, settings: &Settings) -> Outcome<Figures> {
        let process = host.start(settings)?;
        let mut run = self.prepare(&process)?;
        self.begin(&mut run);
        run.go_on_for(WARM_UP, true)?;
        run.latency.reset();
        let (before, count, began) = (process.taken(), run.acknowledged, Instant::now());
        run.go_on_for(settings.time, true)?;
        let (after, took) = (process.taken(), began.elapsed().as_secs_f64());
        let count = (run.acknowledged - count) as f64;
        let (half, nearly_all) = (run.latency_at(0.5), run.latency_at(0.99));
        let mut figures = Figures::with_faults(self.finish(&mut run)?);
        // Bytes that the store writes late were caused by the messages before.
        process.rest();
        // Output that was still waiting belongs to the measurement.
        let all = run.acknowledged as f64;
        figures.put("per s", count / took);
        figures.put("p50 ms", half);
        figures.put("p99 ms", nearly_all);
        figures.put("CPU µs each", (after.cpu_secs - before.cpu_secs) / count.max(1.0) * 1e6);
        figures.put("written B each", process.taken().written / all.max(1.0));
        Ok(figures)
    }

    fn prepare(self, process: &Process) -> Outcome<Run> {
        let mut crowd = Crowd::new(process.address)?;
        let count = self.publishers;
        let first = crowd.connect(count, false, |number| format!("subscriber-{number}"))?;
        let filters = (0..count).map(|number| (first + number, vec![topic(number)]));
        crowd.subscribe(filters, QoS::AtLeastOnce)?;
        if !self.is_online {
            for who in first..first + count {
                crowd.say(who, Outbox::disconnect);
            }
            crowd.turn(Duration::ZERO, |_, _, _| {})?;
            (first..first + count).for_each(|who| crowd.close(who));
        }
        let first_publisher = crowd.connect(count, true, |number| format!("publisher-{number}"))?;
        let slots = usize::from(self.in_flight) + 1;
        Ok(Run {
            crowd,
            first_publisher,
            publishers: count,
            sent_at: vec![vec![Instant::now(); slots]; count],
            latency: Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)?,
            acknowledged: 0,
            delivered: 0,
            cut_off: 0,
            last_delivery: Instant::now(),
        })
    }

    /// Fills each publisher's window.
    fn begin(self, run: &mut Run) {
        for number in 0..self.publishers {
            let topic = topic(number);
            for id in 1..=self.in_flight {
                run.sent_at[number][usize::from(id)] = Instant::now();
                let who = run.first_publisher + number;
                run.crowd.say(who, |out| out.publish(&topic, &PAYLOAD, QoS::AtLeastOnce, id));
            }
        }
    }

    /// Waits for messages in flight; returns how many did not arrive.
    fn finish(self, run: &mut Run) -> Outcome<u64> {
        let under_way = self.publishers as u64 * u64::from(self.in_flight);
        let all = run.acknowledged + under_way;
        run.last_delivery = Instant::now();
        let is_done = |run: &Run| {
            run.acknowledged == all && (!self.is_online || run.delivered >= run.acknowledged)
        };
        while !is_done(run) && run.last_delivery.elapsed() < SILENCE {
            run.go_on_for(TURN, false)?;
        }
        let undelivered = if self.is_online { all.saturating_sub(run.delivered) } else { 0 };
        Ok(all - run.acknowledged + undelivered + run.cut_off)
    }
}

impl Run {
    /// Receives and answers for this time; with `is_more` each PUBACK is followed by the next
    /// message.
    fn go_on_for(&mut self, time: Duration, is_more: bool) -> Outcome<()> {
        let until = Instant::now() + time;
        let Self { crowd, first_publisher, publishers, sent_at, latency, .. } = self;
        let (acknowledged, delivered) = (&mut self.acknowledged, &mut self.delivered);
        let (cut_off, last_delivery) = (&mut self.cut_off, &mut self.last_delivery);
        while Instant::now() < until {
            crowd.turn(TURN, |who, heard, out| match heard {
                Heard::Packet(Packet::PubAck(ack)) => {
                    let number = who - *first_publisher;
                    let now = Instant::now();
                    *acknowledged += 1;
                    *last_delivery = now;
                    let id = ack.packet_id.number();
                    // By Packet Identifier, because acknowledgements
                    // of several messages may overtake each other.
                    let sent = &mut sent_at[number][usize::from(id)];
                    latency.saturating_record((now - *sent).as_micros() as u64);
                    if is_more {
                        *sent = now;
                        out.publish(&topic(number), &PAYLOAD, QoS::AtLeastOnce, id);
                    }
                }
                Heard::Packet(packet) => {
                    if matches!(packet, Packet::Publish(_)) {
                        *delivered += 1;
                        *last_delivery = Instant::now();
                    }
                    out.acknowledge(&packet);
                }
                Heard::Closed => *cut_off += 1,
            })?;
            if *cut_off > *publishers as u64 / 2 {
                return Err("the broker has closed most connections".into());
            }
        }
        Ok(())
    }

    /// Returns a latency in milliseconds.
    fn latency_at(&self, share: f64) -> f64 {
        self.latency.value_at_quantile(share) as f64 / 1_000.0
    }
}
