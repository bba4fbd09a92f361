//! Password hashing on threads of its own, with low priority and a limited number at a time.
//!
//! **Connected clients come first**: a thread of the broker with work to do takes the core from a
//! hash. Addresses with failures, where floods come from, have the lowest priority. Other logins
//! have a little more, because on a machine whose cores are all busy a hash with the lowest
//! priority takes seconds. They have threads and turns of their own, so that they do not wait for
//! the end of such a hash.
//!
//! Knows turns and threads; does not know what is hashed or what the result means. A login asks for
//! a turn and waits for it in the [`WaitingRoom`]; a login that gives up leaves its place. A turn
//! lasts until the hash is done, even if its login has given up meanwhile.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

use tokio::{runtime::Handle, sync::oneshot, task::spawn_blocking};

use crate::auth::{Precedence, origin::Origin, waiting::WaitingRoom};

type Job = Box<dyn FnOnce() + Send>;

/// Turns to hash, and the threads that hash. The threads end when this is dropped.
pub(super) struct Hashing {
    turns: Arc<HashingTurns>,
    /// The threads of each class.
    threads: [Mutex<HashingThreads>; 2],
}

/// Logins that share threads and turns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Those of addresses without failures.
    Clean,
    /// Those of addresses with failures.
    Failed,
}

struct HashingTurns(Mutex<State>);

struct State {
    room: WaitingRoom<oneshot::Sender<HashingTurn>>,
    at_once_max: usize,
    /// Turns that logins of each class have.
    taken: [usize; 2],
    /// Number of logins that were refused because the waiting room was full.
    turned_away: u64,
}

struct HashingThreads {
    /// The nice value of the threads; Linux has one for each thread.
    nice: i32,
    jobs: Option<mpsc::Sender<Job>>,
    queue: Option<Arc<Mutex<mpsc::Receiver<Job>>>>,
    started: usize,
}

/// The nice value of each class. A thread of the broker gets ten times the CPU share of a thread with
/// the first one, and seventy times that of one with the second.
const NICE: [i32; 2] = [10, 19];

/// There was no place, or a login of higher precedence took it.
#[derive(Debug)]
pub(super) struct TurnedAway;

impl Hashing {
    /// Creates it for at most `at_once_max` hashes at the same time, half as many (at least one)
    /// for addresses with failures besides, and `waiting_max` logins that wait.
    pub(super) fn new(at_once_max: usize, waiting_max: usize) -> Self {
        let room = WaitingRoom::new(waiting_max);
        let state = State { room, at_once_max, taken: [0; 2], turned_away: 0 };
        let threads = NICE
            .map(|nice| Mutex::new(HashingThreads { nice, jobs: None, queue: None, started: 0 }));
        Self { turns: Arc::new(HashingTurns(Mutex::new(state))), threads }
    }

    /// Changes how many passwords are hashed at the same time.
    pub(super) fn set_at_once_max(&self, at_once_max: usize) {
        self.turns.state().at_once_max = at_once_max;
        // Waiting logins need not wait for the end of another turn.
        for class in [Class::Clean, Class::Failed] {
            while self.turns.hand_out(class) {}
        }
    }

    /// Waits for a turn.
    pub(super) async fn turn(
        &self,
        precedence: Precedence,
        origin: Origin,
    ) -> Result<HashingTurn, TurnedAway> {
        let class = Class::of(precedence);
        let (place, comes) = {
            let mut state = self.turns.state();
            // Without a queue, a free turn is taken immediately.
            if state.take(class) {
                return Ok(self.turns.turn(class));
            }
            let (sender, comes) = oneshot::channel();
            let Some(entered) = state.room.enter(precedence, origin, sender) else {
                state.turned_away += 1;
                return Err(TurnedAway);
            };
            state.turned_away += u64::from(entered.displaced.is_some());
            (WaitingPlace { turns: &self.turns, id: entered.id }, comes)
        };
        let turn = comes.await;
        // Held until here, so that a login that gives up leaves the room.
        drop(place);
        turn.map_err(|_| TurnedAway)
    }

    /// Runs `work` on a hashing thread; `None` if it panics or there is no thread.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        turn: HashingTurn,
        precedence: Precedence,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, done) = mpsc::sync_channel(1);
        let at_once_max = self.turns.state().at_once_max;
        let runtime = Handle::current(); // `work` reads the clock of this runtime.
        self.threads(precedence).hand_over(
            Box::new(move || {
                let _entered = runtime.enter();
                let outcome = work();
                // Before the outcome is sent, so that the next
                // hash does not wait for the reader of this one.
                drop(turn);
                drop(sender.send(outcome));
            }),
            at_once_max,
        );
        // While a blocking task runs, a paused clock does not advance by itself.
        spawn_blocking(move || done.recv().ok()).await.ok().flatten()
    }

    /// Returns how many logins wait now, and how many were turned away so far.
    pub(super) fn counts(&self) -> (usize, u64) {
        let state = self.turns.state();
        (state.room.len(), state.turned_away)
    }

    fn threads(&self, precedence: Precedence) -> MutexGuard<'_, HashingThreads> {
        let threads = &self.threads[Class::of(precedence) as usize];
        threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HashingTurns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(self: &Arc<Self>, class: Class) -> HashingTurn {
        HashingTurn { turns: Some(Arc::clone(self)), class }
    }

    /// Takes back a turn that is over, and hands it to the next login.
    fn give_back(self: &Arc<Self>, class: Class) {
        self.state().taken[class as usize] -= 1;
        self.hand_out(class);
    }

    /// Gives a free turn to the next login of this class. Returns whether there were both.
    fn hand_out(self: &Arc<Self>, class: Class) -> bool {
        loop {
            let mut state = self.state();
            if !state.has_turn(class) {
                return false;
            }
            let next = match class {
                Class::Clean => state.room.next(),
                Class::Failed => state.room.next_failed(),
            };
            let Some(next) = next else { return false };
            state.taken[class as usize] += 1;
            // Given back, because a turn that cannot be sent takes the lock again below.
            drop(state);
            match next.send(self.turn(class)) {
                Ok(()) => return true,
                Err(mut turn) => {
                    // This login has given up: offer the turn to the next one.
                    drop(turn.turns.take());
                    self.state().taken[class as usize] -= 1;
                }
            }
        }
    }
}

