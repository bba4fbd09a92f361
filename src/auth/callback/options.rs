//! `[auth.http]`: the service, its requests, and how its answers are read and cached.

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::template::RequestBody;
use crate::{
    auth::HiddenText,
    outbound::{ServiceUrl, UrlFault},
};

/// The HTTP service that is asked about clients. Without a URL, no service is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpAuthConfig {
    /// The URL to which requests are posted.
    pub url: HiddenText,
    /// Whether `http` may lead to another machine.
    pub allow_http: bool,
    /// A PEM file of the certification authorities that are trusted for it; empty = those of the
    /// system.
    pub ca: PathBuf,
    /// A file with a token that each request has as `Authorization: Bearer`; empty = none.
    pub token_file: PathBuf,
    /// Further headers, `Name: value`.
    pub headers: Vec<HiddenText>,
    /// The JSON of a request, in which texts may have variables.
    pub body: String,
    /// How answers are read.
    pub answers: AnswerForm,
    /// Milliseconds that a login may wait for the service, in all.
    pub timeout_ms: u32,
    /// Maximum number of calls at the same time; further ones wait.
    pub calls_at_once_max: u16,
    /// Seconds for which a client that was admitted is admitted again without a call, if the answer has
    /// no `Cache-Control`.
    pub cache_secs: u32,
    /// Seconds for which a client that was not admitted is refused without a call.
    pub cache_refused_secs: u32,
    /// Maximum number of answers that are kept.
    pub cache_entries_max: usize,
}

/// How answers of the service are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AnswerForm {
    /// As JSON with `result`, and with permissions and attributes if there are some.
    #[default]
    Json,
    /// By the status alone.
    Status,
}

const BODY_DEFAULT: &str = r#"{
    "clientid": "${clientId}",
    "username": "${username}",
    "password": "${password}",
    "peerhost": "${address}",
    "cert_common_name": "${certificate.commonName}"
}
"#;

impl Default for HttpAuthConfig {
    fn default() -> Self {
        Self {
            url: HiddenText::default(),
            allow_http: false,
            ca: PathBuf::new(),
            token_file: PathBuf::new(),
            headers: Vec::new(),
            body: BODY_DEFAULT.to_owned(),
            answers: AnswerForm::default(),
            timeout_ms: 2_000,
            calls_at_once_max: 64,
            cache_secs: 60,
            cache_refused_secs: 5,
            cache_entries_max: 100_000,
        }
    }
}

/// Why the service cannot be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpAuthError {
    /// An option is invalid.
    #[error("auth.http.{option}: {why}")]
    Option {
        /// The name of the option.
        option: &'static str,
        /// The fault, and its remedy.
        why: String,
    },
    /// A file cannot be read.
    #[error("auth.http.{option}: {}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The name of the option.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl HttpAuthError {
    pub(super) fn of(option: &'static str, why: impl Into<String>) -> Self {
        Self::Option { option, why: why.into() }
    }
}

impl HttpAuthConfig {
    /// Returns whether there is a service.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.url.as_str().is_empty()
    }

    /// Checks the options, without the files that they name.
    ///
    /// # Errors
    /// The first option that is invalid.
    pub fn check(&self) -> Result<(), HttpAuthError> {
        if !self.is_used() {
            return Ok(());
        }
        self.service_url()?;
        self.further_headers()?;
        self.request_body().map(drop)
    }

    pub(super) fn service_url(&self) -> Result<ServiceUrl, HttpAuthError> {
        // Passwords go to this URL, so plain HTTP needs an explicit consent.
        let parsed = match self.allow_http {
            true => ServiceUrl::any(self.url.as_str()),
            false => ServiceUrl::encrypted(self.url.as_str()),
        };
        parsed.map_err(|fault| {
            let why = match fault {
                UrlFault::Malformed => {
                    "not a URL: write https://HOST/PATH, without user, password and #".to_owned()
                }
                UrlFault::NotEncrypted(host) => format!(
                    "http to {host} shows passwords to others: write https, or set allow_http"
                ),
            };
            HttpAuthError::of("url", why)
        })
    }

    pub(super) fn request_body(&self) -> Result<RequestBody, HttpAuthError> {
        RequestBody::parse(&self.body).map_err(|why| HttpAuthError::of("body", why))
    }

    /// Returns the further headers, with the token.
    pub(super) fn further_headers(
        &self,
    ) -> Result<Vec<(hyper::header::HeaderName, hyper::header::HeaderValue)>, HttpAuthError> {
        let header = |text: &HiddenText| {
            let (name, value) = text.as_str().split_once(':')?;
            let mut value = value.trim().parse::<hyper::header::HeaderValue>().ok()?;
            value.set_sensitive(true);
            Some((name.trim().parse().ok()?, value))
        };
        let fault = || HttpAuthError::of("headers", "one of them is not \"Name: value\"");
        self.headers.iter().map(|text| header(text).ok_or_else(fault)).collect()
    }
}
