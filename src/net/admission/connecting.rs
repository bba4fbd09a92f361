//! The connections before CONNACK, and the choice of the one to evict when there are too many.
//!
//! Their clients are unknown yet, so refusing new connections in favour of old ones would let
//! strangers hold all places. Instead a new connection always gets a place and an older one is
//! evicted: from the address with the most connections, so that strangers at one address evict each
//! other; of these the one in the lowest stage; of these the oldest.
//!
//! The complete CONNECT of a connection that was just accepted may still be in its socket, until its
//! thread reads it. So connections that were not read are evicted last, and a listener first waits a
//! moment for their threads.
//!
//! Clients that wait for a password check wait for the broker. They have a separate room of the same
//! size, so that silent connections do not take their places.
//!
//! Pure: no clock, no sockets. A connection is ended through its seat.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::seat::Seat;

/// Maximum number of addresses to search for a connection that has been read.
const ADDRESSES_TRIED_MAX: usize = 16;

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
pub(super) struct NewcomerPlace {
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
    coming: NewcomerRoom,
    asking: NewcomerRoom,
}

impl Connecting {
    /// Creates two rooms with `places_max` places each, of which one address may take
    /// `places_of_one_max`.
    pub(super) fn new(places_max: usize, places_of_one_max: usize) -> Self {
        Self {
            last_number: 0,
            coming: NewcomerRoom::new(places_max, places_of_one_max),
            asking: NewcomerRoom::new(places_max, places_of_one_max),
        }
    }

