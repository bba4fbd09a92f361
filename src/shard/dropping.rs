//! Clients whose full queue loses messages: one line of the log when it begins, and one with their number
//! when it is over. Nothing is paid for it where nothing is dropped.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use super::Shard;
use crate::{mqtt::Timestamp, session::Delivered, told::Dropped};

/// It is over once nothing was dropped for so long.
const QUIET: Duration = Duration::from_secs(10);
/// So many clients of a shard are followed at a time; of further ones the metrics alone tell.
const EPISODES_MAX: usize = 1_024;

/// Clients that lose messages now, by their slots.
#[derive(Debug, Default)]
pub(super) struct Dropping(BTreeMap<u32, Episode>);

#[derive(Debug)]
struct Episode {
    client_id: Arc<str>,
    user: Option<Arc<str>>,
    /// Of a client that was connected when it began.
    peer: Option<SocketAddr>,
    began_at: Timestamp,
    last_at: Timestamp,
    messages: u64,
    /// Whether the beginning was logged: there is a limit on these lines.
    is_told: bool,
}

impl Episode {
    fn dropped(&self) -> Dropped<'_> {
        Dropped { client_id: &self.client_id, user: self.user.as_deref(), peer: self.peer }
    }
}

impl Shard {
    /// Notes that the queue of a slot has lost messages, or was given none.
    pub(in crate::shard) fn note_dropped(
        &mut self,
        slot: u32,
        delivered: Delivered,
        now: Timestamp,
    ) {
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
            return; // The slot is another client's by now: the sweep ends the former one's.
        }
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
        let limited_by = found.presence.peer.ip();
        episode.is_told = self.core.told.dropping_began(&episode.dropped(), limited_by);
        episodes.insert(slot, episode);
    }

    /// Tells of those that have lost nothing for a while.
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
