//! Lists of clients: the pages of all shards and nodes, merged in the order of the Client Identifiers.

use std::{collections::VecDeque, sync::Arc};

use actix::Addr;
use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};

#[cfg(feature = "cluster")]
use super::cluster::NodeList;
use super::{ANSWER_TIME_MAX, Broker, asking::CallUnderWay};
#[cfg(feature = "cluster")]
use crate::control::MemberState;
use crate::{
    actors::Registry,
    control::{
        BusyClient, ClearQueue, ClearRetained, ClientPage, ClientSession, ClientSummary,
        ClientViews, ControlError, CountClients, FindBusiest, FindReceivers, KeepAliveAdvicePage,
        ListClients, ListHistory, ListKeepAliveAdvice, ListQueue, ListRetained, ListSubscriptions,
        MissingNode, NodeView, PastConnection, QueuePage, ReceiverPage, RetainedPage, RetainedView,
        SubscriptionPage,
    },
};

/// Maximum number of lists and counts under way at the same time; a further one is refused.
pub(super) const LISTS_MAX: usize = 32;
/// Bytes of texts in one page; the last client may exceed it.
const BYTES_PER_PAGE: usize = 8 * 1024 * 1024;

/// The clients of one shard, or of another node, that were read and are not in a page yet.
struct PartialList {
    place: ListPlace,
    read: VecDeque<ClientSummary>,
    after: Option<Arc<str>>,
    is_over: bool,
}

enum ListPlace {
    Shard(Addr<Registry>),
    #[cfg(feature = "cluster")]
    Node(NodeList),
}

impl PartialList {
    fn new(place: ListPlace, request: &ListClients) -> Self {
        Self { place, read: VecDeque::new(), after: request.after.clone(), is_over: false }
    }

    /// Reads on, if nothing is left of what was read. Returns the node that has not answered, whose list ends here.
    async fn read_on(
        &mut self,
        broker: &Broker,
        request: &ListClients,
        limit: usize,
    ) -> Result<Option<MissingNode>, ControlError> {
        // A page may be empty although more follows: the
        // shard examines a bounded number of clients.
        while self.read.is_empty() && !self.is_over {
            let after = self.after.clone();
            let (clients, next) = match &self.place {
                ListPlace::Shard(registry) => {
                    let request = ListClients { after, limit, ..request.clone() };
                    let page = broker.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await?;
                    (page.clients, page.next)
                }
                #[cfg(feature = "cluster")]
                ListPlace::Node(list) => {
                    let rules = &*broker.running.core.authorizer;
                    let Ok(page) = list.page(request, (after, limit), rules).await else {
                        self.is_over = true;
                        return Ok(Some(MissingNode::new(list.name(), MemberState::Serving)));
                    };
                    page
                }
            };
            self.read = clients.into();
            self.is_over = next.is_none();
            self.after = next;
        }
        Ok(None)
    }
}

impl Broker {
    /// Returns a page of the list of clients: connected ones, and sessions of absent ones, ordered by
    /// the bytes of the Client Identifier. In a cluster it has the clients of all nodes that answer, and names the others.
    /// Dropping the future stops the search.
    ///
    /// # Errors
    /// The broker cannot answer, or too many lists are under way already.
    pub async fn list_clients(&self, request: ListClients) -> Result<ClientPage, ControlError> {
        let lists = self.lists_here(&request);
        #[cfg(not(feature = "cluster"))]
        let mut missing = Vec::new();
        #[cfg(feature = "cluster")]
        let (lists, mut missing) = {
            let (elsewhere, missing) = self.lists_elsewhere()?;
            let nodes = elsewhere.into_iter().map(ListPlace::Node);
            let nodes = nodes.map(|place| PartialList::new(place, &request));
            (lists.into_iter().chain(nodes).collect::<Vec<_>>(), missing)
        };
        let mut page = self.merge(request, lists, &mut missing).await?;
        page.missing = missing;
        Ok(page)
    }

    /// Does the same for the clients of this broker alone.
    #[cfg(feature = "cluster")]
    pub(super) async fn list_here(&self, request: ListClients) -> Result<ClientPage, ControlError> {
        let lists = self.lists_here(&request);
        self.merge(request, lists, &mut Vec::new()).await
    }

    fn lists_here(&self, request: &ListClients) -> Vec<PartialList> {
        let shards = self.running.registries.iter().cloned().map(ListPlace::Shard);
        shards.map(|place| PartialList::new(place, request)).collect()
    }

