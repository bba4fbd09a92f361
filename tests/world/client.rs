//! A client's side of the protocol: its unfinished messages, and the answers that it must send.

use std::{collections::BTreeMap, sync::LazyLock};

use hearthmq::mqtt::{
    Ack, Packet, PacketId, Publish, PublishFlags, PublishProperties, QoS, ReasonCode,
    UserProperties, UserPropertiesBuf,
};

use crate::{line::Line, model::Sent};

/// The user property of messages that are traced, which makes no difference to anybody.
static TRACED: LazyLock<UserPropertiesBuf> = LazyLock::new(|| {
    let mut properties = UserPropertiesBuf::new();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    properties.push("traceparent", parent).expect("both are short");
    properties
});

/// Maximum number of QoS 1 and 2 messages that a client has in flight.
const OUTBOUND_MAX: u16 = 40;

#[derive(Default)]
pub(crate) struct Client {
    pub(crate) line: Option<Line>,
    pub(crate) reads: bool,
    pub(crate) answers_at_once: bool,
    /// If set, the next packet is sent in two pieces, the first of this length.
    pub(crate) halve: Option<usize>,
    /// Unfinished messages that were sent with QoS 1 and 2; they survive the connection.
    pub(crate) outbound: Vec<Outbound>,
    /// Answers that the client must send next, about messages of both directions.
    pub(crate) waiting: Vec<Waiting>,
    /// Topics by the broker's Topic Aliases.
    aliases_in: BTreeMap<u16, String>,
    /// Topics with an alias of the client: the first has alias 1.
    aliases_out: Vec<&'static str>,
    subscribes: u16,
}

pub(crate) struct Outbound {
    pub(crate) packet_id: u16,
    pub(crate) sent: Sent,
    pub(crate) is_released: bool,
}

/// Sorted by message, not by packet identifier, which may depend on thread timing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Waiting {
    pub(crate) payload: Vec<u8>,
    pub(crate) says: Says,
    pub(crate) packet_id: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Says {
    /// PUBACK
    Acked,
    /// PUBREC
    Received,
    /// PUBREL
    Release,
    /// PUBCOMP
    Complete,
}

impl Client {
    /// Starts a new connection on this line.
    pub(crate) fn begin(&mut self, line: Line) {
        self.line = Some(line);
        self.reads = true;
        self.halve = None;
        self.waiting.clear();
        self.aliases_in.clear();
        self.aliases_out.clear();
    }

    /// Returns a free packet identifier for a PUBLISH, unless too many messages are in flight.
    pub(crate) fn free_id(&self) -> Option<u16> {
        (1..=OUTBOUND_MAX).find(|id| self.outbound.iter().all(|o| o.packet_id != *id))
    }

    /// Returns a packet identifier for SUBSCRIBE or UNSUBSCRIBE.
    pub(crate) fn subscribe_id(&mut self) -> u16 {
        self.subscribes = self.subscribes % 1000 + 1;
        1000 + self.subscribes
    }

    /// Returns the Topic Alias of a topic, and whether it is new.
    pub(crate) fn alias(&mut self, topic: &'static str) -> (u16, bool) {
        if let Some(at) = self.aliases_out.iter().position(|known| *known == topic) {
            return (at as u16 + 1, false);
        }
        self.aliases_out.push(topic);
        (self.aliases_out.len() as u16, true)
    }

    /// Returns the topic of a PUBLISH from the broker.
    pub(crate) fn topic(&mut self, publish: &Publish<'_>) -> Result<String, String> {
        match publish.properties.topic_alias {
            None => Ok(publish.topic.to_owned()),
            Some(alias) if publish.topic.is_empty() => {
                self.aliases_in.get(&alias).cloned().ok_or_else(|| format!("no alias {alias}"))
            }
            Some(alias) => {
                self.aliases_in.insert(alias, publish.topic.to_owned());
                Ok(publish.topic.to_owned())
            }
        }
    }

    /// Adds an answer at the end of those to send.
    pub(crate) fn owes(&mut self, says: Says, packet_id: u16, payload: Vec<u8>) {
        self.waiting.push(Waiting { payload, says, packet_id });
        self.waiting.sort();
    }
}

pub(crate) fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("packet identifiers begin at one")
}

/// Returns a PUBLISH from the client.
pub(crate) fn publish(sent: &Sent, packet_id: Option<u16>, dup: bool) -> Publish<'_> {
    Publish {
        flags: PublishFlags { dup, qos: sent.qos, retain: sent.retain },
        topic: sent.topic,
        packet_id: packet_id.filter(|_| sent.qos > QoS::AtMostOnce).map(id),
        properties: PublishProperties {
            message_expiry_interval: sent.expiry_secs,
            user_properties: match is_traced(&sent.payload) {
                true => TRACED.as_user_properties(),
                false => UserProperties::NONE,
            },
            ..PublishProperties::default()
        },
        payload: &sent.payload,
    }
}

/// Returns whether a message of an MQTT 5 client is traced: a third of the small ones.
fn is_traced(payload: &[u8]) -> bool {
    payload.len() < 100 && payload.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 3 == 0
}

impl Waiting {
    pub(crate) fn packet(&self, is_refused: bool) -> Packet<'static> {
        let reason = if is_refused { ReasonCode::QuotaExceeded } else { ReasonCode::Success };
        let ack = Ack::with_reason(id(self.packet_id), reason);
        match self.says {
            Says::Acked => Packet::PubAck(ack),
            Says::Received => Packet::PubRec(ack),
            Says::Release => Packet::PubRel(Ack::success(id(self.packet_id))),
            Says::Complete => Packet::PubComp(Ack::success(id(self.packet_id))),
        }
    }
}

/// Returns an acknowledgement with success.
pub(crate) fn ack(packet_id: u16) -> Ack<'static> {
    Ack::success(id(packet_id))
}
