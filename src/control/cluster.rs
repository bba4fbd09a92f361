//! The cluster that a broker is a member of, for the callers that look at it.

use crate::labels::labels;

labels! {
    /// How a broker stands in its cluster.
    pub enum ClusterState {
        /// It is in no cluster.
        Alone = "alone",
        /// It has not reached NATS since its start.
        Connecting = "connecting",
        /// It has reached NATS, and does not act for clients yet.
        Joining = "joining",
        /// It acts for its clients.
        Serving = "serving",
        /// It could not renew its leases, or others have declared it dead; it joins again.
        Fenced = "fenced",
    }
}

labels! {
    /// The record of a member.
    pub enum MemberState {
        /// It does not act for clients yet.
        Joining = "joining",
        /// It acts for its clients while its leases last.
        Serving = "serving",
        /// It was declared dead.
        Dead = "dead",
    }
}

/// A cluster, as one of its brokers sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterView {
    /// How this broker stands in it.
    pub state: ClusterState,
    /// The name of this broker in the cluster.
    pub node: String,
    /// Counts the lives of this broker in the cluster; 0 before the first.
    pub incarnation: u64,
    /// Why NATS cannot be used yet.
    pub fault: Option<Box<str>>,
    /// The members, in the order of their names, this broker among them.
    pub members: Vec<ClusterMemberView>,
    /// Number of Topic Filters of the other brokers that this one knows; a filter counts once for each broker.
    pub routes: usize,
    /// SUBACKs that this broker has sent before each other broker knew the filters.
    pub subacks_early: u64,
    /// The place in the stream of retained messages up to which this broker has applied it.
    pub retained_applied: u64,
    /// How far this broker is behind the last place that it knows to be written.
    pub retained_lag: u64,
    /// Messages with RETAIN of this broker that the stream did not take.
    pub retained_refused: u64,
}

impl ClusterView {
    /// Describes a cluster of which nothing else is known.
    #[must_use]
    pub fn new(state: ClusterState, node: &str) -> Self {
        Self {
            state,
            node: node.to_owned(),
            incarnation: 0,
            fault: None,
            members: Vec::new(),
            routes: 0,
            subacks_early: 0,
            retained_applied: 0,
            retained_lag: 0,
            retained_refused: 0,
        }
    }
}

/// A broker of a cluster.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterMemberView {
    /// Its name.
    pub node: String,
    /// The state in its record.
    pub state: MemberState,
    /// Counts its lives.
    pub incarnation: u64,
    /// The broker that does what follows from its death.
    pub keeper: Option<String>,
    /// The time since each of its leases was seen to be renewed, in milliseconds.
    pub lease_ages_millis: Vec<u64>,
    /// The messages between this broker and it; none of this broker itself.
    pub mail: Option<ClusterMailView>,
}

/// The messages between two brokers of a cluster, since the start of the one that answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterMailView {
    /// Messages that were sent.
    pub messages_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Messages that have arrived.
    pub messages_received: u64,
    /// Bytes that have arrived.
    pub bytes_received: u64,
    /// Items that the other broker has not acknowledged.
    pub unacknowledged: u64,
    /// Messages that did not reach the other broker: of QoS 0 while it could not be reached, or of any QoS when
    /// it was declared dead.
    pub dropped: u64,
}

impl ClusterMemberView {
    /// Describes a member.
    #[must_use]
    pub fn new(node: &str, state: MemberState, incarnation: u64) -> Self {
        let (keeper, lease_ages_millis, mail) = (None, Vec::new(), None);
        Self { node: node.to_owned(), state, incarnation, keeper, lease_ages_millis, mail }
    }
}
