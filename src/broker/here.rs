//! The answers of this broker about the clients that it has itself: each question goes to the registries of the shards
//! concerned.
//!
//! Without a cluster, these are all answers. In a cluster, `cluster/asking` finds the node that answers.

use futures_util::future::{join_all, try_join_all};

use super::{ANSWER_TIME_MAX, Broker, asking::CallUnderWay};
use crate::{
    actors::{QueryClient, QueryOnline, QueryOnlineMany, SetKeepAliveMany},
    control::{
        ClientSession, Clients, ControlError, CountClients, KeepAliveChanged, Kick, Kicked,
        OnlineState, Redirect, SelectClients, SelectedClients, SetKeepAlive,
    },
};

/// Maximum number of walks along all clients under way at the same time.
pub(super) const WALKS_MAX: usize = 4;

impl Broker {
    pub(super) async fn online_here(&self, client_id: &str) -> Result<bool, ControlError> {
        let question = QueryOnline::new(client_id);
        self.ask(self.registry(client_id).send(question).timeout(ANSWER_TIME_MAX)).await
    }

    pub(super) async fn each_online_here(
        &self,
        client_ids: Vec<String>,
    ) -> Vec<Result<OnlineState, ControlError>> {
        let message = |client_ids| QueryOnlineMany { client_ids };
        self.ask_homes(client_ids, String::as_str, message).await
    }

    pub(super) async fn client_here(
        &self,
        client_id: &str,
    ) -> Result<Option<ClientSession>, ControlError> {
        let question = QueryClient::new(client_id);
        self.ask(self.registry(client_id).send(question).timeout(ANSWER_TIME_MAX)).await
    }

    pub(super) async fn set_keep_alive_here(
        &self,
        request: SetKeepAlive,
    ) -> Result<KeepAliveChanged, ControlError> {
        let registry = self.registry(&request.client_id);
        self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await?
    }

    pub(super) async fn set_each_keep_alive_here(
        &self,
        requests: Vec<SetKeepAlive>,
    ) -> Vec<Result<KeepAliveChanged, ControlError>> {
        let message = |requests| SetKeepAliveMany { requests };
        let answers = self.ask_homes(requests, |request| &request.client_id, message);
        answers.await.into_iter().map(|answer| answer?).collect()
    }

    pub(super) async fn kick_here(&self, request: Kick) -> Result<Kicked, ControlError> {
        let registry = self.registry(&request.client_id);
        self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await?
    }

    pub(super) async fn kick_each_here(
        &self,
        requests: Vec<Kick>,
    ) -> Vec<Result<Kicked, ControlError>> {
        join_all(requests.into_iter().map(|request| self.kick_here(request))).await
    }

    pub(super) async fn select_here(
        &self,
        request: SelectClients,
    ) -> Result<SelectedClients, ControlError> {
        let registry = self.running.registries.get(usize::from(request.from.shard));
        let Some(registry) = registry else { return Ok(SelectedClients::default()) };
        self.ask(registry.send(request).timeout(ANSWER_TIME_MAX)).await
    }

    /// Returns a place among the walks under way, if this request needs one.
    pub(super) fn walking(
        &self,
        request: &Redirect,
    ) -> Result<Option<CallUnderWay<'_>>, ControlError> {
        match request.clients {
            Clients::One(_) => Ok(None),
            Clients::Matching(_) => {
                CallUnderWay::new(&self.running.under_way.walks, WALKS_MAX).map(Some)
            }
        }
    }

    pub(super) async fn redirect_here(&self, request: Redirect) -> Result<usize, ControlError> {
        let homes: Vec<_> = match &request.clients {
            Clients::One(client_id) => vec![self.registry(client_id)],
            Clients::Matching(_) => self.running.registries.clone(),
        };
        let asked = homes.into_iter().map(|registry| {
            let redirected = registry.send(request.clone()).timeout(ANSWER_TIME_MAX);
            self.ask(redirected)
        });
        Ok(try_join_all(asked).await?.into_iter().sum())
    }

    pub(super) async fn count_here(&self, request: &CountClients) -> Result<u64, ControlError> {
        let registries = self.running.registries.iter();
        let asked = registries
            .map(|registry| self.ask(registry.send(request.clone()).timeout(ANSWER_TIME_MAX)));
        Ok(try_join_all(asked).await?.into_iter().sum())
    }
}
