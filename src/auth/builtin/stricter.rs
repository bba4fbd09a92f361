//! Remembers when the configuration became stricter in a way that an identity does not show: it does not say
//! which of the former rules admitted it. Called by the authenticator.

use std::sync::atomic::{AtomicU64, Ordering};

use super::AuthenticationConfig;

/// The generations in which the configuration last became stricter. Clients that logged in before must log in
/// again.
#[derive(Default)]
pub(super) struct Stricter {
    /// For clients without a user name. Before, a user name without an account counted as no user name.
    pub(super) anonymous: AtomicU64,
    /// For clients with a certificate. Before, the certificate was enough, or the client identifier was free.
    pub(super) certificate: AtomicU64,
}

impl Stricter {
    pub(super) fn note(
        &self,
        former: &AuthenticationConfig,
        now: &AuthenticationConfig,
        generation: u64,
    ) {
        if former.anonymous_with_name && !now.anonymous_with_name {
            self.anonymous.store(generation, Ordering::Relaxed);
        }
        if former.certificate_is_enough && !now.certificate_is_enough
            || !former.client_id_is_common_name && now.client_id_is_common_name
        {
            self.certificate.store(generation, Ordering::Relaxed);
        }
    }
}

pub(super) fn is_older(generation: &AtomicU64, since: u64) -> bool {
    generation.load(Ordering::Relaxed) > since
}
