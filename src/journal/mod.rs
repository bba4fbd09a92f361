//! The changes that must survive a restart of the broker. Each describes a change of a session, a
//! queue or a topic. A store that has applied them in order has everything that was acknowledged.
//!
//! Plain data between the producers of changes (sessions, shards) and the stores.

use std::{
    cell::{Cell, RefCell},
    num::NonZeroU64,
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    history::{ConnectionNotes, HistoryTidy},
    mqtt::{Message, PacketId, QoS, SubscriptionOptions, Timestamp},
    owners::Owner,
};

impl Record {
    /// Returns whether the record has ceased to exist.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// The number of a session in one data directory; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(pub u64);

/// The position of a message in the queue of one session, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueuePlace(pub u64);

/// One change. The changes of one session come in the order in which they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Creates a durable session or updates its record.
    PutSession(SessionNumber, Box<SessionRecord>),
    /// Ends a session and removes everything that belongs to it. Ending an unknown session is no
    /// error.
    EndSession(SessionNumber),
    /// Adds a subscription, or replaces the one with the same Topic Filter.
    Subscribe(SessionNumber, Box<str>, SubscriptionRecord),
    /// Removes a subscription.
    Unsubscribe(SessionNumber, Box<str>),
    /// Appends a message to the queue of a session; `SentAs` if it is sent immediately.
    Enqueue(SessionNumber, QueuePlace, QueuedMessage, Option<SentAs>),
    /// Marks a queued message as sent.
    Send(SessionNumber, QueuePlace, SentAs),
    /// PUBREC has acknowledged a sent message: the message is no longer needed, but its Packet
    /// Identifier is needed until PUBCOMP.
    Release(SessionNumber, QueuePlace),
    /// Removes a message that was acknowledged or dropped.
    Dequeue(SessionNumber, QueuePlace),
    /// Notes that a QoS 2 message from the client was accepted. [MQTT-4.3.3-10]
    Accept(SessionNumber, PacketId),
    /// Forgets an accepted QoS 2 message, because PUBREL has arrived.
    Forget(SessionNumber, PacketId),
    /// Sets the Will of a session.
    PutWill(SessionNumber, Box<WillRecord>),
    /// Removes the Will, because it was published or will not be.
    DropWill(SessionNumber),
    /// Sets the retained message of a topic, and its owner; `None` for the broker's own messages.
    Retain(Arc<Message>, Option<Owner>),
    /// Removes the retained message of a topic.
    ClearRetained(Box<str>),
    /// Reserves presence versions up to and including this one. Never decreases.
    ReserveVersions(u64),
    /// A lower bound of the broker's clock. Never decreases.
    Clock(Timestamp),
    /// A user logged in successfully from an address at this time.
    NoteLogin(LoginKey, Timestamp),
    /// Forgets a pair of user and address.
    ForgetLogin(LoginKey),
    /// Adds a record, or replaces the one with the same key.
    PutRecord(Box<RecordKey>, Box<Record>),
    /// Removes a record. The removal has a revision of its own.
    RemoveRecord(Box<RecordKey>, Revision),
    /// Notes connections in the histories of their clients.
    NoteConnections(Box<ConnectionNotes>),
    /// Removes old histories of clients, a bounded number.
    TidyHistory(HistoryTidy),
}

/// The bytes that each change counts besides its content. In memory it takes less than half of them; a store that
/// writes pages takes about as long for it as for this number of bytes of a large message.
pub(crate) const CHANGE_BYTES: usize = 384;

impl Change {
    /// Returns the bytes that the change takes on its way to the store.
    pub(crate) fn bytes(&self) -> usize {
        // Only changes with content of variable length count by it; the fixed part covers the others.
        let content = if let Self::Enqueue(_, _, queued, _) = self {
            queued.message.size()
        } else if let Self::Retain(message, _) = self {
            message.size()
        } else if let Self::PutWill(_, will) = self {
            will.message.size()
        } else if let Self::Subscribe(_, text, _)
        | Self::Unsubscribe(_, text)
        | Self::ClearRetained(text) = self
        {
            text.len()
        } else if let Self::PutRecord(name, record) = self {
            name.namespace.len() + name.key.len() + record.value.len()
        } else if let Self::NoteConnections(connections) = self {
            size_of_val(&*connections.notes)
        } else {
            0
        };
        content + CHANGE_BYTES
    }

