//! Questions about many clients of a shard, which are answered in portions.

use std::fmt;

use actix::{
    Context, Handler, Message, MessageResult, ResponseFuture,
    dev::{MessageResponse, OneshotSender},
};

use super::Registry;
use crate::{
    actors::messages::QueryClient,
    control::{
        ClearQueue, ClearRetained, ClientSession, ControlError, CountClients, FindBusiest,
        FindReceivers, ListClients, ListHistory, ListKeepAliveAdvice, ListQueue, ListSubscriptions,
        QueuePage, SubscriptionPage,
    },
    shard::{
        SharedShard,
        calls::clients,
        views::{AnsweredInPortions, contents},
    },
};

impl Handler<ListClients> for Registry {
    type Result = PortionedReply<ListClients>;

    fn handle(&mut self, message: ListClients, _: &mut Self::Context) -> Self::Result {
        self.in_portions(message)
    }
}

impl Handler<CountClients> for Registry {
    type Result = PortionedReply<CountClients>;

    fn handle(&mut self, message: CountClients, _: &mut Self::Context) -> Self::Result {
        self.in_portions(message)
    }
}

impl Handler<QueryClient> for Registry {
    type Result = ResponseFuture<Option<ClientSession>>;

    fn handle(&mut self, message: QueryClient, _: &mut Self::Context) -> Self::Result {
        Box::pin(clients::describe(&self.shard, &message.client_id))
    }
}

impl Handler<ListHistory> for Registry {
    type Result = MessageResult<ListHistory>;

    fn handle(&mut self, message: ListHistory, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.shard.borrow().list_history(&message))
    }
}

impl Handler<ListKeepAliveAdvice> for Registry {
    type Result = MessageResult<ListKeepAliveAdvice>;

    fn handle(&mut self, message: ListKeepAliveAdvice, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.core.silences.page(&message))
    }
}

impl Handler<ListSubscriptions> for Registry {
    type Result = ResponseFuture<Option<SubscriptionPage>>;

    fn handle(&mut self, message: ListSubscriptions, _: &mut Self::Context) -> Self::Result {
        let shard = self.shard.clone();
        Box::pin(async move { contents::list_subscriptions(&shard, message).await })
    }
}

impl Handler<ListQueue> for Registry {
    type Result = ResponseFuture<Result<Option<QueuePage>, ControlError>>;

    fn handle(&mut self, message: ListQueue, _: &mut Self::Context) -> Self::Result {
        let shard = self.shard.clone();
        Box::pin(async move { contents::list_queue(&shard, message).await })
    }
}

impl Handler<ClearQueue> for Registry {
    type Result = ResponseFuture<Result<Option<u64>, ControlError>>;

    fn handle(&mut self, message: ClearQueue, _: &mut Self::Context) -> Self::Result {
        let shard = self.shard.clone();
        Box::pin(async move { contents::clear_queue(&shard, &message.client_id).await })
    }
}

impl Handler<FindReceivers> for Registry {
    type Result = PortionedReply<FindReceivers>;

    fn handle(&mut self, message: FindReceivers, _: &mut Self::Context) -> Self::Result {
        self.in_portions(message)
    }
}

impl Handler<FindBusiest> for Registry {
    type Result = PortionedReply<FindBusiest>;

    fn handle(&mut self, message: FindBusiest, _: &mut Self::Context) -> Self::Result {
        self.in_portions(message)
    }
}

impl Handler<ClearRetained> for Registry {
    type Result = ResponseFuture<Result<bool, ControlError>>;

    fn handle(&mut self, message: ClearRetained, _: &mut Self::Context) -> Self::Result {
        clients::clear_retained(&self.shard, &message.topic)
    }
}

/// An answer that the shard gives in portions. Ends early when the caller no longer waits for it.
pub struct PortionedReply<Q> {
    shard: SharedShard,
    question: Q,
}

impl Registry {
    fn in_portions<Q>(&self, question: Q) -> PortionedReply<Q> {
        PortionedReply { shard: self.shard.clone(), question }
    }
}

impl<Q> MessageResponse<Registry, Q> for PortionedReply<Q>
where
    Q: AnsweredInPortions + Message<Result = <Q as AnsweredInPortions>::Answer> + 'static,
{
    fn handle(self, _: &mut Context<Registry>, reply: Option<OneshotSender<Q::Result>>) {
        let Some(reply) = reply else { return };
        actix_rt::spawn(async move {
            let answer = self.question.answer(&self.shard, || !reply.is_closed()).await;
            let _ = reply.send(answer);
        });
    }
}

impl<Q: fmt::Debug> fmt::Debug for PortionedReply<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortionedReply").field("question", &self.question).finish_non_exhaustive()
    }
}
