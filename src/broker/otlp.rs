//! Starts and ends the export of metrics and traces.

use std::sync::{Arc, OnceLock};

use tokio::task::spawn_blocking;

use super::{Broker, Running, StartError};
use crate::otlp::{PreparedOtlp, RunningOtlp};

/// The export of a broker; set once it has started.
#[derive(Debug, Default)]
pub(super) struct ExportOfBroker(OnceLock<Arc<RunningOtlp>>);

impl Broker {
    /// Starts the export.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(super) fn start_otlp(&self, prepared: Option<PreparedOtlp>) -> Result<(), StartError> {
        if let Some(prepared) = prepared {
            let set = self.running.otlp.0.set(Arc::new(prepared.start()?));
            debug_assert!(set.is_ok(), "the export starts once");
        }
        Ok(())
    }
}

impl Running {
    /// Exports the last values, once everything else has ended.
    pub(super) async fn end_otlp(&self) {
        if let Some(export) = self.otlp.0.get().cloned() {
            let _ = spawn_blocking(move || export.stop()).await;
        }
    }
}
