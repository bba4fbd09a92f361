//! Questions about many clients of a shard, which are answered in portions.

use std::{cell::RefCell, fmt, rc::Rc};

use actix::{
    Context, Handler, ResponseFuture,
    dev::{MessageResponse, OneshotSender},
};

use tokio::sync::oneshot;

use super::Registry;
use crate::{
    actors::messages::QueryClient,
    control::{ClientPage, ClientSession, CountClients, ListClients},
    shard::{Shard, doors::ToConnection, views::ClientSearch},
};

impl Handler<ListClients> for Registry {
    type Result = SearchReply;

    fn handle(&mut self, message: ListClients, _: &mut Self::Context) -> Self::Result {
        SearchReply { shard: Rc::clone(&self.shard), search: ClientSearch::of_page(message) }
    }
}

impl Handler<CountClients> for Registry {
    type Result = SearchReply;

    fn handle(&mut self, message: CountClients, _: &mut Self::Context) -> Self::Result {
        let CountClients { filter, caller } = message;
        SearchReply { shard: Rc::clone(&self.shard), search: ClientSearch::of_all(filter, caller) }
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

/// Walks along the clients of a shard, a few at a time. Ends early when the caller no longer waits
/// for the answer.
pub struct SearchReply {
    shard: Rc<RefCell<Shard>>,
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
