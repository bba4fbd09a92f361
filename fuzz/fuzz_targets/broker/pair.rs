//! Two well-behaved clients, one of which publishes what the other subscribes to. They must not
//! notice other clients.

use hearthmq::{
    Broker,
    mqtt::{
        Ack, Connect, ConnectProperties, Disconnect, DisconnectProperties, LastWill, Packet,
        PacketId, ProtocolVersion, Publish, PublishFlags, PublishProperties, QoS, ReasonCode,
        Subscribe, SubscribeFilter, SubscribeProperties, SubscriptionOptions, WillProperties,
        encode,
    },
};

use crate::{GOOD_PEER, line::Line, moment};

/// Maximum virtual milliseconds for an answer, whatever others do.
const ANSWER_MILLIS_MAX: usize = 50;
const PIPE_BYTES: usize = 64 * 1024;
const KEEP_ALIVE_SECS: u16 = 60;

pub(crate) struct Pair {
    number: usize,
    publisher: Good,
    subscriber: Good,
    messages: u32,
}

/// A client that follows all rules.
struct Good {
    line: Line,
    name: String,
}

/// The meaning of a packet for a well-behaved client.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    ConnAck,
    SubAck,
    PubAck,
    PubComp,
    PingResp,
    Message {
        topic: String,
        payload: Vec<u8>,
        qos: QoS,
        retain: bool,
    },
    /// A packet that has been answered.
    Step,
}

impl Pair {
    pub(crate) async fn new(broker: &Broker, number: usize) -> Self {
        let publisher = Good::connected(broker, format!("good-p-{number}"), number, None).await;
        let mut subscriber =
            Good::connected(broker, format!("good-s-{number}"), number, None).await;
        for topic in ["talk", "will"] {
            subscriber.subscribe(&format!("good/{number}/{topic}")).await;
        }
        Self { number, publisher, subscriber, messages: 0 }
    }

    /// Sends a message of each QoS from one client to the other, with all acknowledgements.
    pub(crate) async fn converse(&mut self) {
        let topic = format!("good/{}/talk", self.number);
        let mut expected = Vec::new();
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            self.messages += 1;
            let mut payload = self.messages.to_string().into_bytes();
            payload.resize(16 + self.messages as usize % 500, b'.');
            self.publisher.publish(&topic, &payload, qos, false).await;
            expected.push(Heard::Message { topic: topic.clone(), payload, qos, retain: false });
        }
        let mut answers = self.publisher.expect(2).await;
        answers.sort_by_key(|heard| *heard == Heard::PubComp);
        assert_eq!(answers, [Heard::PubAck, Heard::PubComp], "{}", self.publisher.name);
        let mut heard = self.subscriber.expect(3).await;
        // QoS 0 may come before messages that were published earlier.
        heard.sort_by_key(|heard| expected.iter().position(|message| message == heard));
        assert_eq!(heard, expected, "{}", self.subscriber.name);
        for good in [&mut self.publisher, &mut self.subscriber] {
            good.send(&Packet::PingReq).await;
            assert_eq!(good.expect(1).await, [Heard::PingResp], "{}", good.name);
        }
    }

    /// Retains a message, lets a later subscriber find it, and clears it.
    pub(crate) async fn retains(&mut self, broker: &Broker) {
        let topic = format!("good/{}/kept", self.number);
        self.publisher.publish(&topic, b"kept", QoS::AtLeastOnce, true).await;
        assert_eq!(self.publisher.expect(1).await, [Heard::PubAck]);
        let name = format!("good-r-{}", self.number);
        let mut later = Good::connected(broker, name, self.number, None).await;
        later.asks_for(&topic).await;
        let payload = b"kept".to_vec();
        let message =
            Heard::Message { topic: topic.clone(), payload, qos: QoS::AtLeastOnce, retain: true };
        assert_eq!(later.expect(2).await, [Heard::SubAck, message], "{}", later.name);
        let disconnect =
            Disconnect { reason: ReasonCode::Success, properties: DisconnectProperties::default() };
        later.send(&Packet::Disconnect(disconnect)).await;
        self.publisher.publish(&topic, b"", QoS::AtLeastOnce, true).await;
        assert_eq!(self.publisher.expect(1).await, [Heard::PubAck]);
    }

    /// Cuts off a client with a Will.
    pub(crate) async fn has_a_will(&mut self, broker: &Broker) {
        let topic = format!("good/{}/will", self.number);
        let name = format!("good-w-{}", self.number);
        drop(Good::connected(broker, name, self.number, Some(&topic)).await);
        let (payload, qos) = (b"farewell".to_vec(), QoS::ExactlyOnce);
        let will = Heard::Message { topic, payload, qos, retain: false };
        assert_eq!(self.subscriber.expect(1).await, [will], "{}", self.subscriber.name);
    }
}

