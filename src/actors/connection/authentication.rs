//! The connection awaits the exchange of a client that authenticates again, and the source that renews
//! an identity.
//!
//! The stream gives the futures and handles their results. The connection does the waiting, so that the
//! wait ends with the connection.

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::Connection;
use crate::shard::{connect::TakeStep, stream::StepResult};

impl Connection {
    /// Has an exchange take its next step.
    pub(super) fn take_step(&mut self, step: TakeStep, ctx: &mut Context<Self>) {
        let is_first = step.is_first;
        let step = self.stream.begin_step(&mut self.shard.borrow_mut(), step);
        let Some(step) = step else { return };
        if is_first {
            self.time_authentication(ctx);
        }
        ctx.spawn(step.into_actor(self).map(|result, connection, ctx| {
            connection.step_taken(result, ctx);
        }));
    }

    fn step_taken(&mut self, result: StepResult, ctx: &mut Context<Self>) {
        let taken = self.stream.step_taken(&mut self.shard.borrow_mut(), result);
        match taken {
            Ok(false) => {}
            Ok(true) => {
                self.authentication_timeout.take().map(|timeout| ctx.cancel_future(timeout));
            }
            Err(departure) => self.depart(departure, ctx),
        }
    }

    /// Has the source of the client's identity asked again.
    pub(super) fn renew_identity(&self, ctx: &mut Context<Self>) {
        let renewal = self.stream.begin_renewal(&mut self.shard.borrow_mut());
        let Some(renewal) = renewal else { return };
        ctx.spawn(renewal.into_actor(self).map(|result, connection, ctx| {
            let renewed =
                connection.stream.identity_renewed(&mut connection.shard.borrow_mut(), result);
            if let Err(departure) = renewed {
                connection.depart(departure, ctx);
            }
        }));
    }

    /// Ends the connection unless the exchange ends within the time that a client has to connect.
    fn time_authentication(&mut self, ctx: &mut Context<Self>) {
        let time_max = self.shard.borrow().core.connect_time();
        let timeout = ctx.run_later(time_max, |connection, ctx| {
            let departure = connection.stream.exchange_overdue(&mut connection.shard.borrow_mut());
            match departure {
                None => connection.time_authentication(ctx),
                Some(departure) => connection.depart(departure, ctx),
            }
        });
        self.authentication_timeout = Some(timeout);
    }
}
