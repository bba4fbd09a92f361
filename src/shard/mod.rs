//! One shard: its sessions, online and offline, and what happens to them.
//!
//! Everything here runs on the shard's thread, one thing after the other. The registry and the
//! connections of the shard share it and never hold it across an await. It knows no actors: it reaches
//! connections and other shards through doors.

pub(crate) mod common;
pub(crate) mod connect;
mod departure;
pub(crate) mod doors;
mod dropping;
mod hold;
pub(crate) mod in_process;
mod keeping;
mod packets;
mod presence;
mod quota;
pub(crate) mod refusal;
mod routing;
pub(crate) mod subscription;
mod system;
mod turn;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use foldhash::fast::RandomState;
use slab::Slab;
use tokio::sync::oneshot;

pub(crate) use self::{
    common::{Core, CoreParts},
    departure::Departure,
    hold::{LOOK_EVERY, look_after_held},
    keeping::weeding::weed_queues,
    packets::Received,
    presence::{
        authenticate::not_authenticated,
        recheck::{CERTIFICATE, Rounds, not_authorized},
        tell::subject_of,
    },
    refusal::RefusalAnswer,
};
use self::{
    hold::{FullQueue, Held},
    keeping::{tickets::Tickets, weeding::Weeding},
    presence::{attach, authenticate::Authentication},
    quota::Slowed,
    routing::{
        backlog::Backlogs,
        plans::{PlanCache, RecentTopic},
    },
};
use crate::{
    auth::Identity,
    between::{
        batch::{Deliver, TakeBacklog},
        door::ToShard,
    },
    journal::Journal,
    metrics::{DropReason, ShardMetrics},
    mqtt::Timestamp,
    owners::{Account, Charge},
    router::{Host, Place},
    session::{Session, Tally},
    shard::{
        connect::{AcceptedWill, ClientSession, Proven},
        doors::{ConnectionDoor, ToConnection},
    },
};

/// Bytes that one read may bring: one buffer a shard, whoever reads.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;
/// Output buffers that a shard keeps for connections that have something to write.
const SPARE_BUFFERS_MAX: usize = 256;
/// A larger output buffer is not kept.
const SPARE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// The sessions whose client identifiers have this shard as their home.
pub(crate) struct Shard {
    pub(crate) host: Host,
    pub(crate) core: Arc<Core>,
    pub(crate) metrics: Arc<ShardMetrics>,
    clients: HashMap<Arc<str>, u32, RandomState>,
    slots: Slab<Slot>,
    /// Keep-alive deadline of each slot in milliseconds, so that a sweep reads nothing else.
    deadlines: Vec<u64>,
    /// When a slot's Will or session is due, in milliseconds, and which slot: one entry a slot.
    timers: BTreeSet<(u64, u32)>,
    plans: PlanCache,
    /// Deliveries to the other shards that were gathered in this wake-up.
    outboxes: Vec<Deliver>,
    /// A buffer for the forwarded properties of a PUBLISH, lent to the turn that reads packets.
    properties: Vec<u8>,
    spare_buffers: Vec<Vec<u8>>,
    pub(crate) scratch: Vec<u8>,
    /// Where sessions note what must survive; `None` where nothing does.
    pub(crate) journal: Option<Journal>,
    tickets: Tickets,
    next_generation: u32,
    /// Number of the last connection.
    last_link: u64,
    /// No session that was forgotten had a higher presence version.
    version_floor: u64,
    /// Connections that are read no further for now, the longest held first.
    held: Vec<Held>,
    /// Whether [`look_after_held`] is under way.
    is_looked_after: bool,
    /// Slots whose queue is full and had publishers wait.
    full_queues: BTreeMap<u32, FullQueue>,
    /// Clients that are to wait before they come back.
    slowed: Slowed,
    /// Clients whose full queue loses messages.
    dropping: dropping::Dropping,
    /// Members that have asked for what waits here and are to be answered later: one for each.
    asked_later: Vec<TakeBacklog>,
    weeding: Weeding,
    /// When the last sweep was.
    swept_at: Timestamp,
    /// Before this the process stood still, and not all may have been heard.
    all_heard_at: Timestamp,
    online: usize,
    /// What is due may be done: all shards know their sessions.
    pub(crate) has_begun: bool,
    /// The broker is shutting down: nothing is read any more, and no connection is taken.
    pub(crate) is_quiet: bool,
    pub(crate) shutting_down: Option<oneshot::Sender<()>>,
    /// Bytes of deliveries that other shards have sent and that were not taken up yet.
    bytes_waiting: Arc<AtomicUsize>,
}

