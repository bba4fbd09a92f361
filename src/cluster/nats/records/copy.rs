//! The copy of the records in the memory of a node: what the bucket has, as far as the node has followed
//! it.
//!
//! Does no I/O. Knows the order of changes; does not know where they come from. Called by `records`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::form::{decoded, named, subject_key};
use crate::{
    mqtt::Timestamp,
    records::{Record, RecordChange, RecordKey, Revision, Watch, Watched},
};

/// The copy of the bucket in a node.
#[derive(Default)]
pub(super) struct RecordsCopy {
    records: BTreeMap<RecordKey, Record>,
    expiring: BTreeSet<(Timestamp, RecordKey)>,
    /// Records whose names the subject does not have, by their key in the bucket.
    hashed: BTreeMap<Box<str>, RecordKey>,
    /// Marks of removals, by their key in the bucket: revision, and when the node saw it.
    marks: BTreeMap<Box<str>, (Revision, Instant)>,
    watched: BTreeMap<Box<str>, Watched>,
    applied: Revision,
    is_current: bool,
    /// While everything is read once more: what was told so far.
    told_again: Option<BTreeSet<RecordKey>>,
}

impl RecordsCopy {
    /// Returns whether the copy has had all of the bucket.
    pub(super) const fn is_current(&self) -> bool {
        self.is_current
    }

    /// Returns the sequence of the last change that was applied.
    pub(super) const fn applied(&self) -> u64 {
        self.applied.0
    }

    /// Returns a record, also one that has expired.
    pub(super) fn record(&self, name: &RecordKey) -> Option<&Record> {
        self.records.get(name)
    }

    /// Returns the revision of the mark of a removal.
    pub(super) fn mark_of(&self, name: &RecordKey) -> Option<Revision> {
        self.marks.get(&*subject_key(name)).map(|(revision, _)| *revision)
    }

