//! Changes of permissions: records in the store, which take effect when they are committed.
//!
//! A change has three steps: its record is committed, the broker applies the stored record, and live
//! sessions are looked at again. A watch of the records does the last two for changes that another
//! part of the broker, an import or another node has made.

mod bans;
mod rules;
#[cfg(feature = "accounts")]
mod tokens;

use std::{
    net::IpAddr,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use tokio::sync::{Mutex, MutexGuard};

use super::{Broker, Running};
#[cfg(feature = "accounts")]
use crate::control::{ApiToken, CreateToken, CreatedToken};
use crate::{
    control::{
        AccessChanged, AccessControl, AccessError, AuditEntry, Ban, BanSubject, ControlError,
        ExpectedRevision, ListAudit, ListBans, PutBan, PutRule, RemoveBan, RemoveRule, StoredRule,
    },
    records::{
        Expected, Record, RecordChange, RecordKey, Records as _, RecordsError, Revision, Watch,
    },
    shard::bans::BANS,
};

/// The parts that changes of access have in common.
#[derive(Default)]
pub(super) struct ChangesOfAccess {
    /// Held from before a record is committed until it is taken over, so that a watch does not do the
    /// same again.
    changing: Mutex<()>,
    /// The revisions of the rules that the authorizer has.
    rules: std::sync::Mutex<Vec<Revision>>,
}

impl Broker {
    /// Begins a change.
    async fn changing(&self) -> Result<MutexGuard<'_, ()>, AccessError> {
        if !self.is_ready() {
            return Err(ControlError::Unavailable.into());
        }
        Ok(self.running.access.changing.lock().await)
    }

    /// Takes over what the store has, and follows its changes. Called once, before a client may connect.
    pub(super) async fn begin_access(&self) {
        let core = &self.running.core;
        // Before the records are read, so that a change in between is followed and not missed.
        let (of_rules, of_bans) = (core.records.watch(rules::NAMESPACE), core.records.watch(BANS));
        self.take_rules().await;
        self.take_bans().await;
        core.audit.restore().await;
        #[cfg(feature = "accounts")]
        {
            let of_tokens = core.records.watch(tokens::NAMESPACE);
            self.take_tokens().await;
            self.spawn_watch(of_tokens, |broker, _| async move {
                broker.tokens_have_changed().await;
            });
        }
        self.spawn_watch(of_rules, |broker, _| async move { broker.rules_have_changed().await });
        self.spawn_watch(of_bans, |broker, change| async move {
            broker.ban_has_changed(change).await;
        });
    }

    /// Runs `changed` after each change of a namespace, until the broker ends.
    fn spawn_watch<F: Future<Output = ()> + Send + 'static>(
        &self,
        mut watch: Watch,
        changed: impl Fn(Self, RecordChange) -> F + Send + 'static,
    ) {
        // Weak, because a strong one would keep the broker alive after its last handle is dropped.
        let running: Weak<Running> = Arc::downgrade(&self.running);
        let ending = self.running.core.ending.clone();
        let following = async move {
            loop {
                let change = tokio::select! {
                    change = watch.next() => change,
                    () = ending.cancelled() => return,
                };
                let (Some(change), Some(running)) = (change, running.upgrade()) else { return };
                // One change at a time, so that an older state never replaces a newer one.
                changed(Self { running }, change).await;
            }
        };
        if let Some(host) = self.running.hosts.first() {
            host.spawn(following);
        }
    }
}

/// Maximum bytes of the name of a rule or a token.
const NAME_BYTES_MAX: usize = 64;

/// Returns the name of a record whose key a caller has chosen.
fn plain_name(namespace: &str, key: &str, field: &str) -> Result<RecordKey, AccessError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_fine = (1..=NAME_BYTES_MAX).contains(&key.len()) && key.bytes().all(is_plain);
    let name = RecordKey::new(namespace, key).filter(|_| is_fine);
    let problem = format!("{field}: it has 1 to 64 letters, digits, and characters of - _ .");
    name.ok_or(AccessError::Invalid(problem))
}

/// Returns the condition for the store; the record that is there now has been looked up.
fn expected_of(
    expected: ExpectedRevision,
    found: Option<&Record>,
) -> Result<Expected, AccessError> {
    // The condition of the caller is checked first, so that a conflict costs no write.
    if !expected.is_met_by(found.map(|record| record.revision.0)) {
        return Err(AccessError::Conflict);
    }
    // Compared again where the change is made, so that of two callers one fails.
    Ok(found.map_or(Expected::Absent, |record| Expected::At(record.revision)))
}

/// Returns why a record was not changed.
fn error_of(error: RecordsError) -> AccessError {
    match error {
        RecordsError::Conflict(_) => AccessError::Conflict,
        RecordsError::TooLong => AccessError::Invalid("it is longer than 64 KiB".to_owned()),
        RecordsError::Unavailable => ControlError::Unavailable.into(),
    }
}

#[async_trait]
impl AccessControl for Broker {
    async fn put_rule(&self, request: PutRule) -> Result<AccessChanged<StoredRule>, AccessError> {
        self.put_stored_rule(request).await
    }

    async fn remove_rule(
        &self,
        request: RemoveRule,
    ) -> Result<AccessChanged<StoredRule>, AccessError> {
        self.remove_stored_rule(request).await
    }

    async fn list_rules(&self) -> Result<Vec<StoredRule>, AccessError> {
        Ok(self.stored_rules().await)
    }

    #[cfg(feature = "accounts")]
    async fn create_token(&self, request: CreateToken) -> Result<CreatedToken, AccessError> {
        self.create_token_record(request).await
    }

    #[cfg(feature = "accounts")]
    async fn remove_token(&self, name: &str) -> Result<AccessChanged<ApiToken>, AccessError> {
        self.remove_token_record(name).await
    }

    #[cfg(feature = "accounts")]
    async fn list_tokens(&self) -> Result<Vec<ApiToken>, AccessError> {
        self.token_records().await
    }

    async fn put_ban(&self, request: PutBan) -> Result<AccessChanged<Ban>, AccessError> {
        self.put_ban_record(request).await
    }

    async fn remove_ban(&self, request: RemoveBan) -> Result<AccessChanged<Ban>, AccessError> {
        self.remove_ban_record(request).await
    }

    async fn find_ban(&self, subject: &BanSubject) -> Result<Ban, AccessError> {
        self.ban_record(subject).ok_or(AccessError::NotFound)
    }

    fn deciding_ban(
        &self,
        client_id: &str,
        users: &[&str],
        address: Option<IpAddr>,
    ) -> Option<BanSubject> {
        let core = &self.running.core;
        core.bans.find(client_id, users, address, core.clock.now())
    }

    async fn list_bans(&self, request: ListBans) -> Result<Vec<Ban>, AccessError> {
        Ok(self.list_ban_records(request).await)
    }

    fn note_audit(&self, entry: AuditEntry) {
        self.running.core.note_audit(entry);
    }

    async fn list_audit(&self, request: ListAudit) -> Result<Vec<AuditEntry>, AccessError> {
        Ok(self.running.core.list_audit(&request).await)
    }
}
