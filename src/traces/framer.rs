//! Finds the packets in a stream of bytes that is read or written by others.
//!
//! Knows neither what is in a packet nor where the bytes come from. Used by the log of packets and by
//! traces.

/// Maximum bytes of a packet that are kept until it is complete: enough for its topic. The record of a
/// longer packet has less.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Finds packet boundaries in a stream of bytes.
#[derive(Default)]
pub(crate) struct Framer {
    /// The beginning of the current packet.
    head: Vec<u8>,
    /// The length of the current packet, once it is known.
    length: Option<usize>,
    /// Bytes of the current packet received so far.
    seen: usize,
    /// Nothing more is added to the beginning.
    is_cut: bool,
    /// The bytes are not MQTT packets; the rest of the stream is ignored.
    is_lost: bool,
}

impl Framer {
    /// Takes the next bytes and calls `tell` with the beginning and the length of each packet that
    /// is now complete.
    pub(crate) fn take(&mut self, mut bytes: &[u8], mut tell: impl FnMut(&[u8], usize)) {
        while let Some((&first, rest)) = bytes.split_first()
            && !self.is_lost
        {
            let Some(length) = self.length else {
                // Byte by byte, because the length field may be divided between two reads.
                (self.seen, bytes) = (self.seen + 1, rest);
                self.head.push(first);
                self.find_length();
                self.tell_if_whole(&mut tell);
                continue;
            };
            let (part, rest) = bytes.split_at(bytes.len().min(length - self.seen));
            // A packet that is recorded without content needs only its header.
            let max = if self.is_cut { 0 } else { HEAD_BYTES_MAX };
            let kept = part.len().min(max.saturating_sub(self.head.len()));
            self.head.extend_from_slice(&part[..kept]);
            self.seen += part.len();
            bytes = rest;
            self.tell_if_whole(&mut tell);
        }
    }

    /// Looks for the Remaining Length: one to four bytes after the first one (section 2.1.4).
    fn find_length(&mut self) {
        let digits = &self.head[1..];
        if digits.last().is_some_and(|digit| digit & 0x80 == 0) {
            let value =
                digits.iter().rev().fold(0, |value, digit| value << 7 | usize::from(digit & 0x7F));
            self.length = Some(self.head.len() + value);
        } else if digits.len() >= 4 {
            self.is_lost = true;
        }
    }

    fn tell_if_whole(&mut self, tell: &mut impl FnMut(&[u8], usize)) {
        if let Some(length) = self.length.filter(|length| *length == self.seen) {
            tell(&self.head, length);
            *self = Self::default();
        }
    }

    /// Returns the number of bytes that are kept of an incomplete packet.
    pub(super) const fn kept(&self) -> usize {
        self.head.capacity()
    }

    /// Keeps only the type of an incomplete packet, for want of memory.
    pub(super) fn cut(&mut self) {
        if self.length.is_some() {
            (self.head, self.is_cut) = (self.head.first().copied().into_iter().collect(), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what a framer finds when `bytes` arrive in pieces of `piece` bytes.
    fn found(bytes: &[u8], piece: usize) -> Vec<(Vec<u8>, usize)> {
        let (mut framer, mut found) = (Framer::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            framer.take(piece, |head, length| found.push((head.to_vec(), length)));
        }
        assert!(framer.head.len() <= HEAD_BYTES_MAX);
        found
    }

    #[test]
    fn packets_are_found_however_their_bytes_come() {
        let large_body = vec![b'x'; 20_000];
        let large = [&[0x30, 0xA0, 0x9C, 0x01][..], &large_body].concat();
        let stream = [&[0xC0, 0][..], &[0x40, 2, 0, 7], &large, &[0xE0, 0]].concat();
        let mut head = large;
        head.truncate(HEAD_BYTES_MAX);
        let expected =
            [(vec![0xC0, 0], 2), (vec![0x40, 2, 0, 7], 4), (head, 20_004), (vec![0xE0, 0], 2)];
        for piece in [1, 2, 3, 5, 1000, 30_000] {
            assert_eq!(found(&stream, piece), expected, "{piece}");
        }
    }

    #[test]
    fn of_a_packet_that_is_cut_its_type_and_length_are_told() {
        let (mut framer, mut found) = (Framer::default(), Vec::new());
        for piece in [&[0x30, 10, b'a', b'b'][..], &[b'c'; 8], &[0xC0, 0]] {
            framer.take(piece, |head, length| found.push((head.to_vec(), length)));
            framer.cut();
        }
        assert_eq!(found, [(vec![0x30], 12), (vec![0xC0, 0], 2)]);
        assert_eq!(framer.kept(), 0);
    }

    #[test]
    fn what_is_no_packet_is_followed_no_further() {
        assert_eq!(found(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0xC0, 0, 0xC0, 0], 1), []);
    }
}
