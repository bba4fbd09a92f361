//! State that belongs to one connection of a session and ends with it.

use super::{
    KeepAlive, KeepAliveAuthor, SharedPublication,
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

/// Settings of a connection, from CONNECT and the broker's limits.
#[derive(Clone, Copy, Debug)]
pub struct LinkSettings {
    /// The client's protocol version.
    pub version: ProtocolVersion,
    /// Whether all subscriptions of the client have No Local and Retain As Published.
    pub is_bridge: bool,
    /// Keep Alive that the client has asked for, in seconds.
    pub asked_keep_alive_secs: u16,
    /// Keep Alive at the beginning, in seconds.
    pub keep_alive_secs: u16,
    /// Limit on QoS 1 and 2 messages in flight to the client: its Receive Maximum, or the broker's
    /// own limit if that is lower.
    pub send_quota: u16,
    /// The broker's Receive Maximum.
    pub receive_maximum: u16,
    /// Maximum Packet Size of the client, in bytes.
    pub maximum_packet_size: u32,
    /// Topic Alias Maximum that the broker has announced.
    pub topic_aliases_in_max: u16,
    /// Topic Alias Maximum of the client, or the broker's own limit if that is lower.
    pub topic_aliases_out_max: u16,
    /// Request Problem Information of the client.
    pub problem_information: bool,
    /// Whether Session Expiry Interval was above zero in CONNECT.
    pub may_extend_expiry: bool,
}

/// Counts of the messages that a link has handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketCounts {
    /// PUBLISH packets that were encoded, by QoS.
    pub sent: [u32; 3],
    /// Queued messages that expired before they could be sent.
    pub expired: u32,
    /// Queued messages that are larger than the client's Maximum Packet Size.
    pub too_large: u32,
}

/// The traffic of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkTraffic {
    /// PUBLISH packets that were encoded for the client.
    pub messages_out: u64,
    /// Bytes of whole packets that were read.
    pub bytes_in: u64,
    /// Bytes that were written.
    pub bytes_out: u64,
}

/// A connection as its session sees it.
#[derive(Debug)]
pub struct Link {
    pub(super) settings: LinkSettings,
    pub(super) keep_alive: KeepAlive,
    pub(super) aliases_in: AliasesIn,
    pub(super) aliases_out: AliasesOut,
    /// Encoded packets that wait to be written to the socket.
    out: Output,
    /// From this number of unwritten bytes on, the broker stops reading from the client.
    unwritten_max: usize,
    /// Counts since the last call of [`Link::take_tally`].
    pub(super) tally: PacketCounts,
    /// Counted for each read and each write, not for each message.
    traffic: LinkTraffic,
    /// Number of QoS 1 and 2 messages of this connection that are not acknowledged.
    pub(super) unacknowledged: u16,
    /// Packets that wait for their tickets.
    gate: Option<Box<Gate>>,
    /// Encoded output that waits for its ticket.
    gated: Option<GatedOutput>,
    /// Messages wait until the client's subscriptions are checked.
    withholds_messages: bool,
    /// The send quota that CONNECT and the broker's limits allow; `settings` has the one in force.
    send_quota_max: u16,
    /// The origin of the last change of the Keep Alive; few connections have one.
    keep_alive_change: Option<Box<KeepAliveAuthor>>,
}

/// Output that must not be sent before a ticket is stored.
#[derive(Clone, Copy, Debug)]
struct GatedOutput {
    /// The ticket that must be stored before this output is sent.
    until: Ticket,
    /// Number of unwritten bytes before it, which may be sent.
    sayable: usize,
    /// Whether CONNACK is part of it.
    is_conn_ack: bool,
}

/// Maximum number of bytes that are encoded ahead of the socket. Further messages wait in the
/// queue, where subscribers share them and limits count them.
const OUT_BYTES_AHEAD: usize = 64 * 1024;
/// Maximum number of bytes of answers, beside the messages, that wait for a client that does not
/// read them. Until it reads, the broker does not read its packets.
const ANSWER_BYTES_AHEAD: usize = 64 * 1024;

impl LinkSettings {
    /// Returns the options of a subscription: those from SUBSCRIBE, and those of a bridge. No Local
    /// is not for shared subscriptions. [MQTT-3.8.3-4]
    #[must_use]
    pub const fn options_of(
        &self,
        asked: SubscriptionOptions,
        is_shared: bool,
    ) -> SubscriptionOptions {
        SubscriptionOptions {
            // A bridge subscribes with No Local and Retain As Published, which MQTT 3 cannot ask for.
            no_local: asked.no_local || (self.is_bridge && !is_shared),
            retain_as_published: asked.retain_as_published || self.is_bridge,
            ..asked
        }
    }
}

