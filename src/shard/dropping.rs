//! Counts the messages that are dropped for a client, by reason, and logs clients whose full queue loses messages: one
//! line when the loss begins, and one with the number of messages when it is over. Costs nothing while nothing is
//! dropped.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use super::{Shard, Slot};
use crate::{
    control::{DroppedMessages, Losing},
    labels::Label as _,
    metrics::DropReason,
    mqtt::Timestamp,
    session::Delivered,
    told::Dropped,
};

/// The number of dropped messages for each reason.
#[derive(Debug, Default)]
pub(super) struct DropCounts([u64; DropReason::ALL.len()]);

impl Slot {
    /// Counts messages that were dropped for the client.
    pub(in crate::shard) fn note_dropped(&mut self, reason: DropReason, messages: usize) {
        let counts = self.dropped.get_or_insert_default();
        counts.0[reason.index()] += messages as u64;
    }

    /// Returns the messages that were dropped for the client.
    pub(in crate::shard) fn dropped_messages(&self) -> Vec<DroppedMessages> {
        let counts = self.dropped.iter().flat_map(|counts| &counts.0);
        let counts = DropReason::ALL.iter().zip(counts).filter(|(_, messages)| **messages > 0);
        counts.map(|(reason, messages)| DroppedMessages::new(*reason, *messages)).collect()
    }
}

impl Shard {
    /// Counts messages that were dropped for the client of a slot.
    pub(in crate::shard) fn count_dropped(
        &mut self,
        slot: u32,
        reason: DropReason,
        messages: usize,
    ) {
        if messages == 0 {
            return;
        }
        self.metrics.dropped(reason, messages);
        if let Some(found) = self.slot_mut(slot) {
            found.note_dropped(reason, messages);
        }
    }
}

/// The loss is over once nothing was dropped for this time.
const QUIET: Duration = Duration::from_secs(10);
/// Maximum number of clients that a shard tracks at a time; beyond it, only the metrics count the
/// loss.
const EPISODES_MAX: usize = 1_024;

/// The clients that lose messages at present, by their slots.
#[derive(Debug, Default)]
pub(super) struct Dropping(BTreeMap<u32, Episode>);

#[derive(Debug)]
struct Episode {
    client_id: Arc<str>,
    user: Option<Arc<str>>,
    /// Set if the client was connected when the loss began.
    peer: Option<SocketAddr>,
    began_at: Timestamp,
    last_at: Timestamp,
    messages: u64,
    /// Whether the beginning was logged; the number of these lines is limited.
    is_told: bool,
}

impl Episode {
    fn dropped(&self) -> Dropped<'_> {
        Dropped { client_id: &self.client_id, user: self.user.as_deref(), peer: self.peer }
    }
}

impl Shard {
    /// Notes that the queue of a slot has lost messages, or has refused them.
    pub(in crate::shard) fn note_dropped(
        &mut self,
        slot: u32,
        delivered: Delivered,
        now: Timestamp,
    ) {
        // Only losses for lack of room are an episode; a message that is too large is counted elsewhere.
        let messages = match delivered {
            Delivered::Queued { displaced } => displaced as u64,
            Delivered::QueueFull => 1,
            Delivered::Sent | Delivered::Away | Delivered::TooLarge => return,
        };
        let Some(found) = self.slots.get(slot as usize) else { return };
        let episodes = &mut self.dropping.0;
        if let Some(episode) = episodes.get_mut(&slot) {
            if Arc::ptr_eq(&episode.client_id, found.session.client_id()) {
                episode.messages += messages;
                episode.last_at = now;
            }
            return; // The slot is another client's by now; the sweep ends the former one's loss.
        }
        // At the bound, the loss is counted in the metrics all the same, and only its log lines are missing.
        if episodes.len() >= EPISODES_MAX {
            return;
        }
        let mut episode = Episode {
            client_id: found.session.client_id().clone(),
            user: found.presence.identity.username.clone(),
            peer: found.connected.is_some().then_some(found.presence.peer),
            began_at: now,
            last_at: now,
            messages,
            is_told: false,
        };
        // One address that opens many clients cannot fill the log.
        let limited_by = found.presence.peer.ip();
        episode.is_told = self.core.told.dropping_began(&episode.dropped(), limited_by);
        episodes.insert(slot, episode);
    }

    /// Returns the present loss of the queue of a slot.
    pub(in crate::shard) fn losing(&self, slot: u32, client_id: &Arc<str>) -> Option<Losing> {
        let episode = self.dropping.0.get(&slot)?;
        let is_its = Arc::ptr_eq(&episode.client_id, client_id);
        is_its.then(|| Losing::new(episode.messages, episode.began_at.millis()))
    }

    /// Logs the end of each loss that has stopped for a while.
    pub(in crate::shard) fn end_dropping(&mut self, now: Timestamp) {
        let told = &self.core.told;
        self.dropping.0.retain(|_, episode| {
            let goes_on = now.since(episode.last_at) < QUIET;
            if !goes_on && episode.is_told {
                let secs = episode.last_at.since(episode.began_at).as_secs();
                told.dropping_ended(&episode.dropped(), episode.messages, secs);
            }
            goes_on
        });
    }
}
