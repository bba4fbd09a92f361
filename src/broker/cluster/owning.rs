//! Joins the ownership of client identifiers in the cluster with the handshakes and shards of the broker.

use std::sync::Arc;

use actix::Addr;
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};

use super::handover::{copy_of, session_of};
use crate::{
    actors::{AdoptSession, DropSession, FenceShard, ListLasting, OfferClient, Registry},
    cluster::{
        owners::ConnectRefusal,
        owning::{ClientOwnership, HeldClient, OfferedSession, OwnedSessions, copy::SessionCopy},
        wire,
    },
    shard::{
        Core,
        handover::Offered,
        ownership::{ClientRight, NotOwned, OwnedClient, Ownership},
    },
};

/// The client identifiers of the node, for handshakes and shards.
pub(super) struct NodeOwnership(pub(super) ClientOwnership);

impl Ownership for NodeOwnership {
    fn may_act(&self) -> bool {
        self.0.may_act()
    }

    fn claim(&self, client_id: &Arc<str>) -> BoxFuture<'static, Result<OwnedClient, NotOwned>> {
        let claim = self.0.claim(client_id);
        Box::pin(async move {
            match claim.await {
                Ok(held) => Ok(OwnedClient(Arc::new(HeldRight(held)))),
                Err(ConnectRefusal::Busy | ConnectRefusal::Unavailable) => {
                    Err(NotOwned::Unavailable)
                }
                Err(ConnectRefusal::TakenOver) => Err(NotOwned::Overtaken),
            }
        })
    }
}

struct HeldRight(Arc<HeldClient>);

impl ClientRight for HeldRight {
    fn holds(&self) -> bool {
        self.0.holds()
    }

    fn next_version(&self, former: Option<u64>) -> Option<u64> {
        self.0.next_version(former)
    }
}

/// The sessions of the broker, for the driver of owners.
pub(super) struct SessionsOfBroker {
    core: Arc<Core>,
    registries: Vec<Addr<Registry>>,
}

impl SessionsOfBroker {
    pub(super) fn new(core: &Arc<Core>, registries: &[Addr<Registry>]) -> Self {
        Self { core: Arc::clone(core), registries: registries.to_vec() }
    }

    fn home(&self, client_id: &str) -> Option<&Addr<Registry>> {
        self.registries.get(usize::from(self.core.home(client_id).0))
    }
}

impl OwnedSessions for SessionsOfBroker {
    fn offer(&self, client_id: &Arc<str>) -> BoxFuture<'static, OfferedSession> {
        let Some(registry) = self.home(client_id) else {
            return Box::pin(async { OfferedSession::Nothing });
        };
        let offered = registry.send(OfferClient(Arc::clone(client_id)));
        Box::pin(async move {
            match offered.await {
                Ok(Offered::Session(session)) => {
                    OfferedSession::Copy(wire::encode(&copy_of(&session)))
                }
                Ok(Offered::Nothing) => OfferedSession::Nothing,
                Ok(Offered::Unreadable) | Err(_) => OfferedSession::Unreadable,
            }
        })
    }

    fn adopt(&self, copy: Bytes) -> BoxFuture<'static, bool> {
        let session = wire::decode::<SessionCopy>(&copy).ok().and_then(session_of);
        let registry = session.as_ref().and_then(|it| self.home(&it.record.client_id));
        let (Some(registry), Some(session)) = (registry, session) else {
            tracing::error!("a session of another node cannot be read");
            return Box::pin(async { false });
        };
        let adopted = registry.send(AdoptSession(Box::new(session)));
        Box::pin(async move { adopted.await.unwrap_or(false) })
    }

    fn drop_session(&self, client_id: &Arc<str>, has_moved: bool) -> BoxFuture<'static, ()> {
        let Some(registry) = self.home(client_id) else { return Box::pin(async {}) };
        let client_id = Arc::clone(client_id);
        let dropped = registry.send(DropSession { client_id, has_moved });
        Box::pin(async move {
            let _ = dropped.await; // It fails only when the broker has ended.
        })
    }

    fn fence(&self) -> BoxFuture<'static, ()> {
        let fenced = join_all(self.registries.iter().map(|registry| registry.send(FenceShard)));
        Box::pin(async move {
            let _ = fenced.await; // A part fails only when the broker has ended.
        })
    }

    fn lasting(&self) -> BoxFuture<'static, Vec<Arc<str>>> {
        let lists = join_all(self.registries.iter().map(|registry| registry.send(ListLasting)));
        Box::pin(async move { lists.await.into_iter().flatten().flatten().collect() })
    }
}
