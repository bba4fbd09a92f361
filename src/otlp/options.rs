//! The options of the export: the collector, the metrics and traces, and the name of this broker in them.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};
use rustls::pki_types::CertificateDer;

use crate::{
    outbound::{ServiceUrl, UrlFault, authorities_in},
    spans::TraceOptions,
};

/// Maximum number of further headers, and of attributes of the resource.
const LIST_MAX: usize = 64;
/// The smallest interval at which metrics are exported.
const INTERVAL_SMALLEST: Duration = Duration::from_secs(1);

/// The export of metrics and traces to an OpenTelemetry collector, by OTLP over HTTP. Given to
/// [`Builder::otlp`](crate::broker::Builder::otlp).
#[derive(Clone)]
#[must_use]
pub struct Otlp {
    pub(super) endpoint: OtlpUrl,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The certification authorities that are trusted; `None` for those of the system.
    pub(super) authorities: Option<Vec<CertificateDer<'static>>>,
    pub(super) service_name: String,
    pub(super) resource: Vec<(String, String)>,
    pub(super) metrics_interval: Option<Duration>,
    pub(super) traces: Option<TraceOptions>,
    pub(super) timeout: Duration,
}

impl Otlp {
    /// Returns the export to a collector: metrics each minute, and traces.
    pub fn new(endpoint: OtlpUrl) -> Self {
        Self {
            endpoint,
            headers: Vec::new(),
            authorities: None,
            service_name: "hearthmq".to_owned(),
            resource: Vec::new(),
            metrics_interval: Some(Duration::from_secs(60)),
            traces: Some(TraceOptions::default()),
            timeout: Duration::from_secs(10),
        }
    }

    /// Adds a header to each request, for example a token. Log lines do not show it.
    ///
    /// # Errors
    /// [`OtlpError::Header`].
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, OtlpError> {
        let fault = || OtlpError::Header(name.to_owned());
        if self.headers.len() == LIST_MAX {
            return Err(fault());
        }
        let parsed = name.parse::<HeaderName>().map_err(|_| fault())?;
        let mut value = value.parse::<HeaderValue>().map_err(|_| fault())?;
        value.set_sensitive(true);
        self.headers.push((parsed, value));
        Ok(self)
    }

    /// Sets the name of the service, `service.name`.
    pub fn service_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.service_name);
        self
    }

    /// Adds an attribute of the resource, which collectors show with all metrics and traces. A later one
    /// of the same name replaces an earlier one.
    ///
    /// # Errors
    /// [`OtlpError::Attribute`] if its name is empty, or there are too many.
    pub fn resource(mut self, name: &str, value: &str) -> Result<Self, OtlpError> {
        self.resource.retain(|(known, _)| known != name);
        if name.is_empty() || self.resource.len() == LIST_MAX {
            return Err(OtlpError::Attribute(name.to_owned()));
        }
        self.resource.push((name.to_owned(), value.to_owned()));
        Ok(self)
    }

    /// Trusts the certification authorities in a PEM file, instead of those of the system.
    ///
    /// # Errors
    /// [`OtlpError::Authorities`] if the file cannot be read or has no certificate.
    pub fn trusting(mut self, file: &Path) -> Result<Self, OtlpError> {
        let fault = |source| OtlpError::Authorities { path: file.to_owned(), source };
        self.authorities = Some(authorities_in(file).map_err(fault)?);
        Ok(self)
    }

    /// Sets the interval at which metrics are exported, at least a second; `None`: they are not.
    pub fn metrics_interval(mut self, interval: Option<Duration>) -> Self {
        self.metrics_interval = interval.map(|interval| interval.max(INTERVAL_SMALLEST));
        self
    }

    /// Sets which messages and calls are traced; `None`: none.
    pub fn traces(mut self, traces: Option<TraceOptions>) -> Self {
        self.traces = traces;
        self
    }

    /// Sets the time that a request to the collector may take, ten seconds by default.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Otlp")
            .field("endpoint", &self.endpoint)
            .field("service_name", &self.service_name)
            .field("metrics_interval", &self.metrics_interval)
            .field("traces", &self.traces)
            .finish_non_exhaustive()
    }
}

