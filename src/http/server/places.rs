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
    /// The moment at which the connection entered the list of its address.
    entered: AtomicU64,
    seat: Arc<Seat>,
}

impl Occupant {
    fn begin(&self, doing: Doing, moment: u64) {
        self.state.store(moment * 4 + doing as u64, Relaxed);
    }

    /// Marks the connection as the last in the list of an address, and idle from now on.
    fn enter(&self, moment: u64) {
        self.entered.store(moment, Relaxed);
        self.begin(Doing::Idle, moment);
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
        let max = options.connections_max.max(1);
        self.connections_max.store(max, Relaxed);
        self.by_address_max.store(options.connections_per_address_max.max(1), Relaxed);
        self.proxies.store(Arc::new(options.proxies.clone()));
        self.handshake_rate.set(options.handshake_rate);
        let mut held = self.held();
        while held.len > max
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
        let mut held = self.held();
        occupant.enter(self.moment());
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

    /// Closes a connection to free its file descriptor; returns whether there was one.
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
        let removed = of_address.remove(at); // keeps the order in which they entered
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
        let mut first: Option<(usize, (Doing, u64))> = None;
        for (at, occupant) in self.of(address).iter().enumerate() {
            let doing = occupant.doing();
            if first.is_none_or(|(_, best)| doing < best) {
                first = Some((at, doing));
            }
            // All behind it entered later, so none has been idle for longer. In a flood of silent
            // connections the search ends here, at the first one.
            if doing == (Doing::Idle, occupant.entered.load(Relaxed)) {
                break;
            }
        }
        first.map(|(at, (doing, _))| (at, doing))
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
        occupant.enter(places.moment());
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
mod tests;
