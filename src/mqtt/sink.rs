//! The target of encoded bytes: a buffer, or a counter.
//!
//! Knows the data representation of section 1.5 but no packets.

use super::{
    EncodeError,
    wire::{VARIABLE_BYTE_INTEGER_MAX, VariableByteInteger, identifier},
};

/// Takes values and writes them in the data representation of section 1.5.
pub(super) trait Sink {
    /// Writes raw bytes.
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    fn variable_byte_integer(&mut self, value: usize) -> Result<(), EncodeError> {
        if value > VARIABLE_BYTE_INTEGER_MAX as usize {
            return Err(EncodeError::IntegerTooLarge);
        }
        let (bytes, length) = VariableByteInteger::encode(value);
        self.put(&bytes[..length]);
        Ok(())
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let length = u16::try_from(bytes.len()).map_err(|_| EncodeError::StringTooLong)?;
        self.u16(length);
        self.put(bytes);
        Ok(())
    }

    fn string(&mut self, string: &str) -> Result<(), EncodeError> {
        if string.as_bytes().contains(&0) {
            return Err(EncodeError::NullCharacter); // [MQTT-1.5.4-2]
        }
        self.binary(string.as_bytes())
    }

    fn user_property(&mut self, name: &str, value: &str) -> Result<(), EncodeError> {
        self.u8(identifier::USER_PROPERTY);
        self.string(name)?;
        self.string(value)
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts bytes without storing them.
#[derive(Default)]
pub(super) struct ByteCount {
    bytes: usize,
}

impl ByteCount {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Sink for ByteCount {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
    }
}
