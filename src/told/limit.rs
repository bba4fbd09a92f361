//! Limits the number of log lines: for each address (IPv6: each /64) and in all.
//!
//! A line within both limits is written, with the number of lines of its address that were omitted
//! before it. The table of addresses has a maximum size; when it is full, further addresses share
//! one entry. Time is an argument, in microseconds.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

use foldhash::fast::RandomState;

/// Maximum number of addresses in the table: as many as can send lines within one second, and those
/// with omitted lines that are not reported yet.
const ADDRESSES_MAX: usize = 10_000;

/// Time without omissions after which an address with omitted lines is reported.
const QUIET_MICROS: u64 = 10_000_000;

/// Maximum number of addresses that are reported separately; the others are reported together.
const NETWORKS_TOLD_MAX: usize = 20;

/// The subject of a line. Each kind has its own limits, so that refusals cannot displace other
/// lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    /// Clients that connect and disconnect.
    Usual,
    /// Refusals, which any stranger can cause.
    Trouble,
    /// Changes by REST callers, which have the permission for them.
    Change,
}

impl LineKind {
    const ALL: [Self; 3] = [Self::Usual, Self::Trouble, Self::Change];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Trouble => "refusals",
            Self::Change => "changes",
        }
    }

    /// Returns the rate for one address. A fleet behind one address that connects all at once is
    /// logged completely, and so is a service that changes all its clients at once; an address that
    /// guesses passwords needs only enough lines to be noticed. In the long run no address writes more
    /// than 20 KB/s: a line has at most about 1,000 bytes.
    const fn each(self) -> Rate {
        match self {
            Self::Usual | Self::Change => Rate::per_sec(20, 20_000),
            Self::Trouble => Rate::per_sec(1, 20),
        }
    }

    /// Returns the rate for all addresses together, which a disk must be able to store permanently.
    const fn all(self) -> Rate {
        match self {
            Self::Usual | Self::Change => Rate::per_sec(200, 100_000),
            Self::Trouble => Rate::per_sec(100, 1_000),
        }
    }
}

/// A token bucket: the time for one token, and its capacity.
#[derive(Clone, Copy)]
struct Rate {
    /// Microseconds until one more line is allowed.
    interval: u64,
    burst: u64,
}

impl Rate {
    const fn per_sec(lines: u64, burst: u64) -> Self {
        Self { interval: 1_000_000 / lines, burst }
    }
}

/// The state of a bucket: the time at which it is full again.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_at: u64,
}

impl Bucket {
    fn has_room(self, rate: Rate, now: u64) -> bool {
        self.full_at.saturating_sub(now) <= rate.interval * (rate.burst - 1)
    }

    fn take(&mut self, rate: Rate, now: u64) {
        self.full_at = self.full_at.max(now) + rate.interval;
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    buckets: [Bucket; LineKind::ALL.len()],
    left_out: [u32; LineKind::ALL.len()],
    left_out_at: u64,
}

impl Entry {
    /// Returns whether it equals a new entry.
    fn is_idle(&self, now: u64) -> bool {
        self.left_out == [0; LineKind::ALL.len()] && self.buckets.iter().all(|b| b.full_at <= now)
    }
}

/// The token buckets of all addresses, and the lines that were omitted.
#[derive(Default)]
pub(super) struct Limiter {
    all: [Bucket; LineKind::ALL.len()],
    addresses: HashMap<IpAddr, Entry, RandomState>,
    /// Shared by addresses that find no place in the table.
    others: Entry,
    /// When the table was last cleaned because it was full.
    cleaned_at: u64,
    /// When it was last searched for quiet addresses.
    looked_at: u64,
    /// Whether some omitted lines are not reported yet.
    is_owing: bool,
}

/// Omitted lines of one address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// For IPv6 a /64.
    pub(super) network: IpAddr,
    pub(super) lines: u32,
    pub(super) kind: LineKind,
}

/// The report about quiet addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Quiet {
    pub(super) networks: Vec<LeftOut>,
    /// Omitted lines of all others.
    pub(super) others: u64,
}

impl Limiter {
    /// Returns the number of lines of its address and kind that were omitted before it, if a line may be
    /// written; otherwise `None`.
    pub(super) fn allow(&mut self, kind: LineKind, address: IpAddr, now: u64) -> Option<u32> {
        let at = kind as usize;
        let has_room_in_all = self.all[at].has_room(kind.all(), now);
        let entry = self.entry(network_of(address), now);
        // Both must have room before one of them is used.
        if has_room_in_all && entry.buckets[at].has_room(kind.each(), now) {
            entry.buckets[at].take(kind.each(), now);
            // The next line of the address says how many were left out before it.
            let left_out = std::mem::take(&mut entry.left_out[at]);
            self.all[at].take(kind.all(), now);
            return Some(left_out);
        }
        entry.left_out[at] = entry.left_out[at].saturating_add(1);
        entry.left_out_at = now;
        self.is_owing = true;
        None
    }

