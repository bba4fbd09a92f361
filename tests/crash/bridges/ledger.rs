//! What the brokers have promised to publishers, and what has arrived behind the bridge.
//!
//! A stream is all that one publisher sends to one topic. Its messages are numbered, so the ledger needs
//! no knowledge of packets to say what was lost, doubled, or out of order.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use hearthmq::mqtt::QoS;

/// Faults of one kind that are told for a stream.
const TOLD_MAX: usize = 8;

/// The side of a bridge where a message is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Direction {
    /// From the broker with the bridge to the other one.
    Out,
    /// From the other broker to the one with the bridge.
    In,
}

impl Direction {
    pub(super) const BOTH: [Self; 2] = [Self::Out, Self::In];

    /// Returns the first level of its topics.
    pub(super) const fn level(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// What one publisher sends to one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Stream {
    pub(super) direction: Direction,
    pub(super) publisher: usize,
    pub(super) qos: QoS,
}

impl Stream {
    /// Returns the topic where it is published.
    pub(super) fn topic(self) -> String {
        format!("{}/{}/{}", self.direction.level(), self.qos.number(), self.publisher)
    }

    /// Returns the topic behind the bridge.
    pub(super) fn topic_there(self) -> String {
        format!("{}/{}", prefix(self.direction), self.topic())
    }

    /// Reads a topic of [`Self::topic_there`].
    pub(super) fn of_topic_there(direction: Direction, topic: &str) -> Option<Self> {
        Self::of_topic(direction, topic.strip_prefix(prefix(direction))?.strip_prefix('/')?)
    }

    /// Reads a topic of [`Self::topic`].
    pub(super) fn of_topic(direction: Direction, topic: &str) -> Option<Self> {
        let rest = topic.strip_prefix(direction.level())?.strip_prefix('/')?;
        let (qos, publisher) = rest.split_once('/')?;
        let qos = match qos {
            "1" => QoS::AtLeastOnce,
            "2" => QoS::ExactlyOnce,
            _ => return None,
        };
        Some(Self { direction, publisher: publisher.parse().ok()?, qos })
    }
}

/// Returns what the bridge puts before topics of a direction.
pub(super) const fn prefix(direction: Direction) -> &'static str {
    match direction {
        Direction::Out => "of/near",
        Direction::In => "of/far",
    }
}

#[derive(Default)]
struct Page {
    sent: u32,
    acknowledged: BTreeSet<u32>,
    /// How often each message arrived.
    arrived: BTreeMap<u32, u32>,
    /// Messages that arrived first after a later one.
    late: Vec<u32>,
    /// The last message that the other broker has sent over the bridge.
    last_sent: Option<u32>,
    /// Messages that the other broker itself has sent first after a later one.
    sent_late: BTreeSet<u32>,
    sent_before: BTreeSet<u32>,
}

#[derive(Default)]
struct Pages {
    all: BTreeMap<Stream, Page>,
    acknowledged: u64,
    /// When the last message arrived first.
    last_arrival: Option<Instant>,
    faults: Vec<String>,
    last_trouble: Option<String>,
}

/// Shared by all players of a round.
#[derive(Default)]
pub(super) struct Ledger(Mutex<Pages>);

/// What came of one or more rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) acknowledged: u64,
    pub(super) arrived: u64,
    pub(super) lost: u64,
    /// QoS 2 that arrived more than once.
    pub(super) doubled: u64,
    /// QoS 1 that arrived more than once, which is allowed.
    pub(super) repeated: u64,
    pub(super) out_of_order: u64,
    /// Out of order already when the other broker has sent them to the bridge.
    pub(super) sent_out_of_order: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.arrived += other.arrived;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.repeated += other.repeated;
        self.out_of_order += other.out_of_order;
        self.sent_out_of_order += other.sent_out_of_order;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages acknowledged, {} arrived, {} lost, {} doubled (QoS 2), {} repeated (QoS 1), {} out of order ({} \
             by the other broker)",
            self.acknowledged,
            self.arrived,
            self.lost,
            self.doubled,
            self.repeated,
            self.out_of_order,
            self.sent_out_of_order,
        )
    }
}

