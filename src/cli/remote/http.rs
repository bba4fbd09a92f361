//! The HTTP client: one call to the REST interface, and its errors.

use std::{
    io::{self, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::crypto::aws_lc_rs;
use serde_json::Value;
use ureq::{
    Agent, Body,
    http::{Request, Response, Uri},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use crate::cli::warn;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// The longest time until an answer begins: a call of the broker may wait for a minute.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(90);
/// The longest time of an answer that goes on. A broker that is gone is noticed then at the latest.
const STREAM_TIME_MAX: Duration = Duration::from_secs(300);
/// Maximum size of an answer that is read as a whole.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a command that asks a broker has failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum RemoteError {
    #[error(
        "no account is given; use --user or HEARTHMQ_REMOTE_USER, and HEARTHMQ_REMOTE_PASSWORD, or \
         an account file"
    )]
    NoAccount,
    #[error("no password is given; set HEARTHMQ_REMOTE_PASSWORD, or use an account file")]
    NoPassword,
    #[error("the account file {path} cannot be used: {why}")]
    AccountFile { path: PathBuf, why: String },
    #[error("the CA file {path} cannot be used: {why}")]
    Ca { path: PathBuf, why: String },
    #[error("{url} is not the URL of a REST interface; it begins with http:// or https://")]
    Url { url: String },
    #[error("the broker at {url} cannot be reached: {why}")]
    Unreachable { url: String, why: String },
    #[error("the answer of {url} is not that of HearthMQ (status {status})")]
    NotHearthMq { url: String, status: u16 },
    #[error("the broker is not ready: {state}")]
    NotReady { state: String },
    #[error("{message} ({code})")]
    Refused { status: u16, code: String, message: String },
    #[error("the client is not online ({code})")]
    Unknown { code: String },
    #[error("{failed} of {all} clients were not changed")]
    SomeFailed { failed: usize, all: usize },
    #[error("{failed} of {all} lines were not imported")]
    LinesFailed { failed: usize, all: usize },
    #[error("the broker has ended its answer early")]
    CutOff,
    #[error(
        "a selector may select many clients, and nobody can be asked without a terminal; give --yes"
    )]
    NobodyToAsk,
    #[error("nothing was changed")]
    NotConfirmed,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl RemoteError {
    /// Returns the exit code of the program.
    pub(in crate::cli) const fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { status: 404, .. } | Self::Unknown { .. } => 4,
            Self::Refused { .. } => 3,
            Self::SomeFailed { .. } | Self::LinesFailed { .. } => 5,
            Self::NobodyToAsk => 2,
            Self::NoAccount
            | Self::NoPassword
            | Self::AccountFile { .. }
            | Self::Ca { .. }
            | Self::Url { .. }
            | Self::Unreachable { .. }
            | Self::NotHearthMq { .. }
            | Self::NotReady { .. }
            | Self::CutOff
            | Self::NotConfirmed
            | Self::Io(_) => 1,
        }
    }
}

/// Asks a broker.
pub(super) struct Remote {
    agent: Agent,
    /// Without a slash at its end.
    url: String,
    /// `None` for calls that need no account.
    authorization: Option<String>,
}

/// A body to send, and its Content-Type.
pub(super) type SentBody<'a> = Option<(&'a str, Vec<u8>)>;

