//! Limits the memory for bytes that a connection sends before its client is authenticated.
//!
//! Knows neither packets nor readers. Large input takes a share of the budget for the incomplete
//! packets of all connections.

use std::sync::Arc;

use crate::flow::{Budget, BudgetShare};

/// Few CONNECTs are larger. Smaller than for known clients: opening many connections costs a
/// stranger nothing.
const UNCOUNTED_BYTES_MAX: usize = 4 * 1024;

/// The budget share of one connection, held until it has a session or is closed.
pub(super) struct Room {
    budget: Arc<Budget>,
    share: Option<BudgetShare>,
    /// Bytes that stay buffered while more arrive.
    kept: usize,
}

impl Room {
    pub(super) const fn new(budget: Arc<Budget>) -> Self {
        Self { budget, share: None, kept: 0 }
    }

    /// Sets the number of bytes that stay buffered while more arrive.
    pub(super) const fn keep(&mut self, bytes: usize) {
        self.kept = bytes;
    }

    /// Returns whether `bytes` received bytes fit into the budget. The share is returned as a whole
    /// when this value is dropped, together with the buffer.
    pub(super) fn has(&mut self, bytes: usize) -> bool {
        let bytes = self.kept + bytes;
        match &mut self.share {
            _ if bytes <= UNCOUNTED_BYTES_MAX => true,
            Some(share) => share.grow_to(bytes),
            share @ None => {
                *share = self.budget.share(bytes);
                share.is_some()
            }
        }
    }
}
