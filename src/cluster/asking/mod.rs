//! Questions of nodes to each other about clients: over NATS core, from the node that a caller has asked to the
//! node that has the client.
//!
//! ```text
//!  caller ─▶ broker ─▶ NodeAsker ── owner record ──▶ NATS
//!                         │
//!                         └──── ClientsQuestion ───▶ answering ─▶ broker of the owner
//! ```
//!
//! A question takes at most two hops: the owner record, and the owner. An owner that is known from an earlier question
//! saves the first; it must prove that it holds the client. Each question has a deadline; those under way to one node are
//! bounded; an answer fits into one message of NATS, so lists come in pages.
//!
//! | file | what it does |
//! |---|---|
//! | `search` | finds the owner of one client, step by step |
//! | `known` | remembers owners, and nodes that do not answer |
//! | `answering` | answers the questions of others |
//! | `form` | the form in which questions and answers travel |

pub(crate) mod answering;
pub mod form;
mod known;
pub mod search;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use self::{
    form::{ClientsBody, ClientsQuestion, ClientsReply},
    known::{AskedNodes, KnownOwners, NotAsked},
};
use super::{
    door::{Nats, NatsAskError},
    members::MemberStanding,
    names::{ClientKey, NodeId},
    node::{NodeWatch, now},
    owner_record::OwnerRecord,
    owning::ClientOwnership,
    wire,
};
use crate::journal::Revision;

/// How long a question waits for the answer of another node. Less than the time of a call, so that its caller learns
/// which part did not answer.
pub(crate) const ASK_TIME_MAX: Duration = Duration::from_millis(1_000);
/// How long the owner record is waited for.
const READ_TIME_MAX: Duration = Duration::from_millis(500);
/// The bytes of a message of NATS besides the clients that it is about.
const FRAME_BYTES: usize = 4 * 1024;

/// Why a node has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAnswered {
    /// The question did not reach it, or it refused it: nothing was done.
    NotReached,
    /// No answer in time: the question may have been handled.
    Silent,
    /// Too many questions are under way: nothing was done.
    Busy,
}

/// Asks other nodes about clients. It exists from the moment when NATS was reached.
pub(crate) struct NodeAsker {
    door: Arc<dyn Nats>,
    node: NodeId,
    watch: NodeWatch,
    ownership: ClientOwnership,
    owners: Mutex<KnownOwners>,
    asked: Mutex<AskedNodes>,
}

impl NodeAsker {
    pub(super) fn new(
        door: Arc<dyn Nats>,
        node: NodeId,
        watch: NodeWatch,
        ownership: ClientOwnership,
    ) -> Self {
        let (owners, asked) = (Mutex::default(), Mutex::default());
        Self { door, node, watch, ownership, owners, asked }
    }

    /// Returns the name of this node.
    pub(crate) const fn node(&self) -> &NodeId {
        &self.node
    }

    /// Returns whether this node may act for its clients, so that its answers are true.
    pub(crate) fn serves(&self) -> bool {
        self.watch.may_act()
    }

    /// Returns whether this node has a connection or a session of a client, and owns it.
    pub(crate) fn holds(&self, client_id: &str) -> bool {
        self.ownership.holds(ClientKey::of(client_id))
    }

    /// Returns whether a client of this node has been claimed a short time ago, so that CONNACK may follow.
    pub(crate) fn is_arriving(&self, client_id: &str) -> bool {
        self.ownership.is_arriving(ClientKey::of(client_id))
    }

    /// Returns the owner of a client as far as it is known without a question.
    pub(crate) fn known_owner(&self, client_id: &str) -> Option<NodeId> {
        let key = ClientKey::of(client_id);
        if self.ownership.holds(key) {
            return Some(self.node.clone());
        }
        let known = self.owners().find(key);
        known.filter(|node| self.standing(node) == Some(MemberStanding::Serving))
    }

    /// Notes the owner of a client, or that it is not the known one.
    pub(crate) fn note_owner(&self, client_id: &str, owner: Option<&NodeId>) {
        let key = ClientKey::of(client_id);
        match owner {
            Some(node) if *node != self.node => self.owners().note(key, node),
            Some(_) | None => self.owners().forget(key),
        }
    }

