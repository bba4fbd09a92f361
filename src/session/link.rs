//! What belongs to one connection of a session and ends with it.

use super::{
    KeepAlive, SharedPublication,
    alias::{AliasesIn, AliasesOut},
    gate::Gate,
    output::Output,
};
use crate::{
    journal::Ticket,
    mqtt::{
        AckProperties, ConnAck, ConnAckProperties, Disconnect, DisconnectProperties, Packet,
        ProtocolVersion, PublishAs, ReasonCode, SubscriptionOptions, encode_publish_with,
        encode_within,
    },
};

/// What CONNECT and the broker's limits settled for a connection.
#[derive(Clone, Copy, Debug)]
pub struct LinkSettings {
    /// The version that the client speaks.
    pub version: ProtocolVersion,
    /// Whether all subscriptions of the client have No Local and Retain As Published.
    pub is_bridge: bool,
    /// Keep Alive in force at the beginning, in seconds.
    pub keep_alive_secs: u16,
    /// QoS 1 and 2 messages that may be on their way to the client: its Receive Maximum, or the
    /// broker's own bound if that is lower.
    pub send_quota: u16,
    /// The broker's Receive Maximum.
    pub receive_maximum: u16,
    /// Maximum Packet Size of the client, in bytes.
    pub maximum_packet_size: u32,
    /// Topic Alias Maximum that the broker has announced.
    pub topic_aliases_in_max: u16,
    /// Topic Alias Maximum of the client, or the broker's own bound if that is lower.
    pub topic_aliases_out_max: u16,
    /// Request Problem Information of the client.
    pub problem_information: bool,
    /// Whether Session Expiry Interval was above zero in CONNECT.
    pub may_extend_expiry: bool,
}

/// What a link has done with messages, to be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// PUBLISH packets that were encoded, by QoS.
    pub sent: [u32; 3],
    /// Queued messages that have expired before their turn.
    pub expired: u32,
    /// Queued messages that are larger than the client's Maximum Packet Size.
    pub too_large: u32,
}

/// A connection as its session sees it.
#[derive(Debug)]
pub struct Link {
    pub(super) settings: LinkSettings,
    pub(super) keep_alive: KeepAlive,
    pub(super) aliases_in: AliasesIn,
    pub(super) aliases_out: AliasesOut,
    /// Encoded packets that are to be written to the socket.
    out: Output,
    /// From so many unwritten bytes on, the client is read no further.
    unwritten_max: usize,
    /// What was done since somebody last asked.
    pub(super) tally: Tally,
    /// How many QoS 1 and 2 messages of this connection are not acknowledged.
    pub(super) unacknowledged: u16,
    /// What must not be said yet.
    gate: Option<Box<Gate>>,
    /// What is encoded and must not be said yet.
    held: Option<Held>,
}

/// Output that must not be said before a ticket is kept.
#[derive(Clone, Copy, Debug)]
struct Held {
    until: Ticket,
    /// So many bytes before it may be said.
    sayable: usize,
    /// CONNACK is among it.
    is_conn_ack: bool,
}

/// Up to so many bytes are encoded ahead of the socket; what comes then waits in the queue,
/// where it is shared with the other subscribers and counted.
const OUT_BYTES_AHEAD: usize = 64 * 1024;
/// Up to so many bytes of answers are kept, beside the messages, for a client that does not take
/// them. It is not asked for more until it does.
const ANSWER_BYTES_AHEAD: usize = 64 * 1024;

impl LinkSettings {
    /// Returns the options of a subscription: those that SUBSCRIBE asks for, and a bridge's. No Local
    /// is not for shared subscriptions. [MQTT-3.8.3-4]
    #[must_use]
    pub const fn options_of(
        &self,
        asked: SubscriptionOptions,
        is_shared: bool,
    ) -> SubscriptionOptions {
        SubscriptionOptions {
            no_local: asked.no_local || (self.is_bridge && !is_shared),
            retain_as_published: asked.retain_as_published || self.is_bridge,
            ..asked
        }
    }
}

impl Link {
    /// A connection that begins at `now` with its CONNECT.
    #[must_use]
    pub fn new(settings: LinkSettings, keep_alive: KeepAlive) -> Self {
        Self {
            keep_alive,
            aliases_in: AliasesIn::new(settings.topic_aliases_in_max),
            aliases_out: AliasesOut::new(settings.topic_aliases_out_max),
            out: Output::default(),
            unwritten_max: OUT_BYTES_AHEAD + ANSWER_BYTES_AHEAD,
            tally: Tally::default(),
            unacknowledged: 0,
            gate: None,
            held: None,
            settings,
        }
    }

