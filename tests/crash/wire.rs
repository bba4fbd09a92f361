//! A client's connection: packets out, packets in; it remembers neither.
//!
//! Every wait has a time limit. Packets are written together when they are flushed.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use hearthmq::mqtt::{
    Ack, Connect, ConnectProperties, LastWill, Packet, PacketId, ProtocolVersion, Publish,
    PublishFlags, PublishProperties, QoS, ReasonCode, WillProperties, encode,
};
use hearthmq_test::packets::{connect_in, disconnect, filter, next_packet, subscribe};

use super::book::Known;
use crate::program::PASSWORD;

/// How long a broker may take for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a client reads before it checks for other work.
const TURN: Duration = Duration::from_millis(5);
/// Long enough for every round.
const EXPIRY_SECS: u32 = 3600;

/// What arrived, as owned data.
#[derive(Debug)]
pub(crate) enum Heard {
    Publish { topic: String, payload: Vec<u8>, flags: PublishFlags, packet_id: u16 },
    PubAck(u16, ReasonCode),
    PubRec(u16, ReasonCode),
    PubRel(u16),
    PubComp(u16),
    SubAck(Vec<ReasonCode>),
    PingResp,
    Disconnect(ReasonCode),
}

/// A client and how it connects.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) client_id: String,
    pub(crate) version: ProtocolVersion,
    /// Receive Maximum (MQTT 5.0).
    pub(crate) receive_maximum: Option<u16>,
    /// Its Will (MQTT 5.0): topic, payload and Will Delay Interval in seconds.
    pub(crate) will: Option<(String, String, u32)>,
    /// Whether its session outlives its connection.
    pub(crate) is_durable: bool,
    /// Clean Start: whether it discards its session.
    pub(crate) clean_start: bool,
}

impl Identity {
    pub(crate) fn durable(client_id: impl Into<String>, version: ProtocolVersion) -> Self {
        let client_id = client_id.into();
        Self {
            client_id,
            version,
            receive_maximum: None,
            will: None,
            is_durable: true,
            clean_start: false,
        }
    }

    fn connect(&self) -> Connect<'_> {
        let will = self.will.as_ref().map(|(topic, payload, delay)| LastWill {
            topic,
            payload: payload.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: WillProperties {
                will_delay_interval: Some(*delay),
                ..WillProperties::default()
            },
        });
        let properties = match self.version {
            ProtocolVersion::V5 => ConnectProperties {
                session_expiry_interval: self.is_durable.then_some(EXPIRY_SECS),
                receive_maximum: self.receive_maximum,
                ..ConnectProperties::default()
            },
            ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => ConnectProperties::default(),
        };
        Connect {
            clean_start: self.clean_start,
            keep_alive: 0, // a busy machine may let a client be silent for minutes
            will,
            username: Some("ops"),
            password: Some(PASSWORD.as_bytes()),
            properties,
            ..connect_in(self.version, &self.client_id)
        }
    }
}

/// A connection whose CONNECT was accepted.
pub(crate) struct Wire {
    stream: TcpStream,
    version: ProtocolVersion,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Wire {
    /// Connects; returns the connection and Session Present. `known` becomes `Perhaps` when CONNECT
    /// is sent, because from then on a session may exist that the client does not know of.
    pub(crate) fn open(
        address: SocketAddr,
        who: &Identity,
        known: &mut Known,
    ) -> io::Result<(Self, bool)> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut wire =
            Self { stream, version: who.version, incoming: Vec::new(), outgoing: Vec::new() };
        if *known == Known::Never {
            *known = Known::Perhaps;
        }
        wire.say(&Packet::Connect(Box::new(who.connect())));
        wire.flush()?;
        let present = loop {
            if let Some(present) = wire.connack()? {
                break present;
            }
            if wire.read()? == 0 {
                return Err(io::Error::new(ErrorKind::TimedOut, "CONNACK does not come"));
            }
        };
        wire.stream.set_read_timeout(Some(TURN))?;
        Ok((wire, present))
    }

    fn connack(&mut self) -> io::Result<Option<bool>> {
        let look = |packet: Packet<'_>, _| match packet {
            Packet::ConnAck(ack) => (ack.reason, ack.session_present),
            packet => panic!("CONNACK expected, not {packet:?}"),
        };
        match next_packet(&mut self.incoming, self.version, look).unwrap() {
            Some((reason, _)) if reason.is_failure() => {
                Err(io::Error::other(format!("refused with {reason:?}")))
            }
            connected => Ok(connected.map(|(_, present)| present)),
        }
    }

    /// Encodes a packet; it is sent at the next flush.
    pub(crate) fn say(&mut self, packet: &Packet<'_>) {
        encode(packet, self.version, &mut self.outgoing).unwrap();
    }

    pub(crate) fn publish(&mut self, id: u16, topic: &str, payload: &[u8], flags: PublishFlags) {
        self.say(&Packet::Publish(Publish {
            flags,
            topic,
            packet_id: PacketId::new(id),
            properties: PublishProperties::default(),
            payload,
        }));
    }

    pub(crate) fn subscribe(&mut self, topic_filter: &str, qos: QoS) {
        self.say(&subscribe(u16::MAX, vec![filter(topic_filter, qos)]));
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.outgoing)?;
        self.outgoing.clear();
        Ok(())
    }

    /// Flushes, then reads for a moment; returns all complete packets.
    pub(crate) fn turn(&mut self) -> io::Result<Vec<Heard>> {
        self.flush()?;
        self.read()?;
        let mut all = Vec::new();
        let look = |packet: Packet<'_>, _| heard(&packet);
        while let Some(heard) = next_packet(&mut self.incoming, self.version, look).unwrap() {
            all.push(heard);
        }
        Ok(all)
    }

    /// Reads what is there; returns 0 if nothing comes in time.
    fn read(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                self.incoming.extend_from_slice(&chunk[..read]);
                Ok(read)
            }
            Err(error)
                if [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted]
                    .contains(&error.kind()) =>
            {
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends DISCONNECT; the session stays.
    pub(crate) fn take_leave(mut self) -> io::Result<()> {
        self.say(&disconnect(ReasonCode::Success));
        self.flush()
    }
}

/// Returns an acknowledgement without properties.
pub(crate) fn ack<'a>(id: u16) -> Ack<'a> {
    Ack::success(PacketId::new(id).unwrap())
}

fn heard(packet: &Packet<'_>) -> Heard {
    match packet {
        Packet::Publish(publish) => Heard::Publish {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_vec(),
            flags: publish.flags,
            packet_id: publish.packet_id.map_or(0, PacketId::number),
        },
        Packet::PubAck(ack) => Heard::PubAck(ack.packet_id.number(), ack.reason),
        Packet::PubRec(ack) => Heard::PubRec(ack.packet_id.number(), ack.reason),
        Packet::PubRel(ack) => Heard::PubRel(ack.packet_id.number()),
        Packet::PubComp(ack) => Heard::PubComp(ack.packet_id.number()),
        Packet::SubAck(ack) => Heard::SubAck(ack.reasons.clone()),
        Packet::PingResp => Heard::PingResp,
        Packet::Disconnect(disconnect) => Heard::Disconnect(disconnect.reason),
        packet => panic!("a broker does not send {packet:?}"),
    }
}
