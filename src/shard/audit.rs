//! The audit log: who has changed what, in the store and in the log.
//!
//! Its entries are records, which are in memory too, so their number and their size are bounded. At the
//! limit, the oldest entry of the user with the most entries leaves: an account that changes much does
//! not push out what others did. Does not know who notes entries.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    control::{AuditEntry, ListAudit},
    durable::StoredRecords,
    mqtt::Timestamp,
    records::{Put, Record, RecordKey, Records as _},
};

/// The namespace of the records; a key is the number of an entry with leading zeros.
const NAMESPACE: &str = "audit";
/// Maximum bytes of a text of an entry; the rest is cut off.
const TEXT_BYTES_MAX: usize = 1_024;
/// Maximum number of entries that leave for a new one, after the limit was lowered.
const LEAVE_AT_A_TIME: usize = 16;

/// The audit log of a broker.
pub(crate) struct AuditLog {
    records: Arc<StoredRecords>,
    kept: Mutex<KeptEntries>,
}

#[derive(Default)]
struct KeptEntries {
    last: u64,
    len: usize,
    /// The numbers of the entries of each user, the oldest first.
    by_user: HashMap<Option<Arc<str>>, VecDeque<u64>>,
}

impl KeptEntries {
    fn add(&mut self, user: Option<Arc<str>>, number: u64) {
        self.last = self.last.max(number);
        self.len += 1;
        self.by_user.entry(user).or_default().push_back(number);
    }

    /// Takes out the oldest entry of the user with the most entries; of several, that of the oldest.
    fn take_one(&mut self) -> Option<u64> {
        let key =
            |numbers: &VecDeque<u64>| (numbers.len(), std::cmp::Reverse(numbers.front().copied()));
        let most = self.by_user.iter().max_by_key(|(_, numbers)| key(numbers));
        let user = most?.0.clone();
        let numbers = self.by_user.get_mut(&user)?;
        let oldest = numbers.pop_front()?;
        if numbers.is_empty() {
            self.by_user.remove(&user);
        }
        self.len -= 1;
        Some(oldest)
    }
}

/// The content of a record, in JSON.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct AuditContent {
    at: u64,
    action: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<Arc<str>>,
}

impl AuditLog {
    pub(crate) fn new(records: Arc<StoredRecords>) -> Self {
        Self { records, kept: Mutex::default() }
    }

    /// Finds the entries of former runs. Called once, before anything is noted.
    pub(crate) async fn restore(&self) {
        let found = self.records.list(NAMESPACE, None, usize::MAX).await.unwrap_or_default();
        let mut kept = self.kept();
        for (name, record) in found {
            if let Some(entry) = parse(&name, &record) {
                kept.add(entry.user, entry.number);
            }
        }
    }

    /// Notes a change. Does not wait until it is stored.
    pub(crate) fn note(&self, entry: AuditEntry, entries_max: usize, now: Timestamp) {
        if entries_max == 0 {
            return;
        }
        let [user, listener, target, old, new] =
            [entry.user, entry.listener, entry.target, entry.old, entry.new]
                .map(|text| text.map(cut));
        let content = AuditContent {
            at: now.millis(),
            action: entry.action,
            user: user.clone(),
            address: entry.address,
            listener,
            target,
            kind: entry.target_kind,
            old,
            new,
        };
        let Ok(value) = serde_json::to_vec(&content) else { return };
        let mut kept = self.kept();
        let number = kept.last + 1;
        // Handed over while the state is locked, so that entries are stored in the order of their numbers.
        if let Some(name) = name_of(number) {
            self.records.put_behind(Put::new(name, value));
        }
        kept.add(user, number);
        for _ in 0..LEAVE_AT_A_TIME {
            if kept.len <= entries_max {
                break;
            }
            if let Some(name) = kept.take_one().and_then(name_of) {
                self.records.remove_behind(name);
            }
        }
    }

    /// Returns some entries, the oldest first.
    pub(crate) async fn list(&self, question: &ListAudit) -> Vec<AuditEntry> {
        let after = name_of(question.after);
        let after = after.as_ref().map(RecordKey::key);
        let limit = question.limit.min(ListAudit::LIMIT_MAX);
        let found = self.records.list(NAMESPACE, after, limit).await.unwrap_or_default();
        found.iter().filter_map(|(name, record)| parse(name, record)).collect()
    }

    fn kept(&self) -> MutexGuard<'_, KeptEntries> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of(number: u64) -> Option<RecordKey> {
    RecordKey::new(NAMESPACE, &format!("{number:020}"))
}

fn parse(name: &RecordKey, record: &Record) -> Option<AuditEntry> {
    let content: AuditContent = serde_json::from_slice(&record.value).ok()?;
    let mut entry = AuditEntry::new(content.action);
    entry.number = name.key().parse().ok()?;
    entry.at_millis = content.at;
    (entry.user, entry.address, entry.listener) = (content.user, content.address, content.listener);
    entry.target_kind = content.kind;
    (entry.target, entry.old, entry.new) = (content.target, content.old, content.new);
    Some(entry)
}

/// Cuts a text that is too long.
fn cut(text: Arc<str>) -> Arc<str> {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let end = text.floor_char_boundary(TEXT_BYTES_MAX - '…'.len_utf8());
    format!("{}…", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_changes_much_pushes_out_its_own_entries() {
        let mut kept = KeptEntries::default();
        let user = |name: &str| Some(Arc::from(name));
        kept.add(user("ann"), 1);
        for number in 2..=5 {
            kept.add(user("ben"), number);
        }
        kept.add(None, 6);
        let left: Vec<_> = std::iter::from_fn(|| kept.take_one()).collect();
        assert_eq!(left, [2, 3, 4, 1, 5, 6]);
        assert_eq!((kept.len, kept.by_user.len(), kept.last), (0, 0, 6));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = cut("ü".repeat(1_000).into());
        assert!(long.len() <= TEXT_BYTES_MAX && long.ends_with("ü…"));
        assert_eq!(&*cut("short".into()), "short");
    }
}
