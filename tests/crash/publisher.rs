//! A publisher that follows the standard: it has a session of its own, and messages that were in
//! flight when its connection ended are sent again, in order and with their Packet Identifiers.
//!
//! Does not know why connections end.

use std::{collections::VecDeque, io, sync::Arc};

use fastrand::Rng;
use hearthmq::mqtt::{Ack, Packet, PublishFlags, QoS, ReasonCode};

use super::{
    book::{Event, Known, MessageId},
    stage::{Phase, Stage},
    wire::{Heard, Identity, Wire, ack},
};

/// Topics of retained messages.
pub(crate) const KEPT_TOPICS: u8 = 6;
/// One in this many messages to a retaining topic clears it.
const CLEARED_EVERY: u32 = 5;

/// What a publisher publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Messages of this QoS; `None`: of both in turn.
    Load(Option<QoS>),
    /// Retained messages.
    Keep,
}

/// How far the delivery of a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// PUBLISH was sent.
    Published,
    /// PUBREC came, PUBREL was sent.
    Released,
}

struct InFlight {
    packet_id: u16,
    number: u32,
    stand: Stand,
}

pub(crate) struct Publisher {
    pub(crate) index: usize,
    pub(crate) identity: Identity,
    pub(crate) habit: Habit,
    /// Maximum number of messages in flight.
    pub(crate) window: usize,
    /// Whether it cuts its own connections.
    pub(crate) is_restless: bool,
    /// Number of bytes by which all payloads are longer.
    pub(crate) filling: usize,
    pub(crate) stage: Arc<Stage>,
    pub(crate) random: Rng,
    known: Known,
    in_flight: VecDeque<InFlight>,
    next_number: u32,
    last_packet_id: u16,
}

/// How a connection ended.
enum End {
    /// The publisher was finished.
    Done,
    /// The client cut the connection.
    Cut,
}

impl Publisher {
    pub(crate) fn new(index: usize, identity: Identity, habit: Habit, stage: Arc<Stage>) -> Self {
        Self {
            index,
            identity,
            habit,
            window: 20,
            is_restless: false,
            filling: 0,
            stage,
            random: Rng::new(),
            known: Known::Never,
            in_flight: VecDeque::new(),
            next_number: 0,
            last_packet_id: 0,
        }
    }

    /// Plays until everything it started is complete, or the round is over.
    pub(crate) fn play(mut self) {
        while let Some(life) = self.stage.wait_for_broker() {
            match self.one_connection(life.address) {
                Ok(End::Done) => return self.stage.finished(),
                Ok(End::Cut) => {}
                Err(error) => self.stage.broken(&self.identity.client_id, life, &error),
            }
            if self.stage.phase() == Phase::Over {
                break;
            }
        }
        let (client, messages) = (self.identity.client_id, self.in_flight.len());
        self.stage.note(Event::Unanswered { client, messages });
    }

    fn one_connection(&mut self, address: std::net::SocketAddr) -> io::Result<End> {
        let known_before = self.known;
        let (mut wire, present) = Wire::open(address, &self.identity, &mut self.known)?;
        let client = self.identity.client_id.clone();
        self.stage.note(Event::Connected { client, known: known_before, present });
        self.known = Known::Yes;
        if !present {
            self.in_flight.clear();
        }
        self.send_again(&mut wire);
        let mut until_cut = self.is_restless.then(|| self.random.u32(1..400));
        loop {
            let phase = self.stage.phase();
            if phase == Phase::Load {
                self.send_new(&mut wire);
            } else if phase == Phase::Over {
                return Ok(End::Cut);
            } else if self.in_flight.is_empty() {
                wire.take_leave()?;
                return Ok(End::Done);
            }
            for heard in wire.turn()? {
                self.hear(heard, &mut wire)?;
                if let Some(left) = &mut until_cut {
                    *left = left.saturating_sub(1);
                }
            }
            if until_cut == Some(0) && phase == Phase::Load {
                return Ok(End::Cut);
            }
        }
    }

    /// [MQTT-4.4.0-1], [MQTT-4.6.0-1]
    fn send_again(&mut self, wire: &mut Wire) {
        for InFlight { packet_id, number, stand } in &self.in_flight {
            match stand {
                Stand::Published => {
                    let message = MessageId { publisher: self.index, number: *number };
                    self.stage.note(Event::SentAgain { message });
                    self.publish(wire, *packet_id, *number, true);
                }
                Stand::Released => wire.say(&Packet::PubRel(ack(*packet_id))),
            }
        }
    }

