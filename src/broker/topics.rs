//! Questions about topics: the receivers on all shards, and the retained messages, which the shards
//! share.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::task::yield_now;

use super::{ANSWER_TIME_MAX, Broker, asking::CallUnderWay, views::LISTS_MAX};
use crate::{
    control::{
        ClearRetained, ControlError, FindReceivers, ListRetained, MessageProperties, NodeView,
        ReceiverPage, RetainedPage, RetainedView,
    },
    mqtt::{Message, Timestamp},
    router::RetainedQuery,
};

/// Nodes of the tree of retained messages that are visited in one step, during which no message can
/// be retained.
const NODES_AT_A_TIME: usize = 256;
/// Bytes of topics, payloads and properties in one page; the last message may exceed it.
const BYTES_PER_PAGE: usize = 4 * 1024 * 1024;

impl Broker {
    /// Returns a page of the clients that receive a message on a topic, or have a subscription.
    /// Subscribers in the application are not listed. Dropping the future stops the search.
    ///
    /// # Errors
    /// The broker cannot answer, or too many lists are under way already.
    pub async fn find_receivers(
        &self,
        request: FindReceivers,
    ) -> Result<ReceiverPage, ControlError> {
        let _listing = CallUnderWay::new(&self.running.under_way.lists, LISTS_MAX)?;
        let limit = request.limit.max(1);
        let request = FindReceivers { limit, ..request };
        let registries = self.running.registries.iter();
        let asked = registries
            .map(|registry| self.ask(registry.send(request.clone()).timeout(ANSWER_TIME_MAX)));
        // All shards at the same time; a missing one would
        // make the page wrong, so it fails as a whole.
        let pages = try_join_all(asked).await?;
        let mut receivers: Vec<_> = pages.into_iter().flat_map(|page| page.receivers).collect();
        receivers.sort_unstable_by(|a, b| a.client_id.cmp(&b.client_id));
        // Each shard answers up to a whole page, since all receivers may be on one shard.
        let has_more = receivers.len() > limit;
        receivers.truncate(limit);
        let next = receivers.last().filter(|_| has_more).map(|last| last.client_id.clone());
        Ok(ReceiverPage::new(receivers, next))
    }

    /// Returns a page of the retained messages that match a filter.
    ///
    /// # Errors
    /// The broker is shutting down, or too many lists are under way already.
    pub async fn list_retained(&self, request: ListRetained) -> Result<RetainedPage, ControlError> {
        if !self.is_ready() {
            return Err(ControlError::Unavailable);
        }
        let _listing = CallUnderWay::new(&self.running.under_way.lists, LISTS_MAX)?;
        let core = &self.running.core;
        let ListRetained { filter, after, limit, has_payloads, caller } = request;
        // Messages that are retained from now on are left
        // out, so the search ends while others publish.
        let (limit, until) = (limit.max(1), core.retained.last_number());
        let may_see = |topic: &str| {
            let rules = &*core.authorizer;
            caller.as_ref().is_none_or(|caller| caller.may_subscribe(rules, topic))
        };
        let (mut after, mut messages, mut bytes) = (after, Vec::<RetainedView>::new(), 0);
        loop {
            let which = RetainedQuery { filter: &filter, after: after.as_deref(), until };
            let slice = core.retained.slice(&which, NODES_AT_A_TIME, core.clock.now());
            for message in slice.messages {
                if !may_see(message.topic()) {
                    continue;
                }
                // Tested before the message is added: only another
                // message proves that there is a next page.
                if messages.len() >= limit || bytes >= BYTES_PER_PAGE {
                    let next = messages.last().map(|last| last.topic.clone());
                    return Ok(RetainedPage::new(messages, next));
                }
                let view = view(&message, has_payloads);
                bytes += view.topic.len() + view.payload.as_ref().map_or(0, |it| it.len());
                bytes += view.properties.as_ref().map_or(0, MessageProperties::bytes);
                messages.push(view);
            }
            let Some(go_on_after) = slice.go_on_after else {
                return Ok(RetainedPage::new(messages, None));
            };
            after = Some(Arc::from(go_on_after));
            // A slice without a match also took its time, and other calls wait on this thread.
            yield_now().await;
        }
    }

    /// Returns the retained message of a topic, with its payload.
    #[must_use]
    pub fn retained(&self, topic: &str) -> Option<RetainedView> {
        let core = &self.running.core;
        let (message, _) = core.retained.get(topic)?;
        (!message.publication().has_expired(core.clock.now())).then(|| view(&message, true))
    }

    /// Removes the retained message of a topic; returns whether there was one, after the store
    /// agrees.
    ///
    /// # Errors
    /// The broker cannot answer.
    pub async fn clear_retained(&self, topic: &str) -> Result<bool, ControlError> {
        let request = ClearRetained::new(topic);
        self.ask(self.registry(topic).send(request).timeout(ANSWER_TIME_MAX)).await?
    }

    /// Describes this node of the broker.
    #[must_use]
    pub fn node(&self) -> NodeView {
        let core = &self.running.core;
        let limits = (**core.limits_now()).clone();
        NodeView {
            started_at_millis: core.clock.started().millis(),
            now_millis: core.clock.now().millis(),
            shards: self.running.registries.len(),
            connections: self.connections(),
            sessions: core.sessions(),
            listeners: self.listener_urls().to_vec(),
            ..NodeView::new(core.node.clone(), limits)
        }
    }
}

fn view(message: &Message, has_payload: bool) -> RetainedView {
    let publication = message.publication();
    RetainedView {
        payload: has_payload.then(|| message.payload_bytes()),
        properties: has_payload.then(|| MessageProperties::of(message)),
        expires_at_millis: publication.expires_at.map(Timestamp::millis),
        ..RetainedView::new(message.topic(), publication.qos, message.payload().len())
    }
}
