//! Sessions that a node has taken over from another one, on their way into the log of routes.
//!
//! The entry with such a session is the place in the log at which the session changes its node: it is behind the entries
//! with its filters. A message that was planned with the log before this place goes to the former node, any other to
//! the new one. Knows neither sessions nor messages.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::names::{ClientKey, Term};

/// A session that the writer of the entry has taken over, and its claim is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenSession {
    /// The client.
    pub key: ClientKey,
    /// The term of the claim.
    pub term: Term,
}

/// Maximum number of sessions in one entry.
const ENTRY_SESSIONS_MAX: usize = 4_096;

/// Sessions that wait for the changes of filters before them.
#[derive(Debug, Default)]
pub(super) struct TakenQueue {
    waiting: VecDeque<(u64, TakenSession)>,
    /// The number of changes that were noted so far, and of those that are in entries.
    noted: u64,
    written: u64,
}

impl TakenQueue {
    /// Begins again, without sessions and changes.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Notes that a filter changes.
    pub(super) const fn note_change(&mut self) {
        self.noted += 1;
    }

    /// Adds a session behind all changes so far.
    pub(super) fn push(&mut self, session: TakenSession) {
        self.waiting.push_back((self.noted, session));
    }

    /// Returns how many changes may be written before the next session.
    pub(super) fn changes_max(&self) -> usize {
        let first = self.waiting.front().map_or(u64::MAX, |(behind, _)| *behind);
        usize::try_from(first - self.written).unwrap_or(usize::MAX)
    }

    /// Notes that changes are in an entry.
    pub(super) const fn note_written(&mut self, changes: usize) {
        self.written += changes as u64;
    }

    /// Returns the sessions whose turn it is.
    pub(super) fn poll(&mut self) -> Vec<TakenSession> {
        let written = self.written;
        let mut sessions = Vec::new();
        while sessions.len() < ENTRY_SESSIONS_MAX
            && let Some((_, session)) = self.waiting.pop_front_if(|(behind, _)| *behind <= written)
        {
            sessions.push(session);
        }
        sessions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn session(key: u128) -> TakenSession {
        TakenSession { key: ClientKey(key), term: Term(7) }
    }

    #[test]
    fn a_session_is_written_behind_the_changes_before_it_and_before_those_after_it() {
        let mut queue = TakenQueue::default();
        assert_eq!(queue.changes_max(), usize::MAX);
        queue.note_change();
        queue.note_change();
        queue.push(session(1));
        queue.note_change();
        queue.push(session(2));
        assert_eq!((queue.changes_max(), queue.poll()), (2, vec![]));
        queue.note_written(2);
        assert_eq!(queue.poll(), [session(1)]);
        assert_eq!((queue.changes_max(), queue.poll()), (1, vec![]));
        queue.note_written(1);
        assert_eq!(queue.poll(), [session(2)]);
    }
}
