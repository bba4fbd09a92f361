//! Messages on their way: from a publisher to the sessions that get them.

pub(super) mod backlog;
pub(super) mod plans;
pub(super) mod publish;
pub(super) mod share;
pub(super) mod subscribe;
mod wishes;
