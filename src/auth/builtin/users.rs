//! The source of the accounts in the broker's store: a million of them, changed while the broker runs.
//!
//! **No copy of an account is in memory beside its record.** The store has all records in memory already,
//! so a login finds its account there, by name, and decodes it, in about a microsecond. Knows how a login
//! is checked; does not know who changes accounts. Called through [`Authenticator`], and by the broker,
//! which gives it the records.

mod account;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;

pub use self::account::{DeviceSecret, SECRETS_PER_USER_MAX, StoredUser, UserPassword};
use super::{
    check::{Compared, PasswordCheck},
    password::StoredPassword,
    secret,
    uses::CredentialUses,
};
use crate::{
    auth::{
        AuthenticationError, Authenticator, Credentials, Identity, ListenerLogins, Login, Standing,
        origin::Origin,
    },
    limits::OwnLimits,
    mqtt::Timestamp,
};

/// Number of accounts that are searched for a password hash that serves as a decoy.
const DECOYS_LOOKED_AT: usize = 8;

/// The records of accounts. Each call answers from memory.
pub(crate) trait UserRecords: Send + Sync + 'static {
    /// Returns the account of this name, with the revision of its record.
    fn find(&self, name: &str) -> Option<(u64, StoredUser)>;

    /// Returns `count` accounts that follow this name in the order of the names. Behind the last account, the
    /// first one follows.
    fn some_after(&self, name: &str, count: usize) -> Vec<StoredUser>;

    /// Replaces an account if its record still has this revision. Does not wait until it is stored.
    fn replace(&self, name: &str, revision: u64, user: &StoredUser);

    /// Returns the time.
    fn now(&self) -> Timestamp;
}

/// Checks credentials against the accounts in the store of a broker; made by
/// [`FileAuthenticator::stored_users`](super::FileAuthenticator::stored_users).
///
/// It admits nobody before it belongs to a broker. A user has a password, up to two device secrets, or
/// both. A right device secret is accepted without a hash, and without regard to failures of others from
/// the same address, because nobody can guess it.
pub struct StoredUsers {
    check: Arc<PasswordCheck>,
    is_in_file: Box<dyn Fn(&str) -> bool + Send + Sync>,
    records: OnceLock<Arc<dyn UserRecords>>,
    /// How often accounts have changed.
    changes: AtomicU64,
    uses: CredentialUses,
}

impl StoredUsers {
    pub(super) fn new(
        check: Arc<PasswordCheck>,
        is_in_file: Box<dyn Fn(&str) -> bool + Send + Sync>,
    ) -> Self {
        check.expect_secrets();
        Self {
            check,
            is_in_file,
            records: OnceLock::new(),
            changes: AtomicU64::new(0),
            uses: CredentialUses::default(),
        }
    }

    /// Takes the records of the broker, which calls it once, before any client may connect.
    pub(crate) fn keep_in(&self, records: Arc<dyn UserRecords>) {
        drop(self.records.set(records)); // Only the first broker of an authenticator keeps them.
    }

    /// Notes that an account has changed.
    pub(crate) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Returns whether the file has an account of this name, which goes before one in the store.
    pub(crate) fn is_in_file(&self, name: &str) -> bool {
        (self.is_in_file)(name)
    }

    /// Returns when a credential was last used, in seconds since the Unix epoch; `None` if that is not
    /// known.
    pub(crate) fn last_use(&self, credential: u64) -> Option<u32> {
        self.uses.last(credential)
    }

    /// Forgets the last use of credentials that are gone.
    pub(crate) fn forget_uses(&self, credentials: impl Iterator<Item = u64>) {
        for credential in credentials {
            self.uses.forget(credential);
        }
    }

    /// Takes over the last uses in a record of a former run.
    pub(crate) fn restore_uses(&self, record: &[u8]) {
        self.uses.restore(record);
    }

    /// Examines the next buckets of last uses; returns the records of those that have changed.
    pub(crate) fn take_changed_uses(&self, buckets: usize) -> Vec<(usize, Vec<u8>)> {
        self.uses.take_changed(buckets)
    }

    /// Notes that a bucket of last uses could not be stored.
    pub(crate) fn keep_changed_uses(&self, bucket: usize) {
        self.uses.keep_changed(bucket);
    }

    /// Hashes the password of an account that a caller at this address creates or changes; `None` if too
    /// many logins wait for theirs.
    pub(crate) async fn hash(
        &self,
        password: &[u8],
        caller: std::net::IpAddr,
    ) -> Option<StoredPassword> {
        let hash = self.check.hash(password.into(), Origin::of(caller)).await?;
        Some(hash.parse().expect("our own hashes are well-formed"))
    }

    /// Returns a hash to compute for a user name without an account; the result must be discarded. One
    /// name gets that of its neighbour, so that the times are spread as they are for existing names.
    pub(super) fn decoy(&self, name: &str) -> Option<StoredPassword> {
        let some = self.records.get()?.some_after(name, DECOYS_LOOKED_AT);
        some.into_iter().find_map(|user| Some(user.password?.hash))
    }

    /// Returns the account of this name, unless the file has one.
    pub(super) fn account(&self, name: &str) -> Option<(u64, StoredUser)> {
        let records = self.records.get()?;
        if self.is_in_file(name) { None } else { records.find(name) }
    }

