//! Records what was sent, acknowledged and received, in one order, and which promises were broken.
//!
//! A player notes an action before it performs it, and an arrival after it. So an earlier note
//! means an earlier event, and the book never reports a fault for something that a broker may do.
//! Knows neither sockets nor packets, nor that brokers are killed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use hearthmq::mqtt::QoS;

/// A message, by its publisher and its number among that publisher's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MessageId {
    pub(crate) publisher: usize,
    pub(crate) number: u32,
}

/// What a client knows of its session before CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It has never connected, so it has no session.
    Never,
    /// CONNECT was sent, and no CONNACK came.
    Perhaps,
    /// CONNACK came, and the session has not ended since.
    Yes,
}

/// The kind of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A client that gets all messages.
    Client,
    /// A client that gets the messages of this publisher.
    ClientOf(usize),
    /// The members of a shared subscription together.
    Group,
    /// A client that receives Wills only.
    Heir,
}

/// A receiver of messages.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) name: &'static str,
    /// QoS of its subscription.
    pub(crate) qos: QoS,
    pub(crate) kind: Kind,
}

/// A retained message, or `None` where the topic has none.
pub(crate) type Kept = Option<u32>;

/// One note.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// CONNACK came, with this Session Present.
    Connected { client: String, known: Known, present: bool },
    /// The broker has closed or refused a connection without a reason.
    CutOff { client: String, why: String },
    /// CONNECT with Clean Start is about to be sent: the receiver's session ends.
    Forgets { receiver: usize },
    /// SUBACK came.
    Subscribed { receiver: usize },
    /// A message is about to be sent for the first time.
    Sent { message: MessageId, qos: QoS },
    /// A retained message, which replaces or clears the previous one, is about to be sent.
    SentToKeep { message: MessageId, topic: u8, clears: bool },
    /// A message is about to be sent again.
    SentAgain { message: MessageId },
    /// PUBACK or PUBREC came.
    Acknowledged { message: MessageId },
    /// PUBACK or PUBREC came and refuses the message.
    Refused { message: MessageId, reason: String },
    /// A subscriber has passed a message to its application.
    Received { receiver: usize, connection: u32, message: MessageId, dup: bool },
    /// A PUBLISH came with a Packet Identifier that is still in use.
    CameAgain { client: String, packet_id: u16, first: String, then: String, dup: bool },
    /// The retained messages that a new subscriber received.
    Retained { found: BTreeMap<u8, u32> },
    /// A publisher gives up with this many unanswered messages.
    Unanswered { client: String, messages: usize },
    /// The client with this Will is about to disappear.
    WillDue { will: u32 },
    /// A Will came, this many milliseconds after a broker was up that could publish it.
    Will { will: u32, late_ms: u64 },
    /// The Will came of a client that had reconnected in time.
    WillOfTheLiving { client: String },
    /// A connection of this client has begun.
    Presence { client: String, version: u64 },
}

