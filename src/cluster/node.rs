//! The driver of a node: it joins the cluster, keeps its leases, judges the others, and begins again as a new
//! incarnation when its life has ended. `owning` follows it; no message uses it yet.
//!
//! It carries the requests of `members.rs` to NATS and the results back, on a thread of its own, so that
//! neither a busy shard nor a full queue delays a lease. Knows no client of NATS: only the door.
//!
//! Time is that of `CLOCK_BOOTTIME`, which goes on while the machine is suspended. [`ClusterNode::may_act`]
//! compares it at each call, so a process that was stopped notices before anything leaves it.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered, SelectAll},
};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{oneshot, watch},
    time::sleep,
};
use tracing::{error, info, warn};

use super::{
    door::{BucketEvent, KeyWrite, Nats, NatsWriteError},
    lease::ANSWER_WITHIN_MILLIS,
    life_file::LifeFile,
    members::{EndOfLife, LifePhase, MemberStanding, Membership, MembershipEvent},
    names::{Bucket, Incarnation, LEASE_BUCKETS, NodeId, RequestNumber},
};
use crate::{journal::Revision, mqtt::Timestamp};

/// How long a record of a member waits for its answer.
const RECORD_TIME_MAX: Duration = Duration::from_millis(1_500);

/// The pause between the end of a life and the next one, so that a node that ends repeatedly does not fill
/// the log.
const NEXT_LIFE_PAUSE: Duration = Duration::from_secs(1);

/// The knowledge of a node about a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The standing in its record.
    pub standing: MemberStanding,
    /// The node that keeps messages for it, if it is dead.
    pub keeper: Option<NodeId>,
    /// The time since this node has seen a newer revision of each of its leases, in milliseconds.
    pub lease_ages_millis: [u64; LEASE_BUCKETS],
}

/// The view of a node on itself and the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub node: NodeId,
    /// Its incarnation; 0 before the first one.
    pub incarnation: Incarnation,
    /// The phase of this life.
    pub phase: LifePhase,
    /// How the last life of this process ended, if a life has ended.
    pub last_end: Option<EndOfLife>,
    /// The members, by name, also this node.
    pub members: BTreeMap<NodeId, MemberStatus>,
}

/// A node of the cluster. It stops to renew its leases with the value; the others then declare it dead.
#[derive(Debug)]
pub struct ClusterNode {
    lease: ActingLease,
    status: watch::Receiver<NodeStatus>,
    _end: oneshot::Sender<()>,
}

/// The state that the thread of the node writes and all others read.
#[derive(Debug, Default)]
struct SharedNode {
    /// The time until which this node may act, in milliseconds of its clock; 0: not now.
    acts_until: AtomicU64,
    /// The present incarnation; 0 before the first.
    incarnation: AtomicU64,
    /// The last incarnation that has ended.
    ended: AtomicU64,
}

/// The leases of a node, as all threads see them. It exists before the node does, and never allows anything then.
#[derive(Clone, Debug, Default)]
pub struct ActingLease(Arc<SharedNode>);

impl ActingLease {
    /// Returns whether the node may let something leave now: its leases last, and no other node has taken
    /// over its clients.
    #[must_use]
    pub fn may_act(&self) -> bool {
        self.0.may_act()
    }

    /// Returns whether the node may act now, in this incarnation.
    #[must_use]
    pub fn acts_as(&self, incarnation: Incarnation) -> bool {
        self.may_act() && self.0.incarnation.load(Ordering::Acquire) == incarnation.0
    }

    /// Returns whether this incarnation has ended.
    #[must_use]
    pub fn has_ended(&self, incarnation: Incarnation) -> bool {
        self.0.ended.load(Ordering::Acquire) >= incarnation.0
    }
}

/// The parts of a broker that take part in the life of its node.
#[derive(Debug)]
pub(super) struct NodeCompany {
    /// The leases of the node, as the broker reads them.
    pub(super) lease: ActingLease,
    /// The incarnation for which each part of the broker is prepared: nothing of an earlier one is under way there.
    pub(super) prepared: Vec<PreparedLife>,
}

/// Follows the state of a node, from any thread.
#[derive(Clone, Debug)]
pub(super) struct NodeWatch {
    shared: Arc<SharedNode>,
    pub(super) status: watch::Receiver<NodeStatus>,
}

impl NodeWatch {
    /// Returns the same as [`ClusterNode::may_act`].
    pub(super) fn may_act(&self) -> bool {
        self.shared.may_act()
    }
}

impl SharedNode {
    fn may_act(&self) -> bool {
        now().millis() < self.acts_until.load(Ordering::Acquire)
    }
}

/// The incarnation that is prepared to serve: another part of the broker sets it when its part is done.
pub(super) type PreparedLife = Arc<AtomicU64>;

