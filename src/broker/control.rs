//! The broker answers callers: each question goes to the registries of the shards concerned.

use std::{sync::Arc, time::Duration};

use actix::MailboxError;
use async_trait::async_trait;

use super::{
    ANSWER_TIME_MAX, Broker, asking::CallUnderWay, draining::Draining, here::WALKS_MAX, listening,
};
use crate::{
    actors::{OfUser, WhileAwaited},
    control::{
        ChangeSettings, ChangeSubscriptions, ControlError, DELIVERY_WAIT_MAX, DeviceReply,
        HeardMessages, KeepAliveChanged, KeepAliveOverride, Kick, Kicked, ListOverrides,
        ListSettings, ListenTo, LiveClients, OnlineState, PublishRequest, Published, Publishing,
        QueryOverride, QuerySettings, REPLY_WAIT_MAX, Readiness, Redirect, Redirection, Redirects,
        RemoveOverride, RemoveSettings, RequestReply, SelectClients, SelectedClients, SetKeepAlive,
        SettingsChanged, SettingsOf, SettingsOfClients, StickySettings, SubscriptionsChanged,
    },
};

/// Maximum number of questions under way at the same time; a further one is refused, not queued.
pub(super) const QUESTIONS_MAX: usize = 16 * 1024;
/// Maximum number of published messages whose deliveries are waited for at the same time.
const WAITS_MAX: usize = 1_000;

impl Broker {
    pub(super) async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, MailboxError>>,
    ) -> Result<T, ControlError> {
        if !self.is_ready() {
            return Err(ControlError::Unavailable);
        }
        let _asking = CallUnderWay::new(&self.running.under_way.questions, QUESTIONS_MAX)?;
        question.await.map_err(|error| match error {
            MailboxError::Closed => ControlError::Unavailable,
            MailboxError::Timeout => ControlError::Timeout,
        })
    }
}

#[async_trait]
impl LiveClients for Broker {
    async fn follow(
        &self,
        request: crate::control::Follow,
    ) -> Result<crate::control::FeedPart, ControlError> {
        Self::follow(self, request).await
    }

    async fn set_keep_alive(
        &self,
        request: SetKeepAlive,
    ) -> Result<KeepAliveChanged, ControlError> {
        #[cfg(feature = "cluster")]
        if let Some(asker) = self.asker()? {
            return self.set_keep_alive_anywhere(&asker, request).await;
        }
        self.set_keep_alive_here(request).await
    }

    async fn query_online(&self, client_id: &str) -> Result<bool, ControlError> {
        #[cfg(feature = "cluster")]
        if let Some(asker) = self.asker()? {
            return self.online_anywhere(&asker, client_id).await;
        }
        self.online_here(client_id).await
    }

    #[cfg(feature = "cluster")]
    fn is_elsewhere(&self, client_id: &str) -> bool {
        self.asker().ok().flatten().is_some_and(|asker| !asker.holds(client_id))
    }

    async fn kick(&self, request: Kick) -> Result<Kicked, ControlError> {
        #[cfg(feature = "cluster")]
        if let Some(asker) = self.asker()? {
            return self.kick_anywhere(&asker, request).await;
        }
        self.kick_here(request).await
    }

    async fn kick_each(&self, requests: Vec<Kick>) -> Vec<Result<Kicked, ControlError>> {
        #[cfg(feature = "cluster")]
        match self.asker() {
            Ok(None) => {}
            Ok(Some(asker)) => return self.kick_each_anywhere(&asker, requests).await,
            Err(error) => return requests.into_iter().map(|_| Err(error)).collect(),
        }
        self.kick_each_here(requests).await
    }

    async fn select_clients(
        &self,
        request: SelectClients,
    ) -> Result<SelectedClients, ControlError> {
        #[cfg(feature = "cluster")]
        if let Some(asker) = self.asker()? {
            return self.select_anywhere(&asker, request).await;
        }
        self.select_here(request).await
    }

    async fn change_subscriptions(
        &self,
        request: ChangeSubscriptions,
    ) -> Result<SubscriptionsChanged, ControlError> {
        let registry = self.registry(&request.client_id);
        self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await?
    }

    async fn query_override(
        &self,
        request: QueryOverride,
    ) -> Result<Option<KeepAliveOverride>, ControlError> {
        let registry = self.registry(&request.client_id);
        self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await
    }

    async fn remove_override(
        &self,
        request: RemoveOverride,
    ) -> Result<Option<KeepAliveOverride>, ControlError> {
        let registry = self.registry(&request.client_id);
        self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await?
    }

    async fn list_overrides(
        &self,
        request: ListOverrides,
    ) -> Result<Vec<KeepAliveOverride>, ControlError> {
        let registry = self.registry(request.after.as_deref().unwrap_or_default());
        self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await?
    }

