//! The thread of retained messages: carries writes to NATS and their outcomes to the shards, and applies the stream.
//!
//! It begins with the broker, and refuses messages also before NATS is reached. Nothing is written for a node that
//! may not act, except by its first join. Knows no client of NATS: only the door.

mod replay;

use std::{
    collections::HashMap,
    future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use foldhash::fast::RandomState;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use tokio::{sync::mpsc, time::sleep};
use tracing::warn;

use self::replay::{Replay, ReplayStage};
use super::{
    RetainedHere, RetainedOrder, SharedRetained,
    door::{RetainedEvent, RetainedLog},
    entry,
    writes::{RetainedWrites, StreamWrite, WriteEnd, WriteOutcome},
};
use crate::{
    between::retained::{RetainedOutcome, RetainedWrite},
    cluster::{
        members::LifePhase,
        names::{Incarnation, NodeId},
        node::{NodeWatch, now},
    },
    mqtt::Timestamp,
    router::ShardNumber,
};

/// The maximum time between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How many events of one kind are taken in before others get their turn.
pub(super) const AT_A_TIME: usize = 1_024;
/// How long one attempt to write waits for its answer.
const WRITE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long the question for the identity of the stream waits for its answer.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);
/// The pause before it is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(250);

/// The stream, and the node in the cluster.
pub(super) struct JoinedRetained {
    pub(super) door: Arc<dyn RetainedLog>,
    pub(super) node: NodeId,
    pub(super) watch: NodeWatch,
}

/// The requests to the stream, and what comes from it.
pub(super) struct RetainedTraffic {
    pub(super) joined: JoinedRetained,
    pub(super) events: Option<BoxStream<'static, RetainedEvent>>,
    ends: FuturesUnordered<BoxFuture<'static, (u64, WriteEnd)>>,
    identity: FuturesUnordered<BoxFuture<'static, Option<u64>>>,
    pub(super) saves: FuturesUnordered<BoxFuture<'static, ()>>,
    pub(super) life: Incarnation,
    is_serving: bool,
}

/// An event that the thread has waited for.
enum Came {
    Order(RetainedOrder),
    End(u64, WriteEnd),
    Event(RetainedEvent),
    Identity(Option<u64>),
    Nothing,
}

/// The driver of retained messages.
pub(super) struct RetainedDriver {
    inbox: mpsc::UnboundedReceiver<RetainedOrder>,
    pub(super) orders: mpsc::UnboundedSender<RetainedOrder>,
    pub(super) shared: Arc<SharedRetained>,
    pub(super) here: Box<dyn RetainedHere>,
    /// A random number of this process, for the identifiers of its messages.
    process: u64,
    pub(super) writes: RetainedWrites,
    /// The shards that wait for outcomes, by the number of the write.
    waiting: HashMap<u64, (ShardNumber, u64), RandomState>,
    last_number: u64,
    pub(super) replay: Replay,
    /// Whether the log names that the stream takes nothing.
    is_told: bool,
}

impl RetainedDriver {
    pub(super) fn new(
        inbox: mpsc::UnboundedReceiver<RetainedOrder>,
        orders: mpsc::UnboundedSender<RetainedOrder>,
        shared: Arc<SharedRetained>,
        here: Box<dyn RetainedHere>,
    ) -> Self {
        let mut random = [0; 8];
        // Without it, a message of this process could be taken for one of the last two minutes of a former process.
        let _ = getrandom::fill(&mut random);
        let replay = Replay::loaded(here.load());
        *shared.positions() = replay.positions();
        Self {
            inbox,
            orders,
            shared,
            here,
            process: u64::from_le_bytes(random),
            writes: RetainedWrites::default(),
            waiting: HashMap::default(),
            last_number: 0,
            replay,
            is_told: false,
        }
    }

    /// Runs until the broker ends.
    pub(super) async fn run(mut self) {
        let joined = loop {
            match self.inbox.recv().await {
                None => return,
                Some(RetainedOrder::Join(joined)) => break joined,
                Some(RetainedOrder::Write(write)) => self.refuse(&write),
                Some(RetainedOrder::Stored) => {}
            }
        };
        let mut traffic = RetainedTraffic {
            joined,
            events: None,
            ends: FuturesUnordered::new(),
            identity: FuturesUnordered::new(),
            saves: FuturesUnordered::new(),
            life: Incarnation(0),
            is_serving: false,
        };
        loop {
            self.wait(&mut traffic).await;
            self.follow_life(&mut traffic);
            self.turn(&mut traffic);
        }
    }

    /// Waits for the next event, and takes in all that is there.
    async fn wait(&mut self, traffic: &mut RetainedTraffic) {
        let takes_events = self.replay.has_room();
        let due = self.writes.next_at().since(now()).min(LOOK_EVERY);
        let RetainedTraffic { joined, events, ends, identity, saves, .. } = traffic;
        let next = async {
            match events {
                Some(events) if takes_events => events.next().await,
                _ => future::pending().await,
            }
        };
        let came = tokio::select! {
            Some(order) = self.inbox.recv() => Came::Order(order),
            Some((number, end)) = ends.next() => Came::End(number, end),
            Some(event) = next => Came::Event(event),
            Some(identity) = identity.next() => Came::Identity(identity),
            Some(()) = saves.next() => Came::Nothing,
            _ = joined.watch.status.changed() => Came::Nothing,
            () = sleep(due) => Came::Nothing,
        };
        match came {
            Came::Order(order) => self.take_order(order, traffic),
            Came::End(number, end) => self.writes.handle_end(number, end, now()),
            Came::Event(event) => self.take_event(event, traffic),
            Came::Identity(identity) => self.begin_reading(identity, traffic),
            Came::Nothing => {}
        }
        for _ in 0..AT_A_TIME {
            let Ok(order) = self.inbox.try_recv() else { break };
            self.take_order(order, traffic);
        }
        for _ in 0..AT_A_TIME {
            let Some(Some((number, end))) = traffic.ends.next().now_or_never() else { break };
            self.writes.handle_end(number, end, now());
        }
        for _ in 0..AT_A_TIME {
            if !self.replay.has_room() {
                break;
            }
            let next = traffic.events.as_mut().and_then(|events| events.next().now_or_never());
            let Some(Some(event)) = next else { break };
            self.take_event(event, traffic);
        }
        self.note_batch();
    }

