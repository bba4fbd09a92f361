//! The places of HTTP connections: the limits in total and for one address, and the choice of the
//! connection that is closed for a new one.
//!
//! A new connection is always worth more than an idle one. So a stranger that holds many
//! connections keeps neither callers nor health checks out. Knows no sockets and no HTTP; the
//! accept loops ask for a place, and a connection reports what it is doing. The order in which
//! connections are closed is in `held`.

mod activity;
mod held;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use self::{
    activity::{Activity, Doing},
    held::{FirstToClose, HeldPlaces},
};
use super::ServerOptions;
use crate::{
    auth::Network,
    http::rate::Limit,
    net::{Seat, Whose, in_turn, network_of},
};

/// Maximum time that an idle connection waits for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// The same while three quarters of the places are taken.
const IDLE_TIMEOUT_WHEN_FEW: Duration = Duration::from_secs(5);

/// The places of one server, shared by its workers.
pub(super) struct Places {
    connections_max: AtomicUsize,
    by_address_max: AtomicUsize,
    proxies: ArcSwap<Vec<Network>>,
    handshake_rate: Limit<IpAddr>,
    /// A logical clock: it counts what connections do, so that their order is exact.
    moment: AtomicU64,
    held: Mutex<HeldPlaces>,
}

/// A connection's place; returned on drop.
pub(super) struct ConnectionPlace {
    places: Arc<Places>,
    number: u64,
    seat: Arc<Seat>,
    activity: Arc<Activity>,
}

impl Places {
    pub(super) fn new(options: &ServerOptions) -> Self {
        Self {
            connections_max: AtomicUsize::new(options.connections_max.max(1)),
            by_address_max: AtomicUsize::new(options.connections_per_address_max.max(1)),
            proxies: ArcSwap::from_pointee(options.proxies.clone()),
            handshake_rate: Limit::new(options.handshake_rate),
            moment: AtomicU64::new(0),
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
        while held.len() > max
            && let Some(first) = held.first_of_all()
            && first.doing <= Doing::Unread
        {
            held.cut(first);
        }
    }

    /// Returns whether this address may begin a TLS handshake now.
    pub(super) fn allow_handshake(&self, address: IpAddr) -> bool {
        self.is_proxy(address) || self.handshake_rate.check(&network_of(address)).is_ok()
    }

    /// Gives a connection a place, if necessary that of another one. `None` if all candidates are
    /// busy.
    ///
    /// Waits a moment rather than close a connection that was not read yet.
    pub(super) async fn admit(self: &Arc<Self>, whose: Whose) -> Option<ConnectionPlace> {
        let is_polite = || {
            let first = self.first_for(&mut self.held(), whose);
            first.is_none_or(|first| first.doing != Doing::Unread)
        };
        in_turn(|| is_polite().then_some(())).await;
        self.admit_now(whose)
    }

    /// Gives a connection a place without waiting.
    pub(super) fn admit_now(self: &Arc<Self>, whose: Whose) -> Option<ConnectionPlace> {
        let mut held = self.held();
        if let Some(first) = self.first_for(&mut held, whose)
            && !cut_unless_busy(&mut held, first)
        {
            return None;
        }
        let seat = Arc::new(Seat::default());
        let number = self.now();
        let activity = held.enter(number, whose.network(), Arc::clone(&seat));
        Some(ConnectionPlace { places: Arc::clone(self), number, seat, activity })
    }

    /// Returns the connection that a new one replaces, if it replaces one.
    fn first_for(&self, held: &mut HeldPlaces, whose: Whose) -> Option<FirstToClose> {
        if self.has_all_of_one(held, whose) {
            held.first_of(whose.network())
        } else if held.len() >= self.connections_max.load(Relaxed) {
            held.first_of_all()
        } else {
            None
        }
    }

    /// Returns whether the limit of one address applies and is reached. It does not apply to
    /// proxies: their connections belong to many callers.
    fn has_all_of_one(&self, held: &HeldPlaces, whose: Whose) -> bool {
        let Whose::Of(address) = whose else { return false };
        let is_over = held.len_of(whose.network()) >= self.by_address_max.load(Relaxed);
        is_over && !self.is_proxy(address)
    }

    /// Closes a connection to free its file descriptor; returns whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let mut held = self.held();
        held.first_of_all().is_some_and(|first| cut_unless_busy(&mut held, first))
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.load().iter().any(|network| network.contains(address))
    }

    /// Returns a moment that is later than all before it.
    fn now(&self) -> u64 {
        self.moment.fetch_add(1, Relaxed) + 1
    }

    fn held(&self) -> MutexGuard<'_, HeldPlaces> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the connection to close first; returns false if it is busy, as all others then are.
fn cut_unless_busy(held: &mut HeldPlaces, first: FirstToClose) -> bool {
    let is_busy = first.doing == Doing::Busy;
    if !is_busy {
        held.cut(first);
    }
    !is_busy
}

impl ConnectionPlace {
    /// Sets the address of the connection. Returns whether it may stay.
    pub(super) fn belongs_to(&self, address: IpAddr) -> bool {
        let (places, whose) = (&self.places, Whose::Of(address));
        let mut held = places.held();
        if places.has_all_of_one(&held, whose)
            && let Some(first) = held.first_of(whose.network())
            && !cut_unless_busy(&mut held, first)
        {
            return false;
        }
        held.rename(self.number, whose.network(), places.now())
    }

    /// Marks the connection as busy with a request.
    pub(super) fn set_busy(&self) {
        self.set(Doing::Busy);
    }

    /// Marks the connection as waiting for its caller.
    pub(super) fn set_waiting(&self) {
        self.set(Doing::Waiting);
    }

    /// Marks the connection as waiting until a password is checked.
    pub(super) fn set_asking(&self) {
        self.set(Doing::Asking);
    }

    /// Marks the connection as idle.
    pub(super) fn set_idle(&self) {
        self.set(Doing::Idle);
    }

    fn set(&self, doing: Doing) {
        if self.activity.report(doing, self.places.now()) {
            self.places.held().has_changed(self.number);
        }
    }

    /// Returns how long a connection that becomes idle now may stay.
    pub(super) fn idle_timeout(&self) -> Duration {
        let few = self.places.connections_max.load(Relaxed) / 4 * 3;
        match self.places.held().len() >= few {
            true => IDLE_TIMEOUT_WHEN_FEW,
            false => IDLE_TIMEOUT,
        }
    }

    /// Returns the seat that ends the connection when another one needs the place.
    pub(super) fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.seat)
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.places.held().leave(self.number);
    }
}

#[cfg(test)]
mod tests;