impl Ledger {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap()
    }

    /// Returns the number of the next message of a stream.
    pub(super) fn next(&self, stream: Stream) -> u32 {
        let mut pages = self.pages();
        let page = pages.all.entry(stream).or_default();
        page.sent += 1;
        page.sent - 1
    }

    /// Returns how many messages of a stream have not arrived.
    pub(super) fn on_the_way(&self, stream: Stream) -> usize {
        let pages = self.pages();
        let page = pages.all.get(&stream);
        page.map_or(0, |page| (page.sent as usize).saturating_sub(page.arrived.len()))
    }

    pub(super) fn acknowledged(&self, stream: Stream, number: u32) {
        let mut pages = self.pages();
        if pages.all.entry(stream).or_default().acknowledged.insert(number) {
            pages.acknowledged += 1;
        }
    }

    pub(super) fn arrived(&self, stream: Stream, number: u32) {
        let mut pages = self.pages();
        pages.last_arrival = Some(Instant::now());
        let page = pages.all.entry(stream).or_default();
        let last = page.arrived.keys().next_back().copied();
        let times = page.arrived.entry(number).or_default();
        *times += 1;
        if *times == 1 && last.is_some_and(|last| last > number) {
            page.late.push(number);
        }
    }

    /// Notes that the other broker has sent a message to the bridge, behind `last` on the same connection:
    /// Mosquitto 2.0 lets messages overtake others after a reconnection, and a bridge keeps the order in
    /// which it gets them.
    pub(super) fn sent_by_other(&self, stream: Stream, number: u32, last: Option<u32>) {
        let mut pages = self.pages();
        let page = pages.all.entry(stream).or_default();
        let is_first = page.sent_before.insert(number);
        if last.is_some_and(|last| last > number)
            || is_first && page.last_sent.is_some_and(|last| last > number)
        {
            page.sent_late.insert(number);
        }
        page.last_sent = page.last_sent.max(Some(number));
    }

    /// Notes what must never happen.
    pub(super) fn fault(&self, text: String) {
        self.pages().faults.push(text);
    }

    /// Notes why a connection ended; most ends are made by the test.
    pub(super) fn trouble(&self, text: String) {
        self.pages().last_trouble = Some(text);
    }

    pub(super) fn count_of_acknowledged(&self) -> u64 {
        self.pages().acknowledged
    }

    pub(super) fn last_arrival(&self) -> Option<Instant> {
        self.pages().last_arrival
    }

    /// Whether everything that was acknowledged has arrived.
    pub(super) fn is_settled(&self) -> bool {
        self.pages().all.values().all(|page| page.missing().next().is_none())
    }

    /// Returns what became of all messages, and the faults.
    pub(super) fn close(&self) -> (Counts, Vec<String>) {
        let pages = self.pages();
        let (mut counts, mut faults) = (Counts::default(), pages.faults.clone());
        for (stream, page) in &pages.all {
            let again: Vec<_> =
                page.arrived.iter().filter(|(_, times)| **times > 1).map(|(at, _)| *at).collect();
            let missing: Vec<_> = page.missing().collect();
            let number = |list: &[u32]| list.len() as u64;
            counts.acknowledged += page.acknowledged.len() as u64;
            counts.arrived += page.arrived.len() as u64;
            counts.lost += number(&missing);
            let late: Vec<_> =
                page.late.iter().copied().filter(|at| !page.sent_late.contains(at)).collect();
            counts.out_of_order += number(&late);
            counts.sent_out_of_order += page.sent_late.len() as u64;
            let mut tell = |what: &str, list: &[u32]| {
                if let Some(told) = list.get(..list.len().min(TOLD_MAX)).filter(|l| !l.is_empty()) {
                    let (topic, all, sent) = (stream.topic(), list.len(), page.sent);
                    faults
                        .push(format!("{topic}: {all} {what} of {sent} sent, the first {told:?}"));
                }
            };
            tell("lost", &missing);
            tell("out of order", &late);
            if stream.qos == QoS::ExactlyOnce {
                counts.doubled += number(&again);
                tell("doubled", &again);
            } else {
                counts.repeated += number(&again);
            }
        }
        if !faults.is_empty() {
            faults.extend(pages.last_trouble.iter().map(|why| format!("last trouble: {why}")));
        }
        (counts, faults)
    }
}

impl Page {
    fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        self.acknowledged.iter().filter(|number| !self.arrived.contains_key(number)).copied()
    }
}

#[test]
fn a_ledger_notices_what_is_lost_doubled_and_late() {
    let ledger = Ledger::default();
    let stream = |qos| Stream { direction: Direction::In, publisher: 3, qos };
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let stream = stream(qos);
        assert_eq!(Stream::of_topic_there(Direction::In, &stream.topic_there()), Some(stream));
        for number in 0..5 {
            assert_eq!(ledger.next(stream), number);
            ledger.acknowledged(stream, number);
        }
        // 0 is lost, 1 comes twice, 3 after 4.
        [1, 2, 1, 4, 3].into_iter().for_each(|number| ledger.arrived(stream, number));
    }
    // Of one of them, the order is that in which the other broker has sent it.
    let stream_2 = stream(QoS::ExactlyOnce);
    [1, 2, 1, 4, 3].into_iter().for_each(|number| ledger.sent_by_other(stream_2, number, None));
    assert!(!ledger.is_settled());
    let (counts, faults) = ledger.close();
    let expected = Counts {
        acknowledged: 10,
        arrived: 8,
        lost: 2,
        doubled: 1,
        repeated: 1,
        out_of_order: 1,
        sent_out_of_order: 1,
    };
    assert_eq!(counts, expected);
    assert_eq!(faults.len(), 4, "{faults:?}");
}
