//! Bans in the store: clients that are kept out, and disconnected if they are there.

use super::{error_of, expected_of};
use crate::{
    broker::Broker,
    control::{
        AccessChanged, AccessError, Ban, BanSubject, ControlError, ListBans, PutBan, RemoveBan,
    },
    records::{Put, Record, RecordChange, RecordKey, Records as _},
    shard::bans::{BANS, BanContent, PATTERNS_MAX, name_of, subject_of},
};

/// Maximum bytes of a reason.
const REASON_BYTES_MAX: usize = 1_024;

impl Broker {
    /// Adds or replaces a ban, and disconnects the clients that it is about.
    pub(super) async fn put_ban_record(
        &self,
        request: PutBan,
    ) -> Result<AccessChanged<Ban>, AccessError> {
        let core = &self.running.core;
        if request.reason.as_ref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
            let problem = format!("reason: it has at most {REASON_BYTES_MAX} bytes");
            return Err(AccessError::Invalid(problem));
        }
        let name = name_of(&request.subject).ok_or(ControlError::Unavailable)?;
        let now = core.clock.now();
        let content = BanContent {
            reason: request.reason,
            by: request.by,
            at: now.millis(),
            ..BanContent::default()
        };
        let value = serde_json::to_vec(&content).map_err(|_| ControlError::Unavailable)?;
        // From here to the memory of the broker under one lock: otherwise
        // of two calls for the same ban the earlier could be applied last.
        let changing = self.changing().await?;
        let former = core.records.committed(&name);
        // A ban that replaces another needs no further room.
        if former.is_none() {
            self.check_room_for_ban(&request.subject)?;
        }
        let expected = expected_of(request.expected, former.as_ref())?;
        let mut put = Put::new(name, value).expecting(expected);
        let expires_at = request.ttl_secs.map(|secs| now.plus_secs(secs.into()));
        if let Some(at) = expires_at {
            put = put.expiring_at(at);
        }
        let revision = core.records.put(put).await.map_err(error_of)?;
        // After the commit: a ban in force but not stored would be gone after a crash.
        core.bans.insert(&request.subject, expires_at, revision.0);
        // Ending sessions may take seconds, and other changes need not wait for it.
        drop(changing);
        let old = former.and_then(|record| parse(request.subject.clone(), &record));
        let new = content.into_ban(request.subject.clone(), expires_at, revision.0);
        core.announce_ban(&new);
        let mut changed = AccessChanged::new(old, Some(new));
        // After the ban is in force, so that a disconnected client cannot connect again.
        changed.sessions_touched = self.end_banned(&request.subject).await;
        Ok(changed)
    }

    fn check_room_for_ban(&self, subject: &BanSubject) -> Result<(), AccessError> {
        let core = &self.running.core;
        if core.bans.has_reached(core.limits_now().bans_max as usize) {
            return Err(AccessError::TooMany("limits.bans_max"));
        }
        if subject.is_pattern() && core.bans.patterns() >= PATTERNS_MAX {
            return Err(AccessError::TooMany("the limit of 1,000 patterns"));
        }
        Ok(())
    }

    /// Lifts a ban.
    pub(super) async fn remove_ban_record(
        &self,
        request: RemoveBan,
    ) -> Result<AccessChanged<Ban>, AccessError> {
        let core = &self.running.core;
        let name = name_of(&request.subject).ok_or(AccessError::NotFound)?;
        let _changing = self.changing().await?;
        let former = core.records.committed(&name).ok_or(AccessError::NotFound)?;
        let expected = expected_of(request.expected, Some(&former))?;
        core.records.remove(name, expected).await.map_err(error_of)?;
        core.bans.remove(&request.subject);
        Ok(AccessChanged::new(parse(request.subject, &former), None))
    }

    /// Returns a ban.
    pub(super) fn ban_record(&self, subject: &BanSubject) -> Option<Ban> {
        let record = self.running.core.records.committed(&name_of(subject)?)?;
        parse(subject.clone(), &record)
    }

    /// Returns some bans.
    pub(super) async fn list_ban_records(&self, question: ListBans) -> Vec<Ban> {
        let after = question.after.as_ref().and_then(name_of);
        let after = after.as_ref().map(RecordKey::key);
        let limit = question.limit.min(ListBans::LIMIT_MAX);
        let found = self.running.core.records.list(BANS, after, limit).await.unwrap_or_default();
        let bans = found.iter().filter_map(|(name, record)| parse(subject_of(name)?, record));
        bans.collect()
    }

    /// Takes over all bans of the store.
    pub(super) async fn take_bans(&self) {
        let core = &self.running.core;
        core.bans.clear();
        for (name, record) in core.records.list(BANS, None, usize::MAX).await.unwrap_or_default() {
            if let Some(subject) = subject_of(&name) {
                core.bans.insert(&subject, record.expires_at, record.revision.0);
            }
        }
    }

    /// Takes over a change that was not made by a call of this broker.
    pub(super) async fn ban_has_changed(&self, change: RecordChange) {
        let core = &self.running.core;
        let changing = self.running.access.changing.lock().await;
        // A change of a call of this broker comes here too; `insert` then finds it done.
        let added = match change {
            RecordChange::Put(name, record) => subject_of(&name)
                .filter(|subject| core.bans.insert(subject, record.expires_at, record.revision.0)),
            RecordChange::Removed(name, _) => {
                if let Some(subject) = subject_of(&name) {
                    core.bans.remove(&subject);
                }
                None
            }
            // The watch lost changes, so the bans are read as a whole, and each session is checked.
            RecordChange::Missed => {
                self.take_bans().await;
                drop(changing);
                self.recheck().await;
                return;
            }
        };
        drop(changing);
        if let Some(subject) = added {
            self.end_banned(&subject).await;
        }
    }

    /// Disconnects the clients that a new ban is about; returns how many there were.
    async fn end_banned(&self, subject: &BanSubject) -> u64 {
        let found = match subject {
            BanSubject::User(name) if !subject.is_pattern() => self.recheck_user(name).await,
            BanSubject::ClientId(name) if !subject.is_pattern() => {
                let Ok(Some(client)) = self.client(name).await else { return 0 };
                self.recheck_owner(client.username.as_ref(), client.peer.ip()).await
            }
            BanSubject::User(_) | BanSubject::ClientId(_) | BanSubject::Address(_) => {
                self.recheck().await
            }
        };
        found.touched as u64
    }
}

fn parse(subject: BanSubject, record: &Record) -> Option<Ban> {
    let content: BanContent = serde_json::from_slice(&record.value).ok()?;
    Some(content.into_ban(subject, record.expires_at, record.revision.0))
}
