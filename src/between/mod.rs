//! The mail from one shard to another, and the door through which it goes.
//!
//! Below shards, store and cluster, so that none of them knows another.

pub(crate) mod batch;
pub(crate) mod door;
#[cfg_attr(
    not(feature = "cluster"),
    expect(dead_code, reason = "only the driver of a cluster is behind it")
)]
pub(crate) mod nodes;
pub(crate) mod parcel;
#[cfg_attr(
    not(feature = "cluster"),
    expect(dead_code, reason = "only the driver of a cluster is behind it")
)]
pub(crate) mod retained;
pub(crate) mod search;
