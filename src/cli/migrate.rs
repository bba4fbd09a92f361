//! `hearthmq import mosquitto`: makes the files of HearthMQ from the configuration of Mosquitto, and
//! reports what it could not take over.
//!
//! Reads files and writes files; asks no broker. Nothing is made that allows more than Mosquitto does:
//! what a rule cannot express is reported and left out.

mod accounts;
mod acl;
mod bridge_topics;
mod bridges;
mod conf;
mod dynamic_security;
mod listeners;
mod options;
mod report;
mod rules;
mod security;
mod settings;

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use hearthmq::{
    auth::{generate_password, set_password},
    config::Config,
};

use self::{
    accounts::MigratedAccounts,
    bridges::{MosquittoBridges, is_of_bridge},
    conf::Line,
    listeners::{Listener, Listening, is_of_listener, take_connections},
    report::Report,
    rules::{NewRule, priority},
    security::{Security, is_of_security},
    settings::MosquittoSettings,
};
use super::{
    Failure,
    files::make_file,
    first_start::{Password, first_password},
    print,
};

/// Ports for REST: the first that no listener of MQTT has.
const HTTP_PORTS: [u16; 4] = [8080, 8081, 8082, 18080];

/// The installations that can be imported.
#[derive(Subcommand)]
pub(super) enum ImportCommand {
    /// Make the configuration, policy and accounts of HearthMQ from those of Mosquitto
    Mosquitto(Arguments),
}

#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration of Mosquitto
    #[arg(long, value_name = "FILE", default_value = "/etc/mosquitto/mosquitto.conf")]
    config: PathBuf,
    /// The configuration to write; policy and accounts are written beside it
    #[arg(long, value_name = "FILE", default_value = "hearthmq.toml")]
    output: PathBuf,
    /// Only report; write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Why an installation cannot be imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum MigrateError {
    #[error(
        "{}: cannot be read: {source}; name files that this user can read, in UTF-8; relative paths \
         start at the working directory",
        path.display()
    )]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: not a file of dynamic security: {problem}", path.display())]
    Malformed { path: PathBuf, problem: String },
    #[error("{}: exists already, and nothing was written; name another --output", path.display())]
    Exists { path: PathBuf },
}

/// The files to write.
struct Outputs {
    config: PathBuf,
    policy: PathBuf,
    users: PathBuf,
    accounts: PathBuf,
}

impl Outputs {
    fn beside(output: &Path) -> Self {
        let config = conf::absolute(output);
        let beside = |extension| config.with_extension(extension);
        let (policy, users) = (beside("policy.toml"), beside("users.toml"));
        Self { policy, users, accounts: beside("users.ndjson"), config }
    }

    fn all(&self) -> [&Path; 4] {
        [&self.config, &self.policy, &self.users, &self.accounts]
    }
}

/// The lines of a configuration, by what they concern.
#[derive(Default)]
struct Installation {
    global: Vec<Line>,
    security: Security,
    /// The default listener, if there is one, and the others, each with its own security options.
    listeners: Vec<(Listener, Security)>,
    bridges: MosquittoBridges,
    has_own_security: bool,
    /// Whether there is no listener but the default one on this machine.
    is_local: bool,
}

pub(super) fn run(command: ImportCommand) -> Result<(), Failure> {
    let ImportCommand::Mosquitto(arguments) = command;
    let outputs = Outputs::beside(&arguments.output);
    for path in outputs.all() {
        // Before anything is read: no file is ever overwritten, not even through a link.
        if !arguments.dry_run && path.symlink_metadata().is_ok() {
            return Err(MigrateError::Exists { path: path.to_owned() }.into());
        }
    }
    let mut report = Report::default();
    let lines = conf::read(&conf::absolute(&arguments.config))?;
    let installation = Installation::sort(lines, &mut report);
    let from = arguments.config.display().to_string();
    let mut accounts = MigratedAccounts::default();
    let mut settings = installation.take(&mut accounts, &mut report)?;
    installation.bridges.take(&outputs.config, &mut settings, &mut report);
    // An imported account of that name keeps its own rights.
    let administrator = if accounts.has("admin") { "hearthmq-admin" } else { "admin" };
    settings.rules.splice(0..0, administration(administrator));
    // Stable, so that rules of one priority keep the order of their source.
    settings.rules.sort_by_key(|rule| rule.priority);
    settings.set("auth", "policy", outputs.policy.display().to_string());
    settings.set("auth", "users", outputs.users.display().to_string());
    let counts = format!(
        "Taken over from {from}: {} accounts, {} rules, {} bridges\n",
        accounts.len(),
        settings.rules.len(),
        settings.bridges.len(),
    );
    // The report comes before any file, also if writing fails.
    print(&(counts + &report.text()))?;
    let is_there = |(path, _): &&(PathBuf, String)| path.symlink_metadata().is_ok();
    if let Some((path, _)) = settings.secrets.iter().find(is_there).filter(|_| !arguments.dry_run) {
        return Err(MigrateError::Exists { path: path.clone() }.into());
    }
    if arguments.dry_run {
        return print("Nothing was written, because of --dry-run.\n");
    }
    write(&outputs, &settings, &accounts, (&from, administrator))
}

