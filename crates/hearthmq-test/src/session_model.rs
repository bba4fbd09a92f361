//! A session between a broker that publishes and a client on a bad line, and its invariants.
//!
//! The client follows the rules of MQTT. The line may break at any packet, and packets on their way
//! are then lost. Knows the session by its public interface only. A property test drives it, and
//! the fuzz target `session`, which also lets the client send anything.

use std::collections::{BTreeSet, HashMap};

use hearthmq::{
    internals::session::{
        Delivered, Delivery, KeepAlive, Link, LinkSettings, QueueLimits, QueueUsage, Request,
        Session, SharedPublication, WhenFull,
    },
    mqtt::{
        Ack, DecodeLimits, Decoded, Packet, PacketId, ProtocolVersion, Publication, Publish,
        PublishFlags, PublishProperties, QoS, ReasonCode, Timestamp, decode,
    },
};

/// What happens next.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A message is published, with this QoS and this many bytes.
    Deliver { qos: QoS, bytes: usize },
    /// The client connects, if it is not connected.
    Attach { quota: u16, version: ProtocolVersion },
    /// The line breaks; with `takes` the client first takes what has arrived, and its answers are
    /// lost.
    Break { takes: bool },
    /// This many bytes go over the line.
    Write { bytes: usize },
    /// The client takes this many packets and answers them.
    Take { packets: usize },
    /// The client publishes at QoS 2 with this identifier, possibly again.
    Publish { id: u16 },
    /// The client releases it.
    Release { id: u16 },
    /// Time passes.
    Pass { millis: u64 },
    /// The client acknowledges arbitrary identifiers.
    Hostile { kind: u8, id: u16 },
}

impl Step {
    /// Returns a step for any three bytes; `Hostile` only if allowed.
    pub fn of([kind, a, b]: [u8; 3], allow_hostile: bool) -> Self {
        let large = usize::from(u16::from_be_bytes([a, b]));
        match kind % 12 {
            0..3 => Self::Deliver {
                qos: QoS::from_number(a % 3).expect("there are three"),
                bytes: if b > 250 { 20_000 } else { usize::from(b) + 4 },
            },
            3 => Self::Attach {
                quota: u16::from(a % 8) + 1,
                version: if b % 2 == 0 { ProtocolVersion::V5 } else { ProtocolVersion::V3_1_1 },
            },
            4 => Self::Break { takes: a % 2 == 0 },
            5 | 6 => Self::Write { bytes: large },
            7 | 8 => Self::Take { packets: usize::from(a % 16) },
            9 => Self::Publish { id: u16::from(a % 8) + 1 },
            10 => Self::Release { id: u16::from(a % 8) + 1 },
            _ if allow_hostile && b % 2 == 0 => {
                Self::Hostile { kind: b / 2, id: u16::from(a % 32) + 1 }
            }
            _ => Self::Pass { millis: large as u64 },
        }
    }
}

/// Runs the steps, and lets everything arrive at the end.
pub fn run(steps: impl IntoIterator<Item = Step>) {
    let mut world = World::new();
    for step in steps {
        world.step(step);
        world.check();
    }
    world.finish();
}

/// The line between session and client, while it exists.
struct Line {
    version: ProtocolVersion,
    quota: usize,
    /// Bytes that have arrived and that the client has not taken.
    arrived: Vec<u8>,
    aliases: HashMap<u16, String>,
    /// Identifiers of QoS 1 and 2 messages on this line that the session does not know to be
    /// complete.
    outstanding: BTreeSet<u16>,
    last_at_most_once: Option<u32>,
}

struct World {
    session: Session,
    now: Timestamp,
    line: Option<Line>,
    published: u32,
    /// Numbers of all published messages of QoS 1 and of QoS 2.
    expected: [Vec<u32>; 2],
    /// Numbers that the client has received; repetitions of QoS 1 once.
    had: [Vec<u32>; 2],
    /// The client's side of QoS 2: received and not released.
    received: BTreeSet<u16>,
    /// Identifiers that the session must recognize as repetitions.
    accepted: BTreeSet<u16>,
    is_hostile: bool,
}

/// Maximum bytes of output that are not written yet, and of output that is written.
const CAPACITY_MAX: usize = 1 << 20;
const TOPICS: [&str; 4] = ["a", "some/longer/topic", "b/c", "d"];

fn topic_of(number: u32) -> &'static str {
    TOPICS[number as usize % TOPICS.len()]
}

