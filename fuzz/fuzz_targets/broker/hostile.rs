//! Up to four clients that follow the fuzzer's bytes: packets that are valid, nearly valid and
//! invalid, in any order, complete and in part, answered or not read.

use std::time::Duration;

use hearthmq::{
    Broker,
    mqtt::{
        Ack, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties,
        Disconnect, DisconnectProperties, LastWill, Packet, PacketId, ProtocolVersion, Publish,
        PublishFlags, PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe,
        SubscribeFilter, SubscribeProperties, SubscriptionOptions, Unsubscribe, UserProperties,
        WillProperties, encode,
    },
};
use tokio::time::sleep;

use crate::{BAD_PEER, access, line::Line, moment};

/// Maximum number of acts in a round, so that inputs stay fast.
const ACTS_MAX: usize = 300;
/// Maximum length of a round in virtual milliseconds, below the Keep Alive of the well-behaved
/// clients.
const MILLIS_MAX: u64 = 40_000;
/// A pipe that is not read is soon full.
const PIPE_BYTES: usize = 8192;

const NAMES: [&str; 8] =
    ["", "x", "y", "z", "good-s-0", "a-rather-longer-client-identifier", "é", "x/y"];
const TOPICS: [&str; 16] = [
    "a",
    "b",
    "a/b",
    "a/b/c",
    "/",
    "a//",
    "$x",
    "$events/client_connected",
    "good/0/talk",
    "good/1/kept",
    "#",
    "+",
    "a/+",
    "a#",
    "",
    "a\u{0}b",
];
const FILTERS: [&str; 16] = [
    "a",
    "a/#",
    "#",
    "+/b",
    "+",
    "/+",
    "$events/#",
    "$share/g/a/#",
    "$share/g/#",
    "$share//a",
    "$share/g",
    "good/#",
    "a/#/b",
    "",
    "$x/#",
    "$share/h/+/+",
];

pub(crate) struct Hostile<'a> {
    broker: Broker,
    bytes: &'a [u8],
    lines: [Option<Line>; 4],
    reads: [bool; 4],
    acts: usize,
    millis: u64,
}

impl<'a> Hostile<'a> {
    pub(crate) fn new(broker: &Broker, bytes: &'a [u8]) -> Self {
        let (broker, lines, reads) = (broker.clone(), Default::default(), [true; 4]);
        Self { broker, bytes, lines, reads, acts: 0, millis: 0 }
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    fn some(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(length.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    fn one_of(&mut self, all: &[&'static str]) -> &'static str {
        all[usize::from(self.byte()) % all.len()]
    }

    fn number(&mut self) -> u32 {
        match self.byte() {
            255 => u32::MAX,
            254 => 70_000,
            small => u32::from(small),
        }
    }

    fn option<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.byte() % 2 == 1).then(|| value(self))
    }

    /// Performs one act and what follows from it; returns `false` once nothing is left to do.
    pub(crate) async fn act(&mut self) -> bool {
        if self.bytes.is_empty() || self.acts == ACTS_MAX {
            return false;
        }
        self.acts += 1;
        let act = self.byte();
        let at = usize::from(act >> 4) % 4;
        match act % 16 {
            0..3 => self.open(at).await,
            3 => self.lines[at] = None,
            4 => self.reads[at] = !self.reads[at],
            5 => self.wait().await,
            6 => {
                let which = self.byte();
                access::change(&self.broker, which).await;
            }
            _ => self.say(at).await,
        }
        moment().await;
        for (line, reads) in self.lines.iter_mut().zip(self.reads) {
            if let Some(line) = line.as_mut().filter(|_| reads) {
                line.discard();
            }
        }
        true
    }

    async fn wait(&mut self) {
        let millis = u64::from(self.byte()) * 20;
        let millis = millis.min(MILLIS_MAX - self.millis);
        self.millis += millis;
        sleep(Duration::from_millis(millis)).await;
    }

    async fn open(&mut self, at: usize) {
        use ProtocolVersion::{V3_1, V3_1_1, V5};
        let version = [V3_1, V3_1_1, V5, V5][usize::from(self.byte()) % 4];
        self.lines[at] = Some(Line::open(&self.broker, version, PIPE_BYTES, BAD_PEER.into()));
        self.reads[at] = true;
        let bytes = self.encoded(version, Self::connect);
        self.write(at, &bytes).await;
    }

    async fn say(&mut self, at: usize) {
        let Some(version) = self.lines[at].as_ref().map(Line::version) else { return };
        let bytes = self.encoded(version, Self::packet);
        self.write(at, &bytes).await;
    }

    /// Writes bytes, usually unchanged.
    async fn write(&mut self, at: usize, bytes: &[u8]) {
        let how = self.byte();
        let place = usize::from(self.byte()) % bytes.len().max(1);
        let mut bytes = bytes.to_vec();
        let mut second = None;
        match how {
            0..8 if !bytes.is_empty() => bytes[place] ^= 1 << how,
            8..12 => bytes.truncate(place),
            12..16 => second = Some(bytes.clone()),
            16..20 if bytes.len() > 1 => bytes[1] = place as u8,
            20..24 => bytes = self.some(place).to_vec(),
            24..32 => second = Some(bytes.split_off(place)),
            _ => {}
        }
        let Some(line) = &mut self.lines[at] else { return };
        let mut is_open = line.write(&bytes).await;
        if let Some(second) = second.filter(|_| is_open) {
            moment().await;
            is_open = line.write(&second).await;
        }
        if !is_open {
            self.lines[at] = None;
        }
    }

    /// Returns the encoded packet; empty if it cannot be encoded.
    fn encoded(
        &mut self,
        version: ProtocolVersion,
        packet: impl FnOnce(&mut Self, ProtocolVersion) -> Packet<'a>,
    ) -> Vec<u8> {
        let packet = packet(self, version);
        let mut bytes = Vec::new();
        if encode(&packet, version, &mut bytes).is_err() {
            bytes.clear();
        }
        bytes
    }

    fn packet(&mut self, version: ProtocolVersion) -> Packet<'a> {
        match self.byte() % 20 {
            0..6 => self.publish(),
            6 => Packet::PubAck(self.ack()),
            7 => Packet::PubRec(self.ack()),
            8 => Packet::PubRel(self.ack()),
            9 => Packet::PubComp(self.ack()),
            10..14 => self.subscribe(),
            14 => Packet::Unsubscribe(Unsubscribe {
                packet_id: self.packet_id(),
                user_properties: UserProperties::NONE,
                filters: vec![self.one_of(&FILTERS)],
            }),
            15 => Packet::PingReq,
            16 => Packet::Disconnect(Disconnect {
                reason: self.reason(),
                properties: DisconnectProperties {
                    session_expiry_interval: self.option(Self::number),
                    ..DisconnectProperties::default()
                },
            }),
            17 => Packet::Auth(Auth {
                reason: self.reason(),
                properties: AuthProperties {
                    authentication_method: self.option(|_| "SCRAM-SHA-256"),
                    authentication_data: self.option(|own| own.some(4)),
                    ..AuthProperties::default()
                },
            }),
            18 => self.connect(version),
            _ => Packet::ConnAck(Box::new(ConnAck {
                session_present: false,
                reason: ReasonCode::Success,
                properties: ConnAckProperties::default(),
            })),
        }
    }

    fn packet_id(&mut self) -> PacketId {
        PacketId::new(u16::from(self.byte() % 12) + 1).expect("it is one at least")
    }

    fn reason(&mut self) -> ReasonCode {
        ReasonCode::ALL[usize::from(self.byte()) % ReasonCode::ALL.len()]
    }

    fn ack(&mut self) -> Ack<'static> {
        let packet_id = self.packet_id();
        match self.byte() % 4 {
            0 => Ack::with_reason(packet_id, self.reason()),
            _ => Ack::success(packet_id),
        }
    }

    fn qos(&mut self) -> QoS {
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(self.byte()) % 3]
    }

