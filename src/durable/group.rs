//! How a group of changes is written: how far it must be stored before its acknowledgement, and
//! which values are looked up only at that time.

use std::time::Duration;

use crate::{journal::Change, router::Retained, store::Durability};

/// When an acknowledged change is safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Before the acknowledgement, also from a power failure.
    #[default]
    Always,
    /// Before the acknowledgement from the end of the process; from a power failure at the latest
    /// this much later.
    Interval(Duration),
    /// Soon after the acknowledgement.
    Off,
}

impl SyncPolicy {
    /// Returns how far a group of changes is stored before the shards are told.
    pub(super) const fn durability(self) -> Durability {
        match self {
            Self::Always => Durability::Synced,
            Self::Interval(_) | Self::Off => Durability::Written,
        }
    }
}

/// Replaces the retained message of a topic by that at the time of writing: shards may hand over retained
/// messages of one topic in another order than they arose.
pub(super) fn resolve_retained(changes: &mut [Change], retained: &Retained) {
    for change in changes {
        let topic = if let Change::Retain(message, _) = change {
            message.topic()
        } else if let Change::ClearRetained(topic) = change {
            topic
        } else {
            continue;
        };
        // The owner may have changed with the message, and its share must be charged again after a restart.
        *change = match retained.get(topic) {
            Some((message, owner)) => {
                Change::Retain(message, owner.map(|account| account.owner().clone()))
            }
            None => Change::ClearRetained(topic.into()),
        };
    }
}
