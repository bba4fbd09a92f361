//! Builds the broker of a configuration: accounts, permissions, TLS, listeners, REST.

use std::{env, io, path::Path, sync::Arc, time::Duration};

use hearthmq::{
    Broker,
    actors::SyncPolicy,
    auth::FilePolicy,
    config::{BridgeConfig, Config},
    http::{Api, Program, Server, ServerOptions},
    store::DirectoryStore,
};
use tokio::time::{Instant, timeout_at};

use super::{
    control::ControlSocket,
    crl::fetch_missing,
    http::{api_options, http_listeners, http_proxies},
    listeners::mqtt_listeners,
    serve_error::ServeError,
    sources::Sources,
    tell_reread,
    tls::TlsSources,
};

/// How long an export waits for changes on their way to the store.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(30);

/// The running broker with all its listeners.
pub(super) struct Serving {
    broker: Broker,
    api: Api,
    http: Server,
    /// URLs of the listeners for HTTPS.
    https: Vec<String>,
    sources: Sources,
    policy: Arc<FilePolicy>,
    tls: TlsSources,
    control: Option<ControlSocket>,
}

impl Serving {
    /// Starts everything; returns once every listener is bound.
    pub(super) async fn start(config: &Config, store: DirectoryStore) -> Result<Self, ServeError> {
        let sources = Sources::open(config)?;
        let policy = Arc::new(FilePolicy::open(config.policy_file())?);
        // Before TLS is opened, which reads the fetched lists like files of the operator.
        fetch_missing(config)?;
        let mut tls = TlsSources::default();
        // Bound before the broker starts, so that a wrong address fails at once.
        let listeners = http_listeners(config, &mut tls)?;
        let store = Arc::new(store);
        let kept = store.clone();
        let broker = Self::start_broker(config, (&sources, &policy), kept, &mut tls).await?;
        // After the store is read, which has the revoked certificates.
        tls.refuse_revoked(broker.revoked_certificates());
        let control = start_control(&config.data_dir, store, &broker);
        // With the ports that are bound: a configured port can be 0.
        let https = listeners.iter().filter(|one| one.tls.is_some());
        let https = https.map(hearthmq::http::Listener::url).collect::<Result<Vec<_>, _>>();
        let https = https.map_err(ServeError::Http)?;
        let api = broker.api(&api_options(config, &https));
        let urls: Vec<_> = listeners.iter().filter_map(|one| one.url().ok()).collect();
        let options = ServerOptions::from(&config.http);
        let http = Server::start(&api, listeners, &options).map_err(ServeError::Http)?;
        if urls.is_empty() {
            tracing::info!("no HTTP listener: REST, health and metrics are not served");
        }
        for url in urls {
            tracing::info!("listening on {url}");
        }
        // The watches begin last: before this, a change is part of the start.
        actix_web::rt::spawn(tls.clone().watch(broker.clone()));
        sources.watch();
        actix_web::rt::spawn(tls.clone().refresh_lists(broker.clone()));
        Ok(Self { broker, api, http, https, sources, policy, tls, control })
    }

    async fn start_broker(
        config: &Config,
        (sources, policy): (&Sources, &Arc<FilePolicy>),
        store: Arc<DirectoryStore>,
        tls: &mut TlsSources,
    ) -> Result<Broker, ServeError> {
        let mut builder = Broker::builder()
            .node(&config.node)
            .shards(config.shards.into())
            .response_topic_prefix(&config.mqtt.response_topic_prefix)
            .sys_interval(Duration::from_secs(config.mqtt.sys_interval_secs.into()))
            .limits(config.limits.clone())
            .client_lines(config.log.clients)
            .authenticator(sources.chain())
            .authorizer(Arc::clone(policy))
            .shared_store(store)
            .sync(SyncPolicy::from(&config.store));
        if let Some(users) = sources.stored_users(config) {
            builder = builder.stored_users(users);
        }
        for listener in mqtt_listeners(config, tls)? {
            builder = builder.listen(listener);
        }
        // The files of webhooks and bridges are read now, so that a fault ends the start.
        for webhook in &config.webhook {
            builder = builder.webhook(webhook.webhook()?);
        }
        // The variables of OpenTelemetry count beside the file.
        if let Some(otlp) = config.otlp.export(|name| env::var(name).ok())? {
            builder = builder.otlp(otlp);
        }
        for bridge in &config.bridges {
            builder = builder.bridge(bridge.bridge()?);
        }
        #[cfg(feature = "cluster")]
        if let Some(settings) = config.cluster_settings()? {
            builder = builder.cluster(settings);
        }
        let broker = builder.start().await?;
        // After the start: only then the port of a listener on port 0 is known.
        for url in broker.listener_urls() {
            tracing::info!("listening on {url}");
        }
        Ok(broker)
    }

