//! Refusing clients while others are sent away, and taking them again should that fail.
//!
//! Does not know how clients are sent away.

use std::sync::Arc;

use super::{Asking, Running};
use crate::control::{ControlError, Redirection};

/// New clients are refused. Ends when it is dropped, unless it is to stay.
pub(super) struct Draining<'a> {
    running: &'a Running,
    to: Arc<Redirection>,
    before: Option<Arc<Redirection>>,
    stays: bool,
    /// One at a time, so that what was before is nobody's attempt.
    _alone: Asking<'a>,
}

impl<'a> Draining<'a> {
    /// Refuses clients from now on.
    ///
    /// # Errors
    /// Another one has not ended.
    pub(super) fn begin(running: &'a Running, to: &Redirection) -> Result<Self, ControlError> {
        let alone = Asking::new(&running.evacuations, 1)?;
        let to = Arc::new(to.clone());
        let before = running.core.draining.swap(Some(to.clone()));
        Ok(Self { running, to, before, stays: false, _alone: alone })
    }

    /// Clients are refused also after this.
    pub(super) fn stay(mut self) {
        self.stays = true;
    }
}

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        if !self.stays {
            // Unless somebody has said something else meanwhile.
            let draining = &self.running.core.draining;
            draining.compare_and_swap(&Some(self.to.clone()), self.before.take());
        }
    }
}
