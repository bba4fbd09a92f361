//! Control of live clients: the client's Connection actor handles each request.

use std::{fmt, rc::Rc, sync::Arc};

use actix::{
    Context, Handler, MessageResult, ResponseFuture,
    dev::{MessageResponse, OneshotSender},
};
use tokio::sync::{mpsc, oneshot};

use super::Registry;
use crate::{
    actors::messages::{QueryOnline, QueryOnlineMany},
    control::{
        ChangeSubscriptions, ControlError, Kick, Kicked, OnlineState, Redirect, SelectClients,
        SelectedClients, SelectionPlace, SubscriptionsChanged,
    },
    shard::{
        ClientTurns, SharedShard,
        doors::{CHANGES_AT_A_TIME, ToConnection},
    },
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

/// The answer that a connection will give; dropped if the client has none.
type Asked<T> = Result<oneshot::Receiver<Result<T, ControlError>>, ControlError>;

pub(super) async fn answer_of<T>(asked: Asked<T>) -> Result<T, ControlError> {
    asked?.await.unwrap_or(Err(ControlError::NotOnline))
}

impl Handler<Kick> for Registry {
    type Result = ResponseFuture<Result<Kicked, ControlError>>;

    fn handle(&mut self, message: Kick, _: &mut Self::Context) -> Self::Result {
        let Kick { client_id, options, by } = message;
        let (reply, answer) = oneshot::channel();
        let kick = ToConnection::Kick { options: options.clone(), by, reply };
        let asked = self.clients.send(&client_id, kick).map(|()| answer);
        let (shard, node) = (self.shard.clone(), self.core.node.clone());
        Box::pin(async move {
            let kicked = answer_of(asked).await;
            if !options.ends_session() || kicked != Err(ControlError::NotOnline) {
                return kicked;
            }
            let (stored, is_stored) = oneshot::channel();
            {
                let mut shard = shard.borrow_mut();
                let now = shard.core.clock.now();
                shard.end_absent(&client_id, options.will_request(), now)?;
                shard.tell_when_stored(stored);
                shard.flush();
            }
            let _ = is_stored.await;
            Ok(Kicked::new(node))
        })
    }
}

/// The minimum number of clients in an answer of [`SelectClients`]; fewer if no more exist.
const SELECTED_AT_A_TIME: usize = 500;

impl Handler<SelectClients> for Registry {
    type Result = ResponseFuture<SelectedClients>;

    fn handle(&mut self, message: SelectClients, _: &mut Self::Context) -> Self::Result {
        let (shard, shards) = (self.shard.clone(), self.core.shards().len());
        Box::pin(async move {
            let mut found = SelectedClients::default();
            let mut next = Some(message.from.slot);
            while let Some(from) = next
                && found.client_ids.len() < SELECTED_AT_A_TIME
            {
                let (some, then) = shard.borrow().selected_by(&message, from as usize);
                found.client_ids.extend(some);
                next = then.map(|slot| slot as u32);
                tokio::task::yield_now().await;
            }
            let SelectionPlace { shard, .. } = message.from;
            found.next = match next {
                Some(slot) => Some(SelectionPlace { shard, slot }),
                None if usize::from(shard) + 1 < shards => {
                    Some(SelectionPlace { shard: shard + 1, slot: 0 })
                }
                None => None,
            };
            found
        })
    }
}

impl Handler<ChangeSubscriptions> for Registry {
    type Result = ResponseFuture<Result<SubscriptionsChanged, ControlError>>;

    fn handle(&mut self, message: ChangeSubscriptions, _: &mut Self::Context) -> Self::Result {
        let (clients, node) = (Rc::clone(&self.clients), self.core.node.clone());
        Box::pin(async move {
            let ChangeSubscriptions { client_id, changes } = message;
            let mut reasons = Vec::with_capacity(changes.len());
            for changes in changes.chunks(CHANGES_AT_A_TIME) {
                let (reply, answer) = oneshot::channel();
                let changes = changes.to_vec();
                let asked =
                    clients.send(&client_id, ToConnection::ChangeSubscriptions { changes, reply });
                let (some, is_stored) = answer_of(asked.map(|()| answer)).await?;
                reasons.extend(some);
                let _ = is_stored.await;
            }
            Ok(SubscriptionsChanged::new(node, reasons))
        })
    }
}

impl Handler<Redirect> for Registry {
    type Result = RedirectWalk;

    fn handle(&mut self, message: Redirect, _: &mut Self::Context) -> Self::Result {
        RedirectWalk {
            shard: self.shard.clone(),
            clients: Rc::clone(&self.clients),
            request: message,
        }
    }
}

/// Walks along the clients of a shard, a few at a time, and redirects the chosen ones to another
/// server. Ends early when the caller no longer waits for the answer.
pub struct RedirectWalk {
    shard: SharedShard,
    clients: Rc<ClientTurns>,
    request: Redirect,
}

impl MessageResponse<Registry, Redirect> for RedirectWalk {
    fn handle(self, _: &mut Context<Registry>, reply: Option<OneshotSender<usize>>) {
        actix_rt::spawn(async move {
            let Self { shard, clients, request } = self;
            let to = Arc::new(request.to.clone());
            let by = request.caller.as_ref().and_then(|it| it.identity.username.clone());
            let (redirected, mut answers) = mpsc::unbounded_channel();
            let mut next = Some(0);
            while let Some(from) = next
                && !reply.as_ref().is_some_and(OneshotSender::is_closed)
            {
                let (meant, then) = shard.borrow().meant_by(&request, from);
                next = then;
                for client_id in meant {
                    let (to, by, reply) = (Arc::clone(&to), by.clone(), redirected.clone());
                    // A client with too many waiting requests is neither redirected nor counted.
                    let _ = clients.send(&client_id, ToConnection::Redirect { to, by, reply });
                }
                tokio::task::yield_now().await;
            }
            drop(redirected);
            let mut count = 0;
            while answers.recv().await.is_some() {
                count += 1;
            }
            reply.map(|reply| reply.send(count))
        });
    }
}

impl fmt::Debug for RedirectWalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedirectWalk").field("request", &self.request).finish_non_exhaustive()
    }
}
