//! The right to serve a client identifier, for a broker that is a node of a cluster.
//!
//! At any time, one node at most may serve a client identifier. The handshake claims the identifier, and waits.
//! The shard checks the right again before CONNACK, because another node may have taken the client over
//! meanwhile, or this node may have lost its leases. Does not know how nodes agree: the broker implements the
//! traits. A broker alone has no [`Ownership`], and all is allowed.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use foldhash::fast::RandomState;
use futures_util::future::BoxFuture;

/// The node, as the owner of client identifiers.
pub(crate) trait Ownership: Send + Sync {
    /// Returns whether this node may let something leave for a client now.
    fn may_act(&self) -> bool;

    /// Claims a client identifier. Dropping the future gives up a claim that is not written yet.
    fn claim(&self, client_id: &Arc<str>) -> BoxFuture<'static, Result<OwnedClient, NotOwned>>;
}

/// A client identifier that this node owns.
pub(crate) trait ClientRight: Send + Sync {
    /// Returns whether this node still owns it, and may act.
    fn holds(&self) -> bool;

    /// Returns the presence version of the next connection, which is above `former`; `None` if there is none left
    /// until the identifier is claimed again.
    fn next_version(&self, former: Option<u64>) -> Option<u64>;
}

/// The right to serve one client. The node gives it back after the last clone is dropped.
#[derive(Clone)]
pub(crate) struct OwnedClient(pub(crate) Arc<dyn ClientRight>);

impl fmt::Debug for OwnedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedClient").field("holds", &self.0.holds()).finish()
    }
}

/// Why a client identifier was not claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "a broker alone claims nothing"))]
pub(crate) enum NotOwned {
    /// The node does not serve, too many claims wait, or another node does not answer. The client may try again.
    Unavailable,
    /// A later CONNECT of the same client has won.
    Overtaken,
}

/// The ownership of a broker: set before it accepts connections, and only in a cluster.
#[derive(Default)]
pub(crate) struct OwnershipOfBroker(pub(in crate::shard) OnceLock<Arc<dyn Ownership>>);

/// The clients that this node owns for the sessions of one shard.
#[derive(Default)]
pub(in crate::shard) struct OwnedClients(HashMap<Arc<str>, OwnedClient, RandomState>);

impl OwnedClients {
    /// Keeps the right to serve a client, as long as its session lasts.
    pub(in crate::shard) fn keep(&mut self, client_id: Arc<str>, owned: OwnedClient) {
        self.0.insert(client_id, owned);
    }

    /// Forgets a client whose session has ended.
    pub(in crate::shard) fn release(&mut self, client_id: &str) {
        if !self.0.is_empty() {
            self.0.remove(client_id);
        }
    }
}
