//! What one shard sends to another, and the door through which it is sent.
//!
//! Below shards and store, so that neither knows the other; a remote node can be behind the same
//! door.

pub(crate) mod batch;
pub(crate) mod door;
pub(crate) mod parcel;
pub(crate) mod search;
