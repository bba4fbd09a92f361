//! The greeting of a node that serves: it names the process that does.
//!
//! A node that fences itself goes on as a new incarnation of the same process, which remembers the messages that it
//! had. Another process does not. So the sender of a message of QoS 2 that may have arrived sends it again only to
//! the same process.

use serde::{Deserialize, Serialize};

use crate::cluster::{
    names::{Incarnation, NodeId},
    wire::Wire,
};

/// Milliseconds between two greetings.
pub(super) const HELLO_EVERY_MILLIS: u64 = 1_000;

/// The greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeHello {
    pub(super) from: NodeId,
    pub(super) incarnation: Incarnation,
    /// A random number that the process has drawn at its start.
    pub(super) process: u64,
}

impl Wire for NodeHello {
    const KIND: u8 = 12;
}
