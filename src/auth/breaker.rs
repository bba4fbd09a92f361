//! A circuit breaker: a service that fails again and again is left alone for a while.
//!
//! Knows only outcomes. Called by the sources of identities that ask a service, before and after each
//! call.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Failures in a row after which the service is left alone.
const FAILURES_MAX: u32 = 5;
/// How long; then one call tries whether it is back.
const PAUSE: Duration = Duration::from_secs(5);
/// The time after which a single failure is told again.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// ```text
///            FAILURES_MAX in a row
///   Closed ────────────────────────► Open ──┐ after PAUSE: one call, and Open again
///      ▲                              │  ▲──┘
///      └────────── a success ─────────┘
/// ```
#[derive(Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    failures: u32,
    /// Set while it is open.
    open_until: Option<Instant>,
    /// When a failure was last told.
    told_at: Option<Instant>,
}

/// What an outcome has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// Nothing.
    No,
    /// A first failure, which is told once in a while: why a configuration does not work.
    Failing,
    /// The service is left alone from now on.
    Open,
    /// The service is back.
    Closed,
}

impl Breaker {
    /// Returns whether a call may be made.
    pub(super) fn admits(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        match state.open_until {
            None => true,
            Some(until) if until > now => false,
            Some(_) => {
                state.open_until = Some(now + PAUSE);
                true
            }
        }
    }

    /// Notes the outcome of a call.
    pub(super) fn note(&self, is_good: bool) -> Turned {
        let mut state = self.state();
        if is_good {
            state.failures = 0;
            return state.open_until.take().map_or(Turned::No, |_| Turned::Closed);
        }
        state.failures = state.failures.saturating_add(1);
        let now = Instant::now();
        if state.failures < FAILURES_MAX {
            let is_told = state.told_at.is_some_and(|at| now.duration_since(at) < TOLD_FOR);
            if state.failures > 1 || is_told {
                return Turned::No;
            }
            state.told_at = Some(now);
            return Turned::Failing;
        }
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

    #[tokio::test(start_paused = true)]
    async fn a_service_that_fails_is_tried_once_in_a_while() {
        let breaker = Breaker::default();
        for number in 1..FAILURES_MAX {
            assert!(breaker.admits());
            let told = if number == 1 { Turned::Failing } else { Turned::No };
            assert_eq!(breaker.note(false), told);
        }
        assert_eq!(breaker.note(false), Turned::Open);
        assert!(!breaker.admits());
        tokio::time::advance(PAUSE).await;
        assert!(breaker.admits(), "one tries");
        assert!(!breaker.admits(), "and no other");
        assert_eq!(breaker.note(false), Turned::No);
        assert!(!breaker.admits());
        tokio::time::advance(PAUSE).await;
        assert!(breaker.admits());
        assert_eq!(breaker.note(true), Turned::Closed);
        assert!(breaker.admits() && breaker.admits());
        assert_eq!(breaker.note(false), Turned::No, "failures count from the beginning");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_now_and_then_is_told_once_in_a_while() {
        let breaker = Breaker::default();
        let mut told = 0;
        for _ in 0..240 {
            told += u32::from(breaker.note(false) == Turned::Failing);
            assert_eq!(breaker.note(true), Turned::No);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(told, 4);
    }
}
