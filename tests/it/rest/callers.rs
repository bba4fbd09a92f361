//! Who may call: the double of the accounts, and that of the policy.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use hearthmq::{
    auth::{
        AccessRequest, Action, AuthenticationError, AuthenticationFault, Authenticator, Authorizer,
        Credentials, Decision, Identity, Preparation, PrepareError, PrepareRequest, Standing,
    },
    mqtt::Timestamp,
};

/// Knows the user `ops`, and every client with a certificate.
#[derive(Default)]
pub(crate) struct Accounts {
    generation: AtomicU64,
    /// What has become of them.
    standing: Mutex<Standing>,
    /// The checks of users whose names begin with `remembered`.
    checks: AtomicU64,
}

impl Accounts {
    /// Changes all accounts.
    pub(crate) fn change(&self, standing: Standing) {
        *self.standing.lock().unwrap() = standing;
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Authenticator for Accounts {
    fn may_be_remembered(&self, identity: &Identity) -> bool {
        identity.username.as_deref().is_some_and(|name| name.starts_with("check-"))
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        assert!(identity.username.is_some());
        assert_eq!(since, 0, "it was admitted before the change");
        *self.standing.lock().unwrap()
    }

    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        assert!(credentials.client_id.is_none());
        if credentials.username.is_some_and(|name| name.starts_with("remembered")) {
            let check = self.checks.fetch_add(1, Ordering::Relaxed);
            let username = Some(format!("check-{check}").into());
            return Ok(Identity { username, ..Identity::default() });
        }
        let username = match (credentials.username, credentials.password) {
            _ if credentials.certificate.is_some() => {
                credentials.certificate.unwrap().common_name.as_str()
            }
            _ if credentials.bearer == Some(b"token-of-ops") => "ops",
            (Some("throttled"), _) => {
                return Err(AuthenticationError::TooManyAttempts { retry_after_secs: 7 });
            }
            (Some("pending"), _) => std::future::pending().await,
            (Some("goes-on" | "goes-on-2"), _) if credentials.proven => "again",
            (Some("goes-on" | "goes-on-2"), _) => "first",
            (Some("needs-account"), _)
                if credentials.rules.certificate_needs_account == Some(true) =>
            {
                return Err(AuthenticationError::NoAccount);
            }
            (Some("needs-account"), _) => "ops",
            (Some("expired" | "expires"), _) => {
                let expires_at = match credentials.username {
                    Some("expired") => Timestamp(1_000),
                    _ => Timestamp::NEVER,
                };
                let (username, expires_at) = (Some("ops".into()), Some(expires_at));
                return Ok(Identity { username, expires_at, ..Identity::default() });
            }
            (Some("unloadable"), _) => "unloadable",
            (Some("wrong-way"), _) => return Err(AuthenticationError::NotAllowed),
            (Some("unknowable"), _) => {
                return Err(AuthenticationFault::new("the database has gone").into());
            }
            (Some(user @ ("ops" | "öps")), Some(b"pass:word")) => user,
            _ => return Err(AuthenticationError::BadCredentials),
        };
        Ok(Identity { username: Some(username.into()), ..Identity::default() })
    }
}

/// Lets everybody control every client except `secret`.
pub(super) struct Policy;

impl Authorizer for Policy {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let is_about_all = request.client_id.is_empty();
        if is_about_all || matches!(request.action, Action::Publish { .. }) {
            let is_ops = request.identity.username.as_deref() == Some("ops");
            return if is_ops { Decision::Allow } else { Decision::Deny };
        }
        assert!(matches!(request.action, Action::Connect | Action::Control | Action::Observe));
        assert!(request.identity.username.is_some());
        if request.client_id == "secret" { Decision::Deny } else { Decision::Allow }
    }

    fn prepare<'a>(&'a self, request: PrepareRequest<'a>) -> Option<Preparation<'a>> {
        assert_eq!(request.client_id, None);
        let is_loadable = request.identity.username.as_deref() != Some("unloadable");
        let failed = async { Err(PrepareError::new("no database")) };
        (!is_loadable).then(|| -> Preparation<'a> { Box::pin(failed) })
    }
}
