//! The filters of this node and of the others, and the SUBACKs that wait for them.
//!
//! The log of routes is written from the phase in which this life prepares to serve: another process of the same
//! name does not write it then. Knows no NATS; the driver appends and follows.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    between::nodes::AwaitedRoutes,
    cluster::{
        names::{Incarnation, NodeId, Sequence},
        routes::{
            AppliedMarks, FilterChange, OwnRoutes, RemoteRoutes, RouteAppend, SubackNumber,
            TakenSession,
        },
    },
    mqtt::Timestamp,
};

/// The filters of all nodes.
#[derive(Default)]
pub(super) struct NodeFilters {
    /// The filters that subscribers of this node have.
    wanted: BTreeSet<Box<str>>,
    /// This node in its present life; none before it may write.
    own: Option<(Incarnation, OwnRoutes)>,
    /// The place of the last entry that this life has written.
    written: Sequence,
    remote: Option<RemoteRoutes>,
    marks: AppliedMarks,
    waiting: BTreeMap<SubackNumber, AwaitedRoutes>,
    /// SUBACKs that were sent before each node had applied the filter.
    early: u64,
}

impl NodeFilters {
    /// Begins to follow the others.
    pub(super) fn join(&mut self, me: NodeId) {
        self.remote = Some(RemoteRoutes::new(me));
    }

    /// Notes that this node has the first subscriber of a filter, or has lost the last one.
    pub(super) fn handle_wanted(&mut self, filter: Box<str>, is_wanted: bool) {
        if let Some((_, own)) = &mut self.own {
            match is_wanted {
                true => own.add(&filter),
                false => own.remove(&filter),
            }
        }
        match is_wanted {
            true => self.wanted.insert(filter),
            false => self.wanted.remove(&filter),
        };
    }

    /// Notes that this node has taken over a session, whose filters are noted already; returns whether this life writes
    /// the log.
    pub(super) fn take(&mut self, session: TakenSession) -> bool {
        let Some((_, own)) = &mut self.own else { return false };
        own.take(session);
        true
    }

    /// Returns the next session that a node has taken over, and its place in the log.
    pub(super) fn poll_taken(&mut self) -> Option<(NodeId, TakenSession, Sequence)> {
        self.remote.as_mut()?.poll_taken()
    }

    /// Returns whether all these lives plan with the log up to here.
    pub(super) fn is_everywhere<'a>(
        &self,
        place: Sequence,
        serving: impl Iterator<Item = (&'a NodeId, Incarnation)>,
    ) -> bool {
        self.marks.is_everywhere(place, serving)
    }

    /// Begins a life of this node, if it has not begun: all filters are written again.
    pub(super) fn begin_life(&mut self, incarnation: Incarnation) {
        if self.own.as_ref().is_some_and(|(life, _)| *life == incarnation) {
            return;
        }
        let mut own = OwnRoutes::new(incarnation);
        for filter in &self.wanted {
            own.add(filter);
        }
        own.begin();
        self.own = Some((incarnation, own));
        self.written = Sequence(0);
    }

    /// Ends the life of this node; returns the SUBACKs that have waited.
    pub(super) fn end_life(&mut self) -> Vec<AwaitedRoutes> {
        self.own = None;
        let waiting = std::mem::take(&mut self.waiting);
        self.early += waiting.len() as u64;
        waiting.into_values().collect()
    }

    /// Returns the life whose filters are in the log, if everything that was in the log before is applied: it
    /// may serve.
    pub(super) fn prepared(&self) -> Option<Incarnation> {
        let (life, own) = self.own.as_ref()?;
        let applied = self.remote.as_ref()?.applied();
        (own.is_begun() && applied >= self.written).then_some(*life)
    }

    /// Lets a SUBACK wait; returns it if it need not.
    pub(super) fn wait(
        &mut self,
        mut awaited: AwaitedRoutes,
        now: Timestamp,
    ) -> Option<AwaitedRoutes> {
        let Some((_, own)) = &mut self.own else {
            self.early += 1;
            return Some(awaited);
        };
        let number = own.wait(std::mem::take(&mut awaited.filters), now);
        self.waiting.insert(number, awaited);
        None
    }

    /// Returns the next SUBACK that may be sent.
    pub(super) fn poll_suback<'a>(
        &mut self,
        serving: impl Iterator<Item = (&'a NodeId, Incarnation)>,
        now: Timestamp,
    ) -> Option<AwaitedRoutes> {
        let (_, own) = self.own.as_mut()?;
        let ready = own.poll_suback(&self.marks, serving, now)?;
        self.early += u64::from(!ready.is_everywhere);
        self.waiting.remove(&ready.number)
    }

    /// Returns the entry to append to the log.
    pub(super) fn poll_append(&mut self, now: Timestamp) -> Option<RouteAppend> {
        self.own.as_mut()?.1.poll_append(now)
    }

    /// Takes in where an entry of a life is; returns the place before which the entries of this node may be cut
    /// off.
    pub(super) fn handle_appended(
        &mut self,
        life: Incarnation,
        number: u64,
        sequence: Sequence,
    ) -> Option<Sequence> {
        let (_, own) = self.own.as_mut().filter(|(own, _)| *own == life)?;
        own.handle_appended(number, sequence);
        self.written = self.written.max(sequence);
        own.poll_cut()
    }

    /// Applies an entry of the log; returns what changes in the index.
    pub(super) fn handle_entry(
        &mut self,
        node: &NodeId,
        sequence: Sequence,
        payload: &[u8],
    ) -> Vec<FilterChange> {
        let Some(remote) = &mut self.remote else { return Vec::new() };
        remote.handle_entry(node, sequence, payload)
    }

    /// Forgets the filters of a dead node; returns what changes in the index.
    pub(super) fn forget(&mut self, node: &NodeId) -> Vec<FilterChange> {
        self.remote.as_mut().map_or_else(Vec::new, |remote| remote.forget(node))
    }

    /// Takes in how far a life of another node has applied the log.
    pub(super) fn handle_applied(&mut self, node: &NodeId, life: Incarnation, at: Sequence) {
        self.marks.handle_applied(node, life, at);
    }

    /// Returns how far this node has applied the log.
    pub(super) fn applied(&self) -> Sequence {
        self.remote.as_ref().map_or(Sequence(0), RemoteRoutes::applied)
    }

    /// Returns how many SUBACKs were sent before each node had applied the filter.
    pub(super) const fn early(&self) -> u64 {
        self.early
    }
}