impl ClusterNode {
    /// Begins to join, and tries until the node serves.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(door: Arc<dyn Nats>, node: NodeId, file: LifeFile) -> io::Result<Self> {
        let company = NodeCompany { lease: ActingLease::default(), prepared: Vec::new() };
        Self::start_in(company, door, node, file)
    }

    /// Does the same as the node of a broker.
    ///
    /// # Errors
    /// As [`ClusterNode::start`].
    pub(super) fn start_in(
        company: NodeCompany,
        door: Arc<dyn Nats>,
        node: NodeId,
        file: LifeFile,
    ) -> io::Result<Self> {
        let NodeCompany { lease, prepared } = company;
        let (end, ended) = oneshot::channel();
        // The status is there before the first life, so that callers can show it.
        let (tell, status) = watch::channel(NodeStatus {
            node: node.clone(),
            incarnation: Incarnation(0),
            phase: LifePhase::Announcing,
            last_end: None,
            members: BTreeMap::new(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let driver = Driver { door, node, file, shared: Arc::clone(&lease.0), prepared, tell };
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = driver.live() => {}
                    _ = ended => {}
                }
            });
            // The end of the thread ends the right to act.
            driver.shared.acts_until.store(0, Ordering::Release);
        };
        thread::Builder::new().name("cluster-node".to_owned()).spawn(run)?;
        Ok(Self { lease, status, _end: end })
    }

    /// Returns whether this node may let something leave now: its leases last, and no other node has taken
    /// over its clients.
    #[must_use]
    pub fn may_act(&self) -> bool {
        self.lease.may_act()
    }

    /// Returns what the node knows, now and later.
    #[must_use]
    pub fn follow_status(&self) -> watch::Receiver<NodeStatus> {
        self.status.clone()
    }

    /// Returns a view on the node that follows its state.
    pub(super) fn watch(&self) -> NodeWatch {
        NodeWatch { shared: Arc::clone(&self.lease.0), status: self.status.clone() }
    }

    /// Returns the view of the node, at most 100 ms old.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.status.borrow().clone()
    }

    /// Waits until the node knows something.
    ///
    /// # Errors
    /// If its thread has ended.
    pub async fn wait_for(
        &self,
        is_it: impl FnMut(&NodeStatus) -> bool,
    ) -> Result<NodeStatus, watch::error::RecvError> {
        let mut status = self.status.clone();
        status.wait_for(is_it).await.map(|found| found.clone())
    }
}

/// Returns the time since the machine was started.
pub(super) fn now() -> Timestamp {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = ClockId::CLOCK_BOOTTIME;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = ClockId::CLOCK_MONOTONIC;
    // Both clocks exist, and neither part is negative.
    let time = clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    Timestamp(time.as_secs() * 1_000 + u64::from(time.subsec_millis()))
}

struct Driver {
    door: Arc<dyn Nats>,
    node: NodeId,
    file: LifeFile,
    shared: Arc<SharedNode>,
    prepared: Vec<PreparedLife>,
    tell: watch::Sender<NodeStatus>,
}

impl Driver {
    /// Lives one life after the other.
    async fn live(&self) {
        let mut above = Incarnation(0);
        let mut is_told = false;
        loop {
            // Stored before the life begins, so that no incarnation is used twice.
            match self.file.begin_life(above) {
                Ok((store, incarnation)) => {
                    is_told = false;
                    info!(node = %self.node, incarnation = incarnation.0, "joining the cluster");
                    self.shared.incarnation.store(incarnation.0, Ordering::Release);
                    let membership = Membership::new(self.node.clone(), store, incarnation);
                    let ended = Life::new(self, membership).run().await;
                    // Cleared first: whatever follows must not act for the ended life.
                    self.shared.acts_until.store(0, Ordering::Release);
                    self.shared.ended.store(incarnation.0, Ordering::Release);
                    warn!(node = %self.node, incarnation = incarnation.0, why = ?ended,
                        "this life of the node has ended");
                    // The next life must be higher than the one that has taken over.
                    above = match ended {
                        EndOfLife::Superseded(later) => later,
                        EndOfLife::LeaseLost | EndOfLife::DeclaredDead => incarnation,
                    };
                    self.tell.send_modify(|status| status.last_end = Some(ended));
                }
                // Told once, because the disk is tried again every time.
                Err(fault) if !is_told => {
                    is_told = true;
                    error!(reason = %fault, "the incarnation of the node cannot be stored");
                }
                Err(_) => {}
            }
            sleep(NEXT_LIFE_PAUSE).await;
        }
    }
}

type Written = (RequestNumber, Result<Revision, NatsWriteError>);

/// One life of the node.
struct Life<'a> {
    driver: &'a Driver,
    membership: Membership,
    watches: SelectAll<BoxStream<'static, (Bucket, BucketEvent)>>,
    writes: FuturesUnordered<BoxFuture<'a, Written>>,
}

