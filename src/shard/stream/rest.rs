//! The bytes that a client sent before it closed its connection, while the connection was held.
//!
//! It is read to its end and dropped: a rate or a full queue held it back, and its client does not wait
//! any more. Only a DISCONNECT at its end counts, because it decides about the Will and the session.

/// Maximum bytes of a DISCONNECT that is looked at; a longer one counts as none.
const DISCONNECT_BYTES_MAX: usize = 4 * 1024;
/// The first byte of a DISCONNECT.
const DISCONNECT: u8 = 0xE0;
/// Maximum bytes of a fixed header.
const HEADER_BYTES_MAX: usize = 5;

/// Where the reading of the rest is.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// The header of the packet that is read, and the body of a DISCONNECT.
    kept: Vec<u8>,
    /// Bytes of the packet that are still to be dropped.
    to_drop: usize,
    /// Whether the bytes are invalid packets.
    is_lost: bool,
}

impl Rest {
    /// Takes further bytes; returns a DISCONNECT in them.
    pub(super) fn find_disconnect(&mut self, mut bytes: &[u8]) -> Option<Vec<u8>> {
        while !self.is_lost && !bytes.is_empty() {
            // A payload is skipped unseen: bytes in it may look like a DISCONNECT.
            let dropped = self.to_drop.min(bytes.len());
            self.to_drop -= dropped;
            bytes = &bytes[dropped..];
            let Some((first, behind)) = bytes.split_first() else { break };
            // One byte at a time, because a read may end within a header.
            self.kept.push(*first);
            bytes = behind;
            let Some(length) = length_of(&self.kept) else {
                // A length has at most four bytes; behind a longer one the next packet cannot be found.
                self.is_lost = self.kept.len() >= HEADER_BYTES_MAX;
                continue;
            };
            // Only headers and a short DISCONNECT are kept, so the memory is bounded.
            if self.kept[0] != DISCONNECT || length > DISCONNECT_BYTES_MAX {
                self.to_drop = length - self.kept.len();
                self.kept.clear();
            } else if length == self.kept.len() {
                return Some(std::mem::take(&mut self.kept));
            }
        }
        None
    }
}

/// Returns the length of the packet that begins so, once the header is complete (section 2.1.4).
fn length_of(beginning: &[u8]) -> Option<usize> {
    let digits = &beginning[1..];
    let last = digits.iter().take(4).position(|digit| digit & 0x80 == 0)?;
    let digits = digits[..=last].iter().rev();
    let value = digits.fold(0, |value, digit| value << 7 | usize::from(digit & 0x7F));
    Some(2 + last + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PUBLISH of 200 bytes that contains the bytes of a DISCONNECT, then PINGREQ and DISCONNECT.
    fn sent() -> Vec<u8> {
        let mut bytes = vec![0x30, 0xC5, 0x01];
        bytes.extend([0xE0, 0x00].repeat(98));
        bytes.push(0xE0);
        bytes.extend([0xC0, 0x00, 0xE0, 0x01, 0x04]);
        bytes
    }

    #[test]
    fn a_disconnect_is_found_behind_other_packets_however_they_arrive() {
        let bytes = sent();
        for size in 1..bytes.len() {
            let mut rest = Rest::default();
            let mut found = bytes.chunks(size).filter_map(|part| rest.find_disconnect(part));
            assert_eq!(found.next().as_deref(), Some(&[0xE0, 0x01, 0x04][..]), "{size}");
        }
    }

    #[test]
    fn what_is_cut_off_or_no_packet_has_none() {
        let bytes = sent();
        assert_eq!(Rest::default().find_disconnect(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Rest::default().find_disconnect(&[0xE0; 100]), None);
        let mut long = vec![0xE0, 0xFF, 0xFF, 0x03];
        long.resize(65_535 + 4, 0);
        let mut rest = Rest::default();
        assert_eq!(rest.find_disconnect(&long), None);
        assert_eq!(rest.find_disconnect(&[0xE0, 0x00]).as_deref(), Some(&[0xE0, 0x00][..]));
    }
}