    /// Returns the bytes of a message in this change that other changes of the same ticket share, and its number.
    fn shared(&self) -> Option<(NonZeroU64, usize)> {
        let Self::Enqueue(_, _, queued, _) = self else { return None };
        Some((queued.message.number()?, queued.message.size()))
    }
}

/// Counts the changes of all records: a later change has a higher revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// Names a record by its namespace and its key there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    namespace: Box<str>,
    key: Box<str>,
}

/// Maximum bytes of a namespace: the store writes its length into one byte.
const NAMESPACE_BYTES_MAX: usize = 255;

impl RecordKey {
    /// Maximum bytes of a key in its namespace. Keys are compared often, and stores limit their length.
    pub const KEY_BYTES_MAX: usize = 4_096;

    /// Names a record; returns `None` if the namespace is empty or longer than 255 bytes, or the
    /// key is longer than 4,096 bytes.
    #[must_use]
    pub fn new(namespace: &str, key: &str) -> Option<Self> {
        let fits = (1..=NAMESPACE_BYTES_MAX).contains(&namespace.len())
            && key.len() <= Self::KEY_BYTES_MAX;
        fits.then(|| Self { namespace: namespace.into(), key: key.into() })
    }

    /// Returns the namespace: it says what the record is about.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns the key in the namespace.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// A record: what an operator or a caller has set, as opposed to the state of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The revision of the change that has written it.
    pub revision: Revision,
    /// Its content; the owner of the namespace knows the format.
    pub value: Bytes,
    /// When the record ceases to exist; `None` if it does not end by itself.
    pub expires_at: Option<Timestamp>,
}

/// Identifies a user and an address: half is a hash of the name, half the address. It contains no
/// password.
pub type LoginKey = [u8; 32];

/// The stored record of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// User name of the owner.
    pub username: Option<Arc<str>>,
    /// Session Expiry Interval in seconds.
    pub expiry_interval_secs: u32,
    /// When the session ends; `None` while its client is connected, or if it never ends.
    pub ends_at: Option<Timestamp>,
    /// Whether the client is connected.
    pub is_connected: bool,
    /// QoS 1 messages up to this position may have been sent before a broker's end, although no
    /// change says so.
    pub doubtful_up_to: QueuePlace,
    /// Address and port of the last connection, as text.
    pub peer: Box<str>,
    /// When the last connection began.
    pub connected_at: Timestamp,
    /// How its client logged in; `None` if a former version has written the record.
    pub login: Option<LoginRecord>,
}

/// How the client of a session logged in, so that it can be judged while it is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRecord {
    /// The evidence that the login rests on.
    pub kind: LoginKind,
    /// Authentication Method, if it was none of user name and password.
    pub method: Option<Arc<str>>,
    /// The URL of the listener that accepted the connection.
    pub listener: Arc<str>,
    /// The names in the certificate that was shown.
    pub certificate: Option<CertificateRecord>,
    /// Of a certificate's identity: whether it ends with the account of its name.
    pub needs_account: bool,
    /// The source in a chain of authenticators that has accepted the client.
    pub source: Option<Arc<str>>,
    /// The attributes of the identity, if rules use them.
    pub attributes: Box<[(Box<str>, Box<str>)]>,
    /// The groups of the identity.
    pub groups: Box<[Box<str>]>,
    /// The number of the credential that has proven it.
    pub credential: Option<u64>,
    /// The rules of the identity alone, as JSON.
    pub rules: Option<Box<str>>,
    /// When these rules expire.
    pub rules_expire_at: Option<Timestamp>,
}

/// The subject of a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRecord {
    /// Common Name.
    pub common_name: Box<str>,
    /// Serial number in hexadecimal.
    pub serial_number: Box<str>,
}

/// The evidence that a login rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginKind {
    /// A user name and its password.
    Password,
    /// A client certificate.
    Certificate,
    /// The method SCRAM-SHA-256.
    Scram,
    /// Nothing.
    Anonymous,
    /// Something of the embedding application.
    Other,
}

impl LoginKind {
    /// All of them. A place in it is what a store may write, so that new ones come last.
    pub const ALL: [Self; 5] =
        [Self::Password, Self::Certificate, Self::Scram, Self::Anonymous, Self::Other];

