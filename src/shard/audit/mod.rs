//! The audit log: entries about changes and their authors, in the store and in the log.
//!
//! The store has them in blocks: a record is a block of entries of one user. An entry that comes alone is handed
//! over at once. Entries that come soon after it are collected for up to [`COLLECT`], because a change of the store
//! for each of them costs more than most of the calls that they are about.
//!
//! Records are in memory too, so the number and the size of the entries are bounded. At the limit, the broker evicts
//! the oldest block of the user with the most entries. So an account that makes many changes does not evict the
//! entries of others. Does not know its callers.

mod kept;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use self::kept::{AuditUser, KeptBlocks};
use crate::{
    control::{AuditEntry, ListAudit},
    durable::{Committing, StoredRecords},
    mqtt::Timestamp,
    records::{Put, Record, RecordKey, Records as _},
};

/// The namespace of the records; a key is the number of the first entry with leading zeros.
const NAMESPACE: &str = "audit";
const TEXT_BYTES_MAX: usize = AuditEntry::TEXT_BYTES_MAX;
/// Time after which the entries that were collected are handed over.
const COLLECT: Duration = Duration::from_millis(100);
/// Maximum number of entries that are collected. The numbers of the entries of a block differ by less.
const COLLECTED_MAX: usize = 256;
/// Bytes of the entries that are collected, counted in the same way as those of a block. They are written under a lock.
const COLLECTED_BYTES_MAX: usize = 64 * 1_024;
/// Maximum bytes of the entries of a block, as counted before they are JSON; escapes make at most six bytes of one,
/// and a record may have 64 KiB.
const BLOCK_BYTES_MAX: usize = 8 * 1_024;
/// A block has at most one of this many parts of all entries, so that an eviction removes few.
const BLOCKS_MIN: usize = 64;
/// A hand-over evicts at most as many blocks as it adds and this many more. So a lowered limit is reached in steps.
const EVICT_AT_A_TIME: usize = 16;
/// Blocks that a list reads at a time.
const BLOCKS_AT_A_TIME: usize = 256;

/// The audit log of a broker.
pub(crate) struct AuditLog {
    records: Arc<StoredRecords>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of the last entry.
    last: u64,
    kept: KeptBlocks,
    /// Those that are not handed over, in the order of their numbers.
    collected: Vec<AuditContent>,
    /// The bytes of their texts.
    collected_bytes: usize,
    /// When entries were last handed over.
    handed_over_at: Option<Timestamp>,
    /// The last block that was handed over.
    under_way: Option<Committing>,
}

/// An entry, in the JSON of a record.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct AuditContent {
    /// Zero in a record of one entry alone, as former versions wrote it: its key is the number.
    number: u64,
    at: u64,
    action: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: AuditUser,
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

impl AuditContent {
    fn new(number: u64, entry: AuditEntry, now: Timestamp) -> Self {
        let [user, listener, target, old, new] =
            [entry.user, entry.listener, entry.target, entry.old, entry.new]
                .map(|text| text.map(cut));
        Self {
            number,
            at: now.millis(),
            action: entry.action,
            user,
            address: entry.address,
            listener,
            target,
            kind: entry.target_kind,
            old,
            new,
        }
    }

    /// Returns the bytes of its texts.
    fn bytes(&self) -> usize {
        let texts = [&self.user, &self.listener, &self.target, &self.kind, &self.old, &self.new];
        self.action.len() + texts.into_iter().flatten().map(|text| text.len()).sum::<usize>()
    }

    fn into_entry(self) -> AuditEntry {
        let mut entry = AuditEntry::new(self.action);
        (entry.number, entry.at_millis) = (self.number, self.at);
        (entry.user, entry.address, entry.listener) = (self.user, self.address, self.listener);
        (entry.target, entry.target_kind) = (self.target, self.kind);
        (entry.old, entry.new) = (self.old, self.new);
        entry
    }
}

impl AuditLog {
    pub(crate) fn new(records: Arc<StoredRecords>) -> Self {
        Self { records, state: Mutex::default() }
    }

    /// Finds the entries of former runs. Called once, before anything is noted.
    pub(crate) async fn restore(&self) {
        let found = self.records.list(NAMESPACE, None, usize::MAX).await.unwrap_or_default();
        let mut state = self.state();
        for (name, record) in found {
            let block = parse(&name, &record);
            let (Some(first), Some(last)) = (block.first(), block.last()) else { continue };
            state.last = state.last.max(last.number);
            state.kept.add(first.user.clone(), first.number, block.len());
        }
    }

