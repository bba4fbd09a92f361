//! Control of live clients: the client's Connection actor handles each request.

use std::{fmt, rc::Rc};

use actix::{
    Context, Handler, MessageResult, ResponseFuture,
    dev::{MessageResponse, OneshotSender},
};

use super::Registry;
use crate::{
    actors::messages::{QueryOnline, QueryOnlineMany},
    control::{
        ChangeSubscriptions, ControlError, Kick, Kicked, OnlineState, Redirect, SelectClients,
        SelectedClients, SubscriptionsChanged,
    },
    shard::{ClientTurns, calls::clients},
};

impl Handler<QueryOnline> for Registry {
    type Result = MessageResult<QueryOnline>;

    fn handle(&mut self, message: QueryOnline, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.shard.borrow().is_online(&message.client_id))
    }
}

impl Handler<QueryOnlineMany> for Registry {
    type Result = MessageResult<QueryOnlineMany>;

    fn handle(&mut self, message: QueryOnlineMany, _: &mut Self::Context) -> Self::Result {
        let shard = self.shard.borrow();
        let node_of = |id: &String| shard.is_online(id).then(|| self.core.node.clone());
        MessageResult(message.client_ids.iter().map(|id| OnlineState::of(node_of(id))).collect())
    }
}

impl Handler<Kick> for Registry {
    type Result = ResponseFuture<Result<Kicked, ControlError>>;

    fn handle(&mut self, message: Kick, _: &mut Self::Context) -> Self::Result {
        Box::pin(clients::kick(&self.clients, message))
    }
}

impl Handler<SelectClients> for Registry {
    type Result = ResponseFuture<SelectedClients>;

    fn handle(&mut self, message: SelectClients, _: &mut Self::Context) -> Self::Result {
        Box::pin(clients::select(Rc::clone(&self.clients), message))
    }
}

impl Handler<ChangeSubscriptions> for Registry {
    type Result = ResponseFuture<Result<SubscriptionsChanged, ControlError>>;

    fn handle(&mut self, message: ChangeSubscriptions, _: &mut Self::Context) -> Self::Result {
        Box::pin(clients::change_subscriptions(Rc::clone(&self.clients), message))
    }
}

impl Handler<Redirect> for Registry {
    type Result = RedirectWalk;

    fn handle(&mut self, message: Redirect, _: &mut Self::Context) -> Self::Result {
        RedirectWalk { clients: Rc::clone(&self.clients), request: message }
    }
}

/// Walks along the clients of a shard and redirects the chosen ones to another server. Ends early
/// when the caller no longer waits for the answer.
pub struct RedirectWalk {
    clients: Rc<ClientTurns>,
    request: Redirect,
}

impl MessageResponse<Registry, Redirect> for RedirectWalk {
    fn handle(self, _: &mut Context<Registry>, reply: Option<OneshotSender<usize>>) {
        actix_rt::spawn(async move {
            let is_wanted = || !reply.as_ref().is_some_and(OneshotSender::is_closed);
            let count = clients::redirect(&self.clients, self.request, is_wanted).await;
            reply.map(|reply| reply.send(count))
        });
    }
}

impl fmt::Debug for RedirectWalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedirectWalk").field("request", &self.request).finish_non_exhaustive()
    }
}
