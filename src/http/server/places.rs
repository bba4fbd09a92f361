//! The places of HTTP connections: the limits in total and for one address, and the choice of the
//! connection that is closed for a new one.
//!
//! A new connection is always worth more than an idle one. So a stranger that holds many
//! connections keeps neither callers nor health checks out. Knows no sockets and no HTTP; the
//! accept loops ask for a place, and a connection reports whether it is idle.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::ServerOptions;
use crate::{
    auth::Network,
    http::rate::Limit,
    net::{Seat, in_turn, network_of},
};

/// Maximum time that an idle connection waits for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// The same while three quarters of the places are taken.
const IDLE_TIMEOUT_WHEN_FEW: Duration = Duration::from_secs(5);

/// Replaces the address of a connection whose PROXY header has not arrived.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Maximum number of addresses to search for an idle connection, those with the most connections
/// first.
const ADDRESSES_TRIED_MAX: usize = 64;

/// The places of one server, shared by its workers.
pub(super) struct Places {
    /// A logical clock: it counts state changes of connections, so that their order is exact.
    moments: AtomicU64,
    connections_max: AtomicUsize,
    by_address_max: AtomicUsize,
    proxies: ArcSwap<Vec<Network>>,
    handshake_rate: Limit<IpAddr>,
    taken: AtomicUsize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    len: usize,
    by_address: HashMap<IpAddr, Vec<Arc<Occupant>>, RandomState>,
    /// Addresses other than proxies, ordered by their number of connections.
    by_size: BTreeSet<(usize, IpAddr)>,
}

/// A connection's place; returned on drop.
pub(super) struct Place {
    places: Arc<Places>,
    address: Cell<IpAddr>,
    occupant: Arc<Occupant>,
}

/// The state of a connection; the first in this order is closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    /// No complete head of a request has arrived.
    Idle,
    /// Accepted but not read yet: a complete request may be in the socket.
    Unread,
    /// During a TLS handshake, while the caller sends a body, or while it takes a response. Unread
    /// connections are closed first, because a caller can open many at once.
    Waiting,
    /// The broker is working on a response.
    Busy,
}

/// The shared state of a connection.
#[derive(Default)]
struct Occupant {
    /// Four times the moment at which the present state began, plus the number of the state.
    state: AtomicU64,
    seat: Arc<Seat>,
}

impl Occupant {
    fn begin(&self, doing: Doing, moment: u64) {
        self.state.store(moment * 4 + doing as u64, Relaxed);
    }

    /// Returns the state, and the moment at which it began.
    fn doing(&self) -> (Doing, u64) {
        let state = self.state.load(Relaxed);
        let doing = match state % 4 {
            0 if self.seat.is_read() => Doing::Idle,
            0 | 1 => Doing::Unread,
            2 => Doing::Waiting,
            _ => Doing::Busy,
        };
        (doing, state / 4)
    }
}

impl Places {
    pub(super) fn new(options: &ServerOptions) -> Self {
        Self {
            moments: AtomicU64::new(0),
            connections_max: AtomicUsize::new(options.connections_max.max(1)),
            by_address_max: AtomicUsize::new(options.connections_per_address_max.max(1)),
            proxies: ArcSwap::from_pointee(options.proxies.clone()),
            handshake_rate: Limit::new(options.handshake_rate),
            taken: AtomicUsize::new(0),
            held: Mutex::default(),
        }
    }

    /// Changes the bounds. Closes connections without a request while there are too many.
    pub(super) fn set(&self, options: &ServerOptions) {
        let connections_max = options.connections_max.max(1);
        self.connections_max.store(connections_max, Relaxed);
        self.by_address_max.store(options.connections_per_address_max.max(1), Relaxed);
        self.proxies.store(Arc::new(options.proxies.clone()));
        self.handshake_rate.set(options.handshake_rate);
        let mut held = self.held();
        while held.len > connections_max
            && let Some((address, at, Doing::Idle | Doing::Unread)) = held.first_of_all()
        {
            held.cut(address, at);
        }
        self.taken.store(held.len, Relaxed);
    }

    /// Counts a TLS handshake of the address; returns false if it exceeds the rate.
    pub(super) fn allow_handshake(&self, address: IpAddr) -> bool {
        self.is_proxy(address) || self.handshake_rate.check(&network_of(address)).is_ok()
    }

