//! The limits on messages that wait in the sessions of bridges.
//!
//! Read when a session begins or is restored, and not on the way of a message. Empty without bridges.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;

use super::Slot;
use crate::{auth::BRIDGE_CLIENTS, limits::OwnLimits};

/// The limits of the sessions of bridges, by client identifier.
#[derive(Debug, Default)]
pub(crate) struct BridgeQueues(ArcSwap<HashMap<Box<str>, BridgeQueue>>);

/// The limits of the session of one bridge, where they differ from those of other sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct BridgeQueue {
    /// The user of the session.
    pub(crate) username: Arc<str>,
    pub(crate) messages_max: Option<u32>,
    pub(crate) bytes_max: Option<u64>,
}

impl BridgeQueues {
    /// Replaces all limits.
    #[cfg_attr(not(feature = "bridge"), expect(dead_code, reason = "bridges alone set some"))]
    pub(crate) fn set(&self, all: HashMap<Box<str>, BridgeQueue>) {
        self.0.store(Arc::new(all));
    }

    fn of(&self, client_id: &str) -> Option<BridgeQueue> {
        client_id.starts_with(BRIDGE_CLIENTS).then(|| self.0.load().get(client_id).cloned())?
    }

    /// Returns the limits of the user of a bridge, which may have as much as may wait for it.
    pub(in crate::shard) fn limits_of(&self, username: &str) -> Option<OwnLimits> {
        let all = self.0.load();
        let found = all.values().find(|queue| *queue.username == *username)?;
        Some(OwnLimits {
            stored_messages_max: found.messages_max.map(u64::from),
            stored_bytes_max: found.bytes_max,
            queue_messages_max: found.messages_max.map(u64::from),
            queue_bytes_max: found.bytes_max,
            ..OwnLimits::default()
        })
    }
}

impl Slot {
    /// Gives the session of a bridge its limits; other sessions have none of their own.
    pub(in crate::shard) fn take_limits_of_bridge(&mut self, queues: &BridgeQueues) {
        if let Some(queue) = queues.of(self.session.client_id()) {
            self.session.replace_queue_limits(queue.messages_max, queue.bytes_max);
        }
    }
}
