//! The codec from outside: bytes in, packets out, and back.
//!
//! `known_bytes` has packets as the specifications draw them, `errors*` each rule broken once,
//! `round_trip` what must hold of any packet and of any bytes, `publish` the way of messages to
//! subscribers, `topics` names and filters.

#![expect(clippy::unwrap_used, reason = "a test fails where it must not be otherwise")]

mod errors;
mod errors_of_packets;
mod known_bytes;
mod packets;
mod publish;
mod round_trip;
mod topics;

use hearthmq::mqtt::{
    DecodeError, DecodeLimits, Decoded, Packet, PacketId, ProtocolVersion, decode,
};

const VERSIONS: [ProtocolVersion; 3] =
    [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5];

fn packet_id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

/// The packet that `bytes` are from the first to the last.
#[track_caller]
fn decode_whole(bytes: &[u8], version: ProtocolVersion) -> Result<Packet<'_>, DecodeError> {
    match decode(bytes, version, &DecodeLimits::default())? {
        Decoded::Packet { packet, length } => {
            assert_eq!(length, bytes.len(), "length of {packet:?}");
            Ok(packet)
        }
        Decoded::More { at_least } => panic!("{at_least} bytes wanted of {bytes:02x?}"),
    }
}
