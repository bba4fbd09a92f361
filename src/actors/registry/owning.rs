//! Messages about clients that another node of the cluster has claimed, and about sessions that come from other nodes.

use std::{rc::Rc, sync::Arc};

use actix::{Handler, Message, ResponseFuture};

use super::Registry;
use crate::shard::{
    calls::owning,
    handover::{MovingSession, Offered, RestPage},
};

/// Ends the connection of a client of this registry's shard for another node. Its session stays if it can be handed over,
/// otherwise it ends.
#[derive(Message)]
#[rtype(result = "Offered")]
pub(crate) struct OfferClient(pub(crate) Arc<str>);

/// Stores a session that has come from another node, in the place of one that lies here; returns whether it is stored.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct AdoptSession(pub(crate) Box<MovingSession>);

/// Ends the session of an absent client.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DropSession {
    pub(crate) client_id: Arc<str>,
    /// Whether another node has it, with its Will and its messages.
    pub(crate) has_moved: bool,
}

/// Asks for messages of an absent client from this place on; `None` if they cannot be read.
#[derive(Message)]
#[rtype(result = "Option<RestPage>")]
pub(crate) struct ReadRest(pub(crate) Arc<str>, pub(crate) u64);

/// Adds messages of the former node to a session; returns whether they are stored: the session is here.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct AppendRest {
    pub(crate) client_id: Arc<str>,
    pub(crate) page: RestPage,
    /// Whether the former node has no more.
    pub(crate) is_last: bool,
    /// Whether the session must be the one that has come from there.
    pub(crate) is_marked: bool,
}

/// Delivers what a session holds for the rest of its former node.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct GiveUpOrder(pub(crate) Arc<str>);

/// Ends all connections of this registry's shard.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct FenceShard;

/// Asks for the clients of this registry's shard whose sessions outlive their connections.
#[derive(Message)]
#[rtype(result = "Vec<Arc<str>>")]
pub(crate) struct ListLasting;

impl Handler<OfferClient> for Registry {
    type Result = ResponseFuture<Offered>;

    fn handle(&mut self, OfferClient(id): OfferClient, _: &mut Self::Context) -> Self::Result {
        Box::pin(owning::offer(&self.clients, id))
    }
}

impl Handler<AdoptSession> for Registry {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, AdoptSession(moved): AdoptSession, _: &mut Self::Context) -> Self::Result {
        Box::pin(owning::adopt(Rc::clone(&self.clients), *moved))
    }
}

impl Handler<DropSession> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: DropSession, _: &mut Self::Context) -> Self::Result {
        let DropSession { client_id, has_moved } = message;
        Box::pin(owning::drop_session(Rc::clone(&self.clients), client_id, has_moved))
    }
}

impl Handler<ReadRest> for Registry {
    type Result = ResponseFuture<Option<RestPage>>;

    fn handle(&mut self, ReadRest(id, from): ReadRest, _: &mut Self::Context) -> Self::Result {
        Box::pin(owning::rest(Rc::clone(&self.clients), id, from))
    }
}

impl Handler<AppendRest> for Registry {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, message: AppendRest, _: &mut Self::Context) -> Self::Result {
        let AppendRest { client_id, page, is_last, is_marked } = message;
        let kind = (is_last, is_marked);
        Box::pin(owning::append(Rc::clone(&self.clients), client_id, page, kind))
    }
}

impl Handler<GiveUpOrder> for Registry {
    type Result = ();

    fn handle(&mut self, GiveUpOrder(client_id): GiveUpOrder, _: &mut Self::Context) {
        owning::give_up_order(&self.clients, &client_id);
    }
}

impl Handler<FenceShard> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: FenceShard, _: &mut Self::Context) -> Self::Result {
        Box::pin(owning::fence(Rc::clone(&self.clients)))
    }
}

impl Handler<ListLasting> for Registry {
    type Result = ResponseFuture<Vec<Arc<str>>>;

    fn handle(&mut self, _: ListLasting, _: &mut Self::Context) -> Self::Result {
        Box::pin(owning::lasting(Rc::clone(&self.clients)))
    }
}
