//! Starts the webhooks of a broker, and is the source of their events.

use std::sync::{Arc, Weak};

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
    webhooks::{PreparedWebhook, PresenceSource, Webhook, WebhookParts, forget_others},
};

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
        forget_others(&*core.records, &webhooks).await;
        if webhooks.is_empty() {
            return Ok(());
        }
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
        let mut prepared = Vec::new();
        let mut all_metrics = Vec::new();
        for webhook in webhooks {
            let clock = core.clock;
            let metrics = WebhookMetrics::new(webhook.name().into(), move || clock.now().millis());
            let metrics = Arc::new(metrics);
            all_metrics.push(Arc::clone(&metrics));
            let whole = PreparedWebhook::prepare(webhook, parts.clone(), (&reset, from), metrics);
            prepared.push(whole.await?);
        }
        core.metrics.set_webhooks(all_metrics);
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
