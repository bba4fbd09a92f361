//! What a connection has sent before anybody knows who sends it.
//!
//! It knows neither packets nor who reads. What is large takes a share of what all connections
//! together may hold of packets that are not whole.

use std::sync::Arc;

use crate::actors::{Budget, Share};

/// Few CONNECTs are larger. It is less than clients have whom the broker knows: to be many costs a
/// stranger nothing.
const UNCOUNTED_BYTES_MAX: usize = 4 * 1024;

/// The share of one connection, until it has its session or is gone.
pub(super) struct Room {
    budget: Arc<Budget>,
    share: Option<Share>,
    /// Bytes that stay while others come.
    kept: usize,
}

impl Room {
    pub(super) const fn new(budget: Arc<Budget>) -> Self {
        Self { budget, share: None, kept: 0 }
    }

    /// From now on so many bytes are there besides those that come.
    pub(super) const fn keep(&mut self, bytes: usize) {
        self.kept = bytes;
    }

    /// Whether there is room for so many bytes that have come. It is given back with all the
    /// rest, as their buffer is.
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
