//! The connection awaits the exchange of a client that authenticates again, and the source that renews
//! an identity.
//!
//! The shard decides what to tell the exchange and what follows from its answer. The connection
//! does the waiting, so that the wait ends with the connection.

use std::net::SocketAddr;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::time::Instant;

use super::Connection;
use crate::{
    auth::{AuthenticationError, BoundedExchange, Identity, PrepareRequest, Step, prepare},
    shard::{Core, Presence, connect::TakeStep, not_authenticated},
};

impl Connection {
    /// Has an exchange take its next step, and tells the shard the result.
    pub(super) fn take_step(&mut self, step: TakeStep, ctx: &mut Context<Self>) {
        let TakeStep { mut exchange, data, is_first } = step;
        let mut shard = self.shard.borrow_mut();
        let Some(found) = shard.linked(self.slot, self.link) else {
            return; // This connection has ended.
        };
        let client_id = found.session.client_id().clone();
        let Presence { peer, listener, .. } = found.presence.clone();
        let core = shard.core.clone();
        drop(shard);
        if is_first {
            self.time_authentication(ctx);
        }
        let step = async move {
            let mut step = exchange.step(data.as_deref()).await;
            if let Ok(Step::Done { identity, .. }) = &mut step {
                let about = (&*client_id, peer, &*listener);
                if let Err(error) = prepare_for(&core, identity, about).await {
                    step = Err(error);
                }
            }
            (exchange, step)
        };
        ctx.spawn(step.into_actor(self).map(|(exchange, step), connection, ctx| {
            connection.step_taken(exchange, step, ctx);
        }));
    }

    /// Has the source of the client's identity asked again, and tells the shard the result.
    pub(super) fn renew_identity(&mut self, ctx: &mut Context<Self>) {
        let mut shard = self.shard.borrow_mut();
        let Some((by, proven)) = shard.begin_renewal(self.slot, self.link) else { return };
        let Some(found) = shard.linked(self.slot, self.link) else { return };
        let client_id = found.session.client_id().clone();
        let Presence { peer, listener, .. } = found.presence.clone();
        let core = shard.core.clone();
        drop(shard);
        let renew = async move {
            let mut identity = by.renew().await?;
            prepare_for(&core, &mut identity, (&client_id, peer, &listener)).await?;
            Ok(identity)
        };
        ctx.spawn(renew.into_actor(self).map(|renewed, connection, ctx| {
            let shard = connection.shard.clone();
            let mut shard = shard.borrow_mut();
            if shard.linked(connection.slot, connection.link).is_none() {
                return; // This connection has ended.
            }
            if let Err(departure) = shard.identity_renewed(connection.slot, renewed, proven) {
                drop(shard);
                connection.depart(departure, ctx);
            }
        }));
    }

    /// Ends the connection unless the exchange ends within the time that a client has to connect.
    fn time_authentication(&mut self, ctx: &mut Context<Self>) {
        let time_max = self.shard.borrow().core.connect_time();
        let timeout = ctx.run_later(time_max, |connection, ctx| {
            let is_held = connection.shard.borrow().is_held(connection.slot);
            if is_held && connection.is_linked() {
                // The client may have answered, and the answer has not been read.
                connection.time_authentication(ctx);
                return;
            }
            tracing::debug!("client took too long to authenticate again");
            connection.depart(not_authenticated(AuthenticationError::NotAllowed), ctx);
        });
        self.authentication_timeout = Some(timeout);
    }

    fn step_taken(
        &mut self,
        exchange: BoundedExchange,
        step: Result<Step, AuthenticationError>,
        ctx: &mut Context<Self>,
    ) {
        let shard = self.shard.clone();
        let mut shard = shard.borrow_mut();
        if shard.linked(self.slot, self.link).is_none() {
            return; // This connection has ended.
        }
        match shard.step_taken(self.slot, exchange, step) {
            Ok(false) => {}
            Ok(true) => {
                self.authentication_timeout.take().map(|timeout| ctx.cancel_future(timeout));
            }
            Err(departure) => {
                drop(shard);
                self.depart(departure, ctx);
            }
        }
    }
}

/// Has the authorizer load what it needs for the new identity of a client.
async fn prepare_for(
    core: &Core,
    identity: &mut Identity,
    (client_id, peer, listener): (&str, SocketAddr, &str),
) -> Result<(), AuthenticationError> {
    let by = Instant::now() + core.connect_time();
    let request = PrepareRequest { identity, client_id: Some(client_id), peer, listener };
    let prepared = prepare(&*core.authorizer, request, by).await;
    identity.prepared = prepared.map_err(|error| {
        tracing::debug!(%error, "client cannot authenticate again");
        AuthenticationError::Unavailable
    })?;
    Ok(())
}
