//! The authorizer loads data about sessions: about those that a start finds, before their permissions are checked, and
//! about all known ones, before their permissions are checked again.
//!
//! The shard selects the sessions and takes the results; a future waits in between. So no turn of the thread waits
//! for a database, and the number of sessions under way is limited.

use std::{net::SocketAddr, sync::Arc};

use super::recheck::Rounds;
use crate::{
    auth::{Identity, Patience, PrepareError, PrepareRequest, Prepared, prepare_each},
    shard::{
        Shard,
        common::Core,
        keeping::restore::{FoundSession, identity_of, listener_of, peer_of},
    },
    store::StoredSession,
};

/// Number of slots of a walk for which the authorizer prepares at a time.
const SLOTS_AT_A_TIME: u32 = 64;
/// Maximum number of slots that are searched for sessions of one user, before other tasks get their turn.
const SLOTS_LOOKED_AT: u32 = 4_096;

/// A session for which the authorizer may have something to load.
pub(crate) struct Unprepared {
    slot: u32,
    generation: u32,
    client_id: Arc<str>,
    identity: Identity,
    peer: SocketAddr,
    listener: Arc<str>,
}

/// The results, by the positions of their sessions.
type Results = Vec<(usize, Result<Prepared, PrepareError>)>;

/// Sessions that a start has found, and the patience that is left for others.
pub(crate) type PreparedSessions = (Vec<FoundSession>, Patience);

/// The progress of a start that restores the sessions of a shard, part by part.
#[derive(Default)]
pub(crate) struct Restoring {
    /// With the authorizer; `None` while a part is prepared.
    patience: Option<Patience>,
    /// The number of sessions that were restored without what the authorizer needs.
    unprepared: usize,
}

impl Restoring {
    /// Has the authorizer prepare for some sessions. The next ones come after [`Self::restore`].
    pub(crate) fn prepare(
        &mut self,
        core: Arc<Core>,
        sessions: Vec<StoredSession>,
    ) -> impl Future<Output = PreparedSessions> + use<> {
        let patience = self.patience.take();
        async move {
            let mut patience = patience.unwrap_or_else(|| Patience::new(core.connect_time()));
            let found = prepare_found(&core, sessions, &mut patience).await;
            (found, patience)
        }
    }

    /// Restores sessions for which the authorizer has prepared.
    pub(crate) fn restore(&mut self, shard: &mut Shard, (found, patience): PreparedSessions) {
        self.patience = Some(patience);
        self.unprepared += found.iter().filter(|session| session.is_unprepared()).count();
        let now = shard.core.clock.now();
        let mut listener = Arc::from("");
        for session in found {
            shard.restore(&session, &mut listener, now);
        }
    }

    /// Logs the number of sessions whose permissions are unknown.
    pub(crate) fn end(&mut self) {
        let sessions = std::mem::take(&mut self.unprepared);
        if sessions > 0 {
            tracing::warn!(
                sessions,
                "permissions of sessions cannot be loaded; they queue no messages until their \
                 clients connect, or all sessions are checked again"
            );
        }
    }
}

/// Prepares for sessions that a start has found.
pub(in crate::shard) async fn prepare_found(
    core: &Core,
    sessions: Vec<StoredSession>,
    patience: &mut Patience,
) -> Vec<FoundSession> {
    // The account may have changed its attributes since the session was stored, and the rules depend on them.
    let renewed = |identity| core.authenticator.renewed(&identity).unwrap_or(identity);
    let identities = sessions.iter().map(|found| renewed(identity_of(&found.record)));
    let identities: Vec<_> = identities.collect();
    let requests =
        sessions.iter().zip(&identities).map(|(StoredSession { record, .. }, identity)| {
            let (peer, listener) = (peer_of(record), listener_of(record));
            PrepareRequest { identity, client_id: Some(&record.client_id), peer, listener }
        });
    let results = prepare_each(&*core.authorizer, requests, patience).await;
    let found = sessions.into_iter().zip(identities);
    let found =
        found.map(|(session, identity)| FoundSession { session, identity, is_prepared: true });
    let mut found: Vec<_> = found.collect();
    // Sessions that could not be prepared rest until the next check; the start does not wait for them.
    for (at, result) in results {
        match result {
            Ok(prepared) => found[at].identity.prepared = prepared,
            Err(error) => {
                tracing::debug!(%error, "a session that was found cannot be judged");
                found[at].is_prepared = false;
            }
        }
    }
    found
}