    /// Notes a change. Does not wait until it is stored.
    pub(crate) fn note(&self, entry: AuditEntry, entries_max: usize, now: Timestamp) {
        if entries_max == 0 {
            return;
        }
        let mut state = self.state();
        state.last += 1;
        let content = AuditContent::new(state.last, entry, now);
        state.collected_bytes += content.bytes();
        state.collected.push(content);
        if state.is_due(now) || state.is_full() {
            self.hand_over_collected(&mut state, entries_max, now);
        }
    }

    /// Hands over what was collected for long enough.
    pub(crate) fn hand_over_if_due(&self, entries_max: usize, now: Timestamp) {
        let mut state = self.state();
        if !state.collected.is_empty() && state.is_due(now) {
            self.hand_over_collected(&mut state, entries_max, now);
        }
    }

    /// Hands over what was collected.
    pub(crate) fn hand_over(&self, entries_max: usize, now: Timestamp) {
        self.hand_over_collected(&mut self.state(), entries_max, now);
    }

    /// Hands over what was collected. The state stays locked, so the order of the numbers is that of the store.
    fn hand_over_collected(&self, state: &mut State, entries_max: usize, now: Timestamp) {
        state.handed_over_at = Some(now);
        state.collected_bytes = 0;
        let blocks = blocks_of(std::mem::take(&mut state.collected), entries_max);
        // More blocks may leave than come, so a lowered limit is reached after some short calls.
        let evicted_max = blocks.len() + EVICT_AT_A_TIME;
        for block in blocks {
            let Some(first) = block.first() else { continue };
            let (user, number) = (first.user.clone(), first.number);
            let put = name_of(number).zip(serde_json::to_vec(&block).ok());
            let put = put.map(|(name, value)| Put::new(name, value));
            // If the store has trouble, or falls behind, only the log of the program has the changes.
            if let Some(committing) = put.and_then(|put| self.records.put_behind(put)) {
                state.kept.add(user, number, block.len());
                state.under_way = Some(committing);
            }
        }
        for _ in 0..evicted_max {
            if state.kept.len() <= entries_max {
                break;
            }
            if let Some(name) = state.kept.evict().and_then(name_of) {
                self.records.remove_behind(name);
            }
        }
    }

