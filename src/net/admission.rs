//! Limits the number of connections, in total and from one address, and the rate of CONNECTs.
//!
//! Connections accepted by CONNACK have one limit, `connections_max`; connections before CONNACK
//! have a limit of their own (`connecting`), so that strangers do not take the places of clients.

mod connecting;
mod seat;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use arc_swap::ArcSwapOption;
use foldhash::fast::RandomState;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use self::connecting::{Connecting, NewcomerPlace};
pub(crate) use self::{
    connecting::Stage,
    seat::{Seat, in_turn},
};
use super::shortage::Shortage;
use crate::{limits::Limits, metrics::ConnectRefusal};

/// The limits of all MQTT listeners of one broker.
pub(crate) struct ListenerLimits {
    connections_max: AtomicUsize,
    /// Number of connections accepted by CONNACK.
    accepted: AtomicUsize,
    before: Mutex<Newcomers>,
    by_address_max: AtomicUsize,
    rate: ArcSwapOption<AddressRate>,
    checks: AtomicUsize,
    pub(super) shortage: Shortage,
}

/// The rate of CONNECTs of one address.
struct AddressRate {
    quota: Quota,
    limiter: DefaultKeyedRateLimiter<IpAddr>,
}

/// The state under one lock.
struct Newcomers {
    connecting: Connecting,
    /// Number of connections of each address, before and after CONNACK.
    by_address: HashMap<IpAddr, usize, RandomState>,
}

/// A connection's place; returned on drop.
pub(crate) struct Admitted {
    admission: Arc<ListenerLimits>,
    /// `None` until the client's address is known.
    address: Option<IpAddr>,
    state: State,
    /// Whether the connection is counted in the rate of its address, or need not be.
    has_knocked: bool,
}

#[derive(Clone, Copy)]
enum State {
    Connecting(NewcomerPlace),
    Accepted,
    /// Another connection has taken its place.
    Evicted,
}

/// The client that a connection belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose {
    /// The client at this address.
    Of(IpAddr),
    /// A client behind the balancer at this address, whose PROXY header has not arrived, or a
    /// client named by the embedding application. The limits of one address do not apply.
    PassedOnBy(IpAddr),
}

impl Whose {
    /// Returns the network that connections are counted for.
    pub(crate) fn network(self) -> IpAddr {
        match self {
            Self::Of(address) | Self::PassedOnBy(address) => network_of(address),
        }
    }

    const fn is_own(self) -> bool {
        matches!(self, Self::Of(_))
    }
}

/// Ends a connection whose place is taken by another one.
pub(crate) struct Eviction(Arc<Seat>);

/// Number of rate checks between two cleanups, which remove addresses without recent CONNECTs.
const CHECKS_BETWEEN_CLEANUPS: usize = 4096;

impl ListenerLimits {
    pub(crate) fn new(limits: &Limits) -> Self {
        let connecting = Connecting::new(
            limits.connecting_places() as usize,
            limits.connecting_places_of_one_address() as usize,
        );
        Self {
            connections_max: AtomicUsize::new(limits.connections_max as usize),
            accepted: AtomicUsize::new(0),
            before: Mutex::new(Newcomers { connecting, by_address: HashMap::default() }),
            by_address_max: AtomicUsize::new(limits.connections_per_address_max as usize),
            rate: ArcSwapOption::new(quota(limits).map(AddressRate::new)),
            checks: AtomicUsize::new(0),
            shortage: Shortage::new(),
        }
    }