    /// Fills the window.
    fn send_new(&mut self, wire: &mut Wire) {
        while self.in_flight.len() < self.window {
            let number = self.next_number;
            self.next_number += 1;
            let packet_id = self.free_packet_id();
            let message = MessageId { publisher: self.index, number };
            let (qos, topic) = (self.qos(number), self.kept_topic(number));
            self.stage.note(match self.habit {
                Habit::Load(_) => Event::Sent { message, qos },
                Habit::Keep => Event::SentToKeep { message, topic, clears: clears(number) },
            });
            self.in_flight.push_back(InFlight { packet_id, number, stand: Stand::Published });
            self.publish(wire, packet_id, number, false);
        }
    }

    fn publish(&self, wire: &mut Wire, packet_id: u16, number: u32, dup: bool) {
        let retain = self.habit == Habit::Keep;
        let flags = PublishFlags { dup, qos: self.qos(number), retain };
        let topic = match self.habit {
            Habit::Load(_) => format!("load/{}", self.index),
            Habit::Keep => format!("kept/{}", self.kept_topic(number)),
        };
        wire.publish(packet_id, &topic, &self.payload(number), flags);
    }

    fn payload(&self, number: u32) -> Vec<u8> {
        if self.habit == Habit::Keep && clears(number) {
            return Vec::new();
        }
        let filling = match number % 50 {
            49 => 3000,
            other => other as usize * 4,
        };
        format!("{} {number} {}", self.index, "x".repeat(filling + self.filling)).into_bytes()
    }

    fn kept_topic(&self, number: u32) -> u8 {
        (number % u32::from(KEPT_TOPICS)) as u8
    }

    /// Returns one QoS for each retaining topic, so that its messages have a single order.
    fn qos(&self, number: u32) -> QoS {
        let by_turns = |number: u32| match number % 2 {
            0 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        match self.habit {
            Habit::Load(qos) => qos.unwrap_or_else(|| by_turns(number)),
            Habit::Keep => by_turns(self.kept_topic(number).into()),
        }
    }

    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            let id = self.last_packet_id;
            if self.in_flight.iter().all(|other| other.packet_id != id) {
                return id;
            }
        }
    }

    fn hear(&mut self, heard: Heard, wire: &mut Wire) -> io::Result<()> {
        match heard {
            Heard::PubAck(id, reason) => {
                if let Some(at) = self.place_of(id, QoS::AtLeastOnce) {
                    self.acknowledged(at, reason);
                    self.in_flight.remove(at);
                }
            }
            Heard::PubRec(id, reason) => {
                if let Some(at) = self.place_of(id, QoS::ExactlyOnce) {
                    self.acknowledged(at, reason);
                    if reason.is_failure() {
                        self.in_flight.remove(at);
                        return Ok(());
                    }
                    self.in_flight[at].stand = Stand::Released;
                    wire.say(&Packet::PubRel(ack(id)));
                } else if self.identity.version.has_properties() {
                    let id = ack(id).packet_id;
                    let reason = ReasonCode::PacketIdentifierNotFound;
                    wire.say(&Packet::PubRel(Ack::with_reason(id, reason)));
                }
            }
            // A repeated PUBREL may find that its message is complete already.
            Heard::PubComp(id) => {
                let place = self.place_of(id, QoS::ExactlyOnce);
                if let Some(at) = place.filter(|at| self.in_flight[*at].stand == Stand::Released) {
                    self.in_flight.remove(at);
                }
            }
            Heard::Disconnect(reason) => {
                return Err(io::Error::other(format!("DISCONNECT with {reason:?}")));
            }
            other => panic!("{} does not expect {other:?}", self.identity.client_id),
        }
        Ok(())
    }

    fn place_of(&self, packet_id: u16, qos: QoS) -> Option<usize> {
        let mut all = self.in_flight.iter();
        all.position(|it| it.packet_id == packet_id && self.qos(it.number) == qos)
    }

    fn acknowledged(&self, at: usize, reason: ReasonCode) {
        let message = MessageId { publisher: self.index, number: self.in_flight[at].number };
        self.stage.note(match reason.is_failure() {
            true => Event::Refused { message, reason: format!("{reason:?}") },
            false => Event::Acknowledged { message },
        });
    }
}

/// Returns whether this message clears its retaining topic.
fn clears(number: u32) -> bool {
    number / u32::from(KEPT_TOPICS) % CLEARED_EVERY == CLEARED_EVERY - 1
}
