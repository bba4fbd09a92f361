//! The options of a webhook: its URL, its events, and its bounds.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::Uri;
use rustls::pki_types::CertificateDer;

use super::{WebhookSecret, secret::SECRETS_MAX};
use crate::{
    control::FeedFilter,
    outbound::{ServiceUrl, UrlFault, authorities_in},
};

/// Maximum number of bytes of a name, which is part of keys in the store.
const NAME_BYTES_MAX: usize = 64;

/// An HTTP endpoint that receives the events of presence in batches, in the order of their numbers,
/// each at least once. Given to [`Builder::webhook`](crate::broker::Builder::webhook).
#[derive(Clone, Debug)]
#[must_use]
pub struct Webhook {
    pub(super) name: Arc<str>,
    pub(super) url: WebhookUrl,
    pub(super) secrets: Vec<WebhookSecret>,
    pub(super) filter: FeedFilter,
    /// The certification authorities that are trusted; `None` for those of the system.
    pub(super) authorities: Option<Vec<CertificateDer<'static>>>,
    pub(super) bounds: WebhookBounds,
}

/// The bounds of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookBounds {
    /// Maximum number of events in a batch. A batch of fewer events is complete as well when `delay`
    /// has passed since its first event, or at 256 KiB.
    pub batch_events_max: usize,
    /// How long a batch waits for further events before it is stored.
    pub delay: Duration,
    /// The time that an attempt may take, from the connection to the end of the answer.
    pub timeout: Duration,
    /// Maximum number of bytes of events that are stored for the endpoint, on disk and in memory.
    /// Beyond it all of them are dropped, and the endpoint gets `reset` and a snapshot instead.
    pub backlog_bytes_max: usize,
    /// Maximum age of an event that is stored for the endpoint. Then the same happens.
    pub backlog_age_max: Duration,
}

impl WebhookBounds {
    /// The largest [`delay`](Self::delay): an event is stored at most a second after it happened.
    pub const DELAY_LARGEST: Duration = Duration::from_millis(500);
    /// The largest [`batch_events_max`](Self::batch_events_max).
    pub const BATCH_EVENTS_LARGEST: usize = 1_000;
    /// The smallest [`backlog_bytes_max`](Self::backlog_bytes_max): a few of the largest batches.
    pub const BACKLOG_BYTES_SMALLEST: usize = 4 * 1024 * 1024;

    fn is_valid(&self) -> bool {
        (1..=Self::BATCH_EVENTS_LARGEST).contains(&self.batch_events_max)
            && self.delay <= Self::DELAY_LARGEST
            && !self.timeout.is_zero()
            && self.backlog_bytes_max >= Self::BACKLOG_BYTES_SMALLEST
            && !self.backlog_age_max.is_zero()
    }
}