    /// Merges lists to a page, and notes the nodes that have not answered.
    async fn merge(
        &self,
        request: ListClients,
        mut lists: Vec<PartialList>,
        missing: &mut Vec<MissingNode>,
    ) -> Result<ClientPage, ControlError> {
        let _listing = CallUnderWay::new(&self.running.under_way.lists, LISTS_MAX)?;
        let limit = request.limit.max(1);
        let (mut clients, mut bytes) = (Vec::<ClientSummary>::new(), 0);
        loop {
            // One more than the page has, to know whether another page follows.
            let missed = (limit + 1).saturating_sub(clients.len());
            let portion = portion_of(missed, lists.len());
            // All lists need a head before the smallest one can be chosen.
            let read = lists.iter_mut().map(|list| list.read_on(self, &request, portion));
            for outcome in join_all(read).await {
                missing.extend(outcome?);
            }
            let heads = lists.iter_mut().filter(|list| !list.read.is_empty());
            let first = heads.min_by(|a, b| head(a).cmp(&head(b)));
            let Some(list) = first else { return Ok(ClientPage::new(clients, None)) };
            let is_same = clients.last().map(|last| &last.client_id) == head(list);
            // A client is left, so the page has a successor.
            if !is_same && (clients.len() >= limit || bytes >= BYTES_PER_PAGE) {
                let last = clients.last().map(|last: &ClientSummary| last.client_id.clone());
                return Ok(ClientPage::new(clients, last));
            }
            let Some(client) = list.read.pop_front() else { continue };
            // While a client moves, two nodes have its session.
            if let Some(last) = clients.last_mut().filter(|_| is_same) {
                if (client.online, client.version) > (last.online, last.version) {
                    *last = client;
                }
                continue;
            }
            bytes += client.client_id.len();
            bytes += client.username.as_ref().map_or(0, |name| name.len());
            clients.push(client);
        }
    }

    /// Returns the connected clients with the highest values, the highest first. Dropping the future
    /// stops the search.
    ///
    /// # Errors
    /// The broker cannot answer, or too many lists are under way already.
    pub async fn find_busiest(
        &self,
        request: FindBusiest,
    ) -> Result<Vec<BusyClient>, ControlError> {
        let _listing = CallUnderWay::new(&self.running.under_way.lists, LISTS_MAX)?;
        let (by, limit) = (request.by, request.limit.min(FindBusiest::LIMIT_MAX));
        let request = FindBusiest { limit, ..request };
        let registries = self.running.registries.iter();
        let asked = registries
            .map(|registry| self.ask(registry.send(request.clone()).timeout(ANSWER_TIME_MAX)));
        let mut found: Vec<BusyClient> = try_join_all(asked).await?.into_iter().flatten().collect();
        // Equal values are ordered by name, so that two calls show the same list.
        found.sort_unstable_by(|a, b| {
            b.value(by).cmp(&a.value(by)).then_with(|| a.client_id.cmp(&b.client_id))
        });
        found.truncate(limit);
        Ok(found)
    }

    /// Returns a page of a client's subscriptions; `None` if there is no such session.
    ///
    /// # Errors
    /// The broker cannot answer.
    pub async fn list_subscriptions(
        &self,
        request: ListSubscriptions,
    ) -> Result<Option<SubscriptionPage>, ControlError> {
        let registry = self.registry(&request.client_id);
        self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await
    }

    /// Returns a page of the observed silences that connections have survived since the broker
    /// started, by network and listener, and the Keep Alive that it suggests.
    ///
    /// # Errors
    /// The broker cannot answer.
    pub async fn list_keep_alive_advice(
        &self,
        request: ListKeepAliveAdvice,
    ) -> Result<KeepAliveAdvicePage, ControlError> {
        self.ask(self.registry("").send(request).timeout(ANSWER_TIME_MAX)).await
    }

    /// Returns the last connections of a client, at most `limit`, the newest first; `None` if it has
    /// neither a session nor a history. They are known after a restart too, if there is a store.
    ///
    /// # Errors
    /// The broker cannot answer, or the store cannot be read.
    pub async fn list_history(
        &self,
        client_id: &str,
        limit: usize,
    ) -> Result<Option<Vec<PastConnection>>, ControlError> {
        let request = ListHistory::new(client_id, limit);
        self.ask(self.registry(client_id).send(request).timeout(ANSWER_TIME_MAX)).await?
    }