impl State {
    fn has_turn(&self, class: Class) -> bool {
        let max = match class {
            Class::Clean => self.at_once_max,
            Class::Failed => (self.at_once_max / 2).max(1),
        };
        self.taken[class as usize] < max
    }

    /// Takes a turn if one is free. Then no login of this class waits.
    fn take(&mut self, class: Class) -> bool {
        let is_free = self.has_turn(class);
        self.taken[class as usize] += usize::from(is_free);
        is_free
    }
}

impl Class {
    const fn of(precedence: Precedence) -> Self {
        match precedence {
            Precedence::Known | Precedence::Fresh => Self::Clean,
            Precedence::Failed => Self::Failed,
        }
    }
}

/// The right to hash one password. Dropping it gives the turn to the next login.
pub(super) struct HashingTurn {
    turns: Option<Arc<HashingTurns>>,
    class: Class,
}

impl Drop for HashingTurn {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.give_back(self.class);
        }
    }
}

/// A place in the waiting room; dropping it leaves the room.
struct WaitingPlace<'a> {
    turns: &'a HashingTurns,
    id: u64,
}

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        self.turns.state().room.leave(self.id);
    }
}

impl HashingThreads {
    fn hand_over(&mut self, job: Job, threads_max: usize) {
        if self.started < threads_max {
            self.start_one();
        }
        if let Some(jobs) = &self.jobs {
            // The queue is bounded: each job holds a turn.
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
            Err(error) => tracing::warn!(%error, "cannot start a thread that hashes passwords"),
        }
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>, nice: i32) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, nice, "cannot lower the priority of a hashing thread");
    }
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A job that panics is lost and gives its turn back; the thread goes on.
        drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::{join_all, select};
    use tokio::time::{Instant, sleep};

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
        // A turn that arrives after its login has given up is not lost.
        let mut gives_up = Box::pin(hashing.turn(Precedence::Fresh, from("192.0.2.2")));
        assert!(futures_util::poll!(&mut gives_up).is_pending());
        drop(turn);
        drop(gives_up);
        drop(hashing.turn(Precedence::Fresh, from("192.0.2.4")).await.unwrap());
        assert_eq!(hashing.turns.state().taken, [0, 0]);
    }

    #[tokio::test]
    async fn more_turns_go_to_those_who_wait_and_fewer_are_handed_out_after_those_that_are_taken() {
        let hashing = Hashing::new(1, 16);
        let from = from("192.0.2.1");
        let first = hashing.turn(Precedence::Fresh, from).await.unwrap();
        let mut second = Box::pin(hashing.turn(Precedence::Fresh, from));
        let mut third = Box::pin(hashing.turn(Precedence::Fresh, from));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(futures_util::poll!(&mut third).is_pending());
        hashing.set_at_once_max(3);
        let (second, third) = (second.await.unwrap(), third.await.unwrap());
        hashing.set_at_once_max(1);
        let mut waits = Box::pin(hashing.turn(Precedence::Fresh, from));
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop((first, second));
        assert!(futures_util::poll!(&mut waits).is_pending(), "one is taken still");
        drop(third);
        waits.await.unwrap();
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

    /// On a machine whose cores are all busy, a hash at the lowest priority takes seconds.
    #[tokio::test(start_paused = true)]
    async fn a_login_does_not_wait_for_the_end_of_hashes_at_the_lowest_priority() {
        for at_once_max in [1, 2, 8] {
            let hashing = Hashing::new(at_once_max, 1_000);
            let guess = async |number: u8| {
                loop {
                    let turn = hashing.turn(Precedence::Failed, from(&format!("10.{number}.0.1")));
                    let turn = turn.await.unwrap();
                    sleep(Duration::from_secs(4)).await;
                    drop(turn);
                }
            };
            let good = async {
                for number in 0..40 {
                    let began = Instant::now();
                    let from = from(&format!("192.0.2.{number}"));
                    let turn = hashing.turn(Precedence::Fresh, from).await.unwrap();
                    sleep(Duration::from_millis(400)).await;
                    drop(turn);
                    assert_eq!(began.elapsed(), Duration::from_millis(400), "{number}");
                    sleep(Duration::from_millis(300)).await;
                }
            };
            let guesses = join_all((0..100).map(guess));
            select(Box::pin(good), Box::pin(guesses)).await;
        }
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
