//! The blocks of the audit log that the store has: which of them has to go first.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

/// The user of an entry; `None` for callers without a user name.
pub(super) type AuditUser = Option<Arc<str>>;

/// Knows the blocks in the store, and evicts the oldest block of the user with the most entries.
#[derive(Default)]
pub(super) struct KeptBlocks {
    len: usize,
    by_user: HashMap<AuditUser, BlocksOfUser>,
    /// The users by their number of entries. Of users with as many, the one with the oldest block is the last.
    by_len: BTreeSet<(usize, Reverse<u64>, AuditUser)>,
}

#[derive(Default)]
struct BlocksOfUser {
    len: usize,
    /// The number of the first entry of each block, and its number of entries; the oldest first.
    blocks: VecDeque<(u64, usize)>,
}

impl BlocksOfUser {
    fn place(&self, user: &AuditUser) -> Option<(usize, Reverse<u64>, AuditUser)> {
        let (first, _) = self.blocks.front()?;
        Some((self.len, Reverse(*first), user.clone()))
    }
}

impl KeptBlocks {
    /// Returns the number of entries in all blocks.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Adds a block of a user by the number of its first entry. It is younger than the other blocks of the user.
    pub(super) fn add(&mut self, user: AuditUser, first: u64, len: usize) {
        self.change(user, |of_user| {
            of_user.len += len;
            of_user.blocks.push_back((first, len));
        });
        self.len += len;
    }

    /// Removes the oldest block of the user with the most entries, of several the one with the oldest block. Returns
    /// the number of its first entry.
    pub(super) fn evict(&mut self) -> Option<u64> {
        let user = self.by_len.last()?.2.clone();
        let mut evicted = None;
        self.change(user, |of_user| {
            evicted = of_user.blocks.pop_front();
            of_user.len -= evicted.map_or(0, |(_, len)| len);
        });
        let (first, len) = evicted?;
        self.len -= len;
        Some(first)
    }

    /// Changes the blocks of a user, and its place among the users.
    fn change(&mut self, user: AuditUser, change: impl FnOnce(&mut BlocksOfUser)) {
        let of_user = self.by_user.entry(user.clone()).or_default();
        if let Some(place) = of_user.place(&user) {
            self.by_len.remove(&place);
        }
        change(of_user);
        match of_user.place(&user) {
            Some(place) => drop(self.by_len.insert(place)),
            None => drop(self.by_user.remove(&user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_changes_much_evicts_its_own_entries() {
        let mut kept = KeptBlocks::default();
        let user = |name: &str| Some(Arc::from(name));
        kept.add(user("ann"), 1, 1);
        for number in 2..=5 {
            kept.add(user("ben"), number, 1);
        }
        kept.add(None, 6, 1);
        kept.add(user("cid"), 7, 3);
        let left: Vec<_> = std::iter::from_fn(|| kept.evict()).collect();
        assert_eq!(left, [2, 3, 7, 4, 1, 5, 6]);
        assert_eq!((kept.len(), kept.by_user.len(), kept.by_len.len()), (0, 0, 0));
    }
}
