//! The routes of a session that moves, as the driver of owners reaches the driver of the mail.
//!
//! Knows neither: `owning` calls it, and `mailing` implements it.

use std::{fmt, sync::Arc};

use super::{
    names::{ClientKey, NodeId},
    routes::TakenSession,
};

/// Is called with the node that has taken a session, when no message for it comes to this node any more.
pub(super) struct MoveOver(pub(super) Box<dyn FnOnce(NodeId) + Send>);

impl fmt::Debug for MoveOver {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("MoveOver")
    }
}

/// The routes of sessions that move between nodes.
pub(super) trait SessionRoutes: Send + Sync {
    /// A session is offered to this claim: if the claimant takes it, this node takes no message of a later place.
    fn offer(&self, session: TakenSession, client_id: Arc<str>, over: MoveOver);

    /// The claim of this node is confirmed, and the filters of the session are noted: it is taken.
    fn take(&self, session: TakenSession, client_id: Arc<str>);

    /// The session stays where it is.
    fn keep(&self, key: ClientKey);
}