    /// Returns the omitted lines of addresses that have been quiet since, and resets these.
    pub(super) fn quiet(&mut self, now: u64) -> Option<Quiet> {
        // Looked at rarely, because the table may be large.
        if !self.is_owing || now.saturating_sub(self.looked_at) < QUIET_MICROS {
            return None;
        }
        self.looked_at = now;
        self.is_owing = false;
        let mut quiet = Quiet::default();
        let entries = self.addresses.iter_mut().map(|(network, entry)| (Some(*network), entry));
        // The shared entry counts for addresses that had no place in the table.
        for (network, entry) in entries.chain([(None, &mut self.others)]) {
            if entry.left_out == [0; LineKind::ALL.len()] {
                continue;
            }
            // Still busy: its next line will have the number.
            if now.saturating_sub(entry.left_out_at) < QUIET_MICROS {
                self.is_owing = true;
                continue;
            }
            for kind in LineKind::ALL {
                match (std::mem::take(&mut entry.left_out[kind as usize]), network) {
                    (0, _) => {}
                    // Named networks are few; the rest is one number.
                    (lines, Some(network)) if quiet.networks.len() < NETWORKS_TOLD_MAX => {
                        quiet.networks.push(LeftOut { network, lines, kind });
                    }
                    (lines, _) => quiet.others += u64::from(lines),
                }
            }
        }
        self.addresses.retain(|_, entry| !entry.is_idle(now));
        Some(quiet)
    }

    fn entry(&mut self, network: IpAddr, now: u64) -> &mut Entry {
        let is_full = self.addresses.len() >= ADDRESSES_MAX;
        if is_full && !self.addresses.contains_key(&network) {
            // At most once a second, because it may free nothing.
            if now.saturating_sub(self.cleaned_at) >= 1_000_000 {
                self.cleaned_at = now;
                self.addresses.retain(|_, entry| !entry.is_idle(now));
            }
            if self.addresses.len() >= ADDRESSES_MAX {
                return &mut self.others;
            }
        }
        self.addresses.entry(network).or_default()
    }
}

/// Returns the network of an address. One site gets a /64 in IPv6 and may use every address in it,
/// so it counts as one.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn address(last: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x7F00_0000 + last).into()
    }

    /// Tries to write this many lines at once; returns how many are written.
    fn written(limiter: &mut Limiter, kind: LineKind, from: IpAddr, lines: u32, now: u64) -> u32 {
        (0..lines).filter(|_| limiter.allow(kind, from, now).is_some()).count() as u32
    }

    #[test]
    fn an_address_has_a_burst_and_then_a_rate_and_says_what_was_left_out() {
        let mut limiter = Limiter::default();
        assert_eq!(written(&mut limiter, LineKind::Trouble, address(1), 100, 0), 20);
        assert_eq!(
            written(&mut limiter, LineKind::Trouble, address(2), 20, 0),
            20,
            "another address"
        );
        assert_eq!(written(&mut limiter, LineKind::Usual, address(1), 20, 0), 20, "another kind");
        assert_eq!(limiter.allow(LineKind::Trouble, address(1), SECOND), Some(80));
        assert_eq!(limiter.allow(LineKind::Trouble, address(1), SECOND), None);
        assert_eq!(limiter.allow(LineKind::Trouble, address(1), 2 * SECOND), Some(1));
        assert_eq!(limiter.allow(LineKind::Trouble, address(1), 3 * SECOND), Some(0));
    }

    /// An account may connect, or change its client, a thousand times a second.
    #[test]
    fn in_the_long_run_an_address_writes_few_lines_of_each_kind() {
        for kind in LineKind::ALL {
            let mut limiter = Limiter::default();
            for now in 0..1_000 {
                written(&mut limiter, kind, address(1), 1_000, now * SECOND);
            }
            let lines = written(&mut limiter, kind, address(1), 1_000, 1_000 * SECOND);
            assert!((1..=20).contains(&lines), "{kind:?}: {lines}");
        }
    }

    #[test]
    fn a_64_of_ipv6_is_one_address() {
        let mut limiter = Limiter::default();
        let mut lines = 0;
        for host in 0..100 {
            let from = format!("2001:db8::{host:x}").parse().unwrap();
            lines += written(&mut limiter, LineKind::Trouble, from, 1, 0);
        }
        assert_eq!(lines, 20);
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(written(&mut limiter, LineKind::Trouble, mapped, 30, 0), 20);
        let same = "192.0.2.1".parse().unwrap();
        assert_eq!(written(&mut limiter, LineKind::Trouble, same, 1, 0), 0);
    }

    #[test]
    fn all_addresses_together_have_a_bound_and_so_has_the_table() {
        let mut limiter = Limiter::default();
        let written: u32 = (0..100_000)
            .map(|from| written(&mut limiter, LineKind::Trouble, address(from), 1, 0))
            .sum();
        assert_eq!(written, 1_000);
        assert_eq!(limiter.addresses.len(), ADDRESSES_MAX);
        // Addresses without a place are still reported, together.
        let quiet = limiter.quiet(2 * QUIET_MICROS).expect("lines were left out");
        assert_eq!(quiet.networks.len(), NETWORKS_TOLD_MAX);
        assert_eq!(quiet.others + NETWORKS_TOLD_MAX as u64, 100_000 - 1_000);
        assert!(limiter.addresses.is_empty(), "nothing is left to be known of them");
        assert_eq!(limiter.quiet(9 * QUIET_MICROS), None);
    }

    #[test]
    fn what_was_left_out_is_told_when_the_address_is_quiet() {
        let mut limiter = Limiter::default();
        written(&mut limiter, LineKind::Trouble, address(1), 25, QUIET_MICROS);
        let first = limiter.quiet(QUIET_MICROS).expect("something is owed");
        assert_eq!(first, Quiet::default(), "it is not quiet yet");
        let later = limiter.quiet(2 * QUIET_MICROS).expect("something is owed");
        let left_out = LeftOut { network: address(1), lines: 5, kind: LineKind::Trouble };
        assert_eq!(later.networks, [left_out]);
        assert_eq!(limiter.quiet(3 * QUIET_MICROS), None);
    }
}
