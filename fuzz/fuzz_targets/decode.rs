//! Decodes any bytes, as each version and within limits: the decoder never panics, never claims
//! more bytes than it was given, and every packet that it returns encodes to bytes that decode to
//! the same.
//!
//! `cargo +nightly fuzz run decode -- -max_total_time=60`

#![no_main]

use hearthmq::mqtt::{
    DecodeLimits, Decoded, Packet, ProtocolVersion, PublishProperties, decode, decode_connect,
    encode, encode_within, encoded_size, refusal_version, validate_filter, validate_topic,
};
use libfuzzer_sys::fuzz_target;

const NARROW: DecodeLimits = DecodeLimits {
    packet_bytes_max: 64,
    topic_bytes_max: 16,
    topic_levels_max: 4,
};

fuzz_target!(|bytes: &[u8]| {
    let wide = DecodeLimits::default();
    for version in [
        ProtocolVersion::V3_1,
        ProtocolVersion::V3_1_1,
        ProtocolVersion::V5,
    ] {
        for limits in [&wide, &NARROW] {
            match decode(bytes, version, limits) {
                Ok(Decoded::Packet { packet, length }) => {
                    assert!((2..=bytes.len()).contains(&length));
                    assert!(length <= limits.packet_bytes_max as usize);
                    check_packet(&packet, version, length);
                    check_prefixes(&bytes[..length], version, limits);
                }
                Ok(Decoded::More { at_least }) => {
                    assert!(at_least > bytes.len());
                    assert!(at_least <= limits.packet_bytes_max as usize);
                }
                Err(error) => assert!(error.reason().is_failure() && !error.clause.is_empty()),
            }
        }
    }
    if let Ok(Decoded::Packet { packet, .. }) = decode_connect(bytes, &wide) {
        let Packet::Connect(connect) = packet else {
            panic!("{packet:?} for a CONNECT")
        };
        assert_eq!(refusal_version(bytes), Some(connect.version));
    }
    check_forwarded(bytes);
});

/// Checks that encoding gives the packet back, in no more bytes than it came in.
fn check_packet(packet: &Packet<'_>, version: ProtocolVersion, length: usize) {
    let mut encoded = Vec::new();
    encode(packet, version, &mut encoded).expect("what was decoded can be encoded");
    assert!(
        encoded.len() <= length,
        "{packet:?} grew from {length} to {}",
        encoded.len()
    );
    assert_eq!(encoded_size(packet, version), Ok(encoded.len()));
    let decoded = decode(&encoded, version, &DecodeLimits::default());
    let length = encoded.len();
    assert_eq!(
        decoded,
        Ok(Decoded::Packet {
            packet: packet.clone(),
            length
        })
    );

    let mut within = Vec::new();
    if encode_within(packet, version, 32, &mut within).expect("as before") {
        assert!(within.len() <= 32);
        let decoded = decode(&within, version, &DecodeLimits::default());
        assert!(matches!(decoded, Ok(Decoded::Packet { length, .. }) if length == within.len()));
    }
    if let Packet::Publish(publish) = packet {
        assert!(publish.topic.is_empty() || validate_topic(publish.topic).is_ok());
    }
    if let Packet::Subscribe(subscribe) = packet {
        for filter in &subscribe.filters {
            let _ = validate_filter(filter.filter);
        }
    }
}

/// Checks that each prefix of a packet asks for more bytes.
fn check_prefixes(packet: &[u8], version: ProtocolVersion, limits: &DecodeLimits) {
    for length in (0..packet.len()).take(64) {
        match decode(&packet[..length], version, limits) {
            Ok(Decoded::More { at_least }) => {
                assert!((length + 1..=packet.len()).contains(&at_least));
            }
            other => panic!("{other:?} for {length} bytes of {packet:02x?}"),
        }
    }
}

/// Checks that the stored properties of a message, even damaged ones, are decoded without a panic.
fn check_forwarded(bytes: &[u8]) {
    let properties = PublishProperties::decode_forwarded(bytes);
    let mut encoded = Vec::new();
    properties.encode_forwarded(&mut encoded);
    let again = PublishProperties::decode_forwarded(&encoded);
    assert_eq!(again.content_type, properties.content_type);
    assert_eq!(again.user_properties, properties.user_properties);
}
