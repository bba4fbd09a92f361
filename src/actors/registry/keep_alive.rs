//! Requests about Keep Alives: those of live connections, and overrides for later ones.

use std::{rc::Rc, sync::Arc, vec};

use actix::{Handler, ResponseFuture};
use futures_util::future::{LocalBoxFuture, join_all};
use tokio::sync::oneshot;

use super::{Registry, control::answer_of};
use crate::{
    actors::messages::SetKeepAliveMany,
    control::{
        ControlError, KeepAliveChanged, KeepAliveOverride, ListOverrides, QueryOverride,
        RemoveOverride, SetKeepAlive,
    },
    shard::{ClientTurns, Core, StickyBounds, doors::ToConnection, end_of},
};

/// Connections that are asked at the same time. Each is a task of its own, and all of them run before the
/// tasks of other clients that become ready meanwhile.
const CONNECTIONS_AT_A_TIME: usize = 32;

type KeepAliveOutcome = Result<KeepAliveChanged, ControlError>;

/// The answer that a connection will give.
type KeepAliveAsked = Result<oneshot::Receiver<KeepAliveOutcome>, ControlError>;

/// Asks the connection of a client, behind what waits for that client.
fn ask(
    clients: &ClientTurns,
    client_id: &str,
    message: impl FnOnce(oneshot::Sender<KeepAliveOutcome>) -> ToConnection,
) -> KeepAliveAsked {
    let (reply, answer) = oneshot::channel();
    clients.send(client_id, message(reply)).map(|()| answer)
}

fn ask_to_set(clients: &ClientTurns, request: SetKeepAlive) -> KeepAliveAsked {
    let client_id = request.client_id.clone();
    ask(clients, &client_id, |reply| ToConnection::SetKeepAlive { request, reply })
}

/// Stores an override and puts it into force. First asks the connection, if there is one, so that a
/// call that fails stores nothing.
async fn set_override(
    (core, clients): (Arc<Core>, Rc<ClientTurns>),
    seen: KeepAliveAsked,
    request: SetKeepAlive,
) -> KeepAliveOutcome {
    let seen = match answer_of(seen).await {
        Ok(result) => Some(result),
        Err(ControlError::NotOnline) => None,
        Err(error) => return Err(error),
    };
    let bounds = StickyBounds::of(&core.limits_now(), request.is_within_share);
    bounds.check_client_id(&request.client_id)?;
    let SetKeepAlive { client_id, interval_secs, by, is_dry_run, ttl_secs, .. } = request;
    let former = core.overrides.find(&client_id).map_or(0, |found| found.interval_secs);
    let of_absent = || KeepAliveChanged::new(core.node.clone(), former, interval_secs);
    let result = seen.unwrap_or_else(of_absent);
    if is_dry_run {
        return Ok(result);
    }
    let now = core.clock.now();
    let mut wanted = KeepAliveOverride::new(client_id, interval_secs, now);
    (wanted.by, wanted.expires_at) = (by.clone(), end_of(ttl_secs, now));
    core.overrides.set(&wanted, &bounds).await?;
    let follow = |reply| ToConnection::FollowOverride { by, reply };
    let followed = answer_of(ask(&clients, &wanted.client_id, follow)).await;
    // Whatever happened to the connection meanwhile, the override is stored.
    Ok(followed.map_or(result, |followed| KeepAliveChanged { new_secs: interval_secs, ..followed }))
}

/// Asks the next few connections.
fn ask_some(clients: &ClientTurns, left: &mut vec::IntoIter<SetKeepAlive>) -> Vec<KeepAliveAsked> {
    let some = left.by_ref().take(CONNECTIONS_AT_A_TIME);
    some.map(|request| ask_to_set(clients, request)).collect()
}

impl Registry {
    fn set_override(
        &self,
        request: SetKeepAlive,
    ) -> impl Future<Output = KeepAliveOutcome> + use<> {
        let seen = match request.interval_secs {
            0 => Err(ControlError::InvalidInterval),
            _ => ask_to_set(&self.clients, SetKeepAlive { is_dry_run: true, ..request.clone() }),
        };
        set_override((self.core.clone(), Rc::clone(&self.clients)), seen, request)
    }
}

impl Registry {
    fn set_keep_alive(&self, request: SetKeepAlive) -> LocalBoxFuture<'static, KeepAliveOutcome> {
        if request.is_sticky {
            return Box::pin(self.set_override(request));
        }
        Box::pin(answer_of(ask_to_set(&self.clients, request)))
    }
}

impl Handler<SetKeepAlive> for Registry {
    type Result = ResponseFuture<KeepAliveOutcome>;

    fn handle(&mut self, message: SetKeepAlive, _: &mut Self::Context) -> Self::Result {
        self.set_keep_alive(message)
    }
}

impl Handler<SetKeepAliveMany> for Registry {
    type Result = ResponseFuture<Vec<KeepAliveOutcome>>;

    fn handle(&mut self, message: SetKeepAliveMany, _: &mut Self::Context) -> Self::Result {
        if message.requests.iter().any(|request| request.is_sticky) {
            // Together, so that the store commits them together.
            let set = message.requests.into_iter();
            let set = set.map(|request| self.set_keep_alive(request));
            return Box::pin(join_all(set.collect::<Vec<_>>()));
        }
        let clients = Rc::clone(&self.clients);
        let mut left = message.requests.into_iter();
        let mut answers = Vec::with_capacity(left.len());
        // The first immediately: a connection is reached in the order of the requests.
        let mut asked = ask_some(&clients, &mut left);
        Box::pin(async move {
            while !asked.is_empty() {
                for one in asked {
                    answers.push(answer_of(one).await);
                }
                asked = ask_some(&clients, &mut left);
            }
            answers
        })
    }
}

impl Handler<QueryOverride> for Registry {
    type Result = ResponseFuture<Option<KeepAliveOverride>>;

    fn handle(&mut self, message: QueryOverride, _: &mut Self::Context) -> Self::Result {
        let found = self.core.overrides.find(&message.client_id);
        Box::pin(std::future::ready(found))
    }
}

impl Handler<RemoveOverride> for Registry {
    type Result = ResponseFuture<Result<Option<KeepAliveOverride>, ControlError>>;

    fn handle(&mut self, message: RemoveOverride, _: &mut Self::Context) -> Self::Result {
        let (core, clients) = (self.core.clone(), Rc::clone(&self.clients));
        Box::pin(async move {
            let RemoveOverride { client_id, by } = message;
            let former = core.overrides.remove(&client_id).await?;
            let follow = |reply| ToConnection::FollowOverride { by, reply };
            let _ = answer_of(ask(&clients, &client_id, follow)).await;
            Ok(former)
        })
    }
}

impl Handler<ListOverrides> for Registry {
    type Result = ResponseFuture<Result<Vec<KeepAliveOverride>, ControlError>>;

    fn handle(&mut self, message: ListOverrides, _: &mut Self::Context) -> Self::Result {
        let core = self.core.clone();
        Box::pin(async move { core.overrides.list(&message).await })
    }
}
