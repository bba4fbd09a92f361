//! Accounts for every message: what was sent, where it arrived, how late.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The start of each payload: publisher, number among its messages, nanoseconds since the ledger
/// was opened. The rest is padding.
const STAMP_BYTES: usize = 16;

/// A minute; longer times count as this much.
pub(crate) const LATENCY_NANOS_MAX: u64 = 60_000_000_000;

pub(crate) struct Ledger {
    opened: Instant,
    /// How often each message of each publisher has arrived.
    arrivals: Vec<Vec<u16>>,
    /// Number of deliveries due for one message.
    fan: usize,
    /// Highest number that a subscriber has received from a publisher, plus one; empty where
    /// messages may overtake each other.
    highest: Vec<u32>,
    publishers: usize,
    pub(crate) delivered: u64,
    pub(crate) disordered: u64,
    pub(crate) strays: u64,
    latency: Histogram<u64>,
}

/// The outcome of all messages.
pub(crate) struct Balance {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
}

impl Ledger {
    pub(crate) fn new(publishers: usize, subscribers: usize, fan: usize, is_ordered: bool) -> Self {
        Self {
            opened: Instant::now(),
            arrivals: vec![Vec::new(); publishers],
            fan,
            highest: if is_ordered { vec![0; publishers * subscribers] } else { Vec::new() },
            publishers,
            delivered: 0,
            disordered: 0,
            strays: 0,
            latency: Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3)
                .expect("the bounds are right"),
        }
    }

    /// Writes the stamp of the next message of `publisher` into `payload`; returns its number. The
    /// message counts as sent at `due`.
    pub(crate) fn stamp(&mut self, publisher: usize, due: Instant, payload: &mut [u8]) -> u32 {
        let number = self.arrivals[publisher].len() as u32;
        self.arrivals[publisher].push(0);
        let nanos = due.saturating_duration_since(self.opened).as_nanos() as u64;
        payload[..4].copy_from_slice(&(publisher as u32).to_le_bytes());
        payload[4..8].copy_from_slice(&number.to_le_bytes());
        payload[8..STAMP_BYTES].copy_from_slice(&nanos.to_le_bytes());
        number
    }

    /// Notes a delivery at `now`; returns its publisher.
    pub(crate) fn note(
        &mut self,
        subscriber: usize,
        payload: &[u8],
        now: Instant,
    ) -> Option<usize> {
        let Some((publisher, number, nanos)) = read_stamp(payload) else {
            self.strays += 1;
            return None;
        };
        let known = self.arrivals.get_mut(publisher);
        let Some(arrivals) = known.and_then(|numbers| numbers.get_mut(number as usize)) else {
            self.strays += 1;
            return None;
        };
        // Counted, not only marked, so that a duplicate is a fault too.
        *arrivals = arrivals.saturating_add(1);
        if let Some(highest) = self.highest.get_mut(subscriber * self.publishers + publisher) {
            self.disordered += u64::from(number < *highest);
            // Also after a disorder, so that one late message is one fault.
            *highest = number + 1;
        }
        self.delivered += 1;
        // The stamp counts from the opening of the ledger, so both times have one clock.
        let late = (now - self.opened).as_nanos() as u64;
        self.latency.saturating_record(late.saturating_sub(nanos).max(1));
        Some(publisher)
    }

    /// Forgets the latencies so far.
    pub(crate) fn begin_measuring(&mut self) {
        self.latency.reset();
    }

    pub(crate) const fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    pub(crate) fn latency_at(&self, share: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(share))
    }

    /// Returns whether all due deliveries have arrived.
    pub(crate) fn is_settled(&self) -> bool {
        let due: usize = self.arrivals.iter().map(Vec::len).sum();
        self.delivered >= (due * self.fan) as u64
    }

    pub(crate) fn balance(&self) -> Balance {
        let fan = self.fan as u64;
        let counts = self.arrivals.iter().flatten().map(|count| u64::from(*count));
        counts.fold(Balance { lost: 0, doubled: 0 }, |sum, count| Balance {
            lost: sum.lost + fan.saturating_sub(count),
            doubled: sum.doubled + count.saturating_sub(fan),
        })
    }
}

fn read_stamp(payload: &[u8]) -> Option<(usize, u32, u64)> {
    let (publisher, rest) = payload.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (nanos, _) = rest.split_first_chunk()?;
    Some((
        u32::from_le_bytes(*publisher) as usize,
        u32::from_le_bytes(*number),
        u64::from_le_bytes(*nanos),
    ))
}
