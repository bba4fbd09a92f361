//! The pace at which one client is read: messages and bytes for each second.
//!
//! A bucket has the amount that may be read in one second. One message may overdraw it, so that a message of any
//! length can be read. Only clients with such a setting have a pace. Knows neither packets nor connections.

use crate::mqtt::Timestamp;

/// The rates at which a client is read.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Pace {
    messages: Option<PaceBucket>,
    bytes: Option<PaceBucket>,
}

/// The amount that may still be read, in thousandths: it grows by the rate in each millisecond.
#[derive(Clone, Copy, Debug)]
struct PaceBucket {
    rate: i64,
    thousandths: i64,
    at: Timestamp,
}

impl PaceBucket {
    fn new(rate: u32, now: Timestamp) -> Self {
        let rate = i64::from(rate);
        Self { rate, thousandths: rate * 1_000, at: now }
    }

    fn fill(&mut self, now: Timestamp) {
        let passed = i64::try_from(now.since(self.at).as_millis()).unwrap_or(i64::MAX);
        let added = passed.saturating_mul(self.rate);
        self.thousandths = self.thousandths.saturating_add(added).min(self.rate * 1_000);
        self.at = now;
    }

    fn allows(&mut self, now: Timestamp) -> bool {
        self.fill(now);
        self.thousandths > 0
    }

    fn allows_at(&mut self, now: Timestamp) -> Timestamp {
        if self.allows(now) {
            return now;
        }
        // The first millisecond after which the amount is positive.
        let millis = -self.thousandths / self.rate + 1;
        Timestamp(now.millis().saturating_add(millis.unsigned_abs()))
    }

    fn take(&mut self, amount: usize) {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX).saturating_mul(1_000);
        self.thousandths = self.thousandths.saturating_sub(amount);
    }
}

impl Pace {
    /// Returns the pace of these rates; `None` if there is no rate.
    pub(in crate::shard) fn new(
        message_rate: Option<u32>,
        byte_rate: Option<u32>,
        now: Timestamp,
    ) -> Option<Self> {
        let bucket = |rate| PaceBucket::new(rate, now);
        let pace = Self { messages: message_rate.map(bucket), bytes: byte_rate.map(bucket) };
        (pace.messages.is_some() || pace.bytes.is_some()).then_some(pace)
    }

    /// Returns whether the next message may be read.
    pub(in crate::shard) fn allows(&mut self, now: Timestamp) -> bool {
        let mut buckets = self.messages.iter_mut().chain(&mut self.bytes);
        buckets.all(|bucket| bucket.allows(now))
    }

    /// Returns when the next message may be read; `now` if it may be read now.
    pub(in crate::shard) fn allows_at(&mut self, now: Timestamp) -> Timestamp {
        let buckets = self.messages.iter_mut().chain(&mut self.bytes);
        buckets.map(|bucket| bucket.allows_at(now)).max().unwrap_or(now)
    }

    /// Counts a message of this many bytes.
    pub(in crate::shard) fn take(&mut self, bytes: usize) {
        if let Some(messages) = &mut self.messages {
            messages.take(1);
        }
        if let Some(of_bytes) = &mut self.bytes {
            of_bytes.take(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_be_read_at_its_rate_and_a_second_ahead() {
        let at = |millis: u64| Timestamp(1_000_000 + millis);
        let mut pace = Pace::new(Some(10), None, at(0)).expect("it has a rate");
        let mut read = 0;
        for millis in 0..10_000 {
            while pace.allows(at(millis)) {
                pace.take(1_000_000);
                read += 1;
            }
        }
        assert!((109..=110).contains(&read), "{read}");
    }

    #[test]
    fn a_large_message_is_paid_for_afterwards() {
        let at = |millis: u64| Timestamp(1_000_000 + millis);
        let mut pace = Pace::new(None, Some(1_000), at(0)).expect("it has a rate");
        assert!(pace.allows(at(0)));
        pace.take(6_000);
        assert_eq!(pace.allows_at(at(10)), at(5_001));
        assert!(!pace.allows(at(5_000)));
        assert_eq!(pace.allows_at(at(5_000)), at(5_001));
        assert!(pace.allows(at(5_001)));
        assert_eq!(pace.allows_at(at(5_002)), at(5_002));
        assert!(Pace::new(None, None, at(0)).is_none());
    }
}
