//! The options and the log of the program, for REST callers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearthmq::{
    config::Config,
    http::{InvalidLogFilter, OptionInForce, Program},
};
use tracing_subscriber::EnvFilter;

use super::log::LogFilter;

/// The options in force, and the filter of the log.
pub(super) struct RunningProgram {
    config: Mutex<Config>,
    log: LogFilter,
}

impl RunningProgram {
    pub(super) fn new(config: Config, log: LogFilter) -> Arc<Self> {
        Arc::new(Self { config: Mutex::new(config), log })
    }

    /// Replaces the options, after a reload.
    pub(super) fn set_config(&self, config: Config) {
        *self.config() = config;
    }

    fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Program for RunningProgram {
    fn options(&self) -> Vec<OptionInForce> {
        self.config().options_in_force()
    }

    fn log_filter(&self) -> String {
        self.log.current()
    }

    fn set_log_filter(&self, filter: &str) -> Result<(), InvalidLogFilter> {
        EnvFilter::try_new(filter).map_err(|_| InvalidLogFilter)?;
        self.log.set(filter).map_err(|_| InvalidLogFilter)
    }
}
