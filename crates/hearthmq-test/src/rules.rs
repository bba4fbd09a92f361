//! Permissions of tests: everything is allowed, except what a test refuses.

use hearthmq::auth::{AccessRequest, Authorizer, Decision};

/// Denies the requests for which a function returns `true`.
pub struct Refusing<F>(F);

/// Returns an authorizer that denies the requests for which this returns `true`.
pub fn refusing<F>(is_refused: F) -> Refusing<F>
where
    F: Fn(&AccessRequest<'_>) -> bool + Send + Sync + 'static,
{
    Refusing(is_refused)
}

impl<F> Authorizer for Refusing<F>
where
    F: Fn(&AccessRequest<'_>) -> bool + Send + Sync + 'static,
{
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        if (self.0)(request) { Decision::Deny } else { Decision::Allow }
    }
}