impl Link {
    /// Creates the link of a connection that begins at `now` with its CONNECT.
    #[must_use]
    pub fn new(settings: LinkSettings, keep_alive: KeepAlive) -> Self {
        Self {
            keep_alive,
            // Aliases end with their connection. [MQTT-3.3.2-7]
            aliases_in: AliasesIn::new(settings.topic_aliases_in_max),
            aliases_out: AliasesOut::new(settings.topic_aliases_out_max),
            out: Output::default(),
            unwritten_max: OUT_BYTES_AHEAD + ANSWER_BYTES_AHEAD,
            tally: PacketCounts::default(),
            traffic: LinkTraffic::default(),
            unacknowledged: 0,
            gate: None,
            gated: None,
            withholds_messages: false,
            keep_alive_change: None,
            send_quota_max: settings.send_quota,
            settings,
        }
    }

    /// Returns the settings from CONNECT.
    #[must_use]
    pub const fn settings(&self) -> &LinkSettings {
        &self.settings
    }

    /// Returns the protocol version.
    #[must_use]
    pub const fn version(&self) -> ProtocolVersion {
        self.settings.version
    }

    /// Returns the Keep Alive.
    #[must_use]
    pub const fn keep_alive(&self) -> &KeepAlive {
        &self.keep_alive
    }

    /// Returns the Keep Alive.
    pub const fn keep_alive_mut(&mut self) -> &mut KeepAlive {
        &mut self.keep_alive
    }

    /// Notes the author of a change of the Keep Alive.
    pub fn note_keep_alive_change(&mut self, change: KeepAliveAuthor) {
        self.keep_alive_change = Some(Box::new(change));
    }

    /// Returns the author of the last change of this connection's Keep Alive, if it was changed.
    #[must_use]
    pub fn keep_alive_change(&self) -> Option<&KeepAliveAuthor> {
        self.keep_alive_change.as_deref()
    }

    /// Limits the messages in flight to the client further, or ends that. The limit is never above the
    /// client's Receive Maximum. [MQTT-3.3.4-9]
    pub fn limit_in_flight(&mut self, max: Option<u16>) {
        self.settings.send_quota =
            max.map_or(self.send_quota_max, |max| max.min(self.send_quota_max));
    }

    /// Returns the buffer that packets are encoded into.
    pub const fn out_mut(&mut self) -> &mut Vec<u8> {
        self.out.bytes_mut()
    }

    /// Returns whether there is output that is not written, or that is written and perhaps not
    /// flushed yet because [`Link::take_written`] was not called since.
    #[must_use]
    pub const fn has_output(&self) -> bool {
        !self.out.is_empty() && self.gated.is_none()
    }

    /// Returns whether there is output to write, now or after its ticket is stored.
    #[must_use]
    pub const fn has_pending(&self) -> bool {
        !self.out.is_empty() || self.gate.is_some()
    }

    /// Makes output that is added from now on wait until this ticket is stored. Output that is there
    /// already may be sent before.
    pub fn gate_output(&mut self, until: Ticket) {
        let sayable = self.out.unwritten();
        let gated_output =
            self.gated.get_or_insert(GatedOutput { until, sayable, is_conn_ack: false });
        gated_output.until = gated_output.until.max(until);
    }

    /// Makes CONNACK, which must be the only output, and all later output wait until this ticket is
    /// stored.
    pub const fn gate_conn_ack(&mut self, until: Ticket) {
        self.gated = Some(GatedOutput { until, sayable: 0, is_conn_ack: true });
    }

    /// Returns whether CONNACK still waits.
    #[must_use]
    pub const fn awaits_conn_ack(&self) -> bool {
        matches!(self.gated, Some(GatedOutput { is_conn_ack: true, .. }))
    }

    /// Releases output: all tickets up to this one are stored. Returns whether CONNACK may be sent
    /// from now on.
    pub fn open_gate(&mut self, stored: Ticket) -> bool {
        let opened = self.gated.take_if(|gated| gated.until <= stored);
        if let Some(gate) = &mut self.gate {
            gate.open(stored, self.out.bytes_mut());
            self.gate.take_if(|gate| gate.is_empty());
        }
        opened.is_some_and(|gated| gated.is_conn_ack)
    }

