//! Several brokers as one: leases, members, owners of client identifiers, routes and mail between nodes.
//!
//! The core of each is a state machine without I/O and without a clock: `handle_…` takes something in,
//! `poll_…` gives something out, the time is an argument. NATS is behind the door of `door.rs`; `nats`
//! is the real one, and `options` the table of the configuration. `node` drives the membership, and `joining`
//! begins it for a broker. `asking` asks other nodes about clients. `owning` drives the owners of client identifiers,
//! `mailing` the routes and lanes, and `retaining` the retained messages.
//! No broker uses `attempts`, `catching_up`, `forwards`, `had` and `withdrawals`: between living nodes a session is handed over
//! at one place in the log of routes (`taken`, `mailing/cuts.rs`), and brokers do not follow all rules for QoS 2 below when nodes
//! die; docs/cluster.md says which messages are lost. `tests/world/cluster` plays whole clusters on the core, and `tests/cluster`
//! tests brokers with real NATS servers.
//!
//! # QoS 2 on its way
//!
//! A message has one identity in the whole cluster, [`MessageId`](names::MessageId): the store and the
//! incarnation in which it was published first, the shard, and a number. Of a message there are *copies*: one for
//! each node that it was planned for, and one more for what a queue hands over. For each session, at most one
//! copy is delivered. The rules:
//!
//! 1. **A copy is at one node at a time.** A node that gives a copy to another one stores that it tries, sends,
//!    and drops the copy at the answer *kept*. The other node stores the message together with the number of the
//!    copy (`attempts`), and gives the same answer at any later time, also when it has delivered or passed on
//!    the message. Without an answer, the first node asks before it tries elsewhere; *had* means that the copy
//!    is not its own any more.
//! 2. **A refusal is final.** A node that refuses an attempt, or denies in answer to a question, also refuses the
//!    attempts so far, which may still be on their way. An answer to an earlier attempt tells nothing about a later one.
//! 3. **A single copy goes directly into the queue of its session.** It was planned for one node, and
//!    was in no queue that was handed over ([`Mail::is_alone`](lanes::Mail::is_alone)).
//! 4. **One of several copies is delivered only when no node is left that may have delivered another one.**
//!    These are the nodes that the record of the owner owes a part of the session. Each of them is asked,
//!    and its denial counts for this term of the record: before a later term it may have been the owner, and
//!    may have had another copy. The holder takes such a copy only if its sender asked by the holder's own record or
//!    a later one; mail that was planned for it is forwarded to itself, and so asks too. If a node that must be
//!    asked is dead, the copy waits for it.
//! 5. **A list of the messages that a session has had travels with it** (`had`): those that may have another copy. A
//!    hand-over adds the messages in the queue, which have two copies from then on. A node that a session has left
//!    keeps the messages that were delivered there, and forgets those that it handed over or forwarded.
//! 6. **A keeper gets a copy for a dead node only if there is no other and the dead node was never sent it.**
//!
//! The memory of a node for these rules is bounded: the answers to each other node, and the history of each session, to
//! 4,096 each, the oldest forgotten first. A forgotten refusal becomes a refusal of all attempts of that age, which
//! are made again. After a *taken* or *had* is forgotten, a copy that was delayed since then can be delivered a second
//! time.

pub mod asking;
pub mod attempts;
pub mod catching_up;
mod custody;
pub mod door;
pub mod forwards;
pub mod had;
pub mod joining;
mod judging;
pub mod lanes;
pub mod lease;
pub mod life_file;
mod mail;
pub(crate) mod mailing;
mod marks;
mod member_record;
pub mod members;
pub mod names;
pub mod nats;
pub mod node;
pub mod options;
mod owner_record;
pub mod owners;
pub mod owning;
pub mod questions;
pub mod retaining;
pub mod routes;
mod session_routes;
mod settling;
mod taken;
pub mod wire;
pub mod withdrawals;