    /// Changes the limits. Accepted connections stay; connections before CONNACK lose their places
    /// while there are too many.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        self.connections_max.store(limits.connections_max as usize, Ordering::Relaxed);
        self.by_address_max.store(limits.connections_per_address_max as usize, Ordering::Relaxed);
        let quota = quota(limits);
        // A rate that stays the same keeps its counts.
        if quota != self.rate.load().as_ref().map(|rate| rate.quota) {
            self.rate.store(quota.map(AddressRate::new));
        }
        // Evicts immediately, because nothing else looks at these limits until the next connection.
        self.before().connecting.set_places(
            limits.connecting_places() as usize,
            limits.connecting_places_of_one_address() as usize,
        );
    }

    /// Returns the number of connections, before and after CONNACK.
    pub(crate) fn connections(&self) -> usize {
        self.accepted.load(Ordering::Relaxed) + self.before().connecting.len()
    }

    /// Returns whether the limit of connections accepted by CONNACK is reached.
    pub(crate) fn is_full(&self) -> bool {
        self.accepted.load(Ordering::Relaxed) >= self.connections_max.load(Ordering::Relaxed)
    }

    /// Gives a connection a place, or returns the limit that prevents it.
    pub(crate) fn enter(
        self: &Arc<Self>,
        whose: Whose,
    ) -> Result<(Admitted, Eviction), ConnectRefusal> {
        self.take_place(&mut self.before(), whose)
    }

    /// Gives a connection a place, but first waits a moment rather than evict one that was not read.
    pub(crate) async fn enter_in_turn(
        self: &Arc<Self>,
        whose: Whose,
    ) -> Result<(Admitted, Eviction), ConnectRefusal> {
        let entered = in_turn(|| self.enter_unless_unread_goes(whose)).await;
        entered.unwrap_or_else(|| self.enter(whose))
    }

    fn enter_unless_unread_goes(
        self: &Arc<Self>,
        whose: Whose,
    ) -> Option<Result<(Admitted, Eviction), ConnectRefusal>> {
        let mut before = self.before();
        let must_wait = before.connecting.would_evict_unread(whose.network(), whose.is_own());
        (!must_wait).then(|| self.take_place(&mut before, whose))
    }

    fn take_place(
        self: &Arc<Self>,
        before: &mut Newcomers,
        whose: Whose,
    ) -> Result<(Admitted, Eviction), ConnectRefusal> {
        let network = whose.network();
        let address = match whose {
            Whose::Of(_) => {
                // First, because a refusal needs no cleanup yet: no seat is taken.
                before.count(network, self.by_address_max.load(Ordering::Relaxed))?;
                Some(network)
            }
            Whose::PassedOnBy(_) => None,
        };
        let seat = Arc::new(Seat::default());
        let place = before.connecting.enter(network, whose.is_own(), Arc::clone(&seat));
        let state = State::Connecting(place);
        // Without a known address there is no rate to count the connection in, until `count_for`.
        let has_knocked = address.is_none();
        let admitted = Admitted { admission: self.clone(), address, state, has_knocked };
        Ok((admitted, Eviction(seat)))
    }

    /// Evicts a connection before CONNACK to free its file descriptor; returns whether there was
    /// one.
    pub(crate) fn evict_one(&self) -> bool {
        self.before().connecting.evict_one()
    }

    fn before(&self) -> MutexGuard<'_, Newcomers> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AddressRate {
    fn new(quota: Quota) -> Arc<Self> {
        Arc::new(Self { quota, limiter: RateLimiter::keyed(quota) })
    }
}

fn quota(limits: &Limits) -> Option<Quota> {
    let per_second = NonZeroU32::new(limits.connects_per_address_per_sec)?;
    let burst = NonZeroU32::new(limits.connects_per_address_burst).unwrap_or(per_second);
    Some(Quota::per_second(per_second).allow_burst(burst))
}

impl Newcomers {
    /// Counts a connection of this address.
    fn count(&mut self, address: IpAddr, max: usize) -> Result<(), ConnectRefusal> {
        let count = self.by_address.entry(address).or_insert(0);
        if *count >= max {
            return Err(ConnectRefusal::ConnectionsPerAddressMax);
        }
        *count += 1;
        Ok(())
    }

