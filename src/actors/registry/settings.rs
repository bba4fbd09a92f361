//! Requests about settings of clients: of live connections, and sticky ones.

use std::future::ready;

use actix::{Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::{Registry, control::answer_of};
use crate::{
    control::{
        ChangeSettings, ClientSettings, ControlError, ListSettings, QuerySettings, RemoveSettings,
        StickySettings,
    },
    shard::doors::ToConnection,
};

impl Handler<ChangeSettings> for Registry {
    type Result = ResponseFuture<Result<ClientSettings, ControlError>>;

    fn handle(&mut self, message: ChangeSettings, _: &mut Self::Context) -> Self::Result {
        let ChangeSettings { client_id, change, is_sticky, by } = message;
        let (core, clients) = (self.core.clone(), self.clients.clone());
        let ask = move |client_id: &str, change| {
            let (reply, answer) = oneshot::channel();
            let asked = clients.send(client_id, ToConnection::ChangeSettings { change, reply });
            answer_of(asked.map(|()| answer))
        };
        if !is_sticky {
            return Box::pin(ask(&client_id, change));
        }
        Box::pin(async move {
            let sticky_max = core.limits_now().keep_alive_overrides_max as usize;
            let wanted = (&change, by.as_deref());
            let stored = core.sticky.change(&client_id, wanted, core.clock.now(), sticky_max);
            let stored = stored.await?;
            // Whatever the connection can take of it, the settings are stored.
            Ok(ask(&client_id, change).await.unwrap_or(stored))
        })
    }
}

impl Handler<QuerySettings> for Registry {
    type Result = ResponseFuture<Option<StickySettings>>;

    fn handle(&mut self, message: QuerySettings, _: &mut Self::Context) -> Self::Result {
        Box::pin(ready(self.core.sticky.find(&message.client_id)))
    }
}

impl Handler<RemoveSettings> for Registry {
    type Result = ResponseFuture<Result<bool, ControlError>>;

    fn handle(&mut self, message: RemoveSettings, _: &mut Self::Context) -> Self::Result {
        let core = self.core.clone();
        Box::pin(async move { core.sticky.remove(&message.client_id).await })
    }
}

impl Handler<ListSettings> for Registry {
    type Result = ResponseFuture<Result<Vec<StickySettings>, ControlError>>;

    fn handle(&mut self, message: ListSettings, _: &mut Self::Context) -> Self::Result {
        let core = self.core.clone();
        Box::pin(async move { core.sticky.list(&message).await })
    }
}