/// Prepares for sessions that are about to be checked again.
pub(crate) async fn prepare_again(
    core: &Core,
    sessions: &[Unprepared],
    patience: &mut Patience,
) -> Results {
    let requests = sessions.iter().map(|session| PrepareRequest {
        identity: &session.identity,
        client_id: Some(&session.client_id),
        peer: session.peer,
        listener: &session.listener,
    });
    prepare_each(&*core.authorizer, requests, patience).await
}

impl Shard {
    /// Returns the sessions to be checked next, if the authorizer must prepare for them first.
    pub(crate) fn begin_preparing(&mut self, rounds: &mut Rounds) -> Vec<Unprepared> {
        let slots = rounds.next_to_prepare(|first, rounds| self.end_of_portion(first, rounds));
        let Some(slots) = slots else { return Vec::new() };
        // Renewed first, because the authorizer loads data for the identity as it is now.
        for slot in slots.clone() {
            if self.slot(slot).is_some_and(|found| rounds.concerns(found)) {
                self.renew(slot);
            }
        }
        // Copies, because the shard is not borrowed while the authorizer works.
        let sessions = slots.filter_map(|slot| {
            let found = self.slot(slot).filter(|found| rounds.concerns(found))?;
            Some(Unprepared {
                slot,
                generation: found.generation,
                client_id: found.session.client_id().clone(),
                identity: found.presence.identity.clone(),
                peer: found.presence.peer,
                listener: found.presence.listener.clone(),
            })
        });
        sessions.collect()
    }

    /// Returns the end of the next slots of a walk.
    fn end_of_portion(&self, first: u32, rounds: &Rounds) -> u32 {
        if !rounds.is_of_one_user() {
            return first.saturating_add(SLOTS_AT_A_TIME);
        }
        let of_user = (first..first.saturating_add(SLOTS_LOOKED_AT))
            .filter(|slot| self.slot(*slot).is_some_and(|found| rounds.concerns(found)));
        let last = of_user.take(SLOTS_AT_A_TIME as usize + 1).nth(SLOTS_AT_A_TIME as usize);
        last.unwrap_or_else(|| first.saturating_add(SLOTS_LOOKED_AT))
    }

    /// Gives a session the identity that the authenticator knows now.
    fn renew(&mut self, slot: u32) {
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        if let Some(renewed) = self.core.authenticator.renewed(&found.presence.identity) {
            let prepared = found.presence.identity.prepared.clone();
            found.presence.identity = Identity { prepared, ..renewed };
            found.recent_topic = None; // It was decided for the former identity.
        }
    }

    /// Takes the data that the authorizer has loaded; returns the number of sessions for which that failed. If a client
    /// has logged in meanwhile, its session already has newer data.
    pub(crate) fn take_prepared(
        &mut self,
        rounds: &mut Rounds,
        sessions: &[Unprepared],
        results: Results,
    ) -> usize {
        let mut failed = 0;
        for (at, result) in results {
            let Unprepared { slot, generation, identity, .. } = &sessions[at];
            // The slot may belong to another session by now.
            let found = self.slot_mut(*slot).filter(|found| found.generation == *generation);
            // A login in between has brought newer data with its identity.
            let found = found.filter(|found| found.presence.identity == *identity);
            match (found, result) {
                (Some(found), Ok(prepared)) => {
                    found.presence.identity.prepared = prepared;
                    found.recent_topic = None; // It was decided by the former result.
                }
                (Some(_), Err(error)) => {
                    tracing::debug!(%error, "a session cannot be checked again");
                    rounds.note_unprepared(*slot);
                    failed += 1;
                }
                (None, Ok(_) | Err(_)) => {}
            }
        }
        failed
    }
}