impl Good {
    async fn connected(broker: &Broker, name: String, number: usize, will: Option<&str>) -> Self {
        let version = [ProtocolVersion::V5, ProtocolVersion::V3_1_1][number];
        let line = Line::open(broker, version, PIPE_BYTES, GOOD_PEER.into());
        let mut good = Self { line, name: name.clone() };
        let connect = Connect {
            version,
            is_bridge: false,
            clean_start: true,
            keep_alive: KEEP_ALIVE_SECS,
            client_id: &name,
            will: will.map(|topic| LastWill {
                topic,
                payload: b"farewell",
                qos: QoS::ExactlyOnce,
                retain: false,
                properties: WillProperties::default(),
            }),
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        good.send(&Packet::Connect(Box::new(connect))).await;
        assert_eq!(good.expect(1).await, [Heard::ConnAck], "{name}");
        good
    }

    async fn subscribe(&mut self, filter: &str) {
        self.asks_for(filter).await;
        assert_eq!(self.expect(1).await, [Heard::SubAck], "{}", self.name);
    }

    async fn asks_for(&mut self, filter: &str) {
        let options = SubscriptionOptions { qos: QoS::ExactlyOnce, ..Default::default() };
        let subscribe = Subscribe {
            packet_id: packet_id(9),
            properties: SubscribeProperties::default(),
            filters: vec![SubscribeFilter { filter, options }],
        };
        self.send(&Packet::Subscribe(subscribe)).await;
    }

    /// The packet identifier is the QoS: at most one message of each is in flight.
    async fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, retain: bool) {
        let publish = Publish {
            flags: PublishFlags { dup: false, qos, retain },
            topic,
            packet_id: PacketId::new(u16::from(qos.number())),
            properties: PublishProperties::default(),
            payload,
        };
        self.send(&Packet::Publish(publish)).await;
    }

    async fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(packet, self.line.version(), &mut bytes).expect("it can be said");
        assert!(self.line.write(&bytes).await, "{} is not read", self.name);
    }

    /// Expects exactly `count` relevant packets, in time, and answers everything else.
    async fn expect(&mut self, count: usize) -> Vec<Heard> {
        let mut heard = Vec::new();
        for _ in 0..ANSWER_MILLIS_MAX {
            self.line.read(usize::MAX);
            while let Some((meaning, answer)) = self.line.next(|p, _| meaning(p)).expect("packets")
            {
                if let Some(answer) = answer {
                    self.send(&answer).await;
                }
                heard.extend(Some(meaning).filter(|meaning| *meaning != Heard::Step));
            }
            assert!(!self.line.is_ended(), "{} was disconnected after {heard:?}", self.name);
            if heard.len() >= count {
                break;
            }
            moment().await;
        }
        assert_eq!(heard.len(), count, "{} has heard {heard:?}", self.name);
        heard
    }
}

fn packet_id(number: u16) -> PacketId {
    PacketId::new(number).expect("it is not zero")
}

/// Returns the meaning of a packet, and the answer to it.
fn meaning(packet: &Packet<'_>) -> (Heard, Option<Packet<'static>>) {
    let heard = match packet {
        Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => Heard::ConnAck,
        Packet::SubAck(_) => Heard::SubAck,
        Packet::PubAck(_) => Heard::PubAck,
        Packet::PubComp(_) => Heard::PubComp,
        Packet::PingResp => Heard::PingResp,
        Packet::PubRec(ack) => {
            return (Heard::Step, Some(Packet::PubRel(Ack::success(ack.packet_id))));
        }
        Packet::PubRel(ack) => {
            return (Heard::Step, Some(Packet::PubComp(Ack::success(ack.packet_id))));
        }
        Packet::Publish(publish) => {
            let PublishFlags { dup, qos, retain } = publish.flags;
            assert!(!dup, "on a good line nothing comes twice");
            let (topic, payload) = (publish.topic.to_owned(), publish.payload.to_vec());
            let answer = publish.packet_id.map(|id| match qos {
                QoS::ExactlyOnce => Packet::PubRec(Ack::success(id)),
                _ => Packet::PubAck(Ack::success(id)),
            });
            return (Heard::Message { topic, payload, qos, retain }, answer);
        }
        other => panic!("{other:?} to a well-behaved client"),
    };
    (heard, None)
}