    /// Returns the standing of a node.
    pub(crate) fn standing(&self, node: &NodeId) -> Option<MemberStanding> {
        self.watch.status.borrow().members.get(node).map(|member| member.standing)
    }

    /// Returns the other nodes with this standing, in the order of their names.
    pub(crate) fn others(&self, standing: MemberStanding) -> Vec<NodeId> {
        let status = self.watch.status.borrow();
        let others = status.members.iter().filter(|(node, _)| **node != self.node);
        let others = others.filter(|(_, member)| member.standing == standing);
        others.map(|(node, _)| node.clone()).collect()
    }

    /// Returns the maximum bytes of the clients of one question.
    pub(crate) fn question_bytes_max(&self) -> usize {
        self.door.payload_bytes_max().saturating_sub(FRAME_BYTES).max(FRAME_BYTES)
    }

    /// Reads the owner record of a client. `None`: it is absent.
    ///
    /// # Errors
    /// No answer in time, or an unreadable record.
    pub(crate) async fn record(
        &self,
        client_id: &str,
    ) -> Result<Option<(Revision, OwnerRecord)>, NotAnswered> {
        let key = ClientKey::of(client_id);
        let found = self.door.read(key.bucket(), &key.to_string(), READ_TIME_MAX).await;
        let entry = found.map_err(|_| NotAnswered::NotReached)?;
        let Some((revision, value)) = entry.and_then(|entry| Some((entry.revision, entry.value?)))
        else {
            return Ok(None);
        };
        let record = wire::decode(&value).map_err(|_| NotAnswered::NotReached)?;
        Ok(Some((revision, record)))
    }

    /// Asks a node.
    ///
    /// # Errors
    /// Any [`NotAnswered`].
    pub(crate) async fn ask(
        &self,
        to: &NodeId,
        body: ClientsBody,
        time_max: Duration,
    ) -> Result<ClientsReply, NotAnswered> {
        let (life, of) = {
            let status = self.watch.status.borrow();
            let of = status.members.get(to).map(|member| (member.standing, member.incarnation));
            (status.incarnation, of)
        };
        let Some((MemberStanding::Serving, to_life)) = of else {
            return Err(NotAnswered::NotReached);
        };
        let question = ClientsQuestion { from: self.node.clone(), incarnation: life, body };
        let payload = wire::encode(&question);
        if payload.len() > self.door.payload_bytes_max() {
            return Err(NotAnswered::Busy);
        }
        let since = now();
        let way = self.begin(to)?;
        let answered = self.door.call(to, to_life.0, payload, time_max).await;
        drop(way);
        self.read_reply(to, since, answered)
    }

    fn read_reply(
        &self,
        to: &NodeId,
        since: crate::mqtt::Timestamp,
        answered: Result<Bytes, NatsAskError>,
    ) -> Result<ClientsReply, NotAnswered> {
        let bytes = match answered {
            Ok(bytes) => bytes,
            Err(NatsAskError::Unreachable) => return Err(NotAnswered::NotReached),
            Err(NatsAskError::Timeout) => {
                self.asked().note_silent(to, since, now());
                return Err(NotAnswered::Silent);
            }
        };
        self.asked().note_answered(to, now());
        match wire::decode(&bytes) {
            Ok(ClientsReply::NotServing) => Err(NotAnswered::NotReached),
            Ok(ClientsReply::Busy) => Err(NotAnswered::Busy),
            Ok(reply) => Ok(reply),
            Err(fault) => {
                tracing::warn!(node = %to, reason = %fault, "an answer about clients is unreadable");
                Err(NotAnswered::Silent)
            }
        }
    }

    fn begin<'a>(&'a self, to: &'a NodeId) -> Result<OpenQuestion<'a>, NotAnswered> {
        match self.asked().begin(to, now()) {
            Ok(()) => Ok(OpenQuestion { asker: self, to }),
            Err(NotAsked::Silent) => Err(NotAnswered::Silent),
            Err(NotAsked::TooMany) => Err(NotAnswered::Busy),
        }
    }

    fn owners(&self) -> MutexGuard<'_, KnownOwners> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, AskedNodes> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for NodeAsker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeAsker").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A question under way. It counts until it is dropped, also when its caller has gone.
struct OpenQuestion<'a> {
    asker: &'a NodeAsker,
    to: &'a NodeId,
}

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        self.asker.asked().end(self.to);
    }
}