    /// What CONNECT settled.
    #[must_use]
    pub const fn settings(&self) -> &LinkSettings {
        &self.settings
    }

    /// The protocol version.
    #[must_use]
    pub const fn version(&self) -> ProtocolVersion {
        self.settings.version
    }

    /// Keep Alive.
    #[must_use]
    pub const fn keep_alive(&self) -> &KeepAlive {
        &self.keep_alive
    }

    /// Keep Alive.
    pub const fn keep_alive_mut(&mut self) -> &mut KeepAlive {
        &mut self.keep_alive
    }

    /// The buffer that packets are encoded into.
    pub const fn out_mut(&mut self) -> &mut Vec<u8> {
        self.out.bytes_mut()
    }

    /// Whether there is something to be written, or something that was written and perhaps not
    /// flushed yet: [`Link::take_written`] has not been called.
    #[must_use]
    pub const fn has_output(&self) -> bool {
        !self.out.is_empty() && self.held.is_none()
    }

    /// Whether something is to be written, now or once it may be said.
    #[must_use]
    pub const fn has_pending(&self) -> bool {
        !self.out.is_empty() || self.gate.is_some()
    }

    /// Nothing of what is to be written now, and nothing that comes, is said before this is kept.
    pub fn hold_output(&mut self, until: Ticket) {
        let sayable = self.out.unwritten();
        let held = self.held.get_or_insert(Held { until, sayable, is_conn_ack: false });
        held.until = held.until.max(until);
    }

    /// Holds CONNACK, which is all that is to be written, and what follows until this is kept.
    pub const fn hold_conn_ack(&mut self, until: Ticket) {
        self.held = Some(Held { until, sayable: 0, is_conn_ack: true });
    }

    /// Returns whether the client must not hear its CONNACK yet.
    #[must_use]
    pub const fn awaits_conn_ack(&self) -> bool {
        matches!(self.held, Some(Held { is_conn_ack: true, .. }))
    }

    /// All up to this is kept and may be said. Returns whether CONNACK may be said from now on.
    pub fn open_gate(&mut self, kept: Ticket) -> bool {
        let opened = self.held.take_if(|held| held.until <= kept);
        if let Some(gate) = &mut self.gate {
            gate.open(kept, self.out.bytes_mut());
            self.gate.take_if(|gate| gate.is_empty());
        }
        opened.is_some_and(|held| held.is_conn_ack)
    }

    /// The encoded packets that are not written, piece by piece: one, unless there are large
    /// payloads, which lie where all their subscribers share them.
    pub fn output(&self) -> impl Iterator<Item = &[u8]> {
        self.out.pieces()
    }

    /// Notes that so many bytes more of the output are written.
    pub fn note_written(&mut self, bytes: usize) {
        self.out.advance(bytes);
    }

    /// Takes the buffer away once all of it is written, so that an idle connection holds none.
    pub fn take_written(&mut self) -> Vec<u8> {
        self.unwritten_max = OUT_BYTES_AHEAD + ANSWER_BYTES_AHEAD;
        self.out.take_written()
    }

    /// Takes what is still to be written and may be said.
    pub fn take_unwritten(&mut self) -> Vec<u8> {
        self.drop_held();
        self.out.take_unwritten()
    }

    /// Drops what must not be said yet: the connection ends, and it never can be.
    fn drop_held(&mut self) {
        if let Some(held) = self.held.take() {
            let mut sayable = self.out.take_unwritten();
            sayable.truncate(held.sayable);
            *self.out.bytes_mut() = sayable;
        }
    }

    /// What was done since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Whether another message may be encoded ahead of the socket.
    pub(super) fn has_room(&self) -> bool {
        self.unwritten() < OUT_BYTES_AHEAD
    }

    /// Whether the client may ask for more: it takes what it is answered. Messages alone, however
    /// large and however slowly they are taken, never make it `false`.
    #[must_use]
    pub fn may_read(&self) -> bool {
        self.unwritten() < self.unwritten_max
    }

    fn unwritten(&self) -> usize {
        let gated = self.gate.as_ref().map_or(0, |gate| gate.len());
        self.out.unwritten() + gated
    }

