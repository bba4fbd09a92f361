//! The bytes that a connection has read: packets are decoded in place and handled one by one.

use bytes::Bytes;

use crate::{
    hooks::DisconnectReason,
    metrics::HoldReason,
    mqtt::{
        DecodeError, DecodeLimits, Decoded, Disconnect, Packet, Publish, ReasonCode, Timestamp,
        decode,
    },
    session::{Link, Request, Violation},
    shard::{Departure, Shard, routing::asked::FiltersAsked, turn::Turn},
};

/// The result of handling the bytes of a read.
pub(crate) struct ReadOutcome {
    /// The number of bytes in whole packets that have been handled.
    pub(crate) used: usize,
    /// Why the next whole packet must wait; `None` if none must.
    pub(crate) must_wait: Option<HoldReason>,
    /// Whether the bytes behind them wait for the next turn.
    pub(crate) is_paused: bool,
    /// The last of these packets, if only a part of it has been handled.
    pub(crate) asked: Option<Box<FiltersAsked>>,
    /// The minimum length of the packet behind them, which has not arrived in full.
    pub(crate) at_least: usize,
}

/// The result of handling one packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handled {
    /// It has been handled.
    Done,
    /// It was examined, and must be handled again later.
    MustWait(HoldReason),
    /// It has been handled, perhaps in part, and those behind it wait for the next turn.
    Paused,
}

impl Shard {
    /// Handles the whole packets in `bytes`, all of them unless one must wait. A large payload need
    /// not be copied out of bytes that are `shared`.
    ///
    /// # Errors
    /// Returns how the connection must end.
    pub(crate) fn receive(
        &mut self,
        slot: u32,
        bytes: &[u8],
        shared: Option<&Bytes>,
        now: Timestamp,
    ) -> Result<ReadOutcome, Departure> {
        let properties = self.buffers.take_properties();
        let mut turn = Turn { packets: shared, properties, ..Turn::of_read(now) };
        let received = self.receive_in(slot, bytes, &mut turn);
        self.buffers.put_properties_back(turn.properties);
        received
    }

    /// Continues to handle a packet; returns it unless it has been handled.
    ///
    /// # Errors
    /// Returns how the connection must end.
    pub(crate) fn go_on(
        &mut self,
        slot: u32,
        mut asked: Box<FiltersAsked>,
        now: Timestamp,
    ) -> Result<Option<Box<FiltersAsked>>, Departure> {
        let Some(found) = self.slots.get_mut(slot as usize) else { return Ok(None) };
        let Some(link) = found.session.link_mut() else { return Ok(None) };
        self.buffers.lend(link.out_mut());
        let (filters, progress) = asked.parts();
        self.handle_filters(slot, filters, progress, &mut Turn::of_read(now))?;
        Ok(Some(asked).filter(|asked| !asked.is_done()))
    }

