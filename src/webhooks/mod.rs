//! Webhooks: the events of presence in batches to HTTP endpoints, each at least once, in order.
//!
//! ```text
//! feed ──collector──▶ backlog, in the store ──courier──▶ endpoint
//! ```
//!
//! A webhook follows the feed as any follower does. Its collector stores what it reads; its courier
//! sends the stored messages, one at a time, until the endpoint has taken it. So an endpoint that
//! does not answer holds up its own courier and nobody else. Knows neither shards nor the
//! configuration.

mod backlog;
mod batch;
mod collector;
mod courier;
mod endpoint;
mod options;
mod secret;
mod shares;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub(crate) use self::secret::SecretsInForce;
use self::{
    backlog::{NAMESPACE, WebhookBacklog, owner_of},
    collector::Collector,
    courier::Courier,
    endpoint::{HttpEndpoint, MessageTaker},
    shares::SubscriptionShares,
};
pub use self::{
    options::{Webhook, WebhookBounds, WebhookError, WebhookUrl},
    secret::WebhookSecret,
};
use crate::{
    clock::Clock,
    control::{ControlError, FeedItem, FeedPart, FeedPosition, Follow},
    metrics::WebhookMetrics,
    records::{Expected, Records},
};

/// Where the events come from.
#[async_trait]
pub(crate) trait PresenceSource: Send + Sync {
    /// Returns the next part of the feed.
    ///
    /// # Errors
    /// The broker cannot answer now, or has ended.
    async fn follow(&self, request: Follow) -> Result<FeedPart, ControlError>;

    /// Returns the item that tells a follower to forget all clients; `None` once the broker has
    /// ended.
    fn reset(&self) -> Option<FeedItem>;
}

/// The parts that all webhooks of a broker need.
#[derive(Clone)]
pub(crate) struct WebhookParts {
    pub(crate) node: Arc<str>,
    /// The epoch of the events of this run.
    pub(crate) epoch: u64,
    pub(crate) clock: Clock,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) presence: Arc<dyn PresenceSource>,
    /// Cancelled when the broker begins to end.
    pub(crate) ending: CancellationToken,
}

/// A webhook that is ready to run.
pub(crate) struct PreparedWebhook {
    secrets: SecretsInForce,
    collector: Collector,
    courier: Courier,
    ending: CancellationToken,
}

impl PreparedWebhook {
    /// Reads what an earlier run has stored for a webhook, and puts `reset` before it. Changes are
    /// gathered from this position on.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(crate) async fn prepare(
        webhook: Webhook,
        parts: WebhookParts,
        (reset, from): (&FeedItem, FeedPosition),
        metrics: Arc<WebhookMetrics>,
    ) -> Result<Self, WebhookError> {
        let secrets = SecretsInForce::new(webhook.secrets.clone());
        let endpoint = Box::new(HttpEndpoint::new(&webhook, secrets.clone())?);
        let from = (reset, from);
        Ok(Self { secrets, ..Self::with_endpoint(webhook, parts, from, metrics, endpoint).await })
    }

    /// Returns the secrets by which its messages are signed.
    pub(crate) const fn secrets(&self) -> &SecretsInForce {
        &self.secrets
    }

    async fn with_endpoint(
        webhook: Webhook,
        parts: WebhookParts,
        (reset, from): (&FeedItem, FeedPosition),
        metrics: Arc<WebhookMetrics>,
        endpoint: Box<dyn MessageTaker>,
    ) -> Self {
        let secrets = SecretsInForce::new(webhook.secrets);
        let whose = (Arc::clone(&webhook.name), parts.node, parts.epoch);
        let bounds = webhook.bounds.clone();
        let restored = WebhookBacklog::restore(
            whose,
            parts.clock,
            bounds.clone(),
            parts.records,
            Arc::clone(&metrics),
        );
        let backlog = Arc::new(restored.await);
        // After the restore, because the number of the `reset` continues those of stored messages.
        backlog.begin_with(reset);
        // Courier and collector share only the backlog, which is bounded.
        let courier = Courier {
            name: Arc::clone(&webhook.name),
            host: webhook.url.host().into(),
            backlog: Arc::clone(&backlog),
            presence: Arc::clone(&parts.presence),
            endpoint,
            metrics,
        };
        let collector = Collector {
            clock: parts.clock,
            presence: parts.presence,
            backlog,
            filter: webhook.filter,
            bounds,
            position: from,
            shares: SubscriptionShares::default(),
        };
        Self { secrets, collector, courier, ending: parts.ending }
    }

    /// Gathers and sends until the broker ends. Events that are stored by then are sent after the next start.
    pub(crate) async fn run(self) {
        let Self { mut collector, courier, ending, .. } = self;
        tokio::select! {
            biased;
            () = ending.cancelled() => {}
            () = collector.run() => {}
            () = courier.run() => {}
        }
    }
}

/// Fails if two webhooks have the same name.
///
/// # Errors
/// [`WebhookError::Repeated`].
pub(crate) fn check_names(webhooks: &[Webhook]) -> Result<(), WebhookError> {
    let mut names: Vec<_> = webhooks.iter().map(Webhook::name).collect();
    names.sort_unstable();
    let repeated = names.windows(2).find(|pair| pair[0] == pair[1]);
    repeated.map_or(Ok(()), |pair| Err(WebhookError::Repeated(pair[0].to_owned())))
}

/// Removes the stored events of webhooks that no longer exist. Those that cannot be removed now are removed
/// at the next start.
pub(crate) async fn forget_others(records: &dyn Records, webhooks: &[Webhook]) {
    /// Records that one step reads.
    const PAGE: usize = 256;
    let mut after = None::<String>;
    loop {
        let page = records.list(NAMESPACE, after.as_deref(), PAGE).await.unwrap_or_default();
        let Some((last, _)) = page.last() else { return };
        after = Some(last.key().to_owned());
        for (name, _) in page {
            let is_owned = webhooks.iter().any(|webhook| owner_of(&name) == Some(webhook.name()));
            if !is_owned && records.remove(name, Expected::Any).await.is_err() {
                return;
            }
        }
    }
}