    fn take_order(&mut self, order: RetainedOrder, traffic: &RetainedTraffic) {
        match order {
            RetainedOrder::Write(write) => {
                if traffic.is_serving && traffic.joined.watch.may_act() {
                    self.begin_write(&write, traffic);
                } else {
                    self.refuse(&write);
                }
            }
            RetainedOrder::Stored => self.replay.handle_stored(),
            RetainedOrder::Join(_) => {} // A node joins once.
        }
    }

    fn begin_write(&mut self, write: &RetainedWrite, traffic: &RetainedTraffic) {
        let encoded = entry::encode(&write.message, write.owner.clone(), self.here.now());
        if encoded.bytes.len() > traffic.joined.door.retained_bytes_max() {
            return self.here.tell(write.shard, write.number, RetainedOutcome::TooLarge);
        }
        let number = self.next_number();
        self.waiting.insert(number, (write.shard, write.number));
        let write = StreamWrite {
            number,
            key: entry::key(write.message.topic()).into(),
            payload: encoded.bytes,
            kept_secs: encoded.kept_secs,
            is_first_join: false,
        };
        self.writes.push(write, now());
    }

    pub(super) const fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn refuse(&self, write: &RetainedWrite) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        self.here.tell(write.shard, write.number, RetainedOutcome::Unavailable);
    }

    /// Takes in the life of this node. Each life begins with all that the stream has.
    fn follow_life(&mut self, traffic: &mut RetainedTraffic) {
        let status = traffic.joined.watch.status.borrow_and_update().clone();
        let is_this_life = match status.phase {
            LifePhase::Preparing | LifePhase::Confirming | LifePhase::Serving => true,
            LifePhase::Announcing | LifePhase::Leasing | LifePhase::Ended => false,
        };
        if traffic.life != Incarnation(0) && (traffic.life != status.incarnation || !is_this_life) {
            traffic.life = Incarnation(0);
            traffic.events = None;
            traffic.identity.clear();
            self.replay.end_life();
            self.writes.give_up(now());
        }
        if is_this_life && traffic.life == Incarnation(0) {
            traffic.life = status.incarnation;
            self.ask_for_identity(traffic, Duration::ZERO);
        }
        traffic.is_serving = is_this_life && status.phase == LifePhase::Serving;
    }

    pub(super) fn ask_for_identity(&mut self, traffic: &RetainedTraffic, pause: Duration) {
        self.replay.stage = ReplayStage::Asking;
        let door = Arc::clone(&traffic.joined.door);
        traffic.identity.push(Box::pin(async move {
            sleep(pause).await;
            door.retained_identity(ASK_TIME_MAX).await.ok()
        }));
    }

    fn begin_reading(&mut self, identity: Option<u64>, traffic: &mut RetainedTraffic) {
        let Some(identity) = identity else { return self.ask_for_identity(traffic, ASK_PAUSE) };
        let after = self.replay.begin(identity, self.here.now());
        let mut positions = self.shared.positions();
        if after.0 == 0 {
            positions.restart();
        }
        drop(positions);
        traffic.events = Some(traffic.joined.door.follow_retained(after));
    }

    /// Carries out everything that is due.
    fn turn(&mut self, traffic: &mut RetainedTraffic) {
        let now = now();
        self.writes.handle_time(now);
        if self.replay.stage != ReplayStage::Idle {
            self.go_on_joining(traffic, now);
        }
        while let Some(write) = self.writes.poll_write(now) {
            let door = Arc::clone(&traffic.joined.door);
            // The same for each attempt, so that JetStream drops a repetition.
            let id = format!("{}.{:x}.{}", traffic.joined.node, self.process, write.number);
            traffic.ends.push(Box::pin(async move {
                let number = write.number;
                (number, door.write_retained(write, id, WRITE_TIME_MAX).await)
            }));
        }
        while let Some((number, outcome)) = self.writes.poll_outcome() {
            self.tell_outcome(number, outcome);
        }
        self.tell_away();
        self.save_place(traffic, now);
    }

    fn tell_outcome(&mut self, number: u64, outcome: WriteOutcome) {
        let told = match outcome {
            WriteOutcome::Written(sequence) => {
                // Before the shard plans the message: the mark of a lane must not be below it.
                self.shared.written.fetch_max(sequence.0, Ordering::AcqRel);
                RetainedOutcome::Written(sequence.0)
            }
            WriteOutcome::Present | WriteOutcome::Unavailable => RetainedOutcome::Unavailable,
        };
        let Some((shard, of_shard)) = self.waiting.remove(&number) else { return };
        if told == RetainedOutcome::Unavailable {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.here.tell(shard, of_shard, told);
    }

    /// Lets the log name once that the stream takes nothing.
    fn tell_away(&mut self) {
        let is_away = self.writes.is_away();
        if is_away && !self.is_told {
            warn!("the stream of retained messages takes none; they are refused");
        }
        self.is_told = is_away;
    }
}

/// Returns the time on the clock of writes that is this much later.
pub(super) const fn later(now: Timestamp, pause: Duration) -> Timestamp {
    now.plus_millis(pause.as_millis() as u64)
}
