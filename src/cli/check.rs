//! `hearthmq check-config`: checks everything that a start would check, and starts nothing.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use clap::Args;
use hearthmq::{
    auth::{Accounts, FilePolicy},
    config::{BridgeConfig, Config, WebhookConfig},
    net::tls::Alpn,
};
use rustix::fs::{Access, access};

use super::{
    Failure, Options,
    files::Unwritable,
    first_start::{self, Missing},
    listeners::mqtt_listeners,
    note,
    open_files::{self, TooFewFiles},
    print,
    serve_error::ServeError,
    sources::Sources,
    tls::TlsSources,
    warn, warnings,
};

#[derive(Args)]
#[command(after_help = super::PLACES)]
pub(super) struct Arguments {
    /// A TOML file
    #[arg(conflicts_with = "config")]
    file: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

pub(super) fn check_config(mut arguments: Arguments) -> Result<(), Failure> {
    if let Some(file) = arguments.file {
        arguments.options.config = Some(file);
    }
    let config = arguments.options.load()?;
    // Looked at without being created, unlike at a start.
    check_data_dir(&config.data_dir)?;
    let missing = first_start::examine(&config)?;
    if config.policy_file().exists() {
        FilePolicy::open(config.policy_file())?;
    }
    if config.users_file().exists() {
        Accounts::open(&config.users_file())?;
    }
    Sources::check_elsewhere(&config).map_err(ServeError::from)?;
    check_tls(&config)?;
    config.webhook.iter().try_for_each(check_webhook)?;
    config.otlp.export(|name| env::var(name).ok()).map_err(ServeError::from)?;
    config.bridges.iter().try_for_each(check_bridge)?;
    check_addresses(&config)?;
    let mut said = warnings::of(&config);
    let mut noted = None;
    // A copy, because `fit` lowers limits, and the warnings are about the configured ones.
    match open_files::fit(&mut config.clone()) {
        Some(TooFewFiles::Configured(line)) => said.push(line),
        Some(TooFewFiles::Usual(line)) => noted = Some(line),
        None => {}
    }
    // After all checks: warnings above an error would hide it.
    said.iter().for_each(|warning| warn(warning));
    noted.iter().for_each(|line| note(line));
    if matches!(missing, Missing::All(_)) {
        let data_dir = config.data_dir.display();
        note(&format!("{data_dir} is new: the first start creates the account admin and a policy"));
    }
    let file = arguments.options.file();
    let file = file.map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
    print(&format!("{file}: the configuration is valid\n"))
}

/// Checks that the data directory can be written, or, if it is missing, the nearest directory
/// above.
fn check_data_dir(data_dir: &Path) -> Result<(), Unwritable> {
    let absolute = std::path::absolute(data_dir);
    let path = absolute.as_deref().unwrap_or(data_dir);
    let there = path.ancestors().find(|path| fs::symlink_metadata(path).is_ok()).unwrap_or(path);
    let fault = |source| Unwritable { path: data_dir.to_owned(), source };
    if !fs::metadata(there).map_err(fault)?.is_dir() {
        return Err(fault(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| fault(error.into()))
}

fn check_tls(config: &Config) -> Result<(), ServeError> {
    let mut tls = TlsSources::default();
    mqtt_listeners(config, &mut tls)?;
    for address in &config.http.https {
        tls.at(*address, Alpn::Http, config)?;
    }
    Ok(())
}

/// Checks the files that a bridge names. Does not connect to the other broker.
fn check_bridge(bridge: &BridgeConfig) -> Result<(), ServeError> {
    bridge.bridge().map(drop).map_err(ServeError::from)
}

/// Checks the files that a webhook names. Does not connect to its endpoint.
fn check_webhook(webhook: &WebhookConfig) -> Result<(), ServeError> {
    webhook.webhook().map(drop).map_err(ServeError::from)
}

/// Checks that the addresses belong to this machine. Does not check their ports, which a running
/// broker may use.
fn check_addresses(config: &Config) -> Result<(), ServeError> {
    let lists = [
        ("mqtt.tcp", &config.mqtt.tcp),
        ("mqtt.tls", &config.mqtt.tls),
        ("mqtt.websocket", &config.mqtt.websocket),
        ("mqtt.secure_websocket", &config.mqtt.secure_websocket),
        ("http.listen", &config.http.listen),
        ("http.https", &config.http.https),
    ];
    for (key, addresses) in lists {
        for &address in addresses {
            // Port 0 is always free, and binding shows whether the machine has the address.
            let any_port = SocketAddr::new(address.ip(), 0);
            TcpListener::bind(any_port).map_err(|source| ServeError::Listen {
                address,
                key,
                source,
            })?;
        }
    }
    Ok(())
}
