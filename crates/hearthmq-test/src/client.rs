//! A client that sends any packet, valid or invalid, and checks every packet that comes.

use std::time::Duration;

use hearthmq::{
    Broker,
    mqtt::{Connect, Packet, ProtocolVersion, Publish, QoS, ReasonCode},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    time::timeout,
};

use crate::{
    packets::{
        disconnect, encoded, filter, next_packet, puback, pubcomp, pubrec, pubrel, subscribe,
    },
    pass, stream,
};

/// How long a client waits, for an expected packet and for silence, on virtual time.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits if time may be real and the machine busy.
const PATIENCE_ON_STREAMS: Duration = Duration::from_secs(60);

/// Usually in this process; over TCP where sockets are tested.
pub struct Client<S = DuplexStream> {
    pub stream: S,
    pub version: ProtocolVersion,
    /// Bytes that arrived and were not decoded yet.
    pub received: Vec<u8>,
    /// How long it waits for an expected packet.
    pub patience: Duration,
}

impl Client {
    /// Returns a client that has not yet sent CONNECT.
    pub fn new(broker: &Broker, version: ProtocolVersion) -> Self {
        Self { patience: PATIENCE, ..Self::on(stream(broker), version) }
    }

    /// Returns a client whose CONNECT was accepted.
    pub async fn connected(broker: &Broker, connect: Connect<'_>) -> Self {
        Self::connected_with(broker, connect).await.0
    }