    /// Gives a connection a place, if necessary that of another one. `None` if all candidates are
    /// busy. The address is `None` until the PROXY header has arrived.
    ///
    /// Waits a moment rather than close a connection that was not read yet.
    pub(super) async fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Place> {
        let is_polite = || self.first_to_go(address).is_none_or(|doing| doing != Doing::Unread);
        in_turn(|| is_polite().then_some(())).await;
        self.admit_now(address)
    }

    /// Gives a connection a place without waiting.
    pub(super) fn admit_now(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Place> {
        let occupant = Arc::new(Occupant::default());
        occupant.begin(Doing::Idle, self.moment());
        let mut held = self.held();
        if held.len >= self.connections_max.load(Relaxed) && !held.cut_one() {
            return None;
        }
        held.insert(UNKNOWN, false, Arc::clone(&occupant));
        self.taken.store(held.len, Relaxed);
        drop(held);
        let place = Place { places: Arc::clone(self), address: Cell::new(UNKNOWN), occupant };
        let stays = address.is_none_or(|address| place.belongs_to(address));
        stays.then_some(place)
    }

    /// Returns the state of the connection that a new one would replace, if it replaces one.
    fn first_to_go(&self, address: Option<IpAddr>) -> Option<Doing> {
        let held = self.held();
        let own = address.filter(|address| !self.is_proxy(*address)).map(network_of);
        match own.filter(|own| held.of(*own).len() >= self.by_address_max.load(Relaxed)) {
            Some(own) => held.first_of(own).map(|(_, doing)| doing),
            None if held.len < self.connections_max.load(Relaxed) => None,
            None => held.first_of_all().map(|(.., doing)| doing),
        }
    }

    /// Closes a connection, because the process has no file descriptor for a new one. Returns whether
    /// there was one.
    pub(super) fn make_room(&self) -> bool {
        let mut held = self.held();
        let is_cut = held.cut_one();
        self.taken.store(held.len, Relaxed);
        is_cut
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.load().iter().any(|network| network.contains(address))
    }

    fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Relaxed)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Adds a connection; `counts` is false if the address is a proxy.
    fn insert(&mut self, address: IpAddr, counts: bool, occupant: Arc<Occupant>) {
        self.len += 1;
        let of_address = self.by_address.entry(address).or_default();
        of_address.push(occupant);
        if counts {
            let size = of_address.len();
            self.by_size.remove(&(size - 1, address));
            self.by_size.insert((size, address));
        }
    }

    fn remove(&mut self, address: IpAddr, at: usize) -> Option<Arc<Occupant>> {
        let of_address = self.by_address.get_mut(&address)?;
        let size = of_address.len();
        let removed = of_address.swap_remove(at);
        self.len -= 1;
        if self.by_size.remove(&(size, address)) && size > 1 {
            self.by_size.insert((size - 1, address));
        }
        if size == 1 {
            self.by_address.remove(&address);
        }
        Some(removed)
    }

    /// Removes a connection; returns false if it has been closed for another one.
    fn remove_occupant(&mut self, address: IpAddr, occupant: &Arc<Occupant>) -> bool {
        let of_address = self.by_address.get(&address);
        let at = of_address.and_then(|all| all.iter().position(|one| Arc::ptr_eq(one, occupant)));
        at.and_then(|at| self.remove(address, at)).is_some()
    }

    fn of(&self, address: IpAddr) -> &[Arc<Occupant>] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Closes the first connection of this address in the order of states; returns false if all are
    /// busy.
    fn cut_of(&mut self, address: IpAddr) -> bool {
        match self.first_of(address) {
            Some((_, Doing::Busy)) | None => false,
            Some((at, _)) => self.cut(address, at),
        }
    }

    /// Closes the first of all connections in the order of states.
    fn cut_one(&mut self) -> bool {
        self.first_of_all().is_some_and(|(address, at, _)| self.cut(address, at))
    }

    /// Returns the first connection, in the order of states, of the address with the most
    /// connections.
    fn first_of_all(&self) -> Option<(IpAddr, usize, Doing)> {
        let largest = self.by_size.iter().rev().take(ADDRESSES_TRIED_MAX);
        let firsts = largest.filter_map(|(size, address)| {
            let (at, doing) = self.first_of(*address)?;
            Some((*size, *address, at, doing))
        });
        // An unread connection counts as idle here, so a burst from one address closes no connection
        // of an address with fewer.
        let first = firsts
            .min_by_key(|(size, .., doing)| ((*doing).max(Doing::Unread), Reverse(*size), *doing));
        first.map(|(_, address, at, doing)| (address, at, doing))
    }