    fn uncount(&mut self, address: IpAddr) {
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Admitted {
    /// Counts a connection for this address once a balancer has named it.
    pub(crate) fn count_for(&mut self, address: IpAddr) -> Result<(), ConnectRefusal> {
        let address = network_of(address);
        // From now on the rate of the named address applies; that of the balancer never did.
        self.has_knocked = false;
        let mut before = self.admission.before();
        before.count(address, self.admission.by_address_max.load(Ordering::Relaxed))?;
        self.address = Some(address);
        if let State::Connecting(place) = self.state {
            self.state = match before.connecting.rename(place, address) {
                Some(place) => State::Connecting(place),
                None => State::Evicted,
            };
        }
        Ok(())
    }

    /// Counts the connection in the rate of its address, once, before the broker does expensive
    /// work for it. Silent sockets do not count; otherwise a stranger with many sockets would use
    /// up the rate of a client at the same address.
    pub(crate) fn knock(&mut self) -> Result<(), ConnectRefusal> {
        let Some(address) = self.address else { return Ok(()) };
        if std::mem::replace(&mut self.has_knocked, true) {
            return Ok(());
        }
        let rate = self.admission.rate.load();
        let Some(AddressRate { limiter, .. }) = rate.as_deref() else { return Ok(()) };
        let checks = self.admission.checks.fetch_add(1, Ordering::Relaxed);
        // The limiter never forgets an address by itself, and strangers choose their addresses.
        if checks.is_multiple_of(CHECKS_BETWEEN_CLEANUPS) {
            limiter.retain_recent();
        }
        limiter.check_key(&address).map_err(|_| ConnectRefusal::ConnectRate)
    }

    /// Notes the stage of the connection.
    pub(crate) fn reach(&mut self, stage: Stage) {
        if let State::Connecting(place) = self.state {
            self.state = match self.admission.before().connecting.advance(place, stage) {
                Some(place) => State::Connecting(place),
                None => State::Evicted,
            };
        }
    }

    /// Waits for an authenticator. Unless it answers immediately, the connection moves to the room
    /// of clients that wait for the broker.
    pub(crate) async fn ask<F: Future>(&mut self, answer: F) -> F::Output {
        let mut answer = pin!(answer);
        // Polled once first: most answers are in memory,
        // and then the lock for another room is not taken.
        let at_once = std::future::poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await;
        if let Poll::Ready(answer) = at_once {
            return answer;
        }
        self.reach(Stage::Asking);
        answer.await
    }

    /// Returns whether the limit of connections accepted by CONNACK is reached.
    pub(crate) fn finds_all_taken(&self) -> bool {
        self.admission.is_full()
    }

    /// Takes a place among the connections accepted by CONNACK.
    pub(crate) fn accept(&mut self) -> Result<(), ConnectRefusal> {
        let accepted = &self.admission.accepted;
        let connections_max = self.admission.connections_max.load(Ordering::Relaxed);
        // Added before the comparison: two threads that
        // compare first could both take the last place.
        if accepted.fetch_add(1, Ordering::Relaxed) >= connections_max {
            accepted.fetch_sub(1, Ordering::Relaxed);
            return Err(ConnectRefusal::ConnectionsMax);
        }
        // A connection that another thread has evicted during this turn is accepted nevertheless.
        if let State::Connecting(place) = std::mem::replace(&mut self.state, State::Accepted) {
            self.admission.before().connecting.leave(place);
        }
        Ok(())
    }
}

impl Eviction {
    /// Drives a connection until it ends, or until its place is taken by another one.
    pub(crate) async fn unless_evicted<F: Future>(
        self,
        connection: Pin<&mut F>,
    ) -> Result<F::Output, ConnectRefusal> {
        self.0.sit(connection).await.ok_or(ConnectRefusal::ConnectingMax)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let is_connecting = matches!(self.state, State::Connecting(_));
        if matches!(self.state, State::Accepted) {
            self.admission.accepted.fetch_sub(1, Ordering::Relaxed);
        }
        // Nothing is counted under the lock then; many
        // connections end at the same time at a shutdown.
        if self.address.is_none() && !is_connecting {
            return;
        }
        let mut before = self.admission.before();
        if let State::Connecting(place) = self.state {
            before.connecting.leave(place);
        }
        if let Some(address) = self.address {
            before.uncount(address);
        }
    }
}

/// Returns the /64 of an IPv6 address: one site may use all addresses in it, so they count as one.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CLIENT: Whose = Whose::Of(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));

    fn admission(places_of_one: u32) -> Arc<ListenerLimits> {
        let limits = Limits {
            connections_max: 10,
            connecting_max: 100,
            connecting_per_address_max: places_of_one,
            ..Limits::default()
        };
        Arc::new(ListenerLimits::new(&limits))
    }

    #[actix_rt::test]
    async fn a_newcomer_waits_until_those_before_it_have_been_read() {
        let admission = admission(2);
        let mut held: Vec<_> = (0..2).map(|_| admission.enter(CLIENT).ok().unwrap()).collect();
        assert!(admission.enter_unless_unread_goes(CLIENT).is_none());
        let (_client, eviction) = held.pop().unwrap();
        let says_nothing = pin!(std::future::pending::<()>());
        let (newcomer, evicted) = futures_util::future::join(
            admission.enter_in_turn(CLIENT),
            eviction.unless_evicted(says_nothing),
        )
        .await;
        assert!(newcomer.is_ok() && evicted.is_err(), "the one that says nothing has gone");
        let (_, first) = held.pop().unwrap();
        assert!(!first.0.is_taken_away(), "it was older, but had not been read");
    }

    #[actix_rt::test]
    async fn a_newcomer_does_not_wait_forever() {
        let admission = admission(2);
        let _held: Vec<_> = (0..2).map(|_| admission.enter(CLIENT).ok().unwrap()).collect();
        let _newcomer = admission.enter_in_turn(CLIENT).await.ok().unwrap();
        assert_eq!(admission.connections(), 2);
    }

    #[test]
    fn who_comes_through_in_the_turn_in_which_its_place_is_taken_is_in() {
        let admission = admission(2);
        let (mut admitted, _eviction) = admission.enter(CLIENT).ok().unwrap();
        assert!(admission.evict_one());
        assert!(admitted.accept().is_ok());
        assert_eq!(admission.connections(), 1);
        drop(admitted);
        assert_eq!((admission.connections(), admission.before().by_address.len()), (0, 0));
    }
}
