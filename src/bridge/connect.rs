//! The client's side of the beginning of a connection: CONNECT, CONNACK, SUBSCRIBE.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    dial::BridgeStream,
    fault::{BridgeTrouble, TroubleKind},
    options::{Bridge, BridgeOptions},
    routes::BridgeWish,
    side::LocalLimits,
    topic::RetainedOf,
    translate::RemoteSide,
};
use crate::auth::BROKER_PROPERTY;
use crate::mqtt::{
    ConnAck, Connect, ConnectProperties, DecodeLimits, Decoded, LastWill, Packet, PacketId,
    ProtocolVersion, Publish, PublishFlags, PublishProperties, QoS, ReasonCode, RetainHandling,
    Subscribe, SubscribeFilter, SubscribeProperties, SubscriptionOptions, Unsubscribe,
    UserProperties, UserPropertiesBuf, WillProperties, decode, encode,
};

/// Maximum size of CONNACK.
const CONN_ACK_BYTES_MAX: u32 = 64 * 1024;
/// Messages in flight to a broker of MQTT 3.1.1, unless the configuration says more. Mosquitto closes the
/// connection of a client that has more than its `max_inflight_messages`, by default 20.
const IN_FLIGHT_UNTOLD: u16 = 20;
/// Number of filters in a packet.
const FILTERS_AT_A_TIME: usize = 32;
/// Bytes read at a time.
const READ_BYTES: usize = 4 * 1024;

/// The properties in CONNACK of the other broker.
pub(super) struct BridgeGreeting {
    pub(super) remote: RemoteSide,
    pub(super) keep_alive_secs: u16,
    pub(super) receive_maximum: u16,
    /// The identifier of the other broker, if it has one for bridges.
    pub(super) broker: Option<Arc<str>>,
    /// Bytes that came behind CONNACK.
    pub(super) behind: Vec<u8>,
}

/// Why there is no greeting.
pub(super) struct NoGreeting {
    pub(super) fault: BridgeTrouble,
    /// Whether the bit of bridges may be the reason.
    pub(super) may_be_of_bit: bool,
}

impl From<BridgeTrouble> for NoGreeting {
    fn from(fault: BridgeTrouble) -> Self {
        Self { fault, may_be_of_bit: false }
    }
}

/// How a bridge introduces itself.
pub(super) struct BridgeIntroduction<'a> {
    pub(super) bridge: &'a Bridge,
    pub(super) client_id: &'a str,
    pub(super) limits: LocalLimits,
    /// The identifier of this broker.
    pub(super) broker: &'a str,
    /// Whether the bit of bridges is set, with MQTT 3.1.1.
    pub(super) has_bit: bool,
}