    /// Returns the position in the list of the address, and the state, of its first connection.
    fn first_of(&self, address: IpAddr) -> Option<(usize, Doing)> {
        let doing = self.of(address).iter().map(|occupant| occupant.doing()).enumerate();
        let (at, (doing, _)) = doing.min_by_key(|(_, doing)| *doing)?;
        Some((at, doing))
    }

    fn cut(&mut self, address: IpAddr, at: usize) -> bool {
        let removed = self.remove(address, at);
        removed.inspect(|occupant| occupant.seat.take_away()).is_some()
    }
}

impl Place {
    /// Sets the address of the connection. Returns whether it may stay.
    pub(super) fn belongs_to(&self, address: IpAddr) -> bool {
        let Self { places, occupant, .. } = self;
        let is_proxy = places.is_proxy(address);
        let address = network_of(address);
        let mut held = places.held();
        let is_over = held.of(address).len() >= places.by_address_max.load(Relaxed);
        if !is_proxy && is_over && !held.cut_of(address) {
            return false;
        }
        if !held.remove_occupant(self.address.get(), occupant) {
            return false; // it was closed for another one
        }
        held.insert(address, !is_proxy, Arc::clone(occupant));
        places.taken.store(held.len, Relaxed);
        self.address.set(address);
        true
    }

    /// Marks the connection as busy with a request.
    pub(super) fn set_busy(&self) {
        self.occupant.begin(Doing::Busy, self.places.moment());
    }

    /// Marks the connection as waiting for its caller.
    pub(super) fn set_waiting(&self) {
        self.occupant.begin(Doing::Waiting, self.places.moment());
    }

    /// Marks the connection as idle.
    pub(super) fn set_idle(&self) {
        self.occupant.begin(Doing::Idle, self.places.moment());
    }

    /// Returns how long a connection that becomes idle now may stay.
    pub(super) fn idle_timeout(&self) -> Duration {
        let Places { taken, connections_max, .. } = &*self.places;
        match taken.load(Relaxed) >= connections_max.load(Relaxed) / 4 * 3 {
            true => IDLE_TIMEOUT_WHEN_FEW,
            false => IDLE_TIMEOUT,
        }
    }

