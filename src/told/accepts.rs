//! Lines of the log about sockets that could not be accepted, by MQTT and HTTP listeners alike: one when it
//! begins, and at most one every ten seconds while it lasts, with their number.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Told;

/// Minimum time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Accept failures of all listeners of one broker.
#[derive(Default)]
pub(super) struct Failures(Mutex<State>);

#[derive(Default)]
struct State {
    told_at: Option<Instant>,
    /// Failures since the last line.
    untold: u64,
}

impl Failures {
    /// Counts a failure; returns how many there were since the last line, if one is due.
    fn count(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.untold += 1;
        if state.told_at.is_some_and(|at| at.elapsed() < LINE_EVERY) {
            return None;
        }
        state.told_at = Some(Instant::now());
        Some(std::mem::take(&mut state.untold))
    }
}

impl Told {
    /// Logs that a listener could not accept a socket, unless that was logged a moment ago.
    pub(crate) fn accept_failed(&self, error: &io::Error, listener: &str) {
        if let Some(failures) = self.accepts.count() {
            tracing::warn!(%error, listener, failures, "accept failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_comes_at_once_and_then_every_ten_seconds_with_a_count() {
        let failures = Failures::default();
        assert_eq!(failures.count(), Some(1));
        for _ in 0..500 {
            assert_eq!(failures.count(), None);
        }
        tokio::time::advance(LINE_EVERY).await;
        assert_eq!(failures.count(), Some(501));
        assert_eq!(failures.count(), None);
    }
}