impl BridgeIntroduction<'_> {
    /// Sends CONNECT and waits for CONNACK.
    pub(super) async fn greet(
        &self,
        stream: &mut dyn BridgeStream,
    ) -> Result<BridgeGreeting, NoGreeting> {
        let version = self.bridge.options.version;
        let mut bytes = Vec::new();
        let mut properties = UserPropertiesBuf::new();
        // Without marks the CONNECT is the one of an ordinary client.
        if self.bridge.options.marks_loops {
            let _ = properties.push(BROKER_PROPERTY, self.broker); // it is short
        }
        let connect = Packet::Connect(Box::new(self.connect(properties.as_user_properties())));
        let too_long = |_| BridgeTrouble::new(TroubleKind::ConnectRefused, "CONNECT is too long");
        encode(&connect, version, &mut bytes).map_err(too_long)?;
        let sent = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        // A broker that does not know the bit of bridges may close the connection without an answer.
        let closed = |error| NoGreeting {
            fault: BridgeTrouble::new(TroubleKind::Closed, error),
            may_be_of_bit: self.has_bit,
        };
        sent.await.map_err(closed)?;
        let mut received = Vec::new();
        if !read_more(stream, &mut received).await.map_err(closed)? {
            let why = "the other broker closed the connection before CONNACK";
            return Err(closed(std::io::Error::other(why)));
        }
        self.read_conn_ack(stream, received).await
    }

    async fn read_conn_ack(
        &self,
        stream: &mut dyn BridgeStream,
        mut received: Vec<u8>,
    ) -> Result<BridgeGreeting, NoGreeting> {
        let version = self.bridge.options.version;
        // Nothing but CONNACK is expected, so a small bound is enough.
        let limits =
            DecodeLimits { packet_bytes_max: CONN_ACK_BYTES_MAX, ..DecodeLimits::default() };
        loop {
            match decode(&received, version, &limits)
                .map_err(|error| BridgeTrouble::malformed(&error))?
            {
                Decoded::Packet { packet: Packet::ConnAck(ack), length } => {
                    // What follows CONNACK in the same read must not be lost.
                    let behind = received[length..].to_vec();
                    return self.accept(&ack, behind);
                }
                Decoded::Packet { .. } => {
                    let why = "another packet came in place of CONNACK";
                    return Err(BridgeTrouble::new(TroubleKind::ProtocolError, why).into());
                }
                Decoded::More { .. } => {}
            }
            if !read_more(stream, &mut received)
                .await
                .map_err(|error| BridgeTrouble::new(TroubleKind::Closed, error))?
            {
                let why = "the other broker closed the connection within CONNACK";
                return Err(BridgeTrouble::new(TroubleKind::Closed, why).into());
            }
        }
    }

    fn accept(&self, ack: &ConnAck<'_>, behind: Vec<u8>) -> Result<BridgeGreeting, NoGreeting> {
        let options = &self.bridge.options;
        // Some brokers answer the bit of bridges with "unsupported protocol version".
        if ack.reason != ReasonCode::Success {
            let what = "the other broker refused the connection";
            let fault = BridgeTrouble::of_reason(TroubleKind::ConnectRefused, what, ack.reason);
            let may_be_of_bit =
                self.has_bit && ack.reason == ReasonCode::UnsupportedProtocolVersion;
            return Err(NoGreeting { fault, may_be_of_bit });
        }
        let said = &ack.properties;
        // Without the property, all are supported. [MQTT 5.0, 3.2.2.3.4]
        let qos_max = said.maximum_qos.and_then(QoS::from_number).unwrap_or(QoS::ExactlyOnce);
        let bytes_max = said.maximum_packet_size.unwrap_or(u32::MAX);
        let remote = RemoteSide {
            version: options.version,
            session_present: ack.session_present,
            qos_max,
            // Only if both sides agree, because a refused RETAIN would end the connection.
            takes_retain: options.retain && said.retain_available.unwrap_or(true),
            packet_bytes_max: bytes_max.min(options.packet_bytes_max.unwrap_or(u32::MAX)),
            // Neither No Local nor the bit of bridges keeps its own messages from coming back.
            returns_messages: !options.version.has_properties() && !self.has_bit,
        };
        // Before MQTT 5.0 a broker cannot say how many it takes.
        let default_max = match options.version.has_properties() {
            true => self.limits.in_flight_max,
            false => IN_FLIGHT_UNTOLD.min(self.limits.in_flight_max),
        };
        let in_flight_max = options.in_flight_max.unwrap_or(default_max);
        // The other broker tells its own identifier in CONNACK, by which a loop is found.
        let mut own = said.user_properties.iter().filter(|(name, _)| *name == BROKER_PROPERTY);
        Ok(BridgeGreeting {
            remote,
            // A server that turns Keep Alive off is asked all the same, so that its loss is found.
            keep_alive_secs: said
                .server_keep_alive
                .filter(|secs| *secs > 0)
                .unwrap_or(options.keep_alive_secs),
            receive_maximum: said.receive_maximum.unwrap_or(u16::MAX).min(in_flight_max),
            broker: own.next().map(|(_, broker)| broker.into()),
            behind,
        })
    }

    fn connect<'c>(&'c self, user_properties: UserProperties<'c>) -> Connect<'c> {
        let Self { bridge, limits, .. } = self;
        let BridgeOptions { version, clean_start, .. } = bridge.options;
        let is_v5 = version.has_properties();
        // With Clean Start nothing of the session is used again, so it ends with its connection.
        let expiry_secs = if clean_start { 0 } else { bridge.options.session_expiry_secs };
        let receive_maximum = bridge.options.in_flight_max.unwrap_or(limits.receive_maximum);
        let properties = ConnectProperties {
            session_expiry_interval: Some(expiry_secs),
            receive_maximum: Some(receive_maximum.min(limits.receive_maximum)),
            maximum_packet_size: Some(limits.packet_bytes_max),
            user_properties,
            ..ConnectProperties::default()
        };
        Connect {
            version,
            is_bridge: self.has_bit,
            clean_start,
            keep_alive: bridge.options.keep_alive_secs,
            client_id: self.client_id,
            // The Will tells subscribers there that the bridge is gone, also if this broker has no
            // time to say so.
            will: status_topic(&bridge.options).map(|topic| LastWill {
                topic,
                payload: b"0",
                qos: QoS::AtMostOnce,
                retain: true,
                properties: WillProperties::default(),
            }),
            username: bridge.credentials.username.as_deref(),
            password: bridge.credentials.password.as_ref().map(|text| text.as_str().as_bytes()),
            properties: if is_v5 { properties } else { ConnectProperties::default() },
        }
    }
}

