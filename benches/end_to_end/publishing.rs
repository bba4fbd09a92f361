//! Workloads of messages: the pattern of publishers and subscribers, and the rate.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use hearthmq::mqtt::{Packet, QoS};

use super::{
    Outcome, Settings,
    brokers::Running,
    crowd::{Crowd, Heard},
    ledger::{Balance, Ledger},
    report::Figures,
};

/// The pattern of publishers and subscribers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pattern {
    /// Each publisher has a topic and a subscriber of its own.
    Pairs(usize),
    /// One publisher, this many subscribers.
    FanOut(usize),
    /// This many publishers, two subscribers that get everything.
    FanIn(usize),
    /// Ten publishers, one shared subscription with this many members.
    Shared(usize),
    /// This many filters, a third each exact, with `+` and with `#`; each topic matches three of
    /// them.
    Filters(usize),
}

/// A pattern, and what is published at which rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publishing {
    pub(crate) pattern: Pattern,
    pub(crate) qos: QoS,
    pub(crate) payload_bytes: usize,
    /// Messages per second of all publishers; `None`: as many as the broker accepts.
    pub(crate) rate: Option<u32>,
}

const FILTER_SUBSCRIBERS: usize = 99;
const FILTER_PUBLISHERS: usize = 10;
const SHARED_PUBLISHERS: usize = 10;
/// Messages in flight of a publisher, until every delivery of them has arrived.
const WINDOW: usize = 16;
/// The same with many publishers for one subscriber, whose Receive Maximum limits the broker.
const WINDOW_OF_FAN_IN: usize = 4;
/// The same with a rate, because a stalled broker must not slow the publisher down.
const WINDOW_WITH_RATE: usize = 1000;
const WARM_UP: Duration = Duration::from_millis(500);
/// Length of a turn where two workloads alternate, and the part of it that is not measured.
const TURN: Duration = Duration::from_millis(900);
const SETTLING: Duration = Duration::from_millis(100);
/// Silence after the last message, after which missing messages count as lost.
const SILENCE: Duration = Duration::from_secs(3);

impl Pattern {
    const fn publishers(self) -> usize {
        match self {
            Self::Pairs(count) | Self::FanIn(count) => count,
            Self::FanOut(_) => 1,
            Self::Shared(_) => SHARED_PUBLISHERS,
            Self::Filters(_) => FILTER_PUBLISHERS,
        }
    }

    const fn subscribers(self) -> usize {
        match self {
            Self::Pairs(count) | Self::FanOut(count) | Self::Shared(count) => count,
            Self::FanIn(_) => 2,
            Self::Filters(_) => FILTER_SUBSCRIBERS,
        }
    }

    /// Returns the number of deliveries of one message.
    const fn fan(self) -> usize {
        match self {
            Self::Pairs(_) | Self::Shared(_) => 1,
            Self::FanOut(subscribers) => subscribers,
            Self::FanIn(_) => 2,
            Self::Filters(_) => 3,
        }
    }

    /// Returns whether a subscriber gets all messages of a publisher through one topic and filter.
    const fn is_ordered(self) -> bool {
        matches!(self, Self::Pairs(_) | Self::FanOut(_) | Self::FanIn(_))
    }

    fn filters(self, subscriber: usize) -> Vec<String> {
        match self {
            Self::Pairs(_) => vec![topic_of(subscriber)],
            Self::FanOut(_) => vec![topic_of(0)],
            Self::FanIn(_) => vec!["bench/+".to_owned()],
            Self::Shared(_) => vec!["$share/group/bench/+".to_owned()],
            Self::Filters(count) => {
                // The three filters that match a topic belong to three subscribers.
                let third = FILTER_SUBSCRIBERS / 3;
                let number_of = |kind| subscriber + FILTER_SUBSCRIBERS - kind * third;
                let mine = |kind| {
                    (number_of(kind) % FILTER_SUBSCRIBERS..count / 3).step_by(FILTER_SUBSCRIBERS)
                };
                let exact = mine(0).map(|number| format!("bench/{number}/value"));
                let single = mine(1).map(|number| format!("+/{number}/value"));
                let multi = mine(2).map(|number| format!("bench/{number}/#"));
                exact.chain(single).chain(multi).collect()
            }
        }
    }

