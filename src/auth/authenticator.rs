//! The authenticator that HearthMQ comes with: accounts from a file, certificates from TLS.
//!
//! Knows how a login goes, and sees to it that it costs what it should: hashing on the blocking
//! pool and on as many cores as there are, remembering what was right, slowing down who is wrong.
//! Does not know MQTT, HTTP or TLS. Called through [`Authenticator`] by whoever accepts a
//! connection or an HTTP request.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::available_parallelism,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{
    AuthenticationError, Authenticator, ClientCertificate, Credentials, Identity, Login, Standing,
    accounts::Accounts,
    file::FileError,
    password::{StoredPassword, generate_password, hash_password},
    scram::{SaltSecret, ScramKeys, prepared},
    throttle::{FailureThrottle, ThrottleConfig},
    verified::{Digest, DigestKey, VerifiedCredentials},
};

/// How logins are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthenticationConfig {
    /// Whether a client without user name and certificate is let in, without an identity.
    pub anonymous: bool,
    /// Whether a certificate suffices. If so, its Common Name is who they are, and a password is
    /// not looked at; if not, the account of that name must exist and its password be given.
    pub certificate_is_enough: bool,
    /// Whether an MQTT client that shows a certificate must have its Common Name as client
    /// identifier. Clients without a certificate are not concerned: require one in the listener.
    pub client_id_is_common_name: bool,
    /// For so many seconds, a password that was right is not hashed again. 0: hash every time.
    pub verified_secs: u32,
    /// So many verified credentials are remembered; the oldest go. 0: none.
    pub verified_entries_max: usize,
    /// So many passwords are hashed at once, each with 19 MiB of memory. 0: one for each core.
    pub hashes_at_once_max: usize,
    /// So many logins may wait to be hashed; further ones are told to try again later.
    pub hashes_waiting_max: usize,
    /// How repeated failures are answered.
    pub throttle: ThrottleConfig,
}

impl Default for AuthenticationConfig {
    fn default() -> Self {
        Self {
            anonymous: false,
            certificate_is_enough: true,
            client_id_is_common_name: false,
            verified_secs: 300,
            verified_entries_max: 10_000,
            hashes_at_once_max: 0,
            // Ten seconds of work for two cores; who waits for longer has given up.
            hashes_waiting_max: 1_000,
            throttle: ThrottleConfig::default(),
        }
    }
}

/// Checks credentials against a file of accounts, which can be read again while it is in use.
pub struct FileAuthenticator {
    path: Option<PathBuf>,
    accounts: ArcSwap<Accounts>,
    /// How often the accounts were read again.
    readings: AtomicU64,
    config: AuthenticationConfig,
    memory: Arc<Mutex<Memory>>,
    digest_key: DigestKey,
    hashing: Arc<Semaphore>,
    waiting: Semaphore,
    /// The decoy of a broker without any account.
    nobody: StoredPassword,
    /// Makes salts where the file of accounts has no secret for it.
    salts: SaltSecret,
}

/// What earlier logins have left behind. Shared with the hashing thread, which writes down the
/// outcome itself: a client that hangs up before it is told does not escape being counted.
struct Memory {
    verified: VerifiedCredentials,
    throttle: FailureThrottle,
}

impl FileAuthenticator {
    /// With the accounts of the file at `path`.
    ///
    /// # Errors
    /// As [`Accounts::open`].
    pub fn open(path: impl Into<PathBuf>, config: AuthenticationConfig) -> Result<Self, FileError> {
        let path = path.into();
        let mut authenticator = Self::new(Accounts::open(&path)?, config);
        authenticator.path = Some(path);
        Ok(authenticator)
    }

    /// With these accounts.
    #[must_use]
    pub fn new(accounts: Accounts, config: AuthenticationConfig) -> Self {
        let at_once = match config.hashes_at_once_max {
            0 => available_parallelism().map_or(1, usize::from),
            at_once => at_once.min(Semaphore::MAX_PERMITS),
        };
        let time_to_live = Duration::from_secs(config.verified_secs.into());
        Self {
            path: None,
            accounts: ArcSwap::from_pointee(accounts),
            readings: AtomicU64::new(0),
            memory: Arc::new(Mutex::new(Memory {
                verified: VerifiedCredentials::new(config.verified_entries_max, time_to_live),
                throttle: FailureThrottle::new(config.throttle.clone()),
            })),
            hashing: Arc::new(Semaphore::new(at_once)),
            waiting: Semaphore::new(config.hashes_waiting_max.min(Semaphore::MAX_PERMITS)),
            digest_key: DigestKey::generate(),
            nobody: hash_password(generate_password().as_bytes())
                .parse()
                .expect("our own hashes are well-formed"),
            salts: SaltSecret::generate(),
            config,
        }
    }