    async fn query_each_online(
        &self,
        client_ids: Vec<String>,
    ) -> Vec<Result<OnlineState, ControlError>> {
        #[cfg(feature = "cluster")]
        match self.asker() {
            Ok(None) => {}
            Ok(Some(asker)) => return self.each_online_anywhere(&asker, client_ids).await,
            Err(error) => return client_ids.into_iter().map(|_| Err(error)).collect(),
        }
        self.each_online_here(client_ids).await
    }

    async fn set_each_keep_alive(
        &self,
        requests: Vec<SetKeepAlive>,
    ) -> Vec<Result<KeepAliveChanged, ControlError>> {
        #[cfg(feature = "cluster")]
        match self.asker() {
            Ok(None) => {}
            Ok(Some(asker)) => return self.set_each_keep_alive_anywhere(&asker, requests).await,
            Err(error) => return requests.into_iter().map(|_| Err(error)).collect(),
        }
        self.set_each_keep_alive_here(requests).await
    }
}

#[async_trait]
impl Redirects for Broker {
    async fn redirect(&self, request: Redirect) -> Result<usize, ControlError> {
        let _walking = self.walking(&request)?;
        #[cfg(feature = "cluster")]
        if let (crate::control::Clients::One(_), Some(asker)) = (&request.clients, self.asker()?) {
            return self.redirect_anywhere(&asker, request).await;
        }
        self.redirect_here(request).await
    }

    async fn evacuate(&self, request: Redirect) -> Result<usize, ControlError> {
        let _walking = self.walking(&request)?; // first, so that no client is refused in vain
        let draining = Draining::begin(&self.running, &request.to)?;
        let redirected = self.redirect_here(request).await?;
        draining.stay();
        self.store_drain().await;
        Ok(redirected)
    }

    async fn drain(&self, to: Option<Redirection>) {
        Self::drain(self, to).await;
    }

    fn drained_to(&self) -> Option<Redirection> {
        self.running.core.draining.load_full().map(Arc::unwrap_or_clone)
    }
}

#[async_trait]
impl Publishing for Broker {
    async fn publish(&self, request: PublishRequest) -> Result<Published, ControlError> {
        let waits = &self.running.under_way.waits;
        let _waiting = request.wait.map(|_| CallUnderWay::new(waits, WAITS_MAX)).transpose()?;
        let wait = request.wait.map_or(Duration::ZERO, |wait| wait.time_max);
        let time_max = ANSWER_TIME_MAX + wait.min(DELIVERY_WAIT_MAX);
        let registry = self.registry(request.message.topic());
        let (request, _waits) = WhileAwaited::new(request);
        self.ask(registry.send(request).timeout(time_max)).await?
    }

    async fn request(&self, request: RequestReply) -> Result<DeviceReply, ControlError> {
        let time_max = ANSWER_TIME_MAX + request.time_max.min(REPLY_WAIT_MAX);
        let registry = self.registry(request.message.topic());
        let (request, _waits) = WhileAwaited::new(request);
        self.ask(registry.send(request).timeout(time_max)).await?
    }

    fn listen(&self, request: ListenTo) -> Result<HeardMessages, ControlError> {
        listening::listen(&self.running.core, &request)
    }

    fn new_response_topic(&self) -> String {
        self.running.core.new_response_topic()
    }
}

#[async_trait]
impl SettingsOfClients for Broker {
    async fn change_settings(
        &self,
        request: ChangeSettings,
    ) -> Result<SettingsChanged, ControlError> {
        let registry = self.registry(request.of.name());
        if matches!(request.of, SettingsOf::Client(_)) {
            return self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await?;
        }
        let _walking = CallUnderWay::new(&self.running.under_way.walks, WALKS_MAX)?;
        let message = OfUser { change: request, registries: self.running.registries.clone() };
        self.ask(registry.send(message).timeout(ANSWER_TIME_MAX)).await?
    }

    async fn query_settings(
        &self,
        request: QuerySettings,
    ) -> Result<Option<StickySettings>, ControlError> {
        let registry = self.registry(request.of.name());
        self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await
    }

    async fn remove_settings(
        &self,
        request: RemoveSettings,
    ) -> Result<Option<StickySettings>, ControlError> {
        let registry = self.registry(request.of.name());
        if matches!(request.of, SettingsOf::Client(_)) {
            return self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await?;
        }
        let _walking = CallUnderWay::new(&self.running.under_way.walks, WALKS_MAX)?;
        let message = OfUser { change: request, registries: self.running.registries.clone() };
        self.ask(registry.send(message).timeout(ANSWER_TIME_MAX)).await?
    }

    async fn list_settings(
        &self,
        request: ListSettings,
    ) -> Result<Vec<StickySettings>, ControlError> {
        let registry = self.registry(request.after.as_deref().unwrap_or_default());
        self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await?
    }
}

impl Readiness for Broker {
    fn is_ready(&self) -> bool {
        Self::is_ready(self)
    }

    fn is_storing(&self) -> bool {
        Self::is_storing(self)
    }

    #[cfg(feature = "cluster")]
    fn cluster(&self) -> Option<crate::control::ClusterView> {
        self.running.cluster_view()
    }
}
