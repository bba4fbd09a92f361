//! How many questions are under way.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::control::ControlError;

/// A question under way. It counts until it is dropped, even if its caller has gone.
pub(super) struct CallUnderWay<'a>(&'a AtomicUsize);

impl<'a> CallUnderWay<'a> {
    pub(super) fn new(questions: &'a AtomicUsize, max: usize) -> Result<Self, ControlError> {
        let before = questions.fetch_add(1, Ordering::Relaxed);
        let asking = Self(questions);
        if before < max { Ok(asking) } else { Err(ControlError::Unavailable) }
    }
}

impl Drop for CallUnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
