//! Metrics of webhooks. `webhooks` counts; this module only names the numbers.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeMetric as _,
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

use super::{
    Metrics,
    cells::{Counter, Gauge},
    encode::TextWriter,
};

/// The numbers of one webhook.
#[non_exhaustive]
pub struct WebhookMetrics {
    name: Arc<str>,
    /// Events that the endpoint has not taken yet.
    pub pending: Gauge,
    /// Bytes of the batches that are stored for the endpoint.
    pub pending_bytes: Gauge,
    /// When the oldest of them was gathered, in milliseconds since the Unix epoch; 0 if there is none.
    pub oldest_at: Gauge,
    /// Events that the endpoint has taken.
    pub delivered: Counter,
    /// Attempts that failed.
    pub failed: Counter,
    /// Events that were dropped because the backlog had reached its bounds.
    pub cut: Counter,
    /// Returns the milliseconds since the Unix epoch.
    now: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl WebhookMetrics {
    /// Creates the metrics of a webhook; `now` returns the milliseconds since the Unix epoch.
    pub(crate) fn new(name: Arc<str>, now: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            name,
            pending: Gauge::default(),
            pending_bytes: Gauge::default(),
            oldest_at: Gauge::default(),
            delivered: Counter::default(),
            failed: Counter::default(),
            cut: Counter::default(),
            now: Box::new(now),
        }
    }

    /// Returns the name of the webhook.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the age of the oldest event that the endpoint has not taken; zero if there is none.
    #[must_use]
    pub fn oldest_age(&self) -> Duration {
        match self.oldest_at.value() {
            0 => Duration::ZERO,
            at => Duration::from_millis((self.now)().saturating_sub(at)),
        }
    }
}

impl fmt::Debug for WebhookMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookMetrics").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Returns the metrics of the webhooks, in the order in which these were added.
    #[must_use]
    pub fn webhooks(&self) -> &[Arc<WebhookMetrics>] {
        self.webhooks.get().map_or(&[], |webhooks| webhooks)
    }

    /// Sets the metrics of the webhooks; only the first call has an effect.
    pub(crate) fn set_webhooks(&self, webhooks: Vec<Arc<WebhookMetrics>>) {
        drop(self.webhooks.set(webhooks.into()));
    }
}

impl TextWriter<'_, '_> {
    pub(super) fn webhooks(&mut self, metrics: &Metrics) -> fmt::Result {
        let all = metrics.webhooks();
        // Without webhooks the families are left out, and a scrape is shorter.
        if all.is_empty() {
            return Ok(());
        }
        let counted = |of: fn(&WebhookMetrics) -> &Counter| -> Vec<_> {
            all.iter().map(|one| ([("webhook", one.name().to_owned())], of(one).value())).collect()
        };
        let help = "Events that endpoints have taken, by webhook";
        self.family("webhook_delivered", help, &counted(|one| &one.delivered))?;
        let help = "Attempts to send that failed, by webhook";
        self.family("webhook_failed", help, &counted(|one| &one.failed))?;
        let help = "Events dropped because a backlog had reached its bounds, by webhook";
        self.family("webhook_cut", help, &counted(|one| &one.cut))?;
        let help = "Events that endpoints have not taken yet, by webhook";
        self.of_webhooks(("webhook_pending", None), help, all, |one| one.pending.value())?;
        let help = "Bytes of events that are stored for endpoints, by webhook";
        self.of_webhooks(("webhook_pending_bytes", None), help, all, |one| {
            one.pending_bytes.value()
        })?;
        let help = "Age of the oldest event that an endpoint has not taken, by webhook";
        let name = ("webhook_oldest_age", Some(&Unit::Seconds));
        self.of_webhooks(name, help, all, |one| one.oldest_age().as_secs())
    }

    fn of_webhooks(
        &mut self,
        (name, unit): (&str, Option<&Unit>),
        help: &str,
        all: &[Arc<WebhookMetrics>],
        of: impl Fn(&WebhookMetrics) -> u64,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for one in all {
            let value = i64::try_from(of(one)).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&[("webhook", one.name())])?)?;
        }
        Ok(())
    }
}
