//! Counts how often clients connect, and bans those that do it too often, if the limits say so.
//!
//! Only connections of clients that have logged in count: nobody else can have a client banned. The
//! table has a maximum size; while it is full of clients that have connected in the last window,
//! further ones are not counted.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{
    Shard,
    access::event_of,
    bans::{BanContent, name_of},
    connect::AcceptedConnect,
    presence::tell::subject_of,
    refusal::NoSession,
};
use crate::{
    control::BanSubject,
    mqtt::Timestamp,
    records::{Put, RecordKey},
};

/// The time after which a ban is certainly in force.
const COMMIT_MS: u64 = 1_000;
/// Maximum number of clients that a shard counts.
const CLIENTS_MAX: usize = 100_000;

/// The connections of the clients of a shard.
#[derive(Default)]
pub(in crate::shard) struct Flapping {
    /// The counts by a keyed hash of the identifier.
    clients: HashMap<u64, Connects, RandomState>,
    hashes: RandomState,
    tidied_at: Timestamp,
}

#[derive(Clone, Copy)]
struct Connects {
    connects: u32,
    since: Timestamp,
    /// When it was banned for them.
    banned_at: Option<Timestamp>,
}

impl Flapping {
    /// Counts a connection; returns how many there were in this window.
    fn count(&mut self, client_id: &str, window_ms: u64, now: Timestamp) -> u32 {
        use std::hash::BuildHasher as _;
        // Hashes in place of identifiers bound the memory of an entry, however long an identifier is.
        let key = self.hashes.hash_one(client_id);
        let is_over = |count: &Connects| count.since.plus_millis(window_ms) <= now;
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&key) {
            // Tidying costs a pass over the whole table, so a full table is tidied once in a window only.
            if self.tidied_at.plus_millis(window_ms) > now {
                return 0;
            }
            self.tidied_at = now;
            self.clients.retain(|_, count| !is_over(count));
            if self.clients.len() >= CLIENTS_MAX {
                return 0;
            }
        }
        let begun = Connects { connects: 0, since: now, banned_at: None };
        let count = self.clients.entry(key).or_insert(begun);
        // A ban in force refuses the client before it is counted: this one was lifted, or is over.
        let is_lifted = |at: Timestamp| at.plus_millis(COMMIT_MS) <= now;
        if is_over(count) || count.banned_at.is_some_and(is_lifted) {
            *count = begun;
        }
        count.connects += 1;
        count.connects
    }
}

impl Flapping {
    /// Notes that a client was banned.
    fn note_banned(&mut self, client_id: &str, now: Timestamp) {
        use std::hash::BuildHasher as _;
        if let Some(count) = self.clients.get_mut(&self.hashes.hash_one(client_id)) {
            count.banned_at = Some(now);
        }
    }
}

impl Shard {
    /// Counts the connection of an accepted client.
    ///
    /// # Errors
    /// The client has connected too often, and is banned.
    pub(in crate::shard) fn count_connection(
        &mut self,
        connect: &AcceptedConnect,
        now: Timestamp,
    ) -> Result<(), NoSession> {
        let limits = self.core.limits_now();
        // A bridge connects again as often as the other broker fails, which is no reason to ban it.
        if limits.flapping_connects_max == 0 || connect.of_bridge.is_some() {
            return Ok(());
        }
        let window_ms = u64::from(limits.flapping_window_secs) * 1_000;
        let connects = self.flapping.count(&connect.client_id, window_ms, now);
        if connects <= limits.flapping_connects_max {
            return Ok(());
        }
        // Only the first connection above the limit writes a ban; the later ones are refused by the count.
        if connects == limits.flapping_connects_max + 1 {
            let secs = limits.flapping_ban_secs;
            self.core.told.flapping(&subject_of(connect), connects, secs);
            // Bans have a bound of their own, so clients that flap cannot displace those of operators.
            if !self.core.bans.has_reached(limits.bans_max as usize)
                && let Some((subject, name)) = banned_name(&connect.client_id)
            {
                let content = BanContent {
                    is_for_flapping: true,
                    reason: Some("it connected too often".into()),
                    by: None,
                    at: now.millis(),
                };
                let value = serde_json::to_vec(&content).unwrap_or_default();
                let expires_at = now.plus_secs(secs.into());
                let put = Put::new(name, value).expiring_at(expires_at);
                // The ban counts as announced only if the store accepts it. Otherwise the next
                // window tries again.
                if self.core.records.put_behind(put).is_some() {
                    self.flapping.note_banned(&connect.client_id, now);
                    let ban = content.into_ban(subject, Some(expires_at), 0);
                    self.announce_banned(event_of(&ban), now);
                }
            }
        }
        Err(NoSession::Banned)
    }
}

/// Returns the subject of the ban of one client, and the name of its record. `None` for an identifier with an
/// asterisk, which would ban other clients too; such a client is only refused until its window ends.
fn banned_name(client_id: &str) -> Option<(BanSubject, RecordKey)> {
    let subject = BanSubject::parse("client_id", client_id).ok()?;
    let name = name_of(&subject).filter(|_| !subject.is_pattern())?;
    Some((subject, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_count_in_their_window() {
        let mut flapping = Flapping::default();
        let mut count = |client_id, at| flapping.count(client_id, 1_000, Timestamp(at));
        assert_eq!([count("a", 0), count("a", 10), count("b", 20), count("a", 999)], [1, 2, 1, 3]);
        assert_eq!([count("a", 1_000), count("a", 1_500), count("a", 2_000)], [1, 2, 1]);
    }

    #[test]
    fn a_client_whose_ban_was_lifted_counts_from_the_beginning() {
        let mut flapping = Flapping::default();
        let count = |flapping: &mut Flapping, at| flapping.count("a", 60_000, Timestamp(at));
        assert_eq!([count(&mut flapping, 0), count(&mut flapping, 1)], [1, 2]);
        flapping.note_banned("a", Timestamp(1));
        assert_eq!(count(&mut flapping, 2), 3, "the ban is perhaps not in force yet");
        assert_eq!([count(&mut flapping, 2_000), count(&mut flapping, 2_001)], [1, 2]);
    }

    #[test]
    fn a_client_with_an_asterisk_bans_no_other() {
        assert!(banned_name("car-1").is_some());
        assert!(banned_name("car-*").is_none() && banned_name("").is_none());
    }
}
