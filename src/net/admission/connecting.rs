//! The connections that have not been accepted by CONNACK yet, and which of them goes when they
//! are too many.
//!
//! Nobody knows yet who they are, so their places cannot be refused to a newcomer in favour of
//! those who came before: strangers would hold all of them. A newcomer always gets a place; an
//! older connection loses its own. The address with the most places loses first, so that strangers
//! at one address evict each other; of its connections the one that has shown least, and of these
//! the oldest.
//!
//! Clients that wait for the check of their password wait for the broker. They have a room of the
//! same size of their own, and silence does not take their places.
//!
//! Pure: no clock, no sockets. A connection is ended by the handle that it came with.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use foldhash::fast::RandomState;
use futures_util::future::AbortHandle;

/// How far a connection has come, in the order of eviction.
///
/// ```text
/// Silent ──► Speaking ──► Asking ──► (accepted)
///    └───────────┴───────────┴─────► Leaving
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It was refused, and the refusal is being sent.
    Leaving,
    /// It has not sent anything complete.
    Silent,
    /// It has sent a complete ClientHello or WebSocket request.
    Speaking,
    /// Its CONNECT is complete, and an authenticator is checking it.
    Asking,
}

/// The place of a connection in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    address: IpAddr,
    /// Whether the address is the client's own, to which the limit of one address applies.
    is_own: bool,
    stage: Stage,
    /// Increases with each new connection.
    number: u64,
}

/// All connections before CONNACK.
pub(super) struct Connecting {
    last_number: u64,
    coming: Room,
    asking: Room,
}

impl Connecting {
    /// Creates two rooms with `places_max` places each, of which one address may take
    /// `places_of_one_max`.
    pub(super) fn new(places_max: usize, places_of_one_max: usize) -> Self {
        Self {
            last_number: 0,
            coming: Room::new(places_max, places_of_one_max),
            asking: Room::new(places_max, places_of_one_max),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.coming.len + self.asking.len
    }

    /// Whether a newcomer from `address` evicts somebody. If the address is its own, it may have
    /// its share and no more.
    pub(super) fn is_crowded(&self, address: IpAddr, is_own: bool) -> bool {
        self.coming.is_full() || is_own && self.coming.has_all_of_one(address)
    }

    /// Gives a newcomer a place.
    pub(super) fn enter(&mut self, address: IpAddr, is_own: bool, handle: AbortHandle) -> Place {
        self.last_number += 1;
        let number = self.last_number;
        let place = Place { address, is_own, stage: Stage::Silent, number };
        self.coming.insert(place, handle);
        place
    }

    /// Notes the stage of a connection; `None` if it has been evicted.
    pub(super) fn advance(&mut self, place: Place, stage: Stage) -> Option<Place> {
        self.replace(place, Place { stage, ..place })
    }

    /// Sets the client's own address of a connection; `None` if it has been evicted.
    pub(super) fn rename(&mut self, place: Place, address: IpAddr) -> Option<Place> {
        self.replace(place, Place { address, is_own: true, ..place })
    }

    fn replace(&mut self, old: Place, new: Place) -> Option<Place> {
        let handle = self.room(old.stage).remove(old)?;
        self.room(new.stage).insert(new, handle);
        Some(new)
    }

    /// Removes a connection; returns whether it still had its place.
    pub(super) fn leave(&mut self, place: Place) -> bool {
        self.room(place.stage).remove(place).is_some()
    }

    /// Evicts a connection to free its file descriptor, but none that waits for an authenticator;
    /// returns whether there was one.
    pub(super) fn evict_one(&mut self) -> bool {
        self.coming.evict_first()
    }

    const fn room(&mut self, stage: Stage) -> &mut Room {
        match stage {
            Stage::Leaving | Stage::Silent | Stage::Speaking => &mut self.coming,
            Stage::Asking => &mut self.asking,
        }
    }
}

/// A limited number of places; a new connection may evict another one.
struct Room {
    places_max: usize,
    places_of_one_max: usize,
    len: usize,
    by_address: HashMap<IpAddr, OfOne, RandomState>,
    /// For each address: its number of connections, and its first connection to evict.
    first_to_go: BTreeSet<(Reverse<usize>, Stage, u64, IpAddr)>,
}

/// The connections of one address, the first to go first.
type OfOne = BTreeMap<(Stage, u64), AbortHandle>;

impl Room {
    fn new(places_max: usize, places_of_one_max: usize) -> Self {
        Self {
            places_max: places_max.max(1),
            places_of_one_max: places_of_one_max.max(1),
            len: 0,
            by_address: HashMap::default(),
            first_to_go: BTreeSet::new(),
        }
    }

