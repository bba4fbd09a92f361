//! Which sessions get a message, and which messages are retained.
//!
//! Shared by all shards: many readers, few writers. It knows sessions only by their [`Place`],
//! never what they are, and answers a publisher with a [`Plan`]: for every host the targets there,
//! merged so that one session is named once however many of its filters match.

mod edges;
mod index;
mod level;
mod place;
mod plan;
mod retained;
mod subscribers;
mod tree;

pub use index::Index;
pub use place::{Host, Place};
pub use plan::{OwnCopy, Plan, SharedTargets, Target};
pub use retained::{Retained, RetainedFull, RetainedLimits, RetainedQuery, RetainedSlice};
pub use subscribers::Subscriber;
