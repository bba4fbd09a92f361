//! Cases of a session: a PUBLISH from its client with its acknowledgement, a delivery with the
//! client's acknowledgement, and a delivery that waits in the queue first.
//!
//! Each step leaves the session unchanged. The output is taken as a connection takes it, with a
//! buffer that is lent and given back. Every message is new, so that a session that stores one
//! makes its copy.

use std::hint::black_box;

use hearthmq::{
    internals::session::{
        Delivered, Delivery, KeepAlive, Link, LinkSettings, QueueLimits, QueueUsage, Request,
        Session, SharedPublication, WhenFull,
    },
    mqtt::{
        Ack, Packet, PacketId, ProtocolVersion, Publication, Publish, PublishFlags,
        PublishProperties, QoS, ReasonCode, Timestamp,
    },
};

use crate::measure::Measure;

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V3_1_1, ProtocolVersion::V5];
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const TOPIC: &str = "fleet/4711/vehicle/0815/telemetry1";
const PAYLOAD: [u8; 64] = [b'x'; 64];
const NOW: Timestamp = Timestamp(1_700_000_000_000);
const IN_FLIGHT_MAX: u16 = 256;

/// Adds `publish/…`, `deliver/…` and `queue and pump/…`.
pub(crate) fn cases(measure: &mut impl Measure) {
    for version in VERSIONS {
        for qos in QOS {
            let name = format!("QoS {}/{version:?}", qos.number());
            measure.case(&format!("publish/{name}"), || {
                let mut dialogue = Dialogue::new(version, IN_FLIGHT_MAX);
                move || dialogue.publish(qos)
            });
            measure.case(&format!("deliver/{name}"), || {
                let mut dialogue = Dialogue::new(version, IN_FLIGHT_MAX);
                move || {
                    assert_eq!(dialogue.deliver(qos), Delivered::Sent);
                    dialogue.acknowledge(qos);
                }
            });
        }
        measure.case(&format!("queue and pump/QoS 1/{version:?}"), || {
            let mut dialogue = Dialogue::new(version, 1);
            assert_eq!(dialogue.deliver(QoS::AtLeastOnce), Delivered::Sent);
            move || {
                let delivered = dialogue.deliver(QoS::AtLeastOnce);
                assert_eq!(delivered, Delivered::Queued { displaced: 0 });
                // The client acknowledges the previous message, which makes room for this one.
                dialogue.acknowledge(QoS::AtLeastOnce);
                dialogue.session.pump(NOW);
            }
        });
    }
}

/// A session and its client.
struct Dialogue {
    session: Session,
}

impl Dialogue {
    fn new(version: ProtocolVersion, send_quota: u16) -> Self {
        let limits = QueueLimits {
            messages_max: 10_000,
            bytes_max: 1 << 24,
            messages_in_all_max: 10_000_000,
            bytes_in_all_max: 1 << 30,
            when_full: WhenFull::DropOldest,
        };
        let settings = LinkSettings {
            version,
            is_bridge: false,
            asked_keep_alive_secs: 60,
            keep_alive_secs: 60,
            send_quota,
            receive_maximum: 1000,
            maximum_packet_size: u32::MAX,
            topic_aliases_in_max: 0,
            topic_aliases_out_max: 0,
            problem_information: true,
            may_extend_expiry: true,
        };
        let mut session = Session::new("vehicle-0815".into(), QueueUsage::new(limits).into());
        session.attach(Link::new(settings, KeepAlive::new(60, NOW)), NOW);
        Self { session }
    }

    /// The client publishes.
    fn publish(&mut self, qos: QoS) {
        let packet_id = (qos != QoS::AtMostOnce).then_some(packet_id(7));
        let packet = Packet::Publish(Publish {
            flags: PublishFlags { qos, ..PublishFlags::default() },
            topic: TOPIC,
            packet_id,
            properties: PublishProperties::default(),
            payload: &PAYLOAD,
        });
        let request = self.session.handle(black_box(packet), NOW);
        assert!(matches!(black_box(&request), Ok(Some(Request::Publish { .. }))));
        drop(request);
        self.session.publish_done(qos, packet_id, ReasonCode::Success, None);
        // The second half of QoS 2, so that the Packet Identifier is free for the next step.
        if qos == QoS::ExactlyOnce {
            self.take_output();
            self.handle(Packet::PubRel(Ack::success(self::packet_id(7))));
        }
        self.take_output();
    }

    /// The broker delivers.
    fn deliver(&mut self, qos: QoS) -> Delivered {
        let mut message = SharedPublication::new(Publication {
            topic: black_box(TOPIC),
            payload: black_box(&PAYLOAD),
            qos,
            retain: false,
            properties: &[],
            expires_at: None,
        });
        let delivery = Delivery { qos, retain: false, identifiers: None, share: None };
        self.session.deliver(delivery, &mut message, NOW)
    }

    /// The client takes the message that was sent, and acknowledges it.
    fn acknowledge(&mut self, qos: QoS) {
        let packet_id = self.take_output();
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.handle(Packet::PubAck(Ack::success(packet_id))),
            QoS::ExactlyOnce => {
                self.handle(Packet::PubRec(Ack::success(packet_id)));
                self.take_output();
                self.handle(Packet::PubComp(Ack::success(packet_id)));
            }
        }
    }

    fn handle(&mut self, packet: Packet<'static>) {
        let outcome = self.session.handle(black_box(packet), NOW);
        assert!(matches!(outcome, Ok(None)), "the client keeps the rules");
    }

    /// Takes the output; returns the Packet Identifier if it begins with a PUBLISH that has one.
    fn take_output(&mut self) -> PacketId {
        let link = self.session.link_mut().expect("it stays connected");
        let bytes = link.output().next().unwrap_or_default();
        // After two bytes of fixed header and the Topic Name; the packets are short enough.
        let id = bytes.get(TOPIC.len() + 4..).and_then(<[u8]>::first_chunk);
        let id = id.map_or(0, |id| u16::from_be_bytes(*id));
        let written = bytes.len();
        link.note_written(written);
        let mut buffer = black_box(link.take_written());
        buffer.clear();
        *link.out_mut() = buffer;
        PacketId::new(id).unwrap_or(packet_id(1))
    }
}

const fn packet_id(number: u16) -> PacketId {
    PacketId::new(number).expect("it is not zero")
}
