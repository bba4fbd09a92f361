//! Clients that connect and disconnect, and changes while they are connected.

mod arrival;
pub(super) mod arrive;
pub(super) mod authenticate;
mod begin;
mod conn_ack;
pub(super) mod depart;
mod ending;
pub(super) mod events;
pub(super) mod expiry;
mod history;
pub(super) mod keep_alive;
pub(super) mod kicked;
mod owned;
pub(super) mod preparing;
pub(super) mod recheck;
pub(super) mod rechecks;
pub(super) mod redirect;
pub(super) mod settings;
mod snapshot;
pub(super) mod sweep;
pub(super) mod tell;