    /// Returns the encoded packets that are not written: one piece, plus one for each large
    /// payload, which stays in a buffer that all its subscribers share.
    pub fn output(&self) -> impl Iterator<Item = &[u8]> {
        self.out.pieces()
    }

    /// Returns the number of bytes that are to be written of the packets that are encoded by now, and that
    /// no ticket holds back. A packet ends there.
    #[must_use]
    pub fn unwritten_bytes(&self) -> usize {
        self.gated.map_or_else(|| self.out.unwritten(), |gated| gated.sayable)
    }

    /// Notes that this number of further bytes is written.
    pub fn note_written(&mut self, bytes: usize) {
        self.out.advance(bytes);
        self.traffic.bytes_out += bytes as u64;
    }

    /// Takes the buffer away once all of it is written, so that an idle connection has no buffer.
    pub fn take_written(&mut self) -> Vec<u8> {
        self.unwritten_max = OUT_BYTES_AHEAD + ANSWER_BYTES_AHEAD;
        self.out.take_written()
    }

    /// Takes the output that is not written and may be sent.
    pub fn take_unwritten(&mut self) -> Vec<u8> {
        self.drop_gated();
        self.out.take_unwritten()
    }

    /// Drops output that waits for its ticket: the connection ends, so it can never be sent.
    fn drop_gated(&mut self) {
        if let Some(gated) = self.gated.take() {
            let mut sayable = self.out.take_unwritten();
            sayable.truncate(gated.sayable);
            *self.out.bytes_mut() = sayable;
        }
    }

    /// Returns the counts since the last call, and resets them.
    pub fn take_tally(&mut self) -> PacketCounts {
        let [at_most_once, at_least_once, exactly_once] = self.tally.sent;
        self.traffic.messages_out += u64::from(at_most_once + at_least_once + exactly_once);
        std::mem::take(&mut self.tally)
    }

    /// Notes that packets of this number of bytes were read.
    pub const fn note_read(&mut self, bytes: usize) {
        self.traffic.bytes_in += bytes as u64;
    }

    /// Returns the numbers of messages and bytes that have passed over the connection.
    #[must_use]
    pub const fn traffic(&self) -> LinkTraffic {
        self.traffic
    }

