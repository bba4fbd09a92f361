//! Sends the stored batches of one webhook, one at a time, until its endpoint has taken each.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep};

use super::{
    PresenceSource,
    backlog::WebhookBacklog,
    endpoint::{MessageTaker, NotTaken},
};
use crate::{metrics::WebhookMetrics, told};

/// The time to the second attempt, up to twice as long.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest time between two attempts, up to twice as long; the endpoint may ask for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The longest time that an endpoint may ask for by `Retry-After`.
pub(super) const ASKED_FOR_MAX: Duration = Duration::from_secs(3_600);
/// The minimum interval between two log lines about one endpoint that fails.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The half of a webhook that sends.
pub(super) struct Courier {
    pub(super) name: Arc<str>,
    /// Host and port of the endpoint, for log lines.
    pub(super) host: Box<str>,
    pub(super) backlog: Arc<WebhookBacklog>,
    pub(super) presence: Arc<dyn PresenceSource>,
    pub(super) endpoint: Box<dyn MessageTaker>,
    pub(super) metrics: Arc<WebhookMetrics>,
}

/// An endpoint that does not take messages at present.
struct Outage {
    since: Instant,
    waits: ExponentialBackoff,
}

impl Outage {
    fn begin() -> Self {
        let waits = ExponentialBuilder::new()
            .with_min_delay(RETRY_AFTER)
            .with_max_delay(RETRY_AFTER_MAX)
            .without_max_times()
            .with_jitter();
        Self { since: Instant::now(), waits: waits.build() }
    }
}

impl Courier {
    /// Sends until it is dropped.
    pub(super) async fn run(&self) {
        let mut outage: Option<Outage> = None;
        let mut told_at: Option<Instant> = None;
        loop {
            // The first message stays first until it is taken, which keeps the order of events.
            let message = self.backlog.next().await;
            match self.endpoint.post(&message).await {
                Ok(()) => {
                    if let Some(outage) = outage.take() {
                        let secs = outage.since.elapsed().as_secs();
                        tracing::info!(
                            webhook = &*self.name,
                            peer = &*self.host,
                            secs,
                            "the endpoint of a webhook takes events again"
                        );
                    }
                    // Removed after the answer: a crash in between repeats the message, and loses none.
                    self.backlog.take(&message.message_id).await;
                }
                Err(failed) => {
                    self.metrics.failed.increment();
                    // One outage has one beginning, from which its waits grow.
                    let outage = outage.get_or_insert_with(Outage::begin);
                    // Once in a while, because every attempt fails in the same way.
                    if told_at.is_none_or(|at| at.elapsed() >= TOLD_AGAIN_AFTER) {
                        told_at = Some(Instant::now());
                        self.tell(&failed);
                    }
                    self.wait(outage, failed.retry_after).await;
                }
            }
        }
    }

    /// Waits until the next attempt, and drops events that have become too old meanwhile.
    async fn wait(&self, outage: &mut Outage, asked_for: Option<Duration>) {
        let next = outage.waits.next().unwrap_or(RETRY_AFTER_MAX);
        sleep(next.max(asked_for.unwrap_or_default().min(ASKED_FOR_MAX))).await;
        if self.backlog.is_over_bounds()
            && let Some(reset) = self.presence.reset()
        {
            self.backlog.cut(&reset).await;
        }
    }

    fn tell(&self, failed: &NotTaken) {
        let why = told::cut(&failed.why);
        let why: &str = &why;
        tracing::warn!(
            webhook = &*self.name,
            peer = &*self.host,
            why,
            "the endpoint of a webhook does not take events; they are sent again"
        );
    }
}
