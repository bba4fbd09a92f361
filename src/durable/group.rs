//! How a group of changes is written: how far it must be stored before it is acknowledged, and what is
//! looked up only then.

use std::time::Duration;

use crate::{journal::Change, router::Retained, store::Durability};

/// When what was acknowledged is safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before it is acknowledged, also from a cut of power.
    #[default]
    Always,
    /// Before it is acknowledged from the end of the process; from a cut of power at the latest
    /// this much later.
    Interval(Duration),
    /// Soon after it is acknowledged.
    Off,
}

impl SyncPolicy {
    /// How far a group of changes is kept before anybody is told.
    pub(super) const fn durability(self) -> Durability {
        match self {
            Self::Always => Durability::Synced,
            Self::Interval(_) | Self::Off => Durability::Written,
        }
    }
}

/// What a topic has retained is written as it is when it is written: shards may hand over what they
/// have retained for one topic in another order than it came about.
pub(super) fn resolve_retained(changes: &mut [Change], retained: &Retained) {
    for change in changes {
        let topic = if let Change::Retain(message, _) = change {
            message.topic()
        } else if let Change::ClearRetained(topic) = change {
            topic
        } else {
            continue;
        };
        *change = match retained.get(topic) {
            Some((message, owner)) => {
                Change::Retain(message, owner.map(|account| account.owner().clone()))
            }
            None => Change::ClearRetained(topic.into()),
        };
    }
}