impl World {
    fn new() -> Self {
        let limits = QueueLimits {
            messages_max: usize::MAX,
            bytes_max: usize::MAX,
            messages_in_all_max: usize::MAX,
            bytes_in_all_max: usize::MAX,
            when_full: WhenFull::DropNewest,
        };
        Self {
            session: Session::new("c".into(), QueueUsage::new(limits).into()),
            now: Timestamp(1_700_000_000_000),
            line: None,
            published: 0,
            expected: [Vec::new(), Vec::new()],
            had: [Vec::new(), Vec::new()],
            received: BTreeSet::new(),
            accepted: BTreeSet::new(),
            is_hostile: false,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Deliver { qos, bytes } => self.deliver(qos, bytes),
            Step::Attach { quota, version } if self.line.is_none() => self.attach(quota, version),
            Step::Attach { .. } => {}
            Step::Break { takes } => self.break_line(takes),
            Step::Write { bytes } => self.write(bytes),
            Step::Take { packets } => {
                for _ in 0..packets {
                    self.take(true);
                }
            }
            Step::Publish { id } => self.publish(id),
            Step::Release { id } if self.accepted.contains(&id) => {
                if self.send(&Packet::PubRel(Ack::success(packet_id(id)))) {
                    self.accepted.remove(&id);
                }
            }
            Step::Release { .. } => {}
            Step::Pass { millis } => self.now = self.now.plus_millis(millis),
            Step::Hostile { kind, id } => self.acknowledge_at_will(kind, id),
        }
    }

    fn deliver(&mut self, qos: QoS, bytes: usize) {
        let number = self.published;
        self.published += 1;
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(bytes.max(4), 0);
        let mut message = SharedPublication::new(Publication {
            topic: topic_of(number),
            payload: &payload,
            qos,
            retain: false,
            properties: &[],
            expires_at: None,
        });
        let delivery = Delivery { qos, retain: false, identifiers: None, share: None };
        let delivered = self.session.deliver(delivery, &mut message, self.now);
        let is_away = self.line.is_none();
        match (qos, delivered) {
            // QoS 0 may be lost only while the client is away.
            (QoS::AtMostOnce, Delivered::Away) => assert!(is_away),
            (_, Delivered::Queued { displaced: 0 }) => {}
            (_, Delivered::Sent) => assert!(!is_away),
            (_, other) => panic!("{other:?} of a message with QoS {qos:?}"),
        }
        if qos != QoS::AtMostOnce {
            self.expected[usize::from(qos.number()) - 1].push(number);
        }
    }

    fn attach(&mut self, quota: u16, version: ProtocolVersion) {
        let settings = LinkSettings {
            version,
            is_bridge: false,
            asked_keep_alive_secs: 0,
            keep_alive_secs: 0,
            send_quota: quota,
            receive_maximum: 100,
            maximum_packet_size: u32::MAX,
            topic_aliases_in_max: 0,
            topic_aliases_out_max: if version == ProtocolVersion::V5 { 2 } else { 0 },
            problem_information: true,
            may_extend_expiry: true,
        };
        let link = Link::new(settings, KeepAlive::new(0, self.now));
        self.session.attach(link, self.now);
        self.line = Some(Line {
            version,
            quota: usize::from(quota),
            arrived: Vec::new(),
            aliases: HashMap::new(),
            outstanding: BTreeSet::new(),
            last_at_most_once: None,
        });
    }

    fn break_line(&mut self, takes: bool) {
        if takes {
            while self.take(false) {}
        }
        self.session.detach();
        self.line = None;
    }

    /// Sends bytes over the line.
    fn write(&mut self, bytes: usize) {
        self.session.pump(self.now);
        let (Some(link), Some(line)) = (self.session.link_mut(), &mut self.line) else {
            return;
        };
        let mut written = 0;
        for piece in link.output() {
            let piece = &piece[..piece.len().min(bytes - written)];
            line.arrived.extend_from_slice(piece);
            written += piece.len();
        }
        // A part of the output at a time, so that packets break at every place.
        link.note_written(written);
        if link.output().next().is_none() {
            link.take_written();
        }
        self.session.pump(self.now);
    }

    /// Lets the client take a packet that has arrived; its answer may be lost. Returns whether
    /// there was one.
    fn take(&mut self, is_answered: bool) -> bool {
        let Some(line) = &mut self.line else {
            return false;
        };
        let limits = DecodeLimits::default();
        // Taken out, because the answer may break the line, and what has arrived is then lost.
        let arrived = std::mem::take(&mut line.arrived);
        let decoded = decode(&arrived, line.version, &limits).expect("the session sends packets");
        let Decoded::Packet { packet, length } = decoded else {
            line.arrived = arrived;
            return false;
        };
        let rest = arrived[length..].to_vec();
        let answer = self.handle(&packet);
        if let Some(line) = &mut self.line {
            line.arrived = rest;
        }
        if let Some(answer) = answer.filter(|_| is_answered) {
            let completed = match &answer {
                Packet::PubAck(ack) | Packet::PubComp(ack) => Some(ack.packet_id.number()),
                _ => None,
            };
            self.send(&answer);
            if let (Some(line), Some(id)) = (&mut self.line, completed) {
                line.outstanding.remove(&id);
            }
        }
        true
    }

