//! Encodes packets in the format of each protocol version.
//!
//! A packet is written twice: first to a [`ByteCount`], which computes its lengths and detects errors,
//! then to the buffer. So the same code computes lengths and writes bytes, an invalid packet writes
//! nothing, and the buffer is allocated once. Deliveries, the most frequent packets, have their own
//! path in `publish`. Called by sessions, and by in-process clients.

mod properties;
mod publish;

pub(super) use publish::PACKET_BYTES_MAX;
pub use publish::{PublishAs, TopicAlias, encode_publish, encode_publish_with, publish_size};

use properties::{Details, WriteProperties};

use super::sink::{ByteCount, Sink};
use super::wire::{PacketType, VARIABLE_BYTE_INTEGER_MAX, VariableByteInteger};
use super::{
    Ack, Auth, ConnAck, Connect, Disconnect, EncodeError, LastWill, Packet, ProtocolVersion,
    Publish, PublishFlags, QoS, ReasonCode, SubAck, Subscribe, SubscribeFilter,
    SubscriptionOptions, UnsubAck, Unsubscribe,
};

/// Appends `packet` to `out`. A CONNECT is written in the version that it names itself.
///
/// # Errors
/// The packet cannot be expressed in this version; `out` is unchanged.
pub fn encode(
    packet: &Packet<'_>,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if let Some(bytes) = plain_ack(packet) {
        out.extend_from_slice(&bytes);
        return Ok(());
    }
    let encoding = Encoding { version, details: Details::ALL };
    let remaining = encoding.remaining_length(packet)?;
    encoding.write(packet, remaining, out)
}

/// Returns the number of bytes that [`encode`] would append.
///
/// # Errors
/// As [`encode`].
pub fn encoded_size(packet: &Packet<'_>, version: ProtocolVersion) -> Result<usize, EncodeError> {
    let encoding = Encoding { version, details: Details::ALL };
    Ok(packet_size(encoding.remaining_length(packet)?))
}

/// Appends `packet` to `out` if it fits into `packet_bytes_max` bytes; returns whether it did.
///
/// To make a server's answer fit, User Properties and then the Reason String are omitted. This
/// applies to CONNACK, PUBACK to PUBCOMP, SUBACK, UNSUBACK, DISCONNECT and AUTH. [MQTT-3.2.2-19]
/// [MQTT-3.2.2-20] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.14.2-3] [MQTT-3.14.2-4] and similar
/// clauses; [MQTT-3.1.2-24] for all other packets.
///
/// # Errors
/// As [`encode`].
pub fn encode_within(
    packet: &Packet<'_>,
    version: ProtocolVersion,
    packet_bytes_max: u32,
    out: &mut Vec<u8>,
) -> Result<bool, EncodeError> {
    if let Some(bytes) = plain_ack(packet)
        && bytes.len() <= packet_bytes_max as usize
    {
        out.extend_from_slice(&bytes);
        return Ok(true);
    }
    encode_shortened(packet, version, packet_bytes_max, out)
}