/// Returns the topic of the state at the other broker, if there is one.
pub(super) fn status_topic(options: &BridgeOptions) -> Option<&str> {
    Some(&*options.status_topic).filter(|topic| !topic.is_empty())
}

/// Returns the message that tells the state at the other broker.
pub(super) fn status(topic: &str, is_connected: bool) -> Packet<'_> {
    Packet::Publish(Publish {
        flags: PublishFlags { dup: false, qos: QoS::AtMostOnce, retain: true },
        topic,
        packet_id: None,
        properties: PublishProperties::default(),
        payload: if is_connected { b"1" } else { b"0" },
    })
}

/// Reads the available bytes, at least one; returns `false` at the end of the stream.
pub(super) async fn read_more<S: AsyncRead + Unpin + ?Sized>(
    stream: &mut S,
    received: &mut Vec<u8>,
) -> std::io::Result<bool> {
    if received.capacity() - received.len() < READ_BYTES {
        received.reserve(READ_BYTES);
    }
    Ok(stream.read_buf(received).await? > 0)
}

/// The packets that subscribe a bridge; their Packet Identifiers go down from the highest, far from
/// those of messages.
pub(super) struct Subscribing {
    next_id: u16,
}

impl Default for Subscribing {
    fn default() -> Self {
        Self { next_id: u16::MAX }
    }
}

impl Subscribing {
    /// Appends the packets that subscribe to these filters; returns their number.
    pub(super) fn subscribe(
        &mut self,
        wishes: &[BridgeWish<'_>],
        version: ProtocolVersion,
        handling: impl Fn(RetainedOf) -> RetainHandling,
        out: &mut Vec<u8>,
    ) -> usize {
        // Many filters are divided, because a broker may limit the filters of one packet.
        let chunks = wishes.chunks(FILTERS_AT_A_TIME);
        let packets = chunks.len();
        for chunk in chunks {
            let filters = chunk.iter().map(|wish| SubscribeFilter {
                filter: wish.filter,
                options: SubscriptionOptions {
                    qos: wish.qos,
                    // No Local keeps messages of this bridge from coming back. [MQTT-3.8.3-3]
                    no_local: true,
                    // The retain flag is part of the message for the other side.
                    retain_as_published: true,
                    retain_handling: handling(wish.retained),
                },
            });
            let packet = Packet::Subscribe(Subscribe {
                packet_id: self.next_id(),
                properties: SubscribeProperties::default(),
                filters: filters.collect(),
            });
            let encoded = encode(&packet, version, out);
            debug_assert!(encoded.is_ok(), "filters were checked");
        }
        packets
    }

    /// Appends the packets that end the subscriptions to these filters; returns their number.
    pub(super) fn unsubscribe(
        &mut self,
        filters: &[String],
        version: ProtocolVersion,
        out: &mut Vec<u8>,
    ) -> usize {
        let chunks = filters.chunks(FILTERS_AT_A_TIME);
        let packets = chunks.len();
        for chunk in chunks {
            let packet = Packet::Unsubscribe(Unsubscribe {
                packet_id: self.next_id(),
                user_properties: UserProperties::NONE,
                filters: chunk.iter().map(String::as_str).collect(),
            });
            let encoded = encode(&packet, version, out);
            debug_assert!(encoded.is_ok(), "filters were checked");
        }
        packets
    }

    fn next_id(&mut self) -> PacketId {
        let id = PacketId::new(self.next_id).unwrap_or(HIGHEST);
        self.next_id = self.next_id.wrapping_sub(1);
        id
    }
}

const HIGHEST: PacketId = PacketId(std::num::NonZeroU16::MAX);
