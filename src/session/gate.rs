//! Output that is encoded for a client and must not be sent before a ticket is stored.

use std::collections::VecDeque;

use crate::journal::Ticket;

/// Encoded packets, each behind the ticket that it waits for.
#[derive(Debug, Default)]
pub(super) struct Gate {
    bytes: Vec<u8>,
    /// Tickets in ascending order, each with the position where its output begins in `bytes`.
    marks: VecDeque<(Ticket, usize)>,
}

impl Gate {
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Returns the last ticket that output waits for.
    pub(super) fn last(&self) -> Option<Ticket> {
        Some(self.marks.back()?.0)
    }

    /// Returns the buffer for output that waits for `ticket`, which must not be lower than the last
    /// one.
    pub(super) fn before(&mut self, ticket: Ticket) -> &mut Vec<u8> {
        if self.last().is_none_or(|last| last < ticket) {
            self.marks.push_back((ticket, self.bytes.len()));
        }
        &mut self.bytes
    }

    /// Appends to `out` the output that waited for tickets up to `stored`.
    pub(super) fn open(&mut self, stored: Ticket, out: &mut Vec<u8>) {
        // Marks are in the order of their tickets, so the opened ones are at the front.
        let opened = self.marks.iter().take_while(|(ticket, _)| *ticket <= stored).count();
        if opened == 0 {
            return;
        }
        self.marks.drain(..opened);
        // Everything behind an opened mark goes too, up to the next mark.
        let until = self.marks.front().map_or(self.bytes.len(), |(_, begins)| *begins);
        out.extend_from_slice(&self.bytes[..until]);
        self.bytes.drain(..until);
        for (_, begins) in &mut self.marks {
            *begins -= until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_let_out_in_its_order_and_no_earlier_than_its_ticket() {
        let (mut gate, mut out) = (Gate::default(), Vec::new());
        for (ticket, byte) in [(3, b'a'), (3, b'b'), (5, b'c'), (9, b'd')] {
            gate.before(Ticket(ticket)).push(byte);
        }
        gate.open(Ticket(2), &mut out);
        assert_eq!(out, b"");
        gate.open(Ticket(4), &mut out);
        assert_eq!((&out[..], gate.len()), (&b"ab"[..], 2));
        gate.before(Ticket(9)).push(b'e');
        gate.open(Ticket(5), &mut out);
        assert_eq!(out, b"abc");
        gate.open(Ticket(u64::MAX), &mut out);
        assert_eq!(out, b"abcde");
        assert!(gate.is_empty());
    }
}
