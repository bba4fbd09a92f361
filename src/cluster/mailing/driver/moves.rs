//! Sessions that move between nodes, and the rounds through the shards that they need.

use super::{MailDriver, NatsTraffic};
use crate::{
    between::{door::ToShard, nodes::MovingStep},
    cluster::{
        mailing::{
            SessionMove,
            cuts::{CutOver, CutSide},
        },
        session_routes::MoveOver,
    },
    router::ShardNumber,
};

impl MailDriver {
    pub(super) fn take_move(&mut self, step: SessionMove) {
        match step {
            SessionMove::Offer(session, client_id, over) => {
                self.cuts.expect(session, client_id, CutSide::Leaves(over));
            }
            SessionMove::Take(session, client_id) => {
                // Without a life, its connections and marks end anyway.
                if self.filters.take(session) {
                    self.cuts.expect(session, client_id, CutSide::Arrives);
                }
            }
            SessionMove::Keep(key) => self.cuts.forget(key),
        }
    }

    /// Tells the shards of sessions at which place they were handed over.
    pub(super) fn cut_sessions(&mut self) {
        while let Some((by, session, place)) = self.filters.poll_taken() {
            if let Some((client_id, step)) = self.cuts.handle_taken(&by, session, place) {
                self.tell_move_step(&client_id, step);
            }
        }
    }

    fn tell_move_step(&self, client_id: &str, step: MovingStep) {
        self.tell(self.host.homes.home(client_id), ToShard::Moving(step));
    }

    /// Tells the shards how far the log of routes is applied, and ends the hand-overs that are complete.
    pub(super) fn go_through_shards(&mut self, traffic: &NatsTraffic) {
        let (me, life) = (&traffic.joined.node, traffic.life);
        self.filters.handle_applied(me, life, self.planning.place());
        if !self.cuts.is_empty() {
            let Self { cuts, filters, peers, planning, .. } = self;
            let plan_here = || peers.serving().chain([(me, life)]);
            cuts.look(|place| filters.is_everywhere(place, plan_here()), || planning.want_round());
            let completed = planning.completed().number;
            while let Some(over) = self.cuts.poll_over(completed) {
                match over {
                    CutOver::Left(MoveOver(tell), to) => tell(to),
                    CutOver::Arrived(client_id) => {
                        let step = MovingStep::Settled(client_id.clone());
                        self.tell_move_step(&client_id, step);
                    }
                }
            }
        }
        if let Some(round) = self.planning.poll_round(self.filters.applied()) {
            for shard in 0..self.host.shards.len() {
                self.tell(ShardNumber(shard as u16), ToShard::RoutesApplied(round));
            }
        }
    }
}
