//! Passwords are hashed here: on threads of their own, with a low priority, in turns.
//!
//! **Connected clients come first**: a thread of the broker that has something to do takes the core
//! from a hash. The lowest priority is for addresses with failures, which is where floods come from.
//! Other logins have a little more: on a machine whose cores are all busy a hash with the lowest
//! priority takes seconds.
//!
//! Knows turns and threads; what is hashed and what comes of it is the caller's. A login asks for a
//! turn, and waits for it in the [`WaitingRoom`]; who gives up leaves its place. The turn is held
//! until the hash is done, also when nobody waits for it any more.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

use tokio::{runtime::Handle, sync::oneshot, task::spawn_blocking};

use super::{
    origin::Origin,
    waiting::{Precedence, WaitingRoom},
};

type Job = Box<dyn FnOnce() + Send>;

/// See the module. The threads end with it.
pub(super) struct Hashing {
    turns: Arc<Turns>,
    /// For logins that something speaks for, and for the others.
    threads: [Mutex<Threads>; 2],
    at_once_max: usize,
}

struct Turns(Mutex<State>);

struct State {
    room: WaitingRoom<oneshot::Sender<Turn>>,
    /// Turns that nobody has.
    free: usize,
    /// Logins that were told that there is no place.
    turned_away: u64,
}

struct Threads {
    /// The nice value of the threads. Linux keeps it for each thread.
    nice: i32,
    jobs: Option<mpsc::Sender<Job>>,
    queue: Option<Arc<Mutex<mpsc::Receiver<Job>>>>,
    started: usize,
}

/// A thread of the broker has ten times the share of a core that one with the first has, and seventy
/// times that of one with the second.
const NICE: [i32; 2] = [10, 19];

/// No place, or the login had to give its place away.
#[derive(Debug)]
pub(super) struct TurnedAway;

impl Hashing {
    /// Hashes so many passwords at once while so many logins wait.
    pub(super) fn new(at_once_max: usize, waiting_max: usize) -> Self {
        let room = WaitingRoom::new(waiting_max);
        let state = State { room, free: at_once_max, turned_away: 0 };
        let threads =
            NICE.map(|nice| Mutex::new(Threads { nice, jobs: None, queue: None, started: 0 }));
        Self { turns: Arc::new(Turns(Mutex::new(state))), threads, at_once_max }
    }

    /// Waits for a turn.
    pub(super) async fn turn(
        &self,
        precedence: Precedence,
        origin: Origin,
    ) -> Result<Turn, TurnedAway> {
        let (place, comes) = {
            let mut state = self.turns.state();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Turn(Some(Arc::clone(&self.turns))));
            }
            let (sender, comes) = oneshot::channel();
            let Some(entered) = state.room.enter(precedence, origin, sender) else {
                state.turned_away += 1;
                return Err(TurnedAway);
            };
            state.turned_away += u64::from(entered.displaced.is_some());
            (Place { turns: &self.turns, id: entered.id }, comes)
        };
        let turn = comes.await;
        drop(place);
        turn.map_err(|_| TurnedAway)
    }

    /// Does the work on a thread for it; `None` if it has panicked or there is no thread.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        turn: Turn,
        precedence: Precedence,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, done) = mpsc::sync_channel(1);
        let runtime = Handle::current(); // Its clock is that of logins.
        self.threads(precedence).hand_over(
            Box::new(move || {
                let _entered = runtime.enter();
                let outcome = work();
                drop(turn);
                drop(sender.send(outcome));
            }),
            self.at_once_max,
        );
        // As long as a blocking task runs, a paused clock does not go on by itself.
        spawn_blocking(move || done.recv().ok()).await.ok().flatten()
    }

    /// Logins that wait now, and those that were turned away so far.
    pub(super) fn counts(&self) -> (usize, u64) {
        let state = self.turns.state();
        (state.room.len(), state.turned_away)
    }

    fn threads(&self, precedence: Precedence) -> MutexGuard<'_, Threads> {
        let threads = &self.threads[usize::from(precedence == Precedence::Failed)];
        threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a turn that is over to who comes next.
    fn hand_on(self: Arc<Self>) {
        loop {
            let mut state = self.state();
            let Some(next) = state.room.next() else {
                state.free += 1;
                return;
            };
            drop(state);
            match next.send(Turn(Some(Arc::clone(&self)))) {
                Ok(()) => return,
                // It has given up meanwhile: the turn is the next one's.
                Err(mut turn) => drop(turn.0.take()),
            }
        }
    }
}

