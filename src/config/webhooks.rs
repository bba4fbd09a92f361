//! `[[webhook]]`: an HTTP endpoint that receives the events of presence.
//!
//! Plain data, and the [`Webhook`] that it describes; the command line reads the files.

use std::{fs, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    control::{ClientPattern, FeedFilter, FeedKind},
    webhooks::{Webhook, WebhookBounds, WebhookError, WebhookSecret, WebhookUrl},
};

/// `[[webhook]]`: an endpoint, the events that it gets, and its bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Its name in metrics and log lines, and in the store.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// Whether `http` may lead to another machine.
    pub allow_http: bool,
    /// Secrets, `whsec_…`, each of which signs every message; one or two with `secret_files`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<WebhookSecretText>,
    /// Files with one secret each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_files: Vec<PathBuf>,
    /// A PEM file of the certification authorities that are trusted for it; empty = those of the
    /// system.
    pub ca: PathBuf,
    /// Only clients whose identifier matches this pattern; empty = all.
    pub clients: String,
    /// Only clients of this user; empty = all.
    pub username: String,
    /// Only changes of these kinds; empty = all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Maximum number of events in a batch.
    pub batch_events_max: u16,
    /// Milliseconds that a batch waits for further events.
    pub delay_ms: u16,
    /// Milliseconds that an attempt may take.
    pub timeout_ms: u32,
    /// Maximum bytes of events that wait for the endpoint.
    pub backlog_bytes_max: u64,
    /// Maximum age of an event that waits, in seconds.
    pub backlog_secs_max: u32,
}

/// The text of a secret. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WebhookSecretText(String);

impl std::fmt::Debug for WebhookSecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecretText")
    }
}

impl Default for WebhookConfig {
    fn default() -> Self {
        let bounds = WebhookBounds::default();
        Self {
            name: String::new(),
            url: String::new(),
            allow_http: false,
            secrets: Vec::new(),
            secret_files: Vec::new(),
            ca: PathBuf::new(),
            clients: String::new(),
            username: String::new(),
            kinds: Vec::new(),
            batch_events_max: bounds.batch_events_max as u16,
            delay_ms: bounds.delay.as_millis() as u16,
            timeout_ms: bounds.timeout.as_millis() as u32,
            backlog_bytes_max: bounds.backlog_bytes_max as u64,
            backlog_secs_max: bounds.backlog_age_max.as_secs() as u32,
        }
    }
}

/// An option of a webhook that is invalid, and why.
pub(super) type Fault = (&'static str, String);

impl WebhookConfig {
    /// Returns a table with every option, from which the options can be listed.
    pub(super) fn with_every_option() -> Self {
        Self {
            secrets: vec![WebhookSecretText(String::new())],
            secret_files: vec![PathBuf::new()],
            kinds: vec![String::new()],
            ..Self::default()
        }
    }

    /// Returns the webhook. Reads the files that it names.
    ///
    /// # Errors
    /// A file cannot be read or has no secret or certificate, or an option is invalid.
    pub fn webhook(&self) -> Result<Webhook, WebhookFileError> {
        let invalid = |fault| self.invalid(fault);
        let webhook = self.with_secrets(self.all_secrets()?).map_err(invalid)?;
        match self.ca.as_os_str().is_empty() {
            true => Ok(webhook),
            false => webhook.trusting(&self.ca).map_err(|error| invalid(("ca", error.to_string()))),
        }
    }

    /// Returns the secrets, also those in files. Reads the files.
    ///
    /// # Errors
    /// A file cannot be read or has no secret, or a secret is invalid.
    pub fn all_secrets(&self) -> Result<Vec<WebhookSecret>, WebhookFileError> {
        let invalid = |fault| self.invalid(fault);
        let mut secrets = self.inline_secrets().map_err(invalid)?;
        for path in &self.secret_files {
            let fault =
                |why: String| invalid(("secret_files", format!("{}: {why}", path.display())));
            let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
            secrets.push(text.parse().map_err(|error: WebhookError| fault(error.to_string()))?);
        }
        Ok(secrets)
    }

    fn invalid(&self, (option, why): Fault) -> WebhookFileError {
        WebhookFileError { webhook: self.name.clone(), what: format!("{option}: {why}") }
    }

    /// Takes over the secrets of another table; returns whether they differ.
    pub(super) fn take_secrets(&mut self, other: &Self) -> bool {
        let differ = self.secrets != other.secrets || self.secret_files != other.secret_files;
        self.secrets.clone_from(&other.secrets);
        self.secret_files.clone_from(&other.secret_files);
        differ
    }

    pub(super) fn inline_secrets(&self) -> Result<Vec<WebhookSecret>, Fault> {
        let parse = |WebhookSecretText(text): &WebhookSecretText| text.parse();
        let secrets = self.secrets.iter().map(parse).collect::<Result<Vec<_>, WebhookError>>();
        secrets.map_err(|error| ("secrets", error.to_string()))
    }

    /// Returns the webhook without its files.
    pub(super) fn with_secrets(&self, secrets: Vec<WebhookSecret>) -> Result<Webhook, Fault> {
        let url = match self.allow_http {
            true => WebhookUrl::unencrypted(&self.url),
            false => WebhookUrl::new(&self.url),
        };
        let url = url.map_err(|error| ("url", error.to_string()))?;
        let mut secrets = secrets.into_iter();
        // A webhook without a signature could be forged by anybody who learns its URL.
        let first = secrets.next().ok_or_else(|| {
            ("secrets", "there is none: write secrets or secret_files".to_owned())
        })?;
        let mut webhook =
            Webhook::new(&self.name, url, first).map_err(|error| ("name", error.to_string()))?;
        // Each secret signs, so that a receiver can go over from one to the next.
        for secret in secrets {
            let added = webhook.also_signed_with(secret);
            webhook = added.map_err(|error| ("secrets", error.to_string()))?;
        }
        let bounds = WebhookBounds {
            batch_events_max: self.batch_events_max.into(),
            delay: Duration::from_millis(self.delay_ms.into()),
            timeout: Duration::from_millis(self.timeout_ms.into()),
            backlog_bytes_max: usize::try_from(self.backlog_bytes_max).unwrap_or(usize::MAX),
            backlog_age_max: Duration::from_secs(self.backlog_secs_max.into()),
        };
        let webhook = webhook.matching(self.filter()?).bounds(bounds);
        webhook.map_err(|error| ("batch_events_max", error.to_string()))
    }

    fn filter(&self) -> Result<FeedFilter, Fault> {
        let mut filter = FeedFilter::default();
        if !self.clients.is_empty() {
            let pattern: ClientPattern = ClientPattern::new(&self.clients)
                .map_err(|error| ("clients", error.to_string()))?;
            filter = filter.clients(pattern);
        }
        if !self.username.is_empty() {
            filter = filter.username(&*self.username);
        }
        if !self.kinds.is_empty() {
            filter = filter.kinds(self.kinds.iter().map(kind).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(filter)
    }
}

fn kind(name: &String) -> Result<FeedKind, Fault> {
    let mut known = FeedKind::CHANGES.into_iter();
    known.find(|kind| kind.name() == name).ok_or_else(|| {
        let names: Vec<_> = FeedKind::CHANGES.iter().map(|kind| kind.name()).collect();
        ("kinds", format!("{name:?} is not a kind of event: there are {}", names.join(", ")))
    })
}

/// A webhook of the configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[[webhook]] {webhook}: {what}")]
pub struct WebhookFileError {
    webhook: String,
    what: String,
}
