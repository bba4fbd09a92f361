//! The bans in force, in tables that make the check of a CONNECT fast.
//!
//! The check needs one lookup each for the identifier, the user and the address, and one for each prefix length of
//! the banned networks. Patterns are compared one after the other; their number is bounded. Knows neither the store
//! nor connections. Called before passwords are checked, where a session begins, and when all sessions are checked
//! again.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use crate::{
    auth::Network,
    control::{Ban, BanSubject, ClientPattern},
    mqtt::Timestamp,
    records::RecordKey,
};

/// Maximum number of patterns.
pub(crate) const PATTERNS_MAX: usize = 1_000;

/// The end of a ban, and the revision of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Until {
    at: Option<Timestamp>,
    revision: u64,
}

impl Until {
    fn holds(self, now: Timestamp) -> bool {
        self.at.is_none_or(|at| now < at)
    }
}

/// The bans of a broker.
#[derive(Default)]
pub(crate) struct BanList {
    bans: RwLock<Bans>,
    /// The number of bans, so that a CONNECT takes no lock if there are none.
    len: AtomicUsize,
}

#[derive(Default)]
struct Bans {
    clients: Names,
    users: Names,
    /// The networks by the length of their prefix; IPv4 networks first.
    networks: BTreeMap<(bool, u32), HashMap<IpAddr, Until>>,
}

/// Names, and patterns for names.
#[derive(Default)]
struct Names {
    exact: HashMap<Arc<str>, Until>,
    patterns: BTreeMap<Arc<str>, (ClientPattern, Until)>,
}

impl Names {
    fn insert(&mut self, name: &Arc<str>, until: Until) -> Option<Until> {
        if !name.contains('*') {
            return self.exact.insert(Arc::clone(name), until);
        }
        let pattern = ClientPattern::new(name).ok()?; // It was checked when it was made.
        self.patterns.insert(Arc::clone(name), (pattern, until)).map(|(_, former)| former)
    }

    fn remove(&mut self, name: &str) -> bool {
        self.exact.remove(name).is_some() | self.patterns.remove(name).is_some()
    }

    fn contain(&self, name: &str, now: Timestamp) -> bool {
        self.find(name, now).is_some()
    }

    /// Returns the name or the pattern that is banned.
    fn find(&self, name: &str, now: Timestamp) -> Option<&Arc<str>> {
        let exact = self.exact.get_key_value(name).filter(|(_, until)| until.holds(now));
        let mut patterns = self.patterns.iter();
        exact.map(|(name, _)| name).or_else(|| {
            let of_pattern = |(_, (pattern, until)): &(&Arc<str>, &(ClientPattern, Until))| {
                until.holds(now) && pattern.matches(name)
            };
            patterns.find(of_pattern).map(|(name, _)| name)
        })
    }

    fn len(&self) -> usize {
        self.exact.len() + self.patterns.len()
    }
}

impl Bans {
    fn len(&self) -> usize {
        let networks: usize = self.networks.values().map(HashMap::len).sum();
        self.clients.len() + self.users.len() + networks
    }

    fn insert(&mut self, subject: &BanSubject, until: Until) -> Option<Until> {
        match subject {
            BanSubject::ClientId(name) => self.clients.insert(name, until),
            BanSubject::User(name) => self.users.insert(name, until),
            BanSubject::Address(network) => {
                let same = self.networks.entry(place_of(*network)).or_default();
                same.insert(network.address(), until)
            }
        }
    }

    fn remove(&mut self, subject: &BanSubject) -> bool {
        match subject {
            BanSubject::ClientId(name) => self.clients.remove(name),
            BanSubject::User(name) => self.users.remove(name),
            BanSubject::Address(network) => {
                let place = place_of(*network);
                let Some(same) = self.networks.get_mut(&place) else { return false };
                let was_there = same.remove(&network.address()).is_some();
                if same.is_empty() {
                    self.networks.remove(&place);
                }
                was_there
            }
        }
    }