    /// Changes the number of places, and evicts connections while there are too many. An address that
    /// has too many loses them when it comes again.
    pub(super) fn set_places(&mut self, places_max: usize, places_of_one_max: usize) {
        for room in [&mut self.coming, &mut self.asking] {
            room.places_max = places_max.max(1);
            room.places_of_one_max = places_of_one_max.max(1);
            while room.len > room.places_max
                && let Some(first) = room.first_of_all()
            {
                room.evict(first.place);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.coming.len + self.asking.len
    }

    /// Returns whether a new connection from `address` would evict one that has not been read. If
    /// `is_own`, the limit of one address applies.
    pub(super) fn would_evict_unread(&self, address: IpAddr, is_own: bool) -> bool {
        self.coming.first_for(address, is_own).is_some_and(|first| !first.is_read)
    }

    /// Gives a new connection a place.
    pub(super) fn enter(
        &mut self,
        address: IpAddr,
        is_own: bool,
        seat: Arc<Seat>,
    ) -> NewcomerPlace {
        self.last_number += 1;
        let number = self.last_number;
        let place = NewcomerPlace { address, is_own, stage: Stage::Silent, number };
        self.coming.insert(place, seat);
        place
    }

    /// Notes the stage of a connection; `None` if it has been evicted.
    pub(super) fn advance(&mut self, place: NewcomerPlace, stage: Stage) -> Option<NewcomerPlace> {
        self.replace(place, NewcomerPlace { stage, ..place })
    }

    /// Sets the client's own address of a connection; `None` if it has been evicted.
    pub(super) fn rename(
        &mut self,
        place: NewcomerPlace,
        address: IpAddr,
    ) -> Option<NewcomerPlace> {
        self.replace(place, NewcomerPlace { address, is_own: true, ..place })
    }

    fn replace(&mut self, old: NewcomerPlace, new: NewcomerPlace) -> Option<NewcomerPlace> {
        let seat = self.room(old.stage).remove(old)?;
        self.room(new.stage).insert(new, seat);
        Some(new)
    }

    /// Removes a connection; returns whether it still had its place.
    pub(super) fn leave(&mut self, place: NewcomerPlace) -> bool {
        self.room(place.stage).remove(place).is_some()
    }

    /// Evicts a connection to free its file descriptor, but none that waits for an authenticator;
    /// returns whether there was one.
    pub(super) fn evict_one(&mut self) -> bool {
        let first = self.coming.first_of_all();
        first.is_some_and(|first| {
            self.coming.evict(first.place);
            true
        })
    }

    const fn room(&mut self, stage: Stage) -> &mut NewcomerRoom {
        match stage {
            Stage::Leaving | Stage::Silent | Stage::Speaking => &mut self.coming,
            Stage::Asking => &mut self.asking,
        }
    }
}

/// A limited number of places; a new connection may evict another one.
struct NewcomerRoom {
    places_max: usize,
    places_of_one_max: usize,
    len: usize,
    by_address: HashMap<IpAddr, SeatsOfAddress, RandomState>,
    /// For each address: its number of connections, and its first connection to evict.
    first_to_go: BTreeSet<(Reverse<usize>, Stage, u64, IpAddr)>,
}

/// The connections of one address, in the order of eviction for those that have been read.
type SeatsOfAddress = BTreeMap<(Stage, u64), Arc<Seat>>;

/// The connection to evict.
struct FirstToEvict {
    place: NewcomerPlace,
    is_read: bool,
}

impl NewcomerRoom {
    fn new(places_max: usize, places_of_one_max: usize) -> Self {
        Self {
            places_max: places_max.max(1),
            places_of_one_max: places_of_one_max.max(1),
            len: 0,
            by_address: HashMap::default(),
            first_to_go: BTreeSet::new(),
        }
    }

    fn has_all_of_one(&self, address: IpAddr) -> bool {
        let of_one = self.by_address.get(&address).map_or(0, SeatsOfAddress::len);
        of_one >= self.places_of_one_max
    }

    /// Returns the connection that a new one evicts, if it evicts one.
    fn first_for(&self, address: IpAddr, is_own: bool) -> Option<FirstToEvict> {
        if is_own && self.has_all_of_one(address) {
            self.first_of(address)
        } else if self.len >= self.places_max {
            self.first_of_all()
        } else {
            None
        }
    }

    /// Prefers a connection that has been read, but only among addresses with equally many connections:
    /// a burst from one address evicts no connection of an address with fewer.
    fn first_of_all(&self) -> Option<FirstToEvict> {
        let &(most, ..) = self.first_to_go.first()?;
        let addresses = self.first_to_go.iter().take_while(|(size, ..)| *size == most);
        let addresses = addresses.take(ADDRESSES_TRIED_MAX);
        let mut firsts = addresses.filter_map(|(.., address)| self.first_of(*address));
        let first = firsts.next()?;
        match first.is_read {
            true => Some(first),
            false => {
                let mut alike = firsts.take_while(|other| other.place.stage == first.place.stage);
                alike.find(|other| other.is_read).or(Some(first))
            }
        }
    }

    /// In the lowest stage, connections that have not been read come last.
    fn first_of(&self, address: IpAddr) -> Option<FirstToEvict> {
        let of_one = self.by_address.get(&address)?;
        let (&(lowest, _), _) = of_one.first_key_value()?;
        let of_lowest = of_one.iter().take_while(|((stage, _), _)| *stage == lowest);
        let is_read = |stage, seat: &Seat| stage != Stage::Silent || seat.is_read();
        let mut of_lowest = of_lowest.map(|(&(stage, number), seat)| FirstToEvict {
            place: NewcomerPlace { address, is_own: true, stage, number },
            is_read: is_read(stage, seat),
        });
        let first = of_lowest.next()?;
        match first.is_read {
            true => Some(first),
            // An unread connection may have its CONNECT in the
            // socket, so one that stayed silent goes first.
            false => of_lowest.find(|other| other.is_read).or(Some(first)),
        }
    }

    fn insert(&mut self, place: NewcomerPlace, seat: Arc<Seat>) {
        let NewcomerPlace { address, is_own, stage, number } = place;
        while let Some(first) = self.first_for(address, is_own) {
            self.evict(first.place);
        }
        let of_one = self.by_address.entry(address).or_default();
        if let Some(entry) = entry_of(address, of_one) {
            self.first_to_go.remove(&entry);
        }
        of_one.insert((stage, number), seat);
        self.len += 1;
        self.first_to_go.extend(entry_of(address, of_one));
    }

    fn remove(&mut self, place: NewcomerPlace) -> Option<Arc<Seat>> {
        let NewcomerPlace { address, stage, number, .. } = place;
        let of_one = self.by_address.get_mut(&address)?;
        let entry = entry_of(address, of_one)?;
        let seat = of_one.remove(&(stage, number))?;
        self.first_to_go.remove(&entry);
        self.len -= 1;
        match entry_of(address, of_one) {
            Some(entry) => drop(self.first_to_go.insert(entry)),
            None => drop(self.by_address.remove(&address)),
        }
        Some(seat)
    }

    fn evict(&mut self, place: NewcomerPlace) {
        if let Some(seat) = self.remove(place) {
            seat.take_away();
        }
    }
}

fn entry_of(
    address: IpAddr,
    of_one: &SeatsOfAddress,
) -> Option<(Reverse<usize>, Stage, u64, IpAddr)> {
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

    /// A room, with the seats of all connections so far.
    struct Hall {
        connecting: Connecting,
        all: Vec<(NewcomerPlace, Arc<Seat>)>,
    }

    impl Hall {
        fn new(places_max: usize, places_of_one_max: usize) -> Self {
            Self { connecting: Connecting::new(places_max, places_of_one_max), all: Vec::new() }
        }

        fn enter(&mut self, number: u8) -> usize {
            let who = self.enter_unread(number);
            self.all[who].1.set_read();
            who
        }

        fn enter_unread(&mut self, number: u8) -> usize {
            let seat = Arc::new(Seat::default());
            let place = self.connecting.enter(address(number), true, Arc::clone(&seat));
            self.all.push((place, seat));
            self.all.len() - 1
        }

        fn advance(&mut self, who: usize, stage: Stage) {
            self.all[who].0 = self.connecting.advance(self.all[who].0, stage).unwrap();
        }

        fn is_in(&self, who: usize) -> bool {
            !self.all[who].1.is_taken_away()
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
    fn a_client_that_waits_for_the_broker_is_not_evicted_by_silence() {
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
    fn an_evicted_connection_gets_no_further() {
        let mut hall = Hall::new(1, 1);
        let first = hall.enter(1);
        hall.enter(2);
        let place = hall.all[first].0;
        assert_eq!(hall.connecting.advance(place, Stage::Speaking), None);
        assert_eq!(hall.connecting.rename(place, address(9)), None);
        assert!(!hall.connecting.leave(place));
        assert_eq!(hall.connecting.len(), 1);
    }

    #[test]
    fn who_has_not_been_read_goes_last_and_not_before_it_must() {
        let mut hall = Hall::new(100, 3);
        let unread = hall.enter_unread(1);
        let read = [hall.enter(1), hall.enter(1)];
        assert!(!hall.connecting.would_evict_unread(address(1), true));
        let newcomers = [hall.enter_unread(1), hall.enter_unread(1)];
        assert_eq!(hall.evicted(), read);
        assert!(hall.connecting.would_evict_unread(address(1), true));
        assert!(!hall.connecting.would_evict_unread(address(2), true));
        hall.all[newcomers[1]].1.set_read();
        assert!(!hall.connecting.would_evict_unread(address(1), true));
        hall.enter_unread(1);
        assert!(hall.is_in(unread) && hall.is_in(newcomers[0]) && !hall.is_in(newcomers[1]));
        hall.enter_unread(1);
        assert!(!hall.is_in(unread), "somebody has to go");
    }

    #[test]
    fn a_burst_of_one_address_does_not_evict_connections_of_an_address_with_few() {
        let mut hall = Hall::new(4, 4);
        let good = hall.enter(1);
        let unread = [hall.enter_unread(2), hall.enter_unread(2), hall.enter_unread(3)];
        assert!(hall.connecting.would_evict_unread(address(4), true), "and not of address 1");
        let newcomer = hall.enter(4);
        assert_eq!(hall.evicted(), [unread[0]]);
        assert!(!hall.connecting.would_evict_unread(address(5), true));
        hall.enter_unread(4);
        assert!(!hall.is_in(good), "of addresses with one each, the oldest that has been read");
        assert!(hall.is_in(newcomer) && hall.is_in(unread[2]));
    }

    /// Compares the eviction with a naive model of the rule.
    #[test]
    fn the_evicted_connection_is_the_one_of_the_rule() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut hall = Hall::new(12, 5);
        let mut model: Vec<(usize, NewcomerPlace)> = Vec::new();
        for _ in 0..20_000 {
            match random.u8(0..10) {
                0..6 => {
                    let from = random.u8(0..8);
                    let count = |a: IpAddr| model.iter().filter(|(_, p)| p.address == a).count();
                    let own = |p: &NewcomerPlace| p.address == address(from);
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
                    hall.all[who].1.take_away();
                }
                _ => {}
            }
            assert_eq!(hall.connecting.len(), model.len());
            assert!(model.iter().all(|(who, _)| hall.is_in(*who)));
        }
    }
}