    /// Handles a packet as the client; returns the answer.
    fn handle(&mut self, packet: &Packet<'_>) -> Option<Packet<'static>> {
        match packet {
            Packet::Publish(publish) => {
                let number = self.number_of(publish);
                let id = publish.packet_id;
                let sequence = usize::from(publish.flags.qos.number()).checked_sub(1)?;
                let id = id.expect("QoS 1 and 2 have an identifier");
                let had = &mut self.had[sequence];
                match publish.flags.qos {
                    QoS::AtMostOnce => None,
                    QoS::AtLeastOnce => {
                        // QoS 1 may come twice; the model compares what has come at all.
                        if !had.contains(&number) {
                            had.push(number);
                        }
                        Some(Packet::PubAck(Ack::success(id)))
                    }
                    QoS::ExactlyOnce => {
                        // The identifier stays until PUBREL, so a
                        // repeated PUBLISH is recognized. [MQTT-4.3.3-10]
                        if self.received.insert(id.number()) {
                            had.push(number);
                        }
                        Some(Packet::PubRec(Ack::success(id)))
                    }
                }
            }
            Packet::PubRel(ack) => {
                self.received.remove(&ack.packet_id.number());
                Some(Packet::PubComp(Ack::success(ack.packet_id)))
            }
            Packet::PubRec(_) | Packet::PubComp(_) | Packet::PingResp => None,
            other => panic!("{other:?} from the session"),
        }
    }

    /// Returns the number of a message, after checking its topic, order and place in the window.
    fn number_of(&mut self, publish: &Publish<'_>) -> u32 {
        let line = self.line.as_mut().expect("it has come over a line");
        let number = publish.payload.first_chunk().expect("a number");
        let number = u32::from_be_bytes(*number);
        let topic = match publish.properties.topic_alias {
            Some(alias) if publish.topic.is_empty() => &line.aliases[&alias],
            Some(alias) => {
                line.aliases.entry(alias).insert_entry(publish.topic.to_owned()).into_mut()
            }
            None => publish.topic,
        };
        assert_eq!(topic, topic_of(number));
        let Some(id) = publish.packet_id else {
            assert!(line.last_at_most_once < Some(number), "QoS 0 in order");
            line.last_at_most_once = Some(number);
            return number;
        };
        if !self.is_hostile {
            let is_new = line.outstanding.insert(id.number());
            assert!(is_new, "identifier {} is in use", id.number());
            assert!(line.outstanding.len() <= line.quota, "Receive Maximum");
        }
        number
    }

    fn publish(&mut self, id: u16) {
        let is_new = !self.accepted.contains(&id);
        let packet = Packet::Publish(Publish {
            // The client repeats until it has PUBREC, as after a broken line. [MQTT-3.3.1-1]
            flags: PublishFlags { dup: !is_new, qos: QoS::ExactlyOnce, retain: false },
            topic: "t",
            packet_id: Some(packet_id(id)),
            properties: PublishProperties::default(),
            payload: b"x",
        });
        if self.line.is_none() {
            return;
        }
        let request = self.session.handle(packet, self.now);
        match request.expect("the client keeps the rules") {
            Some(Request::Publish { .. }) => assert!(is_new, "delivered twice"),
            None => assert!(!is_new, "not delivered"),
            Some(other) => panic!("{other:?} of a PUBLISH"),
        }
        if is_new {
            let id = Some(packet_id(id));
            let reason = ReasonCode::Success;
            self.session.publish_done(QoS::ExactlyOnce, id, reason, None);
        }
        self.accepted.insert(id);
    }

    /// Sends an acknowledgement from the client; returns whether there was a line.
    fn send(&mut self, packet: &Packet<'static>) -> bool {
        if self.line.is_none() {
            return false;
        }
        let handled = self.session.handle(packet.clone(), self.now);
        if self.is_hostile {
            if handled.is_err() {
                self.break_line(false);
            }
        } else {
            assert!(handled.expect("the client keeps the rules").is_none());
        }
        true
    }

    fn acknowledge_at_will(&mut self, kind: u8, id: u16) {
        // From now on it is unknown what the client has taken.
        self.is_hostile = true;
        let failed = Ack::with_reason(packet_id(id), ReasonCode::UnspecifiedError);
        let ack = Ack::success(packet_id(id));
        if self.send(&Packet::PubRel(ack.clone())) {
            self.accepted.remove(&id);
        }
        self.send(&match kind % 5 {
            0 => Packet::PubAck(ack),
            1 => Packet::PubRec(ack),
            2 => Packet::PubRec(failed),
            3 => Packet::PubComp(ack),
            _ => Packet::PingReq,
        });
    }

    /// Checks the invariants that hold after every step.
    fn check(&mut self) {
        let unfinished = self.expected[0].len() + self.expected[1].len();
        assert!(self.session.in_flight() <= unfinished);
        if let Some(link) = self.session.link_mut() {
            let capacity = link.out_mut().capacity();
            assert!(capacity <= CAPACITY_MAX, "{capacity} bytes of output");
        }
    }

    /// Checks that everything arrives on a good line.
    fn finish(&mut self) {
        self.break_line(false);
        // A small window, so that the rest comes in many steps.
        self.attach(3, ProtocolVersion::V5);
        loop {
            self.write(usize::MAX / 2);
            let mut is_quiet = true;
            while self.take(true) {
                is_quiet = false;
            }
            if is_quiet {
                break;
            }
        }
        if self.is_hostile {
            return;
        }
        assert_eq!(self.session.queued(), 0);
        assert_eq!(self.session.in_flight(), 0);
        assert_eq!(self.had, self.expected, "what has come and what was published");
    }
}

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("it is not zero")
}
