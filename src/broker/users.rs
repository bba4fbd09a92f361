//! The accounts in the broker's store: their records, and how callers change them.
//!
//! A change is stored first. Then the source of the accounts notes that there is a change, so that a
//! login under way is judged again, and at last the sessions of the user are checked. Knows records; does
//! not know how a login is checked.

mod uses;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures_util::future::join_all;

use super::Broker;
use crate::{
    auth::{
        DeviceSecret, SECRETS_PER_USER_MAX, StoredPassword, StoredUser, StoredUsers, UserPassword,
        UserRecords, check_user_name, generate_secret,
    },
    clock::Clock,
    control::{
        AccountProperties, ChangeUser, ExistingUsers, ImportUsers, Imported, ListUsers,
        NewPassword, NewSecret, NewUser, Rechecked, SecretView, UserAccounts, UserChange,
        UserChanged, UserHashes, UserView, UsersError,
    },
    durable::StoredRecords,
    mqtt::Timestamp,
    records::{Expected, Put, Record, RecordKey, Records as _, RecordsError, Revision},
};

/// The namespace of the accounts.
const NAMESPACE: &str = "users";
/// Maximum bytes of a user name: those of a key.
const NAME_BYTES_MAX: usize = 4_096;
/// Maximum bytes of a password: those of MQTT.
const PASSWORD_BYTES_MAX: usize = 65_535;
/// Maximum number of accounts.
const USERS_MAX: usize = 10_000_000;
/// How often a change is tried that other callers come before.
const TRIES_MAX: usize = 8;

/// The accounts of a broker.
pub(super) struct Users {
    source: Arc<StoredUsers>,
    count: Arc<AtomicUsize>,
}

impl Users {
    /// Gives the source of the accounts their records, before any client can connect.
    pub(super) fn attach(
        source: Arc<StoredUsers>,
        records: &Arc<StoredRecords>,
        clock: Clock,
    ) -> Self {
        let count = records.count(NAMESPACE);
        source.keep_in(Arc::new(RecordsOfUsers { records: Arc::clone(records), clock }));
        Self { source, count }
    }
}

/// The records as the source of the accounts needs them.
struct RecordsOfUsers {
    records: Arc<StoredRecords>,
    clock: Clock,
}

impl UserRecords for RecordsOfUsers {
    fn find(&self, name: &str) -> Option<(u64, StoredUser)> {
        let record = self.records.committed(&key(name)?)?;
        Some((record.revision.0, StoredUser::decode(&record.value)?))
    }

    fn some_after(&self, name: &str, count: usize) -> Vec<StoredUser> {
        let mut found = self.records.page(NAMESPACE, Some(name), count);
        if found.len() < count {
            found.extend(self.records.page(NAMESPACE, None, count - found.len()));
        }
        found.iter().filter_map(|(_, record)| StoredUser::decode(&record.value)).collect()
    }

