//! The elements of records: variable-length numbers, texts, flags.
//!
//! Reading is total: any bytes give a value or `None`. Knows no record.

use crate::mqtt::{PacketId, QoS, Timestamp};

/// Builds a record.
#[derive(Default)]
pub(super) struct RecordWriter {
    bytes: Vec<u8>,
}

impl RecordWriter {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Appends a number: seven bits in each byte, lowest first; the highest bit marks all bytes but
    /// the last.
    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.bytes.push(number.to_le_bytes()[0]);
    }

    pub(super) fn time(&mut self, time: Timestamp) {
        self.number(time.0);
    }

    pub(super) fn packet_id(&mut self, packet_id: PacketId) {
        self.bytes.extend_from_slice(&packet_id.number().to_be_bytes());
    }

    /// Appends bytes, with their length before them.
    pub(super) fn binary(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends bytes without a length, as the last field of a record.
    pub(super) fn rest(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// Reads a record field by field.
pub(super) struct RecordReader<'a> {
    rest: &'a [u8],
}

impl<'a> RecordReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            let shifted = bits << shift;
            // Bits that do not fit would be lost, and two encodings would mean one number.
            if shifted >> shift != bits {
                return None; // more than 64 bits
            }
            number |= shifted;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn number_u32(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    pub(super) fn length(&mut self) -> Option<usize> {
        self.number()?.try_into().ok()
    }

    pub(super) fn time(&mut self) -> Option<Timestamp> {
        self.number().map(Timestamp)
    }

    pub(super) fn packet_id(&mut self) -> Option<PacketId> {
        let (number, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        PacketId::new(u16::from_be_bytes(*number))
    }

    pub(super) fn binary(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.binary()?).ok()
    }

    /// Returns all remaining bytes.
    pub(super) const fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// Returns `value` if no bytes remain.
    pub(super) fn end<T>(self, value: T) -> Option<T> {
        self.rest.is_empty().then_some(value)
    }
}

/// The bits of one byte. Undefined bits must not be set.
#[derive(Clone, Copy)]
pub(super) struct Flags(pub(super) u8);

impl Flags {
    const QOS: u8 = 0b11;

    pub(super) const fn of_qos(qos: QoS) -> Self {
        Self(qos.number())
    }

    pub(super) const fn with(self, bit: u8, is_set: bool) -> Self {
        if is_set { Self(self.0 | bit) } else { self }
    }

    pub(super) const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Returns the flags if no others than `bits` are set.
    pub(super) const fn known(self, bits: u8) -> Option<Self> {
        if self.0 & !bits == 0 { Some(self) } else { None }
    }

    pub(super) const fn qos(self) -> Option<QoS> {
        QoS::from_number(self.0 & Self::QOS)
    }
}
