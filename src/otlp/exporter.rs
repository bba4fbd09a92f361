//! The thread that exports: metrics at an interval, spans in batches.
//!
//! A collector that does not answer stops this thread alone. A batch of spans is tried
//! again, as OTLP says, while the next ones wait in their bounded queue; metrics are sent again at the
//! next interval.

use std::{sync::Arc, thread, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use prost::Message;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Otlp, OtlpError, families, traces,
    wire::{ExportAnswer, KeyValue, Resource, Scope},
};
use crate::{
    metrics::{Metrics, OtlpMetrics, OtlpSignal, SpanLoss},
    outbound::{self, ServiceAnswer, ServiceCaller, TlsFault, said},
    spans::{Tracer, nanos_now},
};

/// How long spans wait for a batch to fill.
const BATCH_DELAY: Duration = Duration::from_secs(2);
/// Attempts to export a batch of spans.
const ATTEMPTS: u32 = 4;
/// The time before the second attempt; each later one waits twice as long.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest time that a collector may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Maximum bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long the export of the last values may take when the broker ends.
const LAST_TIME_MAX: Duration = Duration::from_secs(2);

/// Exports until it is stopped.
pub(super) struct Exporter {
    caller: ServiceCaller,
    options: Otlp,
    resource: Resource,
    tracer: Option<Arc<Tracer>>,
    metrics: Arc<Metrics>,
    counts: Arc<OtlpMetrics>,
    began: u64,
    ending: CancellationToken,
}

/// Why a batch was not exported.
struct NotExported {
    why: String,
    /// Whether another attempt may succeed, and when.
    again_after: Option<Option<Duration>>,
}

impl Exporter {
    pub(super) fn new(
        options: Otlp,
        node: &str,
        tracer: Option<Arc<Tracer>>,
        metrics: Arc<Metrics>,
        counts: Arc<OtlpMetrics>,
    ) -> Result<Self, OtlpError> {
        let is_encrypted = options.endpoint.is_encrypted();
        // Made at the start, so that a system without authorities is an error there and not at the
        // first export.
        let tls = outbound::tls_config(options.authorities.as_deref(), is_encrypted);
        let tls = tls.map_err(|fault| match fault {
            TlsFault::NoAuthorities(why) => OtlpError::NoAuthorities(why),
            TlsFault::Tls(error) => OtlpError::Tls(error),
        })?;
        Ok(Self {
            caller: ServiceCaller::new(tls, 2),
            resource: resource(&options, node),
            options,
            tracer,
            metrics,
            counts,
            began: nanos_now(),
            ending: CancellationToken::new(),
        })
    }

    /// Starts the thread; returns it, and the token that stops it.
    pub(super) fn start(self) -> Result<(thread::JoinHandle<()>, CancellationToken), OtlpError> {
        let ending = self.ending.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(OtlpError::Thread)?;
        let builder = thread::Builder::new().name("otlp".to_owned());
        let run = move || runtime.block_on(self.run());
        Ok((builder.spawn(run).map_err(OtlpError::Thread)?, ending))
    }

    async fn run(self) {
        tokio::join!(self.export_metrics(), self.export_spans());
        let last = async {
            if self.options.metrics_interval.is_some() {
                self.send_metrics(&mut None).await;
            }
            if let Some(tracer) = &self.tracer {
                tracer.end_old_deliveries(true);
                while self.send_spans(tracer, 1, &mut None).await {}
            }
        };
        let _ = timeout(LAST_TIME_MAX, last).await;
    }

    async fn export_metrics(&self) {
        let Some(every) = self.options.metrics_interval else { return };
        // The first export comes after one interval.
        let mut interval = interval_at(Instant::now() + every, every);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trouble = None;
        loop {
            tokio::select! {
                () = self.ending.cancelled() => return,
                _ = interval.tick() => {}
            }
            // The end of the broker interrupts a slow collector too; the last export has its own time.
            tokio::select! {
                () = self.ending.cancelled() => return,
                () = self.send_metrics(&mut trouble) => {}
            }
        }
    }

    async fn export_spans(&self) {
        let Some(tracer) = &self.tracer else { return };
        let mut trouble = None;
        loop {
            tokio::select! {
                () = self.ending.cancelled() => return,
                () = tracer.full_batch() => {}
                // A batch that is not full is sent after a while, so that traces can be seen soon.
                () = sleep(BATCH_DELAY) => {}
            }
            tracer.end_old_deliveries(false);
            // All batches that are there, before the next wait.
            let all = async { while self.send_spans(tracer, ATTEMPTS, &mut trouble).await {} };
            tokio::select! {
                () = self.ending.cancelled() => return,
                () = all => {}
            }
        }
    }

