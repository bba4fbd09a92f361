//! The positions up to which the nodes have applied the log of routes.
//!
//! Knows no lane: `routes.rs` compares the marks, and lanes carry them.

use std::collections::BTreeMap;

use super::names::{Incarnation, NodeId, Sequence};

/// The position in the log up to which each node has applied it, as its lane reports.
#[derive(Debug, Default)]
pub struct AppliedMarks {
    marks: BTreeMap<NodeId, (Incarnation, Sequence)>,
}

impl AppliedMarks {
    /// Handles the mark of a node, also of this one.
    pub fn handle_applied(&mut self, node: &NodeId, incarnation: Incarnation, sequence: Sequence) {
        let mark = self.marks.entry(node.clone()).or_default();
        *mark = (*mark).max((incarnation, sequence));
    }

    /// Returns whether all these lives have applied the log up to a sequence.
    pub fn is_everywhere<'a>(
        &self,
        sequence: Sequence,
        mut serving: impl Iterator<Item = (&'a NodeId, Incarnation)>,
    ) -> bool {
        serving.all(|(node, incarnation)| {
            self.marks.get(node).is_some_and(|(of, at)| *of == incarnation && *at >= sequence)
        })
    }
}
