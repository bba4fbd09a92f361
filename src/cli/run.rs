//! `hearthmq run`: from the configuration to a clean end.

use std::{io, time::Duration};

use actix_web::rt::System;
use hearthmq::{
    config::Config,
    store::{DirectoryStore, StoreOptions},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    Failure, Options, first_start,
    huge_pages::WithheldHugePages,
    log::Log,
    notify::Notifier,
    open_files::{self, TooFewFiles},
    print,
    reload::Reload,
    serve::Serving,
    serve_error::ServeError,
    warnings,
};

/// Runs the broker until a signal ends it. `huge_pages` are allowed when it has much memory.
pub(super) fn run(options: &Options, huge_pages: Option<WithheldHugePages>) -> Result<(), Failure> {
    let mut config = options.load()?;
    // First, so that everything after it can be logged.
    let log = Log::start(&config.log).map_err(ServeError::Log)?;
    tell_start(options, &config);
    // Examined before the store is opened, which creates the data directory.
    let missing = first_start::examine(&config)?;
    let given = config.clone(); // a reload compares with it, without the limits lowered below
    // Before any socket or file is opened, so that the plan holds for all of them.
    let too_few_files = open_files::fit(&mut config);
    let system = System::new();
    system.block_on(ignore_file_limit()).map_err(ServeError::Signals)?;
    let store = StoreOptions {
        cache_bytes: config.store.cache_bytes,
        free_bytes_min: config.store.free_bytes_min,
    };
    // Before the first account is made: the lock of the directory keeps a second broker out.
    let store = DirectoryStore::open_with(&config.data_dir, store)?;
    if let Some(welcome) = first_start::make(&config, missing)? {
        print(&welcome)?;
    }
    for warning in warnings::of(&config) {
        tracing::warn!("{warning}");
    }
    let reload = Reload::new(options.clone(), given, log);
    if let Some(huge_pages) = huge_pages {
        system.runtime().spawn(huge_pages.allow_when_large());
    }
    system.block_on(serve(&config, store, reload, too_few_files))
}

/// Logs the first line: the version of the program, its configuration and its data directory.
fn tell_start(options: &Options, config: &Config) {
    let file = options.file().map(|file| file.display().to_string());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        configuration = file.as_deref().unwrap_or("none: every option has its default"),
        data_dir = %config.data_dir.display(),
        "hearthmq starts"
    );
}

/// Ignores SIGXFSZ, which would end the process. A write beyond the file size limit then fails,
/// which the store reports and survives. Once tokio receives a signal, the signal stays caught.
async fn ignore_file_limit() -> io::Result<()> {
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

async fn serve(
    config: &Config,
    store: DirectoryStore,
    mut reload: Reload,
    too_few_files: Option<TooFewFiles>,
) -> Result<(), Failure> {
    // Before the start, which may take long: a signal during it must end the broker cleanly.
    let mut signals = Signals::listen().map_err(ServeError::Signals)?;
    let serving = Serving::start(config, store).await?;
    if let Some(too_few) = too_few_files {
        too_few.tell();
    }
    reload.count_dropped_lines(&serving);
    reload.show(config, &serving);
    let notifier = Notifier::from_environment();
    notifier.ready();
    tokio::select! {
        () = reload_until_end(&mut signals, &mut reload, &serving, &notifier) => {}
        () = notifier.give_signs_of_life(serving.broker()) => {}
    }
    notifier.stopping();
    let deadline_secs = reload.config().shutdown_deadline_secs;
    tracing::info!(deadline_secs, "shutting down; a second signal ends the broker at once");
    // Watches for the second signal while the shutdown below waits for clients.
    actix_web::rt::spawn(async move {
        while signals.next().await != SignalRequest::End {}
        #[expect(clippy::exit, reason = "a second signal asks for an immediate end")]
        std::process::exit(1);
    });
    serving.shut_down(Duration::from_secs(deadline_secs.into())).await;
    tracing::info!("ended");
    Ok(())
}

async fn reload_until_end(
    signals: &mut Signals,
    reload: &mut Reload,
    serving: &Serving,
    notifier: &Notifier,
) {
    while signals.next().await == SignalRequest::Reload {
        notifier.reloading();
        reload.read_again(serving);
        notifier.ready();
    }
}

/// The request behind a signal.
#[derive(PartialEq, Eq)]
enum SignalRequest {
    /// SIGHUP: read the configuration and its files again.
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

    async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            _ = self.hang_up.recv() => SignalRequest::Reload,
            _ = self.terminate.recv() => SignalRequest::End,
            _ = self.interrupt.recv() => SignalRequest::End,
        }
    }
}
