//! The log of the program: lines of `tracing` on standard error, as text or JSON.
//!
//! An application that embeds the broker has its own logger and uses none of this.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal as _},
    panic::{self, PanicHookInfo},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use hearthmq::config::{LogConfig, LogFormat};
use tracing_subscriber::{EnvFilter, reload};

use super::log_queue::{LogQueue, THREAD_NAME};

/// How long the end of the program waits for the last lines to be written.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a panic waits until it is written: it may be the last thing that the process does.
const PANIC_TIME_MAX: Duration = Duration::from_millis(500);

type SetFilter = dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync;

/// The filter of the log; it can change at any time. Cheap to clone.
#[derive(Clone)]
pub(super) struct LogFilter {
    reload: Arc<SetFilter>,
    current: Arc<Mutex<String>>,
}

impl LogFilter {
    /// Returns the filter in force.
    pub(super) fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the filter of the log. The filter must be valid.
    ///
    /// # Errors
    /// None while the log exists.
    pub(super) fn set(&self, wanted: &str) -> Result<(), reload::Error> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (self.reload)(filter(wanted))?;
        wanted.clone_into(&mut current);
        Ok(())
    }
}

/// The running log. When it is dropped, at the end of the program, it writes the waiting lines
/// within a time limit.
pub(super) struct Log {
    queue: LogQueue,
    filter: LogFilter,
}

impl Log {
    /// Starts the log, once in a process.
    ///
    /// # Errors
    /// The operating system cannot start a thread for it.
    pub(super) fn start(config: &LogConfig) -> io::Result<Self> {
        let queue = LogQueue::start(io::stderr(), |lines| {
            tracing::warn!(lines, "dropped log lines because standard error is not read");
        })?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter(&config.filter))
            .with_writer(queue.clone())
            .log_internal_errors(false) // it would panic where standard error is closed
            .with_ansi(io::stderr().is_terminal());
        // The two formats have handles of different types, so each becomes a closure.
        let reload: Arc<SetFilter> = if config.format == LogFormat::Json {
            let log = log.json().flatten_event(true).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Arc::new(move |filter| handle.reload(filter))
        } else {
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Arc::new(move |filter| handle.reload(filter))
        };
        // Otherwise a panic would write to standard error itself, and block where nobody reads.
        tell_panics(queue.clone());
        let current = Arc::new(Mutex::new(config.filter.clone()));
        Ok(Self { queue, filter: LogFilter { reload, current } })
    }

    /// Changes the filter of the log.
    ///
    /// # Errors
    /// None while the log exists.
    pub(super) fn set_filter(&self, config: &LogConfig) -> Result<(), reload::Error> {
        self.filter.set(&config.filter)
    }

    /// Returns what changes the filter.
    pub(super) fn filter(&self) -> LogFilter {
        self.filter.clone()
    }

    /// Returns a counter of the lines that were dropped because standard error was not read.
    pub(super) fn dropped(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let queue = self.queue.clone();
        move || queue.dropped()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.finish(FLUSH_TIME_MAX);
    }
}

fn filter(filter: &str) -> EnvFilter {
    // The store's database logs how it is opened; a filter must name it to show that. The broker
    // logs a write error of the store itself, once and not at each try. actix-http logs an error
    // for each malformed request, and rustls a warning for some handshakes, which a stranger can send;
    // the broker itself logs them, up to a limit. async-nats logs answers with their payloads.
    const OTHERS: &str = "actix_http=off,rustls=off,async_nats=off,fjall=warn,fjall::batch=off";
    let filter = format!("{OTHERS},lsm_tree=warn,{filter}");
    EnvFilter::new(filter) // was checked when the configuration was read
}

/// Puts panics into the log, which does not block if standard error is not read. A panic of the
/// log's own thread, and any panic while errors are not logged, goes directly to standard error.
fn tell_panics(queue: LogQueue) {
    let directly = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let is_ours = thread::current().name() == Some(THREAD_NAME);
        if is_ours || !tracing::enabled!(tracing::Level::ERROR) {
            return directly(panic);
        }
        tell_panic(panic);
        queue.flush(PANIC_TIME_MAX);
    }));
}

fn tell_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let said = panic.payload_as_str().unwrap_or("no text");
    let trace = Backtrace::capture(); // if RUST_BACKTRACE asks for it
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    tracing::error!(thread, place, trace, "panic: {said}");
}
