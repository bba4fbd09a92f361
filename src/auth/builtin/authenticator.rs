//! The authenticator that comes with HearthMQ: accounts from a file, certificates from TLS.
//!
//! Knows the steps of a login. `attempts` knows what earlier logins mean for it, `hashing` the
//! order in which passwords are hashed. Does not know MQTT, HTTP or TLS. Connections and HTTP
//! requests call it through [`Authenticator`] when they are accepted.

#[cfg(feature = "scram")]
mod scram;

use std::{
    fmt,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;

#[cfg(feature = "scram")]
pub(super) use self::scram::{Presented, ScramLogin};
use super::{
    AuthenticationConfig,
    accounts::Accounts,
    check::{Compared, PasswordCheck},
    file::FileError,
    keys::SaltSecret,
    stricter::{Stricter, is_older},
    users::{StoredUser, StoredUsers},
};
use crate::{
    auth::{
        AuthenticationError, Authenticator, ClientCertificate, Credentials, FailedLogins, Identity,
        ListenerLogins, Login, LoginCounts, LoginLedger, Precedence, Standing,
    },
    limits::OwnLimits,
};

/// Checks credentials against a file of accounts, which can be read again while it is in use.
pub struct FileAuthenticator {
    path: ArcSwapOption<PathBuf>,
    accounts: ArcSwap<Accounts>,
    /// How often the accounts were read again, or the configuration was changed.
    readings: AtomicU64,
    config: ArcSwap<AuthenticationConfig>,
    /// Ensures that only one thread at a time changes accounts or configuration.
    changing: Mutex<()>,
    stricter: Stricter,
    check: Arc<PasswordCheck>,
    /// The accounts in the store, for decoys.
    stored: OnceLock<Arc<StoredUsers>>,
    /// Derives salts where the accounts file has no secret of its own.
    salts: SaltSecret,
}

impl FileAuthenticator {
    /// Creates it with the accounts of the file at `path`.
    ///
    /// # Errors
    /// The same as [`Accounts::open`].
    pub fn open(path: impl Into<PathBuf>, config: AuthenticationConfig) -> Result<Self, FileError> {
        let path = path.into();
        let authenticator = Self::new(Accounts::open(&path)?, config);
        authenticator.path.store(Some(Arc::new(path)));
        Ok(authenticator)
    }

    /// Creates it with these accounts.
    #[must_use]
    pub fn new(accounts: Accounts, config: AuthenticationConfig) -> Self {
        Self {
            path: ArcSwapOption::empty(),
            accounts: ArcSwap::from_pointee(accounts),
            readings: AtomicU64::new(0),
            check: Arc::new(PasswordCheck::new(&config)),
            stored: OnceLock::new(),
            salts: SaltSecret::generate(),
            config: ArcSwap::from_pointee(config),
            changing: Mutex::default(),
            stricter: Stricter::default(),
        }
    }

    /// Reads the file again. The next logins are checked against it; connected clients are checked
    /// when [`Broker::recheck`](crate::Broker::recheck) is called. Does nothing if the accounts do
    /// not come from a file.
    ///
    /// # Errors
    /// The same as [`Accounts::open`]; the current accounts then stay in force.
    pub fn reload(&self) -> Result<(), FileError> {
        if let Some(path) = &*self.path.load() {
            self.replace(Accounts::open(path)?);
        }
        Ok(())
    }

    /// Reads another file, now and at later reloads.
    ///
    /// # Errors
    /// The same as [`Accounts::open`]; accounts and file then stay as they are.
    pub fn reload_from(&self, path: impl Into<PathBuf>) -> Result<(), FileError> {
        let path = path.into();
        self.replace(Accounts::open(&path)?);
        self.path.store(Some(Arc::new(path)));
        Ok(())
    }

    /// Replaces the accounts.
    pub fn replace(&self, mut accounts: Accounts) {
        let _turn = self.turn();
        let reading = self.readings.load(Ordering::Acquire) + 1;
        accounts.follow(&self.accounts.load(), reading);
        self.accounts.store(Arc::new(accounts));
        // Stored last: a login under way is then at worst considered older than it is.
        self.readings.store(reading, Ordering::Release);
    }

    /// Changes how logins are checked; connected clients are checked when
    /// [`Broker::recheck`](crate::Broker::recheck) is called. Earlier failures and current refusals
    /// still count; `verified_entries_max` and `hashes_waiting_max` stay as they are.
    pub fn set_config(&self, config: AuthenticationConfig) {
        let _turn = self.turn();
        let reading = self.readings.load(Ordering::Acquire) + 1;
        let former = self.config.load_full();
        self.stricter.note(&former, &config, reading);
        self.check.configure(&former, &config);
        self.config.store(Arc::new(config));
        self.readings.store(reading, Ordering::Release); // last, as above
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the source for the accounts in the store of a broker. If a name is in the file and in the store, the
    /// account of the file counts. Failures of logins count together. The broker gets them by
    /// [`Builder::stored_users`](crate::broker::Builder::stored_users), and its [`Chain`] as a source.
    ///
    /// [`Chain`]: crate::auth::Chain
    #[must_use]
    pub fn stored_users(self: &Arc<Self>) -> Arc<StoredUsers> {
        Arc::clone(self.stored.get_or_init(|| {
            let file = Arc::downgrade(self);
            let has_account =
                move |name: &str| file.upgrade().is_some_and(|file| file.has_user(name));
            Arc::new(StoredUsers::new(Arc::clone(&self.check), Box::new(has_account)))
        }))
    }

    /// Returns the account of this name in the store, unless the file has one.
    fn stored_account(&self, name: &str) -> Option<StoredUser> {
        Some(self.stored.get()?.account(name)?.1)
    }

    /// Returns whether the client has an account here, or needs none because of its certificate.
    fn is_mine(&self, credentials: &Credentials<'_>) -> bool {
        if credentials.bearer.is_some() {
            return false; // It has no tokens.
        }
        // Only the file is asked: accounts in the store have a source of their own in the chain.
        let has_account = |name: &str| self.has_user(name);
        let Some(certificate) = credentials.certificate else {
            // A client is anonymous only if no other authenticator knows it.
            return !self.check.is_for_secrets(credentials.password)
                && credentials.username.is_some_and(has_account);
        };
        let config = self.config.load();
        let of_listener = credentials.rules.certificate_needs_account;
        let needs_account = of_listener.unwrap_or(config.certificate_needs_account);
        let name = &*certificate.common_name;
        (config.certificate_is_enough && !needs_account)
            || has_account(name)
            || self.stored_account(name).is_some()
    }

    async fn check_certificate(
        &self,
        certificate: &ClientCertificate,
        credentials: &Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let name = certificate.common_name.as_str();
        // Two names for one client: rules for one of them would apply to the other.
        if credentials.username.is_some_and(|username| username != name) {
            return Err(AuthenticationError::OtherThanCertificate);
        }
        let of_listener = credentials.rules.certificate_needs_account;
        let config = self.config.load_full();
        let needs_account = of_listener.unwrap_or(config.certificate_needs_account);
        let of_file = self.accounts.load().get(name).map(|user| user.is_disabled);
        let stored = self.stored_account(name);
        // The file comes first, as at a login by password.
        match of_file.or_else(|| stored.as_ref().map(|user| user.is_disabled)) {
            Some(true) => return Err(AuthenticationError::NotAllowed),
            None if needs_account => return Err(AuthenticationError::NoAccount),
            Some(false) | None => {}
        }
        let mut credential = None;
        if !config.certificate_is_enough {
            // The password is checked where the account is; a
            // name without one goes to the file, and fails there.
            match self.stored.get().filter(|_| stored.is_some()) {
                Some(users) => credential = users.check_shown(credentials, name).await?.credential,
                None => drop(self.check_password(credentials, name, credentials.password).await?),
            }
        }
        if config.client_id_is_common_name
            && credentials.client_id.is_some_and(|client_id| client_id != name)
        {
            return Err(AuthenticationError::NotAllowed);
        }
        Ok(Identity {
            username: Some(name.into()),
            certificate: Some(Arc::new(certificate.clone())),
            login: Login::Certificate,
            needs_account,
            credential,
            ..stored.map(StoredUser::into_identity).unwrap_or_default()
        })
    }

    /// Checks a password whose hash is stored elsewhere. Failures and hashes count together with those of the
    /// accounts.
    #[cfg(feature = "postgres")]
    pub(in crate::auth) async fn check_elsewhere(
        &self,
        shown: &Credentials<'_>,
        name: &str,
        password: &[u8],
        stored: Option<&super::StoredPassword>,
    ) -> Result<(), AuthenticationError> {
        let who = self.check.attempts.applicant(shown, name);
        let compared = Compared {
            stored: stored.unwrap_or_else(|| self.check.nobody()),
            account_exists: stored.is_some(),
            on_weak: None,
        };
        match self.check.verify(who, password, compared).await? {
            true => Ok(()),
            false => Err(AuthenticationError::BadCredentials),
        }
    }

    /// Returns the account's own name if `password` is right for it.
    async fn check_password(
        &self,
        shown: &Credentials<'_>,
        name: &str,
        password: Option<&[u8]>,
    ) -> Result<Arc<str>, AuthenticationError> {
        // No password means no guess: it is neither counted nor hashed, whether the user exists or
        // not.
        let password = password.ok_or(AuthenticationError::BadCredentials)?;
        let accounts = self.accounts.load_full();
        let user = accounts.get(name);
        // A name without an account gets the hash of another one, so that both take the same time.
        let of_store = match user {
            Some(_) => None,
            None => self.stored.get().and_then(|stored| stored.decoy(name)),
        };
        let stored = user.map(|user| &user.password).or(of_store.as_ref());
        let stored = stored.or_else(|| accounts.decoy(name)).unwrap_or_else(|| self.check.nobody());
        let who = self.check.attempts.applicant(shown, name);
        let compared = Compared { stored, account_exists: user.is_some(), on_weak: None };
        match (self.check.verify(who, password, compared).await?, user) {
            // Only after the right password: others must not learn that the account exists.
            (true, Some(user)) if user.is_disabled => Err(AuthenticationError::NotAllowed),
            (true, Some(user)) => Ok(Arc::clone(&user.name)),
            (false, _) | (true, None) => Err(AuthenticationError::BadCredentials),
        }
    }
}

#[async_trait]
impl Authenticator for FileAuthenticator {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        if credentials.may_pass && !self.is_mine(&credentials) {
            return Err(AuthenticationError::NotMine);
        }
        if credentials.bearer.is_some() {
            return Err(AuthenticationError::BadCredentials); // No guess at a password: not counted.
        }
        if let Some(certificate) = credentials.certificate {
            return self.check_certificate(certificate, &credentials).await;
        }
        let config = self.config.load_full();
        let anonymous = credentials.rules.anonymous.unwrap_or(config.anonymous);
        // A name with an account is never anonymous, so that nobody gets by without its password.
        let is_anonymous = |name: &str| {
            anonymous
                && config.anonymous_with_name
                && credentials.client_id.is_some()
                && self.accounts.load().get(name).is_none()
        };
        if credentials.username.is_some_and(is_anonymous) {
            return Ok(Identity { login: Login::Anonymous, ..Identity::default() });
        }
        let Some(name) = credentials.username else {
            // A password without a user name is an attempt to log in. [MQTT-3.1.2-22] of 3.1.1
            // forbids it; 5.0 allows it for tokens, which this authenticator does not have.
            return if anonymous && credentials.password.is_none() {
                Ok(Identity { login: Login::Anonymous, ..Identity::default() })
            } else {
                Err(AuthenticationError::BadCredentials)
            };
        };
        let username = self.check_password(&credentials, name, credentials.password).await?;
        let username = Some(username);
        Ok(Identity { username, login: Login::Password, ..Identity::default() })
    }

    fn precedence(&self, credentials: &Credentials<'_>) -> Precedence {
        let certificate = credentials.certificate.map(|certificate| &*certificate.common_name);
        let name = certificate.or(credentials.username).unwrap_or_default();
        self.check.attempts.precedence(&self.check.attempts.applicant(credentials, name))
    }

    fn may_be_remembered(&self, _: &Identity) -> bool {
        true
    }

    fn generation(&self) -> u64 {
        self.readings.load(Ordering::Acquire)
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        self.standing_at(identity, since, ListenerLogins::default())
    }

    fn standing_at(&self, identity: &Identity, since: u64, rules: ListenerLogins) -> Standing {
        let config = self.config.load();
        let Some(name) = &identity.username else {
            let is_let_in = rules.anonymous.unwrap_or(config.anonymous);
            return match is_let_in {
                true if is_older(&self.stricter.anonymous, since) => Standing::Changed,
                true => Standing::Good,
                false => Standing::Suspended,
            };
        };
        let is_by_certificate = identity.login == Login::Certificate;
        // Where a certificate suffices, it needs no account; a disabled account still stops it.
        let needs_now = rules.certificate_needs_account.unwrap_or(config.certificate_needs_account);
        let needs_none = is_by_certificate && config.certificate_is_enough && !needs_now;
        // It may have been such a certificate.
        let may_need_none = identity.login == Login::Unknown
            && config.certificate_is_enough
            && !config.certificate_needs_account;
        // An account in the store counts for a certificate alone: other logins with it are of its own source.
        let stored = if is_by_certificate { self.stored_account(name) } else { None };
        let is_replaced = |user: &StoredUser| {
            identity.credential.is_some_and(|credential| !user.has_credential(credential))
        };
        match self.accounts.load().get(name) {
            Some(user) if user.is_disabled => Standing::Suspended,
            None if stored.as_ref().is_some_and(|user| user.is_disabled) => Standing::Suspended,
            _ if is_by_certificate && is_older(&self.stricter.certificate, since) => {
                Standing::Changed
            }
            _ if needs_none => Standing::Good,
            None if stored.as_ref().is_some_and(is_replaced) => Standing::Changed,
            None if stored.is_some() => Standing::Good,
            None if may_need_none => Standing::Suspended,
            // It never had an account, and may get one.
            None if is_by_certificate && !identity.needs_account => Standing::Suspended,
            None => Standing::Gone,
            // Changed since the login: a new password ends connections with the former one.
            Some(user) if user.changed > since => Standing::Changed,
            Some(_) => Standing::Good,
        }
    }

    fn renewed(&self, identity: &Identity) -> Option<Identity> {
        if identity.login != Login::Certificate {
            return None;
        }
        let stored = self.stored_account(identity.username.as_deref()?).unwrap_or_default();
        let is_same = stored.attributes == identity.attributes && stored.groups == identity.groups;
        let StoredUser { attributes, groups, .. } = stored;
        (!is_same).then(|| Identity { attributes, groups, ..identity.clone() })
    }

    fn has_user(&self, username: &str) -> bool {
        self.accounts.load().get(username).is_some()
    }

    fn limits_of(&self, username: &str) -> Option<OwnLimits> {
        self.accounts.load().get(username)?.limits
    }

    fn decides_about_strangers(&self) -> bool {
        true
    }

    fn keep_logins_in(&self, ledger: Arc<dyn LoginLedger>) {
        self.check.attempts.keep_in(ledger);
    }

    fn failed_logins(&self, address: Option<IpAddr>, username: Option<&str>) -> Vec<FailedLogins> {
        self.check.attempts.failed(address, username)
    }

    fn forget_failures(&self, address: IpAddr, username: Option<&str>) -> bool {
        self.check.attempts.forget(address, username)
    }

    fn login_counts(&self) -> LoginCounts {
        self.check.counts()
    }
}

impl fmt::Debug for FileAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileAuthenticator").field("path", &self.path.load()).finish_non_exhaustive()
    }
}