    /// Returns some entries, the oldest first, after all of them are stored.
    pub(crate) async fn list(
        &self,
        question: &ListAudit,
        entries_max: usize,
        now: Timestamp,
    ) -> Vec<AuditEntry> {
        let under_way = {
            let mut state = self.state();
            self.hand_over_collected(&mut state, entries_max, now);
            state.under_way.take()
        };
        if let Some(committing) = under_way {
            let _ = committing.wait().await; // What the store does not take is not listed.
        }

        // A block has entries of one user only, so blocks of several users overlap in their numbers.
        let limit = question.limit.min(ListAudit::LIMIT_MAX);
        let mut found = Vec::new();
        // A block that begins before this number has no entry behind `after`.
        let mut place = name_of(question.after.saturating_sub(COLLECTED_MAX as u64));
        loop {
            let after = place.as_ref().map(RecordKey::key);
            let blocks = self.records.list(NAMESPACE, after, BLOCKS_AT_A_TIME).await;
            let blocks = blocks.unwrap_or_default();
            let is_last = blocks.len() < BLOCKS_AT_A_TIME;
            for (name, record) in &blocks {
                let block = parse(name, record).into_iter();
                found.extend(block.filter(|content| content.number > question.after));
            }
            place = blocks.into_iter().next_back().map(|(name, _)| name);
            // Blocks behind the last one may have entries between those that were found, but at most this number.
            if is_last || found.len() >= limit + COLLECTED_MAX {
                break;
            }
        }
        // `limit` may cut only after sorting, because the blocks came in the order of their first entries.
        found.sort_unstable_by_key(|content| content.number);
        found.truncate(limit);
        found.into_iter().map(AuditContent::into_entry).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns whether as much is collected as may be.
    const fn is_full(&self) -> bool {
        self.collected.len() >= COLLECTED_MAX || self.collected_bytes >= COLLECTED_BYTES_MAX
    }

    /// Returns whether nothing was handed over for long enough.
    fn is_due(&self, now: Timestamp) -> bool {
        let collect = COLLECT.as_millis() as u64;
        self.handed_over_at.is_none_or(|at| now >= at.plus_millis(collect) || now < at)
    }
}

/// Makes blocks of entries: each of one user, in the order of the numbers, and small enough.
fn blocks_of(mut collected: Vec<AuditContent>, entries_max: usize) -> Vec<Vec<AuditContent>> {
    // A block is evicted as a whole: many small blocks let the eviction remove little at a time.
    let len_max = (entries_max / BLOCKS_MIN).clamp(1, COLLECTED_MAX);
    collected.sort_by(|one, other| one.user.cmp(&other.user)); // stable: the numbers stay in order
    let mut blocks: Vec<Vec<AuditContent>> = Vec::new();
    let mut bytes = 0;
    for content in collected {
        // Sorted by user, only the last block can take the next entry.
        let added = content.bytes();
        let fits = |block: &&mut Vec<AuditContent>| {
            block.len() < len_max
                && bytes + added <= BLOCK_BYTES_MAX
                && block.first().is_some_and(|first| first.user == content.user)
        };
        match blocks.last_mut().filter(fits) {
            Some(block) => {
                bytes += added;
                block.push(content);
            }
            None => {
                bytes = added;
                blocks.push(vec![content]);
            }
        }
    }
    // The store gets the blocks in the order of their names.
    blocks.sort_unstable_by_key(|block| block.first().map(|first| first.number));
    blocks
}

fn name_of(number: u64) -> Option<RecordKey> {
    RecordKey::new(NAMESPACE, &format!("{number:020}"))
}

/// Returns the entries of a record; none if it cannot be read.
fn parse(name: &RecordKey, record: &Record) -> Vec<AuditContent> {
    if record.value.first() == Some(&b'[') {
        return serde_json::from_slice(&record.value).unwrap_or_default();
    }
    let alone = serde_json::from_slice::<AuditContent>(&record.value).ok();
    let numbered = alone.zip(name.key().parse().ok());
    numbered.map(|(content, number)| AuditContent { number, ..content }).into_iter().collect()
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
    use crate::records::Revision;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = cut("ü".repeat(1_000).into());
        assert!(long.len() <= TEXT_BYTES_MAX && long.ends_with("ü…"));
        assert_eq!(&*cut("short".into()), "short");
    }

    fn content(number: u64, user: &str, text: &str) -> AuditContent {
        let (user, new) = (Some(user.into()), Some(text.into()));
        AuditContent { number, user, new, ..AuditContent::default() }
    }

    fn numbers(blocks: &[Vec<AuditContent>]) -> Vec<Vec<u64>> {
        blocks.iter().map(|block| block.iter().map(|content| content.number).collect()).collect()
    }

    #[test]
    fn a_block_has_entries_of_one_user_and_is_small() {
        let users = ["ann", "ben", "ann", "ann", "ben"];
        let collected =
            || (1..).zip(users).map(|(number, user)| content(number, user, "")).collect();
        assert_eq!(numbers(&blocks_of(collected(), 10_000)), [vec![1, 3, 4], vec![2, 5]]);
        assert_eq!(numbers(&blocks_of(collected(), 128)), [vec![1, 3], vec![2, 5], vec![4]]);
        assert_eq!(blocks_of(collected(), 10).len(), 5, "few are evicted at a time");
        let long = "\u{1}".repeat(TEXT_BYTES_MAX);
        let long = (1..=100).map(|number| content(number, "ann", &long)).collect();
        let blocks = blocks_of(long, 10_000);
        assert_eq!(numbers(&blocks).concat(), (1..=100).collect::<Vec<_>>());
        let bytes = blocks.iter().map(|block| serde_json::to_vec(block).unwrap().len());
        assert!(bytes.max().unwrap() < crate::records::VALUE_BYTES_MAX);
    }

    #[test]
    fn a_record_of_one_entry_is_read() {
        let value = br#"{"at":5,"action":"kick","user":"ann"}"#;
        let record =
            Record { value: value.to_vec().into(), revision: Revision(1), expires_at: None };
        let block = parse(&name_of(7).unwrap(), &record);
        let [entry] = &*block else { panic!("{} entries", block.len()) };
        assert_eq!((entry.number, entry.at, &*entry.action), (7, 5, "kick"));
    }
}