    /// Returns the records of a namespace after a key, without those that have expired.
    pub(super) fn page(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Vec<(RecordKey, Record)> {
        let name = |key| RecordKey::new(namespace, key);
        let from = match after {
            None => name("").map(Bound::Included),
            Some(key) => name(key).map(Bound::Excluded),
        };
        let Some(from) = from else { return Vec::new() };
        let found = self.records.range((from, Bound::Unbounded));
        let found = found
            .take_while(|(name, _)| name.namespace() == namespace)
            .filter(|(_, record)| !record.has_expired(now));
        found.take(limit).map(|(name, record)| (name.clone(), record.clone())).collect()
    }

    /// Follows a namespace.
    pub(super) fn watch(&mut self, namespace: &str) -> Watch {
        self.watched.entry(namespace.into()).or_default().watch()
    }

    /// Returns records that have expired, with their revisions.
    pub(super) fn expired(&self, now: Timestamp, limit: usize) -> Vec<(RecordKey, Revision)> {
        let expired = self.expiring.iter().take_while(|(at, _)| *at <= now).take(limit);
        let revision = |name| self.records.get(name).map(|record| record.revision);
        expired.filter_map(|(_, name)| Some((name.clone(), revision(name)?))).collect()
    }

    /// Returns marks that were seen this long ago.
    pub(super) fn old_marks(&self, age: Duration, limit: usize) -> Vec<(Box<str>, Revision)> {
        let now = Instant::now();
        let is_old = |seen: Instant| now.saturating_duration_since(seen) >= age;
        let old = self.marks.iter().filter(|(_, (_, seen))| is_old(*seen)).take(limit);
        old.map(|(key, (revision, _))| (key.clone(), *revision)).collect()
    }

    /// Forgets a mark that was taken away, and not a later one.
    pub(super) fn forget_mark(&mut self, key: &str, revision: Revision) {
        if self.marks.get(key).is_some_and(|(known, _)| *known == revision) {
            self.marks.remove(key);
        }
    }

    /// Applies the last message of a key of the bucket; `None` marks a removal.
    pub(super) fn apply(&mut self, key: &str, revision: Revision, payload: Option<Bytes>) {
        // Also for messages that are not records: callers wait for this sequence.
        self.applied = self.applied.max(revision);
        let is_mark = payload.is_none();
        let content = payload.and_then(decoded);
        // The name is in the message if the key is a hash.
        let name = match content.as_ref().and_then(|content| content.name.clone()) {
            Some(name) => {
                self.hashed.insert(key.into(), name.clone());
                Some(name)
            }
            None => self.hashed.get(key).cloned().or_else(|| named(key)),
        };
        // A mark has no name, so that of the former message is used.
        if is_mark {
            self.marks.insert(key.into(), (revision, Instant::now()));
            self.hashed.remove(key);
        } else {
            self.marks.remove(key);
        }
        let Some(name) = name else { return };
        match content {
            Some(content) => {
                let expires_at = content.expires_at;
                self.put(name, Record { revision, value: content.value, expires_at });
            }
            None => self.remove(&name, revision),
        }
    }

    fn put(&mut self, name: RecordKey, record: Record) {
        if let Some(told) = &mut self.told_again {
            // A copy that is read once more tells only what has changed.
            told.insert(name.clone());
            if self.records.get(&name).is_some_and(|known| known.revision == record.revision) {
                return;
            }
        }
        if let Some(at) = record.expires_at {
            self.expiring.insert((at, name.clone()));
        }
        let former = self.records.insert(name.clone(), record.clone());
        let former_end = former.and_then(|former| former.expires_at);
        // The same time would remove the new entry.
        if let Some(at) = former_end.filter(|at| Some(*at) != record.expires_at) {
            self.expiring.remove(&(at, name.clone()));
        }
        self.tell(name.clone(), RecordChange::Put(name, record));
    }

    fn remove(&mut self, name: &RecordKey, revision: Revision) {
        let Some(former) = self.records.remove(name) else { return };
        if let Some(at) = former.expires_at {
            self.expiring.remove(&(at, name.clone()));
        }
        self.tell(name.clone(), RecordChange::Removed(name.clone(), revision));
    }

    fn tell(&self, name: RecordKey, change: RecordChange) {
        if let Some(watched) = self.watched.get(name.namespace()) {
            watched.tell(change);
        }
    }

    /// Begins to read everything once more. Until this is complete, the copy keeps its records.
    pub(super) fn restart(&mut self) {
        self.told_again = Some(BTreeSet::new());
        self.marks.clear();
    }

    /// Ends the reading of everything that the bucket had up to a sequence. Removes the records that the
    /// bucket did not have.
    pub(super) fn complete(&mut self, sequence: Revision) {
        self.applied = self.applied.max(sequence);
        self.is_current = true;
        let Some(told) = self.told_again.take() else { return };
        let gone: Vec<_> =
            self.records.keys().filter(|name| !told.contains(name)).cloned().collect();
        for name in gone {
            self.hashed.remove(&*subject_key(&name));
            self.remove(&name, sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Changes in their order, and everything once more after a gap.

    use super::{super::form::encoded, *};

    fn name(key: &str) -> RecordKey {
        RecordKey::new("ns", key).expect("it is short")
    }

    fn apply(copy: &mut RecordsCopy, key: &str, revision: u64, value: Option<&[u8]>) {
        let name = name(key);
        let payload = value.map(|value| encoded(&name, value, Some(Timestamp(revision))));
        copy.apply(&subject_key(&name), Revision(revision), payload);
    }

    fn keys(copy: &RecordsCopy) -> Vec<String> {
        let page = copy.page("ns", None, 99, Timestamp(0));
        page.into_iter().map(|(name, _)| name.key().to_owned()).collect()
    }

    #[tokio::test]
    async fn what_was_not_told_again_after_a_gap_is_gone() {
        let mut copy = RecordsCopy::default();
        let long = "l".repeat(900);
        for (revision, key) in ["a", "b", &long].into_iter().enumerate() {
            apply(&mut copy, key, revision as u64 + 1, Some(b"1"));
        }
        copy.complete(Revision(3));
        let mut watch = copy.watch("ns");
        copy.restart();
        apply(&mut copy, "b", 2, Some(b"1"));
        apply(&mut copy, "c", 9, Some(b"1"));
        assert_eq!(keys(&copy), ["a", "b", "c", &long], "it has what it had");
        copy.complete(Revision(9));
        assert_eq!(keys(&copy), ["b", "c"]);
        assert_eq!(
            copy.expired(Timestamp(99), 9),
            [(name("b"), Revision(2)), (name("c"), Revision(9))]
        );
        assert!(copy.hashed.is_empty());
        assert!(matches!(watch.next().await, Some(RecordChange::Put(it, _)) if it == name("c")));
        for gone in ["a", &long] {
            let expected = RecordChange::Removed(name(gone), Revision(9));
            assert_eq!(watch.next().await, Some(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_mark_stays_until_it_is_old_and_ends_with_a_later_record() {
        let mut copy = RecordsCopy::default();
        let long = "l".repeat(900);
        for key in ["a", &long] {
            apply(&mut copy, key, 1, Some(b"1"));
            apply(&mut copy, key, 2, None);
        }
        assert_eq!(keys(&copy), [""; 0]);
        assert_eq!(copy.mark_of(&name(&long)), Some(Revision(2)));
        let age = Duration::from_secs(60);
        assert_eq!(copy.old_marks(age, 9), []);
        tokio::time::advance(age).await;
        assert_eq!(copy.old_marks(age, 9).len(), 2);
        apply(&mut copy, "a", 3, Some(b"1"));
        let [(key, Revision(2))] = &copy.old_marks(age, 9)[..] else { panic!("one is left") };
        copy.forget_mark(&key.clone(), Revision(1));
        assert_eq!(copy.mark_of(&name(&long)), Some(Revision(2)), "it is a later one");
        copy.forget_mark(&key.clone(), Revision(2));
        assert_eq!(copy.mark_of(&name(&long)), None);
    }

    #[test]
    fn messages_of_others_change_nothing() {
        let mut copy = RecordsCopy::default();
        for key in ["=swept", "ns.=xx", "ns", "", "ns.k"] {
            copy.apply(key, Revision(7), Some(Bytes::from_static(b"\x02 of a later version")));
        }
        assert_eq!(copy.applied(), 7);
        assert!(copy.records.is_empty() && copy.marks.is_empty() && copy.expiring.is_empty());
    }
}
