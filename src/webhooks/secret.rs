//! The secrets of webhooks, and the signatures that are made with them, as Standard Webhooks 1.0
//! defines both.

use std::{fmt, str::FromStr, sync::Arc};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::WebhookError;

/// The prefix of the text of a secret.
const PREFIX: &str = "whsec_";
/// Standard Webhooks asks for 24 to 64 bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Maximum number of secrets: the one in force, and the former or the next one.
pub(super) const SECRETS_MAX: usize = 2;

/// A secret that the broker shares with the receiver of a webhook. Its text is `whsec_` and the
/// base64 of 24 to 64 random bytes. `Debug` does not show it.
#[derive(Clone)]
pub struct WebhookSecret(hmac::Key);

impl WebhookSecret {
    /// Returns the signature of a message: `v1,` and the base64 of its HMAC-SHA256.
    pub(super) fn sign(&self, message_id: &str, timestamp_secs: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{message_id}.{timestamp_secs}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

impl FromStr for WebhookSecret {
    type Err = WebhookError;

    /// Parses a secret. White space around it is left out, as a file ends with a line break.
    fn from_str(text: &str) -> Result<Self, WebhookError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(WebhookError::Secret)?;
        let key = STANDARD.decode(encoded).map_err(|_| WebhookError::Secret)?;
        if !SECRET_BYTES.contains(&key.len()) {
            return Err(WebhookError::Secret);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

/// The secrets that sign the messages of one webhook. They can change while it runs: an attempt takes
/// those that are in force when it begins.
#[derive(Clone, Debug)]
pub(crate) struct SecretsInForce(Arc<ArcSwap<Vec<WebhookSecret>>>);

impl SecretsInForce {
    pub(super) fn new(secrets: Vec<WebhookSecret>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(secrets)))
    }

    /// Replaces all of them.
    ///
    /// # Errors
    /// [`WebhookError::NoSecret`] or [`WebhookError::TooManySecrets`].
    pub(crate) fn replace(&self, secrets: Vec<WebhookSecret>) -> Result<(), WebhookError> {
        match secrets.len() {
            0 => Err(WebhookError::NoSecret),
            1..=SECRETS_MAX => {
                self.0.store(Arc::new(secrets));
                Ok(())
            }
            _ => Err(WebhookError::TooManySecrets),
        }
    }

    /// Returns the signatures of a message by all of them, with a space between them.
    pub(super) fn sign(&self, message_id: &str, timestamp_secs: u64, body: &[u8]) -> String {
        let secrets = self.0.load();
        let sign = |secret: &WebhookSecret| secret.sign(message_id, timestamp_secs, body);
        secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The vector of the libraries of Standard Webhooks.
    #[test]
    fn a_signature_is_that_of_the_test_vector() {
        let secret: WebhookSecret = SECRET.parse().expect("it is one");
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{secret:?}"), "WebhookSecret");
    }

    #[test]
    fn a_secret_has_a_prefix_and_24_to_64_bytes() {
        let of = |bytes: usize| format!("{PREFIX}{}", STANDARD.encode(vec![7; bytes]));
        for text in [of(24), of(64), format!("{SECRET}\n")] {
            assert!(text.parse::<WebhookSecret>().is_ok(), "{text}");
        }
        let bare = SECRET.trim_start_matches(PREFIX).to_owned();
        for text in [of(23), of(65), bare, String::new(), "whsec_?".to_owned()] {
            let error = text.parse::<WebhookSecret>().expect_err(&text);
            assert_eq!(error.to_string(), WebhookError::Secret.to_string());
        }
    }
}
