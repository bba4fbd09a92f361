//! The two simplest authenticators and authorizers: one refuses everything, the other allows everything.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    AccessRequest, AuthenticationError, Authenticator, Authorizer, Credentials, Decision, Identity,
    Login,
};

/// Admits no client and allows no action: the default until another authenticator or authorizer is
/// set.
#[derive(Clone, Copy, Debug, Default)]
pub struct DenyAll;

#[async_trait]
impl Authenticator for DenyAll {
    async fn authenticate(&self, _: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        Err(AuthenticationError::BadCredentials)
    }
}

impl Authorizer for DenyAll {
    fn authorize(&self, _: &AccessRequest<'_>) -> Decision {
        Decision::Deny
    }
}

/// Admits every client under the user name that it gives, and allows every action: for tests, and
/// for networks without strangers.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

#[async_trait]
impl Authenticator for AllowAll {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        Ok(Identity {
            username: credentials.username.map(Into::into),
            certificate: credentials.certificate.cloned().map(Arc::new),
            login: match (credentials.certificate, credentials.username) {
                (Some(_), _) => Login::Certificate,
                (None, Some(_)) => Login::Password,
                (None, None) => Login::Anonymous,
            },
            ..Identity::default()
        })
    }
}

impl Authorizer for AllowAll {
    fn authorize(&self, _: &AccessRequest<'_>) -> Decision {
        Decision::Allow
    }
}
