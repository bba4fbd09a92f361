//! Calls HTTP services: hyper, HTTP/1.1, TLS by rustls.
//!
//! Redirects are not followed, proxies of the environment are not used, connections are used again, and an
//! answer is read up to a bound. Does not know what a service is for. Called by webhooks, by the
//! sources of identities that are elsewhere, and by the export of metrics and traces.

use std::{error::Error, fmt, fs, io, net::IpAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
#[cfg(any(feature = "jwt", feature = "http-auth", feature = "otlp"))]
use http_body_util::{BodyExt as _, Limited};
#[cfg(any(feature = "jwt", feature = "http-auth", feature = "otlp"))]
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode, Uri, body::Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error as ClientError, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
#[cfg(any(feature = "jwt", feature = "http-auth", feature = "otlp"))]
use tokio::time::timeout;

/// The name of this program in its requests.
pub(crate) const AGENT: &str = concat!("hearthmq/", env!("CARGO_PKG_VERSION"));

/// How long an idle connection stays open.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// The URL of a service. `Debug` and log lines show only host and port, because a path or a query may
/// be a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ServiceUrl(Uri);

/// Why a text is not a URL that can be called.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UrlFault {
    /// It is not a URL, or has a user, a password or a fragment.
    Malformed,
    /// It is `http`, and leads to this other machine.
    NotEncrypted(String),
}

impl ServiceUrl {
    /// Parses a URL: `https`, or `http` to this machine.
    pub(crate) fn encrypted(text: &str) -> Result<Self, UrlFault> {
        let url = Self::any(text)?;
        match url.is_encrypted() || url.is_loopback() {
            true => Ok(url),
            false => Err(UrlFault::NotEncrypted(url.host().to_owned())),
        }
    }

    /// Parses a URL: `https`, or `http` to any host.
    pub(crate) fn any(text: &str) -> Result<Self, UrlFault> {
        let url: Uri = text.parse().map_err(|_| UrlFault::Malformed)?;
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let has_host = url.host().is_some_and(|host| !host.is_empty());
        match is_http && has_host && !authority.contains('@') && !text.contains('#') {
            true => Ok(Self(url)),
            false => Err(UrlFault::Malformed),
        }
    }

    pub(crate) const fn uri(&self) -> &Uri {
        &self.0
    }

    /// Returns host and port, for log lines.
    pub(crate) fn host(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    fn is_loopback(&self) -> bool {
        let host = self.0.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
        host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host())
    }
}

/// Reads the certification authorities in a PEM file.
pub(crate) fn authorities_in(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = fs::read(file)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(io::Error::other)?;
    match found.is_empty() {
        true => Err(io::Error::other("it has no certificate")),
        false => Ok(found),
    }
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFault {
    #[error("the system has no certification authorities: {0}")]
    NoAuthorities(String),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Returns a configuration that trusts these authorities; `None`: those of the system, which are read only
/// if they are needed.
pub(crate) fn tls_config(
    authorities: Option<&[CertificateDer<'static>]>,
    are_needed: bool,
) -> Result<ClientConfig, TlsFault> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(authorities) => {
            for authority in authorities {
                roots.add(authority.clone())?;
            }
        }
        // The system may have no authorities at all, which does not matter without TLS.
        None if are_needed => roots = roots_of_system()?,
        None => {}
    }
    // Named here, because a process may have several providers and no default.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder?.with_root_certificates(roots).with_no_client_auth())
}

/// Returns the certification authorities of the system.
pub(crate) fn roots_of_system() -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let first = found.errors.first();
        let why = first.map_or_else(|| "none were found".to_owned(), ToString::to_string);
        return Err(TlsFault::NoAuthorities(why));
    }
    Ok(roots)
}

/// Calls services, over connections that are used again.
#[derive(Clone)]
pub(crate) struct ServiceCaller(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// An answer that was read to its end.
#[cfg(any(feature = "jwt", feature = "http-auth", feature = "otlp"))]
pub(crate) struct ServiceAnswer {
    pub(crate) status: StatusCode,
    #[cfg_attr(
        not(any(feature = "http-auth", feature = "otlp")),
        expect(dead_code, reason = "no answer is kept")
    )]
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl ServiceCaller {
    /// Creates a caller, which connects to nothing yet, with a maximum of idle connections to each host.
    pub(crate) fn new(tls: ClientConfig, idle_max: usize) -> Self {
        let mut tcp = HttpConnector::new();
        // The TLS connector around it decides by the scheme of the URL.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            // A server may close an idle connection at any time, so none is kept for long.
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(idle_max)
            .build(connector);
        Self(client)
    }

    /// Sends a request, and returns once the head of the answer is there.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        self.0.request(request).await
    }

    /// Sends a request and reads its answer, within this time and up to this number of bytes.
    #[cfg(any(feature = "jwt", feature = "http-auth", feature = "otlp"))]
    pub(crate) async fn call(
        &self,
        request: Request<Full<Bytes>>,
        time_max: Duration,
        bytes_max: usize,
    ) -> Result<ServiceAnswer, CallFailure> {
        let call = async {
            let answer = self.send(request).await;
            let answer = answer.map_err(|error| CallFailure {
                is_of_connection: error.is_connect(),
                why: with_causes(&error),
            })?;
            let (head, body) = answer.into_parts();
            // The bound holds while the body is read, so a large answer costs no more memory.
            let body = Limited::new(body, bytes_max).collect().await;
            let body = body.map_err(|error| CallFailure::of(with_causes(&*error)))?.to_bytes();
            Ok(ServiceAnswer { status: head.status, headers: head.headers, body })
        };
        let late = |_| {
            let why = format!("no answer within {} ms", time_max.as_millis());
            Err(CallFailure::of(why))
        };
        // One limit for all: connecting, TLS, the answer and its body.
        timeout(time_max, call).await.unwrap_or_else(late)
    }
}

/// Why a call has no answer.
#[cfg(any(feature = "jwt", feature = "http-auth", feature = "otlp"))]
pub(crate) struct CallFailure {
    /// A text for the log.
    pub(crate) why: String,
    /// Whether there is no connection to the service, so that every call fails.
    #[cfg_attr(not(feature = "http-auth"), expect(dead_code, reason = "read by http-auth"))]
    pub(crate) is_of_connection: bool,
}

#[cfg(any(feature = "jwt", feature = "http-auth", feature = "otlp"))]
impl CallFailure {
    /// Returns the failure of one call.
    pub(crate) const fn of(why: String) -> Self {
        Self { why, is_of_connection: false }
    }
}

/// Returns what an answer other than the expected one says, for the log.
pub(crate) fn said(status: StatusCode) -> String {
    match status.is_redirection() {
        true => format!("answer {status}; redirects are not followed"),
        false => format!("answer {status}"),
    }
}

/// Returns an error with its causes, in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
