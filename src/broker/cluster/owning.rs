//! Joins the ownership of client identifiers in the cluster with the handshakes and shards of the broker.

use std::sync::Arc;

use actix::Addr;
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};

use super::handover::{copy_of, rest_copy, rest_of, session_of};
use crate::{
    actors::{
        AdoptSession, AppendRest, DropSession, FenceShard, GiveUpOrder, ListLasting, OfferClient,
        ReadRest, Registry,
    },
    cluster::{
        owners::ConnectRefusal,
        owning::{
            ClientOwnership, HeldClient, OfferedSession, OwnedSessions, RestKind, RestRead,
            copy::{RestCopy, SessionCopy},
        },
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
                    OfferedSession::Copy(wire::encode(&copy_of(&session)), session.rest_from.0)
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

    fn rest(&self, client_id: &Arc<str>, from: u64) -> BoxFuture<'static, Option<RestRead>> {
        let Some(registry) = self.home(client_id) else { return Box::pin(async { None }) };
        let read = registry.send(ReadRest(Arc::clone(client_id), from));
        Box::pin(async move {
            let page = read.await.ok().flatten()?;
            let (next, is_last) = (page.next, page.messages.is_empty());
            Some(RestRead { copy: wire::encode(&rest_copy(&page)), next, is_last })
        })
    }

    fn append(
        &self,
        client_id: &Arc<str>,
        copy: Bytes,
        kind: RestKind,
    ) -> BoxFuture<'static, bool> {
        let page = wire::decode::<RestCopy>(&copy).ok().and_then(rest_of);
        let (Some(registry), Some(page)) = (self.home(client_id), page) else {
            tracing::error!("messages of another node cannot be read");
            return Box::pin(async { false });
        };
        let client_id = Arc::clone(client_id);
        let appended = registry.send(AppendRest {
            client_id,
            page,
            is_last: kind.is_last,
            is_marked: kind.is_marked,
        });
        Box::pin(async move { appended.await.unwrap_or(false) })
    }

    fn give_up_order(&self, client_id: &Arc<str>) {
        if let Some(registry) = self.home(client_id) {
            registry.do_send(GiveUpOrder(Arc::clone(client_id)));
        }
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
