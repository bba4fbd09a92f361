//! Clients on both sides of a bridge, which follow the standard: publishers that send again what was not
//! acknowledged, and durable subscribers that remember which QoS 2 messages they have.
//!
//! They find their broker by a [`Door`], and do not know why connections end.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use hearthmq::mqtt::{Ack, Packet, ProtocolVersion, PublishFlags, QoS, ReasonCode};

use super::ledger::{Direction, Ledger, Stream};
use crate::{
    book::Known,
    wire::{Heard, Identity, Wire, ack},
};

/// How often a player without a broker looks for it.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Messages in flight of one publisher.
const WINDOW: usize = 24;
/// Messages of one publisher to one topic that may be on their way: a broker that acknowledges messages in
/// memory would have such a number of them that a round takes minutes.
const LEAD_MAX: usize = 3_000;

/// Where clients of one broker find it now.
#[derive(Default)]
pub(super) struct Door(Mutex<Option<SocketAddr>>);

impl Door {
    pub(super) fn open(&self, address: SocketAddr) {
        *self.0.lock().unwrap() = Some(address);
    }

    pub(super) fn close(&self) {
        *self.0.lock().unwrap() = None;
    }

    fn address(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap()
    }
}

/// How far a round has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Load,
    /// Publishers complete what they have started.
    Drain,
    Over,
}

/// What all players of a round share.
#[derive(Default)]
pub(super) struct Stage {
    pub(super) ledger: Ledger,
    phase: AtomicU8,
    /// Subscribers with their subscription.
    pub(super) subscribed: AtomicUsize,
}

impl Stage {
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Load,
            1 => Phase::Drain,
            _ => Phase::Over,
        }
    }
}

struct InFlight {
    packet_id: u16,
    stream: Stream,
    number: u32,
    /// Whether PUBREC came, and PUBREL was sent.
    is_released: bool,
}

/// A publisher of QoS 1 and 2 in turn, each to a topic of its own.
pub(super) struct Sender {
    direction: Direction,
    index: usize,
    identity: Identity,
    door: Arc<Door>,
    stage: Arc<Stage>,
    known: Known,
    in_flight: VecDeque<InFlight>,
    last_packet_id: u16,
    turns: usize,
}

impl Sender {
    pub(super) fn new(
        direction: Direction,
        index: usize,
        version: ProtocolVersion,
        door: &Arc<Door>,
        stage: &Arc<Stage>,
    ) -> Self {
        Self {
            direction,
            index,
            identity: Identity::durable(format!("sender-{}-{index}", direction.level()), version),
            door: Arc::clone(door),
            stage: Arc::clone(stage),
            known: Known::Never,
            in_flight: VecDeque::new(),
            last_packet_id: 0,
            turns: 0,
        }
    }

    /// Plays until everything it started is complete, or the round is over.
    pub(super) fn play(mut self) {
        while self.stage.phase() != Phase::Over {
            let Some(address) = self.door.address() else {
                thread::sleep(LOOK_EVERY);
                continue;
            };
            match self.one_connection(address) {
                Ok(()) => return,
                Err(why) => {
                    self.stage.ledger.trouble(format!("{}: {why}", self.identity.client_id));
                    thread::sleep(LOOK_EVERY);
                }
            }
        }
        if !self.in_flight.is_empty() {
            let (client, left) = (&self.identity.client_id, self.in_flight.len());
            self.stage.ledger.fault(format!("{client}: {left} messages stay without an answer"));
        }
    }