    fn properties(&mut self) -> PublishProperties<'a> {
        if self.byte() % 2 == 0 {
            return PublishProperties::default();
        }
        PublishProperties {
            message_expiry_interval: self.option(Self::number),
            topic_alias: self.option(|own| own.number() as u16),
            response_topic: self.option(|own| own.one_of(&TOPICS)),
            correlation_data: self.option(|own| own.some(3)),
            subscription_identifiers: self.option(Self::number).into_iter().collect(),
            ..PublishProperties::default()
        }
    }

    fn payload(&mut self) -> &'a [u8] {
        static ZEROES: [u8; 20_000] = [0; 20_000];
        match self.byte() {
            255 => &ZEROES,
            254 => &ZEROES[..3000],
            length => self.some(usize::from(length % 16)),
        }
    }

    fn publish(&mut self) -> Packet<'a> {
        let qos = self.qos();
        let flags = self.byte();
        Packet::Publish(Publish {
            flags: PublishFlags { dup: flags % 8 == 7, qos, retain: flags > 127 },
            topic: self.one_of(&TOPICS),
            packet_id: (qos > QoS::AtMostOnce).then(|| self.packet_id()),
            properties: self.properties(),
            payload: self.payload(),
        })
    }

    fn subscribe(&mut self) -> Packet<'a> {
        use RetainHandling::{DoNotSend, Send, SendIfNew};
        let count = self.byte() % 4;
        let mut filters = Vec::new();
        for _ in 0..count {
            let filter = self.one_of(&FILTERS);
            let flags = usize::from(self.byte());
            let options = SubscriptionOptions {
                qos: self.qos(),
                no_local: flags % 2 == 1,
                retain_as_published: flags % 4 > 1,
                retain_handling: [Send, SendIfNew, DoNotSend, Send][flags / 4 % 4],
            };
            filters.push(SubscribeFilter { filter, options });
        }
        Packet::Subscribe(Subscribe {
            packet_id: self.packet_id(),
            properties: SubscribeProperties {
                subscription_identifier: self.option(Self::number),
                ..SubscribeProperties::default()
            },
            filters,
        })
    }

    fn connect(&mut self, version: ProtocolVersion) -> Packet<'a> {
        let flags = self.byte();
        let will = (flags % 4 == 3).then(|| LastWill {
            topic: self.one_of(&TOPICS),
            payload: self.payload(),
            qos: self.qos(),
            retain: flags > 127,
            properties: WillProperties {
                will_delay_interval: self.option(Self::number),
                publish: self.properties(),
            },
        });
        Packet::Connect(Box::new(Connect {
            version,
            is_bridge: version != ProtocolVersion::V5 && flags % 16 == 9,
            clean_start: flags / 4 % 2 == 0,
            keep_alive: u16::from(flags / 8 % 8),
            client_id: self.one_of(&NAMES),
            will,
            username: self.option(|_| "good"),
            password: None,
            properties: ConnectProperties {
                session_expiry_interval: self.option(Self::number),
                receive_maximum: self.option(|own| own.number() as u16),
                maximum_packet_size: self.option(Self::number),
                topic_alias_maximum: self.option(|own| own.number() as u16),
                request_problem_information: self.option(|own| own.byte() % 2 == 1),
                ..ConnectProperties::default()
            },
        }))
    }
}
