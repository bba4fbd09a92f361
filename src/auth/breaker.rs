//! A circuit breaker: the broker stops calling a service that fails again and again, for a time.
//!
//! Knows outcomes and the origins of calls. Called by the sources of identities that ask a service,
//! before and after each call.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::origin::Origin;

/// Origins whose calls fail, without a success between them, before the breaker opens.
const FAILURES_MAX: usize = 5;
/// The time for which no call is made; then one call tries whether the service is back.
const PAUSE: Duration = Duration::from_secs(5);
/// The time after which a single failure is logged again.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// ```text
///            FAILURES_MAX in a row
///   Closed ────────────────────────► Open ──┐ after PAUSE: one call, and Open again
///      ▲                              │  ▲──┘
///      └────────── a success ─────────┘
/// ```
///
/// The failures of one origin count once in a row: a service may fail for the logins of one stranger alone,
/// whose further attempts must not lock out the others.
#[derive(Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    /// The origins of the failures since the last success, at most [`FAILURES_MAX`].
    failed: Vec<Origin>,
    /// Set while it is open.
    open_until: Option<Instant>,
    /// When a failure was last logged.
    told_at: Option<Instant>,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallOutcome {
    /// The service works.
    Good,
    /// The service has failed, perhaps for this login alone.
    Failed,
    /// The service cannot be reached, so no login can be checked.
    Unreachable,
}

/// The change that an outcome has caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// Nothing.
    No,
    /// A first failure, which is logged now and then: it says why a configuration does not work.
    Failing,
    /// No calls are made from now on.
    Open,
    /// The service is back.
    Closed,
}

impl Breaker {
    /// Returns whether a call may be made. After a pause, an origin whose calls have not failed tries
    /// first; the others wait for another pause.
    pub(super) fn admits(&self, origin: Origin) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        let Some(until) = state.open_until else { return true };
        let until = if state.failed.contains(&origin) { until + PAUSE } else { until };
        if until > now {
            return false;
        }
        state.open_until = Some(now + PAUSE);
        true
    }

    /// Notes the outcome of a call.
    pub(super) fn note(&self, origin: Origin, outcome: CallOutcome) -> Turned {
        let mut state = self.state();
        match outcome {
            CallOutcome::Good => {
                state.failed.clear();
                return state.open_until.take().map_or(Turned::No, |_| Turned::Closed);
            }
            // One stranger must not open the breaker for all by logins that make the service fail.
            CallOutcome::Failed if state.failed.contains(&origin) => {}
            CallOutcome::Failed | CallOutcome::Unreachable => {
                if state.failed.len() < FAILURES_MAX {
                    state.failed.push(origin);
                }
            }
        }
        let now = Instant::now();
        if state.failed.len() < FAILURES_MAX {
            let is_told = state.told_at.is_some_and(|at| now.duration_since(at) < TOLD_FOR);
            // The first failure is logged, and then not again for a time, however many logins fail.
            if state.failed.len() > 1 || is_told {
                return Turned::No;
            }
            state.told_at = Some(now);
            return Turned::Failing;
        }
        // A failed trial call prolongs the pause, and is not logged as a second opening.
        match state.open_until.replace(now + PAUSE) {
            None => Turned::Open,
            Some(_) => Turned::No,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(number: u8) -> Origin {
        Origin::of([192, 0, 2, number].into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_fails_is_tried_once_in_a_while() {
        let breaker = Breaker::default();
        for number in 1..5 {
            assert!(breaker.admits(login(number)));
            let told = if number == 1 { Turned::Failing } else { Turned::No };
            assert_eq!(breaker.note(login(number), CallOutcome::Failed), told);
        }
        assert_eq!(breaker.note(login(5), CallOutcome::Failed), Turned::Open);
        assert!(!breaker.admits(login(6)));
        tokio::time::advance(PAUSE).await;
        assert!(!breaker.admits(login(1)), "one whose calls have failed waits longer");
        assert!(breaker.admits(login(6)), "one tries");
        assert!(!breaker.admits(login(7)), "and no other");
        assert_eq!(breaker.note(login(6), CallOutcome::Failed), Turned::No);
        assert!(!breaker.admits(login(7)));
        tokio::time::advance(2 * PAUSE).await;
        assert!(breaker.admits(login(1)), "there is no other");
        assert_eq!(breaker.note(login(1), CallOutcome::Good), Turned::Closed);
        assert!(breaker.admits(login(1)) && breaker.admits(login(2)));
        assert_eq!(
            breaker.note(login(1), CallOutcome::Failed),
            Turned::No,
            "failures count from the beginning"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_one_stranger_do_not_open_it() {
        let breaker = Breaker::default();
        for _ in 0..100 {
            assert!(breaker.admits(login(1)));
            assert_ne!(breaker.note(login(1), CallOutcome::Failed), Turned::Open);
        }
        assert!(breaker.admits(login(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_cannot_be_reached_needs_no_second_witness() {
        let breaker = Breaker::default();
        let turned = [(); 5].map(|()| breaker.note(login(1), CallOutcome::Unreachable));
        assert_eq!(turned[4], Turned::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_now_and_then_is_told_once_in_a_while() {
        let breaker = Breaker::default();
        let mut told = 0;
        for _ in 0..240 {
            let turned = breaker.note(login(1), CallOutcome::Failed);
            told += u32::from(turned == Turned::Failing);
            assert_eq!(breaker.note(login(1), CallOutcome::Good), Turned::No);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(told, 4);
    }
}
