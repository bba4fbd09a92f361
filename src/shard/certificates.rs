//! The client certificates of all connections, in the order in which they expire.
//!
//! A connection with a certificate holds a seat here, and drops it when it ends. Connections without one cost
//! nothing. Knows facts of certificates; does not verify any.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    auth::RevokedCertificates,
    control::{CertificatePage, CertificatePlace, ConnectedCertificate},
    mqtt::Timestamp,
    transport::CertificateFacts,
};

/// Number of connections that are examined under one lock.
const LOOKED_AT: usize = 1_024;

/// When the certificate expires, the Client Identifier, and the number of the seat.
type Key = (u64, Box<str>, u64);

/// The client certificates that a broker knows.
#[derive(Default)]
pub(crate) struct Certificates {
    /// The certificates of connections.
    pub(crate) connected: ConnectedCertificates,
    /// The certificates that an operator has revoked.
    pub(crate) revoked: RevokedCertificates,
}

/// The certificates of the connections of a broker.
#[derive(Clone, Default)]
pub(crate) struct ConnectedCertificates(Arc<Seats>);

#[derive(Default)]
struct Seats {
    all: Mutex<BTreeMap<Key, Arc<ConnectedCertificate>>>,
    next: AtomicU64,
}

/// The entry of one connection.
pub(crate) struct CertificateSeat {
    seats: Arc<Seats>,
    key: Key,
}

impl ConnectedCertificates {
    /// Adds the certificate of a connection, until the seat is dropped.
    pub(crate) fn seat(
        &self,
        facts: CertificateFacts,
        (client_id, username): (&str, Option<&Arc<str>>),
        listener: &Arc<str>,
    ) -> CertificateSeat {
        let expires_at = Timestamp(facts.expires_at_millis);
        let mut shown = ConnectedCertificate::new(client_id, Arc::clone(listener), expires_at);
        shown.username = username.cloned();
        shown.subject = facts.subject;
        shown.issuer = facts.issuer;
        shown.serial_number = facts.serial_number;
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let key = (shown.expires_at.millis(), shown.client_id.as_str().into(), number);
        lock(&self.0).insert(key.clone(), Arc::new(shown));
        CertificateSeat { seats: Arc::clone(&self.0), key }
    }

    /// Returns some certificates behind a place, and the place behind them if more follow.
    pub(crate) fn list(&self, after: Option<&CertificatePlace>, limit: usize) -> CertificatePage {
        let after = after.map(|(at, client_id, number)| (*at, client_id.as_str().into(), *number));
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = lock(&self.0);
        let mut entries = all.range((from, Bound::Unbounded));
        let mut last = None;
        let mut found = Vec::new();
        for (key, shown) in entries.by_ref().take(limit) {
            last = Some(key);
            found.push(Arc::clone(shown));
        }
        let has_more = entries.next().is_some();
        let last = last.filter(|_| has_more);
        let next = last.map(|(at, client_id, number)| (*at, client_id.to_string(), *number));
        CertificatePage::new(found, next)
    }

    /// Returns the number of connections with one of these certificates.
    pub(crate) fn count(&self, is_one: impl Fn(&ConnectedCertificate) -> bool) -> usize {
        let mut from: Bound<Key> = Bound::Unbounded;
        let mut count = 0;
        loop {
            let all = lock(&self.0);
            let mut looked_at = 0;
            let mut last = None;
            for (key, shown) in all.range((from, Bound::Unbounded)).take(LOOKED_AT) {
                looked_at += 1;
                count += usize::from(is_one(shown));
                last = Some(key.clone());
            }
            match last {
                Some(key) if looked_at == LOOKED_AT => from = Bound::Excluded(key),
                _ => return count,
            }
        }
    }
}

impl fmt::Debug for CertificateSeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSeat").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Drop for CertificateSeat {
    fn drop(&mut self) {
        lock(&self.seats).remove(&self.key);
    }
}

fn lock(seats: &Seats) -> MutexGuard<'_, BTreeMap<Key, Arc<ConnectedCertificate>>> {
    seats.all.lock().unwrap_or_else(PoisonError::into_inner)
}
