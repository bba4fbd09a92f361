//! The mail from one shard to another, and the door through which it goes.
//!
//! Below shards, store and cluster, so that none of them knows another.

pub(crate) mod batch;
pub(crate) mod door;
pub(crate) mod nodes;
pub(crate) mod parcel;
pub(crate) mod search;