/// A session and what is known of its connection.
pub(crate) struct Slot {
    generation: u32,
    pub(crate) session: Session,
    pub(crate) presence: Presence,
    /// Whose the session is, with what the user has and may have.
    account: Arc<Account>,
    /// The session itself among those of its user that outlive their connection.
    lasting: Charge,
    pub(crate) connected: Option<Connected>,
    will: Option<Box<AcceptedWill>>,
    /// When a delayed Will is published.
    will_at: Option<Timestamp>,
    /// When the session of a client that is away ends.
    expires_at: Option<Timestamp>,
    /// The slot's entry among the timers.
    timer_at: Option<u64>,
    recent_topic: Option<Box<RecentTopic>>,
    /// Its subscriptions are out of the index: its client may not connect for now.
    is_suspended: bool,
    /// Of a member of shared subscriptions that has something waiting, or may take it.
    backlogs: Option<Box<Backlogs>>,
    /// Its queue is not looked through before; never while its turn is awaited.
    weeds_after: Timestamp,
}

/// Who the session's connection is or was, for events and for those who ask.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    pub(crate) identity: Identity,
    pub(crate) peer: SocketAddr,
    /// The URL of the listener that accepted it; empty if nobody knows any more.
    pub(crate) listener: Arc<str>,
    pub(crate) connected_at: Timestamp,
    /// Counts the connections of this client identifier.
    pub(crate) version: u64,
    /// What the login rests on.
    pub(crate) proven: Option<Proven>,
    /// The client has not been there since the broker started.
    pub(crate) is_restored: bool,
}

/// The connection of a session: the door to it, and how it is told that there is something to write.
pub(crate) struct Connected {
    pub(crate) door: Box<dyn ConnectionDoor>,
    /// The connection's number, which no other of the shard ever has; a connection whose session
    /// was taken over, or whose slot is another's by now, finds another number here.
    pub(crate) link: u64,
    pub(crate) waker: Option<Waker>,
    /// No packet of the client is larger, as CONNACK has told it.
    packet_bytes_max: u32,
    /// It has been woken, or is at work, and will look at its output by itself.
    pub(crate) is_awake: bool,
    /// Of a client that gave an Authentication Method in CONNECT.
    authentication: Option<Box<Authentication>>,
    /// It is read no further for now.
    is_held: bool,
    /// TLS has verified a certificate of the client.
    has_certificate: bool,
    /// CONNACK waits for the store, and what is said of the connection for CONNACK.
    unannounced: Option<attach::Greeting>,
    /// It took over from a connection that was online.
    was_online: bool,
}

impl Connected {
    /// Returns whether the client is online: its CONNACK was said, or that of the connection before
    /// it, which it took over.
    const fn is_online(&self) -> bool {
        self.unannounced.is_none() || self.was_online
    }
}

