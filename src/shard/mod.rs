//! One shard: its sessions, online and offline, and all events that concern them.
//!
//! Everything here runs on the shard's thread, one step after the other. The registry and the
//! connections of the shard share it, and never hold it across an await. It knows no actors: it
//! reaches connections and other shards through doors.

mod access;
pub(crate) mod audit;
pub(crate) mod bans;
pub(crate) mod bridges;
mod buffers;
pub(crate) mod calls;
pub(crate) mod certificates;
pub(crate) mod chores;
mod client_turns;
mod clients;
pub(crate) mod common;
pub(crate) mod connect;
mod deadlines;
mod departure;
pub(crate) mod doors;
mod dropping;
mod flapping;
#[cfg(feature = "cluster")]
pub(crate) mod handover;
mod held;
mod hold;
pub(crate) mod in_process;
mod keeping;
mod lifecycle;
#[cfg(feature = "cluster")]
mod moving;
mod numbers;
pub(crate) mod overrides;
pub(crate) mod ownership;
mod pace;
mod packets;
pub(crate) mod pins;
mod presence;
mod processor;
mod quota;
pub(crate) mod refusal;
mod refusal_rate;
mod refusals;
pub(crate) mod replies;
mod requests;
mod retaining;
mod routing;
mod shared;
pub(crate) mod silences;
mod sticky;
pub(crate) mod stream;
pub(crate) mod subscription;
mod system;
mod table;
mod traced;
mod turn;
mod versions;
pub(crate) mod views;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    task::Waker,
};

use slab::Slab;

use self::{
    buffers::Buffers,
    certificates::CertificateSeat,
    chores::{Chores, SessionChores},
    clients::ClientIndex,
    deadlines::{Deadlines, Timer},
    flapping::Flapping,
    hold::Holding,
    keeping::{tickets::Tickets, weeding::Weeding},
    lifecycle::Lifecycle,
    numbers::Numbers,
    ownership::OwnedClients,
    presence::{
        arrive::Greeting, authenticate::Authentication, keep_alive::KeepAliveChange,
        settings::LiveSettings,
    },
    quota::Slowed,
    retaining::Retaining,
    routing::{
        awaited::AwaitedCalls,
        backlog::{AskedLater, Backlogs},
        batches::Batches,
        plans::{PlanCache, RecentTopic},
    },
};
pub(crate) use self::{
    chores::do_chores,
    client_turns::{ClientTurns, Handover},
    common::{Core, CoreParts},
    departure::Departure,
    hold::look_after_held,
    keeping::weeding::weed_queues,
    packets::ReadOutcome,
    presence::{
        authenticate::not_authenticated,
        expiry::IDENTITY_EXPIRED,
        preparing::{PreparedSessions, Restoring},
        recheck::{CERTIFICATE, not_authorized},
        rechecks::Rechecks,
        tell::subject_of,
    },
    refusal::RefusalAnswer,
    routing::asked::FiltersAsked,
    shared::SharedShard,
    traced::traced_client,
};
use crate::{
    auth::Identity,
    between::{
        door::{Sender, ToShard},
        nodes::RoutesPlace,
    },
    control::LastEnd,
    journal::Journal,
    metrics::{DropReason, ShardMetrics},
    mqtt::Timestamp,
    owners::{Account, Charge},
    router::{Host, Place, ShardNumber},
    session::{PacketCounts, Session},
    shard::{
        connect::{AcceptedWill, Proven},
        doors::{ConnectionDoor, ToConnection},
    },
};

