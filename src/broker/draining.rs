//! Refuses new clients while others are redirected, and admits them again if that fails.
//!
//! Does not know how clients are redirected.

use std::sync::Arc;

use super::{Running, asking::Asking};
use crate::control::{ControlError, Redirection};

/// Refuses new clients until it is dropped, unless [`Draining::stay`] makes that last.
pub(super) struct Draining<'a> {
    running: &'a Running,
    to: Arc<Redirection>,
    before: Option<Arc<Redirection>>,
    stays: bool,
    /// Only one exists at a time, so that `before` is never the target of another attempt.
    _alone: Asking<'a>,
}

impl<'a> Draining<'a> {
    /// Refuses clients from now on.
    ///
    /// # Errors
    /// An earlier attempt has not ended.
    pub(super) fn begin(running: &'a Running, to: &Redirection) -> Result<Self, ControlError> {
        let alone = Asking::new(&running.evacuations, 1)?;
        let to = Arc::new(to.clone());
        let before = running.core.draining.swap(Some(to.clone()));
        Ok(Self { running, to, before, stays: false, _alone: alone })
    }

    /// Keeps refusing clients after this is dropped.
    pub(super) fn stay(mut self) {
        self.stays = true;
    }
}

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        if !self.stays {
            // Unless `drain` was called with another target meanwhile.
            let draining = &self.running.core.draining;
            draining.compare_and_swap(&Some(self.to.clone()), self.before.take());
        }
    }
}
