//! The credentials that were last accepted on a connection, stored in the connection's data.
//!
//! A caller that uses them again does not guess passwords, so a lock-out of others does not concern it. Where the
//! authenticator allows it, the identity behind them is remembered, too: then calls that follow each other are
//! checked once in [`REMEMBERED`]. Called by `admission`.

use std::{cell::RefCell, net::IpAddr, time::Duration};

use actix_web::{HttpRequest, http::header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};

use crate::{
    auth::{Identity, ListenerLogins},
    mqtt::Timestamp,
};

/// Time after which credentials are checked again. The broker notes the last use of a token at most this much later.
const REMEMBERED: Duration = Duration::from_secs(5);

/// A hash of the credentials in a request.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Proof([u8; 32]);

/// The facts that the outcome of a check depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ShownLogin {
    proof: Proof,
    from: IpAddr,
    rules: ListenerLogins,
    /// The generation of the authenticator before the check.
    generation: u64,
}

impl ShownLogin {
    /// Returns the facts of a request from this address; `None` if the request has no credentials.
    pub(super) fn of(
        request: &HttpRequest,
        (from, rules): (IpAddr, ListenerLogins),
        generation: u64,
    ) -> Option<Self> {
        let header = request.headers().get(AUTHORIZATION)?;
        let proof = Proof(Sha256::digest(header.as_bytes()).into());
        Some(Self { proof, from, rules, generation })
    }
}

/// The credentials that were last accepted on a connection.
#[derive(Default)]
pub(super) struct LastAccepted(RefCell<Option<AcceptedLogin>>);

struct AcceptedLogin {
    shown: ShownLogin,
    /// The identity and the time of its check, if it may be remembered.
    identity: Option<(Identity, Timestamp)>,
}

impl LastAccepted {
    /// Returns whether these credentials were accepted last.
    pub(super) fn has_accepted(&self, shown: &ShownLogin) -> bool {
        self.0.borrow().as_ref().is_some_and(|accepted| accepted.shown.proof == shown.proof)
    }

    /// Returns the identity that these credentials proved a moment ago, unless accounts or rules have changed since.
    pub(super) fn identity(&self, shown: &ShownLogin, now: Timestamp) -> Option<Identity> {
        let accepted = self.0.borrow();
        let accepted = accepted.as_ref().filter(|accepted| accepted.shown == *shown)?;
        let (identity, at) = accepted.identity.as_ref()?;
        let until = at.plus_millis(REMEMBERED.as_millis() as u64);
        let holds = *at <= now && now < until && !identity.has_expired(now);
        holds.then(|| identity.clone())
    }

    /// Notes that these credentials were accepted, and their identity if it may be remembered.
    pub(super) fn note(&self, shown: ShownLogin, identity: Option<(Identity, Timestamp)>) {
        *self.0.borrow_mut() = Some(AcceptedLogin { shown, identity });
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn shown(password: &str, generation: u64) -> ShownLogin {
        let request = TestRequest::default().insert_header((AUTHORIZATION, password));
        let from = ("192.0.2.1".parse().unwrap(), ListenerLogins::default());
        ShownLogin::of(&request.to_http_request(), from, generation).unwrap()
    }

    #[test]
    fn an_identity_is_remembered_for_some_seconds_until_something_changes() {
        let last = LastAccepted::default();
        let (first, at) = (shown("right", 1), Timestamp(1_000));
        let identity = Identity { username: Some("ann".into()), ..Identity::default() };
        assert!(!last.has_accepted(&first) && last.identity(&first, at).is_none());
        last.note(first, Some((identity.clone(), at)));
        let found = |shown: ShownLogin, millis| last.identity(&shown, Timestamp(millis));
        assert_eq!(found(first, 5_999), Some(identity.clone()));
        assert_eq!(found(first, 6_000), None, "it is time for another check");
        assert_eq!(found(first, 999), None, "the clock went back");
        assert_eq!(found(shown("right", 2), 1_000), None, "an account has changed");
        assert!(last.has_accepted(&shown("right", 2)));
        assert_eq!(found(shown("other", 1), 1_000), None);
        assert!(!last.has_accepted(&shown("other", 1)));
        let elsewhere = ShownLogin { from: "192.0.2.2".parse().unwrap(), ..first };
        assert_eq!(found(elsewhere, 1_000), None, "a proxy names another caller");
        let stricter = ListenerLogins { anonymous: Some(false), ..ListenerLogins::default() };
        assert_eq!(found(ShownLogin { rules: stricter, ..first }, 1_000), None);
        let expiring = Identity { expires_at: Some(Timestamp(2_000)), ..identity };
        last.note(first, Some((expiring, at)));
        assert!(found(first, 1_999).is_some() && found(first, 2_000).is_none());
        last.note(first, None);
        assert!(found(first, 1_000).is_none() && last.has_accepted(&first));
    }
}