#[inline(never)]
fn encode_shortened(
    packet: &Packet<'_>,
    version: ProtocolVersion,
    packet_bytes_max: u32,
    out: &mut Vec<u8>,
) -> Result<bool, EncodeError> {
    // First the User Properties are left out, then the Reason String. [MQTT-3.4.2-2] [MQTT-3.4.2-3]
    for details in [Details::ALL, Details::NO_USER_PROPERTIES, Details::NONE] {
        let encoding = Encoding { version, details };
        // Lengths are computed before the first byte, so a packet that does not fit writes nothing.
        let remaining = encoding.remaining_length(packet)?;
        if packet_size(remaining) <= packet_bytes_max as usize {
            encoding.write(packet, remaining, out)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns a successful acknowledgement without properties: the same four bytes in every version.
const fn plain_ack(packet: &Packet<'_>) -> Option<[u8; 4]> {
    let (packet_type, ack) = match packet {
        Packet::PubAck(ack) => (PacketType::PubAck, ack),
        Packet::PubRec(ack) => (PacketType::PubRec, ack),
        Packet::PubRel(ack) => (PacketType::PubRel, ack),
        Packet::PubComp(ack) => (PacketType::PubComp, ack),
        Packet::Connect(_)
        | Packet::ConnAck(_)
        | Packet::Publish(_)
        | Packet::Subscribe(_)
        | Packet::SubAck(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Disconnect(_)
        | Packet::Auth(_) => return None,
    };
    // Any other acknowledgement needs a Reason Code, and takes the general way.
    if !matches!(ack.reason, ReasonCode::Success) || !ack.properties.is_empty() {
        return None;
    }
    let [high, low] = ack.packet_id.number().to_be_bytes();
    Some([packet_type.first_byte(), 2, high, low])
}

/// Returns the size of a packet, from the number of bytes after its fixed header.
const fn packet_size(remaining: usize) -> usize {
    1 + VariableByteInteger::length_of(remaining) + remaining
}

/// Returns the first byte of a PUBLISH, with DUP, QoS and RETAIN (section 3.3.1).
#[inline]
const fn publish_first_byte(flags: PublishFlags) -> u8 {
    PacketType::Publish.first_byte()
        | (flags.dup as u8) << 3
        | flags.qos.number() << 1
        | flags.retain as u8
}

/// The format of a packet.
#[derive(Clone, Copy)]
struct Encoding {
    version: ProtocolVersion,
    details: Details,
}

impl Encoding {
    fn remaining_length(self, packet: &Packet<'_>) -> Result<usize, EncodeError> {
        let mut count = ByteCount::default();
        self.body(packet, &mut count)?;
        if count.bytes() > VARIABLE_BYTE_INTEGER_MAX as usize {
            return Err(EncodeError::PacketTooLarge);
        }
        Ok(count.bytes())
    }

    /// Writes header and body of a packet that was counted without an error.
    fn write(
        self,
        packet: &Packet<'_>,
        remaining: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        out.reserve(packet_size(remaining));
        out.u8(first_byte(packet));
        out.variable_byte_integer(remaining)?;
        self.body(packet, out)
    }

    fn body<S: Sink>(self, packet: &Packet<'_>, sink: &mut S) -> Result<(), EncodeError> {
        match packet {
            Packet::Connect(connect) => self.connect(connect, sink),
            Packet::ConnAck(connack) => self.connack(connack, sink),
            Packet::Publish(publish) => self.publish(publish, sink),
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => self.ack(ack, sink),
            Packet::Subscribe(subscribe) => self.subscribe(subscribe, sink),
            Packet::SubAck(suback) => self.suback(suback, sink),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe, sink),
            Packet::UnsubAck(unsuback) => self.unsuback(unsuback, sink),
            Packet::PingReq | Packet::PingResp => Ok(()),
            Packet::Disconnect(disconnect) => self.disconnect(disconnect, sink),
            Packet::Auth(auth) => self.auth(auth, sink),
        }
    }

    /// Writes Property Length and properties; nothing before MQTT 5.0.
    fn properties<S: Sink>(
        self,
        properties: &impl WriteProperties,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        if !self.version.has_properties() {
            return Ok(());
        }
        let mut count = ByteCount::default();
        properties.write(self.details, &mut count)?;
        sink.variable_byte_integer(count.bytes())?;
        properties.write(self.details, sink)
    }

    /// Returns whether there is no property to write.
    fn is_empty(self, properties: &impl WriteProperties) -> Result<bool, EncodeError> {
        let mut count = ByteCount::default();
        properties.write(self.details, &mut count)?;
        Ok(count.bytes() == 0)
    }

    /// Writes CONNECT (section 3.1).
    fn connect<S: Sink>(self, connect: &Connect<'_>, sink: &mut S) -> Result<(), EncodeError> {
        // CONNECT is encoded in the version that it names.
        let this = Self { version: connect.version, ..self };
        let name = if connect.version == ProtocolVersion::V3_1 { "MQIsdp" } else { "MQTT" };
        sink.string(name)?;
        // The bit of bridges is an extension of MQTT 3 only.
        if connect.is_bridge && connect.version.has_properties() {
            return Err(EncodeError::NotInThisVersion);
        }
        let bridge = if connect.is_bridge { 0x80 } else { 0 };
        sink.u8(connect.version.level() | bridge);
        sink.u8(connect_flags(connect)?);
        sink.u16(connect.keep_alive);
        this.properties(&connect.properties, sink)?;
        // The fields of the payload have a fixed order. [MQTT-3.1.3-1]
        sink.string(connect.client_id)?;
        if let Some(will) = &connect.will {
            this.properties(&will.properties, sink)?;
            sink.string(will.topic)?;
            sink.binary(will.payload)?;
        }
        if let Some(username) = connect.username {
            sink.string(username)?;
        }
        if let Some(password) = connect.password {
            sink.binary(password)?;
        }
        Ok(())
    }

    /// Writes CONNACK (section 3.2).
    fn connack<S: Sink>(self, connack: &ConnAck<'_>, sink: &mut S) -> Result<(), EncodeError> {
        // MQTT 3.1 has an unused byte here.
        let session_present = connack.session_present && self.version != ProtocolVersion::V3_1;
        sink.u8(u8::from(session_present));
        sink.u8(connack.reason.connect_return_code(self.version));
        self.properties(&connack.properties, sink)
    }

    /// Writes PUBLISH (section 3.3).
    fn publish<S: Sink>(self, publish: &Publish<'_>, sink: &mut S) -> Result<(), EncodeError> {
        sink.string(publish.topic)?;
        match (publish.flags.qos, publish.packet_id) {
            (QoS::AtMostOnce, None) => {}
            (QoS::AtLeastOnce | QoS::ExactlyOnce, Some(packet_id)) => sink.u16(packet_id.number()),
            (QoS::AtMostOnce, Some(_)) | (QoS::AtLeastOnce | QoS::ExactlyOnce, None) => {
                return Err(EncodeError::PacketIdMismatch); // [MQTT-2.2.1-2]
            }
        }
        self.properties(&publish.properties, sink)?;
        sink.put(publish.payload);
        Ok(())
    }

    /// Writes PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7).
    fn ack<S: Sink>(self, ack: &Ack<'_>, sink: &mut S) -> Result<(), EncodeError> {
        sink.u16(ack.packet_id.number());
        if !self.version.has_properties() {
            return Ok(());
        }
        let has_properties = !self.is_empty(&ack.properties)?;
        if has_properties || ack.reason != ReasonCode::Success {
            sink.u8(ack.reason.number());
        }
        if has_properties { self.properties(&ack.properties, sink) } else { Ok(()) }
    }

    /// Writes SUBSCRIBE (section 3.8).
    fn subscribe<S: Sink>(
        self,
        subscribe: &Subscribe<'_>,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        sink.u16(subscribe.packet_id.number());
        self.properties(&subscribe.properties, sink)?;
        for SubscribeFilter { filter, options } in &subscribe.filters {
            sink.string(filter)?;
            sink.u8(subscription_options(*options, self.version));
        }
        Ok(())
    }

    /// Writes SUBACK (section 3.9).
    fn suback<S: Sink>(self, suback: &SubAck<'_>, sink: &mut S) -> Result<(), EncodeError> {
        sink.u16(suback.packet_id.number());
        self.properties(&suback.properties, sink)?;
        for &reason in &suback.reasons {
            sink.u8(match self.version {
                ProtocolVersion::V3_1 if reason.is_failure() => QoS::AtMostOnce.number(),
                ProtocolVersion::V3_1_1 if reason.is_failure() => 0x80,
                ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 | ProtocolVersion::V5 => {
                    reason.number()
                }
            });
        }
        Ok(())
    }

    /// Writes UNSUBSCRIBE (section 3.10).
    fn unsubscribe<S: Sink>(
        self,
        unsubscribe: &Unsubscribe<'_>,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        sink.u16(unsubscribe.packet_id.number());
        self.properties(&unsubscribe.user_properties, sink)?;
        unsubscribe.filters.iter().try_for_each(|filter| sink.string(filter))
    }

    /// Writes UNSUBACK (section 3.11).
    fn unsuback<S: Sink>(self, unsuback: &UnsubAck<'_>, sink: &mut S) -> Result<(), EncodeError> {
        sink.u16(unsuback.packet_id.number());
        if self.version.has_properties() {
            self.properties(&unsuback.properties, sink)?;
            unsuback.reasons.iter().for_each(|reason| sink.u8(reason.number()));
        }
        Ok(())
    }

    /// Writes DISCONNECT (section 3.14).
    fn disconnect<S: Sink>(
        self,
        disconnect: &Disconnect<'_>,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        if !self.version.has_properties() {
            return Ok(());
        }
        let has_properties = !self.is_empty(&disconnect.properties)?;
        if has_properties || disconnect.reason != ReasonCode::Success {
            sink.u8(disconnect.reason.number());
        }
        if has_properties { self.properties(&disconnect.properties, sink) } else { Ok(()) }
    }

    /// Writes AUTH (section 3.15). Unlike in DISCONNECT, Property Length must follow the Reason
    /// Code.
    fn auth<S: Sink>(self, auth: &Auth<'_>, sink: &mut S) -> Result<(), EncodeError> {
        if !self.version.has_properties() {
            return Err(EncodeError::NotInThisVersion);
        }
        if auth.reason == ReasonCode::Success && self.is_empty(&auth.properties)? {
            return Ok(());
        }
        sink.u8(auth.reason.number());
        self.properties(&auth.properties, sink)
    }
}

/// Returns type and flags (section 2.1).
const fn first_byte(packet: &Packet<'_>) -> u8 {
    let packet_type = match packet {
        Packet::Publish(publish) => return publish_first_byte(publish.flags),
        Packet::Connect(_) => PacketType::Connect,
        Packet::ConnAck(_) => PacketType::ConnAck,
        Packet::PubAck(_) => PacketType::PubAck,
        Packet::PubRec(_) => PacketType::PubRec,
        Packet::PubRel(_) => PacketType::PubRel,
        Packet::PubComp(_) => PacketType::PubComp,
        Packet::Subscribe(_) => PacketType::Subscribe,
        Packet::SubAck(_) => PacketType::SubAck,
        Packet::Unsubscribe(_) => PacketType::Unsubscribe,
        Packet::UnsubAck(_) => PacketType::UnsubAck,
        Packet::PingReq => PacketType::PingReq,
        Packet::PingResp => PacketType::PingResp,
        Packet::Disconnect(_) => PacketType::Disconnect,
        Packet::Auth(_) => PacketType::Auth,
    };
    packet_type.first_byte()
}

/// Returns the Connect Flags (section 3.1.2.3).
fn connect_flags(connect: &Connect<'_>) -> Result<u8, EncodeError> {
    let has_properties = connect.version.has_properties();
    if connect.password.is_some() && connect.username.is_none() && !has_properties {
        return Err(EncodeError::NotInThisVersion); // [MQTT-3.1.2-22] of 3.1.1
    }
    let will = match &connect.will {
        Some(LastWill { qos, retain, .. }) => 0b100 | qos.number() << 3 | u8::from(*retain) << 5,
        None => 0,
    };
    Ok(u8::from(connect.username.is_some()) << 7
        | u8::from(connect.password.is_some()) << 6
        | will
        | u8::from(connect.clean_start) << 1)
}

/// Returns the Subscription Options byte (section 3.8.3.1).
const fn subscription_options(options: SubscriptionOptions, version: ProtocolVersion) -> u8 {
    let qos = options.qos.number();
    if !version.has_properties() {
        return qos;
    }
    qos | (options.no_local as u8) << 2
        | (options.retain_as_published as u8) << 3
        | (options.retain_handling as u8) << 4
}
