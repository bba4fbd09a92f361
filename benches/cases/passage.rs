//! Cases of the whole broker in process: a publisher's connection reads a PUBLISH, and the output of
//! a subscriber's connection is taken, with all acknowledgements of both.
//!
//! The broker runs on this thread and on virtual time: whenever everything waits, the clock jumps.
//! So no timer fires during a step, whatever the speed of the machine. The work of the clients,
//! which write and read whole packets in an in-process stream, is counted too.

use actix_rt::System;
use hearthmq::{
    Broker,
    auth::AllowAll,
    broker::simulation::SimulatedShards,
    limits::Limits,
    mqtt::{
        Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, Publish, PublishFlags,
        PublishProperties, QoS, Subscribe, SubscribeFilter, SubscribeProperties,
        SubscriptionOptions, encode,
    },
    store::MemoryStore,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::measure::Measure;

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V3_1_1, ProtocolVersion::V5];
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const TOPIC: &str = "fleet/4711/vehicle/0815/telemetry1";
const PAYLOAD: [u8; 64] = [b'x'; 64];
/// More bytes than a publisher writes together.
const STREAM_BYTES: usize = 4096;
/// Messages that a publisher writes together, as it does under load.
const TOGETHER: usize = 16;

/// First bytes of the acknowledgements.
const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

/// Adds `in to out/…`, where a publisher writes one message in a step; `16 in to out/…`, where it
/// writes sixteen together; and `across shards/…`, where the subscriber is on another shard.
pub(crate) fn cases(measure: &mut impl Measure) {
    for version in VERSIONS {
        for qos in QOS {
            for (has_store, store) in [(false, "store off"), (true, "store on")] {
                for (way, shards, messages) in
                    [("in to out", 1, 1), ("16 in to out", 1, TOGETHER), ("across shards", 2, 1)]
                {
                    let name = format!("{way}/QoS {}/{version:?}/{store}", qos.number());
                    measure.case(&name, || {
                        // They live until the end of the process: the broker must not end without
                        // its runtime, nor the runtime with the broker.
                        let system = Box::leak(Box::new(System::new()));
                        let pair = Pair::start(version, qos, has_store, shards, messages);
                        let pair = Box::leak(Box::new(system.block_on(pair)));
                        move || system.block_on(pair.pass_on())
                    });
                }
            }
        }
    }
}

/// A publisher, a subscriber of its topic, and the broker between them.
struct Pair {
    _broker: Broker,
    publisher: DuplexStream,
    subscriber: DuplexStream,
    qos: QoS,
    messages: usize,
    /// What the publisher writes: all PUBLISH packets of a step, and their releases.
    packets: Vec<u8>,
    releases: Vec<u8>,
    read: Vec<u8>,
    answers: Vec<u8>,
}

impl Pair {
    async fn start(
        version: ProtocolVersion,
        qos: QoS,
        has_store: bool,
        shard_count: u16,
        messages: usize,
    ) -> Self {
        tokio::time::pause();
        let shards = SimulatedShards::new(shard_count, 1);
        actix_rt::spawn(carry(shards.clone()));
        let limits = Limits { connects_per_address_per_sec: 0, ..Limits::default() };
        let mut builder = Broker::builder().simulated(&shards).limits(limits);
        if has_store {
            builder = builder.store(MemoryStore::default());
        }
        let broker = builder.authenticator(AllowAll).authorizer(AllowAll).start().await;
        let broker = broker.expect("a broker without listeners starts");
        let publisher = connect(&broker, version, &resident(&shards, "publisher", 0)).await;
        let last = shard_count - 1;
        let mut subscriber =
            connect(&broker, version, &resident(&shards, "subscriber", last)).await;
        subscribe(&mut subscriber, version, qos).await;
        let (mut packets, mut releases) = (Vec::new(), Vec::new());
        // Encoded once: the same bytes are written in each step.
        for number in 1..=messages as u16 {
            put(&mut packets, version, &publish(qos, number));
            releases.extend_from_slice(&[PUBREL, 2, 0, number as u8]);
        }
        let (read, answers) = (vec![0; packets.len()], Vec::new());
        Self {
            _broker: broker,
            publisher,
            subscriber,
            qos,
            messages,
            packets,
            releases,
            read,
            answers,
        }
    }

