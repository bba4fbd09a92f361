//! One shard: its sessions, online and offline, and what happens to them.
//!
//! Everything here runs on the shard's thread, one step after the other. The registry and the
//! connections of the shard share it, and never hold it across an await. It knows no actors: it
//! reaches connections and other shards through doors.

pub(crate) mod chores;
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
    chores::do_chores,
    common::{Core, CoreParts},
    departure::Departure,
    hold::{LOOK_EVERY, look_after_held},
    keeping::{restore::FoundSession, weeding::weed_queues},
    packets::Received,
    presence::{
        authenticate::not_authenticated,
        expiry::IDENTITY_EXPIRED,
        preparing::{prepare_again, prepare_found},
        recheck::{CERTIFICATE, Rounds, not_authorized},
        tell::subject_of,
    },
    refusal::RefusalAnswer,
    routing::asked::Asked,
};
use self::{
    chores::{Chores, SessionChores},
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
        door::{Sender, ToShard},
    },
    journal::Journal,
    metrics::{DropReason, ShardMetrics},
    mqtt::Timestamp,
    owners::{Account, Charge},
    router::{Host, Place, ShardNumber},
    session::{PacketCounts, Session},
    shard::{
        connect::{AcceptedWill, ClientSession, Proven},
        doors::{ConnectionDoor, ToConnection},
    },
};

/// Maximum number of bytes in one read; all connections of a shard read into the same buffer.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;
/// Maximum number of spare output buffers of a shard, for connections that have something to write.
const SPARE_BUFFERS_MAX: usize = 256;
/// A larger output buffer does not become a spare one.
const SPARE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// The sessions whose client identifiers have this shard as their home.
pub(crate) struct Shard {
    pub(crate) number: ShardNumber,
    pub(crate) core: Arc<Core>,
    pub(crate) metrics: Arc<ShardMetrics>,
    clients: HashMap<Arc<str>, u32, RandomState>,
    slots: Slab<Slot>,
    /// Keep Alive deadline of each slot in milliseconds, so that a sweep reads nothing else.
    deadlines: Vec<u64>,
    /// When a slot's Will or session is due, in milliseconds, with its slot: one entry for each
    /// slot.
    timers: BTreeSet<(u64, u32)>,
    plans: PlanCache,
    /// Deliveries to the other shards that this wake-up has collected.
    batches: Vec<Deliver>,
    /// A buffer for the forwarded properties of a PUBLISH, lent to the turn that reads packets.
    properties: Vec<u8>,
    spare_buffers: Vec<Vec<u8>>,
    pub(crate) scratch: Vec<u8>,
    /// Where sessions note what must survive the broker; `None` where nothing does.
    pub(crate) journal: Option<Journal>,
    tickets: Tickets,
    next_generation: u32,
    /// Number of the last connection.
    last_link: u64,
    /// No forgotten session had a higher presence version than this.
    version_floor: u64,
    /// Connections that are not read at present, the longest held first.
    held: Vec<Held>,
    /// Whether [`look_after_held`] is running.
    is_looked_after: bool,
    /// Slots whose queue is full, so that publishers had to wait.
    full_queues: BTreeMap<u32, FullQueue>,
    /// Clients that must wait before they connect again.
    slowed: Slowed,
    /// Clients whose full queue loses messages.
    dropping: dropping::Dropping,
    /// Requests of members for backlogs here that are answered later: one for each member.
    asked_later: Vec<TakeBacklog>,
    weeding: Weeding,
    chores: Chores,
    /// The time of the last sweep.
    swept_at: Timestamp,
    /// Before this time, the shard may not have read all bytes that arrived while the process stood
    /// still.
    all_heard_at: Timestamp,
    online: usize,
    /// Whether due work may be done: all shards know their sessions.
    pub(crate) has_begun: bool,
    /// Whether the broker is shutting down: then nothing is read, and no connection is accepted.
    pub(crate) is_quiet: bool,
    pub(crate) shutting_down: Option<oneshot::Sender<()>>,
    /// Bytes of deliveries that other shards have sent and that this shard has not handled yet.
    bytes_waiting: Arc<AtomicUsize>,
}

/// A session, and the data of its connection.
pub(crate) struct Slot {
    generation: u32,
    pub(crate) session: Session,
    pub(crate) presence: Presence,
    /// The account of the session's owner: its usage and limits.
    account: Arc<Account>,
    /// The charge for the session among those of its user that outlive their connection.
    lasting: Charge,
    pub(crate) connected: Option<Connected>,
    will: Option<Box<AcceptedWill>>,
    /// When a delayed Will is published.
    will_at: Option<Timestamp>,
    /// When the session of an offline client ends.
    expires_at: Option<Timestamp>,
    /// The slot's entry among the timers.
    timer_at: Option<u64>,
    recent_topic: Option<Box<RecentTopic>>,
    /// Whether it collects nothing, because its client may not connect at present.
    is_suspended: bool,
    chores: Option<Box<SessionChores>>,
    /// The backlogs of a member of shared subscriptions that has messages waiting, or may take
    /// them.
    backlogs: Option<Box<Backlogs>>,
    /// The time before which its queue is not searched for removable messages; never while it waits
    /// for that.
    weeds_after: Timestamp,
}