    /// Reads the file again. The next logins are checked against it; clients that are connected
    /// are once [`Broker::recheck`](crate::Broker::recheck) is called. Does nothing for accounts
    /// that are from no file.
    ///
    /// # Errors
    /// As [`Accounts::open`]; the accounts in force then stay in force.
    pub fn reload(&self) -> Result<(), FileError> {
        if let Some(path) = &self.path {
            self.replace(Accounts::open(path)?);
        }
        Ok(())
    }

    /// Replaces the accounts.
    pub fn replace(&self, mut accounts: Accounts) {
        let reading = self.readings.load(Ordering::Acquire) + 1;
        accounts.follow(&self.accounts.load(), reading);
        self.accounts.store(Arc::new(accounts));
        // Last: a login that is under way is then at worst believed to be older than it is.
        self.readings.store(reading, Ordering::Release);
    }

    async fn check_certificate(
        &self,
        certificate: &ClientCertificate,
        credentials: &Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let name = certificate.common_name.as_str();
        if credentials.username.is_some_and(|username| username != name) {
            return Err(AuthenticationError::BadCredentials);
        }
        if self.accounts.load().get(name).is_some_and(|user| user.is_disabled) {
            return Err(AuthenticationError::NotAllowed);
        }
        if !self.config.certificate_is_enough {
            self.check_password(credentials.peer.ip(), name, credentials.password).await?;
        }
        if self.config.client_id_is_common_name
            && credentials.client_id.is_some_and(|client_id| client_id != name)
        {
            return Err(AuthenticationError::NotAllowed);
        }
        Ok(Identity {
            username: Some(name.into()),
            certificate: Some(Arc::new(certificate.clone())),
            login: Login::Certificate,
        })
    }

    /// The account's own name, if `password` is the account's.
    async fn check_password(
        &self,
        address: IpAddr,
        name: &str,
        password: Option<&[u8]>,
    ) -> Result<Arc<str>, AuthenticationError> {
        // Nothing was guessed: neither counted nor hashed, whether there is such a user or not.
        let password = password.ok_or(AuthenticationError::BadCredentials)?;
        let delay = self.memory().admit(address, name)?;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let accounts = self.accounts.load_full();
        let user = accounts.get(name);
        let stored = user.map(|user| &user.password);
        let login = Attempt {
            address,
            name,
            password,
            stored: stored.or_else(|| accounts.decoy(name)).unwrap_or(&self.nobody),
            account_exists: user.is_some(),
        };
        match (self.verify(login).await?, user) {
            (true, Some(user)) if user.is_disabled => Err(AuthenticationError::NotAllowed),
            (true, Some(user)) => Ok(Arc::clone(&user.name)),
            (false, _) | (true, None) => Err(AuthenticationError::BadCredentials),
        }
    }

    async fn verify(&self, login: Attempt<'_>) -> Result<bool, AuthenticationError> {
        let digest = self.digest_key.digest(login.name, login.stored.as_str(), login.password);
        if self.memory().remembers(&login, &digest) {
            return Ok(true);
        }
        let place = self.waiting.try_acquire().map_err(|_| AuthenticationError::Unavailable)?;
        let permit = Arc::clone(&self.hashing).acquire_owned().await;
        let permit = permit.map_err(|_| AuthenticationError::Unavailable)?;
        drop(place);
        {
            // What happened to others meanwhile: a fleet that comes with one credential is hashed
            // once, and a volley of guesses is cut short.
            let mut memory = self.memory();
            if memory.remembers(&login, &digest) {
                return Ok(true);
            }
            memory.admit(login.address, login.name)?;
        }
        let memory = Arc::clone(&self.memory);
        let (address, account_exists) = (login.address, login.account_exists);
        let (name, password) = (Box::<str>::from(login.name), Box::<[u8]>::from(login.password));
        let stored = login.stored.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            let right = stored.verify(&password) && account_exists;
            lock(&memory).write_down(address, &name, digest, right);
            drop(permit); // Held by the thread: it hashes on when nobody waits for it any more.
            right
        });
        hashed.await.map_err(|_| AuthenticationError::Unavailable)
    }

    /// What a proof of `name` is compared with. Takes the same steps whether there is an account
    /// or not.
    pub(super) fn scram_login(&self, name: &str) -> ScramLogin {
        let accounts = self.accounts.load();
        let decoy = accounts.scram_decoy(name, &self.salts);
        let prepared: Arc<str> = prepared(name).into();
        let user = accounts.get(name).or_else(|| accounts.get(&prepared));
        let keys = user.and_then(|user| user.scram.clone());
        ScramLogin {
            name: user.map_or(prepared, |user| Arc::clone(&user.name)),
            is_decoy: keys.is_none(),
            keys: keys.unwrap_or(decoy),
        }
    }

    /// Waits as long as earlier failures have it.
    pub(super) async fn wait_for_turn(
        &self,
        address: IpAddr,
        name: &str,
    ) -> Result<(), AuthenticationError> {
        let delay = self.memory().admit(address, name)?;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
            // What happened to others meanwhile: a volley of guesses is cut short.
            self.memory().admit(address, name)?;
        }
        Ok(())
    }

    /// Counts the outcome of a login that was not checked here.
    pub(super) fn write_down(&self, address: IpAddr, name: &str, right: bool) {
        let throttle = &mut self.memory().throttle;
        if right {
            throttle.succeeded(address, name);
        } else {
            throttle.failed(address, name, now());
        }
    }

    /// The identity of `account`, if nothing else that was shown contradicts it.
    pub(super) fn identify(
        &self,
        account: Arc<str>,
        shown: &Shown,
    ) -> Result<Identity, AuthenticationError> {
        let certificate = shown.certificate.as_ref();
        let mut names =
            shown.username.as_deref().into_iter().chain(certificate.map(|c| &*c.common_name));
        if !names.all(|name| name == &*account) {
            return Err(AuthenticationError::BadCredentials);
        }
        if self.accounts.load().get(&account).is_none_or(|user| user.is_disabled) {
            return Err(AuthenticationError::NotAllowed); // taken away since the exchange began
        }
        if certificate.is_some()
            && self.config.client_id_is_common_name
            && shown.client_id.as_ref().is_some_and(|client_id| **client_id != *account)
        {
            return Err(AuthenticationError::NotAllowed);
        }
        let (username, certificate) = (Some(account), certificate.cloned());
        Ok(Identity { username, certificate, login: Login::Scram })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}