impl Remote {
    /// Returns what asks the broker at this URL with this value of `Authorization`, if there is one.
    pub(super) fn new(
        url: &str,
        authorization: Option<&str>,
        ca: Option<&Path>,
    ) -> Result<Self, RemoteError> {
        let invalid = || RemoteError::Url { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let host = uri.host().ok_or_else(invalid)?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_this_machine(host) || authorization.is_none() => {}
            // Only a warning: a tunnel or a private network may encrypt.
            Some("http") => warn(&format!("the credentials go to {host} without encryption")),
            _ => return Err(invalid()),
        }
        let roots = match ca {
            Some(path) => certificates(path)?,
            // Reading them takes time, which plain HTTP need not spend.
            None if uri.scheme_str() == Some("https") => of_system(),
            None => Vec::new(),
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Credentials must not follow a redirect to another server.
            .max_redirects(0)
            // Nor go through a proxy that the environment happens to name.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIME_MAX))
            .timeout_recv_response(Some(ANSWER_TIME_MAX))
            .timeout_recv_body(Some(STREAM_TIME_MAX))
            .tls_config(tls)
            .user_agent(concat!("hearthmq/", env!("CARGO_PKG_VERSION")))
            .build();
        let url = url.trim_end_matches('/').to_owned();
        let authorization = authorization.map(str::to_owned);
        Ok(Self { agent: Agent::new_with_config(config), url, authorization })
    }

    /// Returns the JSON of an answer.
    pub(super) fn get(&self, target: &str) -> Result<Value, RemoteError> {
        self.ask("GET", target, None)
    }

    /// Makes a call, and returns the JSON of its answer.
    pub(super) fn ask(
        &self,
        method: &str,
        target: &str,
        body: SentBody<'_>,
    ) -> Result<Value, RemoteError> {
        let response = self.call(method, target, "application/json", body)?;
        self.json(response)
    }

    /// Makes a call whose answer goes on, line by line.
    pub(super) fn lines(
        &self,
        method: &str,
        target: &str,
        body: SentBody<'_>,
    ) -> Result<BufReader<impl io::Read + use<>>, RemoteError> {
        let response = self.call(method, target, "application/x-ndjson", body)?;
        Ok(BufReader::new(response.into_body().into_reader()))
    }

    /// Makes a call. An answer that is an error becomes one here.
    fn call(
        &self,
        method: &str,
        target: &str,
        accept: &str,
        body: SentBody<'_>,
    ) -> Result<Response<Body>, RemoteError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.url))
            .header("Accept", accept);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let invalid = |_| RemoteError::Url { url: self.url.clone() };
        let response = match body {
            Some((content_type, bytes)) => {
                request = request.header("Content-Type", content_type);
                self.agent.run(request.body(bytes).map_err(invalid)?)
            }
            None => self.agent.run(request.body(()).map_err(invalid)?),
        };
        let response = response.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        if status < 300 {
            return Ok(response);
        }
        // An answer that is not JSON comes from another server, which `json` reports.
        let answer = self.json(response)?;
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        // An answer without a code is of a health check, or of another server at this address.
        match (text("code").zip(text("message")), text("status")) {
            (Some((code, message)), _) => Err(RemoteError::Refused { status, code, message }),
            (None, Some(state)) => Err(RemoteError::NotReady { state }),
            (None, None) => Err(RemoteError::NotHearthMq { url: self.url.clone(), status }),
        }
    }

    fn json(&self, response: Response<Body>) -> Result<Value, RemoteError> {
        let status = response.status().as_u16();
        let body = response.into_body().into_with_config().limit(ANSWER_BYTES_MAX);
        let text = body.read_to_vec().map_err(|error| self.unreachable(&error))?;
        let not_ours = |_| RemoteError::NotHearthMq { url: self.url.clone(), status };
        serde_json::from_slice(&text).map_err(not_ours)
    }

    fn unreachable(&self, error: &ureq::Error) -> RemoteError {
        RemoteError::Unreachable { url: self.url.clone(), why: error.to_string() }
    }
}

/// Returns whether an answer that goes on has reached its time.
pub(super) fn has_timed_out(error: &io::Error) -> bool {
    let source = error.get_ref().and_then(|source| source.downcast_ref::<ureq::Error>());
    matches!(source, Some(ureq::Error::Timeout(_)))
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Returns the CAs that the system trusts, as far as they can be read.
fn of_system() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs().certs;
    found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RemoteError> {
    let unusable = |why: String| RemoteError::Ca { path: path.to_owned(), why };
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) =
            item.map_err(|error| unusable(error.to_string()))?
        {
            found.push(certificate);
        }
    }
    match found.is_empty() {
        true => Err(unusable("it has no certificate".to_owned())),
        false => Ok(found),
    }
}