    const fn is_full(&self) -> bool {
        self.len >= self.places_max
    }

    fn has_all_of_one(&self, address: IpAddr) -> bool {
        let of_one = self.by_address.get(&address).map_or(0, OfOne::len);
        of_one >= self.places_of_one_max
    }

    fn insert(&mut self, place: Place, handle: AbortHandle) {
        let Place { address, is_own, stage, number } = place;
        if is_own && self.has_all_of_one(address) {
            self.evict_of(address);
        } else if self.is_full() {
            self.evict_first();
        }
        let of_one = self.by_address.entry(address).or_default();
        if let Some(entry) = entry_of(address, of_one) {
            self.first_to_go.remove(&entry);
        }
        of_one.insert((stage, number), handle);
        self.len += 1;
        self.first_to_go.extend(entry_of(address, of_one));
    }

    fn remove(&mut self, place: Place) -> Option<AbortHandle> {
        let Place { address, stage, number, .. } = place;
        let of_one = self.by_address.get_mut(&address)?;
        let entry = entry_of(address, of_one)?;
        let handle = of_one.remove(&(stage, number))?;
        self.first_to_go.remove(&entry);
        self.len -= 1;
        match entry_of(address, of_one) {
            Some(entry) => drop(self.first_to_go.insert(entry)),
            None => drop(self.by_address.remove(&address)),
        }
        Some(handle)
    }

    fn evict_first(&mut self) -> bool {
        let first = self.first_to_go.first().copied();
        first.is_some_and(|(_, stage, number, address)| {
            self.evict(Place { address, is_own: true, stage, number });
            true
        })
    }

    fn evict_of(&mut self, address: IpAddr) {
        let first = self.by_address.get(&address).and_then(BTreeMap::first_key_value);
        if let Some((&(stage, number), _)) = first {
            self.evict(Place { address, is_own: true, stage, number });
        }
    }