    /// Sends a message, once it may be said; the caller knows that the client accepts its size.
    pub(super) fn send_publish(
        &mut self,
        message: &mut SharedPublication<'_>,
        how: &PublishAs<'_>,
        gate: Option<Ticket>,
    ) {
        self.out.reclaim(OUT_BYTES_AHEAD);
        let version = self.settings.version;
        // What waits behind a gate has one buffer, payloads included.
        let apart = if gate.is_none() { message.large_payload() } else { None };
        let out = match gate {
            None => self.out.bytes_mut(),
            Some(ticket) => self.gate.get_or_insert_default().before(ticket),
        };
        let payload = if apart.is_none() { message.publication.payload } else { &[] };
        encode_publish_with(out, version, &message.publication, how, payload);
        if let Some(payload) = apart {
            self.out.push_apart(payload);
        }
        self.unwritten_max = self.unwritten().max(OUT_BYTES_AHEAD) + ANSWER_BYTES_AHEAD;
        self.aliases_out.defined(message.publication.topic, how.topic_alias);
        self.tally.sent[usize::from(how.flags.qos.number())] += 1;
    }

    /// Sends a packet of the broker's. Reason String and User Properties are left out where they
    /// would make it larger than the client accepts; what is too large even so is not sent.
    pub fn send(&mut self, packet: &Packet<'_>) {
        self.try_send(packet);
    }

    /// The same; whether it was sent.
    pub fn try_send(&mut self, packet: &Packet<'_>) -> bool {
        self.out.reclaim(OUT_BYTES_AHEAD);
        let LinkSettings { version, maximum_packet_size, .. } = self.settings;
        let sent = encode_within(packet, version, maximum_packet_size, self.out.bytes_mut());
        debug_assert!(sent.is_ok(), "the broker's own packets can be said");
        sent == Ok(true)
    }

    /// The last ticket that something of what is to be written waits for.
    pub(super) fn last_gate(&self) -> Option<Ticket> {
        self.gate.as_ref()?.last()
    }

    /// Sends an acknowledgement once this ticket is kept, and behind those that wait for theirs:
    /// acknowledgements keep the order of what they acknowledge. [MQTT-4.6.0-2]
    pub(super) fn send_in_turn(&mut self, packet: &Packet<'_>, gate: Option<Ticket>) {
        let Some(ticket) = gate.max(self.last_gate()) else { return self.send(packet) };
        let LinkSettings { version, maximum_packet_size, .. } = self.settings;
        let out = self.gate.get_or_insert_default().before(ticket);
        let sent = encode_within(packet, version, maximum_packet_size, out);
        debug_assert!(sent.is_ok(), "the broker's own packets can be said");
    }

    /// Reason String, for a client that wants one. [MQTT-3.1.2-29]
    #[must_use]
    pub const fn reason_string<'a>(&self, why: Option<&'a str>) -> AckProperties<'a> {
        let reason_string = if self.settings.problem_information { why } else { None };
        AckProperties { reason_string, ..AckProperties::NONE }
    }

    /// Sends DISCONNECT where the version has one, or a CONNACK that refuses, if CONNACK was not said:
    /// DISCONNECT may only follow it. [MQTT-3.14.0-1]
    pub(super) fn send_disconnect(&mut self, reason: ReasonCode, why: Option<&str>) {
        if self.awaits_conn_ack() {
            self.send_refusal(reason, why, None);
            return;
        }
        self.drop_held();
        if self.settings.version.has_properties() {
            let reason_string = why.filter(|_| self.settings.problem_information);
            let properties = DisconnectProperties { reason_string, ..Default::default() };
            self.send(&Packet::Disconnect(Disconnect { reason, properties }));
        }
    }

    /// Sends DISCONNECT with a Server Reference, or without it where it is too long for the client.
    pub(super) fn send_redirection(&mut self, reason: ReasonCode, server_reference: &str) {
        if self.awaits_conn_ack() {
            if !self.send_refusal(reason, None, Some(server_reference)) {
                self.send_refusal(reason, None, None);
            }
            return;
        }
        self.drop_held();
        if self.settings.version.has_properties() {
            let server_reference = Some(server_reference);
            let properties = DisconnectProperties { server_reference, ..Default::default() };
            if !self.try_send(&Packet::Disconnect(Disconnect { reason, properties })) {
                self.send_disconnect(reason, None);
            }
        }
    }

    /// Sends a CONNACK that refuses in place of the one that is held; whether it was sent.
    fn send_refusal(
        &mut self,
        reason: ReasonCode,
        why: Option<&str>,
        server_reference: Option<&str>,
    ) -> bool {
        self.drop_held();
        let properties =
            ConnAckProperties { reason_string: why, server_reference, ..Default::default() };
        let reason = reason.in_conn_ack();
        let ack = ConnAck { session_present: false, reason, properties }; // [MQTT-3.2.2-6]
        self.try_send(&Packet::ConnAck(Box::new(ack)))
    }
}
