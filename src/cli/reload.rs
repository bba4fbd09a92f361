//! SIGHUP: reads the configuration and its files again while the broker runs, step by step.
//!
//! A step that fails changes nothing and logs the reason; the others continue. Options that cannot
//! change while the broker runs are logged, and keep the value that they had at the start.

use std::sync::Arc;

use hearthmq::{
    Broker,
    config::Config,
    control::{AccessControl as _, AuditEntry},
};

use super::{
    Options,
    log::Log,
    open_files::{self, TooFewFiles},
    program::RunningProgram,
    serve::Serving,
};

/// The state that reloads need.
pub(super) struct Reload {
    /// The sources of the configuration.
    options: Options,
    /// The configuration in force, as given.
    config: Config,
    log: Log,
    /// The options that REST callers see.
    program: Arc<RunningProgram>,
}

/// The objects that a step changes.
struct ReloadParts<'a> {
    serving: &'a Serving,
    log: &'a Log,
    /// The configuration from now on.
    config: &'a Config,
    /// The one before, as given.
    former: &'a Config,
    /// The one from now on, as given.
    applied: &'a Config,
    /// The options that have changed.
    changed: &'a [String],
}

/// The steps of a reload, in order. Each logs its result.
///
/// The first steps apply options, so that the later ones read files by these options.
const STEPS: &[fn(&ReloadParts<'_>)] = &[
    |parts| drop(parts.log.set_filter(&parts.config.log)), // the configuration has told
    |parts| parts.serving.broker().set_client_lines(parts.config.log.clients),
    |parts| parts.serving.broker().set_limits(parts.config.limits.clone()),
    |parts| parts.serving.change_mqtt(parts.config),
    |parts| parts.serving.change_http(parts.config),
    |parts| parts.serving.change_webhooks(parts.config),
    |parts| parts.serving.change_bridges(parts.config),
    |parts| parts.serving.change_logins(parts.config),
    |parts| parts.serving.tls().reload(parts.config),
    note,
    |parts| recheck(parts.serving.broker()), // by all of the above
];

/// Notes the reload in the audit log, with the options that have changed.
fn note(parts: &ReloadParts<'_>) {
    let values = |config: &Config| {
        let values = config.values_for_log(parts.changed);
        (!values.is_empty()).then(|| serde_json::Value::Object(values).to_string())
    };
    let [old, new] = [values(parts.former), values(parts.applied)];
    let mut entry = AuditEntry::new("reload");
    [entry.old, entry.new] = [&old, &new].map(|text| text.as_deref().map(Into::into));
    let [old, new] = [old.as_deref(), new.as_deref()];
    tracing::info!(target: "hearthmq::audit", call = "reload", old, new, "changed");
    parts.serving.broker().note_audit(entry);
}

/// Ends connections and subscriptions that are no longer allowed, in the background.
fn recheck(broker: &Broker) {
    let broker = broker.clone();
    actix_web::rt::spawn(async move {
        let found = broker.recheck().await;
        let (sessions, touched) = (found.sessions, found.touched);
        tracing::info!(sessions, touched, "all sessions checked again");
    });
}

impl Reload {
    pub(super) fn new(options: Options, config: Config, log: Log) -> Self {
        let program = RunningProgram::new(config.clone(), log.filter());
        Self { options, config, log, program }
    }

    /// Shows the options and the log to REST callers. `config` has the options with which the broker was
    /// started.
    pub(super) fn show(&self, config: &Config, serving: &Serving) {
        self.program.set_config(config.clone());
        serving.show(Arc::<RunningProgram>::clone(&self.program));
    }

    /// Returns the configuration in force.
    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    /// Adds the number of dropped log lines to `/metrics`.
    pub(super) fn count_dropped_lines(&self, serving: &Serving) {
        serving.broker().metrics().set_log_dropped(self.log.dropped());
    }

    /// Reads everything again.
    pub(super) fn read_again(&mut self, serving: &Serving) {
        // The steps compare with what was in force, which the next line replaces.
        let former = self.config.clone();
        let changed = self.read_configuration();
        let mut config = self.config.clone();
        // Only a limit that is configured is reported; a default one was reported at the start.
        if let Some(told @ TooFewFiles::Configured(_)) = open_files::fit(&mut config) {
            told.tell();
        }
        let parts = ReloadParts {
            serving,
            log: &self.log,
            config: &config,
            former: &former,
            applied: &self.config,
            changed: &changed,
        };
        for step in STEPS {
            step(&parts);
        }
        // Last, so that callers see options after they are in force.
        self.program.set_config(config);
    }

    /// Applies the changes that can be applied while the broker runs. A configuration with a
    /// mistake changes nothing. Returns the options that have changed.
    fn read_configuration(&mut self) -> Vec<String> {
        let wanted = match self.options.load() {
            Ok(wanted) => wanted,
            Err(error) => {
                tracing::error!("the configuration stays as it was: {error}");
                return Vec::new();
            }
        };
        let change = self.config.change_to(&wanted);
        self.config = change.config;
        tracing::info!(changed = change.changed.join(", "), "configuration read again");
        if !change.needs_restart.is_empty() {
            let options = change.needs_restart.join(", ");
            tracing::warn!(options, "these options have changed and need a restart");
        }
        change.changed
    }
}