    async fn send_metrics(&self, trouble: &mut Option<ToldTrouble>) {
        let period = families::Period { began: self.began, now: nanos_now() };
        let text = self.metrics.encode();
        let request = families::request(&text, period, self.resource.clone(), scope());
        let outcome = self.post("/v1/metrics", request.encode_to_vec().into()).await;
        if outcome.is_err() {
            self.counts.failed(OtlpSignal::Metrics);
        }
        self.tell(OtlpSignal::Metrics, outcome.map(drop).map_err(|error| error.why), trouble);
    }

    /// Sends a batch of spans; returns whether there may be more.
    async fn send_spans(
        &self,
        tracer: &Tracer,
        attempts: u32,
        trouble: &mut Option<ToldTrouble>,
    ) -> bool {
        let spans = tracer.take();
        let count = spans.len();
        if count == 0 {
            return false;
        }
        // Counted as lost until the collector has them, so that an attempt that is cut off counts.
        let mut batch = Batch { counts: &self.counts, left: count };
        let request = traces::request(spans, self.resource.clone(), scope());
        let body = Bytes::from(request.encode_to_vec());
        let mut delay = FIRST_DELAY;
        for attempt in 1..=attempts {
            match self.post("/v1/traces", body.clone()).await {
                Ok(rejected) => {
                    let taken = count.saturating_sub(usize::try_from(rejected).unwrap_or(0));
                    self.counts.exported(taken);
                    batch.left = count - taken;
                    self.tell(OtlpSignal::Traces, Ok(()), trouble);
                    break;
                }
                Err(NotExported { why, again_after }) => {
                    self.counts.failed(OtlpSignal::Traces);
                    self.tell(OtlpSignal::Traces, Err(why), trouble);
                    // The last attempt, or an error that would come again.
                    let Some(asked_for) = again_after.filter(|_| attempt < attempts) else { break };
                    sleep(asked_for.unwrap_or(delay).min(RETRY_AFTER_MAX)).await;
                    // Doubled, unless the collector says when to come again.
                    delay *= 2;
                }
            }
        }
        true
    }

    /// Posts a request; returns how many spans or points the collector has rejected.
    async fn post(&self, path: &str, body: Bytes) -> Result<i64, NotExported> {
        let request = self.request(self.options.endpoint.below(path), body);
        let time_max = self.options.timeout;
        let answer = self.caller.call(request, time_max, ANSWER_BYTES_MAX).await;
        outcome(
            answer.map_err(|failure| NotExported { why: failure.why, again_after: Some(None) })?,
        )
    }

    fn request(&self, uri: Uri, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, outbound::AGENT);
        for (name, value) in &self.options.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(body)).expect("these are headers")
    }

    /// Logs that the export began to fail, and that it works again.
    fn tell(
        &self,
        signal: OtlpSignal,
        outcome: Result<(), String>,
        trouble: &mut Option<ToldTrouble>,
    ) {
        let (signal, collector) = (signal.name(), self.options.endpoint.host());
        // Logged at the change only, because each export fails in the same way.
        match (outcome, trouble.is_some()) {
            (Err(why), false) => {
                tracing::warn!(collector, signal, why = &*why, "the collector refuses data");
                *trouble = Some(ToldTrouble);
            }
            (Ok(()), true) => {
                tracing::info!(collector, signal, "the collector accepts data again");
                *trouble = None;
            }
            (Err(_), true) | (Ok(()), false) => {}
        }
    }
}

/// The export fails at present, and the log says so.
struct ToldTrouble;

/// Spans that the collector has not taken; counted when this is dropped.
struct Batch<'c> {
    counts: &'c OtlpMetrics,
    left: usize,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.counts.lost(SpanLoss::NotTaken, self.left);
    }
}

/// Reads an answer. The specification of OTLP says which failures are worth another attempt.
fn outcome(answer: ServiceAnswer) -> Result<i64, NotExported> {
    let ServiceAnswer { status, headers, body } = answer;
    if status.is_success() {
        // An answer that cannot be read is a success, because its status says so.
        let answer = ExportAnswer::decode(body).unwrap_or_default();
        return Ok(answer.partial_success.unwrap_or_default().rejected.max(0));
    }
    let may_try_again = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    let asked_for = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let again_after = may_try_again.then(|| asked_for.map(Duration::from_secs));
    Err(NotExported { why: said(status), again_after })
}

/// Returns the resource of all values: this broker. Configured attributes replace the broker's own.
fn resource(options: &Otlp, node: &str) -> Resource {
    let known = [
        ("service.name", &*options.service_name),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", node),
    ];
    let given = &options.resource;
    // The name of the service has an option of its own.
    let is_given = |name: &str| name != "service.name" && given.iter().any(|(key, _)| key == name);
    let known = known.into_iter().filter(|(name, _)| !is_given(name));
    let mut attributes: Vec<_> = known.map(|(key, value)| KeyValue::text(key, value)).collect();
    let further = given.iter().filter(|(key, _)| key != "service.name");
    attributes.extend(further.map(|(key, value)| KeyValue::text(key, value)));
    Resource { attributes }
}

fn scope() -> Scope {
    Scope { name: "hearthmq".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}
