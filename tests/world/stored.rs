//! The store beside the memory of the broker, when nobody has anything left to do: it has what must
//! survive, and nothing that the broker has let go.

use hearthmq::{actors::ClientSession, mqtt::Timestamp, store::StoredSession};

use crate::{
    model::{Session, Verdict},
    vocabulary::NAMES,
    world::World,
};

/// What has expired is there for so long at most while its client is away: a queue is looked through at
/// most once a second, and more seldom the longer it is.
const EXPIRED_MILLIS_MAX: u64 = 10_000;

/// How long a session that has ended may be there: what it leaves behind goes to others in portions,
/// and a portion may have to wait for the next sweep.
const ENDED_MILLIS_MAX: u64 = 1_000;

/// How long, after a start, the Will of a session that has ended waits for the client.
const LAST_WILL_MILLIS: u64 = 10_000;

/// A session that has ended leaves the store in portions, which take this long at most: after a
/// failure the store is tried again every 500 ms.
const ENDING_MILLIS_MAX: usize = 1_000;
/// The fault of a session that has ended and is still there.
const ENDED: &str = "is there without a session";

impl World {
    /// Compares both. The store works, and the model knows what has happened.
    pub(crate) async fn compare_store(&mut self) -> Verdict {
        for _ in 0..ENDING_MILLIS_MAX {
            match self.compare_store_now().await {
                Err(what) if what.contains(ENDED) => self.moment().await,
                verdict => return verdict,
            }
        }
        self.compare_store_now().await
    }

    async fn compare_store_now(&self) -> Verdict {
        let stored = self.disk.sessions().map_err(|error| error.to_string())?;
        let retained = self.disk.left().map_err(|error| error.to_string())?.1;
        let in_memory = self.broker.metrics().totals().retained_messages.value();
        if retained as u64 != in_memory {
            return Err(format!("the store has {retained} retained messages, not {in_memory}"));
        }
        for (client, name) in NAMES.iter().enumerate() {
            let own = stored.iter().filter(|session| &*session.record.client_id == *name);
            let own = own.filter(|session| !self.is_ending(session));
            let own: Vec<_> = own.collect();
            let seen = self.broker.client(name).await.map_err(|error| error.to_string())?;
            let fault = match (&own[..], &seen) {
                ([], None) => None,
                ([], Some(_)) => {
                    let session = self.model.sessions[client].as_ref();
                    session.is_some_and(|session| session.is_kept).then(|| "is missing".to_owned())
                }
                // Only the Will of a session that has ended with its connection.
                ([stored], None) if stored.will.is_some() && !self.has_ended(stored) => {
                    more_than_a_will(stored)
                }
                ([_], None) => Some(ENDED.to_owned()),
                ([stored], Some(seen)) => {
                    let session = self.model.sessions[client].as_ref();
                    self.what_is_too_much(stored, seen, session)?
                }
                ([_, _, ..], _) => Some("is there twice".to_owned()),
            };
            if let Some(fault) = fault {
                return Err(format!("the store: what it has of {name} {fault}: {own:?}, {seen:?}"));
            }
        }
        let outbox = stored.iter().find(|session| session.record.client_id.is_empty());
        match outbox.map_or(0, |outbox| outbox.waiting.messages) {
            0 => Ok(()),
            messages => Err(format!("the store has {messages} messages on their way")),
        }
    }

    /// Returns whether a session has ended for so long that its Will has been published: after each
    /// start, the client has some time to come back.
    fn has_ended(&self, stored: &StoredSession) -> bool {
        let has_had_time = self.model.now > self.power_since + LAST_WILL_MILLIS + ENDED_MILLIS_MAX;
        has_had_time && stored.record.ends_at.is_some_and(|at| at <= self.disk.now())
    }

    /// Returns whether a session has just ended.
    fn is_ending(&self, stored: &StoredSession) -> bool {
        let now = self.disk.now();
        let is_new = self.model.now <= self.power_since + ENDED_MILLIS_MAX;
        stored.record.ends_at.is_some_and(|at| {
            at <= now && (is_new || now.since(at).as_millis() as u64 <= ENDED_MILLIS_MAX)
        })
    }

    /// What a session has in the store that it should not have, or has not.
    fn what_is_too_much(
        &self,
        stored: &StoredSession,
        seen: &ClientSession,
        session: Option<&Session>,
    ) -> Verdict<Option<String>> {
        let Some(session) = session.filter(|session| session.is_kept) else {
            return Ok(more_than_a_will(stored));
        };
        let mut unreleased = session.unreleased.clone();
        unreleased.sort_unstable();
        let accepted: Vec<_> = stored.accepted.iter().map(|id| id.number()).collect();
        let (expiries, now) =
            self.disk.expiries(stored.number).map_err(|error| error.to_string())?;
        // A client that is there is sent what there is, and what has expired is dropped then.
        let away_secs = u64::from(stored.record.expiry_interval_secs);
        let has_had_time = self.model.now > self.power_since + EXPIRED_MILLIS_MAX;
        let ends_at = stored.record.ends_at.filter(|_| !seen.online && has_had_time);
        let away_since = ends_at.map(|at| Timestamp(at.0.saturating_sub(1_000 * away_secs)));
        let is_over = |at: Timestamp| {
            let since = away_since.map(|away_since| at.max(away_since));
            since.is_some_and(|since| now.since(since).as_millis() as u64 > EXPIRED_MILLIS_MAX)
        };
        let faults = [
            // While something waits it has those that were withdrawn, too.
            (
                stored.waiting.messages == 0,
                stored.subscriptions.len() != seen.subscriptions,
                "filters",
            ),
            (true, stored.subscriptions.len() < seen.subscriptions, "filters"),
            (true, stored.in_flight != seen.in_flight, "in flight"),
            (true, stored.waiting.messages > seen.queued, "waiting"),
            (true, accepted != unreleased, "QoS 2 that was accepted"),
            (true, stored.will.is_some() != session.has_will(), "Will"),
            (true, expiries.into_iter().any(is_over), "expired long ago"),
        ];
        let found = faults.into_iter().find(|(is_asked, is_wrong, _)| *is_asked && *is_wrong);
        Ok(found.map(|(_, _, what)| format!("is wrong ({what})")))
    }
}

/// Returns what the store has too much of a session that ends with its connection, or has ended: its
/// Will alone is kept.
fn more_than_a_will(stored: &StoredSession) -> Option<String> {
    let has_more = stored.will.is_none()
        || stored.last_place.0 > 0
        || !stored.subscriptions.is_empty()
        || !stored.accepted.is_empty();
    has_more.then(|| "is more than a Will".to_owned())
}
