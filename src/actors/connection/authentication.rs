//! The connection awaits what the exchange of a client that authenticates again has to say.
//!
//! The shard decides what the exchange is told and what comes of it; the waiting is done here,
//! where it ends with the connection.

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};

use super::Connection;
use crate::{
    actors::{
        messages::TakeStep,
        shard::{Shard, not_authenticated},
    },
    auth::{AuthenticationError, BoundedExchange, Step},
};

impl Handler<TakeStep> for Connection {
    type Result = ();

    fn handle(&mut self, message: TakeStep, ctx: &mut Self::Context) {
        let TakeStep { mut exchange, data, is_first } = message;
        let mut shard = self.shard.borrow_mut();
        if shard.linked(self.slot, self.link).is_none() {
            return; // It is over for this connection.
        }
        if is_first {
            self.time_authentication(&mut shard, ctx);
        }
        let step = async move {
            let step = exchange.step(data.as_deref()).await;
            (exchange, step)
        };
        ctx.spawn(step.into_actor(self).map(|(exchange, step), connection, ctx| {
            connection.step_taken(exchange, step, ctx);
        }));
    }
}

impl Connection {
    /// Ends the connection unless the exchange ends in the time that a client has to connect.
    fn time_authentication(&self, shard: &mut Shard, ctx: &mut Context<Self>) {
        let timeout = ctx.run_later(shard.core.connect_time(), |connection, ctx| {
            let shard = connection.shard.clone();
            let mut shard = shard.borrow_mut();
            let is_there = shard.linked(connection.slot, connection.link).is_some();
            if is_there && shard.is_held(connection.slot) {
                // It may have answered, and has not been heard.
                connection.time_authentication(&mut shard, ctx);
                return;
            }
            drop(shard);
            tracing::debug!("client took too long to authenticate again");
            connection.depart(not_authenticated(AuthenticationError::NotAllowed), ctx);
        });
        shard.note_authentication_timeout(self.slot, timeout);
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
            return; // It is over for this connection.
        }
        match shard.step_taken(self.slot, exchange, step) {
            Ok(None) => {}
            Ok(Some(timeout)) => {
                ctx.cancel_future(timeout);
            }
            Err(departure) => {
                drop(shard);
                self.depart(departure, ctx);
            }
        }
    }
}
