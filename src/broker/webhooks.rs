//! Starts the webhooks of a broker, and is the source of their events.

use std::sync::{Arc, OnceLock, Weak};

use actix_rt::{Arbiter, spawn};
use async_trait::async_trait;

use super::{
    Broker, Running, StartError,
    follow::{behind, reset},
    settings::lock,
    shards::Threads,
};
use crate::{
    control::{ControlError, FeedItem, FeedPart, Follow},
    metrics::WebhookMetrics,
    webhooks::{
        PreparedWebhook, PresenceSource, SecretsInForce, Webhook, WebhookError, WebhookParts,
        WebhookSecret, forget_others,
    },
};

/// The secrets of each webhook by its name; set once the webhooks have started.
#[derive(Debug, Default)]
pub(super) struct SecretsOfWebhooks(OnceLock<Vec<(Arc<str>, SecretsInForce)>>);

/// The feed of a broker, which this does not keep running.
struct FeedOf(Weak<Running>);

#[async_trait]
impl PresenceSource for FeedOf {
    async fn follow(&self, request: Follow) -> Result<FeedPart, ControlError> {
        let running = self.0.upgrade().ok_or(ControlError::Unavailable)?;
        Broker { running }.follow(request).await
    }

    fn reset(&self) -> Option<FeedItem> {
        self.0.upgrade().map(|running| reset(&running.core))
    }
}

impl Broker {
    /// Replaces the secrets of a webhook, one or two. Each attempt from now on is signed by them, also
    /// of a message that was sent before.
    ///
    /// # Errors
    /// [`WebhookError::Unknown`] if there is no webhook of this name, [`WebhookError::NoSecret`] or
    /// [`WebhookError::TooManySecrets`].
    pub fn set_webhook_secrets(
        &self,
        webhook: &str,
        secrets: Vec<WebhookSecret>,
    ) -> Result<(), WebhookError> {
        let mut known = self.running.webhook_secrets.0.get().into_iter().flatten();
        let found = known.find(|(name, _)| &**name == webhook);
        let (_, in_force) = found.ok_or_else(|| WebhookError::Unknown(webhook.to_owned()))?;
        in_force.replace(secrets)
    }

    /// Starts the webhooks, before any client can connect: so they miss no event. They share a thread
    /// of their own, unless the shards run on the current one.
    ///
    /// # Errors
    /// A webhook cannot be used.
    pub(super) async fn start_webhooks(
        &self,
        webhooks: Vec<Webhook>,
        threads: &Threads,
    ) -> Result<(), StartError> {
        let core = &self.running.core;
        // Also without a webhook: those of the last run may have left events.
        forget_others(&*core.records, &webhooks).await;
        if webhooks.is_empty() {
            return Ok(());
        }
        // All webhooks begin at the same place of the feed.
        let reset = reset(core);
        let from = behind(&reset);
        let parts = WebhookParts {
            node: Arc::clone(&core.node),
            epoch: reset.id.epoch,
            clock: core.clock,
            records: Arc::clone(&core.records) as _,
            presence: Arc::new(FeedOf(Arc::downgrade(&self.running))),
            ending: core.ending.clone(),
        };
        // A fault of one stops the start before any of them runs.
        let mut prepared = Vec::new();
        let mut all_metrics = Vec::new();
        let mut all_secrets = Vec::new();
        for webhook in webhooks {
            let clock = core.clock;
            let metrics = WebhookMetrics::new(webhook.name().into(), move || clock.now().millis());
            let metrics = Arc::new(metrics);
            all_metrics.push(Arc::clone(&metrics));
            let name: Arc<str> = webhook.name().into();
            let whole = PreparedWebhook::prepare(webhook, parts.clone(), (&reset, from), metrics);
            let whole = whole.await?;
            all_secrets.push((name, whole.secrets().clone()));
            prepared.push(whole);
        }
        let secrets = self.running.webhook_secrets.0.set(all_secrets);
        debug_assert!(secrets.is_ok(), "webhooks start once");
        // Published before the tasks run, so that no attempt is missing in the counters.
        core.metrics.set_webhooks(all_metrics);
        // On a thread of their own, so that a slow endpoint costs the shards nothing.
        let run = move || prepared.into_iter().for_each(|webhook| drop(spawn(webhook.run())));
        match threads {
            Threads::Own => {
                let arbiter = Arbiter::new();
                arbiter.spawn_fn(run);
                lock(&self.running.arbiters).push(arbiter);
            }
            Threads::Current | Threads::Simulated(_) => run(),
        }
        Ok(())
    }
}
