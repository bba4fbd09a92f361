//! Finds the sessions that receive a message, and stores the retained messages.
//!
//! Shared by all shards: many readers, few writers. The router knows sessions only by their
//! [`Place`]. It answers a publisher with a [`Plan`]: the targets of each host, where a session
//! occurs once even if several of its filters match.

mod backlog;
mod edges;
mod homes;
mod index;
mod level;
mod place;
mod plan;
mod retained;
mod subscribers;
mod tree;

pub(crate) use homes::Homes;
pub use index::Index;
pub use place::{Host, Place, ShardNumber};
pub use plan::{OwnCopy, Plan, SharedTargets, Target};
pub use retained::{Retained, RetainedFull, RetainedLimits, RetainedQuery, RetainedSlice};
pub use subscribers::{MemberState, Subscriber};
