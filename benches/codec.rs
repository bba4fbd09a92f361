//! How long does one PUBLISH take to decode, and to encode for one subscriber?
//!
//! `cargo bench --bench codec`. The topic has 34 bytes; nothing here knows a socket.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hearthmq::mqtt::{
    DecodeLimits, PacketId, ProtocolVersion, Publication, PublishAs, PublishFlags, QoS, decode,
    encode_publish,
};

const TOPIC: &str = "fleet/4711/vehicle/0815/telemetry1";
const PAYLOAD_BYTES: [usize; 2] = [64, 1024];
const QOS: [QoS; 2] = [QoS::AtMostOnce, QoS::AtLeastOnce];
const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V3_1_1, ProtocolVersion::V5];

fn publication(payload: &[u8]) -> Publication<'_> {
    Publication {
        topic: TOPIC,
        payload,
        qos: QoS::AtMostOnce,
        retain: false,
        properties: &[],
        expires_at: None,
    }
}

fn publish_as(qos: QoS) -> PublishAs<'static> {
    PublishAs {
        flags: PublishFlags { qos, ..PublishFlags::default() },
        packet_id: if qos == QoS::AtMostOnce { None } else { PacketId::new(7) },
        ..PublishAs::default()
    }
}

/// Calls `measure` for each packet, with a name for it.
fn for_each_packet(mut measure: impl FnMut(String, ProtocolVersion, QoS, &[u8])) {
    for version in VERSIONS {
        for qos in QOS {
            for payload_bytes in PAYLOAD_BYTES {
                let name = format!("{version:?}/QoS {}/{payload_bytes} B", qos.number());
                measure(name, version, qos, &vec![b'x'; payload_bytes]);
            }
        }
    }
}

fn decode_publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode_publish");
    group.throughput(Throughput::Elements(1));
    let limits = DecodeLimits::default();
    for_each_packet(|name, version, qos, payload| {
        let mut bytes = Vec::new();
        encode_publish(&mut bytes, version, &publication(payload), &publish_as(qos));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let decoded = decode(black_box(&bytes), black_box(version), &limits);
                black_box(&decoded).is_ok()
            });
        });
    });
}

fn encode_delivery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_publish");
    group.throughput(Throughput::Elements(1));
    for_each_packet(|name, version, qos, payload| {
        let (publication, how) = (publication(payload), publish_as(qos));
        let mut out = Vec::with_capacity(2048);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                encode_publish(
                    black_box(&mut out),
                    black_box(version),
                    black_box(&publication),
                    black_box(&how),
                );
            });
        });
    });
}

criterion_group!(benches, decode_publish, encode_delivery);
criterion_main!(benches);
