//! Posts a message to an endpoint over HTTP or HTTPS, signed.
//!
//! HTTP/1.1 by hyper on the runtime of the caller. Redirects are not followed, proxies of the
//! environment are not used, and an answer is read up to a bound, so that its connection is used
//! again.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, Uri,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT},
};
use tokio::time::timeout;

use super::{Webhook, WebhookError, backlog::WebhookMessage, secret::SecretsInForce};
use crate::outbound::{self, ServiceCaller, TlsFault, said, with_causes};

/// Maximum bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Takes messages.
#[async_trait]
pub(super) trait MessageTaker: Send + Sync {
    /// Sends a message, and returns once the endpoint has taken it.
    ///
    /// # Errors
    /// The endpoint has not taken it, or its answer was lost.
    async fn post(&self, message: &WebhookMessage) -> Result<(), NotTaken>;
}

/// A message was not taken.
#[derive(Debug)]
pub(super) struct NotTaken {
    pub(super) why: String,
    /// The delay that the endpoint requests.
    pub(super) retry_after: Option<Duration>,
}

/// An endpoint at a URL.
pub(super) struct HttpEndpoint {
    client: ServiceCaller,
    uri: Uri,
    secrets: SecretsInForce,
    timeout: Duration,
}

impl HttpEndpoint {
    /// Returns the endpoint of a webhook; connects to nothing yet.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(webhook: &Webhook, secrets: SecretsInForce) -> Result<Self, WebhookError> {
        let is_encrypted = webhook.url.is_encrypted();
        let tls = outbound::tls_config(webhook.authorities.as_deref(), is_encrypted);
        let tls = tls.map_err(|fault| match fault {
            TlsFault::NoAuthorities(why) => WebhookError::NoAuthorities(why),
            TlsFault::Tls(error) => WebhookError::Tls(error),
        })?;
        Ok(Self {
            client: ServiceCaller::new(tls, 1),
            uri: webhook.url.uri().clone(),
            secrets,
            timeout: webhook.bounds.timeout,
        })
    }

    fn request(&self, message: &WebhookMessage) -> Request<Full<Bytes>> {
        // The time of the attempt by the wall clock, which is what the receiver compares it with.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let secs = now.as_secs();
        // Signed with each attempt, because the time is part of the signature.
        let signatures = self.secrets.sign(&message.message_id, secs, &message.body);
        Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, outbound::AGENT)
            .header("webhook-id", &message.message_id)
            .header("webhook-timestamp", secs)
            .header("webhook-signature", signatures)
            .body(Full::new(message.body.clone()))
            .expect("identifier and signatures are header values")
    }
}

#[async_trait]
impl MessageTaker for HttpEndpoint {
    async fn post(&self, message: &WebhookMessage) -> Result<(), NotTaken> {
        let attempt = async {
            let answer = self
                .client
                .send(self.request(message))
                .await
                .map_err(|error| NotTaken { why: with_causes(&error), retry_after: None })?;
            outcome(answer).await
        };
        timeout(self.timeout, attempt).await.unwrap_or_else(|_| {
            let why = format!("no answer within {} ms", self.timeout.as_millis());
            Err(NotTaken { why, retry_after: None })
        })
    }
}

/// Reads an answer. Any status from 200 to 299 means that the message was taken.
async fn outcome(answer: Response<Incoming>) -> Result<(), NotTaken> {
    let status = answer.status();
    let retry_after = asked_for(answer.headers(), SystemTime::now());
    // Read to its end, so that the connection can be used again; a longer body ends it.
    let mut body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    while let Some(Ok(_)) = body.frame().await {}
    match status.is_success() {
        true => Ok(()),
        false => Err(NotTaken { why: said(status), retry_after }),
    }
}

/// Returns the time that `Retry-After` asks for, in seconds or until a date (RFC 9110, 10.2.3).
fn asked_for(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(secs) => Some(Duration::from_secs(secs)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let asked = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            asked_for(&headers, now)
        };
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT"), None);
        assert_eq!(asked("soon"), None);
        assert_eq!(asked_for(&HeaderMap::new(), now), None);
    }
}