    /// Returns its name, as in rules.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Certificate => "certificate",
            Self::Scram => "scram",
            Self::Anonymous => "anonymous",
            Self::Other => "other",
        }
    }

    /// Returns the one of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The stored record of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// Subscription Options.
    pub options: SubscriptionOptions,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
    /// Whether the subscription has ended, because its client had lost the permission, but not the
    /// search for the messages that wait under it.
    pub is_withdrawn: bool,
}

/// A queued message, and how to send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedMessage {
    /// The message. If it has a number ([`Message::number`]), several sessions may share one stored
    /// copy; otherwise it belongs to this session alone.
    pub message: Arc<Message>,
    /// The QoS to send it with.
    pub qos: QoS,
    /// The RETAIN flag to send it with.
    pub retain: bool,
    /// Subscription Identifiers.
    pub identifiers: Option<Arc<[u32]>>,
    /// The whole Topic Filter of the shared subscription that it came by.
    pub share: Option<Arc<str>>,
}

/// How a message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentAs {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Counts the sent messages of a session: the order of retransmission. [MQTT-4.6.0-1]
    pub order: u64,
}

/// The stored record of a Will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WillRecord {
    /// The message.
    pub message: Arc<Message>,
    /// Will Delay Interval in seconds.
    pub delay_secs: u32,
    /// Message Expiry Interval in seconds, which starts when the Will is published.
    pub expiry_secs: Option<u32>,
    /// When to publish the Will; `None` while its client is connected.
    pub due_at: Option<Timestamp>,
}

/// The number of a group of changes of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

impl Ticket {
    /// Returns the next ticket.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Collects the changes of a shard's sessions, in one order. A change belongs to the current
/// ticket. Answers that require the change to be durable wait for that ticket.
#[derive(Clone, Debug, Default)]
pub struct Journal(Rc<SparePages>);

#[derive(Debug, Default)]
struct SparePages {
    changes: RefCell<Vec<Change>>,
    /// Bytes of the changes, including their messages.
    bytes: Cell<usize>,
    /// The number of the last message that several sessions store: it is counted once.
    last_shared: Cell<Option<NonZeroU64>>,
    ticket: Cell<Ticket>,
    /// Number of changes noted so far.
    noted: Cell<u64>,
    /// Tokens of the clients that wait for the current ticket.
    waiting: RefCell<Vec<u32>>,
}

impl Journal {
    /// Adds a change to the current ticket.
    pub fn note(&self, change: Change) {
        let mut bytes = change.bytes();
        if let Some((number, size)) = change.shared()
            && self.0.last_shared.replace(Some(number)) == Some(number)
        {
            bytes -= size;
        }
        self.0.bytes.set(self.0.bytes.get() + bytes);
        self.0.noted.set(self.0.noted.get() + 1);
        self.0.changes.borrow_mut().push(change);
    }

    /// Returns the number of changes noted so far.
    #[must_use]
    pub fn noted(&self) -> u64 {
        self.0.noted.get()
    }

    /// Returns the bytes of the changes of the current ticket.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    /// Returns whether no change belongs to the current ticket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.changes.borrow().is_empty()
    }

    /// Returns the current ticket.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.0.ticket.get()
    }

    /// Registers `token` to be notified when the current ticket and all before it are durable.
    pub fn await_by(&self, token: u32) -> Ticket {
        let mut waiting = self.0.waiting.borrow_mut();
        if waiting.last() != Some(&token) {
            waiting.push(token);
        }
        self.ticket()
    }

    /// Takes the content of the current ticket and starts the next one.
    #[must_use]
    pub fn turn_over(&self) -> JournalPage {
        let ticket = self.0.ticket.get();
        self.0.ticket.set(ticket.next());
        self.0.last_shared.set(None);
        JournalPage {
            ticket,
            changes: self.0.changes.take(),
            bytes: self.0.bytes.take(),
            waiting: self.0.waiting.take(),
        }
    }

    /// Returns whether the current ticket has no changes and no waiting tokens.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.is_empty() && self.0.waiting.borrow().is_empty()
    }
}

/// The content of one ticket.
#[derive(Debug)]
pub struct JournalPage {
    /// The ticket.
    pub ticket: Ticket,
    /// The changes, in their order.
    pub changes: Vec<Change>,
    /// Bytes that the changes count.
    pub bytes: usize,
    /// The tokens to notify when the ticket is durable.
    pub waiting: Vec<u32>,
}