/// The sessions whose client identifiers have this shard as their home.
pub(crate) struct Shard {
    pub(crate) number: ShardNumber,
    pub(crate) core: Arc<Core>,
    pub(crate) metrics: Arc<ShardMetrics>,
    clients: ClientIndex,
    slots: Slab<Slot>,
    deadlines: Deadlines,
    plans: PlanCache,
    batches: Batches,
    /// The place in the log of routes with which the messages of this turn are planned: of a cluster.
    planning_with: RoutesPlace,
    pub(crate) buffers: Buffers,
    /// The journal, in which sessions note changes that must be stored; `None` without a store.
    pub(crate) journal: Option<Journal>,
    tickets: Tickets,
    numbers: Numbers,
    holding: Holding,
    /// How often clients connect.
    flapping: Flapping,
    /// Clients that must wait before they connect again.
    slowed: Slowed,
    /// Clients whose full queue loses messages.
    dropping: dropping::Dropping,
    asked_later: AskedLater,
    awaited: AwaitedCalls,
    weeding: Weeding,
    /// The counts of connections, while a caller asks for rates.
    traffic: views::busiest::TrafficCounts,
    chores: Chores,
    pub(crate) lifecycle: Lifecycle,
    /// The rights to serve clients, in a cluster.
    owned: OwnedClients,
    /// Messages that wait for the stream of retained messages, in a cluster.
    retaining: Retaining,
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
    timer: Timer,
    recent_topic: Option<Box<RecentTopic>>,
    /// Whether it collects nothing, because its client may not connect at present.
    is_suspended: bool,
    /// Set while the session moves between nodes.
    #[cfg(feature = "cluster")]
    moving: Option<Box<moving::Moving>>,
    chores: Option<Box<SessionChores>>,
    /// The backlogs of a member of shared subscriptions that has messages waiting, or may take
    /// them.
    backlogs: Option<Box<Backlogs>>,
    /// The time before which its queue is not searched for removable messages; never while it waits
    /// for that.
    weeds_after: Timestamp,
    /// The messages that were dropped for the client, while there are any.
    dropped: Option<Box<dropping::DropCounts>>,
    /// Messages that were accepted from the present or last connection.
    messages_in: u64,
    /// How the connection before the present or next one ended, if that was since the broker started.
    last_end: Option<Box<LastEnd>>,
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
    /// The identity by which the session of an absent client collects messages after its own rules have expired;
    /// `None` before that.
    pub(crate) after_expiry: Option<Box<Identity>>,
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
    /// Whether a held connection must check whether its client has left.
    is_asked_for_client: bool,
    /// Whether TLS has verified a certificate of the client.
    has_certificate: bool,
    /// Its entry among the certificates of all connections.
    _certificate: Option<Box<CertificateSeat>>,
    /// Whether the connection was told that the credentials of its client have expired.
    is_expiry_told: bool,
    /// When the identity is renewed; `None` if it is never renewed, or while its source is being asked.
    renews_at: Option<Timestamp>,
    /// The announcement that is made with CONNACK, while CONNACK waits for the store.
    unannounced: Option<Greeting>,
    /// Whether it took over from a connection that was online.
    was_online: bool,
    /// Set while the Keep Alive follows an override, or will change back.
    keep_alive_change: Option<KeepAliveChange>,
    /// When the client has last changed its own Keep Alive.
    own_keep_alive_at: Option<Timestamp>,
    /// Whether CONNECT had Clean Start.
    clean_start: bool,
    /// Present once a caller has changed settings of the connection.
    settings: Option<Box<LiveSettings>>,
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
            clients: ClientIndex::default(),
            slots: Slab::new(),
            deadlines: Deadlines::new(core.clock.now()),
            plans: PlanCache::default(),
            batches: Batches::default(),
            planning_with: RoutesPlace::default(),
            buffers: Buffers::new(),
            journal: core.keeper.is_some().then(Journal::default),
            tickets: Tickets::default(),
            numbers: Numbers::new(core.versions.floor()),
            holding: Holding::default(),
            flapping: Flapping::default(),
            slowed: Slowed::default(),
            dropping: dropping::Dropping::default(),
            asked_later: AskedLater::default(),
            awaited: AwaitedCalls::default(),
            weeding: Weeding::default(),
            traffic: views::busiest::TrafficCounts::default(),
            chores: Chores::default(),
            lifecycle: Lifecycle::new(core.keeper.is_some()),
            owned: OwnedClients::default(),
            retaining: Retaining::default(),
            bytes_waiting,
            core,
        }
    }

    /// Returns the shard in the form that its actors share.
    pub(crate) fn shared(self) -> SharedShard {
        SharedShard::new(self)
    }

    /// Handles a message from another shard or from the store.
    pub(crate) fn take_up(&mut self, message: ToShard, now: Timestamp) {
        match message {
            ToShard::Deliver(batch) => self.take_batch(batch, now),
            ToShard::Stored(stored) => self.take_stored(&stored),
            ToShard::TakeBacklog(asked) => self.answer_backlog(asked, now),
            ToShard::BacklogTaken(answer) => self.note_given(&answer),
            ToShard::BacklogWaits(waits) => self.backlog_waits(&waits),
            ToShard::Refused(event) => self.take_refused(*event, now),
            ToShard::Banned(event) => self.announce_banned(*event, now),
            ToShard::Receipts(reports) => self.take_receipts(&reports),
            ToShard::Mail(arrived) => self.take_mail(arrived, now),
            ToShard::RoutesKnown(slot) => self.routes_are_known(slot, now),
            ToShard::RetainedWritten(number, outcome) => {
                self.retained_is_written(number, outcome, now);
            }
            ToShard::NoteRetained(applied) => self.note_applied_retained(applied),
            ToShard::RoutesApplied(round) => self.take_round(round),
            #[cfg(feature = "cluster")]
            ToShard::Moving(step) => self.take_moving_step(step, now),
            #[cfg(not(feature = "cluster"))]
            ToShard::Moving(_) => {}
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
            Host::InProcess | Host::Nodes => debug_assert!(false, "sessions are on shards"),
        }
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

    /// Notes the Keep Alive deadline of a slot's connection for the sweep.
    pub(crate) fn note_deadline(&mut self, slot: u32) {
        let deadline = self
            .slot(slot)
            .and_then(|s| s.session.link())
            .map_or(Timestamp::NEVER, |link| link.keep_alive().deadline());
        self.deadlines.set_keep_alive(slot, deadline);
    }

    /// Counts the work of a slot's link.
    #[inline]
    pub(crate) fn count(&mut self, slot: u32, tally: PacketCounts) {
        self.metrics.sent(tally.sent);
        if (tally.expired | tally.too_large) != 0 {
            self.count_dropped(slot, DropReason::Expired, tally.expired as usize);
            self.count_dropped(slot, DropReason::PacketTooLarge, tally.too_large as usize);
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