impl<'a> Life<'a> {
    fn new(driver: &'a Driver, membership: Membership) -> Self {
        let leases = (0..LEASE_BUCKETS as u8).map(Bucket::Lease);
        let watches = leases.chain([Bucket::Members]).map(|bucket| {
            let named = move |event| (bucket, event);
            driver.door.watch(bucket).map(named).boxed()
        });
        let (watches, writes) = (watches.collect(), FuturesUnordered::new());
        Self { driver, membership, watches, writes }
    }

    async fn run(mut self) -> EndOfLife {
        loop {
            let now = now();
            if let Some(ended) = self.turn(now) {
                return ended;
            }
            self.publish(now);
            // The membership says when it must be looked at, so no timer runs without need.
            let next_at = self.membership.next_at(now).millis();
            let pause = Duration::from_millis(next_at.saturating_sub(now.millis()));
            // Whatever comes first is handled, and everything that follows from it in the next turn.
            tokio::select! {
                Some((bucket, event)) = self.watches.next() => self.see(bucket, event),
                Some((request, result)) = self.writes.next() => {
                    self.membership.handle_written(request, result, crate::cluster::node::now());
                }
                () = sleep(pause) => {}
            }
        }
    }

    /// Carries out the actions that are due; returns the end of the life.
    fn turn(&mut self, now: Timestamp) -> Option<EndOfLife> {
        // Time first: a lease may have been lost while the thread slept.
        self.membership.handle_time(now);
        if self.is_prepared() {
            self.membership.handle_prepared();
        }
        loop {
            // Writes are sent together, because their answers may come in any order.
            while let Some(write) = self.membership.poll_write(now) {
                self.writes.push(Box::pin(written(self.driver, write)));
            }
            match self.membership.poll_event() {
                None => return None,
                Some(MembershipEvent::Ended(why)) => return Some(why),
                Some(MembershipEvent::Prepare) => {} // looked at above, until it is done
                Some(MembershipEvent::Served) => {
                    let incarnation = self.membership.incarnation().0;
                    info!(node = %self.driver.node, incarnation, "part of the cluster");
                }
                Some(MembershipEvent::LifeEnded(node, Incarnation(incarnation))) => {
                    warn!(%node, incarnation, "a node of the cluster has ended");
                }
                Some(MembershipEvent::Keeper(..)) => {} // no messages yet
            }
        }
    }

    fn is_prepared(&self) -> bool {
        let incarnation = self.membership.incarnation().0;
        let is_it = |life: &PreparedLife| life.load(Ordering::Acquire) == incarnation;
        self.driver.prepared.iter().all(is_it)
    }

    fn see(&mut self, bucket: Bucket, event: BucketEvent) {
        let BucketEvent::Entry(entry) = event else {
            return self.membership.handle_current(bucket);
        };
        let Some(node) = NodeId::new(&entry.key) else { return };
        let (value, now) = (entry.value.as_deref(), now());
        match bucket {
            Bucket::Lease(number) => {
                self.membership.handle_lease(number, node, entry.revision, value, now);
            }
            Bucket::Members => self.membership.handle_member(node, entry.revision, value, now),
            Bucket::Owners(_) => {}
        }
    }

    fn publish(&self, now: Timestamp) {
        // The time until which the node acts is read by every shard, so it is an atomic.
        let until = self.membership.acts_until().map_or(0, Timestamp::millis);
        self.driver.shared.acts_until.store(until, Ordering::Release);
        // Watchers are woken only if something they see has changed.
        self.driver.tell.send_if_modified(|status| {
            let next = NodeStatus {
                node: self.driver.node.clone(),
                incarnation: self.membership.incarnation(),
                phase: self.membership.phase(),
                last_end: status.last_end,
                members: self.members(now),
            };
            let is_new = *status != next;
            *status = next;
            is_new
        });
    }

    fn members(&self, now: Timestamp) -> BTreeMap<NodeId, MemberStatus> {
        let status = |(node, record): (&NodeId, &super::members::MemberRecord)| {
            let status = MemberStatus {
                incarnation: record.incarnation,
                standing: record.standing,
                keeper: record.keeper().cloned(),
                lease_ages_millis: self.membership.lease_ages_millis(node, now),
            };
            (node.clone(), status)
        };
        self.membership.members().map(status).collect()
    }
}

/// Makes a write, and returns its outcome.
async fn written(driver: &Driver, write: KeyWrite) -> Written {
    let KeyWrite { request, bucket, key, value, expected } = write;
    let time_max = match bucket {
        Bucket::Lease(_) => Duration::from_millis(ANSWER_WITHIN_MILLIS),
        Bucket::Members | Bucket::Owners(_) => RECORD_TIME_MAX,
    };
    (request, driver.door.update(bucket, &key, value, expected, time_max).await)
}
