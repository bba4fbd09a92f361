//! A durable subscriber that follows the standard: it subscribes once, acknowledges, and remembers
//! over all its connections which QoS 2 messages it has received and not seen released.
//!
//! Does not know what it should receive; the book knows that.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use fastrand::Rng;
use hearthmq::mqtt::{Ack, Packet, ProtocolVersion, PublishFlags, QoS, ReasonCode};

use super::{
    book::{Event, Known, MessageId},
    stage::{Phase, Stage},
    wire::{Heard, Identity, PATIENCE, Wire, ack},
};

/// How it treats its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It stays connected.
    Steady,
    /// It disconnects, stays offline for a while, and reconnects.
    Restless,
    /// It disconnects, and sometimes reconnects with a new session in place of the old one.
    Forgetful,
    /// It stays connected, and acknowledges only when no more messages come.
    Slow,
    /// It disconnects, and stays offline so long that it has a long queue.
    Absent,
}

pub(crate) struct Subscriber {
    /// Index of the receiver, or of its group, in the book.
    pub(crate) receiver: usize,
    pub(crate) identity: Identity,
    pub(crate) filter: &'static str,
    pub(crate) qos: QoS,
    pub(crate) manner: Manner,
    pub(crate) stage: Arc<Stage>,
    pub(crate) random: Rng,
    known: Known,
    is_subscribed: bool,
    /// Messages whose Packet Identifier is in use: QoS 1 until PUBACK was sent, QoS 2 until PUBREL
    /// came.
    open: HashMap<u16, (QoS, Vec<u8>)>,
    /// PUBACKs that must still be sent.
    unsent: Vec<u16>,
}

impl Subscriber {
    pub(crate) fn new(
        receiver: usize,
        identity: Identity,
        filter: &'static str,
        qos: QoS,
        stage: Arc<Stage>,
    ) -> Self {
        Self {
            receiver,
            identity,
            filter,
            qos,
            manner: Manner::Steady,
            stage,
            random: Rng::new(),
            known: Known::Never,
            is_subscribed: false,
            open: HashMap::new(),
            unsent: Vec::new(),
        }
    }

    /// Plays until the round is over.
    pub(crate) fn play(mut self) {
        while let Some(life) = self.stage.wait_for_broker() {
            let outcome = self.one_connection(life.address);
            if let Err(error) = &outcome {
                self.stage.broken(&self.identity.client_id, life, error);
            }
            if self.stage.phase() == Phase::Over {
                return;
            }
            match self.manner {
                _ if outcome.is_err() => {}
                Manner::Absent => {
                    self.stage.stay_away_for(Duration::from_millis(self.random.u64(..6000)));
                }
                _ => self.stage.stay_away(self.random.u64(..600)),
            }
        }
    }

    /// Plays until the round is over, or it disconnects by itself.
    fn one_connection(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut known_before = self.known;
        if self.identity.clean_start {
            self.stage.note(Event::Forgets { receiver: self.receiver });
            known_before = Known::Never;
        }
        let (mut wire, present) = Wire::open(address, &self.identity, &mut self.known)?;
        let client = self.identity.client_id.clone();
        self.stage.note(Event::Connected { client, known: known_before, present });
        self.known = Known::Yes;
        self.identity.clean_start = false;
        if !present {
            self.open.clear();
            self.is_subscribed = false;
        }
        self.unsent.clear();
        if !self.is_subscribed {
            wire.subscribe(self.filter, self.qos);
        }
        let connection = self.stage.connection();
        let mut until_cut = match self.manner {
            Manner::Steady | Manner::Slow => None,
            Manner::Restless | Manner::Forgetful => Some(self.random.usize(1..300)),
            Manner::Absent => Some(self.random.usize(1..6000)),
        };
        loop {
            let phase = self.stage.phase();
            if phase == Phase::Over {
                return self.end(wire, connection);
            }
            let heard = wire.turn()?;
            let is_quiet = heard.is_empty();
            until_cut = until_cut.map(|left| left.saturating_sub(heard.len()));
            for heard in heard {
                self.hear(heard, connection, &mut wire)?;
            }
            if is_quiet || self.manner != Manner::Slow || phase != Phase::Load {
                self.acknowledge(&mut wire);
            }
            if until_cut == Some(0) && phase == Phase::Load {
                self.identity.clean_start = self.manner == Manner::Forgetful && self.random.bool();
                // Half of the time it sends DISCONNECT, otherwise it drops the connection with
                // unsent output.
                return if self.random.bool() { wire.take_leave() } else { Ok(()) };
            }
        }
    }

