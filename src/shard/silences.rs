//! Statistics of silences by network and listener: those that connections survived, and those after which the network
//! was gone.
//!
//! A connection is counted when it ends. The table is bounded: new networks replace networks with few connections.
//! Knows no sessions.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    auth::Network,
    control::{
        AdviceCertainty, FatalSilences, KeepAliveAdvice, KeepAliveAdvicePage, ListKeepAliveAdvice,
        SurvivedSilences,
    },
};

/// Maximum number of pairs of network and listener.
const ENTRIES_MAX: usize = 4_096;
/// Bits of the network of an IPv4 address, and of an IPv6 address.
const IPV4_BITS: u32 = 24;
const IPV6_BITS: u32 = 48;
/// Number of entries that are compared when one must be removed.
const COMPARED: usize = 16;
/// Maximum credits of an entry. Each connection gives it one, and each comparison takes one away; an entry with few
/// credits is removed first.
const CREDITS_MAX: u8 = 16;

/// Silences are counted in buckets, four to each doubling: from one second to a day and a half.
const BUCKETS_PER_DOUBLING: u8 = 4;
const BUCKETS: usize = 68;
/// A shorter silence before the end of a connection says nothing about the network.
const FATAL_MILLIS_MIN: u32 = 10_000;

/// The Keep Alives that may be advised, in seconds.
const ADVISED_SECS_MIN: u32 = 30;
const ADVISED_SECS_MAX: u32 = 1_200;
/// Minimum number of connections with a silence of some length for the silence to count.
const PROOFS_MIN: u32 = 3;
/// A fatal silence counts only if the connections that survived a silence of this length are at most this many times
/// as many. A client without power ends in the same way as a client whose network is gone.
const SURVIVORS_PER_FATAL_MAX: u32 = 10;

/// The silences of a connection that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SilencesOfConnection {
    pub(crate) survived_max_millis: u32,
    /// The silence after which the network was gone.
    pub(crate) fatal_millis: Option<u32>,
}

/// The silences of all networks.
#[derive(Default)]
pub(crate) struct Silences(Mutex<SilenceTable>);

type Place = (IpAddr, Arc<str>);

#[derive(Default)]
struct SilenceTable {
    entries: BTreeMap<Place, NetworkSilences>,
    /// The place at which the next search for an entry to remove begins.
    hand: Option<Place>,
}

struct NetworkSilences {
    credits: u8,
    connections: u32,
    survived_max_millis: u32,
    fatal_min_millis: u32,
    /// Connections by the longest silence that they survived.
    survived: Box<[u32; BUCKETS]>,
    /// Connections by the silence after which the network was gone.
    fatal: Box<[u32; BUCKETS]>,
}

impl Silences {
    /// Counts a connection that has ended.
    pub(crate) fn note(&self, address: IpAddr, listener: &Arc<str>, ended: SilencesOfConnection) {
        let mut table = self.table();
        let place = (network_of(address).address(), listener.clone());
        if !table.entries.contains_key(&place) && table.entries.len() >= ENTRIES_MAX {
            table.make_room();
        }
        table.entries.entry(place).or_insert_with(NetworkSilences::new).note(ended);
    }

    /// Returns a page of the statistics with the advice, in the order of networks and listeners.
    pub(crate) fn page(&self, question: &ListKeepAliveAdvice) -> KeepAliveAdvicePage {
        let table = self.table();
        let after = question.after.clone();
        let from = after
            .map_or(Bound::Unbounded, |(address, listener)| Bound::Excluded((address, listener)));
        let wanted = question.listener.as_deref();
        let found = table.entries.range((from, Bound::Unbounded));
        let mut found =
            found.filter(|((_, listener), _)| wanted.is_none_or(|it| *it == **listener));
        let limit = question.limit.clamp(1, ListKeepAliveAdvice::LIMIT_MAX);
        let items = found.by_ref().take(limit).map(|((address, listener), entry)| {
            entry.advice(network_of(*address), listener.clone())
        });
        let items: Vec<_> = items.collect();
        let last = items.last().map(|last| (last.network.address(), last.listener.clone()));
        KeepAliveAdvicePage::new(items, last.filter(|_| found.next().is_some()))
    }

    fn table(&self) -> MutexGuard<'_, SilenceTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SilenceTable {
    /// Removes the entry with the fewest credits among some entries.
    fn make_room(&mut self) {
        let from = self.hand.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut least: Option<(u8, Place)> = None;
        for (place, entry) in self.entries.range_mut((from, Bound::Unbounded)).take(COMPARED) {
            if least.as_ref().is_none_or(|(credits, _)| entry.credits < *credits) {
                least = Some((entry.credits, place.clone()));
            }
            entry.credits = entry.credits.saturating_sub(1);
            self.hand = Some(place.clone());
        }
        match least {
            Some((_, place)) => drop(self.entries.remove(&place)),
            None => drop(self.entries.pop_first()), // The hand was behind the last entry.
        }
    }
}

impl NetworkSilences {
    fn new() -> Self {
        Self {
            credits: 0,
            connections: 0,
            survived_max_millis: 0,
            fatal_min_millis: u32::MAX,
            survived: Box::new([0; BUCKETS]),
            fatal: Box::new([0; BUCKETS]),
        }
    }

