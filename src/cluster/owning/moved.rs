//! The sessions that move, as plain data: those that have left, with messages that the new holder does not have, and those
//! that have come.
//!
//! The state outlives the life of the node, because messages were acknowledged in it. `moves` carries it out.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::{Bytes, BytesMut};
use foldhash::fast::RandomState;

use crate::{
    cluster::names::{ClientKey, NodeId, Term},
    mqtt::Timestamp,
};

/// A session that was offered to a claim.
pub(super) struct SessionOffer {
    pub(super) term: Term,
    pub(super) client_id: Arc<str>,
    pub(super) copy: Bytes,
    /// The place of the first message that the copy does not have.
    pub(super) rest_from: u64,
    /// Whether no message comes any more that the new holder does not get itself.
    pub(super) is_over: Arc<AtomicBool>,
}

/// A session that has left, with messages that the new holder does not have.
pub(super) struct LeavingSession {
    pub(super) to: NodeId,
    pub(super) term: Term,
    pub(super) client_id: Arc<str>,
    pub(super) from: u64,
    pub(super) page: u64,
    pub(super) since: Timestamp,
    pub(super) next_at: Timestamp,
    pub(super) is_over: Arc<AtomicBool>,
    pub(super) is_asking: bool,
}

/// A session that has come, and may get messages of its former holder.
pub(super) struct CatchingUp {
    pub(super) term: Term,
    pub(super) from: Option<NodeId>,
    pub(super) deadline: Timestamp,
    pub(super) holds: bool,
}

/// Pages that come from a former holder.
#[derive(Default)]
pub(super) struct RestArriving {
    pub(super) next: u64,
    pub(super) bytes: BytesMut,
    pub(super) is_storing: bool,
}

pub(super) type RestName = (ClientKey, NodeId, Term);

/// The sessions that move, on both sides.
#[derive(Default)]
pub(super) struct SessionMoves {
    pub(super) offers: HashMap<ClientKey, SessionOffer, RandomState>,
    pub(super) leaving: HashMap<ClientKey, LeavingSession, RandomState>,
    pub(super) catching_up: HashMap<ClientKey, CatchingUp, RandomState>,
    pub(super) arriving: HashMap<RestName, RestArriving, RandomState>,
    /// Sessions that have come in this life, and whose former holder has not died since.
    pub(super) marked: HashMap<ClientKey, Term, RandomState>,
}

/// The outcome of a page.
pub(super) enum PageOutcome {
    /// The holder has it; the next page begins here.
    Kept(u64),
    /// It was the last one.
    Last,
    /// The node does not have the session.
    NotHere,
    NoAnswer,
}

impl SessionMoves {
    /// Begins a life of the node: its connections have ended, and so has what waited for them.
    pub(super) fn begin_life(&mut self) {
        self.catching_up.clear();
        self.arriving.clear();
        self.marked.clear();
        for leaving in self.leaving.values_mut() {
            leaving.is_asking = false;
        }
    }

    /// Forgets a client that has neither a connection nor a session.
    pub(super) fn forget(&mut self, key: ClientKey) {
        self.marked.remove(&key);
    }

    /// Returns the copy that was offered to this claim.
    pub(super) fn offered(&self, key: ClientKey, term: Term) -> Option<Bytes> {
        let offer = self.offers.get(&key).filter(|offer| offer.term == term)?;
        Some(offer.copy.clone())
    }

    /// Returns whether a session has not got all messages of its former holder.
    pub(super) fn is_catching_up(&self, key: ClientKey) -> bool {
        self.catching_up.contains_key(&key)
    }

    /// Forgets that a session leaves, because it is here again; returns the place of the first message that other nodes
    /// do not have.
    pub(super) fn come_back(&mut self, key: ClientKey) -> Option<u64> {
        let offer = self.offers.remove(&key);
        let leaving = self.leaving.remove(&key);
        leaving.map(|leaving| leaving.from).or_else(|| Some(offer?.rest_from))
    }

    /// Forgets an offer that was given back.
    pub(super) fn regain(&mut self, key: ClientKey) {
        self.offers.remove(&key);
    }
}
