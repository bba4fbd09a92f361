//! The bytes that a connection has read and not handled: the beginning of a packet, or packets that must
//! wait.
//!
//! Knows neither packets nor readers. A large tail takes a share of the bytes that all connections
//! together may hold, and of those of its owner.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, buf::Limit};

use crate::{
    flow::{Budget, BudgetShare},
    mqtt::whole_length,
    owners::{Account, Charge},
};

/// A tail above this size does not fit into the scratch buffer beside new bytes, and takes a share
/// of the budget for incomplete packets.
pub(super) const UNCOUNTED_BYTES_MAX: usize = 32 * 1024;

/// A packet of this size or more is read alone, into an allocation of its own, which can be shared.
/// A shorter packet is decoded in the scratch buffer, which takes many packets at once.
const ALONE_BYTES_MIN: usize = UNCOUNTED_BYTES_MAX;

/// Up to this size, the whole packet's memory is allocated as soon as its length is known; for a
/// longer packet four times the bytes that have arrived.
const SET_ASIDE_BYTES_MAX: usize = 128 * 1024;

/// The unhandled end of what was read.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) bytes: Vec<u8>,
    /// Whether it may hold whole packets: it was read together with CONNECT, or its first packet
    /// had to wait.
    pub(super) has_unhandled: bool,
    /// The length of the packet that is read alone; 0 if there is none.
    alone_len: usize,
    /// Whether the beginning of that packet has arrived, which gives its length. Before that, the
    /// packet is expected to be as long as the last one.
    has_begun: bool,
    share: Option<BudgetShare>,
    /// The same bytes in the account of the owner.
    charge: Option<Charge>,
}

impl Tail {
    /// Returns a tail with the bytes that were read behind CONNECT.
    pub(super) fn read_ahead(bytes: Vec<u8>) -> Self {
        Self { has_unhandled: !bytes.is_empty(), bytes, ..Self::default() }
    }