    fn contain_address(&self, address: IpAddr, now: Timestamp) -> bool {
        self.find_address(address, now).is_some()
    }

    /// Returns the network that is banned.
    fn find_address(&self, address: IpAddr, now: Timestamp) -> Option<Network> {
        let address = address.to_canonical();
        let of_kind = (address.is_ipv6(), 0)..=(address.is_ipv6(), 128);
        self.networks.range(of_kind).find_map(|((_, bits), same)| {
            let network = Network::around(address, *bits);
            let is_out = same.get(&network.address()).is_some_and(|until| until.holds(now));
            is_out.then_some(network)
        })
    }
}

fn place_of(network: Network) -> (bool, u32) {
    (network.address().is_ipv6(), network.prefix_bits())
}

impl BanList {
    /// Adds or replaces a ban; returns whether that changed anything.
    pub(crate) fn insert(
        &self,
        subject: &BanSubject,
        expires_at: Option<Timestamp>,
        revision: u64,
    ) -> bool {
        let until = Until { at: expires_at, revision };
        self.change(|bans| bans.insert(subject, until) != Some(until))
    }

    /// Removes a ban; returns whether it was there.
    pub(crate) fn remove(&self, subject: &BanSubject) -> bool {
        self.change(|bans| bans.remove(subject))
    }

    /// Removes all bans.
    pub(crate) fn clear(&self) {
        self.change(|bans| *bans = Bans::default());
    }

    /// Returns whether there are this many bans.
    pub(crate) fn has_reached(&self, bans_max: usize) -> bool {
        self.len.load(Ordering::Acquire) >= bans_max
    }

    /// Returns the number of patterns.
    pub(crate) fn patterns(&self) -> usize {
        let bans = self.bans.read().unwrap_or_else(PoisonError::into_inner);
        bans.clients.patterns.len() + bans.users.patterns.len()
    }

    /// Returns whether a client is kept out.
    pub(crate) fn keeps_out(
        &self,
        client_id: &str,
        username: Option<&str>,
        address: IpAddr,
        now: Timestamp,
    ) -> bool {
        if self.len.load(Ordering::Acquire) == 0 {
            return false;
        }
        let bans = self.bans.read().unwrap_or_else(PoisonError::into_inner);
        bans.clients.contain(client_id, now)
            || username.is_some_and(|name| bans.users.contain(name, now))
            || bans.contain_address(address, now)
    }

    /// Returns the ban that keeps a client out; one of an identifier before one of a user, and that before
    /// one of an address.
    pub(crate) fn find(
        &self,
        client_id: &str,
        users: &[&str],
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Option<BanSubject> {
        let bans = self.bans.read().unwrap_or_else(PoisonError::into_inner);
        let of_client = || bans.clients.find(client_id, now).cloned().map(BanSubject::ClientId);
        let of_user = || users.iter().find_map(|name| bans.users.find(name, now)).cloned();
        let of_address = || bans.find_address(address?, now).map(BanSubject::Address);
        of_client().or_else(|| of_user().map(BanSubject::User)).or_else(of_address)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Bans) -> T) -> T {
        let mut bans = self.bans.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut bans);
        self.len.store(bans.len(), Ordering::Release);
        changed
    }
}

/// The namespace of the records; a key is the kind of the subject, a slash, and its value.
pub(crate) const BANS: &str = "bans";

/// The content of a record, in JSON.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct BanContent {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<Arc<str>>,
    pub(crate) is_for_flapping: bool,
    pub(crate) at: u64,
}

impl BanContent {
    /// Returns the ban of this record.
    pub(crate) fn into_ban(
        self,
        subject: BanSubject,
        expires_at: Option<Timestamp>,
        revision: u64,
    ) -> Ban {
        let mut ban = Ban::new(subject, revision);
        (ban.reason, ban.by) = (self.reason, self.by);
        (ban.is_for_flapping, ban.set_at_millis) = (self.is_for_flapping, self.at);
        ban.expires_at_millis = expires_at.map(Timestamp::millis);
        ban
    }
}

