//! `hearthmq run`: from the configuration to a clean end.

use std::io::{self, IsTerminal as _};

use actix_web::rt::System;
use hearthmq::{
    config::{Config, LogConfig, LogFormat},
    store::{DirectoryStore, StoreOptions},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{
    Failure, Options, first_start, open_files, print,
    serve::{Serving, StartError},
};

/// Runs the broker until somebody ends it.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let mut config = options.load()?;
    start_log(&config.log);
    let too_few_files = open_files::fit(&mut config);
    let system = System::new();
    system.block_on(ignore_file_limit()).map_err(StartError::Signals)?;
    let options = StoreOptions {
        cache_bytes: config.store.cache_bytes,
        free_bytes_min: config.store.free_bytes_min,
    };
    let store = DirectoryStore::open_with(&config.data_dir, options)?;
    if let Some(welcome) = first_start::make_account(&config)? {
        print(&welcome)?;
    }
    system.block_on(serve(&config, store, too_few_files))
}

/// A write that would pass the limit of a file's size fails, which the store tells and survives; the
/// signal that comes with it would end the process. Once it is received, it always is.
async fn ignore_file_limit() -> io::Result<()> {
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

async fn serve(
    config: &Config,
    store: DirectoryStore,
    too_few_files: Option<String>,
) -> Result<(), Failure> {
    let mut signals = Signals::listen().map_err(StartError::Signals)?;
    let serving = Serving::start(config, store).await?;
    if let Some(warning) = too_few_files {
        tracing::warn!("{warning}");
    }
    while signals.next().await == Request::Reload {
        serving.reload();
    }
    tracing::info!(
        deadline_secs = config.shutdown_deadline_secs,
        "shutting down; a second signal ends the broker at once"
    );
    actix_web::rt::spawn(async move {
        while signals.next().await != Request::End {}
        #[expect(clippy::exit, reason = "who asks twice does not want to wait for anything")]
        std::process::exit(1);
    });
    serving.shut_down().await;
    tracing::info!("ended");
    Ok(())
}

/// What somebody wants who sends a signal.
#[derive(PartialEq, Eq)]
enum Request {
    /// SIGHUP: read accounts, permissions and TLS files again.
    Reload,
    /// SIGTERM or SIGINT.
    End,
}

struct Signals {
    hang_up: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.hang_up.recv() => Request::Reload,
            _ = self.terminate.recv() => Request::End,
            _ = self.interrupt.recv() => Request::End,
        }
    }
}

fn start_log(config: &LogConfig) {
    // The store's database tells how it is opened; who wants to read that asks for it. That it could
    // not be written the broker says itself, once and not at each try.
    let filter = format!("fjall=warn,fjall::batch=off,lsm_tree=warn,{}", config.filter);
    let filter = EnvFilter::new(filter); // found right when the configuration was read
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .log_internal_errors(false) // it would panic where standard error is closed
        .with_ansi(io::stderr().is_terminal());
    match config.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