    fn note(&mut self, ended: SilencesOfConnection) {
        self.credits = (self.credits + 1).min(CREDITS_MAX);
        self.connections = self.connections.saturating_add(1);
        let survived = ended.survived_max_millis;
        self.survived_max_millis = self.survived_max_millis.max(survived);
        let count = &mut self.survived[bucket_of(survived)];
        *count = count.saturating_add(1);
        if let Some(fatal) = ended.fatal_millis.filter(|fatal| *fatal >= FATAL_MILLIS_MIN) {
            self.fatal_min_millis = self.fatal_min_millis.min(fatal);
            let count = &mut self.fatal[bucket_of(fatal)];
            *count = count.saturating_add(1);
        }
    }

    fn advice(&self, network: Network, listener: Arc<str>) -> KeepAliveAdvice {
        let survived = |share| quantile(&self.survived[..], share);
        // A network without a fatal silence says only what it survives, and gets no upper bound.
        let fatal_count: u32 = sum(&self.fatal[..]);
        let fatal = (fatal_count > 0).then(|| FatalSilences {
            count: fatal_count.into(),
            shortest_secs: self.fatal_min_millis / 1_000,
            p50_secs: quantile(&self.fatal[..], 0.5),
        });
        let advised = self.advised();
        KeepAliveAdvice {
            network,
            listener,
            connections: self.connections.into(),
            survived: SurvivedSilences {
                p50_secs: survived(0.5),
                p90_secs: survived(0.9),
                p99_secs: survived(0.99),
                max_secs: self.survived_max_millis / 1_000,
            },
            fatal,
            advised_keep_alive_secs: advised.map(|(secs, _)| secs),
            certainty: advised.map(|(_, certainty)| certainty),
        }
    }

    /// Returns the advised Keep Alive in seconds, and how certain it is; `None` if too little is
    /// known. It is the longest silence that several connections have survived, and not more than
    /// two thirds of the shortest silence that was fatal to several.
    fn advised(&self) -> Option<(u16, AdviceCertainty)> {
        let is_proven = |bucket: &usize| self.survivors(*bucket) >= PROOFS_MIN;
        // The longest silence with enough survivors: a single outlier proves nothing.
        let proven = (0..BUCKETS).rev().find(is_proven).map(secs_of);
        let proven = proven.filter(|secs| *secs >= ADVISED_SECS_MIN);
        let is_attested = |bucket: &usize| {
            // After this silence, and down to half of it.
            let half = bucket.saturating_sub(BUCKETS_PER_DOUBLING.into());
            let fatal = sum(&self.fatal[half..=*bucket]);
            self.fatal[*bucket] > 0
                && fatal >= PROOFS_MIN
                && self.survivors(*bucket) <= fatal.saturating_mul(SURVIVORS_PER_FATAL_MAX)
        };
        let fatal = (0..BUCKETS).find(is_attested).map(|bucket| secs_of(bucket) * 2 / 3);
        // Without a proven and without a fatal silence, there is no advice.
        let advised = [proven, fatal].into_iter().flatten().min()?;
        let advised = advised.clamp(ADVISED_SECS_MIN, ADVISED_SECS_MAX);
        let certainty = match self.survivors(bucket_of(advised * 1_000)) {
            100.. => AdviceCertainty::High,
            10.. => AdviceCertainty::Medium,
            _ => AdviceCertainty::Low,
        };
        Some((u16::try_from(advised).unwrap_or(u16::MAX), certainty))
    }

    /// Returns the number of connections that have survived a silence of this bucket or longer.
    fn survivors(&self, bucket: usize) -> u32 {
        sum(&self.survived[bucket..])
    }
}

/// Returns the network whose connections are counted together.
fn network_of(address: IpAddr) -> Network {
    let address = address.to_canonical();
    Network::around(address, if address.is_ipv4() { IPV4_BITS } else { IPV6_BITS })
}

fn sum(counts: &[u32]) -> u32 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

/// Returns the bucket of a silence: 0 below one second.
fn bucket_of(millis: u32) -> usize {
    if millis < 1_000 {
        return 0;
    }
    let doublings = (f64::from(millis) / 1_000.0).log2();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 4 × 22 + 1"
    )]
    let bucket = (doublings * f64::from(BUCKETS_PER_DOUBLING)) as usize + 1;
    bucket.min(BUCKETS - 1)
}

/// Returns the shortest silence of a bucket in seconds, rounded down.
fn secs_of(bucket: usize) -> u32 {
    let Some(above_first) = bucket.checked_sub(1) else { return 0 };
    let doublings =
        f64::from(u32::try_from(above_first).unwrap_or(u32::MAX)) / f64::from(BUCKETS_PER_DOUBLING);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 2^17 seconds"
    )]
    let secs = doublings.exp2() as u32;
    secs
}

/// Returns the silence in seconds that this share of connections did not exceed, as the lower bound
/// of its bucket.
fn quantile(counts: &[u32], share: f64) -> u32 {
    let all = f64::from(sum(counts));
    let mut so_far = 0;
    let found = counts.iter().position(|count| {
        so_far += count;
        so_far > 0 && f64::from(so_far) >= all * share
    });
    found.map_or(0, secs_of)
}

#[cfg(test)]
mod tests;