    /// Passes the messages of a step from the publisher to the subscriber.
    async fn pass_on(&mut self) {
        write(&mut self.publisher, &self.packets).await;
        self.subscriber.read_exact(&mut self.read).await.expect("the broker delivers");
        match self.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                self.answer_messages(PUBACK);
                write(&mut self.subscriber, &self.answers).await;
                // All answers are read within the step, so that it leaves the sessions unchanged.
                read_acks(&mut self.publisher, self.messages).await;
            }
            QoS::ExactlyOnce => {
                self.answer_messages(PUBREC);
                write(&mut self.subscriber, &self.answers).await;
                read_acks(&mut self.publisher, self.messages).await;
                write(&mut self.publisher, &self.releases).await;
                read_acks(&mut self.publisher, self.messages).await;
                read_acks(&mut self.subscriber, self.messages).await;
                for answer in self.answers.chunks_exact_mut(ACK_BYTES) {
                    answer[0] = PUBCOMP;
                }
                write(&mut self.subscriber, &self.answers).await;
            }
        }
    }

    /// Makes the acknowledgements of the messages that the subscriber has read.
    fn answer_messages(&mut self, kind: u8) {
        self.answers.clear();
        for packet in self.read.chunks_exact(self.packets.len() / self.messages) {
            // After two bytes of fixed header and the Topic Name; the packets are short enough.
            let id = &packet[TOPIC.len() + 4..][..2];
            self.answers.extend_from_slice(&[kind, 2, id[0], id[1]]);
        }
    }
}

const ACK_BYTES: usize = 4;

/// Returns a client identifier that has its home on this shard.
fn resident(shards: &SimulatedShards, name: &str, shard: u16) -> String {
    let mut names = (0..).map(|number| format!("{name}-{number}"));
    names.find(|name| shards.home(name) == shard).expect("one of them has its home there")
}

/// Delivers the mail of the shards in the order in which it is posted.
pub(crate) async fn carry(shards: SimulatedShards) {
    loop {
        for (route, _) in shards.waiting() {
            while shards.deliver(route) {}
        }
        shards.posted().await;
    }
}

pub(crate) async fn write(client: &mut DuplexStream, bytes: &[u8]) {
    client.write_all(bytes).await.expect("the broker keeps the connection");
}

async fn read_acks(client: &mut DuplexStream, number: usize) {
    let mut bytes = [0; ACK_BYTES * TOGETHER];
    let acks = &mut bytes[..ACK_BYTES * number];
    client.read_exact(acks).await.expect("the broker answers");
}

pub(crate) async fn connect(
    broker: &Broker,
    version: ProtocolVersion,
    client_id: &str,
) -> DuplexStream {
    let (mut here, there) = tokio::io::duplex(STREAM_BYTES);
    let serve = broker.serve(there, ([192, 0, 2, 1], 1).into());
    let mut bytes = Vec::new();
    let packet = Packet::Connect(Box::new(Connect {
        version,
        is_bridge: false,
        clean_start: true,
        keep_alive: 60,
        client_id,
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }));
    put(&mut bytes, version, &packet);
    write(&mut here, &bytes).await;
    serve.await;
    read_packet(&mut here).await;
    here
}

async fn subscribe(client: &mut DuplexStream, version: ProtocolVersion, qos: QoS) {
    let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    let mut bytes = Vec::new();
    let packet = Packet::Subscribe(Subscribe {
        packet_id: packet_id(1),
        properties: SubscribeProperties::default(),
        filters: vec![SubscribeFilter { filter: TOPIC, options }],
    });
    put(&mut bytes, version, &packet);
    write(client, &bytes).await;
    read_packet(client).await;
}

/// Reads a packet of fewer than 128 bytes.
async fn read_packet(client: &mut DuplexStream) {
    let mut head = [0; 2];
    client.read_exact(&mut head).await.expect("the broker answers");
    let mut rest = vec![0; usize::from(head[1])];
    client.read_exact(&mut rest).await.expect("the broker sends whole packets");
}

fn publish(qos: QoS, number: u16) -> Packet<'static> {
    Packet::Publish(Publish {
        flags: PublishFlags { qos, ..PublishFlags::default() },
        topic: TOPIC,
        packet_id: (qos != QoS::AtMostOnce).then(|| packet_id(number)),
        properties: PublishProperties::default(),
        payload: &PAYLOAD,
    })
}

pub(crate) fn put(bytes: &mut Vec<u8>, version: ProtocolVersion, packet: &Packet<'_>) {
    encode(packet, version, bytes).expect("the packets are those of their version");
}

fn packet_id(number: u16) -> PacketId {
    PacketId::new(number).expect("it is not zero")
}