/// The client of the session's present or last connection, for events and questions.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    pub(crate) identity: Identity,
    pub(crate) peer: SocketAddr,
    /// The URL of the listener that accepted it; empty if it is no longer known.
    pub(crate) listener: Arc<str>,
    pub(crate) connected_at: Timestamp,
    /// The number of connections of this client identifier so far.
    pub(crate) version: u64,
    /// The facts that the login rests on.
    pub(crate) proven: Option<Proven>,
    /// Whether the client has not connected since the broker started.
    pub(crate) is_restored: bool,
}

/// The connection of a session: the door to it, and the way to wake it when there is output.
pub(crate) struct Connected {
    pub(crate) door: Box<dyn ConnectionDoor>,
    /// The connection's number, unique in the shard. A connection whose session was taken over, or
    /// whose slot belongs to another client by now, finds another number here.
    pub(crate) link: u64,
    pub(crate) waker: Option<Waker>,
    /// The Maximum Packet Size that CONNACK gave the client for its packets.
    packet_bytes_max: u32,
    /// Whether it was woken or is working, so that it will check its output without a wake-up.
    pub(crate) is_awake: bool,
    /// Set for a client that gave an Authentication Method in CONNECT.
    authentication: Option<Box<Authentication>>,
    /// Whether it is not read at present.
    is_held: bool,
    /// Whether TLS has verified a certificate of the client.
    has_certificate: bool,
    /// Whether the connection was told that the credentials of its client have expired.
    is_expiry_told: bool,
    /// What to announce with CONNACK, while CONNACK waits for the store.
    unannounced: Option<attach::Greeting>,
    /// Whether it took over from a connection that was online.
    was_online: bool,
}

impl Connected {
    /// Returns whether the client is online: its CONNACK was announced, or that of the connection
    /// before it, which it took over.
    const fn is_online(&self) -> bool {
        self.unannounced.is_none() || self.was_online
    }
}

impl Shard {
    pub(crate) fn new(
        number: ShardNumber,
        core: Arc<Core>,
        metrics: Arc<ShardMetrics>,
        bytes_waiting: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            number,
            metrics,
            clients: HashMap::default(),
            slots: Slab::new(),
            deadlines: Vec::new(),
            timers: BTreeSet::new(),
            plans: PlanCache::default(),
            batches: Vec::new(),
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
            chores: Chores::default(),
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

    /// Returns the shard in the form that its actors share.
    pub(crate) fn shared(self) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(self))
    }

    /// Handles a message from another shard or from the store.
    pub(crate) fn take_up(&mut self, message: ToShard, now: Timestamp) {
        match message {
            ToShard::Deliver(batch) => {
                self.bytes_waiting.fetch_sub(batch.bytes, Ordering::Relaxed);
                let awaited = batch.awaited;
                self.deliver_all(batch, now);
                self.owe(awaited);
                // A search among the members of a shared subscription may continue on another
                // shard.
                self.flush();
            }
            ToShard::Stored(kept) => {
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

    /// Returns the host of the sessions here.
    const fn host(&self) -> Host {
        Host::Shard(self.number)
    }

    /// Sends a message to another shard.
    fn send_to_shard(&self, number: ShardNumber, message: ToShard) {
        if let Some(shard) = self.core.shard(number) {
            shard.door.send(Sender::Shard(self.number), message);
        }
    }

    /// Sends a message to the shard of a session; a subscriber in process has none.
    fn send_to_shard_of(&self, session: Place, message: ToShard) {
        match session.host {
            Host::Shard(number) => self.send_to_shard(number, message),
            Host::InProcess => debug_assert!(false, "sessions are on shards"),
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

    /// Returns the slot, if `link` is still its connection.
    pub(crate) fn linked(&mut self, slot: u32, link: u64) -> Option<&mut Slot> {
        let found = self.slots.get_mut(slot as usize)?;
        found.connected.as_ref().is_some_and(|c| c.link == link).then_some(found)
    }

    /// Returns the slot of a place, if its session still has it.
    fn slot_at(&self, place: Place) -> Option<&Slot> {
        self.slot(place.slot).filter(|slot| slot.generation == place.generation)
    }

    fn place(&self, slot: u32) -> Option<Place> {
        let generation = self.slot(slot)?.generation;
        Some(Place { host: self.host(), slot, generation })
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

    /// Returns whether a connection still has something to write.
    pub(crate) fn has_output(&self, slot: u32) -> bool {
        let link = self.slot(slot).and_then(|s| s.session.link());
        link.is_some_and(|link| link.has_output())
    }

    /// Returns the same, and counts output that may not be sent yet.
    pub(crate) fn has_pending(&self, slot: u32) -> bool {
        let link = self.slot(slot).and_then(|s| s.session.link());
        link.is_some_and(|link| link.has_pending())
    }

    /// Makes all connections end with Server shutting down.
    pub(crate) fn tell_farewell(&self) {
        for (_, slot) in &self.slots {
            if let Some(connected) = &slot.connected {
                connected.door.send(ToConnection::Farewell);
            }
        }
    }

    /// Updates the deadline array from the session's own deadline.
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

    /// Counts the work of a link.
    pub(crate) fn count(&self, tally: PacketCounts) {
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

    /// Wakes the connection once, because there is something to write.
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
