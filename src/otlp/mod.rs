//! Metrics and traces to an OpenTelemetry collector, by OTLP over HTTP in Protocol Buffers.
//!
//! ```text
//! metrics ─── at an interval ──┐
//! spans ── queue ── batches ───┴─ exporter, a thread of its own ──▶ collector
//! ```
//!
//! Metrics are those of `/metrics`, with the same names; nothing is counted twice. Which messages and
//! calls are traced is decided by [`TraceOptions`] and by their callers. Knows neither shards nor the
//! configuration.

mod exporter;
mod families;
mod options;
#[cfg(test)]
mod tests;
mod traces;
mod wire;

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use tokio_util::sync::CancellationToken;

use self::exporter::Exporter;
pub use self::options::{Otlp, OtlpError, OtlpUrl};
pub use crate::spans::TraceOptions;
use crate::{
    metrics::{Metrics, OtlpMetrics},
    spans::Tracer,
};

/// An export that is ready to start.
pub(crate) struct PreparedOtlp {
    exporter: Exporter,
    tracer: Option<Arc<Tracer>>,
}

impl PreparedOtlp {
    /// Prepares the export of these metrics, and of spans; connects to nothing yet.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(crate) fn new(
        options: Otlp,
        node: &str,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, OtlpError> {
        let counts = Arc::new(OtlpMetrics::default());
        metrics.set_otlp(Arc::clone(&counts));
        let tracer = options.traces.clone().map(|traces| {
            // Without random numbers of the system, identifiers still differ within this process.
            let mut seed = [0; 8];
            let _ = getrandom::fill(&mut seed);
            Tracer::new(traces, Arc::clone(&counts), u64::from_le_bytes(seed))
        });
        let exporter = Exporter::new(options, node, tracer.clone(), Arc::clone(metrics), counts)?;
        Ok(Self { exporter, tracer })
    }

    /// Returns the tracer, which makes spans; `None` if nothing is traced.
    pub(crate) fn tracer(&self) -> Option<&Arc<Tracer>> {
        self.tracer.as_ref()
    }

    /// Starts the thread of the export.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(crate) fn start(self) -> Result<RunningOtlp, OtlpError> {
        let (thread, ending) = self.exporter.start()?;
        Ok(RunningOtlp { thread: Mutex::new(Some(thread)), ending })
    }
}

/// The thread of the export. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct RunningOtlp {
    thread: Mutex<Option<JoinHandle<()>>>,
    ending: CancellationToken,
}

impl RunningOtlp {
    /// Exports the last values, and waits until the thread has ended: a few seconds at most. Blocks.
    pub(crate) fn stop(&self) {
        self.ending.cancel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for RunningOtlp {
    fn drop(&mut self) {
        self.ending.cancel();
    }
}