    fn topic(self, publisher: usize, random: &mut fastrand::Rng, topic: &mut String) {
        use std::fmt::Write;
        topic.clear();
        let written = match self {
            Self::Filters(count) => write!(topic, "bench/{}/value", random.usize(..count / 3)),
            Self::Pairs(_) | Self::FanOut(_) | Self::FanIn(_) | Self::Shared(_) => {
                write!(topic, "bench/{publisher}")
            }
        };
        written.expect("a string takes all");
    }
}

fn topic_of(number: usize) -> String {
    format!("bench/{number}")
}

/// A running workload.
struct Run<'r> {
    what: Publishing,
    crowd: &'r mut Crowd,
    ledger: Ledger,
    /// Number of the first publisher in the crowd; subscribers come before it.
    first_publisher: usize,
    first_subscriber: usize,
    /// Deliveries that each publisher waits for.
    under_way: Vec<usize>,
    last_id: Vec<u16>,
    payload: Vec<u8>,
    topic: String,
    random: fastrand::Rng,
    began: Instant,
    /// Number of messages published at the rate.
    paced: u64,
    last_delivery: Instant,
    /// Called between turns.
    meanwhile: &'r mut dyn FnMut() -> Outcome<()>,
}

impl Publishing {
    /// Subscribes, publishes, and returns the figures.
    pub(crate) fn measure(self, broker: &Running, settings: &Settings) -> Outcome<Figures> {
        let mut crowd = Crowd::new(broker.address)?;
        let before = broker.usage();
        let first = self.subscribe(&mut crowd)?;
        let subscribed = broker.usage();
        let mut meanwhile = || Ok(());
        let mut run = self.prepare(&mut crowd, first, &mut meanwhile)?;
        run.go_on_for(WARM_UP)?;
        // Forgets the latencies of the warm-up, but not its faults.
        run.ledger.begin_measuring();
        let (delivered, began, usage) = (run.ledger.delivered, Instant::now(), broker.usage());
        run.go_on_for(settings.time)?;
        let took = began.elapsed().as_secs_f64();
        let after = broker.usage();
        let delivered = (run.ledger.delivered - delivered) as f64;
        let latencies = [0.5, 0.99, 0.999].map(|share| run.ledger.latency_at(share));
        let mut figures = Figures::with_faults(run.finish()?);
        figures.put("per s", delivered / took);
        figures.put("CPU s per million", (after.cpu_secs - usage.cpu_secs) / delivered * 1e6);
        for (name, latency) in ["p50 us", "p99 us", "p99.9 us"].into_iter().zip(latencies) {
            figures.put(name, latency.as_secs_f64() * 1e6);
        }
        if let Pattern::Filters(count) = self.pattern {
            let grown = subscribed.resident_bytes - before.resident_bytes;
            figures.put("bytes per filter", grown / count as f64);
        }
        Ok(figures)
    }

    /// Returns the latencies of messages in every other turn of `turns`, and in the turns between,
    /// in which `meanwhile` is active, so that disturbances of the machine affect both. Also
    /// returns the faults.
    pub(crate) fn latencies_in_turns(
        self,
        broker: &Running,
        turns: usize,
        meanwhile: &mut dyn FnMut(bool) -> Outcome<()>,
    ) -> Outcome<([Histogram<u64>; 2], u64)> {
        let mut crowd = Crowd::new(broker.address)?;
        let first = self.subscribe(&mut crowd)?;
        let is_between = Cell::new(false);
        let mut meanwhile = || meanwhile(is_between.get());
        let mut run = self.prepare(&mut crowd, first, &mut meanwhile)?;
        run.go_on_for(WARM_UP)?;
        let mut latencies = [0, 1].map(|_| Histogram::new_from(run.ledger.latency()));
        for turn in 0..turns {
            is_between.set(turn % 2 == 1);
            // The calls of the turn before are still being answered at its beginning.
            run.go_on_for(SETTLING)?;
            run.ledger.begin_measuring();
            run.go_on_for(TURN)?;
            latencies[turn % 2].add(run.ledger.latency())?;
        }
        Ok((latencies, run.finish()?))
    }

    /// Connects the subscribers; returns the number of the first.
    fn subscribe(self, crowd: &mut Crowd) -> Outcome<usize> {
        let pattern = self.pattern;
        let first = crowd.connect(pattern.subscribers(), true, |n| format!("subscriber-{n}"))?;
        let subscribers = (0..pattern.subscribers()).map(|n| (first + n, pattern.filters(n)));
        crowd.subscribe(subscribers, self.qos)?;
        Ok(first)
    }

