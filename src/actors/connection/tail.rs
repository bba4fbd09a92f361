//! What a connection has read and not handled: the beginning of a packet, or packets that wait.
//!
//! It knows neither packets nor who reads. What is large takes a share of what all connections
//! together may hold.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, buf::Limit};

use crate::{
    flow::{Budget, Share},
    mqtt::whole_length,
};

/// A larger tail does not fit into the scratch buffer beside what is read, and takes a share of the
/// room for packets that are not whole.
pub(crate) const UNCOUNTED_BYTES_MAX: usize = 32 * 1024;

/// A packet of so many bytes is read alone, into an allocation of its own, which can be shared. A
/// shorter one is decoded in the scratch buffer, which takes many at once.
const ALONE_BYTES_MIN: usize = UNCOUNTED_BYTES_MAX;

/// Up to so many bytes are set aside for a packet as soon as its length is known; for a longer one
/// four times what has come.
const SET_ASIDE_BYTES_MAX: usize = 128 * 1024;

/// The end of what was read.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) bytes: Vec<u8>,
    /// It may hold whole packets: it was read together with CONNECT, or the packet that comes
    /// first in it had to wait.
    pub(crate) has_unhandled: bool,
    /// The length of the packet that is read alone; 0 if there is none.
    alone_len: usize,
    /// The beginning of that packet has come and says its length. Else it is expected to be as long as
    /// the last one.
    has_begun: bool,
    share: Option<Share>,
}

impl Tail {
    /// What was read behind CONNECT.
    pub(crate) fn read_ahead(bytes: Vec<u8>) -> Self {
        Self { has_unhandled: !bytes.is_empty(), bytes, ..Self::default() }
    }

    /// Keeps what is left of the bytes that were read, in place of what there was: the beginning of
    /// a packet that has `at_least` so many bytes.
    pub(crate) fn keep(&mut self, rest: &[u8], at_least: usize) {
        self.begin(at_least);
        if rest.is_empty() || self.has_begun {
            self.bytes = Vec::with_capacity(self.room(rest.len()));
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(rest);
    }

    /// Room for what is still to come of a packet that is read alone; `None` if there is no such
    /// packet.
    ///
    /// Who sends one large packet sends more. So the next is expected to be as long: one read brings
    /// it to where it stays, and nothing of the one behind it.
    pub(crate) fn lacking(&mut self) -> Option<Limit<&mut Vec<u8>>> {
        let lacking = self.alone_len.checked_sub(self.bytes.len()).filter(|n| *n > 0)?;
        if self.bytes.len() == self.bytes.capacity() {
            let room = if self.has_begun { self.room(self.bytes.len()) } else { self.alone_len };
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        Some((&mut self.bytes).limit(lacking))
    }

    /// Nothing came: where there are no bytes, no room is kept for any.
    pub(crate) fn nothing_came(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// Takes out what may hold whole packets; `None` while the packet that has begun is not whole.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        if self.has_begun && self.bytes.len() < self.alone_len {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() / 2 > bytes.len() && whole_length(&bytes).is_some() {
            bytes.shrink_to_fit(); // What is shared keeps no more room than it needs.
        }
        Some(bytes.into())
    }

    /// Puts back what was taken out, without its first bytes; see [`Self::keep`].
    pub(crate) fn put_back(&mut self, bytes: Bytes, used: usize, at_least: usize) {
        if used == bytes.len() {
            self.begin(used);
            self.has_begun = false;
        } else if used == 0 {
            self.begin(at_least);
            self.bytes = bytes.into(); // Without a copy: it is shared with nobody.
            self.bytes.shrink_to(SET_ASIDE_BYTES_MAX.max(8 * self.bytes.len()));
        } else {
            self.keep(&bytes[used..], at_least);
        }
    }

    const fn begin(&mut self, len: usize) {
        self.has_begun = len >= ALONE_BYTES_MIN;
        self.alone_len = if self.has_begun { len } else { 0 };
    }

    /// Room for a packet that is read alone, of which so many bytes have come. That it is announced
    /// does not make it larger than that.
    fn room(&self, have: usize) -> usize {
        self.alone_len.min(SET_ASIDE_BYTES_MAX.max(4 * have))
    }

    /// Takes its share of the room, or gives it back; `false` if there is too little.
    pub(crate) fn count(&mut self, budget: &Arc<Budget>) -> bool {
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

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;

    use super::*;

    const LEN: usize = 1_000_000;

    /// The beginning of a PUBLISH of `LEN` bytes.
    const BEGINNING: [u8; 4] = [0x30, 0xBC, 0x84, 0x3D];

    /// Lets so many bytes come, as far as a read may bring them at once; how many those were.
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
        // Or of which little comes.
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