/// The right to hash one password. When it is dropped, the next login has its turn.
pub(super) struct Turn(Option<Arc<Turns>>);

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.hand_on();
        }
    }
}

/// A place in the waiting room, left when it is dropped.
struct Place<'a> {
    turns: &'a Turns,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turns.state().room.leave(self.id);
    }
}

impl Threads {
    fn hand_over(&mut self, job: Job, threads_max: usize) {
        if self.started < threads_max {
            self.start_one();
        }
        if let Some(jobs) = &self.jobs {
            // There are no more jobs than turns.
            drop(jobs.send(job));
        }
    }

    fn start_one(&mut self) {
        let queue = self.queue.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel();
            self.jobs = Some(sender);
            Arc::new(Mutex::new(receiver))
        });
        let (queue, nice) = (Arc::clone(queue), self.nice);
        let named = thread::Builder::new().name(format!("hash-{nice}-{}", self.started));
        match named.spawn(move || work(&queue, nice)) {
            Ok(_) => self.started += 1,
            Err(error) => tracing::warn!(%error, "a thread for passwords cannot be started"),
        }
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>, nice: i32) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, nice, "a thread for passwords keeps its priority");
    }
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A job that panics is lost, and its turn is given back; the thread goes on.
        drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> Origin {
        Origin::of(text.parse().unwrap())
    }

    #[tokio::test]
    async fn a_turn_goes_to_who_waits_and_passes_over_who_has_given_up() {
        let hashing = Hashing::new(1, 16);
        let turn = hashing.turn(Precedence::Fresh, from("192.0.2.1")).await.unwrap();
        let mut gives_up = Box::pin(hashing.turn(Precedence::Fresh, from("192.0.2.2")));
        let mut waits = Box::pin(hashing.turn(Precedence::Fresh, from("192.0.2.3")));
        assert!(futures_util::poll!(&mut gives_up).is_pending());
        assert!(futures_util::poll!(&mut waits).is_pending());
        assert_eq!(hashing.counts(), (2, 0));
        drop(gives_up);
        assert_eq!(hashing.counts(), (1, 0));
        drop(turn);
        let turn = waits.await.unwrap();
        // A turn that has come and is not taken up is not lost.
        let mut gives_up = Box::pin(hashing.turn(Precedence::Fresh, from("192.0.2.2")));
        assert!(futures_util::poll!(&mut gives_up).is_pending());
        drop(turn);
        drop(gives_up);
        drop(hashing.turn(Precedence::Fresh, from("192.0.2.4")).await.unwrap());
        assert_eq!(hashing.turns.state().free, 1);
    }

    #[tokio::test]
    async fn who_finds_no_place_is_turned_away() {
        let hashing = Hashing::new(1, 1);
        let turn = hashing.turn(Precedence::Fresh, from("192.0.2.1")).await.unwrap();
        let mut waits = Box::pin(hashing.turn(Precedence::Fresh, from("192.0.2.1")));
        assert!(futures_util::poll!(&mut waits).is_pending());
        assert!(hashing.turn(Precedence::Fresh, from("192.0.2.1")).await.is_err());
        assert_eq!(hashing.counts(), (1, 1));
        drop(turn);
        waits.await.unwrap();
    }

    #[tokio::test]
    async fn work_that_panics_costs_neither_turn_nor_thread() {
        let hashing = Hashing::new(1, 1);
        for number in 0..3 {
            let turn = hashing.turn(Precedence::Fresh, from("192.0.2.1")).await.unwrap();
            let outcome = hashing.run(turn, Precedence::Fresh, || panic!("as it should")).await;
            assert!(outcome.is_none_or(|()| false));
            let turn = hashing.turn(Precedence::Fresh, from("192.0.2.1")).await.unwrap();
            assert_eq!(hashing.run(turn, Precedence::Fresh, move || number).await, Some(number));
        }
        assert_eq!(hashing.threads(Precedence::Fresh).started, 1);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn hashing_threads_have_a_low_priority_and_nobody_else_has() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let hashing = Hashing::new(1, 1);
        for (precedence, expected) in
            [(Precedence::Known, 10), (Precedence::Fresh, 10), (Precedence::Failed, 19)]
        {
            let turn = hashing.turn(precedence, from("192.0.2.1")).await.unwrap();
            assert_eq!(hashing.run(turn, precedence, nice).await, Some(expected));
        }
        assert_eq!(nice(), before);
    }
}
