//! Charges the stored messages of a durable session to its owner's account: those that wait, in
//! memory and in the store alone, and those in flight.
//!
//! The charge changes in steps and is reduced late. So the shards need not change the account,
//! which they share, for messages that come and go at once.

use std::sync::atomic::Ordering;

use super::{IN_FLIGHT_BLOCK, Queue};
use crate::{owners::Charge, session::envelope::Amount};

/// Messages and bytes are charged in steps of this size.
const MESSAGES_STEP: usize = 16;
const BYTES_STEP: usize = 4 * 1024;
/// The charge is reduced once it is this much too high, while the client is connected.
const MESSAGES_SLACK: usize = 256;
const BYTES_SLACK: usize = 64 * 1024;

impl Queue {
    /// Returns the number and the bytes of the messages that the store has of the session.
    fn stored_amount(&self) -> Amount {
        let Some(keeping) = &self.keeping else { return Amount::default() };
        let (beyond, unread) = (keeping.beyond, keeping.in_flight_unread);
        Amount {
            messages: self.in_both.messages
                + beyond.messages
                + self.in_flight.messages
                + unread.messages,
            bytes: self.in_both.bytes + beyond.bytes + self.in_flight.bytes + unread.bytes,
        }
    }

    /// Returns whether the owner's share has room for another message. Always true for a session
    /// that is not durable.
    pub(super) fn has_share(&self, size: usize) -> bool {
        let Some(owned) = self.keeping.as_ref().and_then(|keeping| keeping.owned.as_ref()) else {
            return true;
        };
        let Amount { messages, bytes } = self.stored_amount();
        owned.messages.fits(messages as u64 + 1) && owned.bytes.fits((bytes + size) as u64)
    }

    /// Returns whether the owner is below its limits on stored messages and bytes.
    pub(super) fn is_within_share(&self) -> bool {
        let owned = self.keeping.as_ref().and_then(|keeping| keeping.owned.as_ref());
        owned.is_none_or(|owned| {
            let account = owned.bytes.account();
            account.stored_messages.fits(1) && account.stored_bytes.fits(1)
        })
    }

    /// Updates the charge to the owner's account.
    #[inline]
    pub(in crate::session) fn settle_share(&mut self) {
        if self.keeping.is_some() {
            self.settle_stored();
        }
    }

    fn settle_stored(&mut self) {
        if self.keeping.as_ref().is_none_or(|keeping| keeping.owned.is_none()) {
            return;
        }
        let Amount { messages, bytes } = self.stored_amount();
        let Some(keeping) = &mut self.keeping else { return };
        // Messages of an absent client do not come and go at once, so its queue needs no slack.
        let is_away = keeping.is_away;
        let Some(owned) = &mut keeping.owned else { return };
        let slack = |slack: usize| if is_away { 0 } else { slack };
        settle(&mut owned.messages, messages, MESSAGES_STEP, slack(MESSAGES_SLACK));
        settle(&mut owned.bytes, bytes, BYTES_STEP, slack(BYTES_SLACK));
    }

    /// Counts the messages that the session has in flight.
    #[inline]
    pub(in crate::session) fn note_in_flight(&mut self, in_flight: Amount) {
        self.in_flight = in_flight;
        let blocks = (in_flight.bytes / IN_FLIGHT_BLOCK) as u32;
        if self.keeping.is_some() || blocks != self.blocks_in_flight {
            self.count_in_flight(blocks);
        }
    }

    fn count_in_flight(&mut self, blocks: u32) {
        self.settle_share();
        let former = std::mem::replace(&mut self.blocks_in_flight, blocks);
        if blocks != former {
            self.settle_memory();
        }
        // Blocks in place of bytes: the shared counter changes once for many messages.
        let counted = &self.usage.bytes_in_flight;
        if blocks > former {
            let more = (blocks - former) as usize * IN_FLIGHT_BLOCK;
            counted.fetch_add(more, Ordering::Relaxed);
        } else if blocks < former {
            let less = (former - blocks) as usize * IN_FLIGHT_BLOCK;
            counted.fetch_sub(less, Ordering::Relaxed);
        }
    }

    /// Returns whether a session with `bytes` in flight may send another message. Bytes in flight
    /// have the same limits as waiting bytes: per client, and together with them for all clients.
    pub(in crate::session) fn allows_in_flight(&self, bytes: usize) -> bool {
        bytes < IN_FLIGHT_BLOCK
            || (bytes < self.bytes_max()
                && self.has_bytes_in_all(0)
                && self.has_owner_bytes(1)
                && self.is_within_share())
    }

    /// Counts messages that were dropped because of the owner's share.
    pub(super) fn note_displaced(&self, messages: usize) {
        let owned = self.keeping.as_ref().and_then(|keeping| keeping.owned.as_ref());
        if let Some(owned) = owned.filter(|_| messages > 0) {
            owned.bytes.account().note_displaced(messages as u64);
        }
    }
}

/// Adapts a charge to the amount, in steps. If the limit does not allow rounding up, charges the
/// exact amount.
fn settle(charge: &mut Charge, amount: usize, step: usize, slack: usize) {
    let wanted = amount.next_multiple_of(step) as u64;
    let is_too_much = wanted + slack as u64 <= charge.taken() && wanted < charge.taken();
    if is_too_much || (amount as u64 > charge.taken() && !charge.try_set(wanted)) {
        charge.set(if is_too_much { wanted } else { amount as u64 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::{Limits, OwnLimits},
        owners::{Owner, Owners},
    };

    #[test]
    fn a_charge_goes_in_steps_up_at_once_down_late_and_never_below_what_there_is() {
        let own = OwnLimits { stored_bytes_max: Some(10_000), ..OwnLimits::default() };
        let account =
            Owners::new(&Limits::default(), None).account(Owner::User("one".into()), Some(own));
        let mut charge = Charge::new(account.clone(), |account| &account.stored_bytes);
        for (amount, slack, taken) in [
            (1, 5_000, 4_096),
            (4_096, 5_000, 4_096),
            (4_097, 5_000, 8_192),
            (4_000, 5_000, 8_192),
            (0, 5_000, 0),
            (9_000, 5_000, 9_000), // one more step would be too much
            (9_000, 0, 9_000),
            (12_000, 0, 12_000), // it is there
            (1, 0, 4_096),
        ] {
            settle(&mut charge, amount, BYTES_STEP, slack);
            assert_eq!((charge.taken(), account.stored_bytes.used()), (taken, taken), "{amount}");
        }
    }
}
