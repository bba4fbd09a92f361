//! Remembers since when a configuration asks more of a login than an identity tells. Called by the
//! authenticator.

use std::sync::atomic::{AtomicU64, Ordering};

use super::AuthenticationConfig;

/// Since which generation more is asked of a login than an identity tells: who came in before shows
/// itself again.
#[derive(Default)]
pub(super) struct Stricter {
    /// Clients without a user name: a name without an account was taken for none.
    pub(super) anonymous: AtomicU64,
    /// Clients with a certificate: it was enough, or any client identifier went with it.
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