    fn one_connection(&mut self, address: SocketAddr) -> io::Result<()> {
        let is_old = self.known == Known::Yes;
        let (mut wire, present) = Wire::open(address, &self.identity, &mut self.known)?;
        self.known = Known::Yes;
        if !present {
            if is_old {
                self.stage.ledger.fault(format!("{}: session lost", self.identity.client_id));
            }
            self.in_flight.clear();
        }
        // [MQTT-4.4.0-1], [MQTT-4.6.0-1]
        for it in &self.in_flight {
            match it.is_released {
                false => publish(&mut wire, it, true),
                true => wire.say(&Packet::PubRel(ack(it.packet_id))),
            }
        }
        loop {
            match self.stage.phase() {
                Phase::Load => self.fill_window(&mut wire),
                Phase::Drain if self.in_flight.is_empty() => return wire.take_leave(),
                Phase::Drain => {}
                Phase::Over => return Err(io::Error::other("the round is over")),
            }
            for heard in wire.turn()? {
                self.hear(&heard, &mut wire)?;
            }
        }
    }

    fn fill_window(&mut self, wire: &mut Wire) {
        while self.in_flight.len() < WINDOW {
            let qos =
                if self.turns.is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
            self.turns += 1;
            let stream = Stream { direction: self.direction, publisher: self.index, qos };
            if self.stage.ledger.on_the_way(stream) > LEAD_MAX {
                return;
            }
            let number = self.stage.ledger.next(stream);
            let message =
                InFlight { packet_id: self.free_id(), stream, number, is_released: false };
            publish(wire, &message, false);
            self.in_flight.push_back(message);
        }
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            let id = self.last_packet_id;
            if self.in_flight.iter().all(|other| other.packet_id != id) {
                return id;
            }
        }
    }

    fn hear(&mut self, heard: &Heard, wire: &mut Wire) -> io::Result<()> {
        let place = |id: u16, qos| {
            self.in_flight.iter().position(|it| it.packet_id == id && it.stream.qos == qos)
        };
        match *heard {
            Heard::PubAck(id, reason) => {
                let at = place(id, QoS::AtLeastOnce);
                if let Some(it) = at.and_then(|at| self.in_flight.remove(at)) {
                    self.answered(&it, reason);
                }
            }
            Heard::PubRec(id, reason) => {
                let Some(at) = place(id, QoS::ExactlyOnce) else { return Ok(()) };
                self.answered(&self.in_flight[at], reason);
                if reason.is_failure() {
                    self.in_flight.remove(at);
                    return Ok(());
                }
                self.in_flight[at].is_released = true;
                wire.say(&Packet::PubRel(ack(id)));
            }
            Heard::PubComp(id) => {
                let at = place(id, QoS::ExactlyOnce);
                if let Some(at) = at.filter(|at| self.in_flight[*at].is_released) {
                    self.in_flight.remove(at);
                }
            }
            Heard::Disconnect(reason) => {
                return Err(io::Error::other(format!("DISCONNECT with {reason:?}")));
            }
            _ => panic!("{} does not expect {heard:?}", self.identity.client_id),
        }
        Ok(())
    }

    fn answered(&self, it: &InFlight, reason: ReasonCode) {
        match reason.is_failure() {
            false => self.stage.ledger.acknowledged(it.stream, it.number),
            true => {
                let client = &self.identity.client_id;
                self.stage.ledger.fault(format!("{client}: {} refused: {reason:?}", it.number));
            }
        }
    }
}

fn publish(wire: &mut Wire, it: &InFlight, dup: bool) {
    let filling = match it.number % 50 {
        49 => 3_000,
        other => other as usize * 4,
    };
    let payload = format!("{} {}", it.number, "x".repeat(filling));
    let flags = PublishFlags { dup, qos: it.stream.qos, retain: false };
    wire.publish(it.packet_id, &it.stream.topic(), payload.as_bytes(), flags);
}

/// Returns the number of a message.
pub(super) fn number_of(payload: &[u8]) -> Option<u32> {
    let text = payload.split(|byte| *byte == b' ').next()?;
    str::from_utf8(text).ok()?.parse().ok()
}

