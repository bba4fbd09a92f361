//! The hand-overs of sessions, as places in the log of routes.
//!
//! The new node writes into the log that it has taken a session, behind the filters of the session. The place of this
//! entry is the cut: messages that were planned with an earlier place are for the former node, all others for the new
//! one. Both see the same place before a message behind it reaches their shards, because mail that was planned with a
//! place which this node has not applied yet waits (`driver/arriving.rs`). When all nodes that serve plan with the
//! cut, no message before it comes any more, and one more round through the shards brings those that are here into the
//! queue of the session.
//!
//! Knows no shards and no NATS.

use std::{fmt, sync::Arc};

use crate::{
    between::nodes::{MovingStep, RoutesPlace},
    cluster::{
        names::{ClientKey, NodeId, Sequence},
        routes::TakenSession,
        session_routes::MoveOver,
    },
};

/// The side of this node when a session is handed over.
pub(super) enum CutSide {
    /// The session leaves it: then this is called.
    Leaves(MoveOver),
    /// The session comes to it.
    Arrives,
}

impl fmt::Debug for CutSide {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Leaves(_) => "Leaves",
            Self::Arrives => "Arrives",
        })
    }
}

#[derive(Debug)]
struct Cut {
    session: TakenSession,
    client_id: Arc<str>,
    side: CutSide,
    made: Option<MadeCut>,
}

/// A cut whose place is known.
#[derive(Debug)]
struct MadeCut {
    by: NodeId,
    place: Sequence,
    /// The round after which all messages before the cut are in the queue of the session; none while such messages may
    /// still come.
    round: Option<u64>,
}

/// The end of a hand-over on this node.
#[derive(Debug)]
pub(super) enum CutOver {
    /// The session has left to this node.
    Left(MoveOver, NodeId),
    /// The session has arrived.
    Arrived(Arc<str>),
}

/// The hand-overs that this node has a side of: as many as claims are under way.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    all: Vec<Cut>,
}

impl Cuts {
    /// Waits for a cut, in the place of an earlier one of the same client that has no place.
    pub(super) fn expect(&mut self, session: TakenSession, client_id: Arc<str>, side: CutSide) {
        self.forget(session.key);
        self.all.push(Cut { session, client_id, side, made: None });
    }

    /// Waits no longer for the cut of a client.
    pub(super) fn forget(&mut self, key: ClientKey) {
        self.all.retain(|cut| cut.session.key != key || cut.made.is_some());
    }

    /// Takes in the place of a cut; returns what the shard of the session must know, with the client.
    pub(super) fn handle_taken(
        &mut self,
        by: &NodeId,
        session: TakenSession,
        place: Sequence,
    ) -> Option<(Arc<str>, MovingStep)> {
        let is_it = |cut: &&mut Cut| cut.session == session && cut.made.is_none();
        let cut = self.all.iter_mut().find(is_it)?;
        cut.made = Some(MadeCut { by: by.clone(), place, round: None });
        let (client_id, at) = (Arc::clone(&cut.client_id), RoutesPlace(place.0));
        let step = match cut.side {
            CutSide::Leaves(_) => MovingStep::TakesBefore(Arc::clone(&client_id), at),
            CutSide::Arrives => MovingStep::TakesFrom(Arc::clone(&client_id), at),
        };
        Some((client_id, step))
    }

    /// Notes for which cuts all nodes plan with their places: they are over after the round that `next_round` names.
    pub(super) fn look(
        &mut self,
        is_everywhere: impl Fn(Sequence) -> bool,
        mut next_round: impl FnMut() -> u64,
    ) {
        for made in self.all.iter_mut().filter_map(|cut| cut.made.as_mut()) {
            if made.round.is_none() && is_everywhere(made.place) {
                made.round = Some(next_round());
            }
        }
    }

    /// Returns the next hand-over that is over, after this round.
    pub(super) fn poll_over(&mut self, completed: u64) -> Option<CutOver> {
        let is_over = |cut: &Cut| {
            let round = cut.made.as_ref().and_then(|made| made.round);
            round.is_some_and(|round| round <= completed)
        };
        let at = self.all.iter().position(is_over)?;
        let Cut { client_id, side, made, .. } = self.all.swap_remove(at);
        Some(match side {
            CutSide::Leaves(over) => CutOver::Left(over, made?.by),
            CutSide::Arrives => CutOver::Arrived(client_id),
        })
    }

    /// Returns whether a hand-over is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::names::Term;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    #[test]
    fn a_session_has_left_after_the_round_behind_the_last_message_of_the_old_route() {
        let session = TakenSession { key: ClientKey(5), term: Term(7) };
        let mut cuts = Cuts::default();
        cuts.expect(session, "car".into(), CutSide::Leaves(MoveOver(Box::new(|_| {}))));
        // The entry of an earlier claim.
        let earlier = TakenSession { term: Term(6), ..session };
        assert!(cuts.handle_taken(&node("b"), earlier, Sequence(3)).is_none());
        let step = cuts.handle_taken(&node("b"), session, Sequence(4));
        assert!(matches!(step, Some((_, MovingStep::TakesBefore(_, RoutesPlace(4))))));
        // An entry that was written twice.
        assert!(cuts.handle_taken(&node("b"), session, Sequence(5)).is_none());
        cuts.look(|place| place < Sequence(4), || 9);
        assert!(cuts.poll_over(100).is_none(), "a node plans with an earlier place");
        cuts.look(|place| place <= Sequence(4), || 9);
        assert!(cuts.poll_over(8).is_none(), "a message is between the shards");
        assert!(matches!(cuts.poll_over(9), Some(CutOver::Left(_, by)) if by == node("b")));
        assert!(cuts.is_empty());
    }

    #[test]
    fn a_claim_that_is_undone_or_repeated_leaves_nothing() {
        let session = TakenSession { key: ClientKey(5), term: Term(7) };
        let mut cuts = Cuts::default();
        cuts.expect(session, "car".into(), CutSide::Arrives);
        let later = TakenSession { term: Term(9), ..session };
        cuts.expect(later, "car".into(), CutSide::Arrives);
        assert!(cuts.handle_taken(&node("a"), session, Sequence(4)).is_none());
        assert!(cuts.handle_taken(&node("a"), later, Sequence(5)).is_some());
        cuts.forget(session.key);
        assert!(!cuts.is_empty(), "its place is known");
        cuts.look(|_| true, || 1);
        assert!(matches!(cuts.poll_over(1), Some(CutOver::Arrived(_))));
    }
}
