//! What must survive the broker, as changes: each says what has become of a session, of a queue or
//! of a topic, and a store that has applied them in their order knows all that was acknowledged.
//!
//! Plain data between those who make changes (sessions, shards) and those who keep them (stores).

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use crate::{
    mqtt::{Message, PacketId, QoS, SubscriptionOptions, Timestamp},
    owners::Owner,
};

/// Numbers the sessions of one data directory; never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(pub u64);

/// Numbers what was queued for one session, in its order, from 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueuePlace(pub u64);

/// One change. Changes of one session come in the order in which they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A durable session is new, or something of it is.
    PutSession(SessionNumber, Box<SessionRecord>),
    /// A session has ended; all that it has goes with it. Ending what is not there is no error.
    EndSession(SessionNumber),
    /// A subscription, in place of a former one to the same Topic Filter.
    Subscribe(SessionNumber, Box<str>, SubscriptionRecord),
    /// A subscription is no more.
    Unsubscribe(SessionNumber, Box<str>),
    /// A message waits for a session, behind all that wait. Where it is sent at once, so is said.
    Enqueue(SessionNumber, QueuePlace, QueuedMessage, Option<SentAs>),
    /// A message that waited is sent.
    Send(SessionNumber, QueuePlace, SentAs),
    /// PUBREC has come for a message that was sent: it is no longer needed, but its Packet
    /// Identifier is until PUBCOMP.
    Release(SessionNumber, QueuePlace),
    /// A message was acknowledged, or dropped.
    Dequeue(SessionNumber, QueuePlace),
    /// A QoS 2 message of the client was accepted. [MQTT-4.3.3-10]
    Accept(SessionNumber, PacketId),
    /// PUBREL has come for it.
    Forget(SessionNumber, PacketId),
    /// The Will of a session.
    PutWill(SessionNumber, Box<WillRecord>),
    /// The Will was published or is not to be.
    DropWill(SessionNumber),
    /// The retained message of a topic, in place of a former one, and whose it is; `None` for the
    /// broker's own.
    Retain(Arc<Message>, Option<Owner>),
    /// A topic has no retained message any more.
    ClearRetained(Box<str>),
    /// Presence versions up to and including this one may be given out. Never goes back.
    ReserveVersions(u64),
    /// The broker's clock shows this at least. Never goes back.
    Clock(Timestamp),
    /// A user was right from an address at this time.
    NoteLogin(LoginKey, Timestamp),
    /// A pair of user and address is known no more.
    ForgetLogin(LoginKey),
}

/// Stands for a user and an address: half a hash of the name, half the address. No password is part
/// of it.
pub type LoginKey = [u8; 32];

/// What is kept of a session itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// User name of its owner.
    pub username: Option<Arc<str>>,
    /// Session Expiry Interval in seconds.
    pub expiry_interval_secs: u32,
    /// When it ends; `None` while its client is there, or if it never does.
    pub ends_at: Option<Timestamp>,
    /// Whether its client is there.
    pub is_connected: bool,
    /// QoS 1 messages up to this place may have been sent when a broker ended, and no note says so.
    pub doubtful_up_to: QueuePlace,
    /// Address and port of the last connection, as text.
    pub peer: Box<str>,
    /// When the last connection began.
    pub connected_at: Timestamp,
}

/// What is kept of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// Subscription Options.
    pub options: SubscriptionOptions,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
}

/// A message that waits for a session, and how it is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedMessage {
    /// The message. One that has a number ([`Message::number`]) may wait for several sessions, and
    /// is stored once for all of them; one that has none waits for this session alone.
    pub message: Arc<Message>,
    /// The QoS that it is sent with.
    pub qos: QoS,
    /// The RETAIN flag that it is sent with.
    pub retain: bool,
    /// Subscription Identifiers.
    pub identifiers: Option<Arc<[u32]>>,
    /// The shared subscription that it came by: its whole Topic Filter.
    pub share: Option<Arc<str>>,
}

/// How a message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentAs {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Counts what is sent in a session: the order in which it is sent again. [MQTT-4.6.0-1]
    pub order: u64,
}

/// What is kept of a Will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WillRecord {
    /// The message.
    pub message: Arc<Message>,
    /// Will Delay Interval in seconds.
    pub delay_secs: u32,
    /// Message Expiry Interval, which begins when the Will is published.
    pub expiry_secs: Option<u32>,
    /// When it is published; `None` while its client is there.
    pub due_at: Option<Timestamp>,
}

/// Numbers the groups of changes of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

impl Ticket {
    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Where the sessions of a shard note their changes, in one order. What is noted belongs to the
/// ticket that is current; what must not be said before it is kept waits for that ticket.
#[derive(Clone, Debug, Default)]
pub struct Journal(Rc<Pages>);

#[derive(Debug, Default)]
struct Pages {
    changes: RefCell<Vec<Change>>,
    /// Bytes of messages in them.
    bytes: Cell<usize>,
    ticket: Cell<Ticket>,
    /// Changes that were ever noted.
    noted: Cell<u64>,
    /// Who waits for the current ticket.
    waiting: RefCell<Vec<u32>>,
}

impl Journal {
    /// Notes a change.
    pub fn note(&self, change: Change) {
        let bytes =
            if let Change::Enqueue(_, _, queued, _) = &change { queued.message.size() } else { 0 };
        self.0.bytes.set(self.0.bytes.get() + bytes + size_of::<Change>());
        self.0.noted.set(self.0.noted.get() + 1);
        self.0.changes.borrow_mut().push(change);
    }

    /// How many changes were ever noted.
    #[must_use]
    pub fn noted(&self) -> u64 {
        self.0.noted.get()
    }

    /// Whether no change belongs to the current ticket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.changes.borrow().is_empty()
    }

    /// The ticket of what is noted now.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.0.ticket.get()
    }

    /// Who holds `token` wants to be told when the current ticket is kept, with all before it.
    pub fn await_by(&self, token: u32) -> Ticket {
        let mut waiting = self.0.waiting.borrow_mut();
        if waiting.last() != Some(&token) {
            waiting.push(token);
        }
        self.ticket()
    }

    /// Takes what belongs to the current ticket; the next one is current from now on.
    #[must_use]
    pub fn turn_over(&self) -> JournalPage {
        let ticket = self.0.ticket.get();
        self.0.ticket.set(ticket.next());
        JournalPage {
            ticket,
            changes: self.0.changes.take(),
            bytes: self.0.bytes.take(),
            waiting: self.0.waiting.take(),
        }
    }

    /// Whether nothing belongs to the current ticket, and nobody waits for it.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.is_empty() && self.0.waiting.borrow().is_empty()
    }
}

/// What belongs to one ticket.
#[derive(Debug)]
pub struct JournalPage {
    /// The ticket.
    pub ticket: Ticket,
    /// The changes, in their order.
    pub changes: Vec<Change>,
    /// What they count.
    pub bytes: usize,
    /// The tokens of those who wait for it.
    pub waiting: Vec<u32>,
}