/// Returns the name of the record of a ban.
pub(crate) fn name_of(subject: &BanSubject) -> Option<RecordKey> {
    RecordKey::new(BANS, &format!("{}/{}", subject.kind(), subject.value()))
}

/// Returns the subject of the ban in a record. An import may bring anything.
pub(crate) fn subject_of(name: &RecordKey) -> Option<BanSubject> {
    let (kind, value) = name.key().split_once('/')?;
    BanSubject::parse(kind, value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(kind: &str, value: &str) -> BanSubject {
        BanSubject::parse(kind, value).unwrap()
    }

    fn is_out(bans: &BanList, client_id: &str, user: &str, address: &str) -> bool {
        let user = Some(user).filter(|user| !user.is_empty());
        bans.keeps_out(client_id, user, address.parse().unwrap(), Timestamp(1_000))
    }

    #[test]
    fn each_kind_of_ban_keeps_out_those_that_it_is_about() {
        for (kind, value, out, stays) in [
            ("client_id", "car-1", ("car-1", "", "::1"), ("car-10", "car-1", "::1")),
            ("client_id", "car-*", ("car-10", "", "::1"), ("cars", "car-1", "::1")),
            ("user", "ann", ("c", "ann", "::1"), ("ann", "", "::1")),
            ("user", "*", ("c", "x", "::1"), ("x", "", "::1")),
            ("address", "192.0.2.7", ("c", "", "192.0.2.7"), ("c", "", "192.0.2.8")),
            ("address", "192.0.2.0/24", ("c", "", "::ffff:192.0.2.9"), ("c", "", "192.0.3.9")),
            ("address", "2001:db8::/32", ("c", "", "2001:db8:5::1"), ("c", "", "2001:db9::1")),
            ("address", "0.0.0.0/0", ("c", "", "8.8.8.8"), ("c", "", "::1")),
        ] {
            let bans = BanList::default();
            assert!(!is_out(&bans, out.0, out.1, out.2));
            assert!(bans.insert(&subject(kind, value), None, 1), "{value}");
            assert!(!bans.insert(&subject(kind, value), None, 1), "{value}");
            assert!(is_out(&bans, out.0, out.1, out.2), "{value}");
            assert!(!is_out(&bans, stays.0, stays.1, stays.2), "{value}");
            let found = bans.find(out.0, &[out.1], out.2.parse().ok(), Timestamp(1_000));
            assert_eq!(found, Some(subject(kind, value)));
            assert!(bans.remove(&subject(kind, value)) && !bans.remove(&subject(kind, value)));
            assert!(!is_out(&bans, out.0, out.1, out.2), "{value}");
            assert_eq!(bans.len.load(Ordering::Acquire), 0);
        }
    }

    #[test]
    fn a_ban_ends_by_itself() {
        let bans = BanList::default();
        bans.insert(&subject("client_id", "c"), Some(Timestamp(1_000)), 1);
        bans.insert(&subject("user", "u*"), Some(Timestamp(1_001)), 2);
        assert!(!is_out(&bans, "c", "", "::1"));
        assert!(is_out(&bans, "x", "user", "::1"));
    }

    #[test]
    fn a_subject_that_is_not_valid_is_named() {
        let problem = |kind, value: &str| BanSubject::parse(kind, value).unwrap_err().to_string();
        assert!(problem("client_id", "").starts_with("client_id: "));
        assert!(problem("user", &"x".repeat(4_001)).starts_with("user: "));
        assert!(problem("user", &"*a".repeat(17)).starts_with("user: "));
        assert!(problem("address", "10.0.0.1/8").contains("10.0.0.0/8"));
        assert!(problem("name", "x").contains("client_id"));
    }
}
