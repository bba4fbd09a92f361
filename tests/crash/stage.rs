//! State that all players of a round share: the current broker, the phase of the round, and the
//! book. Knows nothing of packets. Every wait here ends with an event or a time limit.

use std::{
    net::SocketAddr,
    sync::{Condvar, Mutex, MutexGuard},
    time::Duration,
};

use hearthmq_test::beats::Beats;

use super::book::{Book, Event};

/// How far a round has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Every player plays freely.
    Load,
    /// Publishers complete what they have started; subscribers stay.
    Drain,
    /// All players disconnect.
    Over,
}

/// Delay before a broker that refuses connections is tried again.
const BEFORE_TRYING_AGAIN: Duration = Duration::from_millis(10);
/// How often a player that waits for a note checks the clock.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a client stays offline if nothing happens.
const AWAY_MAX: Duration = Duration::from_millis(300);

/// One run of a broker, from start to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    number: u32,
    pub(crate) address: SocketAddr,
}

struct State {
    life: Option<Life>,
    lives: u32,
    /// Whether the broker is being ended, or has ended: connections may break then.
    is_dying: bool,
    /// When the current broker came up, by the clock of the stage.
    up_since: Duration,
    phase: Phase,
    connections: u32,
    /// Number of publishers that have not completed everything they started.
    publishers: usize,
    book: Book,
}

pub(crate) struct Stage {
    state: Mutex<State>,
    changed: Condvar,
    /// Notified of less, so that clients that are offline cost nothing.
    has_new_phase: Condvar,
    /// Runs slow when the machine is busy, so that this does not count against the broker.
    clock: Beats,
}

impl Stage {
    pub(crate) fn new(book: Book, publishers: usize) -> Self {
        let state = State {
            life: None,
            lives: 0,
            is_dying: true,
            up_since: Duration::ZERO,
            phase: Phase::Load,
            connections: 0,
            publishers,
            book,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            has_new_phase: Condvar::new(),
            clock: Beats::start(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until `is_so`, but at most for `time`; returns whether it is.
    fn wait(&self, time: Duration, is_so: impl Fn(&State) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |state| !is_so(state));
        !waited.unwrap().1.timed_out()
    }

    pub(crate) fn note(&self, event: Event) {
        self.look(|book| book.note(event));
    }

    /// Reads the book, or writes several notes without others in between.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        let seen = look(&mut self.lock().book);
        self.changed.notify_all();
        seen
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.lock().phase = phase;
        self.changed.notify_all();
        self.has_new_phase.notify_all();
    }

    /// Returns a number for a new connection.
    pub(crate) fn connection(&self) -> u32 {
        let mut state = self.lock();
        state.connections += 1;
        state.connections
    }

    /// Announces a new broker.
    pub(crate) fn enter(&self, address: SocketAddr) {
        let mut state = self.lock();
        state.lives += 1;
        state.life = Some(Life { number: state.lives, address });
        state.is_dying = false;
        state.up_since = self.clock.now();
        self.changed.notify_all();
    }

    /// Announces that the broker is about to be ended.
    pub(crate) fn leave(&self) {
        let mut state = self.lock();
        state.is_dying = true;
        state.life = None;
        self.changed.notify_all();
    }

    /// Returns how long the current broker has been up.
    pub(crate) fn up_for(&self) -> Duration {
        self.clock.now().saturating_sub(self.lock().up_since)
    }

    /// Waits for a broker; `None` when the round is over.
    pub(crate) fn wait_for_broker(&self) -> Option<Life> {
        let is_there = |state: &State| state.life.is_some() || state.phase == Phase::Over;
        let there = self.changed.wait_while(self.lock(), |state| !is_there(state)).unwrap();
        there.life
    }

    /// Reports a broken connection to this broker. Notes it as a fault unless the broker is being
    /// ended.
    pub(crate) fn broken(&self, client: &str, life: Life, why: &std::io::Error) {
        let is_another = |state: &State| state.life != Some(life);
        if !is_another(&self.lock()) {
            let (client, why) = (client.to_owned(), why.to_string());
            self.note(Event::CutOff { client, why });
            self.wait(BEFORE_TRYING_AGAIN, is_another);
        }
    }

    /// Waits until this many notes were made.
    pub(crate) fn stay_away(&self, notes: u64) {
        let until = self.lock().book.notes() + notes;
        self.wait(AWAY_MAX, |state| state.book.notes() >= until || state.phase != Phase::Load);
    }

    /// Waits for this time, or until the load ends.
    pub(crate) fn stay_away_for(&self, time: Duration) {
        let is_load = |state: &mut State| state.phase == Phase::Load;
        drop(self.has_new_phase.wait_timeout_while(self.lock(), time, is_load).unwrap());
    }

    /// Waits until this many more messages were acknowledged, but at most for `time`.
    pub(crate) fn wait_for_acknowledged(&self, count: u64, time: Duration) {
        let until = self.lock().book.counts().acknowledged + count;
        self.wait(time, |state| state.book.counts().acknowledged >= until);
    }

    /// Reports that a publisher has completed everything it started.
    pub(crate) fn finished(&self) {
        self.lock().publishers -= 1;
        self.changed.notify_all();
    }

    /// Waits until nothing is missing and no publisher is busy, or until no note was made for
    /// `patience` (for `patience_with_faults` if a promise was broken already).
    pub(crate) fn wait_until_settled(&self, patience: Duration, patience_with_faults: Duration) {
        loop {
            let (notes, has_faults) = self.look(|book| (book.notes(), book.has_faults()));
            let patience = if has_faults { patience_with_faults } else { patience };
            let is_settled = |state: &State| state.book.owed() == 0 && state.publishers == 0;
            let is_more = |state: &State| is_settled(state) || state.book.notes() > notes;
            let until = self.clock.now() + patience;
            while !self.wait(LOOK_EVERY, is_more) && self.clock.now() < until {}
            let state = self.lock();
            if is_settled(&state) || state.book.notes() == notes {
                return;
            }
        }
    }
}