    fn receive_in(
        &mut self,
        slot: u32,
        bytes: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<ReadOutcome, Departure> {
        let now = turn.now;
        let nothing =
            ReadOutcome { used: 0, must_wait: None, is_paused: false, asked: None, at_least: 0 };
        let Some(found) = self.slots.get_mut(slot as usize) else { return Ok(nothing) };
        let connected = found.connected.as_ref();
        let packet_bytes_max = connected.map_or(u32::MAX, |c| c.packet_bytes_max);
        turn.is_paced = connected.is_some_and(|c| c.settings.is_some());
        let Some(link) = found.session.link_mut() else { return Ok(nothing) };
        // A connection without output has no buffer; the shard lends one before the first packet is answered.
        self.buffers.lend(link.out_mut());
        let version = link.version();
        // Topics are checked after their packet is known, so that the broker can answer it.
        let (topic_bytes_max, topic_levels_max) = (u16::MAX, u16::MAX);
        let limits = DecodeLimits { packet_bytes_max, topic_bytes_max, topic_levels_max };
        let (mut at, mut needed) = (0, 0);
        // Ends with the first packet that must wait, or that ends the connection.
        let mut outcome = Ok(Handled::Done);
        while let Ok(Handled::Done) = outcome {
            match decode(&bytes[at..], version, &limits) {
                Ok(Decoded::Packet { packet, .. })
                    if self.must_wait_for_store(slot, &packet, now) =>
                {
                    // Checked before the packet changes anything, so that nothing has to be undone.
                    outcome = Ok(Handled::MustWait(HoldReason::StoreBehind));
                }
                Ok(Decoded::Packet { packet, length }) => {
                    outcome = self.handle(slot, packet, turn);
                    // A packet that must wait stays in the tail, and all behind it.
                    if !matches!(outcome, Ok(Handled::MustWait(_))) {
                        at += length;
                    }
                }
                // The incomplete packet stays with the connection until enough bytes are there.
                Ok(Decoded::More { at_least }) => {
                    needed = at_least;
                    break;
                }
                Err(error) => outcome = Err(malformed(&error)),
            }
        }
        // Once for all packets of a read: they arrived together.
        if at > 0
            && let Some(link) = self.slots.get_mut(slot as usize).and_then(|s| s.session.link_mut())
        {
            link.keep_alive_mut().packet_received(now);
            link.note_read(at);
            self.note_deadline(slot);
            self.note_taken(slot, now);
        }
        outcome.map(|handled| ReadOutcome {
            used: at,
            must_wait: match handled {
                Handled::MustWait(reason) => Some(reason),
                Handled::Done | Handled::Paused => None,
            },
            is_paused: handled == Handled::Paused,
            asked: turn.asked.take(),
            at_least: needed,
        })
    }

    fn handle(
        &mut self,
        slot: u32,
        packet: Packet<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<Handled, Departure> {
        let now = turn.now;
        let Some(found) = self.slots.get_mut(slot as usize) else {
            return Ok(Handled::Done);
        };
        // The session checks the packet by the rules of its own state; the shard handles the rest.
        let request = found.session.handle(packet, now).map_err(violation)?;
        match request {
            None => {}
            // The topic is checked here and not by the decoder, so that MQTT 5.0 is answered with a
            // Reason Code.
            Some(Request::Publish { publish, topic }) if !self.core.allows_topic(&topic) => {
                self.tell_over_limit(slot, "topic_bytes_max or topic_levels_max", &topic);
                self.refuse_topic(slot, &publish)?;
            }
            Some(Request::Publish { publish, topic }) => {
                return self.handle_publish(slot, &publish, &topic, turn);
            }
            Some(Request::Subscribe(subscribe)) => {
                return self.handle_subscribe(slot, &subscribe, turn);
            }
            Some(Request::Unsubscribe(unsubscribe)) => {
                return self.handle_unsubscribe(slot, &unsubscribe, turn);
            }
            Some(Request::Disconnect(disconnect)) => {
                return Err(self.handle_disconnect(slot, &disconnect));
            }
            Some(Request::Authenticate(auth)) => self.handle_auth(slot, &auth)?,
        }
        Ok(Handled::Done)
    }

    /// Refuses a well-formed Topic Name that is not accepted. The acknowledgement says so, if the
    /// version and the QoS have a reason code for it. Else the connection ends. It also ends if an
    /// alias was given for the topic: the broker does not store that alias, which may still stand
    /// for another topic. [MQTT 5.0, 3.4.2.1] [MQTT 5.0, 3.14.2.1]
    fn refuse_topic(&mut self, slot: u32, publish: &Publish<'_>) -> Result<(), Departure> {
        let reason = ReasonCode::TopicNameInvalid;
        let found = self.slots.get_mut(slot as usize);
        let is_v5 = |link: &Link| link.version().has_properties();
        let is_alias_set = publish.properties.topic_alias.is_some();
        match found.filter(|found| found.session.link().is_some_and(is_v5)) {
            Some(found) if publish.packet_id.is_some() && !is_alias_set => {
                found.session.publish_done(publish.flags.qos, publish.packet_id, reason, None);
                Ok(())
            }
            _ => Err(violation(Violation { reason, clause: "MQTT 5.0, 4.7.3" })),
        }
    }

    fn handle_disconnect(&mut self, slot: u32, disconnect: &Disconnect<'_>) -> Departure {
        let maximum = self.core.limits_now().session_expiry_secs_max;
        if let Some(secs) = disconnect.properties.session_expiry_interval
            && let Some(found) = self.slots.get_mut(slot as usize)
        {
            found.session.set_expiry_interval_secs(secs.min(maximum));
        }
        Departure {
            // Without DISCONNECT 0x00 the Will is due. [MQTT-3.14.4-3]
            publishes_will: disconnect.reason != ReasonCode::Success,
            ..Departure::unannounced(DisconnectReason::Normal)
        }
    }
}

fn violation(violation: Violation) -> Departure {
    tracing::debug!(%violation, "client broke a rule");
    Departure::by_server(event_reason(violation.reason), violation.reason).because(violation.clause)
}

fn malformed(error: &DecodeError) -> Departure {
    tracing::debug!(%error, "packet refused");
    Departure::by_server(event_reason(error.reason()), error.reason()).because(error.clause)
}

/// Returns the reason that events give for the end of a connection whose client broke a rule.
#[expect(clippy::wildcard_enum_match_arm, reason = "a few of MQTT's reasons are about limits")]
const fn event_reason(reason: ReasonCode) -> DisconnectReason {
    match reason {
        ReasonCode::PacketTooLarge | ReasonCode::ReceiveMaximumExceeded => {
            DisconnectReason::QuotaExceeded
        }
        _ => DisconnectReason::ProtocolError,
    }
}
