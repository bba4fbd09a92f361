//! The steps of a login by SCRAM: its keys, its turn, its identity.
//!
//! Does not know the messages of an exchange, which calls it.

use std::{net::SocketAddr, sync::Arc};

use super::FileAuthenticator;
use crate::auth::{
    AuthenticationError, ClientCertificate, Credentials, Identity, Login,
    builtin::{
        attempts::Applicant,
        keys::{ScramKeys, prepared},
    },
};

/// SCRAM keys to compare a proof with.
pub(in crate::auth::builtin) struct ScramLogin {
    /// The account's name, or the given name after SASLprep. Failures are counted under it, so that
    /// all spellings of a name count as one.
    pub(in crate::auth::builtin) name: Arc<str>,
    pub(in crate::auth::builtin) keys: ScramKeys,
    /// Whether there is no account, or it has no keys. The login then fails, whatever the proof.
    pub(in crate::auth::builtin) is_decoy: bool,
    pub(in crate::auth::builtin) has_account: bool,
}

impl FileAuthenticator {
    /// Returns the keys with which a proof of `name` is compared. Takes the same steps whether the
    /// account exists or not.
    pub(in crate::auth::builtin) fn scram_login(&self, name: &str) -> ScramLogin {
        let accounts = self.accounts.load();
        let decoy = accounts.scram_decoy(name, &self.salts);
        let prepared: Arc<str> = prepared(name).into();
        let user = accounts.get(name).or_else(|| accounts.get(&prepared));
        let keys = user.and_then(|user| user.scram.clone());
        ScramLogin {
            name: user.map_or(prepared, |user| Arc::clone(&user.name)),
            is_decoy: keys.is_none(),
            has_account: user.is_some(),
            keys: keys.unwrap_or(decoy),
        }
    }

    /// Returns whether the store has an account of this name, which has no SCRAM keys.
    pub(in crate::auth::builtin) fn has_stored(&self, name: &str) -> bool {
        self.stored_account(name).is_some()
    }

    /// Waits for the delay that earlier failures of `name` impose, and returns whose login it is.
    pub(in crate::auth::builtin) async fn wait_for_turn(
        &self,
        shown: &Presented,
        name: &str,
    ) -> Result<Applicant, AuthenticationError> {
        let who = self.check.attempts.applicant(&shown.credentials(), name);
        // Asked when the proof has arrived: before that, no guess has been made.
        let delay = self.check.attempts.admit(&who)?;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
            // Failures of other logins may have been counted meanwhile: a volley of guesses is cut
            // short.
            self.check.attempts.admit(&who)?;
        }
        Ok(who)
    }

    /// Counts the outcome of a login that was checked elsewhere.
    pub(in crate::auth::builtin) fn write_down(&self, who: &Applicant, right: bool) {
        self.check.attempts.write_down(who, None, right);
    }

    /// Returns the identity of `account`, unless user name, certificate or client identifier
    /// contradict it.
    pub(in crate::auth::builtin) fn identify(
        &self,
        account: Arc<str>,
        shown: &Presented,
    ) -> Result<Identity, AuthenticationError> {
        let certificate = shown.certificate.as_ref();
        // Name in CONNECT, certificate and SCRAM must be the same user; rules know only one.
        let mut names =
            shown.username.as_deref().into_iter().chain(certificate.map(|c| &*c.common_name));
        if !names.all(|name| name == &*account) {
            return Err(AuthenticationError::BadCredentials);
        }
        if self.accounts.load().get(&account).is_none_or(|user| user.is_disabled) {
            return Err(AuthenticationError::NotAllowed); // removed since the exchange began
        }
        if certificate.is_some()
            && self.config.load().client_id_is_common_name
            && shown.client_id.as_ref().is_some_and(|client_id| **client_id != *account)
        {
            return Err(AuthenticationError::NotAllowed);
        }
        let (username, certificate) = (Some(account), certificate.cloned());
        Ok(Identity { username, certificate, login: Login::Scram, ..Identity::default() })
    }
}

/// The credentials beside the password, stored for the duration of an exchange.
pub(in crate::auth::builtin) struct Presented {
    client_id: Option<Box<str>>,
    username: Option<Box<str>>,
    certificate: Option<Arc<ClientCertificate>>,
    peer: SocketAddr,
    listener: Box<str>,
}

impl Presented {
    /// Returns the credentials without certificate and password.
    fn credentials(&self) -> Credentials<'_> {
        Credentials {
            client_id: self.client_id.as_deref(),
            username: self.username.as_deref(),
            ..Credentials::new(self.peer, &self.listener)
        }
    }
}

impl From<&Credentials<'_>> for Presented {
    fn from(credentials: &Credentials<'_>) -> Self {
        Self {
            client_id: credentials.client_id.map(Into::into),
            username: credentials.username.map(Into::into),
            certificate: credentials.certificate.cloned().map(Arc::new),
            peer: credentials.peer,
            listener: credentials.listener.into(),
        }
    }
}
