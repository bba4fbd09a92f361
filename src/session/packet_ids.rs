//! A set of Packet Identifiers: small if it has few, and never larger than a bit for each
//! identifier.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::mqtt::PacketId;

/// Packet Identifiers of one client.
#[derive(Debug)]
pub(crate) enum PacketIds {
    Few(HashSet<u16, RandomState>),
    Many {
        /// One bit for each identifier.
        bits: Box<[u64; WORDS]>,
        len: usize,
    },
}

const WORDS: usize = (u16::MAX as usize + 1) / 64;
/// From this number on, a bit for each possible identifier takes no more than a table of those in
/// the set.
const FEW_MAX: usize = 1024;

impl Default for PacketIds {
    fn default() -> Self {
        Self::Few(HashSet::default())
    }
}

impl PacketIds {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(ids) => ids.len(),
            Self::Many { len, .. } => *len,
        }
    }

    pub(crate) fn contains(&self, id: PacketId) -> bool {
        match self {
            Self::Few(ids) => ids.contains(&id.number()),
            Self::Many { bits, .. } => bits[word(id)] & bit(id) != 0,
        }
    }

    #[inline]
    pub(crate) fn insert(&mut self, id: PacketId) {
        match self {
            Self::Few(ids) if ids.len() < FEW_MAX => {
                ids.insert(id.number());
            }
            Self::Few(_) | Self::Many { .. } => self.insert_into_many(id),
        }
    }

    fn insert_into_many(&mut self, id: PacketId) {
        match self {
            Self::Few(ids) => {
                // From a certain number on, a bit for each identifier is smaller than a list.
                let mut bits = Box::new([0; WORDS]);
                for id in ids.iter().filter_map(|number| PacketId::new(*number)) {
                    bits[word(id)] |= bit(id);
                }
                *self = Self::Many { len: ids.len(), bits };
                self.insert_into_many(id);
            }
            Self::Many { bits, len } => {
                *len += usize::from(bits[word(id)] & bit(id) == 0);
                bits[word(id)] |= bit(id);
            }
        }
    }

    /// Returns all identifiers, in no order.
    pub(crate) fn into_ids(self) -> Vec<PacketId> {
        match self {
            Self::Few(ids) => ids.into_iter().filter_map(PacketId::new).collect(),
            Self::Many { bits, .. } => {
                let all = (1..=u16::MAX).filter_map(PacketId::new);
                all.filter(|id| bits[word(*id)] & bit(*id) != 0).collect()
            }
        }
    }

    /// Removes an identifier; returns whether it was in the set.
    pub(crate) fn remove(&mut self, id: PacketId) -> bool {
        match self {
            Self::Few(ids) => ids.remove(&id.number()),
            Self::Many { bits, len } => {
                let was_there = bits[word(id)] & bit(id) != 0;
                bits[word(id)] &= !bit(id);
                *len -= usize::from(was_there);
                // A client that had many messages in flight once gives the 8 KiB back.
                if *len == 0 {
                    *self = Self::default();
                }
                was_there
            }
        }
    }
}

fn word(id: PacketId) -> usize {
    usize::from(id.number()) / 64
}

fn bit(id: PacketId) -> u64 {
    1 << (id.number() % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_set_however_many_there_are() {
        let mut ids = PacketIds::default();
        let all = || (1..=u16::MAX).filter_map(PacketId::new);
        for (before, id) in all().enumerate() {
            assert!(!ids.contains(id));
            ids.insert(id);
            ids.insert(id);
            assert!(ids.contains(id));
            assert_eq!(ids.len(), before + 1);
        }
        let few = || [3, 700].into_iter().filter_map(PacketId::new);
        let mut some = PacketIds::default();
        few().for_each(|id| some.insert(id));
        let mut listed = some.into_ids();
        listed.sort_unstable();
        assert_eq!(listed, few().collect::<Vec<_>>());
        let mut many = PacketIds::default();
        all().for_each(|id| many.insert(id));
        assert_eq!(many.into_ids(), all().collect::<Vec<_>>());
        for (removed, id) in all().enumerate() {
            assert!(ids.remove(id) && !ids.remove(id) && !ids.contains(id));
            assert_eq!(ids.len(), usize::from(u16::MAX) - removed - 1);
        }
        assert!(matches!(ids, PacketIds::Few(_)));
    }
}
