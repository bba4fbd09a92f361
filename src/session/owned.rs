//! The part of its owner's account that a durable session uses.

use std::sync::Arc;

use crate::owners::{Account, Charge};

/// The part of its owner's account that a durable session uses.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) messages: Charge,
    pub(super) bytes: Charge,
}

impl Owned {
    pub(super) fn new(account: &Arc<Account>) -> Self {
        Self {
            messages: Charge::new(account.clone(), |account| &account.stored_messages),
            bytes: Charge::new(account.clone(), |account| &account.stored_bytes),
        }
    }

    pub(super) fn move_to(&mut self, account: &Arc<Account>) {
        self.messages.move_to(account);
        self.bytes.move_to(account);
    }
}