/// How late a Will may be, its delay included, on a clock that runs slow when the machine does.
pub(crate) const WILL_LATE_MS_MAX: u64 = 30_000;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The message was acknowledged and has not come.
    Lost { receiver: &'static str, message: MessageId },
    /// A QoS 2 message came twice. With DUP the broker repeated it; without DUP the publisher may
    /// have.
    Doubled { receiver: &'static str, message: MessageId, dup: bool, is_sent_again: bool },
    /// A QoS 1 message came twice without DUP, on one connection, and was sent once.
    Repeated { receiver: &'static str, message: MessageId },
    /// A message came for the first time after a later one of its publisher and QoS.
    Disordered { receiver: &'static str, message: MessageId, after: u32 },
    /// A message came that was acknowledged before the session began: it belonged to an ended
    /// session.
    Risen { receiver: &'static str, message: MessageId },
    /// A message came that was never sent.
    Stray { receiver: &'static str, message: MessageId },
    /// Session Present is 0, but the client has a session.
    SessionLost { client: String },
    /// Session Present is 1, but the client cannot have a session.
    SessionInvented { client: String },
    /// The broker has closed a connection without a reason.
    CutOff { client: String, why: String },
    /// A Packet Identifier that is in use came with another message.
    IdentifierReused { client: String, packet_id: u16, first: String, then: String },
    /// A message came again with its Packet Identifier and without DUP.
    WithoutDup { client: String, packet_id: u16, message: String },
    /// The broker refuses a message.
    Refused { message: MessageId, reason: String },
    /// This many messages of a publisher were not answered.
    Unanswered { client: String, messages: usize },
    /// The retained message is neither the last acknowledged one nor a later one.
    Retained { topic: u8, found: Kept, allowed: Vec<Kept> },
    /// A Will has not come.
    WillLost { will: u32 },
    /// A Will came too late.
    WillLate { will: u32, late_ms: u64 },
    /// The Will of a client that had reconnected in time was published.
    WillOfTheLiving { client: String },
    /// A presence version is not greater than the one before.
    VersionWentBack { client: String, before: u64, version: u64 },
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

/// The events of a round, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) repeated: u64,
}

/// What is known of a sent message.
struct Sent {
    qos: QoS,
    /// Its position among all notes.
    at: u64,
    is_sent_again: bool,
    acknowledged_at: Option<u64>,
    /// For retained messages: the topic, and the position in the topic's history.
    kept: Option<(u8, usize)>,
}

/// What is known of a receiver.
struct Shelf {
    receiver: Receiver,
    subscribed_at: Option<u64>,
    /// Position of the note with which the previous session was given up.
    forgot_at: Option<u64>,
    /// Messages that came, with the last connection on which each came.
    came: HashMap<MessageId, u32>,
    /// Highest number that came from each publisher with each QoS.
    highest: HashMap<(usize, QoS), u32>,
    /// Messages that are acknowledged and have not come yet.
    owed: HashSet<MessageId>,
}

impl Shelf {
    fn forget(&mut self, at: u64) {
        self.subscribed_at = None;
        self.forgot_at = Some(at);
        self.came.clear();
        self.highest.clear();
        self.owed.clear();
    }
}

/// The messages sent to a retaining topic, and how many of them were acknowledged.
#[derive(Default)]
struct KeptTopic {
    sent: Vec<Kept>,
    /// Number of messages from the first to the last acknowledged one.
    acknowledged: usize,
}

/// All notes of a round that still matter.
pub(crate) struct Book {
    notes: u64,
    sent: HashMap<MessageId, Sent>,
    shelves: Vec<Shelf>,
    kept: BTreeMap<u8, KeptTopic>,
    wills_due: HashSet<u32>,
    wills_come: HashSet<u32>,
    versions: HashMap<String, u64>,
    faults: Vec<Fault>,
    counts: Counts,
}

impl Book {
    pub(crate) fn new(receivers: Vec<Receiver>) -> Self {
        let shelves = receivers.into_iter().map(|receiver| Shelf {
            receiver,
            subscribed_at: None,
            forgot_at: None,
            came: HashMap::new(),
            highest: HashMap::new(),
            owed: HashSet::new(),
        });
        Self {
            notes: 0,
            sent: HashMap::new(),
            shelves: shelves.collect(),
            kept: BTreeMap::new(),
            wills_due: HashSet::new(),
            wills_come: HashSet::new(),
            versions: HashMap::new(),
            faults: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the number of messages and Wills that must still come.
    pub(crate) fn owed(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.owed.len()).sum::<usize>() + self.wills_due.len()
    }

    /// Returns whether a promise was broken already.
    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Returns the number of notes.
    pub(crate) fn notes(&self) -> u64 {
        self.notes
    }

    /// Closes the book: everything that has not come counts as lost.
    pub(crate) fn close(&mut self) -> (Counts, Vec<Fault>) {
        let mut faults = std::mem::take(&mut self.faults);
        for shelf in &mut self.shelves {
            let mut lost: Vec<MessageId> = shelf.owed.drain().collect();
            lost.sort();
            self.counts.lost += lost.len() as u64;
            let receiver = shelf.receiver.name;
            faults.extend(lost.into_iter().map(|message| Fault::Lost { receiver, message }));
        }
        faults.extend(self.wills_due.drain().map(|will| Fault::WillLost { will }));
        (self.counts, faults)
    }

    pub(crate) fn note(&mut self, event: Event) {
        self.notes += 1;
        match event {
            Event::Connected { client, known, present } => self.connected(client, known, present),
            Event::CutOff { client, why } => self.faults.push(Fault::CutOff { client, why }),
            Event::Forgets { receiver } => self.shelves[receiver].forget(self.notes),
            Event::Subscribed { receiver } => {
                let at = self.notes;
                self.shelves[receiver].subscribed_at.get_or_insert(at);
            }
            Event::Sent { message, qos } => self.sent(message, qos, None),
            Event::SentToKeep { message, topic, clears } => {
                let history = &mut self.kept.entry(topic).or_default().sent;
                history.push((!clears).then_some(message.number));
                let place = history.len();
                self.sent(message, QoS::AtLeastOnce, Some((topic, place)));
            }
            Event::SentAgain { message } => {
                if let Some(sent) = self.sent.get_mut(&message) {
                    sent.is_sent_again = true;
                }
            }
            Event::Acknowledged { message } => self.acknowledged(message),
            Event::Refused { message, reason } => {
                self.faults.push(Fault::Refused { message, reason });
            }
            Event::Received { receiver, connection, message, dup } => {
                self.received(receiver, connection, message, dup);
            }
            Event::CameAgain { client, packet_id, first, then, dup } => match first == then {
                false => {
                    self.faults.push(Fault::IdentifierReused { client, packet_id, first, then });
                }
                // A message that its publisher sent again without an acknowledgement is a new one
                // for a broker that had not stored the first.
                true if dup || self.is_sent_again(&then) => {}
                true => self.faults.push(Fault::WithoutDup { client, packet_id, message: then }),
            },
            Event::Retained { found } => self.retained(&found),
            Event::Unanswered { client, messages } => {
                self.faults.push(Fault::Unanswered { client, messages });
            }
            Event::WillDue { will } if self.wills_come.contains(&will) => {}
            Event::WillDue { will } => {
                self.wills_due.insert(will);
            }
            Event::Will { will, late_ms } => self.will(will, late_ms),
            Event::WillOfTheLiving { client } => {
                self.faults.push(Fault::WillOfTheLiving { client });
            }
            Event::Presence { client, version } => self.presence(client, version),
        }
    }

    fn connected(&mut self, client: String, known: Known, present: bool) {
        match (known, present) {
            (Known::Yes, false) => self.faults.push(Fault::SessionLost { client }),
            (Known::Never, true) => self.faults.push(Fault::SessionInvented { client }),
            (Known::Never | Known::Perhaps, false) | (Known::Yes | Known::Perhaps, true) => {}
        }
    }

    fn sent(&mut self, message: MessageId, qos: QoS, kept: Option<(u8, usize)>) {
        let at = self.notes;
        let sent = Sent { qos, at, is_sent_again: false, acknowledged_at: None, kept };
        self.sent.insert(message, sent);
    }

    fn acknowledged(&mut self, message: MessageId) {
        let Some(sent) = self.sent.get_mut(&message) else { return };
        if sent.acknowledged_at.is_some() {
            return;
        }
        sent.acknowledged_at = Some(self.notes);
        self.counts.acknowledged += 1;
        if let Some((topic, place)) = sent.kept {
            let topic = self.kept.entry(topic).or_default();
            topic.acknowledged = topic.acknowledged.max(place);
            return;
        }
        for shelf in &mut self.shelves {
            // A receiver without SUBACK at that time may get the message, but need not.
            let is_due = shelf.subscribed_at.is_some_and(|at| at < sent.at);
            let is_for = match shelf.receiver.kind {
                Kind::Client | Kind::Group => true,
                Kind::ClientOf(publisher) => publisher == message.publisher,
                Kind::Heir => false,
            };
            if is_due && is_for && !shelf.came.contains_key(&message) {
                shelf.owed.insert(message);
            }
        }
    }

    fn received(&mut self, receiver: usize, connection: u32, message: MessageId, dup: bool) {
        let shelf = &mut self.shelves[receiver];
        let name = shelf.receiver.name;
        let Some(sent) = self.sent.get(&message) else {
            self.faults.push(Fault::Stray { receiver: name, message });
            return;
        };
        if sent.acknowledged_at.zip(shelf.forgot_at).is_some_and(|(then, forgot)| then < forgot) {
            self.faults.push(Fault::Risen { receiver: name, message });
        }
        let Some(before) = shelf.came.insert(message, connection) else {
            self.counts.delivered += 1;
            shelf.owed.remove(&message);
            if shelf.receiver.kind != Kind::Group {
                let key = (message.publisher, sent.qos);
                let highest = shelf.highest.entry(key).or_insert(message.number);
                // A message sent before the subscription and repeated after it may come after
                // messages that were first sent in between. The client may not know of a
                // subscription.
                let is_late_anyway =
                    sent.is_sent_again && shelf.subscribed_at.is_none_or(|at| sent.at < at);
                if message.number < *highest && !is_late_anyway {
                    let after = *highest;
                    self.faults.push(Fault::Disordered { receiver: name, message, after });
                }
                *highest = message.number.max(*highest);
            }
            return;
        };
        if sent.qos.min(shelf.receiver.qos) == QoS::ExactlyOnce {
            self.counts.doubled += 1;
            let is_sent_again = sent.is_sent_again;
            self.faults.push(Fault::Doubled { receiver: name, message, dup, is_sent_again });
            return;
        }
        self.counts.repeated += 1;
        if !dup && before == connection && !sent.is_sent_again {
            self.faults.push(Fault::Repeated { receiver: name, message });
        }
    }

    fn retained(&mut self, found: &BTreeMap<u8, u32>) {
        for (number, topic) in &self.kept {
            let from = topic.acknowledged.saturating_sub(1);
            let mut allowed = topic.sent[from..].to_vec();
            if topic.acknowledged == 0 {
                allowed.push(None);
            }
            let found = found.get(number).copied();
            if !allowed.contains(&found) {
                self.faults.push(Fault::Retained { topic: *number, found, allowed });
            }
        }
    }

    /// Returns whether the publisher named in the payload has sent the message more than once.
    fn is_sent_again(&self, payload: &str) -> bool {
        let mut numbers = payload.split(' ').map_while(|number| number.parse::<u32>().ok());
        let (Some(publisher), Some(number)) = (numbers.next(), numbers.next()) else {
            return false;
        };
        let message = MessageId { publisher: publisher as usize, number };
        self.sent.get(&message).is_some_and(|sent| sent.is_sent_again)
    }

    fn will(&mut self, will: u32, late_ms: u64) {
        self.wills_come.insert(will);
        if self.wills_due.remove(&will) && late_ms > WILL_LATE_MS_MAX {
            self.faults.push(Fault::WillLate { will, late_ms });
        }
    }

    /// Returns the topics that certainly have a retained message.
    pub(crate) fn surely_retained(&self) -> Vec<u8> {
        let surely = self.kept.iter().filter(|(_, topic)| {
            topic.acknowledged > 0
                && topic.sent[topic.acknowledged - 1..].iter().all(Option::is_some)
        });
        surely.map(|(number, _)| *number).collect()
    }

    /// Returns whether a receiver has its SUBACK.
    pub(crate) fn is_subscribed(&self, receiver: usize) -> bool {
        self.shelves[receiver].subscribed_at.is_some()
    }

    fn presence(&mut self, client: String, version: u64) {
        let before = self.versions.insert(client.clone(), version);
        if let Some(before) = before
            && before >= version
        {
            self.faults.push(Fault::VersionWentBack { client, before, version });
        }
    }
}