    /// Returns a client whose CONNECT was accepted, and whether its session was present.
    pub async fn connected_with(broker: &Broker, connect: Connect<'_>) -> (Self, bool) {
        let mut client = Self::new(broker, connect.version);
        let session_present = client.connect(connect).await;
        (client, session_present)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Returns a client on a stream that has sent nothing yet.
    pub fn on(stream: S, version: ProtocolVersion) -> Self {
        Self { stream, version, received: Vec::new(), patience: PATIENCE_ON_STREAMS }
    }

    /// Sends CONNECT and expects success; returns whether the session was present.
    pub async fn connect(&mut self, connect: Connect<'_>) -> bool {
        self.send(Packet::Connect(Box::new(connect))).await;
        self.expect_connected().await
    }

    /// Expects CONNACK with success; returns whether the session was present.
    pub async fn expect_connected(&mut self) -> bool {
        self.receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("CONNACK expected, not {packet:?}") };
            assert_eq!(ack.reason, ReasonCode::Success);
            ack.session_present
        })
        .await
    }

    pub async fn send(&mut self, packet: Packet<'_>) {
        self.send_bytes(&encoded(&packet, self.version)).await;
    }

    pub async fn publish(&mut self, packet: Publish<'_>) {
        self.send(Packet::Publish(packet)).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Subscribes and expects the filter to be granted.
    pub async fn subscribe(&mut self, topic_filter: &str, qos: QoS) {
        self.send(subscribe(9, vec![filter(topic_filter, qos)])).await;
        self.receive(|packet| {
            let Packet::SubAck(ack) = packet else { panic!("SUBACK expected, not {packet:?}") };
            assert_eq!(ack.reasons[0].number(), qos.number());
        })
        .await;
    }

    /// Expects this packet.
    pub async fn expect(&mut self, expected: Packet<'_>) {
        self.receive(|packet| assert_eq!(packet, expected)).await;
    }

    /// Expects this PUBLISH.
    pub async fn expect_publish(&mut self, expected: Publish<'_>) {
        self.expect(Packet::Publish(expected)).await;
    }

    /// Expects a packet and inspects it.
    pub async fn receive<T>(&mut self, look: impl FnOnce(Packet<'_>) -> T) -> T {
        let mut look = Some(look);
        loop {
            let look = |packet: Packet<'_>, _| look.take().unwrap()(packet);
            if let Some(seen) = next_packet(&mut self.received, self.version, look).unwrap() {
                return seen;
            }
            let read = timeout(self.patience, self.stream.read_buf(&mut self.received)).await;
            let read = read.expect("a packet is expected, nothing came").unwrap();
            assert!(read > 0, "a packet is expected, the connection was closed");
        }
    }

    /// Expects exactly these bytes next.
    pub async fn expect_bytes(&mut self, expected: &[u8]) {
        while self.received.len() < expected.len() {
            let read = timeout(self.patience, self.stream.read_buf(&mut self.received)).await;
            let read = read.expect("bytes are expected, nothing came").unwrap();
            assert!(read > 0, "bytes are expected, came {:02x?} and the end", self.received);
        }
        let came: Vec<u8> = self.received.drain(..expected.len()).collect();
        assert_eq!(came, expected, "in {:?}, then came {:02x?}", self.version, self.received);
    }

    /// Expects a PUBLISH; returns its payload as text.
    pub async fn receive_payload(&mut self) -> String {
        self.receive(|packet| {
            let Packet::Publish(publish) = packet else {
                panic!("PUBLISH expected, not {packet:?}")
            };
            str::from_utf8(publish.payload).unwrap().to_owned()
        })
        .await
    }

    /// Expects that nothing comes for this time, and that the connection stays.
    pub async fn expect_nothing_for(&mut self, time: Duration) {
        assert!(self.received.is_empty(), "unexpected: {:?}", self.received);
        let read = timeout(time, self.stream.read_buf(&mut self.received)).await;
        assert!(read.is_err(), "nothing is expected, but came: {:?} {:?}", read, self.received);
    }

    /// Expects that nothing comes.
    pub async fn expect_nothing(&mut self) {
        self.expect_nothing_for(PATIENCE).await;
    }

    /// Expects that the broker closes the connection without another packet.
    pub async fn expect_closed(&mut self) {
        let read = timeout(self.patience, self.stream.read_buf(&mut self.received)).await;
        let read = read.expect("the connection is expected to be closed").unwrap_or(0);
        assert!(read == 0 && self.received.is_empty(), "unexpected: {:?}", self.received);
    }

    /// Expects DISCONNECT with this Reason Code, if the version has it, and the end.
    pub async fn expect_disconnect(&mut self, reason: ReasonCode) {
        if self.version == ProtocolVersion::V5 {
            self.receive(|packet| {
                let Packet::Disconnect(disconnect) = packet else {
                    panic!("DISCONNECT expected, not {packet:?}")
                };
                assert_eq!(disconnect.reason, reason);
            })
            .await;
        }
        self.expect_closed().await;
    }

    /// Expects PUBACK, or PUBREC, PUBREL and PUBCOMP, for a PUBLISH of this QoS and identifier,
    /// with this Reason Code if the version has it.
    pub async fn expect_taken(&mut self, qos: QoS, packet_id: u16, reason: ReasonCode) {
        let reason = if self.version == ProtocolVersion::V5 { reason } else { ReasonCode::Success };
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.expect(puback(packet_id, reason)).await,
            QoS::ExactlyOnce => {
                self.expect(pubrec(packet_id, reason)).await;
                self.send(pubrel(packet_id)).await;
                self.expect(pubcomp(packet_id)).await;
            }
        }
    }

    /// Acknowledges a PUBLISH of this QoS and identifier to the end.
    pub async fn take(&mut self, qos: QoS, packet_id: u16) {
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.send(puback(packet_id, ReasonCode::Success)).await,
            QoS::ExactlyOnce => {
                self.send(pubrec(packet_id, ReasonCode::Success)).await;
                self.expect(pubrel(packet_id)).await;
                self.send(pubcomp(packet_id)).await;
            }
        }
    }

    /// Expects this refusal, in the form of the client's version, and the end.
    pub async fn expect_refused(&mut self, reason: ReasonCode) {
        let version = self.version;
        self.receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("CONNACK expected, not {packet:?}") };
            let expected = reason.connect_return_code(version);
            assert_eq!(ack.reason.connect_return_code(version), expected);
            assert!(!ack.session_present);
        })
        .await;
        self.expect_closed().await;
    }

    /// Disconnects.
    pub async fn leave(mut self) {
        self.send(disconnect(ReasonCode::Success)).await;
        self.expect_closed().await;
    }

    /// Drops the connection, and waits until the broker has noticed.
    pub async fn vanish(self) {
        drop(self);
        pass(Duration::from_millis(1)).await;
    }

    /// Sends PINGREQ and expects its answer: all earlier packets have then been handled.
    pub async fn ping(&mut self) {
        self.send(Packet::PingReq).await;
        self.expect(Packet::PingResp).await;
    }
}
