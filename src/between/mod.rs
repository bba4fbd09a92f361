//! The mail from one shard to another, and the door through which it goes.
//!
//! Below shards and store, so that neither knows the other; a remote node can be behind the same
//! door.

pub(crate) mod batch;
pub(crate) mod door;
pub(crate) mod parcel;
pub(crate) mod search;
