//! Rules of single packets other than PUBLISH and CONNECT, each broken once.

use hearthmq::mqtt::{DecodeErrorKind as Kind, ProtocolVersion};

use super::decode_whole;
use super::errors::{
    TRAILING_BYTES, TRUNCATED, breaks, not_allowed, out_of_range, packet, reason, twice,
};
use ProtocolVersion::{V3_1, V3_1_1, V5};

#[test]
fn connack_packets() {
    for version in [V3_1_1, V5] {
        breaks(version, &packet(0x20, b"\x02\0\0"), (Kind::ConnAckFlags, "MQTT-3.2.2-1"));
    }
    breaks(V3_1_1, &packet(0x20, b"\x01\x05"), (Kind::ConnAckFlags, "MQTT-3.2.2-6"));
    breaks(V3_1_1, &packet(0x20, b"\0\x06"), reason(6, "3.1.1 section 3.2.2.3"));
    breaks(V5, &packet(0x20, b"\0\x8E\0"), reason(0x8E, "MQTT-3.2.2-8"));
    breaks(V5, &packet(0x20, b"\0\0\x02\x24\x02"), out_of_range(0x24, "section 3.2.2.3"));
    breaks(V5, &packet(0x20, b"\0\0\x02\x25\x02"), out_of_range(0x25, "section 3.2.2.3"));
    breaks(V5, &packet(0x20, b"\0\0\x02\x17\x01"), not_allowed(0x17));
}

#[test]
fn acknowledgements() {
    for (first, clause) in [(0x40, "MQTT-3.4.2-1"), (0x50, "MQTT-3.5.2-1")] {
        breaks(V5, &packet(first, b"\0\x01\x92"), reason(0x92, clause));
        breaks(V5, &packet(first, b"\0\x01\x03"), reason(0x03, clause));
    }
    for (first, clause) in [(0x62, "MQTT-3.6.2-1"), (0x70, "MQTT-3.7.2-1")] {
        breaks(V5, &packet(first, b"\0\x01\x10"), reason(0x10, clause));
    }
    breaks(V3_1_1, &packet(0x40, b"\0\x01\0"), TRAILING_BYTES);
    breaks(V5, &packet(0x40, b"\0\x01\0\0\0"), TRAILING_BYTES);
    breaks(V5, &packet(0x40, b"\0\x01\0\x03\x11\0\0"), not_allowed(0x11));
    let twice_a_reason = b"\0\x01\0\x06\x1F\0\0\x1F\0\0";
    breaks(V5, &packet(0x40, twice_a_reason), twice(0x1F, "section 3.4.2.2"));
}

#[test]
fn subscribe_packets() {
    breaks(V3_1_1, &packet(0x82, b"\0\x01"), (Kind::EmptyPayload, "MQTT-3.8.3-2"));
    breaks(V5, &packet(0x82, b"\0\x01\0"), (Kind::EmptyPayload, "MQTT-3.8.3-2"));
    let v3 = |options| packet(0x82, &[0, 1, 0, 1, b'a', options]);
    breaks(V3_1_1, &v3(0b0000_0100), (Kind::SubscriptionOptions, "MQTT-3.8.3-5"));
    assert!(decode_whole(&v3(0b1111_0001), V3_1).is_ok());
    breaks(V3_1, &v3(3), (Kind::InvalidMaximumQoS, "section 3.8.3.1"));
    let v5 = |options| packet(0x82, &[0, 1, 0, 0, 1, b'a', options]);
    breaks(V5, &v5(0b0100_0000), (Kind::SubscriptionOptions, "MQTT-3.8.3-5"));
    breaks(V5, &v5(0b0011_0000), (Kind::RetainHandling, "section 3.8.3.1"));
    breaks(V5, &v5(3), (Kind::InvalidMaximumQoS, "section 3.8.3.1"));
    let shared = packet(0x82, b"\0\x01\0\0\x0A$share/g/a\x04");
    breaks(V5, &shared, (Kind::NoLocalOnSharedSubscription, "MQTT-3.8.3-4"));
    let identifiers = packet(0x82, b"\0\x01\x04\x0B\x01\x0B\x01\0\x01a\0");
    breaks(V5, &identifiers, twice(0x0B, "section 3.8.2.1"));
    // The codec does not check the form of a filter.
    assert!(decode_whole(&packet(0x82, b"\0\x01\0\x04a/#b\0"), V3_1_1).is_ok());
}

#[test]
fn suback_unsubscribe_and_unsuback_packets() {
    breaks(V5, &packet(0x90, b"\0\x01\0"), (Kind::EmptyPayload, "MQTT-3.9.3-2"));
    breaks(V5, &packet(0x90, b"\0\x01\0\x11"), reason(0x11, "MQTT-3.9.3-2"));
    breaks(V3_1_1, &packet(0x90, b"\0\x01\x87"), reason(0x87, "MQTT-3.9.3-2"));
    breaks(V3_1_1, &packet(0xA2, b"\0\x01"), (Kind::EmptyPayload, "MQTT-3.10.3-2"));
    breaks(V5, &packet(0xA2, b"\0\x01\x02\x0B\x01\0\x01a"), not_allowed(0x0B));
    breaks(V5, &packet(0xB0, b"\0\x01\0"), (Kind::EmptyPayload, "MQTT-3.11.3-2"));
    breaks(V5, &packet(0xB0, b"\0\x01\0\x01"), reason(0x01, "MQTT-3.11.3-2"));
    breaks(V3_1_1, &packet(0xB0, b"\0\x01\0"), TRAILING_BYTES);
}

#[test]
fn disconnect_and_auth_packets() {
    breaks(V3_1_1, &packet(0xE0, b"\0"), TRAILING_BYTES);
    breaks(V5, &packet(0xE0, b"\x01"), reason(0x01, "MQTT-3.14.2-1"));
    breaks(V5, &packet(0xE0, b"\0\x02\x17\x01"), not_allowed(0x17));
    breaks(V5, &packet(0xF0, b"\x80"), reason(0x80, "MQTT-3.15.2-1"));
    breaks(V5, &packet(0xF0, b"\x18"), TRUNCATED);
    let kind = Kind::AuthenticationMethodMissing;
    breaks(V5, &packet(0xF0, b"\x18\0"), (kind, "section 3.15.2.2.2"));
}
