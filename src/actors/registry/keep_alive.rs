//! Requests about Keep Alives: those of live connections, and overrides for later ones.

use std::{future::ready, rc::Rc};

use actix::{Handler, ResponseFuture};

use super::Registry;
use crate::{
    actors::messages::SetKeepAliveMany,
    control::{
        ControlError, KeepAliveChanged, KeepAliveOverride, ListOverrides, QueryOverride,
        RemoveOverride, SetKeepAlive,
    },
    shard::calls::keep_alive,
};

impl Handler<SetKeepAlive> for Registry {
    type Result = ResponseFuture<Result<KeepAliveChanged, ControlError>>;

    fn handle(&mut self, message: SetKeepAlive, _: &mut Self::Context) -> Self::Result {
        keep_alive::set_keep_alive(&self.clients, message)
    }
}

impl Handler<SetKeepAliveMany> for Registry {
    type Result = ResponseFuture<Vec<Result<KeepAliveChanged, ControlError>>>;

    fn handle(&mut self, message: SetKeepAliveMany, _: &mut Self::Context) -> Self::Result {
        keep_alive::set_each_keep_alive(&self.clients, message.requests)
    }
}

impl Handler<QueryOverride> for Registry {
    type Result = ResponseFuture<Option<KeepAliveOverride>>;

    fn handle(&mut self, message: QueryOverride, _: &mut Self::Context) -> Self::Result {
        Box::pin(ready(self.core.overrides.find(&message.client_id)))
    }
}

impl Handler<RemoveOverride> for Registry {
    type Result = ResponseFuture<Result<Option<KeepAliveOverride>, ControlError>>;

    fn handle(&mut self, message: RemoveOverride, _: &mut Self::Context) -> Self::Result {
        Box::pin(keep_alive::remove_override(Rc::clone(&self.clients), message))
    }
}

impl Handler<ListOverrides> for Registry {
    type Result = ResponseFuture<Result<Vec<KeepAliveOverride>, ControlError>>;

    fn handle(&mut self, message: ListOverrides, _: &mut Self::Context) -> Self::Result {
        let core = self.core.clone();
        Box::pin(async move { core.overrides.list(&message).await })
    }
}