    /// Applies the login options of the configuration. Reads accounts and permissions again.
    pub(super) fn change_logins(&self, config: &Config) {
        self.sources.change(config);
        tell_reread("permissions", self.policy.reload_from(config.policy_file()));
    }

    /// Applies the options of the MQTT listeners, and of `$SYS` and Response Topics.
    pub(super) fn change_mqtt(&self, config: &Config) {
        let mqtt = &config.mqtt;
        self.broker.set_sys_interval(Duration::from_secs(mqtt.sys_interval_secs.into()));
        let prefix = self.broker.set_response_topic_prefix(&mqtt.response_topic_prefix);
        if let Err(error) = prefix {
            tracing::error!(%error, "the prefix of Response Topics stays as it was");
        }
        match mqtt_listeners(config, &mut self.tls.clone()) {
            Ok(listeners) => self.broker.set_listeners(&listeners),
            Err(error) => tracing::error!(%error, "the listeners stay as they were"),
        }
    }

    /// Applies the secrets of the webhooks. Reads their files again.
    pub(super) fn change_webhooks(&self, config: &Config) {
        for webhook in &config.webhook {
            let name = &*webhook.name;
            let outcome = webhook.all_secrets().map_err(|error| error.to_string());
            let outcome = outcome.and_then(|secrets| {
                let count = secrets.len();
                let set = self.broker.set_webhook_secrets(name, secrets);
                set.map(|()| count).map_err(|error| error.to_string())
            });
            // A fault of one webhook leaves the others with their new secrets.
            match outcome {
                Ok(secrets) => {
                    tracing::info!(webhook = name, secrets, "secrets of a webhook read again");
                }
                Err(error) => {
                    let error = &*error;
                    tracing::error!(
                        webhook = name,
                        error,
                        "secrets of a webhook stay as they were"
                    );
                }
            }
        }
    }

    /// Applies the bridges, in the background: one that has changed says goodbye first. Reads their files
    /// again.
    pub(super) fn change_bridges(&self, config: &Config) {
        let bridges =
            config.bridges.iter().map(BridgeConfig::bridge).collect::<Result<Vec<_>, _>>();
        let broker = self.broker.clone();
        match bridges {
            Err(error) => tracing::error!(%error, "the bridges stay as they were"),
            Ok(bridges) => drop(actix_web::rt::spawn(async move {
                match broker.set_bridges(bridges).await {
                    Ok(()) => tracing::info!("bridges read again"),
                    Err(error) => tracing::error!(%error, "the bridges stay as they were"),
                }
            })),
        }
    }

    /// Applies the options of HTTP.
    pub(super) fn change_http(&self, config: &Config) {
        self.api.set_options(&api_options(config, &self.https));
        self.http.set_options(&ServerOptions::from(&config.http));
        self.http.set_proxies(http_proxies(config));
    }

    /// Shows the options and the log of the program to REST callers.
    pub(super) fn show(&self, program: Arc<dyn Program>) {
        self.api.set_program(program);
    }

    pub(super) const fn tls(&self) -> &TlsSources {
        &self.tls
    }

    pub(super) const fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Ends everything, within this time.
    pub(super) async fn shut_down(self, time: Duration) {
        let deadline = Instant::now() + time;
        self.api.set_ready(false);
        // The broker does not wait for an export in progress.
        let control = self.control;
        let control_ended = actix_web::rt::task::spawn_blocking(move || drop(control));
        self.broker.shutdown(time).await;
        drop(timeout_at(deadline, control_ended).await);
        let graceful = self.http.stop(true);
        if timeout_at(deadline, graceful).await.is_err() {
            tracing::warn!("HTTP calls were still under way at the deadline");
            self.http.stop(false).await;
        }
    }
}

/// Starts the socket for exports. If it cannot be created, the broker runs without it.
fn start_control(
    data_dir: &Path,
    store: Arc<DirectoryStore>,
    broker: &Broker,
) -> Option<ControlSocket> {
    let broker = broker.clone();
    let flush = Box::new(move || broker.flush_store(FLUSH_TIME_MAX));
    let control = ControlSocket::start(data_dir, store, flush);
    let tell = |error: &io::Error| {
        tracing::warn!(%error, "`hearthmq store export` will work only while the broker is stopped");
    };
    control.inspect_err(tell).ok()
}