    /// Returns the seat that ends the connection when another one needs the place.
    pub(super) fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.occupant.seat)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        if held.remove_occupant(self.address.get(), &self.occupant) {
            self.places.taken.store(held.len, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections_max: usize, connections_per_address_max: usize) -> Arc<Places> {
        let proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let options = ServerOptions {
            connections_max,
            connections_per_address_max,
            proxies,
            ..ServerOptions::default()
        };
        Arc::new(Places::new(&options))
    }

    fn connect(places: &Arc<Places>, address: &str) -> Option<Place> {
        let place = places.admit_now(Some(address.parse().unwrap()));
        place.inspect(|place| place.occupant.seat.set_read())
    }

    fn connected(places: &Arc<Places>, address: &str, count: usize) -> Vec<Place> {
        (0..count).map(|_| connect(places, address).unwrap()).collect()
    }

    fn is_cut(place: &Place) -> bool {
        place.occupant.seat.is_taken_away()
    }

    fn cut(places: &[Place]) -> usize {
        places.iter().filter(|place| is_cut(place)).count()
    }

    #[test]
    fn one_more_of_an_address_replaces_the_one_that_has_been_idle_the_longest() {
        let places = places(10, 3);
        let held = connected(&places, "192.0.2.1", 3);
        held[0].occupant.begin(Doing::Busy, 1);
        held[1].occupant.begin(Doing::Idle, 20);
        held[2].occupant.begin(Doing::Idle, 10);
        let more = connect(&places, "192.0.2.1").unwrap();
        assert!(is_cut(&held[2]) && cut(&held) == 1);
        more.set_busy();
        held[1].set_busy();
        assert!(connect(&places, "192.0.2.1").is_none(), "all are being answered");
        assert!(connect(&places, "192.0.2.2").is_some());
        drop(more);
        assert!(connect(&places, "192.0.2.1").is_some());
    }

    #[test]
    fn when_all_places_are_taken_the_address_with_the_most_gives_one() {
        let places = places(10, 10);
        let one = connected(&places, "192.0.2.1", 1);
        let many = connected(&places, "192.0.2.2", 7);
        let some = connected(&places, "192.0.2.3", 2);
        let good = connected(&places, "192.0.2.4", 3);
        assert_eq!((cut(&one), cut(&many), cut(&some), cut(&good)), (0, 3, 0, 0));
    }

    #[test]
    fn when_all_are_being_answered_the_one_that_takes_the_longest_gives_its_place() {
        let places = places(3, 3);
        let busy = connected(&places, "192.0.2.1", 2);
        let other = connected(&places, "192.0.2.2", 1);
        busy.iter().chain(&other).for_each(Place::set_busy);
        busy[1].occupant.begin(Doing::Busy, 1);
        busy[0].occupant.begin(Doing::Busy, 3);
        assert!(connect(&places, "192.0.2.3").is_some());
        assert!(is_cut(&busy[1]) && cut(&busy) == 1 && cut(&other) == 0);
    }

    #[test]
    fn one_that_sends_or_takes_slowly_goes_before_one_that_is_being_answered() {
        let places = places(3, 3);
        let held = connected(&places, "192.0.2.1", 3);
        held.iter().for_each(Place::set_busy);
        held[1].set_waiting();
        held[2].set_waiting();
        let _more = connected(&places, "192.0.2.1", 3);
        assert!(is_cut(&held[1]) && cut(&held) == 1, "idle ones go first");
        let more = connect(&places, "192.0.2.1").unwrap();
        more.set_busy();
        assert!(!is_cut(&held[0]));
    }

    #[test]
    fn one_that_has_not_been_read_goes_behind_all_that_are_idle() {
        let places = places(10, 3);
        let held = connected(&places, "192.0.2.1", 2);
        let address = "192.0.2.1".parse().unwrap();
        let unread = places.admit_now(Some(address)).unwrap();
        unread.occupant.begin(Doing::Idle, 0);
        assert_eq!(places.first_to_go(Some(address)), Some(Doing::Idle));
        held.iter().for_each(Place::set_busy);
        assert_eq!(places.first_to_go(Some(address)), Some(Doing::Unread));
        assert_eq!(places.first_to_go(Some("192.0.2.2".parse().unwrap())), None);
        unread.occupant.seat.set_read();
        assert_eq!(places.first_to_go(Some(address)), Some(Doing::Idle));
    }

    #[test]
    fn a_burst_of_connections_cuts_no_handshake() {
        let places = places(10, 3);
        let good = connect(&places, "192.0.2.1").unwrap();
        good.set_waiting();
        let address = Some("192.0.2.1".parse().unwrap());
        let _unread: Vec<_> = (0..20).map(|_| places.admit_now(address).unwrap()).collect();
        assert!(!is_cut(&good));
    }

    #[test]
    fn a_64_of_ipv6_is_one_address_and_a_proxy_is_many() {
        let places = places(10, 2);
        let held = connected(&places, "2001:db8::1", 2);
        let _more = connect(&places, "2001:db8::2").unwrap();
        assert_eq!(cut(&held), 1);
        let proxied = connected(&places, "10.0.0.1", 5);
        assert_eq!(cut(&proxied), 0);
    }

    #[test]
    fn a_connection_behind_a_proxy_header_counts_once_it_is_known_whose_it_is() {
        let places = places(10, 1);
        let held = connected(&places, "192.0.2.1", 1);
        let unknown: Vec<_> = (0..3).map(|_| places.admit_now(None).unwrap()).collect();
        assert_eq!(places.held().len, 4);
        assert!(unknown[0].belongs_to("192.0.2.1".parse().unwrap()));
        assert!(unknown[1].belongs_to("192.0.2.2".parse().unwrap()));
        assert_eq!((cut(&held), cut(&unknown)), (1, 0));
        assert_eq!(places.held().len, 3);
        drop((held, unknown));
        let held = places.held();
        assert!(held.len == 0 && held.by_address.is_empty() && held.by_size.is_empty());
    }

    #[test]
    fn places_are_given_back_whatever_happened() {
        let places = places(50, 7);
        let mut held = Vec::new();
        for step in 0..10_000_usize {
            let address = format!("192.0.2.{}", step * 7 % 11);
            held.extend(connect(&places, &address));
            let place: &Place = &held[step * 13 % held.len()];
            if step % 3 == 0 {
                place.set_busy()
            } else {
                place.set_idle()
            }
            if step % 5 == 0 {
                held.swap_remove(step * 17 % held.len());
            }
            held.retain(|place| !is_cut(place));
            let inner = places.held();
            assert_eq!(inner.len, held.len());
            assert!(inner.len <= 50 && inner.by_address.values().all(|all| all.len() <= 7));
            assert_eq!(inner.by_size.len(), inner.by_address.len());
        }
        held.clear();
        assert!(places.held().by_size.is_empty());
    }
}
