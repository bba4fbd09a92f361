//! How many connections there may be, in all and from one address, and how fast they may come.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::fast::RandomState;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::{limits::Limits, metrics::ConnectRefusal};

/// The doorkeeper of all MQTT listeners of one broker.
pub(crate) struct Admission {
    connections: AtomicUsize,
    connections_max: usize,
    by_address: Mutex<HashMap<IpAddr, usize, RandomState>>,
    by_address_max: usize,
    rate: Option<DefaultKeyedRateLimiter<IpAddr>>,
    checks: AtomicUsize,
}

/// A connection's place; given back when it is dropped.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    /// `None` until it is known whose connection it is.
    address: Option<IpAddr>,
}

/// Addresses that have been quiet are forgotten after so many connections.
const CHECKS_BETWEEN_CLEANUPS: usize = 4096;

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let rate = NonZeroU32::new(limits.connects_per_address_per_sec).map(|per_second| {
            let burst = NonZeroU32::new(limits.connects_per_address_burst).unwrap_or(per_second);
            RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst))
        });
        Self {
            connections: AtomicUsize::new(0),
            connections_max: limits.connections_max as usize,
            by_address: Mutex::default(),
            by_address_max: limits.connections_per_address_max as usize,
            rate,
            checks: AtomicUsize::new(0),
        }
    }

    /// Connections that are in.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Lets a connection in, or says which limit is in its way.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, ConnectRefusal> {
        let mut admitted = self.admit_unknown()?;
        admitted.count_for(address)?;
        Ok(admitted)
    }

    /// The same for a connection that has yet to say whose it is.
    pub(crate) fn admit_unknown(self: &Arc<Self>) -> Result<Admitted, ConnectRefusal> {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(ConnectRefusal::ConnectionsMax);
        }
        Ok(Admitted { admission: self.clone(), address: None })
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize, RandomState>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_rate(&self, address: IpAddr) -> Result<(), ConnectRefusal> {
        let Some(rate) = &self.rate else {
            return Ok(());
        };
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(CHECKS_BETWEEN_CLEANUPS) {
            rate.retain_recent();
        }
        rate.check_key(&address).map_err(|_| ConnectRefusal::ConnectRate)
    }
}

impl Admitted {
    /// Counts the connection for this address, once.
    pub(crate) fn count_for(&mut self, address: IpAddr) -> Result<(), ConnectRefusal> {
        let address = network_of(address);
        self.admission.check_rate(address)?;
        let mut by_address = self.admission.by_address();
        let count = by_address.get(&address).copied().unwrap_or(0);
        if count >= self.admission.by_address_max {
            return Err(ConnectRefusal::ConnectionsPerAddressMax);
        }
        by_address.insert(address, count + 1);
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else {
            return;
        };
        let mut by_address = self.admission.by_address();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

/// One site gets a /64 in IPv6 and may use every address in it, so it counts as one.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}
