//! The broker itself, on one thread and on virtual time, its clients, and the model beside them.
//!
//! Everything is real except sockets and clock. After each step the world waits until everything is
//! idle; then it compares what has come with what is due.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    mem::take,
    sync::PoisonError,
    time::Duration,
};

use actix_rt::task::JoinHandle;
use hearthmq::{
    Broker,
    mqtt::{Packet, ProtocolVersion::V5, Publish, QoS, ReasonCode, encode},
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    client::{Client, Says, ack, publish},
    cross::Recorded,
    disk::{Disk, Plug},
    identity::PassOffice,
    model::{Arrived, Form, Link, Model, Reply, Sent, TOLERANCE_MILLIS, Told, Verdict},
    panics,
    post::Post,
    power::{Rules, ToldByHooks, shards},
    steps::Planned,
    vocabulary::NAMES,
    watching::Watch,
};

/// No step is taken this shortly before an event that happens by itself.
pub(crate) const MARGIN_MILLIS: u64 = 300;
/// Number of turns after which everything is usually quiet. They take less time than the margin.
pub(crate) const TURNS_MAX: usize = 250;
/// Number of steps whose writes may be lost.
const HISTORY_MAX: usize = 8;
/// How often in a row the world may fail to become quiet.
const RESTLESS_MAX: usize = 20;

pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) disk: Disk,
    pub(crate) plug: Plug,
    pub(crate) rules: Rules,
    /// The secrets of all API tokens so far, each with the place of its token in the vocabulary.
    pub(crate) secrets: Vec<(usize, String)>,
    pub(crate) pass_office: PassOffice,
    /// Delivers the mail between the broker's shards.
    pub(crate) post: Post,
    /// When the broker began.
    pub(crate) power_since: u64,
    /// The model after the last steps, with the number of groups written by then: unsynced changes
    /// may be lost back to these.
    pub(crate) history: VecDeque<(usize, Model)>,
    pub(crate) clients: [Client; NAMES.len()],
    pub(crate) model: Model,
    /// Number of messages so far; their numbers are their payloads.
    pub(crate) messages: u64,
    /// How often each kind of event has happened.
    pub(crate) tally: BTreeMap<&'static str, u64>,
    /// From when on the store of the last broker that was cut off may have nothing.
    pub(crate) lost_since: u64,
    /// The model at the time when the store began to fail.
    pub(crate) before_failure: Option<Model>,
    /// The calls that wait for deliveries.
    pub(crate) calls: Vec<JoinHandle<Verdict>>,
    /// The effects on the model of a step that happens at the same time as another one.
    pub(crate) recorded: Option<Recorded>,
    /// How often in a row the world has not become quiet.
    restless: usize,
    began: Instant,
    pub(crate) told: ToldByHooks,
    /// What callers must see of it.
    pub(crate) watch: Watch,
    versions: [u64; NAMES.len()],
    /// The events of this turn, in any order, and of all turns before.
    turn: u64,
    pub(crate) trace: DefaultHasher,
    /// The dialogue in words, if it will be printed.
    pub(crate) dialogue: Option<Vec<String>>,
}

