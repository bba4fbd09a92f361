//! One MQTT 3.1.1 connection that never blocks: bytes to send, and a socket.
//!
//! Knows packets, but not their purpose.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
};

use hearthmq::mqtt::{
    Ack, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, PacketId,
    ProtocolVersion, Publication, PublishAs, PublishFlags, QoS, RetainHandling, Subscribe,
    SubscribeFilter, SubscribeProperties, SubscriptionOptions, encode, encode_publish,
};
use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use super::Outcome;

pub(crate) const VERSION: ProtocolVersion = ProtocolVersion::V3_1_1;
/// Long enough that no client has to send PINGREQ, and short enough for brokers to enforce it.
const KEEP_ALIVE_SECS: u16 = 600;

/// Packets that wait to be written.
#[derive(Default)]
pub(crate) struct Outbox(Vec<u8>);

impl Outbox {
    pub(crate) fn connect(&mut self, client_id: &str, clean_start: bool) {
        self.packet(&Packet::Connect(Box::new(Connect {
            version: VERSION,
            is_bridge: false,
            clean_start,
            keep_alive: KEEP_ALIVE_SECS,
            client_id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        })));
    }

    pub(crate) fn subscribe(&mut self, id: u16, filters: &[String], qos: QoS) {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        let filters = filters.iter().map(|filter| SubscribeFilter { filter, options }).collect();
        self.packet(&Packet::Subscribe(Subscribe {
            packet_id: packet_id(id),
            properties: SubscribeProperties::default(),
            filters,
        }));
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, id: u16) {
        let publication =
            Publication { topic, payload, qos, retain: false, properties: &[], expires_at: None };
        let how = PublishAs {
            flags: PublishFlags { qos, ..PublishFlags::default() },
            packet_id: (qos != QoS::AtMostOnce).then(|| packet_id(id)),
            ..PublishAs::default()
        };
        encode_publish(&mut self.0, VERSION, &publication, &how);
    }

    /// Answers the acknowledgement of a message, whichever side has sent it.
    pub(crate) fn acknowledge(&mut self, packet: &Packet<'_>) {
        let answer = if let Packet::Publish(publish) = packet {
            match (publish.flags.qos, publish.packet_id) {
                (QoS::AtLeastOnce, Some(id)) => Packet::PubAck(Ack::success(id)),
                (QoS::ExactlyOnce, Some(id)) => Packet::PubRec(Ack::success(id)),
                _ => return,
            }
        } else if let Packet::PubRec(ack) = packet {
            Packet::PubRel(Ack::success(ack.packet_id))
        } else if let Packet::PubRel(ack) = packet {
            Packet::PubComp(Ack::success(ack.packet_id))
        } else {
            return;
        };
        self.packet(&answer);
    }

    pub(crate) fn disconnect(&mut self) {
        self.packet(&Packet::Disconnect(Disconnect {
            reason: hearthmq::mqtt::ReasonCode::Success,
            properties: DisconnectProperties::default(),
        }));
    }

    /// Takes the waiting packets.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    /// Adds bytes that are not a packet: an HTTP request.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn packet(&mut self, packet: &Packet<'_>) {
        encode(packet, VERSION, &mut self.0).expect("packets of 3.1.1 that can be said");
    }
}

/// Returns a Packet Identifier for any number.
fn packet_id(number: u16) -> PacketId {
    PacketId::new(number.max(1)).expect("it is not zero")
}

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) outbox: Outbox,
    /// Bytes of an incomplete packet.
    pub(crate) tail: Vec<u8>,
    written: usize,
    /// Whether it is listed as having something to write.
    pub(crate) is_dirty: bool,
}

impl Client {
    /// Begins to connect. `from` is one of the many loopback addresses: each has its own range of
    /// ports.
    pub(crate) fn open(to: SocketAddr, from: Option<IpAddr>) -> Outcome<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        match socket.connect(&to.into()) {
            // In progress is the usual answer of a socket that does not block.
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error.into()),
            _ => {}
        }
        Ok(Self {
            stream: TcpStream::from_std(socket.into()),
            outbox: Outbox::default(),
            tail: Vec::new(),
            written: 0,
            is_dirty: false,
        })
    }

    /// Writes what it can; the rest follows when the socket is writable again.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.outbox.0.len() {
            match self.stream.write(&self.outbox.0[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if is_for_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.outbox.0.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads behind the tail, which is moved to the beginning of `scratch`; returns the number of
    /// bytes there. `None` if nothing came, zero if the connection has ended.
    pub(crate) fn read(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        let kept = self.tail.len();
        match self.stream.read(&mut scratch[kept..]) {
            Ok(0) => Ok(Some(0)),
            Ok(read) => {
                scratch[..kept].copy_from_slice(&self.tail);
                self.tail.clear();
                Ok(Some(kept + read))
            }
            Err(error) if is_for_later(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The error of `connect` on a non-blocking socket while the connection is being opened.
const EINPROGRESS: i32 = 115;

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