    /// Checks the password or the device secret that a client has shown for an account.
    pub(super) async fn check_shown(
        &self,
        shown: &Credentials<'_>,
        name: &str,
    ) -> Result<Identity, AuthenticationError> {
        if let Some(secret) = shown.password.filter(|secret| secret::looks_like_one(secret)) {
            // Whether the name has an account or not: the time must not tell.
            return self.check_secret(shown, name, secret).await;
        }
        let account = self.account(name);
        if account.is_none() && shown.may_pass {
            return Err(AuthenticationError::NotMine);
        }
        // No password means no guess: it is neither counted nor hashed.
        let password = shown.password.ok_or(AuthenticationError::BadCredentials)?;
        self.check_password(shown, name, password, account).await
    }

    async fn check_secret(
        &self,
        shown: &Credentials<'_>,
        name: &str,
        secret: &[u8],
    ) -> Result<Identity, AuthenticationError> {
        let hash = secret::hash_secret(secret);
        let account = self.account(name);
        let found = account.and_then(|(_, user)| Some((user.secret_with(&hash)?, user)));
        let Some((id, user)) = found else {
            let who = self.check.attempts.applicant(shown, name);
            // The same answer, count and delay, whether the account or the secret is missing.
            return Err(self.check.refuse_secret(who, secret).await);
        };
        self.admit(name, id, user)
    }

    async fn check_password(
        &self,
        shown: &Credentials<'_>,
        name: &str,
        password: &[u8],
        account: Option<(u64, StoredUser)>,
    ) -> Result<Identity, AuthenticationError> {
        let (revision, user) = account.map_or((0, None), |(revision, user)| (revision, Some(user)));
        let own = user.as_ref().and_then(|user| user.password.clone());
        let decoy = if own.is_none() { self.decoy(name) } else { None };
        let stored = own.as_ref().map(|own| &own.hash).or(decoy.as_ref());
        let compared = Compared {
            stored: stored.unwrap_or_else(|| self.check.nobody()),
            // With a decoy the hash is computed, but can never be right.
            account_exists: own.is_some(),
            on_weak: user.as_ref().and_then(|user| self.replacing(name, revision, user)),
        };
        let who = self.check.attempts.applicant(shown, name);
        match (self.check.verify(who, password, compared).await?, own, user) {
            (true, Some(own), Some(user)) => self.admit(name, own.id, user),
            _ => Err(AuthenticationError::BadCredentials),
        }
    }

    /// Returns a function that replaces a weak hash by a new one. The password keeps its number, so that
    /// connections that it has proven stay.
    fn replacing(
        &self,
        name: &str,
        revision: u64,
        user: &StoredUser,
    ) -> Option<Box<dyn FnOnce(String) + Send>> {
        let records = Arc::clone(self.records.get()?);
        let mut own = user.password.clone().filter(|own| own.hash.is_weak())?;
        let (name, mut user) = (Box::<str>::from(name), user.clone());
        Some(Box::new(move |hash| {
            let Ok(hash) = hash.parse() else { return };
            own.hash = hash;
            user.password = Some(own);
            // Only if the account is still at this revision:
            // a change by a caller is not overwritten.
            records.replace(&name, revision, &user);
        }))
    }

    /// Returns the identity of an account whose credential was right.
    fn admit(
        &self,
        name: &str,
        credential: u64,
        user: StoredUser,
    ) -> Result<Identity, AuthenticationError> {
        // After the credential was right, so that others do not learn of the account.
        if user.is_disabled {
            return Err(AuthenticationError::NotAllowed);
        }
        if let Some(records) = self.records.get() {
            self.note_use(credential, records.now());
        }
        Ok(Identity {
            username: Some(name.into()),
            login: Login::Password,
            attributes: user.attributes,
            groups: user.groups,
            credential: Some(credential),
            ..Identity::default()
        })
    }

    fn note_use(&self, credential: u64, now: Timestamp) {
        let secs = u32::try_from(now.millis() / 1_000).unwrap_or(u32::MAX);
        self.uses.note(credential, secs);
    }
}

#[async_trait]
impl Authenticator for StoredUsers {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let (Some(name), None, None) =
            (credentials.username, credentials.certificate, credentials.bearer)
        else {
            return Err(AuthenticationError::NotMine);
        };
        self.check_shown(&credentials, name).await
    }

    fn may_be_remembered(&self, _: &Identity) -> bool {
        true
    }

    fn generation(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        self.standing_at(identity, since, ListenerLogins::default())
    }

    fn standing_at(&self, identity: &Identity, _: u64, _: ListenerLogins) -> Standing {
        let Some(name) = identity.username.as_deref() else { return Standing::Suspended };
        if self.is_in_file(name) {
            return Standing::Changed;
        }
        match self.account(name) {
            None => Standing::Gone,
            Some((_, user)) if user.is_disabled => Standing::Suspended,
            Some((_, user)) => match identity.credential {
                Some(credential) if !user.has_credential(credential) => Standing::Changed,
                Some(_) | None => Standing::Good,
            },
        }
    }

    fn renewed(&self, identity: &Identity) -> Option<Identity> {
        let (_, user) = self.account(identity.username.as_deref()?)?;
        let StoredUser { attributes, groups, .. } = user;
        let is_same = attributes == identity.attributes && groups == identity.groups;
        (!is_same).then(|| Identity { attributes, groups, ..identity.clone() })
    }

    fn has_user(&self, username: &str) -> bool {
        self.account(username).is_some()
    }

    fn limits_of(&self, username: &str) -> Option<OwnLimits> {
        self.account(username)?.1.limits
    }
}

impl fmt::Debug for StoredUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredUsers").field("changes", &self.changes).finish_non_exhaustive()
    }
}
