//! A blocking MQTT client that sends any packet, over TCP or any other stream.
//!
//! It uses the library's codec and knows nothing of the peer. Every wait has a time limit, so that
//! a silent broker fails a test instead of blocking it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use hearthmq::mqtt::{
    Connect, Disconnect, Packet, PacketId, ProtocolVersion, Publish, PublishFlags,
    PublishProperties, QoS, ReasonCode,
};

use crate::packets::{self, encoded, filter, next_packet, subscribe};

/// How long a client waits for an expected packet.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a CONNECT of MQTT 5.0 with Clean Start, Keep Alive 60 and no user name.
pub fn connect(client_id: &str) -> Connect<'_> {
    Connect { keep_alive: 60, ..packets::connect(client_id) }
}

/// A connected client.
pub struct Client<S = TcpStream> {
    pub stream: S,
    version: ProtocolVersion,
    received: Vec<u8>,
}

/// A received message.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrived {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub packet_id: Option<PacketId>,
}

/// Opens a TCP connection on which every wait has a time limit.
pub fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Client {
    /// Connects, and expects CONNACK with success.
    pub fn connected(address: SocketAddr, connect: Connect<'_>) -> Self {
        let (client, reason) = Self::on(tcp(address), connect).unwrap();
        assert_eq!(reason, ReasonCode::Success);
        client
    }
}

impl<S: Read + Write> Client<S> {
    /// Returns a client that has sent nothing yet.
    pub fn silent(stream: S, version: ProtocolVersion) -> Self {
        Self { stream, version, received: Vec::new() }
    }

    /// Sends CONNECT on a stream; returns the client and the Reason Code of CONNACK, or the
    /// stream's error.
    pub fn on(stream: S, connect: Connect<'_>) -> std::io::Result<(Self, ReasonCode)> {
        let mut client = Self::silent(stream, connect.version);
        client.try_send(&Packet::Connect(Box::new(connect)))?;
        let reason = client.try_receive(|packet| match packet {
            Packet::ConnAck(ack) => ack.reason,
            packet => panic!("CONNACK expected, not {packet:?}"),
        })?;
        Ok((client, reason))
    }

    pub fn try_send(&mut self, packet: &Packet<'_>) -> std::io::Result<()> {
        self.stream.write_all(&encoded(packet, self.version))
    }

    pub fn send(&mut self, packet: &Packet<'_>) {
        self.try_send(packet).unwrap();
    }

    /// Inspects the next packet; `UnexpectedEof` if the connection is closed instead.
    pub fn try_receive<T>(&mut self, look: impl FnOnce(Packet<'_>) -> T) -> std::io::Result<T> {
        let mut look = Some(look);
        loop {
            let look = |packet: Packet<'_>, _| look.take().unwrap()(packet);
            if let Some(seen) = next_packet(&mut self.received, self.version, look).unwrap() {
                return Ok(seen);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.received.extend_from_slice(&chunk[..read]),
                // A child process that ends interrupts a read that has a time limit.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub fn receive<T>(&mut self, look: impl FnOnce(Packet<'_>) -> T) -> T {
        self.try_receive(look).unwrap()
    }

    pub fn subscribe(&mut self, topic_filter: &str, qos: QoS) {
        self.send(&subscribe(9, vec![filter(topic_filter, qos)]));
        self.receive(|packet| match packet {
            Packet::SubAck(ack) => assert_eq!(ack.reasons[0].number(), qos.number()),
            packet => panic!("SUBACK expected, not {packet:?}"),
        });
    }

    /// Sends PUBLISH: QoS 1 with a Packet Identifier, QoS 0 without.
    pub fn publish(&mut self, topic: &str, payload: &[u8], id: Option<u16>) -> std::io::Result<()> {
        let qos = id.map_or(QoS::AtMostOnce, |_| QoS::AtLeastOnce);
        self.try_send(&Packet::Publish(Publish {
            flags: PublishFlags { qos, ..PublishFlags::default() },
            topic,
            packet_id: id.and_then(PacketId::new),
            properties: PublishProperties::default(),
            payload,
        }))
    }

    /// Expects a PUBLISH and returns it.
    pub fn message(&mut self) -> Arrived {
        self.receive(|packet| match packet {
            Packet::Publish(publish) => arrived(&publish),
            packet => panic!("PUBLISH expected, not {packet:?}"),
        })
    }

    /// Sends PINGREQ and expects its answer: all earlier packets have then been handled.
    pub fn ping(&mut self) {
        self.send(&Packet::PingReq);
        self.receive(|packet| assert_eq!(packet, Packet::PingResp));
    }

    /// Expects DISCONNECT with this Reason Code, if the version has it, and the end.
    pub fn expect_disconnect(&mut self, reason: ReasonCode) {
        if self.version.has_properties() {
            self.receive(|packet| match packet {
                Packet::Disconnect(Disconnect { reason: said, .. }) => assert_eq!(said, reason),
                packet => panic!("DISCONNECT expected, not {packet:?}"),
            });
        }
        self.expect_closed();
    }

    /// Expects that the broker closes the connection.
    pub fn expect_closed(&mut self) {
        let end = self.try_receive(|packet| panic!("the end expected, not {packet:?}"));
        assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}

pub fn arrived(publish: &Publish<'_>) -> Arrived {
    Arrived {
        topic: publish.topic.to_owned(),
        payload: publish.payload.to_vec(),
        qos: publish.flags.qos,
        packet_id: publish.packet_id,
    }
}
