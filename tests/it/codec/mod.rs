//! The codec from outside: bytes in, packets out, and back.
//!
//! `known_bytes` has packets as printed in the specifications, `errors*` each rule broken once,
//! `round_trip` what must hold for all packets and all bytes, `publish` the path of messages to
//! subscribers, `topics` names and filters.

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

/// Returns the packet that all of `bytes` make up.
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