    /// Returns a page of the messages that wait for a client; `None` if there is no such session.
    ///
    /// # Errors
    /// The broker cannot answer, or the queue cannot be read.
    pub async fn list_queue(&self, request: ListQueue) -> Result<Option<QueuePage>, ControlError> {
        let registry = self.registry(&request.client_id);
        self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await?
    }

    /// Drops the messages that wait for a client now, and returns how many, after the store agrees;
    /// `None` if there is no such session. Messages in flight stay. After an error some messages may
    /// have been dropped.
    ///
    /// # Errors
    /// The broker cannot answer, or the queue cannot be read.
    pub async fn clear_queue(&self, client_id: &str) -> Result<Option<u64>, ControlError> {
        let request = ClearQueue::new(client_id);
        self.ask(self.registry(client_id).send(request).timeout(ANSWER_TIME_MAX)).await?
    }

    /// Returns the number of clients that a filter selects. Dropping the future stops the count.
    ///
    /// # Errors
    /// The broker cannot answer, or too many lists are under way already.
    pub async fn count_clients(&self, request: CountClients) -> Result<u64, ControlError> {
        let _listing = CallUnderWay::new(&self.running.under_way.lists, LISTS_MAX)?;
        #[cfg(feature = "cluster")]
        if let Some(asker) = self.asker()? {
            return self.count_anywhere(&asker, &request).await;
        }
        self.count_here(&request).await
    }
}

fn head(list: &PartialList) -> Option<&Arc<str>> {
    list.read.front().map(|client| &client.client_id)
}

/// Returns how many clients to read from each list, so that together they probably have the number
/// that is missing.
const fn portion_of(missing: usize, shards: usize) -> usize {
    if shards <= 1 {
        return missing;
    }
    let share = missing.div_ceil(shards);
    let portion = share + share / 4 + 8;
    if portion < missing { portion } else { missing }
}

#[async_trait]
impl ClientViews for Broker {
    async fn client(&self, client_id: &str) -> Result<Option<ClientSession>, ControlError> {
        #[cfg(feature = "cluster")]
        if let Some(asker) = self.asker()? {
            return self.client_anywhere(&asker, client_id).await;
        }
        self.client_here(client_id).await
    }

    async fn list_clients(&self, request: ListClients) -> Result<ClientPage, ControlError> {
        Self::list_clients(self, request).await
    }

    async fn list_subscriptions(
        &self,
        request: ListSubscriptions,
    ) -> Result<Option<SubscriptionPage>, ControlError> {
        Self::list_subscriptions(self, request).await
    }

    async fn list_keep_alive_advice(
        &self,
        request: ListKeepAliveAdvice,
    ) -> Result<KeepAliveAdvicePage, ControlError> {
        Self::list_keep_alive_advice(self, request).await
    }

    async fn list_history(
        &self,
        request: ListHistory,
    ) -> Result<Option<Vec<PastConnection>>, ControlError> {
        Self::list_history(self, &request.client_id, request.limit).await
    }

    async fn list_queue(&self, request: ListQueue) -> Result<Option<QueuePage>, ControlError> {
        Self::list_queue(self, request).await
    }

    async fn clear_queue(&self, request: ClearQueue) -> Result<Option<u64>, ControlError> {
        Self::clear_queue(self, &request.client_id).await
    }

    async fn find_busiest(&self, request: FindBusiest) -> Result<Vec<BusyClient>, ControlError> {
        Self::find_busiest(self, request).await
    }

    async fn find_receivers(&self, request: FindReceivers) -> Result<ReceiverPage, ControlError> {
        Self::find_receivers(self, request).await
    }

    async fn list_retained(&self, request: ListRetained) -> Result<RetainedPage, ControlError> {
        Self::list_retained(self, request).await
    }

    async fn retained(&self, topic: &str) -> Result<Option<RetainedView>, ControlError> {
        Ok(Self::retained(self, topic))
    }

    async fn clear_retained(&self, request: ClearRetained) -> Result<bool, ControlError> {
        Self::clear_retained(self, &request.topic).await
    }

    async fn node(&self) -> Result<NodeView, ControlError> {
        Ok(Self::node(self))
    }

    async fn count_clients(&self, request: CountClients) -> Result<u64, ControlError> {
        Self::count_clients(self, request).await
    }
}