/// A durable subscriber behind the bridge.
pub(super) struct Receiver {
    direction: Direction,
    identity: Identity,
    door: Arc<Door>,
    stage: Arc<Stage>,
    known: Known,
    is_subscribed: bool,
    /// QoS 2 messages without PUBREL.
    open: HashMap<u16, (Stream, u32)>,
}

impl Receiver {
    pub(super) fn new(direction: Direction, door: &Arc<Door>, stage: &Arc<Stage>) -> Self {
        let client_id = format!("receiver-{}", direction.level());
        Self {
            direction,
            identity: Identity::durable(client_id, ProtocolVersion::V5),
            door: Arc::clone(door),
            stage: Arc::clone(stage),
            known: Known::Never,
            is_subscribed: false,
            open: HashMap::new(),
        }
    }

    /// Plays until the round is over.
    pub(super) fn play(mut self) {
        while self.stage.phase() != Phase::Over {
            if let Some(Err(why)) = self.door.address().map(|at| self.one_connection(at)) {
                self.stage.ledger.trouble(format!("{}: {why}", self.identity.client_id));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn one_connection(&mut self, address: SocketAddr) -> io::Result<()> {
        let (mut wire, present) = Wire::open(address, &self.identity, &mut self.known)?;
        self.known = Known::Yes;
        if !present {
            if self.is_subscribed {
                self.stage.ledger.fault(format!("{}: session lost", self.identity.client_id));
            }
            self.open.clear();
            wire.subscribe("of/#", QoS::ExactlyOnce);
        }
        while self.stage.phase() != Phase::Over {
            for heard in wire.turn()? {
                self.hear(heard, &mut wire)?;
            }
        }
        wire.take_leave()
    }

    fn hear(&mut self, heard: Heard, wire: &mut Wire) -> io::Result<()> {
        match heard {
            Heard::SubAck(reasons) => {
                assert_eq!(reasons[0].number(), 2, "{}", self.identity.client_id);
                if !std::mem::replace(&mut self.is_subscribed, true) {
                    self.stage.subscribed.fetch_add(1, Ordering::SeqCst);
                }
            }
            Heard::Publish { topic, payload, flags, packet_id } => {
                self.message(&topic, &payload, flags, packet_id, wire);
            }
            Heard::PubRel(id) => {
                let is_known = self.open.remove(&id).is_some();
                wire.say(&Packet::PubComp(match is_known {
                    true => ack(id),
                    false => {
                        Ack::with_reason(ack(id).packet_id, ReasonCode::PacketIdentifierNotFound)
                    }
                }));
            }
            Heard::Disconnect(reason) => {
                return Err(io::Error::other(format!("DISCONNECT with {reason:?}")));
            }
            other => panic!("{} does not expect {other:?}", self.identity.client_id),
        }
        Ok(())
    }

    fn message(
        &mut self,
        topic: &str,
        payload: &[u8],
        flags: PublishFlags,
        packet_id: u16,
        wire: &mut Wire,
    ) {
        let ledger = &self.stage.ledger;
        let number = number_of(payload);
        let stream = Stream::of_topic_there(self.direction, topic);
        let (Some(stream), Some(number)) = (stream, number) else {
            ledger.fault(format!("{}: a message to {topic}", self.identity.client_id));
            return;
        };
        if stream.qos != flags.qos {
            ledger.fault(format!("{topic}: {number} came with {:?}", flags.qos));
        }
        match flags.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                ledger.arrived(stream, number);
                wire.say(&Packet::PubAck(ack(packet_id)));
            }
            // [MQTT-4.3.3-10]: the application gets it once for each release.
            QoS::ExactlyOnce => {
                match self.open.insert(packet_id, (stream, number)) {
                    None => ledger.arrived(stream, number),
                    Some(before) if before == (stream, number) => {}
                    Some(before) => ledger.fault(format!(
                        "{topic}: {number} came with the identifier of {before:?}, which is not released"
                    )),
                }
                wire.say(&Packet::PubRec(ack(packet_id)));
            }
        }
    }
}