impl World {
    pub(crate) async fn new(seed: u64, tells: bool) -> Self {
        let disk = Disk::new();
        let plug = disk.plug();
        let rules = Rules::default();
        let post = Post::open(&shards(seed), seed);
        let pass_office = PassOffice::default();
        let (broker, told) =
            Self::start(plug.clone(), rules.clone(), pass_office.clone(), &post).await;
        Self {
            broker,
            rules,
            secrets: Vec::new(),
            pass_office,
            post,
            calls: Vec::new(),
            recorded: None,
            power_since: 0,
            disk,
            plug,
            history: VecDeque::new(),
            clients: Default::default(),
            model: Model::default(),
            messages: 0,
            tally: BTreeMap::new(),
            lost_since: 0,
            before_failure: None,
            restless: 0,
            began: Instant::now(),
            told,
            watch: Watch::default(),
            versions: [0; NAMES.len()],
            turn: 0,
            trace: DefaultHasher::new(),
            dialogue: tells.then(Vec::new),
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        let at = self.model.now;
        if let Some(dialogue) = &mut self.dialogue {
            dialogue.push(format!("{at:>8} ms  {}", line()));
        }
    }

    fn note(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        self.turn = self.turn.wrapping_add(hasher.finish());
    }

    /// Performs one step, and everything that follows from it.
    pub(crate) async fn step(&mut self, planned: &Planned) -> Verdict {
        let Planned { step, mail } = planned;
        self.post.reseed(*mail);
        self.wait(0).await?;
        self.say(|| format!("* {step:?}"));
        self.play(step).await?;
        self.settle().await?;
        self.end_calls().await?;
        if self.restless == 0 && !self.disk.is_failing() {
            self.compare_store().await?;
        }
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        if self.restless == 0 && !self.disk.is_failing() {
            self.history.push_back((self.disk.groups(), self.model.clone()));
        }
        Ok(())
    }

    pub(crate) fn tick(&mut self) {
        self.model.now = self.began.elapsed().as_millis() as u64;
        for (route, kind) in self.post.take_delivered() {
            self.count(kind);
            self.say(|| format!("{route:?}: {kind}"));
        }
    }

    pub(crate) async fn moment(&mut self) {
        sleep(Duration::from_millis(1)).await;
        self.tick();
    }

    /// Lets time pass. Nothing may happen too early, and all due events must happen.
    pub(crate) async fn wait(&mut self, millis: u64) -> Verdict {
        let target = self.model.now + millis;
        while let Some(due) = self.model.next_due_at()
            && due <= target + MARGIN_MILLIS
        {
            if due > self.model.now + 50 {
                self.sleep_to(due - 50).await;
                self.settle().await?;
            }
            // Events that are due meanwhile also get their time.
            let mut last = due;
            while self.model.now < last + TOLERANCE_MILLIS {
                self.sleep_to(last + TOLERANCE_MILLIS).await;
                last = last.max(self.model.pass_to(self.model.now));
            }
            self.settle().await?;
        }
        self.sleep_to(target).await;
        Ok(())
    }

    async fn sleep_to(&mut self, millis: u64) {
        sleep_until(self.began + Duration::from_millis(millis)).await;
        self.tick();
    }

    /// Waits until everything is idle, then compares.
    pub(crate) async fn settle(&mut self) -> Verdict {
        for _ in 0..TURNS_MAX {
            self.moment().await;
            let mut is_quiet = true;
            for client in 0..NAMES.len() {
                is_quiet &= self.hear(client).await?;
            }
            if is_quiet {
                self.restless = 0;
                return self.compare().await;
            }
        }
        // A client that takes one message at a time may have hundreds to take: it continues later.
        self.restless += 1;
        self.count("not quiet yet");
        if self.restless < RESTLESS_MAX { Ok(()) } else { Err("it never becomes quiet".to_owned()) }
    }

    /// Takes what has come for a client; returns whether that was nothing.
    pub(crate) async fn hear(&mut self, client: usize) -> Verdict<bool> {
        if self.model.link(client).is_none()
            && let Some(line) = self.clients[client].line.take()
        {
            self.say(|| format!("{} is to be disconnected", NAMES[client]));
            let reason = self.ended_by_broker(client);
            self.farewell(line, reason).await?;
            return Ok(false);
        }
        let Some(line) = &mut self.clients[client].line else { return Ok(true) };
        if !self.clients[client].reads || (line.read(usize::MAX) == 0 && !line.is_ended()) {
            return Ok(true);
        }
        if line.is_ended() {
            return Err(format!("{} was disconnected", NAMES[client]));
        }
        self.take_packets(client)?;
        if self.clients[client].answers_at_once {
            self.answer_all(client).await?;
        }
        Ok(false)
    }

    /// Handles every complete packet that was read.
    pub(crate) fn take_packets(&mut self, client: usize) -> Verdict {
        let Some(mut line) = self.clients[client].line.take() else { return Ok(()) };
        let mut taken = Ok(Some(Ok(())));
        while let Ok(Some(Ok(()))) = taken {
            taken = line.next(|packet, bytes| self.take_packet(client, packet, bytes));
        }
        self.clients[client].line = Some(line);
        taken.and_then(|taken| taken.unwrap_or(Ok(())))
    }

    fn take_packet(&mut self, client: usize, packet: &Packet<'_>, bytes: usize) -> Verdict {
        self.say(|| format!("{} <- {packet:?} {}", NAMES[client], payload_of(packet)));
        match packet {
            Packet::Publish(publish) => return self.take_publish(client, publish, bytes),
            Packet::PubRel(ack) => {
                let packet_id = ack.packet_id.number();
                let payload = self.model.release(client, packet_id)?;
                self.note((client, "PUBREL", &payload));
                self.count("PUBREL received");
                self.clients[client].owes(Says::Complete, packet_id, payload);
                return Ok(());
            }
            _ => {}
        }
        let reply = reply_of(packet).ok_or_else(|| format!("unexpected: {packet:?}"))?;
        self.note((client, &reply));
        self.model.replied(client, &reply)?;
        self.take_reply(client, &reply)
    }

    /// Updates the client's unfinished messages after an answer.
    fn take_reply(&mut self, client: usize, reply: &Reply) -> Verdict {
        let own = &mut self.clients[client];
        match reply {
            Reply::PubAck(id) | Reply::PubRecRefused(id) => {
                own.outbound.retain(|o| o.packet_id != *id);
                self.count("PUBACK received");
            }
            Reply::PubRec(id) => {
                let known = own.outbound.iter_mut().find(|o| o.packet_id == *id);
                let known = known.ok_or("PUBREC for nothing")?;
                known.is_released = true;
                let payload = known.sent.payload.clone();
                own.owes(Says::Release, *id, payload);
            }
            Reply::PubComp(id) => {
                own.outbound.retain(|o| o.packet_id != *id);
                self.count("PUBCOMP received");
            }
            _ => {}
        }
        Ok(())
    }

    fn take_publish(&mut self, client: usize, publish: &Publish<'_>, bytes: usize) -> Verdict {
        let topic = self.clients[client].topic(publish)?;
        let mut identifiers = publish.properties.subscription_identifiers.clone();
        identifiers.sort_unstable();
        let packet_id = publish.packet_id.map(hearthmq::mqtt::PacketId::number);
        let (qos, retain) = (publish.flags.qos, publish.flags.retain);
        let arrived = Arrived {
            topic: &topic,
            payload: publish.payload,
            dup: publish.flags.dup,
            form: Form { qos, retain, identifiers },
            packet_id,
            expiry_secs: publish.properties.message_expiry_interval,
            packet_bytes: bytes,
        };
        let again = self.model.arrived(client, &arrived)?;
        let form = (qos.number(), retain, publish.flags.dup, arrived.expiry_secs);
        self.note((client, &topic, publish.payload, form, &arrived.form.identifiers));
        self.count(
            ["QoS 0 received", "QoS 1 received", "QoS 2 received"][usize::from(qos.number())],
        );
        for (what, happened) in [
            ("retained received", retain),
            ("received again", again),
            ("Will received", topic.starts_with("w/")),
            ("received by alias", publish.topic.is_empty()),
            ("received with identifiers", !arrived.form.identifiers.is_empty()),
        ] {
            if happened {
                self.count(what);
            }
        }
        if let Some(packet_id) = packet_id {
            let says = if qos == QoS::AtLeastOnce { Says::Acked } else { Says::Received };
            self.clients[client].owes(says, packet_id, publish.payload.to_vec());
        }
        Ok(())
    }

    /// Compares, when everything is quiet, received messages, online clients and events.
    async fn compare(&mut self) -> Verdict {
        let clients = &self.clients;
        self.model.check(|client| clients[client].reads)?;
        let names = NAMES.map(str::to_owned);
        let online = self.broker.online_many(&names).await.map_err(|error| error.to_string())?;
        for (client, online) in online.iter().map(|found| found.online).enumerate() {
            if self.model.link(client).is_some() != online {
                return Err(format!("{} is {online} for online", NAMES[client]));
            }
        }
        let told = take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        for &(client, version, what) in &told {
            let last = &mut self.versions[client];
            let is_right = match what {
                Told::Connected => version > *last,
                Told::Disconnected(_) | Told::DisconnectedInTime => version == *last,
            };
            if !is_right {
                return Err(format!("{what:?} has version {version} after {last}"));
            }
            *last = version;
        }
        for (client, name) in NAMES.iter().enumerate() {
            let told: Vec<_> = told.iter().filter(|t| t.0 == client).map(|t| t.2).collect();
            let expected = self.model.told.iter().filter(|t| t.0 == client).map(|t| t.1);
            let expected: Vec<_> = expected.collect();
            let allowed = expected.iter().zip(&told).all(|(expected, told)| expected.allows(*told));
            if told.len() != expected.len() || !allowed {
                return Err(format!("{told:?} was told of {name}, not {expected:?}"));
            }
        }
        self.model.told.clear();
        self.watch.note(&told, self.model.now);
        if panics() > 0 {
            return Err("the broker panicked".to_owned());
        }
        self.trace.write_u64(take(&mut self.turn));
        self.trace.write_u64(self.model.now);
        Ok(())
    }

    /// Writes packets, in two pieces if requested.
    pub(crate) async fn write(&mut self, client: usize, bytes: &[u8]) -> Verdict {
        let halve = self.clients[client].halve.take().unwrap_or(0).min(bytes.len());
        let (first, rest) = bytes.split_at(halve);
        if !first.is_empty() {
            self.write_piece(client, first).await?;
            self.moment().await;
        }
        self.write_piece(client, rest).await?;
        self.tick();
        Ok(())
    }

    /// Writes bytes, which the broker must read. Before CONNACK it need not: what a session changes is
    /// stored after earlier changes of its shard, and one of them may wait for mail that is held back.
    async fn write_piece(&mut self, client: usize, mut bytes: &[u8]) -> Verdict {
        let Some(line) = &mut self.clients[client].line else { return Ok(()) };
        let mut is_taken = line.write_from(&mut bytes).await;
        let awaits = self.model.link(client).is_some_and(Link::awaits_conn_ack);
        if !is_taken && self.post.is_holding() && awaits && !line.has_received() {
            self.post.release();
            is_taken = line.write_from(&mut bytes).await;
            self.count("not read before CONNACK");
        }
        if is_taken { Ok(()) } else { Err(format!("{} is not read", NAMES[client])) }
    }

    /// Sends a packet to the broker.
    pub(crate) async fn send(&mut self, client: usize, packet: &Packet<'_>) -> Verdict {
        let Some(line) = &self.clients[client].line else { return Ok(()) };
        let mut bytes = Vec::new();
        encode(packet, line.version(), &mut bytes).map_err(|error| error.to_string())?;
        self.say(|| format!("{} -> {packet:?} {}", NAMES[client], payload_of(packet)));
        self.write(client, &bytes).await
    }

    /// Repeats what was unfinished on the previous connection. [MQTT-4.4.0-1]
    pub(crate) async fn resume(&mut self, client: usize) -> Verdict {
        let is_v5 = self.model.link(client).is_some_and(|link| link.version == V5);
        for outbound in &mut self.clients[client].outbound {
            if outbound.sent.qos == QoS::AtLeastOnce {
                // To the broker it is a new message; the mark distinguishes the two in the output.
                outbound.sent.payload.push(b'+');
            }
        }
        let outbound: Vec<(u16, Sent, bool)> = self.clients[client]
            .outbound
            .iter()
            .map(|o| (o.packet_id, o.sent.clone().for_version(is_v5), o.is_released))
            .collect();
        for (packet_id, sent, is_released) in outbound {
            self.look_at_store().await;
            if self.model.link(client).is_none() {
                return Ok(());
            }
            self.count("sent again");
            if is_released {
                self.send(client, &Packet::PubRel(ack(packet_id))).await?;
                self.affect(move |model| model.released(client, packet_id));
            } else {
                self.send(client, &Packet::Publish(publish(&sent, Some(packet_id), true))).await?;
                self.affect(move |model| model.published(client, &sent, packet_id));
            }
        }
        Ok(())
    }
}

fn reply_of(packet: &Packet<'_>) -> Option<Reply> {
    Some(match packet {
        Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => {
            Reply::ConnAck { session_present: ack.session_present }
        }
        Packet::SubAck(ack) => {
            let granted = ack.reasons.iter().map(|reason| *reason as u8).collect();
            Reply::SubAck(ack.packet_id.number(), granted)
        }
        // The packet has no reasons before MQTT 5.0.
        Packet::UnsubAck(ack) => Reply::UnsubAck(ack.packet_id.number(), 1),
        Packet::PubAck(ack) => Reply::PubAck(ack.packet_id.number()),
        Packet::PubRec(ack) if ack.reason.is_failure() => {
            Reply::PubRecRefused(ack.packet_id.number())
        }
        Packet::PubRec(ack) => Reply::PubRec(ack.packet_id.number()),
        Packet::PubComp(ack) => Reply::PubComp(ack.packet_id.number()),
        Packet::PingResp => Reply::PingResp,
        _ => return None,
    })
}

/// Returns the number in a message's payload.
fn payload_of(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Publish(publish) => {
            let text = String::from_utf8_lossy(publish.payload);
            format!("{:?} of {} bytes", text.trim_end_matches('.'), text.len())
        }
        _ => String::new(),
    }
}
