//! Requests about settings of clients: of live connections, and sticky ones of clients and users.

use std::{future::ready, sync::Arc};

use actix::{Addr, Handler, Message, ResponseFuture};
use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::{Registry, control::answer_of};
use crate::{
    actors::messages::FollowUserSettings,
    control::{
        ChangeSettings, ControlError, ListSettings, QuerySettings, RemoveSettings, SettingsChanged,
        SettingsOf, StickySettings,
    },
    shard::{SettingsStep, StickyBounds, common::Core, doors::ToConnection},
};

type ChangeOutcome = Result<SettingsChanged, ControlError>;
type RemoveOutcome = Result<Option<StickySettings>, ControlError>;

/// Stores a change of sticky settings; returns the former and the new ones once these are committed.
async fn store(core: &Core, request: &ChangeSettings) -> Result<SettingsStep, ControlError> {
    let ChangeSettings { of, change, by, is_within_share, .. } = request;
    let bounds = StickyBounds::of(&core.limits_now(), *is_within_share);
    core.sticky.change(of, (change, by.as_deref()), core.clock.now(), &bounds).await
}

/// Returns the result of a change that this node has made.
fn changed_by(core: &Core, step: SettingsStep) -> SettingsChanged {
    SettingsChanged::new(core.node.clone(), step.after).after(step.before)
}

impl Handler<ChangeSettings> for Registry {
    type Result = ResponseFuture<ChangeOutcome>;

    fn handle(&mut self, message: ChangeSettings, _: &mut Self::Context) -> Self::Result {
        let (core, clients) = (self.core.clone(), self.clients.clone());
        let SettingsOf::Client(client_id) = message.of.clone() else {
            let store = async move { Ok(changed_by(&core, store(&core, &message).await?)) };
            return Box::pin(store);
        };
        let ask = move |change| {
            let (reply, answer) = oneshot::channel();
            let asked = clients.send(&client_id, ToConnection::ChangeSettings { change, reply });
            answer_of(asked.map(|()| answer))
        };
        Box::pin(async move {
            if !message.is_sticky {
                return Ok(changed_by(&core, ask(message.change).await?));
            }
            let stored = store(&core, &message).await?;
            // Whatever the connection can take of it, the settings are stored.
            Ok(changed_by(&core, ask(message.change).await.unwrap_or(stored)))
        })
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
        let core = self.core.clone();
        Box::pin(async move {
            let OfUser { change, registries } = message;
            let stored = store(&core, &change).await?;
            have_followed(change.of.name(), registries).await;
            Ok(changed_by(&core, stored))
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
        let shard = self.shard.clone();
        Box::pin(async move {
            let mut next = Some(0);
            while let Some(from) = next {
                let mut shard = shard.borrow_mut();
                let now = shard.core.clock.now();
                next = shard.follow_user_settings(&message.username, from, now);
                drop(shard);
                tokio::task::yield_now().await;
            }
        })
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