/// The URL of a collector, to which `/v1/metrics` and `/v1/traces` are appended. `Debug` and log lines
/// show only host and port, because a path or a query may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpUrl(ServiceUrl);

impl OtlpUrl {
    /// Parses a URL: `https`, or `http` to this machine.
    ///
    /// # Errors
    /// [`OtlpError::Url`] or [`OtlpError::NotEncrypted`].
    pub fn new(text: &str) -> Result<Self, OtlpError> {
        Self::of(ServiceUrl::encrypted(text))
    }

    /// Parses a URL: `https`, or `http` to any host, for example to a collector in the same cluster.
    ///
    /// # Errors
    /// [`OtlpError::Url`].
    pub fn unencrypted(text: &str) -> Result<Self, OtlpError> {
        Self::of(ServiceUrl::any(text))
    }

    fn of(parsed: Result<ServiceUrl, UrlFault>) -> Result<Self, OtlpError> {
        let url = parsed.map_err(|fault| match fault {
            UrlFault::Malformed => OtlpError::Url,
            UrlFault::NotEncrypted(host) => OtlpError::NotEncrypted(host),
        })?;
        // Paths are appended to it.
        match url.uri().query() {
            None => Ok(Self(url)),
            Some(_) => Err(OtlpError::Url),
        }
    }

    /// Returns the URL to which this signal is posted.
    pub(super) fn below(&self, path: &str) -> Uri {
        let url = format!("{}{path}", self.0.uri().to_string().trim_end_matches('/'));
        url.parse().expect("a URL with a longer path is one")
    }

    /// Returns host and port, for log lines.
    pub(super) fn host(&self) -> &str {
        self.0.host()
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.0.is_encrypted()
    }
}

impl fmt::Debug for OtlpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// The endpoint is not a URL.
    #[error("not a URL: write https://HOST:4318, without user, password, query and #")]
    Url,
    /// The endpoint is `http`, and leads to this other machine.
    #[error(
        "http to {0} shows topics and client identifiers to others: write https, or allow http"
    )]
    NotEncrypted(String),
    /// A header is invalid, or there are too many.
    #[error("the header {0:?} is not valid, or there are more than {LIST_MAX}")]
    Header(String),
    /// The name of an attribute of the resource is empty, or there are too many.
    #[error("the attribute {0:?} has no name, or there are more than {LIST_MAX}")]
    Attribute(String),
    /// The file of the certification authorities cannot be used.
    #[error("the certificates in {path} cannot be used: {source}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The system has no certification authorities, and no file of them is named.
    #[error("the system has no certification authorities for https: {0}; name a file of them")]
    NoAuthorities(String),
    /// TLS cannot be set up.
    #[error("TLS for the collector: {0}")]
    Tls(#[from] rustls::Error),
    /// The thread of the export cannot be started.
    #[error("the thread of the export: {0}")]
    Thread(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_paths_below_the_endpoint() {
        for (endpoint, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("https://collector.example/team/", "https://collector.example/team/v1/traces"),
        ] {
            let url = OtlpUrl::new(endpoint).expect(endpoint);
            assert_eq!(url.below("/v1/traces").to_string(), expected);
        }
    }

    #[test]
    fn http_leads_to_this_machine_only_unless_it_is_allowed() {
        let refused = OtlpUrl::new("http://collector:4318");
        assert!(matches!(refused, Err(OtlpError::NotEncrypted(_))));
        assert!(OtlpUrl::unencrypted("http://collector:4318").is_ok());
        for text in ["", "collector:4318", "https://a/?key=1", "https://u:p@a/"] {
            assert!(matches!(OtlpUrl::unencrypted(text), Err(OtlpError::Url)), "{text}");
        }
    }

    #[test]
    fn headers_are_not_shown() {
        let otlp = Otlp::new(OtlpUrl::new("https://a/s3cret").expect("it is one"));
        let otlp = otlp.header("api-key", "s3cret").expect("it is one");
        assert!(!format!("{otlp:?} {:?}", otlp.headers).contains("s3cret"));
        assert!(matches!(otlp.header("a b", "c"), Err(OtlpError::Header(_))));
    }
}
