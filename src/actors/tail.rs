//! What a connection has read and not handled: the beginning of a packet, or packets that wait.
//!
//! It knows neither packets nor who reads. What is large takes a share of what all connections
//! together may hold.

use std::sync::Arc;

use super::budget::{Budget, Share};

/// A larger tail does not fit into the scratch buffer beside what is read, so it grows in a buffer
/// of its own, as fast as it arrives and no faster, and takes a share of the room for packets that are not whole.
pub(super) const UNCOUNTED_BYTES_MAX: usize = 32 * 1024;

/// The end of what was read.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) bytes: Vec<u8>,
    /// It may hold whole packets: it was read together with CONNECT, or the packet that comes
    /// first in it had to wait.
    pub(super) has_unhandled: bool,
    share: Option<Share>,
}

impl Tail {
    /// What was read behind CONNECT.
    pub(super) const fn read_ahead(bytes: Vec<u8>) -> Self {
        Self { has_unhandled: !bytes.is_empty(), bytes, share: None }
    }

    /// Keeps what is left of the bytes that were read, in place of what there was.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
            self.bytes.extend_from_slice(rest);
        }
    }

    /// Puts back what was taken out, without its first bytes.
    pub(super) fn put_back(&mut self, mut bytes: Vec<u8>, used: usize) {
        if used < bytes.len() {
            bytes.drain(..used);
            self.bytes = bytes;
        }
    }

    /// Takes its share of the room, or gives it back; `false` if there is too little.
    pub(super) fn count(&mut self, budget: &Arc<Budget>) -> bool {
        let bytes = self.bytes.len();
        if bytes <= UNCOUNTED_BYTES_MAX {
            self.share = None;
            return true;
        }
        match &mut self.share {
            Some(share) => share.grow_to(bytes),
            share @ None => {
                *share = budget.share(bytes);
                share.is_some()
            }
        }
    }
}