    /// Returns whether another message may be encoded ahead of the socket.
    #[inline]
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.unwritten() < OUT_BYTES_AHEAD && !self.withholds_messages
    }

    /// Makes all messages wait, or lets them go on: while they wait, it is checked whether the
    /// client may still have its subscriptions.
    pub const fn withhold_messages(&mut self, withholds_messages: bool) {
        self.withholds_messages = withholds_messages;
    }

    /// Returns whether the broker may read more from the client, because the client reads its
    /// answers. Messages alone, however large and however slowly the client reads them, never make
    /// it `false`.
    #[must_use]
    pub fn may_read(&self) -> bool {
        self.unwritten() < self.unwritten_max
    }

    fn unwritten(&self) -> usize {
        let gated = self.gate.as_ref().map_or(0, |gate| gate.len());
        self.out.unwritten() + gated
    }

    /// Sends a message, once its gate allows. The caller has checked that the client accepts its
    /// size.
    pub(super) fn send_publish(
        &mut self,
        message: &mut SharedPublication<'_>,
        how: &PublishAs<'_>,
        gate: Option<Ticket>,
    ) {
        // Bytes that are written make room before the buffer grows.
        self.out.reclaim(OUT_BYTES_AHEAD);
        let version = self.settings.version;
        // Output that waits behind a gate has one buffer, including payloads.
        let is_apart = gate.is_none() && message.has_large_payload();
        // In the gate, the message waits in the order of tickets, and nothing may be sent before it.
        let out = match gate {
            None => self.out.bytes_mut(),
            Some(ticket) => self.gate.get_or_insert_default().before(ticket),
        };
        // The length field counts the payload even where it is appended apart.
        let payload = if is_apart { &[] } else { message.publication.payload };
        encode_publish_with(out, version, &message.publication, how, payload);
        if is_apart {
            self.out.push_apart(message.allocate().payload_bytes());
        }
        // The bound on output moves with the message, so that a large one does not stop the reading.
        self.unwritten_max = self.unwritten().max(OUT_BYTES_AHEAD) + ANSWER_BYTES_AHEAD;
        // Noted after encoding, because the alias is defined only if the message is sent.
        self.aliases_out.defined(message.publication.topic, how.topic_alias);
        self.tally.sent[usize::from(how.flags.qos.number())] += 1;
    }

    /// Sends a packet of the broker. Leaves out Reason String and User Properties if they would
    /// make it larger than the client accepts. Does not send a packet that is too large even
    /// without them.
    pub fn send(&mut self, packet: &Packet<'_>) {
        self.try_send(packet);
    }

    /// Sends a packet like [`Link::send`]; returns whether it was sent.
    pub fn try_send(&mut self, packet: &Packet<'_>) -> bool {
        self.out.reclaim(OUT_BYTES_AHEAD);
        let LinkSettings { version, maximum_packet_size, .. } = self.settings;
        let sent = encode_within(packet, version, maximum_packet_size, self.out.bytes_mut());
        debug_assert!(sent.is_ok(), "the broker's own packets can be said");
        sent == Ok(true)
    }

    /// Returns the last ticket that output waits for.
    #[inline]
    pub(super) fn last_gate(&self) -> Option<Ticket> {
        self.gate.as_ref()?.last()
    }

    /// Sends an acknowledgement once this ticket is stored, behind acknowledgements that already
    /// wait: acknowledgements keep the order of the packets they acknowledge. [MQTT-4.6.0-2]
    #[inline]
    pub(super) fn send_in_turn(&mut self, packet: &Packet<'_>, gate: Option<Ticket>) {
        match gate.max(self.last_gate()) {
            None => self.send(packet),
            Some(ticket) => self.send_behind(packet, ticket),
        }
    }

    #[inline(never)]
    fn send_behind(&mut self, packet: &Packet<'_>, ticket: Ticket) {
        let LinkSettings { version, maximum_packet_size, .. } = self.settings;
        let out = self.gate.get_or_insert_default().before(ticket);
        let sent = encode_within(packet, version, maximum_packet_size, out);
        debug_assert!(sent.is_ok(), "the broker's own packets can be said");
    }

    /// Returns a Reason String, if the client wants one. [MQTT-3.1.2-29]
    #[must_use]
    pub const fn reason_string<'a>(&self, why: Option<&'a str>) -> AckProperties<'a> {
        let reason_string = if self.settings.problem_information { why } else { None };
        AckProperties { reason_string, ..AckProperties::NONE }
    }

    /// Sends DISCONNECT if the version has it. If CONNACK was not sent, sends a CONNACK that
    /// refuses instead: DISCONNECT may only follow CONNACK. [MQTT-3.14.0-1]
    pub(super) fn send_disconnect(&mut self, reason: ReasonCode, why: Option<&str>) {
        if self.awaits_conn_ack() {
            self.send_refusal(reason, why, None);
            return;
        }
        // Output that waits for the store could only follow DISCONNECT. [MQTT-3.14.4-1]
        self.drop_gated();
        if self.settings.version.has_properties() {
            let reason_string = why.filter(|_| self.settings.problem_information);
            let properties = DisconnectProperties { reason_string, ..Default::default() };
            self.send(&Packet::Disconnect(Disconnect { reason, properties }));
        }
    }

    /// Sends DISCONNECT with a Server Reference, or without it if it is too long for the client.
    pub(super) fn send_redirection(&mut self, reason: ReasonCode, server_reference: &str) {
        if self.awaits_conn_ack() {
            // Without the reference, the client at least learns the reason.
            if !self.send_refusal(reason, None, Some(server_reference)) {
                self.send_refusal(reason, None, None);
            }
            return;
        }
        self.drop_gated();
        if self.settings.version.has_properties() {
            let server_reference = Some(server_reference);
            let properties = DisconnectProperties { server_reference, ..Default::default() };
            if !self.try_send(&Packet::Disconnect(Disconnect { reason, properties })) {
                self.send_disconnect(reason, None);
            }
        }
    }

    /// Sends a CONNACK that refuses in place of the one that waits; returns whether it was sent.
    fn send_refusal(
        &mut self,
        reason: ReasonCode,
        why: Option<&str>,
        server_reference: Option<&str>,
    ) -> bool {
        self.drop_gated();
        let properties =
            ConnAckProperties { reason_string: why, server_reference, ..Default::default() };
        let reason = reason.in_conn_ack();
        let ack = ConnAck { session_present: false, reason, properties }; // [MQTT-3.2.2-6]
        self.try_send(&Packet::ConnAck(Box::new(ack)))
    }
}
