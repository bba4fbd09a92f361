//! Questions about many clients of a shard, which are answered in portions.

use std::fmt;

use actix::{
    Context, Handler, MessageResult, ResponseFuture,
    dev::{MessageResponse, OneshotSender},
};

use tokio::sync::oneshot;

use super::Registry;
use crate::{
    actors::messages::QueryClient,
    control::{
        BusyClient, ClearQueue, ClearRetained, ClientPage, ClientSession, ControlError,
        CountClients, FindBusiest, FindReceivers, ListClients, ListHistory, ListKeepAliveAdvice,
        ListQueue, ListSubscriptions, QueuePage, ReceiverPage, SubscriptionPage,
    },
    shard::{
        SharedShard,
        doors::ToConnection,
        views::{ClientSearch, busiest, contents, receivers},
    },
};

impl Handler<ListClients> for Registry {
    type Result = SearchReply;

    fn handle(&mut self, message: ListClients, _: &mut Self::Context) -> Self::Result {
        SearchReply { shard: self.shard.clone(), search: ClientSearch::of_page(message) }
    }
}

impl Handler<CountClients> for Registry {
    type Result = SearchReply;

    fn handle(&mut self, message: CountClients, _: &mut Self::Context) -> Self::Result {
        let CountClients { filter, caller } = message;
        SearchReply { shard: self.shard.clone(), search: ClientSearch::of_all(filter, caller) }
    }
}

impl Handler<QueryClient> for Registry {
    type Result = ResponseFuture<Option<ClientSession>>;

    fn handle(&mut self, message: QueryClient, _: &mut Self::Context) -> Self::Result {
        let shard = self.shard.borrow();
        let described = shard.describe(&message.client_id);
        let (reply, tls) = oneshot::channel();
        shard.send_to(&message.client_id, ToConnection::DescribeTls(reply));
        Box::pin(async move {
            let mut described = described?;
            // Without a connection, or if it has ended by now, nobody answers.
            described.tls = tls.await.ok().flatten().filter(|_| described.online);
            Some(described)
        })
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
    type Result = ReceiversReply;

    fn handle(&mut self, message: FindReceivers, _: &mut Self::Context) -> Self::Result {
        ReceiversReply { shard: self.shard.clone(), request: message }
    }
}

impl Handler<FindBusiest> for Registry {
    type Result = BusiestReply;

    fn handle(&mut self, message: FindBusiest, _: &mut Self::Context) -> Self::Result {
        BusiestReply { shard: self.shard.clone(), request: message }
    }
}

impl Handler<ClearRetained> for Registry {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, message: ClearRetained, _: &mut Self::Context) -> Self::Result {
        let now = self.core.clock.now();
        let mut shard = self.shard.borrow_mut();
        let (stored, is_stored) = oneshot::channel();
        let was_there = shard.clear_retained(&message.topic, now);
        shard.tell_when_stored(stored);
        shard.flush();
        Box::pin(async move {
            let _ = is_stored.await;
            was_there
        })
    }
}

/// Walks along the clients of a shard, a few at a time. Ends early when the caller no longer waits
/// for the answer.
pub struct SearchReply {
    shard: SharedShard,
    search: ClientSearch,
}

impl MessageResponse<Registry, ListClients> for SearchReply {
    fn handle(self, _: &mut Context<Registry>, reply: Option<OneshotSender<ClientPage>>) {
        let Some(reply) = reply else { return };
        actix_rt::spawn(async move {
            let page = self.search.page(&self.shard, || !reply.is_closed()).await;
            let _ = reply.send(page);
        });
    }
}

impl MessageResponse<Registry, CountClients> for SearchReply {
    fn handle(self, _: &mut Context<Registry>, reply: Option<OneshotSender<u64>>) {
        let Some(reply) = reply else { return };
        actix_rt::spawn(async move {
            let count = self.search.count(&self.shard, || !reply.is_closed()).await;
            let _ = reply.send(count);
        });
    }
}

impl fmt::Debug for SearchReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SearchReply").finish_non_exhaustive()
    }
}

/// Walks along the subscriptions that a question is about. Ends early when the caller no longer waits
/// for the answer.
pub struct ReceiversReply {
    shard: SharedShard,
    request: FindReceivers,
}

impl MessageResponse<Registry, FindReceivers> for ReceiversReply {
    fn handle(self, _: &mut Context<Registry>, reply: Option<OneshotSender<ReceiverPage>>) {
        let Some(reply) = reply else { return };
        actix_rt::spawn(async move {
            let is_wanted = || !reply.is_closed();
            let page = receivers::find_receivers(&self.shard, self.request, is_wanted).await;
            let _ = reply.send(page);
        });
    }
}

impl fmt::Debug for ReceiversReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiversReply").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Walks along the clients of a shard, a few at a time. Ends early when the caller no longer waits
/// for the answer.
pub struct BusiestReply {
    shard: SharedShard,
    request: FindBusiest,
}

impl MessageResponse<Registry, FindBusiest> for BusiestReply {
    fn handle(self, _: &mut Context<Registry>, reply: Option<OneshotSender<Vec<BusyClient>>>) {
        let Some(reply) = reply else { return };
        actix_rt::spawn(async move {
            let is_wanted = || !reply.is_closed();
            let found = busiest::find_busiest(&self.shard, self.request, is_wanted).await;
            let _ = reply.send(found);
        });
    }
}

impl fmt::Debug for BusiestReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusiestReply").field("request", &self.request).finish_non_exhaustive()
    }
}
