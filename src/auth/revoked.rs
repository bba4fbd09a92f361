//! The client certificates that an operator has revoked, beside the lists of their authorities.
//!
//! Knows issuers and serial numbers; does not know certificates, nor where the set is stored. Read by the
//! TLS handshake and by each check of an open connection; changed by the broker.

use std::{
    collections::HashSet,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

/// A set of revoked certificates; all clones share it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RevokedCertificates(Arc<RevokedSet>);

#[derive(Debug, Default)]
struct RevokedSet {
    /// The serial number and the issuer of each certificate.
    all: RwLock<HashSet<(Box<str>, Box<str>)>>,
    /// How often the set has changed.
    changes: AtomicU64,
    changed: watch::Sender<()>,
}

impl RevokedCertificates {
    /// Returns whether the certificate with this serial number, of this issuer, is revoked. `issuer` is
    /// the text of a Distinguished Name, as `/api/v1/certificates` shows it.
    #[must_use]
    pub fn contains(&self, issuer: &str, serial_number: &str) -> bool {
        let all = self.0.all.read().unwrap_or_else(PoisonError::into_inner);
        !all.is_empty() && all.contains(&(serial_number.into(), issuer.into()))
    }

    /// Returns whether no certificate is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.all.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Returns the number of revoked certificates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.all.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Adds a certificate.
    pub(crate) fn insert(&self, issuer: &str, serial_number: &str) {
        self.change(|all| all.insert((serial_number.into(), issuer.into())));
    }

    /// Removes a certificate.
    pub(crate) fn remove(&self, issuer: &str, serial_number: &str) {
        self.change(|all| all.remove(&(serial_number.into(), issuer.into())));
    }

    fn change(&self, change: impl FnOnce(&mut HashSet<(Box<str>, Box<str>)>) -> bool) {
        let has_changed = {
            let mut all = self.0.all.write().unwrap_or_else(PoisonError::into_inner);
            change(&mut all)
        };
        if has_changed {
            self.0.changes.fetch_add(1, Ordering::AcqRel);
            self.0.changed.send_replace(());
        }
    }

    /// Returns how often the set has changed.
    #[cfg(feature = "tls")]
    pub(crate) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Acquire)
    }

    /// Returns the notifier of changes.
    #[cfg(all(feature = "http", feature = "tls"))]
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }
}
