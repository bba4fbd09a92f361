//! The way of messages from a publisher to the sessions that receive them.

pub(super) mod asked;
pub(super) mod awaited;
pub(super) mod backlog;
pub(super) mod batches;
mod deliver;
mod elsewhere;
mod nodes;
mod on_behalf;
pub(super) mod plans;
pub(super) mod publish;
pub(super) mod share;
pub(super) mod subscribe;
mod traced;
mod wishes;