    fn replace(&self, name: &str, revision: u64, user: &StoredUser) {
        let Some(name) = key(name) else { return };
        let put = Put::new(name, user.encode()).expecting(Expected::At(Revision(revision)));
        self.records.put_behind(put);
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn key(name: &str) -> Option<RecordKey> {
    RecordKey::new(NAMESPACE, name).filter(|_| !name.is_empty())
}

impl From<RecordsError> for UsersError {
    fn from(error: RecordsError) -> Self {
        match error {
            RecordsError::Conflict(_) => Self::Changed,
            RecordsError::TooLong | RecordsError::Unavailable => Self::Unavailable,
        }
    }
}

/// An account before and after a change, and what else comes of it.
struct UserStep {
    user: Option<StoredUser>,
    secret: Option<NewSecret>,
}

impl Broker {
    fn users(&self) -> Result<&Users, UsersError> {
        self.running.users.as_ref().ok_or(UsersError::NoSource)
    }

    /// Returns what is shown of an account.
    fn view(
        &self,
        name: &str,
        revision: Revision,
        user: &StoredUser,
        with_hashes: bool,
    ) -> UserView {
        // The uses are noted apart from the account, so that a login does not write the account.
        let last_use = |id| {
            let secs = self.running.users.as_ref()?.source.last_use(id)?;
            Some(Timestamp(u64::from(secs) * 1_000))
        };
        let secrets = user.secrets.iter();
        let hash = |secret: &DeviceSecret| (*secret.hash(), secret.created_at);
        UserView {
            is_disabled: user.is_disabled,
            password_scheme: user.password.as_ref().map(|own| own.hash.scheme()),
            secrets: secrets
                .clone()
                .map(|own| SecretView::new(own.id, own.created_at, last_use(own.id)))
                .collect(),
            groups: user.groups.clone(),
            attributes: user.attributes.clone(),
            limits: user.limits,
            created_at: user.created_at,
            // Only an export asks for hashes; no other answer may have them.
            hashes: with_hashes.then(|| {
                let password = user.password.as_ref().map(|own| own.hash.as_str().to_owned());
                UserHashes::new(password, secrets.map(hash).collect())
            }),
            ..UserView::new(name, revision.0)
        }
    }

    /// Returns the account of a name as it is shown, with its revision.
    fn stored_user(&self, name: &str) -> Result<(Revision, StoredUser), UsersError> {
        decoded(self.running.core.records.committed(&checked(name)?))
    }

    /// Returns the account of a name as a change finds it: as the change before it leaves it, which may
    /// still be on its way to the store.
    fn newest_user(&self, name: &str) -> Result<(Revision, StoredUser), UsersError> {
        decoded(self.running.core.records.newest(&checked(name)?))
    }

    /// Makes a change, as often as other callers come before it.
    async fn change_stored(
        &self,
        request: &ChangeUser,
        password: Option<StoredPassword>,
    ) -> Result<UserChanged, UsersError> {
        let users = self.users()?;
        for _ in 0..TRIES_MAX {
            match self.try_change(users, request, password.clone()).await {
                Err(UsersError::Changed) if request.expected.is_none() => {}
                outcome => return outcome,
            }
        }
        Err(UsersError::Unavailable)
    }

    async fn try_change(
        &self,
        users: &Users,
        request: &ChangeUser,
        password: Option<StoredPassword>,
    ) -> Result<UserChanged, UsersError> {
        let ChangeUser { name, change, expected, .. } = request;
        let creates = matches!(change, UserChange::Create(_));
        let found = if creates { None } else { Some(self.newest_user(name)?) };
        let has_other = |(revision, _): &(Revision, _)| expected.is_some_and(|it| it != revision.0);
        // The revision that the caller has seen is compared before anything is changed.
        if found.as_ref().is_some_and(has_other) {
            return Err(UsersError::Changed);
        }
        let now = self.running.core.clock.now();
        let (before, former) = found.map_or((None, None), |(at, user)| (Some(at), Some(user)));
        // Noted now, because `step` consumes the former account.
        let credentials: Vec<_> = former.as_ref().map(credentials_of).unwrap_or_default();
        let former_view =
            before.zip(former.as_ref()).map(|(at, user)| self.view(name, at, user, false));
        let UserStep { user, secret } = step(change, former, password, now)?;
        // The store compares again: another caller may have changed the account since it was read.
        let expected = before.map_or(Expected::Absent, Expected::At);
        let (records, name_key) = (&self.running.core.records, checked(name)?);
        let view = match &user {
            Some(user) => {
                let put = Put::new(name_key, user.encode()).expecting(expected);
                let is_there = |error: &RecordsError| matches!(error, RecordsError::Conflict(_));
                let revision = records.put(put).await.map_err(|error| {
                    if creates && is_there(&error) { UsersError::Exists } else { error.into() }
                })?;
                Some(self.view(name, revision, user, false))
            }
            None => {
                records.remove(name_key, expected).await?;
                None
            }
        };
        let kept = user.as_ref().map(credentials_of).unwrap_or_default();
        users.source.forget_uses(credentials.into_iter().filter(|id| !kept.contains(id)));
        // After the commit, so that a login that is judged again finds the new account.
        users.source.note_change();
        let sessions = self.recheck_user(name).await;
        Ok(UserChanged { former: former_view, secret, ..UserChanged::new(view, sessions) })
    }

    /// Stores one account of an import.
    async fn import_user(
        &self,
        new: NewUser,
        request: (ExistingUsers, std::net::IpAddr),
    ) -> Result<Imported, UsersError> {
        let (users, (existing, caller)) = (self.users()?, request);
        let name = checked(&new.name)?;
        if users.source.is_in_file(&new.name) {
            return Err(UsersError::InFile);
        }
        let records = &self.running.core.records;
        let former = records.committed(&name);
        // All refusals come before the hash, which is the expensive part.
        match (&former, existing) {
            (Some(_), ExistingUsers::Fail) => return Err(UsersError::Exists),
            (Some(_), ExistingUsers::Skip) => return Ok(Imported::Skipped),
            (Some(_), ExistingUsers::Replace) => {}
            (None, _) if users.count.load(Ordering::Relaxed) >= USERS_MAX => {
                return Err(UsersError::TooMany);
            }
            (None, _) => {}
        }
        let password = match &new.password {
            Some(password) => Some(self.hashed(users, password, caller).await?),
            None => None,
        };
        let user = account_of(&new, password, self.running.core.clock.now());
        // An account that another caller has changed meanwhile
        // fails, so that no change is lost silently.
        let expected = former.as_ref().map_or(Expected::Absent, |it| Expected::At(it.revision));
        records.put(Put::new(name, user.encode()).expecting(expected)).await?;
        users.source.note_change();
        let gone = former.as_ref().and_then(|it| StoredUser::decode(&it.value));
        users.source.forget_uses(gone.iter().flat_map(credentials_of));
        Ok(if former.is_some() { Imported::Replaced } else { Imported::Created })
    }

    /// Returns the stored form of a password.
    async fn hashed(
        &self,
        users: &Users,
        password: &NewPassword,
        caller: std::net::IpAddr,
    ) -> Result<StoredPassword, UsersError> {
        match password {
            NewPassword::Hash(text) => text.parse().map_err(|_| UsersError::InvalidHash),
            NewPassword::Plain(plain) if (1..=PASSWORD_BYTES_MAX).contains(&plain.len()) => {
                users.source.hash(plain, caller).await.ok_or(UsersError::Unavailable)
            }
            NewPassword::Plain(_) => Err(UsersError::InvalidPassword),
        }
    }
}

#[async_trait]
impl UserAccounts for Broker {
    async fn find_user(&self, name: &str) -> Result<UserView, UsersError> {
        self.users()?;
        let (revision, user) = self.stored_user(name)?;
        Ok(self.view(name, revision, &user, false))
    }

    fn is_user_of_file(&self, name: &str) -> bool {
        self.running.users.as_ref().is_some_and(|users| users.source.is_in_file(name))
    }

    async fn list_users(&self, request: ListUsers) -> Result<Vec<UserView>, UsersError> {
        self.users()?;
        // A page is read on the calling thread without a pause, so its length has a bound.
        let limit = request.limit.min(ListUsers::LIMIT_MAX);
        let found = self.running.core.records.page(NAMESPACE, request.after.as_deref(), limit);
        let view = |(name, record): (RecordKey, Record)| {
            // A damaged one is shown without anything, so that the list goes on behind it.
            let user = StoredUser::decode(&record.value).unwrap_or_default();
            self.view(name.key(), record.revision, &user, request.with_hashes)
        };
        Ok(found.into_iter().map(view).collect())
    }

    async fn change_user(&self, request: ChangeUser) -> Result<UserChanged, UsersError> {
        let users = self.users()?;
        checked(&request.name)?;
        if let UserChange::Create(_) = &request.change {
            if users.source.is_in_file(&request.name) {
                return Err(UsersError::InFile);
            }
            if users.count.load(Ordering::Relaxed) >= USERS_MAX {
                return Err(UsersError::TooMany);
            }
        } else {
            // Before a password is hashed for nothing.
            let (revision, _) = self.newest_user(&request.name)?;
            if request.expected.is_some_and(|expected| expected != revision.0) {
                return Err(UsersError::Changed);
            }
        }
        let password = match &request.change {
            UserChange::Password(password) => Some(password),
            UserChange::Create(new) => new.password.as_ref(),
            UserChange::AddSecret
            | UserChange::RemoveSecret(_)
            | UserChange::Properties(_)
            | UserChange::Remove => None,
        };
        // Hashed once, although the change below may be tried several times.
        let password = match password {
            Some(password) => Some(self.hashed(users, password, request.caller).await?),
            None => None,
        };
        // Goes on if the caller leaves: a change that is stored must reach the sessions.
        let broker = self.clone();
        let change = async move { broker.change_stored(&request, password).await };
        tokio::spawn(change).await.unwrap_or(Err(UsersError::Unavailable))
    }

    async fn import_users(&self, request: ImportUsers) -> Vec<Result<Imported, UsersError>> {
        let ImportUsers { users, existing, caller } = request;
        let mut names = HashSet::new();
        let is_first: Vec<_> = users.iter().map(|user| names.insert(user.name.clone())).collect();
        let import = |user| self.import_user(user, (existing, caller));
        // Together, so that the store writes them as one group. A name that comes again waits.
        let mut again = Vec::new();
        let firsts =
            users.into_iter().zip(&is_first).enumerate().filter_map(|(at, (user, first))| {
                if *first {
                    return Some(import(user));
                }
                again.push((at, user));
                None
            });
        let mut outcomes = join_all(firsts.collect::<Vec<_>>()).await;
        // In ascending order, so that each `insert` finds the earlier outcomes in their places.
        for (at, user) in again {
            outcomes.insert(at, import(user).await);
        }
        outcomes
    }

    async fn check_sessions_of(&self, names: Option<Vec<String>>) -> Rechecked {
        let broker = self.clone();
        let check = async move {
            let Some(names) = names else { return broker.recheck().await };
            let mut found = Rechecked::default();
            for name in names {
                found = found.and(broker.recheck_user(&name).await);
            }
            found
        };
        tokio::spawn(check).await.unwrap_or_default()
    }
}

fn decoded(record: Option<Record>) -> Result<(Revision, StoredUser), UsersError> {
    let record = record.ok_or(UsersError::NotFound)?;
    // A damaged record is as good as none: the account can be imported again.
    let user = StoredUser::decode(&record.value).ok_or(UsersError::NotFound)?;
    Ok((record.revision, user))
}

/// Returns the key of an account, if its name can be one.
fn checked(name: &str) -> Result<RecordKey, UsersError> {
    let is_usable = check_user_name(name).is_ok() && name.len() <= NAME_BYTES_MAX;
    key(name).filter(|_| is_usable).ok_or(UsersError::InvalidName)
}

/// Returns the numbers of an account's credentials.
fn credentials_of(user: &StoredUser) -> Vec<u64> {
    let password = user.password.iter().map(|own| own.id);
    password.chain(user.secrets.iter().map(|own| own.id)).collect()
}

/// Returns the account that a caller describes.
fn account_of(new: &NewUser, password: Option<StoredPassword>, now: Timestamp) -> StoredUser {
    let secret = |(hash, at): &([u8; 32], Option<Timestamp>)| {
        DeviceSecret::of_hash(*hash, at.unwrap_or(now))
    };
    StoredUser {
        password: password.map(UserPassword::new),
        secrets: new.secrets.iter().take(SECRETS_PER_USER_MAX).map(secret).collect(),
        is_disabled: new.is_disabled,
        groups: new.groups.clone(),
        attributes: new.attributes.clone(),
        limits: new.limits,
        created_at: now,
    }
}

/// Returns the account after a change of `former`.
fn step(
    change: &UserChange,
    former: Option<StoredUser>,
    password: Option<StoredPassword>,
    now: Timestamp,
) -> Result<UserStep, UsersError> {
    let mut user = former.unwrap_or_default();
    let mut secret = None;
    match change {
        UserChange::Create(new) => user = account_of(new, password, now),
        UserChange::Password(_) => user.password = password.map(UserPassword::new),
        UserChange::AddSecret => {
            if user.secrets.len() >= SECRETS_PER_USER_MAX {
                return Err(UsersError::TooManySecrets);
            }
            // Shown once to the caller; the account has only its hash.
            let text = generate_secret();
            let stored = DeviceSecret::new(&text, now);
            secret = Some(NewSecret::new(stored.id, text));
            user.secrets.push(stored);
        }
        UserChange::RemoveSecret(id) => {
            let at = user.secrets.iter().position(|own| own.id == *id);
            user.secrets.remove(at.ok_or(UsersError::SecretNotFound)?);
        }
        UserChange::Properties(properties) => {
            let AccountProperties { is_disabled, groups, attributes, limits } =
                (**properties).clone();
            // A member that the call leaves out keeps its value.
            user.is_disabled = is_disabled.unwrap_or(user.is_disabled);
            user.groups = groups.unwrap_or(user.groups);
            user.attributes = attributes.unwrap_or(user.attributes);
            user.limits = limits.unwrap_or(user.limits);
        }
        UserChange::Remove => return Ok(UserStep { user: None, secret: None }),
    }
    Ok(UserStep { user: Some(user), secret })
}