#[async_trait]
impl Authenticator for FileAuthenticator {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        if let Some(certificate) = credentials.certificate {
            return self.check_certificate(certificate, &credentials).await;
        }
        let Some(name) = credentials.username else {
            // A password without a user name is an attempt to be somebody. [MQTT-3.1.2-22] of
            // 3.1.1 forbids it, 5.0 allows it for tokens, of which there are none here.
            return if self.config.anonymous && credentials.password.is_none() {
                Ok(Identity { login: Login::Anonymous, ..Identity::default() })
            } else {
                Err(AuthenticationError::BadCredentials)
            };
        };
        let address = credentials.peer.ip();
        let username = self.check_password(address, name, credentials.password).await?;
        Ok(Identity { username: Some(username), certificate: None, login: Login::Password })
    }

    fn generation(&self) -> u64 {
        self.readings.load(Ordering::Acquire)
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        let Some(name) = &identity.username else {
            return if self.config.anonymous { Standing::Good } else { Standing::Suspended };
        };
        // A certificate that is enough needs no account, but one that is disabled stops it.
        let needs_none = identity.login == Login::Certificate && self.config.certificate_is_enough;
        match self.accounts.load().get(name) {
            Some(user) if user.is_disabled => Standing::Suspended,
            _ if needs_none => Standing::Good,
            None => Standing::Gone,
            Some(user) if user.changed > since => Standing::Changed,
            Some(_) => Standing::Good,
        }
    }
}

impl Memory {
    /// How long the attempt is to wait.
    fn admit(&self, address: IpAddr, name: &str) -> Result<Duration, AuthenticationError> {
        self.throttle.admit(address, name, now()).delay()
    }

    /// Whether it was found right a moment ago: a success like any other.
    fn remembers(&mut self, login: &Attempt<'_>, digest: &Digest) -> bool {
        let right = self.verified.contains(digest, now());
        if right {
            self.throttle.succeeded(login.address, login.name);
        }
        right
    }

    fn write_down(&mut self, address: IpAddr, name: &str, digest: Digest, right: bool) {
        if right {
            self.verified.insert(digest, now());
            self.throttle.succeeded(address, name);
        } else {
            self.throttle.failed(address, name, now());
        }
    }
}

/// What was shown beside the password, kept as long as an exchange takes.
pub(super) struct Shown {
    client_id: Option<Box<str>>,
    username: Option<Box<str>>,
    certificate: Option<Arc<ClientCertificate>>,
    pub(super) peer: SocketAddr,
}

impl From<&Credentials<'_>> for Shown {
    fn from(credentials: &Credentials<'_>) -> Self {
        Self {
            client_id: credentials.client_id.map(Into::into),
            username: credentials.username.map(Into::into),
            certificate: credentials.certificate.cloned().map(Arc::new),
            peer: credentials.peer,
        }
    }
}

/// SCRAM keys to be compared.
pub(super) struct ScramLogin {
    /// The account's, or what the name is after SASLprep: one name for all spellings, for failures
    /// to be counted under.
    pub(super) name: Arc<str>,
    pub(super) keys: ScramKeys,
    /// There is no account, or it has no keys: the outcome is failure, whatever the proof.
    pub(super) is_decoy: bool,
}

/// A password to be compared.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    address: IpAddr,
    name: &'a str,
    password: &'a [u8],
    stored: &'a StoredPassword,
    /// Without an account, `stored` is a decoy: the outcome is failure, whatever it says.
    account_exists: bool,
}

/// A panic elsewhere leaves counts that are at worst one off.
fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clock of logins: tokio's, so that tests can turn it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
