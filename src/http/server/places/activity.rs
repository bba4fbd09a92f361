//! The activity of a connection, as the connection itself reports it.
//!
//! A connection changes its state several times for each request, and the order in which connections
//! are closed matters only when there are too many of them. So a report costs a few stores; the
//! first report since the last look says that there is something new.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Acquire, Release},
};

/// The bits of a state in the word that has the state and its beginning.
const DOING_BITS: u32 = 3;

/// The state of a connection; the first in this order is closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doing {
    /// No complete head of a request has arrived.
    Idle,
    /// Accepted but not read yet: a complete request may be in the socket.
    Unread,
    /// During a TLS handshake, while the caller sends a body, or while it takes a response. Unread
    /// connections are closed first, because a caller can open many at once.
    Waiting,
    /// A call waits until the password of an unknown caller is checked.
    Asking,
    /// The broker is working on a response.
    Busy,
}

impl Doing {
    /// All states in their order.
    const ALL: [Self; 5] = [Self::Idle, Self::Unread, Self::Waiting, Self::Asking, Self::Busy];
}

/// The state of a connection, and when it began.
pub(super) struct Activity {
    /// The beginning, and in the lowest bits the state.
    word: AtomicU64,
    /// Whether the order knows this state.
    is_noted: AtomicBool,
}

impl Activity {
    pub(super) const fn new(doing: Doing, since: u64) -> Self {
        let word = AtomicU64::new(since << DOING_BITS | doing as u64);
        Self { word, is_noted: AtomicBool::new(true) }
    }

    /// Sets the state. Returns whether it is the first report since the last look.
    pub(super) fn report(&self, doing: Doing, since: u64) -> bool {
        self.word.store(since << DOING_BITS | doing as u64, Release);
        // A swap and not a load: either this thread learns that somebody has looked, or that look
        // finds this state.
        self.is_noted.swap(false, AcqRel)
    }

    /// Returns the state and its beginning. A later report counts as new.
    pub(super) fn look(&self) -> (Doing, u64) {
        let _ = self.is_noted.swap(true, AcqRel);
        self.peek()
    }

    /// Returns the state and its beginning, as if nobody had looked.
    pub(super) fn peek(&self) -> (Doing, u64) {
        let word = self.word.load(Acquire);
        let doing = Doing::ALL[(word & ((1 << DOING_BITS) - 1)) as usize];
        (doing, word >> DOING_BITS)
    }
}
