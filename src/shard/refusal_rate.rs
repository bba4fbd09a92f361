//! The rate of the events of refused clients: for each address (IPv6: each /64) and in all.
//!
//! Any stranger can cause refusals. An address has a bucket of tokens, in a table of a fixed size:
//! addresses that share a bucket share its rate. Time is an argument.

use std::{
    hash::BuildHasher as _,
    net::{IpAddr, Ipv6Addr},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::RandomState;

use crate::mqtt::Timestamp;

/// Number of buckets. Their memory is fixed: 32 KiB after the first refusal.
const BUCKETS: usize = 4_096;
/// The long-term interval between two events of one address, and the number of events without an interval.
const EACH: RefusalTokens = RefusalTokens { interval_millis: 1_000, burst: 20 };
/// The same for all addresses together.
const ALL: RefusalTokens = RefusalTokens { interval_millis: 10, burst: 1_000 };

/// A bucket of tokens: the time for one token, and its capacity.
struct RefusalTokens {
    interval_millis: u64,
    burst: u64,
}

/// The rate of the events of refused clients.
#[derive(Default)]
pub(crate) struct RefusalRate {
    hasher: RandomState,
    each: OnceLock<Box<[AtomicU64]>>,
    all: AtomicU64,
}

impl RefusalRate {
    pub(in crate::shard) fn allows(&self, address: IpAddr, now: Timestamp) -> bool {
        let each = self.each.get_or_init(|| (0..BUCKETS).map(|_| AtomicU64::new(0)).collect());
        let position = self.hasher.hash_one(network(address)) as usize % BUCKETS;
        let bucket = each.get(position);
        bucket.is_some_and(|bucket| EACH.takes(bucket, now)) && ALL.takes(&self.all, now)
    }
}

impl RefusalTokens {
    /// Takes a token; returns whether there was one. A bucket is stored as the time at which it will be full.
    fn takes(&self, bucket: &AtomicU64, now: Timestamp) -> bool {
        let now = now.millis();
        let latest = now + self.interval_millis * (self.burst - 1);
        let take =
            |full_at: u64| (full_at <= latest).then(|| full_at.max(now) + self.interval_millis);
        bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// Returns the network whose addresses count as one: the /64 of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_burst_and_then_one_event_a_second() {
        let rate = RefusalRate::default();
        let count = |address: &str, now, times: usize| {
            let address = address.parse().unwrap();
            (0..times).filter(|_| rate.allows(address, Timestamp(now))).count()
        };
        assert_eq!(count("192.0.2.1", 5_000, 100), 20);
        assert_eq!(count("192.0.2.1", 5_999, 100), 0);
        assert_eq!(count("192.0.2.1", 8_000, 100), 3);
        assert_eq!(count("2001:db8::1", 8_000, 15) + count("2001:db8::2", 8_000, 15), 20);
    }

    #[test]
    fn all_addresses_have_a_rate_together() {
        let rate = RefusalRate::default();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let count = |now| (0..5_000).filter(|n| rate.allows(address(*n), Timestamp(now))).count();
        assert_eq!(count(5_000), 1_000);
        assert_eq!(count(6_000), 100);
    }
}
