//! Questions about many clients at once: one message for each shard, and one answer.
//!
//! A message between threads costs a system call and perhaps a thread switch, whatever its size.

use actix::{Handler, Message, dev::ToEnvelope};
use futures_util::future::join_all;

use super::{ANSWER_TIME_MAX, Broker};
use crate::{
    actors::Registry,
    control::{
        ChangeSubscriptions, ControlError, DeviceReply, KeepAliveChanged, KeepAliveOverride, Kick,
        Kicked, ListOverrides, LiveClients, OnlineState, PublishRequest, Published, Publishing,
        QueryOverride, RemoveOverride, RequestReply, SelectClients, SelectedClients, SetKeepAlive,
        SubscriptionsChanged,
    },
};

impl Broker {
    /// Returns which of these clients are connected now, and to which node, in the order of
    /// `client_ids`.
    ///
    /// # Errors
    /// The broker cannot answer.
    pub async fn online_many(
        &self,
        client_ids: &[String],
    ) -> Result<Vec<OnlineState>, ControlError> {
        self.query_each_online(client_ids.to_vec()).await.into_iter().collect()
    }

    /// Changes the Keep Alive of many live connections; returns a result for each, in their order.
    pub async fn set_keep_alive_many(
        &self,
        requests: Vec<SetKeepAlive>,
    ) -> Vec<Result<KeepAliveChanged, ControlError>> {
        self.set_each_keep_alive(requests).await
    }

    /// Publishes a message as [`Broker::publish_with`] does, and returns how many sessions match its
    /// topic. Does not wait for subscribers with a full queue. A request with a
    /// [`WaitForDeliveries`](crate::control::WaitForDeliveries) is answered when the deliveries have come
    /// that far, or its time has passed; at most 1,000 wait at the same time.
    ///
    /// # Errors
    /// The message exceeds the limits, cannot be stored or retained, a subscriber that publishers must
    /// wait for has a full queue, or the broker cannot answer. Nothing is published, except after
    /// [`ControlError::Timeout`].
    pub async fn publish_counted(
        &self,
        request: PublishRequest,
    ) -> Result<Published, ControlError> {
        Publishing::publish(self, request).await
    }

    /// Publishes a message and waits for the reply of a client. [`Broker::new_response_topic`] gives a
    /// Response Topic for the message.
    ///
    /// # Errors
    /// No session matches the topic, no reply came in time, 1,000 requests wait already, the message
    /// cannot be published, or the broker cannot answer.
    pub async fn request(&self, request: RequestReply) -> Result<DeviceReply, ControlError> {
        Publishing::request(self, request).await
    }

    /// Returns a Response Topic of the broker for one request, which cannot be guessed. It is below
    /// `hearthmq/reply`; clients that reply need the permission to publish there.
    #[must_use]
    pub fn new_response_topic(&self) -> String {
        Publishing::new_response_topic(self)
    }

    /// Ends the connections of many clients; returns a result for each, in their order.
    pub async fn kick_many(&self, requests: Vec<Kick>) -> Vec<Result<Kicked, ControlError>> {
        self.kick_each(requests).await
    }

    /// Changes the subscriptions of a connected client; returns a Reason Code for each change.
    ///
    /// # Errors
    /// The client is not online, or the broker cannot answer; some changes may have been made.
    pub async fn change_subscriptions(
        &self,
        request: ChangeSubscriptions,
    ) -> Result<SubscriptionsChanged, ControlError> {
        LiveClients::change_subscriptions(self, request).await
    }

    /// Returns the sticky Keep Alive of a client, if there is one.
    ///
    /// # Errors
    /// The broker cannot answer.
    pub async fn keep_alive_override(
        &self,
        client_id: &str,
    ) -> Result<Option<KeepAliveOverride>, ControlError> {
        LiveClients::query_override(self, QueryOverride::new(client_id)).await
    }

    /// Removes the sticky Keep Alive of a client; returns whether there was one.
    ///
    /// # Errors
    /// The store cannot be written, or the broker cannot answer.
    pub async fn remove_keep_alive_override(&self, client_id: &str) -> Result<bool, ControlError> {
        let removed = LiveClients::remove_override(self, RemoveOverride::new(client_id));
        removed.await.map(|former| former.is_some())
    }

    /// Returns some sticky Keep Alives, in the order of the bytes of their Client Identifiers.
    ///
    /// # Errors
    /// The broker cannot answer.
    pub async fn keep_alive_overrides(
        &self,
        request: ListOverrides,
    ) -> Result<Vec<KeepAliveOverride>, ControlError> {
        LiveClients::list_overrides(self, request).await
    }

    /// Returns some of the clients that a selector selects, and where to continue: repeat the request
    /// with [`SelectClients::from`] until there is no next place.
    ///
    /// # Errors
    /// The broker cannot answer.
    pub async fn select(&self, request: SelectClients) -> Result<SelectedClients, ControlError> {
        LiveClients::select_clients(self, request).await
    }

    /// Asks the registry of each shard about its clients. Returns the answers in the order of the
    /// questions.
    pub(super) async fn ask_homes<Q, M, A>(
        &self,
        questions: Vec<Q>,
        client_id: impl Fn(&Q) -> &str,
        message: impl Fn(Vec<Q>) -> M,
    ) -> Vec<Result<A, ControlError>>
    where
        M: Message<Result = Vec<A>> + Send + 'static,
        A: Send + 'static,
        Registry: Handler<M>,
        actix::Context<Registry>: ToEnvelope<Registry, M>,
    {
        let core = &self.running.core;
        let mut answers: Vec<_> =
            questions.iter().map(|_| Err(ControlError::Unavailable)).collect();
        // Remembers the position of each question, because the answers of several shards are
        // merged.
        let mut by_shard: Vec<(Vec<usize>, Vec<Q>)> =
            core.shards().iter().map(|_| Default::default()).collect();
        for (position, question) in questions.into_iter().enumerate() {
            let (positions, its) = &mut by_shard[usize::from(core.home(client_id(&question)).0)];
            positions.push(position);
            its.push(question);
        }
        // A shard without a question is not woken.
        let asked =
            self.running.registries.iter().zip(by_shard).filter(|(_, (_, its))| !its.is_empty());
        let asked = asked.map(|(registry, (positions, its))| {
            let answer = registry.send(message(its)).timeout(ANSWER_TIME_MAX);
            async move { (positions, self.ask(answer).await) }
        });
        for (positions, found) in join_all(asked).await {
            match found {
                Ok(found) => {
                    for (position, answer) in positions.into_iter().zip(found) {
                        answers[position] = Ok(answer);
                    }
                }
                // One shard that does not answer must not cost the answers of the others.
                Err(error) => positions.into_iter().for_each(|at| answers[at] = Err(error)),
            }
        }
        answers
    }
}