    /// Stores the rest of the bytes that were read, in place of the former tail: the beginning of a
    /// packet of at least `at_least` bytes.
    pub(super) fn keep(&mut self, rest: &[u8], at_least: usize) {
        self.begin(at_least);
        if rest.is_empty() || self.has_begun {
            self.bytes = Vec::with_capacity(self.room(rest.len()));
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(rest);
    }

    /// Returns the memory for the missing bytes of a packet that is read alone; `None` if there is
    /// no such packet.
    ///
    /// A client that sends one large packet usually sends more, so the next is expected to be as
    /// long. One read then puts it where it stays, and reads nothing of the packet behind it.
    pub(super) fn lacking(&mut self) -> Option<Limit<&mut Vec<u8>>> {
        let lacking = self.alone_len.checked_sub(self.bytes.len()).filter(|n| *n > 0)?;
        if self.bytes.len() == self.bytes.capacity() {
            let room = if self.has_begun { self.room(self.bytes.len()) } else { self.alone_len };
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        Some((&mut self.bytes).limit(lacking))
    }

    /// Returns whether the beginning of a packet has arrived that is read alone.
    pub(super) const fn has_large(&self) -> bool {
        self.has_begun
    }

    /// Releases the memory if the tail is empty, after a read that brought nothing.
    pub(super) fn nothing_came(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// Takes out bytes that may hold whole packets; returns `None` while the first packet is
    /// incomplete.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        if self.has_begun && self.bytes.len() < self.alone_len {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() / 2 > bytes.len() && whole_length(&bytes).is_some() {
            bytes.shrink_to_fit(); // Shared bytes must not hold spare memory.
        }
        Some(bytes.into())
    }

    /// Puts back the bytes that were taken out, without the first `used`; see [`Self::keep`].
    pub(super) fn put_back(&mut self, bytes: Bytes, used: usize, at_least: usize) {
        if used == bytes.len() {
            self.begin(used);
            self.has_begun = false;
        } else if used == 0 {
            self.begin(at_least);
            self.bytes = bytes.into(); // Without a copy, as nothing else shares it.
            self.bytes.shrink_to(SET_ASIDE_BYTES_MAX.max(8 * self.bytes.len()));
        } else {
            self.keep(&bytes[used..], at_least);
        }
    }

    const fn begin(&mut self, len: usize) {
        self.has_begun = len >= ALONE_BYTES_MIN;
        self.alone_len = if self.has_begun { len } else { 0 };
    }

    /// Returns the memory to allocate for a packet that is read alone, of which `have` bytes have
    /// arrived. An announced length alone does not make it larger.
    fn room(&self, have: usize) -> usize {
        self.alone_len.min(SET_ASIDE_BYTES_MAX.max(4 * have))
    }

    /// Takes the tail's share of the budget, or gives it back; returns `false` if too little is left
    /// for all clients, or for the owner of this one.
    pub(super) fn count(&mut self, budget: &Arc<Budget>, owner: Option<&Arc<Account>>) -> bool {
        let bytes = self.bytes.len();
        if bytes <= UNCOUNTED_BYTES_MAX {
            // Gives back the share of a longer tail.
            (self.share, self.charge) = (None, None);
            return true;
        }
        // Most connections never have a long tail, so the charge is created with the first.
        if let (None, Some(owner)) = (&self.charge, owner) {
            self.charge = Some(Charge::new(owner.clone(), |account| &account.incomplete_bytes));
        }
        // The owner comes first, so that a client over its limit takes nothing of the budget of all.
        if self.charge.as_mut().is_some_and(|charge| !charge.try_set(bytes as u64)) {
            return false;
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

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;

    use super::*;

    const LEN: usize = 1_000_000;

    /// The beginning of a PUBLISH of `LEN` bytes.
    const BEGINNING: [u8; 4] = [0x30, 0xBC, 0x84, 0x3D];

    /// Reads `bytes` bytes, as far as one read may bring them at once; returns how many it read.
    fn read(tail: &mut Tail, bytes: usize) -> usize {
        let mut room = tail.lacking().expect("a packet has begun, or is expected");
        let n = room.chunk_mut().len().min(bytes);
        room.put_bytes(b'x', n);
        n
    }

    #[test]
    fn a_packet_that_is_announced_takes_four_times_the_room_of_what_came() {
        let mut tail = Tail::default();
        tail.keep(&BEGINNING, LEN);
        while tail.bytes.len() < LEN {
            let have = tail.bytes.len();
            assert!(tail.bytes.capacity() <= SET_ASIDE_BYTES_MAX.max(4 * have));
            assert!(tail.take_whole().is_none());
            read(&mut tail, 1000);
        }
        assert_eq!(tail.bytes.capacity(), LEN);
        assert_eq!(tail.take_whole().map(|whole| whole.len()), Some(LEN));
    }

    #[test]
    fn the_next_is_expected_to_be_as_long_and_one_read_brings_it() {
        let mut tail = Tail::default();
        tail.put_back(vec![b'x'; LEN].into(), LEN, 0);
        assert_eq!(read(&mut tail, 2 * LEN), LEN, "and nothing of what comes after it");
        assert_eq!(tail.take_whole().map(|whole| whole.len()), Some(LEN));
    }

    #[test]
    fn no_room_is_kept_for_what_is_expected_and_does_not_come() {
        let mut tail = Tail::default();
        tail.put_back(vec![b'x'; LEN].into(), LEN, 0);
        read(&mut tail, 0);
        tail.nothing_came();
        assert_eq!(tail.bytes.capacity(), 0);
        // The same for a packet of which few bytes arrive.
        read(&mut tail, 100);
        let bytes = tail.take_whole().expect("it may be a whole packet");
        tail.put_back(bytes, 0, LEN);
        assert!(tail.bytes.capacity() <= SET_ASIDE_BYTES_MAX);
        assert!(tail.take_whole().is_none());
    }

    #[test]
    fn a_short_packet_where_a_long_one_was_expected_keeps_no_more_than_it_needs() {
        let mut tail = Tail::default();
        tail.put_back(vec![b'x'; LEN].into(), LEN, 0);
        tail.lacking().expect("another is expected").put_slice(&[0xC0, 0]);
        let whole = tail.take_whole().expect("it is whole");
        assert_eq!(whole, [0xC0, 0][..]);
        tail.put_back(whole, 2, 0);
        assert!(tail.lacking().is_none(), "the scratch is good enough for the next");
    }
}