impl Default for WebhookBounds {
    fn default() -> Self {
        Self {
            batch_events_max: 100,
            delay: Duration::from_millis(200),
            timeout: Duration::from_secs(10),
            backlog_bytes_max: 16 * 1024 * 1024,
            backlog_age_max: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Webhook {
    /// Returns a webhook that gets all events. Its name says which stored events are for it after a
    /// restart, and is a label of metrics: 1 to 64 lower-case letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// [`WebhookError::Name`].
    pub fn new(name: &str, url: WebhookUrl, secret: WebhookSecret) -> Result<Self, WebhookError> {
        let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(WebhookError::Name(name.to_owned()));
        }
        Ok(Self {
            name: name.into(),
            url,
            secrets: vec![secret],
            filter: FeedFilter::default(),
            authorities: None,
            bounds: WebhookBounds::default(),
        })
    }

    /// Adds a second secret, by which each message is signed too. So a receiver can change from one
    /// secret to the next without missing a message.
    ///
    /// # Errors
    /// [`WebhookError::TooManySecrets`].
    pub fn also_signed_with(mut self, secret: WebhookSecret) -> Result<Self, WebhookError> {
        if self.secrets.len() == SECRETS_MAX {
            return Err(WebhookError::TooManySecrets);
        }
        self.secrets.push(secret);
        Ok(self)
    }

    /// Restricts the webhook to events that a filter selects. `reset` and `snapshot_end` come in any
    /// case.
    pub fn matching(mut self, filter: FeedFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Trusts the certification authorities in a PEM file, instead of those of the system.
    ///
    /// # Errors
    /// [`WebhookError::Authorities`] if the file cannot be read or has no certificate.
    pub fn trusting(mut self, file: &Path) -> Result<Self, WebhookError> {
        let fault = |source| WebhookError::Authorities { path: file.to_owned(), source };
        let found = authorities_in(file).map_err(fault)?;
        self.authorities = Some(found);
        Ok(self)
    }

    /// Sets the bounds.
    ///
    /// # Errors
    /// [`WebhookError::Bounds`].
    pub fn bounds(mut self, bounds: WebhookBounds) -> Result<Self, WebhookError> {
        if !bounds.is_valid() {
            return Err(WebhookError::Bounds);
        }
        self.bounds = bounds;
        Ok(self)
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The URL of an endpoint. `Debug` and log lines show only host and port, because a path or a query
/// may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(ServiceUrl);

impl WebhookUrl {
    /// Parses a URL: `https`, or `http` to this machine.
    ///
    /// # Errors
    /// [`WebhookError::Url`] or [`WebhookError::NotEncrypted`].
    pub fn new(text: &str) -> Result<Self, WebhookError> {
        Ok(Self(ServiceUrl::encrypted(text)?))
    }

    /// Parses a URL: `https`, or `http` to any host. Readers on the way see the events of `http`; the
    /// signature still shows changes.
    ///
    /// # Errors
    /// [`WebhookError::Url`].
    pub fn unencrypted(text: &str) -> Result<Self, WebhookError> {
        Ok(Self(ServiceUrl::any(text)?))
    }

    pub(super) const fn uri(&self) -> &Uri {
        self.0.uri()
    }

    /// Returns host and port, for log lines.
    pub(super) fn host(&self) -> &str {
        self.0.host()
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.0.is_encrypted()
    }
}

impl From<UrlFault> for WebhookError {
    fn from(fault: UrlFault) -> Self {
        match fault {
            UrlFault::Malformed => Self::Url,
            UrlFault::NotEncrypted(host) => Self::NotEncrypted(host),
        }
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host())
    }
}

/// Why a webhook is invalid or cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// The name has other characters, or is too long.
    #[error(
        "{0:?} is not a valid name of a webhook: write 1 to 64 lower-case letters, digits, - and _"
    )]
    Name(String),
    /// Two webhooks have this name.
    #[error("two webhooks are named {0:?}: give each a name of its own")]
    Repeated(String),
    /// The URL cannot be used.
    #[error("not a URL of an endpoint: write https://HOST/PATH, without user, password and #")]
    Url,
    /// The URL is `http`, and leads to this other machine.
    #[error("http to {0} is not encrypted: write https, or allow http for this webhook")]
    NotEncrypted(String),
    /// The text is not a valid secret.
    #[error("not a secret: write whsec_ and the base64 of 24 to 64 random bytes")]
    Secret,
    /// There is no secret.
    #[error("a webhook needs a secret")]
    NoSecret,
    /// The broker has no webhook of this name.
    #[error("there is no webhook {0:?}")]
    Unknown(String),
    /// There are more than two secrets.
    #[error("a webhook has at most {SECRETS_MAX} secrets")]
    TooManySecrets,
    /// A bound is out of its range.
    #[error(
        "a bound of the webhook is out of range: 1 to 1,000 events in a batch, a delay of at most 500 ms, \
         a backlog of at least 4 MiB, and times above 0"
    )]
    Bounds,
    /// The file of the certification authorities cannot be used.
    #[error("the certificates in {path} cannot be used: {source}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The system has no certification authorities, and the webhook names no file of them.
    #[error("the system has no certification authorities for https: {0}; name a file of them")]
    NoAuthorities(String),
    /// TLS cannot be set up.
    #[error("TLS for the webhook: {0}")]
    Tls(#[from] rustls::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_leads_to_this_machine_only_unless_it_is_allowed() {
        for text in [
            "https://fleet.example/events",
            "http://127.0.0.1:8000/events?key=1",
            "http://[::1]:8000",
            "http://localhost:9/",
        ] {
            assert!(WebhookUrl::new(text).is_ok(), "{text}");
        }
        for text in ["http://192.0.2.7/", "http://localhost.example/"] {
            assert!(matches!(WebhookUrl::new(text), Err(WebhookError::NotEncrypted(_))), "{text}");
            assert!(WebhookUrl::unencrypted(text).is_ok(), "{text}");
        }
        for text in ["", "fleet.example", "ftp://a/", "https://u:p@a/", "https:///x", "http://a/#b"]
        {
            assert!(matches!(WebhookUrl::unencrypted(text), Err(WebhookError::Url)), "{text}");
        }
        let url = WebhookUrl::new("https://fleet.example:8443/secret/path").expect("it is one");
        assert_eq!(format!("{url:?}"), "fleet.example:8443");
    }

    #[test]
    fn a_name_has_few_characters() {
        let named = |name: &str| {
            let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().expect("it is one");
            Webhook::new(name, WebhookUrl::new("https://a/").expect("it is one"), secret)
        };
        assert!(named("fleet-1_a").is_ok());
        for name in ["", "Fleet", "a/b", "ä", &"a".repeat(65)] {
            assert!(matches!(named(name), Err(WebhookError::Name(_))), "{name}");
        }
    }
}
