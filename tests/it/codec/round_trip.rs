//! What must hold for all packets, and for all bytes.

use hearthmq::mqtt::{
    DecodeLimits, Decoded, Packet, ProtocolVersion, decode, decode_connect, encode, encode_within,
    encoded_size, refusal_version,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::packets::packet;
use super::{VERSIONS, decode_whole};

fn any_version_and_packet() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    select(VERSIONS.to_vec()).prop_flat_map(|version| (Just(version), packet(version)))
}

fn encoded(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes).unwrap();
    bytes
}

/// Decodes any bytes, and checks what must hold for the result.
fn decode_anything(bytes: &[u8]) {
    let limits = DecodeLimits::default();
    let decoded = VERSIONS.map(|version| decode(bytes, version, &limits));
    for decoded in decoded.into_iter().chain([decode_connect(bytes, &limits)]).flatten() {
        match decoded {
            Decoded::Packet { length, .. } => assert!((2..=bytes.len()).contains(&length)),
            Decoded::More { at_least } => {
                assert!(at_least > bytes.len());
                assert!(at_least <= limits.packet_bytes_max as usize);
            }
        }
    }
    let _ = refusal_version(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_packet_comes_back_as_it_was_encoded((version, packet) in any_version_and_packet()) {
        let bytes = encoded(&packet, version);
        prop_assert_eq!(bytes.len(), encoded_size(&packet, version).unwrap());
        prop_assert_eq!(decode_whole(&bytes, version).unwrap(), packet);
    }

    #[test]
    fn the_bytes_that_follow_a_packet_are_left((version, packet) in any_version_and_packet()) {
        let mut bytes = encoded(&packet, version);
        let whole = bytes.len();
        bytes.extend_from_slice(b"\xFF\xFF\xFF");
        let decoded = decode(&bytes, version, &DecodeLimits::default()).unwrap();
        prop_assert_eq!(decoded, Decoded::Packet { packet, length: whole });
    }

    #[test]
    fn each_prefix_of_a_packet_asks_for_more((version, packet) in any_version_and_packet()) {
        let bytes = encoded(&packet, version);
        let limits = DecodeLimits::default();
        for length in 0..bytes.len() {
            match decode(&bytes[..length], version, &limits).unwrap() {
                Decoded::More { at_least } => {
                    prop_assert!(at_least > length && at_least <= bytes.len());
                    prop_assert!(length < 5 || at_least == bytes.len());
                }
                Decoded::Packet { packet, .. } => prop_assert!(false, "{packet:?}"),
            }
        }
    }

    #[test]
    fn a_first_connect_tells_its_version((version, packet) in any_version_and_packet()) {
        let bytes = encoded(&packet, version);
        match (decode_connect(&bytes, &DecodeLimits::default()), &packet) {
            (Ok(Decoded::Packet { packet: decoded, .. }), Packet::Connect(_)) => {
                prop_assert_eq!(decoded, packet);
                prop_assert_eq!(refusal_version(&bytes), Some(version));
            }
            (decoded, packet) => {
                prop_assert!(!matches!(packet, Packet::Connect(_)));
                prop_assert_eq!(decoded.unwrap_err().clause, "MQTT-3.1.0-1");
                prop_assert_eq!(refusal_version(&bytes), None);
            }
        }
    }

    #[test]
    fn random_bytes_decode_to_something(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        decode_anything(&bytes);
    }

    #[test]
    fn damaged_packets_decode_to_something(
        (version, packet) in any_version_and_packet(),
        damage in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        cut in any::<Index>(),
    ) {
        let mut bytes = encoded(&packet, version);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        decode_anything(&bytes);
        decode_anything(&bytes[..cut.index(bytes.len())]);
    }

    /// [MQTT-3.2.2-19] [MQTT-3.2.2-20] and their siblings.
    #[test]
    fn an_answer_is_shortened_to_the_size_allowed(
        (version, packet) in any_version_and_packet(),
        packet_bytes_max in 0..300_u32,
    ) {
        let mut bytes = Vec::new();
        if encode_within(&packet, version, packet_bytes_max, &mut bytes).unwrap() {
            prop_assert!(bytes.len() <= packet_bytes_max as usize);
            let decoded = decode_whole(&bytes, version).unwrap();
            let whole = encoded(&packet, version);
            if whole.len() <= packet_bytes_max as usize {
                prop_assert_eq!(decoded, packet);
            } else {
                prop_assert_eq!(std::mem::discriminant(&decoded), std::mem::discriminant(&packet));
                prop_assert!(bytes.len() < whole.len());
            }
        } else {
            prop_assert!(bytes.is_empty());
            prop_assert!(encoded(&packet, version).len() > packet_bytes_max as usize);
        }
    }
}

/// Topics of every length, because a Topic Name is scanned in chunks.
#[test]
fn a_wildcard_is_found_wherever_it_is() {
    let limits = DecodeLimits { topic_levels_max: 2, ..DecodeLimits::default() };
    for length in 1..300_u16 {
        let publish = |position: u16, byte: u8| {
            let mut topic = vec![b'x'; usize::from(length)];
            topic[usize::from(position)] = byte;
            topic[0] = if position == 0 { byte } else { b'/' };
            let remaining = length + 2;
            let [low, high] = [remaining as u8 | 0x80, (remaining >> 7) as u8];
            [&[0x30, low, high][..], &length.to_be_bytes(), &topic].concat()
        };
        for position in [0, length / 2, length - 1] {
            let is_valid =
                |byte| decode(&publish(position, byte), ProtocolVersion::V3_1_1, &limits).is_ok();
            assert!(is_valid(b'y'), "{length}");
            assert!(!is_valid(b'+') && !is_valid(b'#') && !is_valid(0), "{length}");
            assert_eq!(is_valid(b'/'), position == 0, "{length}");
        }
    }
}