/// Returns the rules of the account that administers the broker, as after a first start.
fn administration(name: &str) -> [NewRule; 2] {
    let all = ["connect", "publish", "subscribe", "observe", "control", "administer"];
    let control = NewRule::allow(priority::ADMINISTRATOR, &["publish", "subscribe"]);
    [
        NewRule::allow(priority::ADMINISTRATOR, &all).users([name]),
        control.users([name]).topics(vec!["$control/#".to_owned()]),
    ]
}

fn write(
    outputs: &Outputs,
    settings: &MosquittoSettings,
    accounts: &MigratedAccounts,
    (from, administrator): (&str, &str),
) -> Result<(), Failure> {
    let put = |path: &Path, text: &str, mode| match make_file(path, text, mode)? {
        true => Ok(()),
        false => Err(Failure::from(MigrateError::Exists { path: path.to_owned() })),
    };
    // Before the first file, so that a wrong variable leaves nothing behind.
    let (password, shown) = match first_password()? {
        Password::Given { password, variable } => (password, format!("that of {variable}")),
        Password::ToBeMade => {
            let password = generate_password();
            (password.clone(), format!("{password} (shown only now)"))
        }
    };
    put(&outputs.policy, &rules::policy(&settings.rules, from), 0o644)?;
    put(&outputs.accounts, &accounts.lines(), 0o600)?;
    for (path, secret) in &settings.secrets {
        put(path, secret, 0o600)?;
    }
    set_password(&outputs.users, administrator, &password, None)?;
    put(&outputs.config, &settings.text(from), 0o644)?;
    // Checked as a start would, so that an impossible configuration is noticed now.
    Config::load(Some(&outputs.config), [], &[])?;
    let [config, policy, users, lines] = outputs.all().map(|path| path.display().to_string());
    print(&format!(
        "Written:\n  {config}\n  {policy}\n  {users}: the account {administrator}, password {shown}\n  \
         {lines}: {count} accounts\n{secrets}Next:\n  hearthmq run --config {config}\n  \
         HEARTHMQ_REMOTE_USER={administrator} hearthmq users import {lines}\n",
        count = accounts.len(),
        secrets = settings.secrets.iter().map(|(path, _)| secret_line(path)).collect::<String>(),
    ))
}

fn secret_line(path: &Path) -> String {
    format!("  {}: the password of a bridge\n", path.display())
}

impl Installation {
    /// Sorts the lines by what they concern.
    fn sort(lines: Vec<Line>, report: &mut Report) -> Self {
        let mut all = Self::default();
        // The last line counts, as in Mosquitto, and it decides about lines before it.
        let own = lines.iter().rev().find(|line| line.name == "per_listener_settings");
        all.has_own_security = own.and_then(Line::flag).unwrap_or(false);
        let mut default = Listener::default_of_all();
        let mut default_security = Security::default();
        let mut has_default = false;
        for line in lines {
            let name = line.name.as_str();
            // Options belong to the listener above them.
            let listener = all.listeners.last_mut();
            match name {
                "per_listener_settings" => {}
                "port" | "bind_address" => {
                    has_default = true;
                    default.take_default(&line, report);
                }
                "listener" => {
                    let begun = Listener::begin(&line, report);
                    all.listeners.extend(begun.map(|begun| (begun, Security::default())));
                }
                _ if is_of_bridge(name) => all.bridges.add(line, report),
                _ if is_of_listener(name) => match listener {
                    Some((listener, _)) => listener.lines.push(line),
                    None => default.lines.push(line),
                },
                _ if is_of_security(name) && all.has_own_security => match listener {
                    Some((_, security)) => security.add(line),
                    None => default_security.add(line),
                },
                _ if is_of_security(name) => all.security.add(line),
                _ => all.global.push(line),
            }
        }
        // Without any listener, Mosquitto listens on this machine only.
        all.is_local = all.listeners.is_empty() && !has_default;
        if all.is_local {
            let lines = default.lines;
            default = Listener::default_of_this_machine();
            default.lines = lines;
        }
        if all.is_local || has_default {
            all.listeners.insert(0, (default, default_security));
        }
        all
    }

