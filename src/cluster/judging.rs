//! Judges the other members: marks leases that are not renewed, declares lives dead, replaces keepers
//! that are dead.
//!
//! Every survivor does this; the compare-and-set of NATS lets one of them succeed. `members.rs` carries
//! its writes out.

use std::collections::BTreeMap;

use super::{
    lease::{LeaseWrite, ObservedLeases},
    member_record::{KnownMember, MemberRecord, MemberStanding},
    names::NodeId,
};
use crate::{journal::Revision, mqtt::Timestamp};

/// Number of marks that allow a verdict.
const MARKS: usize = 2;
/// Time between two tries of a verdict about one node.
const TRY_EVERY_MILLIS: u64 = 1_000;

/// The actions of this node about others that do not live any more.
#[derive(Debug, Default)]
pub(super) struct Judge {
    pub(super) leases: ObservedLeases,
    next_at: BTreeMap<NodeId, Timestamp>,
}

impl Judge {
    /// Returns the next mark to write. `me` is this node if it serves. `awaited` is its name while it
    /// waits for the end of another process of that name: nobody else may be there to judge it.
    pub(super) fn poll_mark(
        &mut self,
        members: &BTreeMap<NodeId, KnownMember>,
        me: Option<&NodeId>,
        awaited: Option<&NodeId>,
        now: Timestamp,
    ) -> Option<(NodeId, LeaseWrite)> {
        for (node, known) in members.iter().filter(|(node, _)| is_judged(node, me, awaited)) {
            if known.record.standing == MemberStanding::Dead {
                continue;
            }
            let mark = self.leases.poll_mark(node, known.record.mark(), known.since, now);
            if let Some(write) = mark {
                return Some((node.clone(), write));
            }
        }
        None
    }

    /// Returns the next verdict, or the next keeper to replace.
    pub(super) fn poll_verdict(
        &mut self,
        members: &BTreeMap<NodeId, KnownMember>,
        me: Option<&NodeId>,
        awaited: Option<&NodeId>,
        now: Timestamp,
    ) -> Option<(NodeId, MemberRecord, Revision)> {
        for (node, known) in members.iter().filter(|(node, _)| is_judged(node, me, awaited)) {
            // A verdict that is under way is not written again by this node for a while.
            if self.next_at.get(node).is_some_and(|at| now < *at) {
                continue;
            }
            // A node without a record is as good as dead: it cannot keep anything.
            let is_dead = |node: &NodeId| {
                members.get(node).is_none_or(|known| known.record.standing == MemberStanding::Dead)
            };
            let is_due = match known.record.standing {
                // Only a serving node replaces a keeper, because it offers itself.
                MemberStanding::Dead => me.is_some() && known.record.keeper().is_none_or(is_dead),
                MemberStanding::Joining | MemberStanding::Serving => {
                    self.leases.marks(node, known.record.mark()) >= MARKS
                }
            };
            if is_due {
                // Noted before the write, whatever its outcome: all survivors try, and one succeeds.
                self.next_at.insert(node.clone(), now.plus_millis(TRY_EVERY_MILLIS));
                return Some((node.clone(), verdict(&known.record, me), known.revision));
            }
        }
        None
    }
}

fn is_judged(node: &NodeId, me: Option<&NodeId>, awaited: Option<&NodeId>) -> bool {
    awaited == Some(node) || me.is_some_and(|me| me != node)
}

/// Returns the record of a dead node, with this node as its keeper if it serves.
fn verdict(record: &MemberRecord, me: Option<&NodeId>) -> MemberRecord {
    let mut verdict = MemberRecord { standing: MemberStanding::Dead, ..record.clone() };
    if let Some(me) = me {
        verdict.keepers.retain(|keeper| keeper != me);
        verdict.keepers.push(me.clone());
    }
    verdict
}