    fn evict(&mut self, place: Place) {
        if let Some(handle) = self.remove(place) {
            handle.abort();
        }
    }
}

fn entry_of(address: IpAddr, of_one: &OfOne) -> Option<(Reverse<usize>, Stage, u64, IpAddr)> {
    let (&(stage, number), _) = of_one.first_key_value()?;
    Some((Reverse(of_one.len()), stage, number, address))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    /// A room with a handle of everybody who ever came.
    struct Hall {
        connecting: Connecting,
        all: Vec<(Place, AbortHandle)>,
    }

    impl Hall {
        fn new(places_max: usize, places_of_one_max: usize) -> Self {
            Self { connecting: Connecting::new(places_max, places_of_one_max), all: Vec::new() }
        }

        fn enter(&mut self, number: u8) -> usize {
            let (handle, _) = AbortHandle::new_pair();
            let place = self.connecting.enter(address(number), true, handle.clone());
            self.all.push((place, handle));
            self.all.len() - 1
        }

        fn advance(&mut self, who: usize, stage: Stage) {
            self.all[who].0 = self.connecting.advance(self.all[who].0, stage).unwrap();
        }

        fn is_in(&self, who: usize) -> bool {
            !self.all[who].1.is_aborted()
        }

        /// Returns the numbers of the evicted connections.
        fn evicted(&self) -> Vec<usize> {
            (0..self.all.len()).filter(|&who| !self.is_in(who)).collect()
        }
    }

    #[test]
    fn the_oldest_of_the_address_with_the_most_goes() {
        let mut hall = Hall::new(4, 4);
        let good = hall.enter(1);
        let strangers = [hall.enter(2), hall.enter(2), hall.enter(3)];
        hall.enter(3);
        assert_eq!(hall.evicted(), [strangers[0]]);
        // Address 3 has two connections now, address 2 has one.
        hall.enter(4);
        assert_eq!(hall.evicted(), [strangers[0], strangers[2]]);
        assert!(hall.is_in(good));
        assert_eq!(hall.connecting.len(), 4);
    }

    #[test]
    fn one_address_has_its_share_and_then_evicts_its_own() {
        let mut hall = Hall::new(100, 2);
        let good = hall.enter(1);
        let first = hall.enter(2);
        for _ in 0..10 {
            hall.enter(2);
        }
        assert!(hall.is_in(good) && !hall.is_in(first));
        assert_eq!(hall.connecting.len(), 3);
        assert_eq!(hall.evicted().len(), 9);
    }

    #[test]
    fn silence_goes_before_speech_and_before_those_who_are_told_no() {
        let mut hall = Hall::new(3, 3);
        let [spoken, silent, refused] = [hall.enter(1), hall.enter(1), hall.enter(1)];
        hall.advance(spoken, Stage::Speaking);
        hall.advance(refused, Stage::Leaving);
        hall.enter(1);
        assert_eq!(hall.evicted(), [refused]);
        hall.enter(1);
        assert_eq!(hall.evicted(), [silent, refused]);
        for _ in 0..100 {
            hall.enter(1);
        }
        assert!(hall.is_in(spoken));
    }

    #[test]
    fn whoever_waits_for_the_broker_is_not_evicted_by_silence() {
        let mut hall = Hall::new(2, 2);
        let asking = hall.enter(1);
        hall.advance(asking, Stage::Asking);
        for number in 0..100 {
            hall.enter(number);
        }
        assert!(hall.is_in(asking));
        let others: Vec<_> = (0..2).map(|_| hall.enter(1)).collect();
        others.into_iter().for_each(|who| hall.advance(who, Stage::Asking));
        assert!(!hall.is_in(asking), "two may ask, and this is the oldest");
    }

    #[test]
    fn a_hundred_addresses_do_not_evict_a_client_that_has_spoken() {
        let mut hall = Hall::new(20, 10);
        for number in 0..100 {
            hall.enter(number);
        }
        let good = hall.enter(200);
        hall.advance(good, Stage::Speaking);
        for round in 0..50 {
            for number in 0..100 {
                hall.enter(number);
                assert!(hall.is_in(good), "{round} {number}");
            }
        }
    }

    #[test]
    fn whoever_was_evicted_gets_no_further() {
        let mut hall = Hall::new(1, 1);
        let first = hall.enter(1);
        hall.enter(2);
        let place = hall.all[first].0;
        assert_eq!(hall.connecting.advance(place, Stage::Speaking), None);
        assert_eq!(hall.connecting.rename(place, address(9)), None);
        assert!(!hall.connecting.leave(place));
        assert_eq!(hall.connecting.len(), 1);
    }

    /// The rule, said naively, beside the real one.
    #[test]
    fn whoever_goes_is_the_one_of_the_rule() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut hall = Hall::new(12, 5);
        let mut model: Vec<(usize, Place)> = Vec::new();
        for _ in 0..20_000 {
            match random.u8(0..10) {
                0..6 => {
                    let from = random.u8(0..8);
                    let count = |a: IpAddr| model.iter().filter(|(_, p)| p.address == a).count();
                    let own = |p: &Place| p.address == address(from);
                    let victim = if count(address(from)) >= 5 {
                        model
                            .iter()
                            .filter(|(_, p)| own(p))
                            .min_by_key(|(_, p)| (p.stage, p.number))
                    } else if model.len() >= 12 {
                        model
                            .iter()
                            .min_by_key(|(_, p)| (Reverse(count(p.address)), p.stage, p.number))
                    } else {
                        None
                    };
                    let victim = victim.map(|(who, _)| *who);
                    let who = hall.enter(from);
                    if let Some(victim) = victim {
                        assert!(!hall.is_in(victim));
                        model.retain(|(who, _)| *who != victim);
                    }
                    model.push((who, hall.all[who].0));
                }
                6..8 if !model.is_empty() => {
                    let at = random.usize(0..model.len());
                    let stage = [Stage::Leaving, Stage::Speaking][random.usize(0..2)];
                    hall.advance(model[at].0, stage);
                    model[at].1.stage = stage;
                }
                _ if !model.is_empty() => {
                    let (who, _) = model.swap_remove(random.usize(0..model.len()));
                    let place = hall.all[who].0;
                    assert!(hall.connecting.leave(place));
                    hall.all[who].1.abort();
                }
                _ => {}
            }
            assert_eq!(hall.connecting.len(), model.len());
            assert!(model.iter().all(|(who, _)| hall.is_in(*who)));
        }
    }
}
