//! Limits the number of connections, in total and from one address, and the rate of CONNECTs.
//!
//! Connections accepted by CONNACK have one limit, `connections_max`; connections before CONNACK
//! have a limit of their own (`connecting`), so that strangers do not take the places of clients.

mod connecting;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use foldhash::fast::RandomState;
use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

pub(crate) use self::connecting::Stage;
use self::connecting::{Connecting, Place};
use super::shortage::Shortage;
use crate::{limits::Limits, metrics::ConnectRefusal};

/// The limits of all MQTT listeners of one broker.
pub(crate) struct Admission {
    connections_max: usize,
    /// Number of connections accepted by CONNACK.
    accepted: AtomicUsize,
    before: Mutex<Before>,
    by_address_max: usize,
    unread_max: usize,
    rate: Option<DefaultKeyedRateLimiter<IpAddr>>,
    checks: AtomicUsize,
    pub(super) shortage: Shortage,
}

/// The state under one lock.
struct Before {
    connecting: Connecting,
    /// Number of connections of each address, before and after CONNACK.
    by_address: HashMap<IpAddr, usize, RandomState>,
}

/// A connection's place; returned on drop.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    /// `None` until the client's address is known.
    address: Option<IpAddr>,
    state: State,
    /// Whether the connection is counted in the rate of its address, or need not be.
    has_knocked: bool,
}

#[derive(Clone, Copy)]
enum State {
    Connecting(Place),
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
    fn network(self) -> IpAddr {
        match self {
            Self::Of(address) | Self::PassedOnBy(address) => network_of(address),
        }
    }

    const fn is_own(self) -> bool {
        matches!(self, Self::Of(_))
    }
}

/// A connection is ended by this when another gets its place.
pub(crate) struct Eviction(AbortRegistration);

/// More would not make accepting cheaper.
const UNREAD_MAX: usize = 16;

/// Number of rate checks between two cleanups, which remove addresses without recent CONNECTs.
const CHECKS_BETWEEN_CLEANUPS: usize = 4096;

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let rate = NonZeroU32::new(limits.connects_per_address_per_sec).map(|per_second| {
            let burst = NonZeroU32::new(limits.connects_per_address_burst).unwrap_or(per_second);
            RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst))
        });
        let connecting = Connecting::new(
            limits.connecting_places() as usize,
            limits.connecting_places_of_one_address() as usize,
        );
        Self {
            connections_max: limits.connections_max as usize,
            accepted: AtomicUsize::new(0),
            before: Mutex::new(Before { connecting, by_address: HashMap::default() }),
            by_address_max: limits.connections_per_address_max as usize,
            unread_max: (limits.connecting_places_of_one_address() as usize / 4)
                .clamp(1, UNREAD_MAX),
            rate,
            checks: AtomicUsize::new(0),
            shortage: Shortage::new(),
        }
    }

    /// So many connections may be accepted before the first of them is read: they are younger than
    /// those that are evicted.
    pub(crate) const fn unread_max(&self) -> usize {
        self.unread_max
    }

    /// Connections that are in, before and after CONNACK.
    pub(crate) fn connections(&self) -> usize {
        self.accepted.load(Ordering::Relaxed) + self.before().connecting.len()
    }

    /// Returns whether the limit of connections accepted by CONNACK is reached.
    pub(crate) fn is_full(&self) -> bool {
        self.accepted.load(Ordering::Relaxed) >= self.connections_max
    }

    /// Lets a connection in if nobody has to go for it.
    pub(crate) fn enter_if_calm(
        self: &Arc<Self>,
        whose: Whose,
    ) -> Option<Result<(Admitted, Eviction), ConnectRefusal>> {
        let mut before = self.before();
        let is_crowded = before.connecting.is_crowded(whose.network(), whose.is_own());
        (!is_crowded).then(|| self.take_place(&mut before, whose))
    }

    /// Lets a connection in, or says which limit is in its way.
    pub(crate) fn enter(
        self: &Arc<Self>,
        whose: Whose,
    ) -> Result<(Admitted, Eviction), ConnectRefusal> {
        self.take_place(&mut self.before(), whose)
    }

    fn take_place(
        self: &Arc<Self>,
        before: &mut Before,
        whose: Whose,
    ) -> Result<(Admitted, Eviction), ConnectRefusal> {
        let network = whose.network();
        let address = match whose {
            Whose::Of(_) => {
                before.count(network, self.by_address_max)?;
                Some(network)
            }
            Whose::PassedOnBy(_) => None,
        };
        let (handle, registration) = AbortHandle::new_pair();
        let state = State::Connecting(before.connecting.enter(network, whose.is_own(), handle));
        let has_knocked = self.rate.is_none() || address.is_none();
        let admitted = Admitted { admission: self.clone(), address, state, has_knocked };
        Ok((admitted, Eviction(registration)))
    }

    /// Evicts a connection before CONNACK to free its file descriptor; returns whether there was
    /// one.
    pub(crate) fn evict_one(&self) -> bool {
        self.before().connecting.evict_one()
    }

    fn before(&self) -> MutexGuard<'_, Before> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Before {
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
        self.has_knocked = self.admission.rate.is_none();
        let mut before = self.admission.before();
        before.count(address, self.admission.by_address_max)?;
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
        let (Some(rate), Some(address)) = (&self.admission.rate, self.address) else {
            return Ok(());
        };
        if std::mem::replace(&mut self.has_knocked, true) {
            return Ok(());
        }
        let checks = self.admission.checks.fetch_add(1, Ordering::Relaxed);
        if checks.is_multiple_of(CHECKS_BETWEEN_CLEANUPS) {
            rate.retain_recent();
        }
        rate.check_key(&address).map_err(|_| ConnectRefusal::ConnectRate)
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
        if accepted.fetch_add(1, Ordering::Relaxed) >= self.admission.connections_max {
            accepted.fetch_sub(1, Ordering::Relaxed);
            return Err(ConnectRefusal::ConnectionsMax);
        }
        let before = std::mem::replace(&mut self.state, State::Accepted);
        let is_in = match before {
            State::Connecting(place) => self.admission.before().connecting.leave(place),
            State::Accepted | State::Evicted => false,
        };
        if is_in {
            return Ok(());
        }
        accepted.fetch_sub(1, Ordering::Relaxed);
        self.state = State::Evicted;
        Err(ConnectRefusal::ConnectingMax)
    }
}

impl Eviction {
    /// Drives a connection until it is through or another gets its place.
    pub(crate) fn unless_evicted<F: Future>(
        self,
        connection: F,
    ) -> impl Future<Output = Result<F::Output, ConnectRefusal>> {
        let connection = Abortable::new(connection, self.0);
        async move { connection.await.map_err(|_| ConnectRefusal::ConnectingMax) }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let is_connecting = matches!(self.state, State::Connecting(_));
        if matches!(self.state, State::Accepted) {
            self.admission.accepted.fetch_sub(1, Ordering::Relaxed);
        }
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
