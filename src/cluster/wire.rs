//! The encoding of all values that nodes send to each other and write to NATS: a version, a kind, then the fields.
//!
//! Decoding is total: any bytes are a value or a [`WireError`], and memory is taken only for bytes that
//! are there. Knows no protocol; each type names its kind where it is defined.
//!
//! A node reads the version before its own as well. A kind whose fields change gets a new version, and
//! an arm in [`decode`]; a new kind, or a new variant at the end of an enum, does not. A node that does
//! not know a variant refuses the value, so nodes use it only when all nodes know it.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

/// The version that this node writes.
pub const VERSION: u8 = 1;

/// A value that has an encoding.
pub trait Wire: Serialize + DeserializeOwned {
    /// Tells the kinds of values apart. A number is never used again for another kind.
    const KIND: u8;
}

/// Why bytes are not a valid value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A node of a later version wrote them.
    #[error("read version {0}, which is later than this node")]
    Version(u8),
    /// They are a value of another kind.
    #[error("read kind {found} in place of {expected}")]
    Kind {
        /// The kind that the reader wanted.
        expected: u8,
        /// The kind that is there.
        found: u8,
    },
    /// They are cut off, too long, or not what the kind has.
    #[error("read a damaged value of kind {0}")]
    Damaged(u8),
    /// An item in pieces is larger than any that is allowed.
    #[error("read an item in pieces that is too large")]
    TooLarge,
}

/// Returns the bytes of a value.
pub fn encode<T: Wire>(value: &T) -> Bytes {
    let begun = vec![VERSION, T::KIND];
    // Serializing into a vector fails only for types without a length, which no kind has.
    postcard::to_extend(value, begun).map(Bytes::from).unwrap_or_default()
}

/// Returns the kind of the value that the bytes are said to be.
pub(super) fn kind(bytes: &[u8]) -> Option<u8> {
    bytes.get(1).copied()
}

/// Decodes a value from all of these bytes.
///
/// # Errors
/// Any [`WireError`].
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, WireError> {
    let damaged = WireError::Damaged(T::KIND);
    let [version, kind, fields @ ..] = bytes else {
        return Err(damaged);
    };
    // The version comes first, because it decides how the rest is read.
    match *version {
        VERSION => {}
        0 => return Err(damaged),
        later => return Err(WireError::Version(later)),
    }
    if *kind != T::KIND {
        return Err(WireError::Kind { expected: T::KIND, found: *kind });
    }
    match postcard::take_from_bytes(fields) {
        // Bytes behind the value would be fields of a version that this node does not know.
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(damaged),
    }
}

/// Encodes [`Bytes`] as one run of bytes: for `#[serde(with = "…")]`.
pub mod octets {
    use super::{Bytes, Deserialize, Deserializer, Serializer};

    /// Writes the bytes.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        <&[u8]>::deserialize(from).map(Bytes::copy_from_slice)
    }
}

/// Encodes a QoS as its number: for `#[serde(with = "…")]`.
pub mod qos_number {
    use serde::de::Error;

    use super::{Deserialize, Deserializer, Serializer};
    use crate::mqtt::QoS;

    /// Writes the number.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(qos: &QoS, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(qos.number())
    }

    /// Reads the number.
    ///
    /// # Errors
    /// The deserializer's, or for a number that is not a QoS.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<QoS, D::Error> {
        let number = u8::deserialize(from)?;
        QoS::from_number(number).ok_or_else(|| D::Error::custom("expected a QoS"))
    }
}

#[cfg(test)]
mod tests;