impl Shard {
    pub(crate) fn new(
        host: Host,
        core: Arc<Core>,
        metrics: Arc<ShardMetrics>,
        bytes_waiting: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            host,
            metrics,
            clients: HashMap::default(),
            slots: Slab::new(),
            deadlines: Vec::new(),
            timers: BTreeSet::new(),
            plans: PlanCache::default(),
            outboxes: Vec::new(),
            properties: Vec::new(),
            spare_buffers: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            journal: core.keeper.is_some().then(Journal::default),
            tickets: Tickets::default(),
            next_generation: 0,
            last_link: 0,
            version_floor: core.versions.floor(),
            held: Vec::new(),
            is_looked_after: false,
            full_queues: BTreeMap::new(),
            slowed: Slowed::default(),
            dropping: dropping::Dropping::default(),
            asked_later: Vec::new(),
            weeding: Weeding::default(),
            swept_at: core.clock.now(),
            all_heard_at: Timestamp(0),
            online: 0,
            has_begun: core.keeper.is_none(),
            is_quiet: false,
            shutting_down: None,
            bytes_waiting,
            core,
        }
    }

    /// A shard as its actors share it.
    pub(crate) fn shared(self) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(self))
    }

    /// Takes up what another shard, or the store, has sent.
    pub(crate) fn take_up(&mut self, message: ToShard, now: Timestamp) {
        match message {
            ToShard::Deliver(batch) => {
                self.bytes_waiting.fetch_sub(batch.bytes, Ordering::Relaxed);
                let awaited = batch.awaited;
                self.deliver_all(batch, now);
                self.owe(awaited);
                // A search among the members of a shared subscription may go on elsewhere.
                self.flush();
            }
            ToShard::Kept(kept) => {
                if kept.is_by_store {
                    self.note_written(kept.tickets.iter().copied().max());
                }
                self.note_kept(&kept.tickets);
            }
            ToShard::TakeBacklog(asked) => self.answer_backlog(asked, now),
            ToShard::BacklogTaken(answer) => self.note_given(&answer),
            ToShard::BacklogWaits(waits) => self.backlog_waits(&waits),
        }
    }

    pub(crate) const fn has_connections(&self) -> bool {
        self.online > 0
    }

    pub(crate) fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }

    pub(crate) fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)
    }

    /// The slot, if `link` still is its connection.
    pub(crate) fn linked(&mut self, slot: u32, link: u64) -> Option<&mut Slot> {
        let found = self.slots.get_mut(slot as usize)?;
        found.connected.as_ref().is_some_and(|c| c.link == link).then_some(found)
    }

    /// The slot of a place, if its session still has it.
    fn slot_at(&self, place: Place) -> Option<&Slot> {
        self.slot(place.slot).filter(|slot| slot.generation == place.generation)
    }

    fn place(&self, slot: u32) -> Option<Place> {
        let generation = self.slot(slot)?.generation;
        Some(Place { host: self.host, slot, generation })
    }

    pub(crate) fn find(&self, client_id: &str) -> Option<&Slot> {
        self.slot(*self.clients.get(client_id)?)
    }

    pub(crate) fn is_online(&self, client_id: &str) -> bool {
        self.find(client_id).is_some_and(Slot::is_online)
    }

    pub(crate) fn describe(&self, client_id: &str) -> Option<ClientSession> {
        let slot = self.find(client_id)?;
        let keep_alive = slot.session.link().map(|link| *link.keep_alive());
        Some(ClientSession {
            online: slot.is_online(),
            username: slot.presence.identity.username.clone(),
            peer: slot.presence.peer,
            keep_alive_secs: keep_alive.map_or(0, |k| k.interval_secs()),
            deadline_millis: keep_alive
                .map(|k| k.deadline())
                .filter(|deadline| *deadline != Timestamp::NEVER)
                .map(Timestamp::millis),
            version: slot.presence.version,
            subscriptions: slot.session.subscriptions_len(),
            queued: slot.session.queued(),
            in_flight: slot.session.in_flight(),
        })
    }

    /// Whether a connection still has something to write.
    pub(crate) fn has_output(&self, slot: u32) -> bool {
        let link = self.slot(slot).and_then(|s| s.session.link());
        link.is_some_and(|link| link.has_output())
    }

    /// The same, also if it may not be said yet.
    pub(crate) fn has_pending(&self, slot: u32) -> bool {
        let link = self.slot(slot).and_then(|s| s.session.link());
        link.is_some_and(|link| link.has_pending())
    }

    /// Has all connections end with Server shutting down.
    pub(crate) fn tell_farewell(&self) {
        for (_, slot) in &self.slots {
            if let Some(connected) = &slot.connected {
                connected.door.send(ToConnection::Farewell);
            }
        }
    }

    /// Keeps the deadline array in step with the session's own.
    pub(crate) fn note_deadline(&mut self, slot: u32) {
        let deadline = self
            .slot(slot)
            .and_then(|s| s.session.link())
            .map_or(Timestamp::NEVER, |link| link.keep_alive().deadline());
        let at = slot as usize;
        if self.deadlines.len() <= at {
            self.deadlines.resize(at + 1, u64::MAX);
        }
        self.deadlines[at] = deadline.millis();
    }

    /// Counts what a link has done.
    pub(crate) fn count(&self, tally: Tally) {
        self.metrics.sent(tally.sent);
        self.metrics.dropped(DropReason::Expired, tally.expired as usize);
        self.metrics.dropped(DropReason::PacketTooLarge, tally.too_large as usize);
    }

    /// Lends an output buffer to a connection that has none.
    fn lend_buffer(spare: &mut Vec<Vec<u8>>, out: &mut Vec<u8>) {
        if out.capacity() == 0
            && let Some(buffer) = spare.pop()
        {
            *out = buffer;
        }
    }

    /// Takes back an output buffer that has been written.
    pub(crate) fn return_buffer(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0
            && capacity <= SPARE_BUFFER_BYTES_MAX
            && self.spare_buffers.len() < SPARE_BUFFERS_MAX
        {
            buffer.clear();
            self.spare_buffers.push(buffer);
        }
    }
}

impl Slot {
    /// Returns whether the client is online.
    pub(crate) fn is_online(&self) -> bool {
        self.connected.as_ref().is_some_and(Connected::is_online)
    }

    /// Tells the connection that there is something to write, once.
    pub(crate) fn wake(&mut self) {
        if let Some(connected) = &mut self.connected
            && !connected.is_awake
        {
            connected.is_awake = true;
            if let Some(waker) = &connected.waker {
                waker.wake_by_ref();
            }
        }
    }
}
