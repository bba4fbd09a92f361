//! The connections that hold places, in the order in which they are closed for new ones.
//!
//! Connections in the lowest state go first; of these, those of the address with the most
//! connections; of these, the one that has been in its state for the longest time. Pure: no clock,
//! no sockets, no limits. A connection is ended through its seat.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::activity::{Activity, Doing};
use crate::net::Seat;

/// All connections with a place.
#[derive(Default)]
pub(super) struct HeldPlaces {
    all: HashMap<u64, Occupant, RandomState>,
    by_address: HashMap<IpAddr, ConnectionsOfAddress, RandomState>,
    /// For each address, its first connection to close.
    first_to_go: BTreeSet<Rank>,
    /// The unread connections, in the order in which they entered.
    unread: BTreeSet<u64>,
    /// The connections that have reported another state since the last look.
    changed: Vec<u64>,
}

/// The numbers of an address's connections, by state and the moment at which it began.
type ConnectionsOfAddress = BTreeMap<(Doing, u64), u64>;

struct Occupant {
    address: IpAddr,
    doing: Doing,
    since: u64,
    seat: Arc<Seat>,
    activity: Arc<Activity>,
}

/// The rank of an address and of its first connection; the smallest rank is closed first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// The state, except that an unread connection counts as idle here: so a burst from one address
    /// closes no connection of an address with fewer.
    class: Doing,
    size: Reverse<usize>,
    doing: Doing,
    since: u64,
    address: IpAddr,
}

/// The connection to close first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstToClose {
    pub(super) number: u64,
    pub(super) doing: Doing,
}

impl HeldPlaces {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let has_none = self.all.is_empty() && self.by_address.is_empty();
        has_none && self.first_to_go.is_empty() && self.unread.is_empty()
    }

    /// Returns the number of connections of an address.
    pub(super) fn len_of(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).map_or(0, ConnectionsOfAddress::len)
    }

    /// Adds a connection that has not been read. Its number is the moment `since`, which no other
    /// connection and no other change has.
    pub(super) fn enter(&mut self, since: u64, address: IpAddr, seat: Arc<Seat>) -> Arc<Activity> {
        // The list of changes is never longer than the number of connections.
        self.note_changes();
        let doing = Doing::Unread;
        let activity = Arc::new(Activity::new(doing, since));
        let own = Arc::clone(&activity);
        self.insert(since, Occupant { address, doing, since, seat, activity: own });
        activity
    }

    /// Removes a connection; does nothing if it was closed for another one.
    pub(super) fn leave(&mut self, number: u64) {
        self.remove(number);
    }

    /// Closes a connection for another one.
    pub(super) fn cut(&mut self, first: FirstToClose) {
        if let Some(occupant) = self.remove(first.number) {
            occupant.seat.take_away();
        }
    }

    /// Notes that a connection has reported another state.
    pub(super) fn has_changed(&mut self, number: u64) {
        self.changed.push(number);
    }

    /// Sets the address of a connection; returns false if it was closed for another one.
    pub(super) fn rename(&mut self, number: u64, address: IpAddr, now: u64) -> bool {
        self.note_changes();
        self.change(number, |occupant| (occupant.address, occupant.since) = (address, now))
    }

    /// Returns the connection of this address to close first.
    pub(super) fn first_of(&mut self, address: IpAddr) -> Option<FirstToClose> {
        self.note_changes();
        self.note_read();
        let (&(doing, _), &number) = self.by_address.get(&address)?.first_key_value()?;
        Some(FirstToClose { number, doing })
    }

    /// Returns the connection to close first of all.
    pub(super) fn first_of_all(&mut self) -> Option<FirstToClose> {
        self.note_changes();
        self.note_read();
        let address = self.first_to_go.first()?.address;
        self.first_of(address)
    }

    /// Notes which connections have been read since the last look. Each is noted once.
    fn note_read(&mut self) {
        while let Some(number) = self.unread.first().copied()
            && self.all.get(&number).is_none_or(|occupant| occupant.seat.is_read())
        {
            self.unread.remove(&number);
            self.change(number, |occupant| occupant.doing = Doing::Idle);
        }
    }

    /// Gives each connection that has reported another state its place in the order.
    fn note_changes(&mut self) {
        for number in std::mem::take(&mut self.changed) {
            let Some(activity) = self.all.get(&number).map(|found| &found.activity) else {
                continue;
            };
            let (doing, since) = activity.look();
            self.change(number, |occupant| (occupant.doing, occupant.since) = (doing, since));
        }
    }

    fn change(&mut self, number: u64, change: impl FnOnce(&mut Occupant)) -> bool {
        let Some(mut occupant) = self.remove(number) else { return false };
        change(&mut occupant);
        self.insert(number, occupant);
        true
    }

    fn insert(&mut self, number: u64, occupant: Occupant) {
        let Occupant { address, doing, since, .. } = occupant;
        let of_one = self.by_address.entry(address).or_default();
        if let Some(rank) = Rank::of(address, of_one) {
            self.first_to_go.remove(&rank);
        }
        of_one.insert((doing, since), number);
        self.first_to_go.extend(Rank::of(address, of_one));
        if doing == Doing::Unread {
            self.unread.insert(number);
        }
        self.all.insert(number, occupant);
    }

    fn remove(&mut self, number: u64) -> Option<Occupant> {
        let occupant = self.all.remove(&number)?;
        let Occupant { address, doing, since, .. } = occupant;
        self.unread.remove(&number);
        let of_one = self.by_address.get_mut(&address)?;
        // The rank contains the number of connections, so it is taken out before that changes.
        if let Some(rank) = Rank::of(address, of_one) {
            self.first_to_go.remove(&rank);
        }
        of_one.remove(&(doing, since));
        match Rank::of(address, of_one) {
            Some(rank) => drop(self.first_to_go.insert(rank)),
            None => drop(self.by_address.remove(&address)),
        }
        Some(occupant)
    }
}

impl Rank {
    fn of(address: IpAddr, of_one: &ConnectionsOfAddress) -> Option<Self> {
        let (&(doing, since), _) = of_one.first_key_value()?;
        let (class, size) = (doing.max(Doing::Unread), Reverse(of_one.len()));
        Some(Self { class, size, doing, since, address })
    }
}

#[cfg(test)]
mod tests;