    /// Takes everything over.
    fn take(
        &self,
        accounts: &mut MigratedAccounts,
        report: &mut Report,
    ) -> Result<MosquittoSettings, Failure> {
        let mut settings = MosquittoSettings::default();
        for line in &self.global {
            options::take(line, &mut settings, report);
        }
        // Replaces the default listener, which Mosquitto did not have.
        settings.set("mqtt", "tcp", Vec::<toml::Value>::new());
        let mut taken: Vec<(Listening, &Security)> = Vec::new();
        let mut with_sockets = Vec::new();
        for (listener, security) in &self.listeners {
            let own = if self.has_own_security { security } else { &self.security };
            let listening = listener.take(own.has_rules(), &mut settings, report);
            if listening.is_some() {
                with_sockets.push(listener);
            }
            taken.extend(listening.map(|listening| (listening, security)));
        }
        take_connections(&with_sockets, &mut settings, report);
        // This option holds for all listeners, so the stricter one decides.
        if taken.iter().any(|(listening, _)| listening.wants_certificate_too) {
            settings.set("auth", "certificate_is_enough", false);
            report.differs(
                None,
                "A client with a certificate and a password must have the Common Name of the \
                 certificate as its user name, on all listeners",
            );
            if taken.iter().any(|(listening, _)| listening.logs_in_by_certificate) {
                report.differs(
                    None,
                    "auth.certificate_is_enough = false holds for all listeners: clients that had a \
                     certificate alone are refused without a password",
                );
            }
        }
        self.take_security(&taken, &mut settings, accounts, report)?;
        self.choose_http_port(&mut settings);
        raise_queues(&mut settings);
        // Last, because it names the limits that no line has set.
        say_defaults(&settings, report);
        Ok(settings)
    }

    fn take_security(
        &self,
        taken: &[(Listening, &Security)],
        settings: &mut MosquittoSettings,
        accounts: &mut MigratedAccounts,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let all: Vec<_> = taken.iter().map(|(listening, _)| listening).collect();
        // Without `per_listener_settings`, one set of options holds for all listeners.
        if !self.has_own_security {
            let parts = (&*settings, accounts, report);
            let secured = self.security.take(&all, true, self.is_local, parts)?;
            settings.set("auth", "anonymous", secured.anonymous);
            settings.set("auth", "anonymous_with_name", secured.any_name);
            settings.rules.extend(secured.rules);
            return Ok(());
        }
        for (listening, security) in taken {
            let parts = (&*settings, &mut *accounts, &mut *report);
            let secured = security.take(&[listening], false, self.is_local, parts)?;
            settings.rules.extend(secured.rules);
            // Per listener, or one that allows anonymous clients would open the others.
            settings.let_anonymous(&listening.address, secured.anonymous);
            // An option of the whole broker, so one listener that needs it decides.
            if secured.any_name {
                settings.set("auth", "anonymous_with_name", true);
            }
        }
        if !accounts.lines().is_empty() {
            report.differs(
                None,
                "An account is one for all listeners; the rules that allow to connect name the users of \
                 each listener",
            );
        }
        Ok(())
    }

    /// REST has a port of its own, which no listener may have already.
    fn choose_http_port(&self, settings: &mut MosquittoSettings) {
        let is_taken = |port: &u16| self.listeners.iter().any(|(one, _)| one.port() == *port);
        let port = HTTP_PORTS.into_iter().find(|port| !is_taken(port)).unwrap_or(0);
        settings.push("http", "listen", &format!("127.0.0.1:{port}"));
    }
}

/// Raises the bytes that may wait for one client where a packet may be larger.
fn raise_queues(settings: &mut MosquittoSettings) {
    const QUEUE_BYTES: i64 = 16_777_216;
    let queue = settings.number("limits", "queue_bytes_per_client_max").unwrap_or(QUEUE_BYTES);
    if let Some(packet) = settings.number("limits", "packet_bytes_max").filter(|size| *size > queue)
    {
        settings.set("limits", "queue_bytes_per_client_max", packet);
    }
}

/// Says which limits have another default.
fn say_defaults(settings: &MosquittoSettings, report: &mut Report) {
    for (key, text) in [
        (
            "packet_bytes_max",
            "A packet has at most 1 MiB (limits.packet_bytes_max); Mosquitto has 256 MiB",
        ),
        (
            "session_expiry_secs_max",
            "A session ends 7 days after its connection (limits.session_expiry_secs_max); with Mosquitto, \
             those of MQTT 3 stay without end",
        ),
    ] {
        if !settings.has("limits", key) {
            report.differs(None, text);
        }
    }
}
