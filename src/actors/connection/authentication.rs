//! The connection awaits the exchange of a client that authenticates again.
//!
//! The shard decides what to tell the exchange and what follows from its answer. The connection
//! does the waiting, so that the wait ends with the connection.

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::time::Instant;

use super::Connection;
use crate::{
    auth::{AuthenticationError, BoundedExchange, PrepareRequest, Step, prepare},
    shard::{Presence, connect::TakeStep, not_authenticated},
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
                let by = Instant::now() + core.connect_time();
                let client_id = Some(&*client_id);
                let request = PrepareRequest { identity, client_id, peer, listener: &listener };
                match prepare(&*core.authorizer, request, by).await {
                    Ok(prepared) => identity.prepared = prepared,
                    Err(error) => {
                        tracing::debug!(%error, "client cannot authenticate again");
                        step = Err(AuthenticationError::Unavailable);
                    }
                }
            }
            (exchange, step)
        };
        ctx.spawn(step.into_actor(self).map(|(exchange, step), connection, ctx| {
            connection.step_taken(exchange, step, ctx);
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