    fn prepare<'r>(
        self,
        crowd: &'r mut Crowd,
        first_subscriber: usize,
        meanwhile: &'r mut dyn FnMut() -> Outcome<()>,
    ) -> Outcome<Run<'r>> {
        let pattern = self.pattern;
        let publishers = pattern.publishers();
        let first_publisher = crowd.connect(publishers, true, |n| format!("publisher-{n}"))?;
        let (subscribers, fan) = (pattern.subscribers(), pattern.fan());
        Ok(Run {
            what: self,
            crowd,
            ledger: Ledger::new(publishers, subscribers, fan, pattern.is_ordered()),
            first_publisher,
            first_subscriber,
            under_way: vec![0; publishers],
            last_id: vec![0; publishers],
            payload: vec![b'x'; self.payload_bytes],
            topic: String::new(),
            random: fastrand::Rng::with_seed(1),
            began: Instant::now(),
            paced: 0,
            last_delivery: Instant::now(),
            meanwhile,
        })
    }
}

impl Run<'_> {
    fn go_on_for(&mut self, time: Duration) -> Outcome<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            match self.what.rate {
                None => self.publish_what_fits(),
                Some(rate) => self.publish_what_is_due(rate),
            }
            self.turn()?;
            (self.meanwhile)()?;
        }
        Ok(())
    }

    /// Stops publishing and waits for messages in flight; returns the faults of the whole run.
    fn finish(&mut self) -> Outcome<u64> {
        while !self.ledger.is_settled() && self.last_delivery.elapsed() < SILENCE {
            self.turn()?;
        }
        let Balance { lost, doubled } = self.ledger.balance();
        Ok(lost + doubled + self.ledger.disordered + self.ledger.strays)
    }

    fn publish_what_fits(&mut self) {
        let fan = self.what.pattern.fan();
        let is_fan_in = matches!(self.what.pattern, Pattern::FanIn(_));
        let window = if is_fan_in { WINDOW_OF_FAN_IN } else { WINDOW };
        for publisher in 0..self.under_way.len() {
            // A quarter of the window at a time, like a client that batches.
            if self.under_way[publisher] <= (window - window.div_ceil(4)) * fan {
                let now = Instant::now();
                while self.under_way[publisher] < window * fan {
                    self.publish(publisher, now);
                }
            }
        }
    }

    fn publish_what_is_due(&mut self, rate: u32) {
        let due = (self.began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        let publishers = self.under_way.len() as u64;
        while self.paced < due {
            let publisher = (self.paced % publishers) as usize;
            let since = Duration::from_secs_f64(self.paced as f64 / f64::from(rate));
            if self.under_way[publisher] < WINDOW_WITH_RATE * self.what.pattern.fan() {
                self.publish(publisher, self.began + since);
            }
            self.paced += 1;
        }
    }

    fn publish(&mut self, publisher: usize, due: Instant) {
        self.ledger.stamp(publisher, due, &mut self.payload);
        self.what.pattern.topic(publisher, &mut self.random, &mut self.topic);
        self.under_way[publisher] += self.what.pattern.fan();
        let id = self.last_id[publisher].checked_add(1).unwrap_or(1);
        self.last_id[publisher] = id;
        let who = self.first_publisher + publisher;
        let (topic, payload, qos) = (&self.topic, &self.payload, self.what.qos);
        self.crowd.say(who, |out| out.publish(topic, payload, qos, id));
    }

    /// Receives what came. With a rate it never sleeps, because it would measure its own sleep.
    fn turn(&mut self) -> Outcome<()> {
        let wait = if self.what.rate.is_some() { 0 } else { 10 };
        let Self { crowd, ledger, under_way, first_subscriber, last_delivery, .. } = self;
        let mut is_closed = false;
        crowd.turn(Duration::from_millis(wait), |who, heard, out| match heard {
            Heard::Packet(packet) => {
                if let Packet::Publish(publish) = &packet {
                    *last_delivery = Instant::now();
                    let subscriber = who - *first_subscriber;
                    let from = ledger.note(subscriber, publish.payload, *last_delivery);
                    if let Some(publisher) = from {
                        under_way[publisher] = under_way[publisher].saturating_sub(1);
                    }
                }
                out.acknowledge(&packet);
            }
            Heard::Closed => is_closed = true,
        })?;
        if is_closed { Err("the broker has closed a connection".into()) } else { Ok(()) }
    }
}
