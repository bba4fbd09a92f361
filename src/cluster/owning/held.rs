//! The client identifiers that this node owns, as the handshakes and shards see them, on any thread.
//!
//! The driver lends a [`HeldClient`] for each CONNECT that it admits. A later CONNECT of the same client gets
//! the same value without asking the driver. When the last clone is dropped, the client has neither a connection
//! nor a session, and the driver learns of it. Knows neither records nor NATS.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use tokio::sync::mpsc;

use super::OwnerCommand;
use crate::cluster::{
    names::{ClientKey, Incarnation, Term},
    node::ActingLease,
};

/// How long a client may take from the end of its claim to CONNACK, so that it is taken for one that arrives.
const ARRIVING_MAX: Duration = Duration::from_millis(400);

/// The right to serve a client identifier, in one term.
pub struct HeldClient {
    key: ClientKey,
    term: Term,
    incarnation: Incarnation,
    lease: ActingLease,
    is_given: AtomicBool,
    /// The last version of this term, without the term.
    versions: Arc<AtomicU64>,
    commands: mpsc::UnboundedSender<OwnerCommand>,
}

impl HeldClient {
    /// Returns whether this node still owns the client identifier, and may act.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.is_given.load(Ordering::Acquire) && self.lease.acts_as(self.incarnation)
    }

    /// Returns the version of the next connection, which is above `former`. If the term has no more, returns `None`,
    /// and the next CONNECT claims a higher term.
    #[must_use]
    pub fn next_version(&self, former: Option<u64>) -> Option<u64> {
        let base = self.term.0 << Term::VERSION_BITS;
        let floor = former.map_or(0, |former| former.saturating_sub(base));
        let next = |n: u64| Some(n.max(floor) + 1);
        // The closure never refuses.
        let before = self.versions.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        let n = before.unwrap_or_else(|n| n).max(floor) + 1;
        let version = self.term.version(n);
        if version.is_none() {
            self.is_given.store(true, Ordering::Release);
            // Without a driver, the broker ends.
            let _ = self.commands.send(OwnerCommand::VersionsSpent(self.key));
        }
        version
    }

    fn give_up(&self) {
        self.is_given.store(true, Ordering::Release);
    }
}

impl Drop for HeldClient {
    fn drop(&mut self) {
        // Without a driver, the broker ends.
        let _ = self.commands.send(OwnerCommand::Ended(self.key));
    }
}

impl fmt::Debug for HeldClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldClient").field("term", &self.term).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct HeldEntry {
    client: Weak<HeldClient>,
    term: Term,
    versions: Arc<AtomicU64>,
    lent_at: Instant,
}

/// All client identifiers that this node owns. The driver changes it, and handshakes read it.
#[derive(Debug, Default)]
pub(super) struct HeldTable {
    clients: Mutex<HashMap<ClientKey, HeldEntry, RandomState>>,
}

impl HeldTable {
    /// Returns a client that has a connection or a session here, and may have another connection.
    pub(super) fn find(&self, key: ClientKey) -> Option<Arc<HeldClient>> {
        let client = self.clients().get(&key)?.client.upgrade()?;
        client.holds().then_some(client)
    }

    /// Returns whether the claim of a client has ended a short time ago: CONNACK may follow.
    pub(super) fn is_arriving(&self, key: ClientKey) -> bool {
        self.clients().get(&key).is_some_and(|entry| entry.lent_at.elapsed() < ARRIVING_MAX)
    }

    /// Returns whether the client has a connection or a session here.
    pub(super) fn is_used(&self, key: ClientKey) -> bool {
        self.clients().get(&key).is_some_and(|entry| entry.client.strong_count() > 0)
    }

    /// Lends a client identifier that this node owns in this term.
    pub(super) fn lend(
        &self,
        key: ClientKey,
        term: Term,
        (incarnation, lease): (Incarnation, &ActingLease),
        commands: &mpsc::UnboundedSender<OwnerCommand>,
    ) -> Arc<HeldClient> {
        let mut clients = self.clients();
        let same = clients.get(&key).filter(|entry| entry.term == term);
        let versions = same.map(|entry| Arc::clone(&entry.versions)).unwrap_or_default();
        let lent = same.and_then(|entry| entry.client.upgrade()).filter(|client| client.holds());
        let client = lent.unwrap_or_else(|| {
            Arc::new(HeldClient {
                key,
                term,
                incarnation,
                lease: lease.clone(),
                is_given: AtomicBool::new(false),
                versions: Arc::clone(&versions),
                commands: commands.clone(),
            })
        });
        let entry =
            HeldEntry { client: Arc::downgrade(&client), term, versions, lent_at: Instant::now() };
        clients.insert(key, entry);
        client
    }

    /// Takes a client identifier back: a CONNECT that was admitted before gets no CONNACK.
    pub(super) fn give_up(&self, key: ClientKey) {
        let entry = self.clients().remove(&key);
        if let Some(client) = entry.and_then(|entry| entry.client.upgrade()) {
            client.give_up();
        }
    }

    /// Forgets a client that has neither a connection nor a session.
    pub(super) fn forget(&self, key: ClientKey) {
        self.clients().remove(&key);
    }

    /// Takes all client identifiers back.
    pub(super) fn give_up_all(&self) {
        let entries = std::mem::take(&mut *self.clients());
        for client in entries.values().filter_map(|entry| entry.client.upgrade()) {
            client.give_up();
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<ClientKey, HeldEntry, RandomState>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (HeldTable, mpsc::UnboundedSender<OwnerCommand>) {
        let (commands, commanded) = mpsc::unbounded_channel();
        std::mem::forget(commanded);
        (HeldTable::default(), commands)
    }

    const KEY: ClientKey = ClientKey(7);
    const TERM: Term = Term(1_700_000_000);

    fn lend(
        table: &HeldTable,
        term: Term,
        to: &mpsc::UnboundedSender<OwnerCommand>,
    ) -> Arc<HeldClient> {
        table.lend(KEY, term, (Incarnation(1), &ActingLease::default()), to)
    }

    #[test]
    fn versions_go_on_within_a_term_and_begin_again_above_in_the_next() {
        let (table, commands) = table();
        let base = TERM.0 << 20;
        let first = lend(&table, TERM, &commands);
        assert_eq!(first.next_version(None), Some(base + 1));
        assert_eq!(first.next_version(Some(base + 1)), Some(base + 2));
        drop(first);
        let second = lend(&table, TERM, &commands);
        assert_eq!(
            second.next_version(None),
            Some(base + 3),
            "the session has ended, not the term"
        );
        assert_eq!(second.next_version(Some(base + 40)), Some(base + 41));
        let later = lend(&table, Term(TERM.0 + 1), &commands);
        assert_eq!(later.next_version(Some(base + 41)), Some(base + (1 << 20) + 1));
    }

    #[test]
    fn a_term_without_versions_is_given_up() {
        let (table, commands) = table();
        let client = lend(&table, TERM, &commands);
        let last = (TERM.0 << 20) + (1 << 20) - 2;
        assert_eq!(client.next_version(Some(last - 1)), Some(last));
        assert_eq!(
            client.next_version(Some(last)),
            None,
            "the last one is for the end of the node"
        );
        assert!(client.is_given.load(Ordering::Relaxed));
        assert_eq!(client.next_version(Some(u64::MAX - 1)), None);
    }
}
