//! Which clients a request is about, and the request that finds them, a bounded number at a time.
//!
//! Plain data: the clients may be in another process. Does not know sessions.

use std::sync::Arc;

use super::{Caller, ClientPattern};

/// Selects clients by their identifier and user name. A client is selected if all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientSelector {
    /// A pattern for the Client Identifier; `None` matches all.
    pub client_id: Option<ClientPattern>,
    /// The user name of the client; `None` matches all.
    pub username: Option<Arc<str>>,
    /// Whether sessions of absent clients are selected too.
    pub with_absent: bool,
}

impl ClientSelector {
    /// Returns the selector for all connected clients.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects only clients whose identifier matches.
    #[must_use]
    pub fn client_id(mut self, pattern: ClientPattern) -> Self {
        self.client_id = Some(pattern);
        self
    }

    /// Selects only clients with this user name.
    #[must_use]
    pub fn username(mut self, username: impl Into<Arc<str>>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// Selects sessions of absent clients too.
    #[must_use]
    pub const fn with_absent(mut self) -> Self {
        self.with_absent = true;
        self
    }

    /// Returns whether a client with this identifier and user name is selected, if it is connected.
    #[must_use]
    pub fn matches(&self, client_id: &str, username: Option<&str>) -> bool {
        self.client_id.as_ref().is_none_or(|pattern| pattern.matches(client_id))
            && self.username.as_deref().is_none_or(|wanted| username == Some(wanted))
    }
}

/// Finds some of the selected clients, from a place on. Each answer takes a bounded time and names
/// the place of the next one. A client that is there throughout is found once; one that comes or
/// goes meanwhile may be missed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SelectClients {
    /// Which clients.
    pub selector: ClientSelector,
    /// Restricts them to those that this caller may control; `None` means no restriction.
    pub caller: Option<Caller>,
    /// Where to begin.
    pub from: SelectionPlace,
}

impl SelectClients {
    /// Returns the request for the first of these clients.
    #[must_use]
    pub const fn new(selector: ClientSelector) -> Self {
        Self { selector, caller: None, from: SelectionPlace::new(0, 0) }
    }

    /// Returns the request restricted to clients that this caller may control.
    #[must_use]
    pub fn by(mut self, caller: Caller) -> Self {
        self.caller = Some(caller);
        self
    }

    /// Returns the request that continues at a place from an earlier answer.
    #[must_use]
    pub fn from(mut self, place: SelectionPlace) -> Self {
        self.from = place;
        self
    }
}

/// A place in the order in which clients are found: those of this broker, then those of other nodes of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SelectionPlace {
    /// The shard.
    pub(crate) shard: u16,
    /// The slot in the shard.
    pub(crate) slot: u32,
    /// The place on another node, behind all shards.
    #[cfg(feature = "cluster")]
    pub(crate) elsewhere: Option<Box<PlaceElsewhere>>,
}

/// A place among the clients of another node.
#[cfg(feature = "cluster")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlaceElsewhere {
    /// The node.
    pub(crate) node: Box<str>,
    /// The last identifier that was found.
    pub(crate) after: Option<Arc<str>>,
    /// Whether a node before it has not answered.
    pub(crate) has_missed: bool,
}

impl SelectionPlace {
    /// Returns the place of a slot in a shard.
    #[must_use]
    pub const fn new(shard: u16, slot: u32) -> Self {
        Self {
            shard,
            slot,
            #[cfg(feature = "cluster")]
            elsewhere: None,
        }
    }

    /// Returns a place on another node.
    #[cfg(feature = "cluster")]
    pub(crate) fn elsewhere(place: PlaceElsewhere) -> Self {
        Self { shard: u16::MAX, slot: 0, elsewhere: Some(Box::new(place)) }
    }
}

/// Some of the selected clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SelectedClients {
    /// Their identifiers; may be empty although there are more.
    pub client_ids: Vec<Arc<str>>,
    /// Where to continue; `None` if these are the last ones.
    pub next: Option<SelectionPlace>,
}

impl SelectedClients {
    /// Returns these clients as the last ones.
    #[must_use]
    pub const fn last(client_ids: Vec<Arc<str>>) -> Self {
        Self { client_ids, next: None }
    }
}