    /// Ends with a PINGREQ: everything before PINGRESP has then arrived.
    fn end(&mut self, mut wire: Wire, connection: u32) -> io::Result<()> {
        wire.say(&Packet::PingReq);
        let until = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < until {
            let mut is_answered = false;
            for heard in wire.turn()? {
                match heard {
                    Heard::PingResp => is_answered = true,
                    heard => self.hear(heard, connection, &mut wire)?,
                }
            }
            self.acknowledge(&mut wire);
            if is_answered {
                return wire.take_leave();
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "PINGRESP does not come"))
    }

    fn hear(&mut self, heard: Heard, connection: u32, wire: &mut Wire) -> io::Result<()> {
        match heard {
            Heard::SubAck(reasons) => {
                assert_eq!(reasons[0].number(), self.qos.number(), "{}", self.identity.client_id);
                self.is_subscribed = true;
                self.stage.note(Event::Subscribed { receiver: self.receiver });
            }
            Heard::Publish { payload, flags, packet_id, topic } => {
                self.message(&topic, payload, flags, packet_id, connection, wire);
            }
            Heard::PubRel(id) => {
                let is_known = self.open.remove(&id).is_some();
                wire.say(&Packet::PubComp(match self.identity.version {
                    ProtocolVersion::V5 if !is_known => {
                        Ack::with_reason(ack(id).packet_id, ReasonCode::PacketIdentifierNotFound)
                    }
                    ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 | ProtocolVersion::V5 => {
                        ack(id)
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
        payload: Vec<u8>,
        flags: PublishFlags,
        packet_id: u16,
        connection: u32,
        wire: &mut Wire,
    ) {
        let before = self.open.get(&packet_id).map(|(qos, before)| (*qos, text(before)));
        let is_again = before.as_ref().is_some_and(|(qos, _)| *qos == QoS::ExactlyOnce);
        let then = text(&payload);
        // With QoS 1 a client need not remember anything; here it remembers whether a message came
        // before.
        if let Some((_, first)) = before.filter(|(_, first)| is_again || *first == then) {
            let client = self.identity.client_id.clone();
            let dup = flags.dup;
            self.stage.note(Event::CameAgain { client, packet_id, first, then, dup });
        }
        match flags.qos {
            QoS::AtMostOnce => panic!("{} has sent no QoS 0", self.identity.client_id),
            QoS::AtLeastOnce => {
                self.stage.note(self.received(topic, &payload, connection, flags.dup));
                self.unsent.push(packet_id);
            }
            // [MQTT-4.3.3-10]: the application gets it once for each release.
            QoS::ExactlyOnce => {
                if !is_again {
                    self.stage.note(self.received(topic, &payload, connection, flags.dup));
                }
                wire.say(&Packet::PubRec(ack(packet_id)));
            }
        }
        if !is_again {
            self.open.insert(packet_id, (flags.qos, payload));
        }
    }

    fn acknowledge(&mut self, wire: &mut Wire) {
        for id in self.unsent.drain(..) {
            self.open.remove(&id);
            wire.say(&Packet::PubAck(ack(id)));
        }
    }

    fn received(&self, topic: &str, payload: &[u8], connection: u32, dup: bool) -> Event {
        if let Some(client) = topic.strip_prefix("will/never/") {
            return Event::WillOfTheLiving { client: client.to_owned() };
        }
        let text = text(payload);
        let mut numbers = text.split(' ').map_while(|number| number.parse::<u32>().ok());
        let first = numbers.next().unwrap();
        match numbers.next() {
            Some(number) => Event::Received {
                receiver: self.receiver,
                connection,
                message: MessageId { publisher: first as usize, number },
                dup,
            },
            None => Event::Will { will: first, late_ms: self.stage.up_for().as_millis() as u64 },
        }
    }
}

/// Returns the start of a payload, which distinguishes messages.
fn text(payload: &[u8]) -> String {
    let mut parts = payload.split(|byte| *byte == b' ');
    let parts: Vec<_> = parts.by_ref().take(2).collect();
    String::from_utf8(parts.join(&b' ')).unwrap()
}
