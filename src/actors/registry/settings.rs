//! Requests about settings of clients: of live connections, and sticky ones of clients and users.

use std::{future::ready, rc::Rc, sync::Arc};

use actix::{Addr, Handler, Message, ResponseFuture};
use futures_util::future::join_all;

use super::Registry;
use crate::{
    actors::messages::FollowUserSettings,
    control::{
        ChangeSettings, ControlError, ListSettings, QuerySettings, RemoveSettings, SettingsChanged,
        StickySettings,
    },
    shard::calls::settings,
};

type ChangeOutcome = Result<SettingsChanged, ControlError>;
type RemoveOutcome = Result<Option<StickySettings>, ControlError>;

impl Handler<ChangeSettings> for Registry {
    type Result = ResponseFuture<ChangeOutcome>;

    fn handle(&mut self, message: ChangeSettings, _: &mut Self::Context) -> Self::Result {
        Box::pin(settings::change(Rc::clone(&self.clients), message))
    }
}

/// Makes a change of the sticky settings of a user, and then has all its connections follow it. The
/// registry goes on if the caller no longer waits.
pub(crate) struct OfUser<M> {
    /// The change.
    pub(crate) change: M,
    /// The registries of all shards.
    pub(crate) registries: Vec<Addr<Registry>>,
}

impl<M: Message> Message for OfUser<M> {
    type Result = M::Result;
}

impl Handler<OfUser<ChangeSettings>> for Registry {
    type Result = ResponseFuture<ChangeOutcome>;

    fn handle(&mut self, message: OfUser<ChangeSettings>, _: &mut Self::Context) -> Self::Result {
        let clients = Rc::clone(&self.clients);
        Box::pin(async move {
            let OfUser { change, registries } = message;
            let username = change.of.name().clone();
            let changed = settings::change(clients, change).await?;
            have_followed(&username, registries).await;
            Ok(changed)
        })
    }
}

impl Handler<OfUser<RemoveSettings>> for Registry {
    type Result = ResponseFuture<RemoveOutcome>;

    fn handle(&mut self, message: OfUser<RemoveSettings>, _: &mut Self::Context) -> Self::Result {
        let core = self.core.clone();
        Box::pin(async move {
            let OfUser { change: RemoveSettings { of }, registries } = message;
            let former = core.sticky.remove(&of).await?;
            have_followed(of.name(), registries).await;
            Ok(former)
        })
    }
}

/// Waits until the connections of a user follow its settings. A client that connects meanwhile begins
/// with those that are stored by now.
async fn have_followed(username: &Arc<str>, registries: Vec<Addr<Registry>>) {
    let follow =
        |registry: Addr<Registry>| registry.send(FollowUserSettings { username: username.clone() });
    join_all(registries.into_iter().map(follow)).await; // A registry that is gone has no connections.
}

impl Handler<FollowUserSettings> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: FollowUserSettings, _: &mut Self::Context) -> Self::Result {
        Box::pin(settings::follow_user(self.shard.clone(), message.username))
    }
}

impl Handler<QuerySettings> for Registry {
    type Result = ResponseFuture<Option<StickySettings>>;

    fn handle(&mut self, message: QuerySettings, _: &mut Self::Context) -> Self::Result {
        Box::pin(ready(self.core.sticky.find(&message.of)))
    }
}

impl Handler<RemoveSettings> for Registry {
    type Result = ResponseFuture<RemoveOutcome>;

    fn handle(&mut self, message: RemoveSettings, _: &mut Self::Context) -> Self::Result {
        let core = self.core.clone();
        Box::pin(async move { core.sticky.remove(&message.of).await })
    }
}

impl Handler<ListSettings> for Registry {
    type Result = ResponseFuture<Result<Vec<StickySettings>, ControlError>>;

    fn handle(&mut self, message: ListSettings, _: &mut Self::Context) -> Self::Result {
        let core = self.core.clone();
        Box::pin(async move { core.sticky.list(&message).await })
    }
}
