//! The meaning of an answer of the service, and the time for which it is cached.

use std::time::Duration;

use hyper::{
    StatusCode,
    header::{CACHE_CONTROL, HeaderMap},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::options::AnswerForm;
use crate::{
    auth::{Attributes, Groups, JsonObject, OwnRules, own_rules},
    mqtt::Timestamp,
    outbound::{ServiceAnswer, said},
};

/// Maximum time for which an answer is cached, also if the service allows more.
const KEPT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The answer of the service about a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServiceVerdict {
    /// The client is admitted.
    Allow(Box<ServiceAdmission>),
    /// The client is refused.
    Deny,
    /// The service does not know the client.
    Ignore,
}

/// The content of an admission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceAdmission {
    /// The user name of a caller that has not given one.
    pub(super) username: Option<String>,
    pub(super) rules: OwnRules,
    pub(super) attributes: Attributes,
    pub(super) groups: Groups,
    pub(super) expires_at: Option<Timestamp>,
}

/// The JSON of an answer, as EMQX has it. Other members are ignored.
#[derive(Deserialize)]
struct Said {
    result: String,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    acl: Value,
    /// Seconds since the Unix epoch.
    #[serde(default)]
    expire_at: Option<f64>,
    #[serde(default, alias = "attributes")]
    client_attrs: Option<Map<String, Value>>,
    #[serde(default)]
    groups: Option<Vec<String>>,
}

/// Returns the verdict of an answer.
///
/// # Errors
/// The service has failed, or its answer cannot be understood.
pub(super) fn verdict(form: AnswerForm, answer: &ServiceAnswer) -> Result<ServiceVerdict, String> {
    let status = answer.status;
    // These say that the service could not decide. A
    // refusal made of them would lock out good clients.
    if status.is_server_error()
        || status.is_redirection()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
    {
        return Err(said(status));
    }
    match (form, status) {
        // No content, no properties: the client is allowed as it is.
        (_, StatusCode::NO_CONTENT) => Ok(ServiceVerdict::Allow(Box::default())),
        (AnswerForm::Status, status) if status.is_success() => {
            Ok(ServiceVerdict::Allow(Box::default()))
        }
        (AnswerForm::Json, StatusCode::OK) => by_json(&answer.body),
        (AnswerForm::Json | AnswerForm::Status, status) if status.is_client_error() => {
            Ok(ServiceVerdict::Deny)
        }
        (AnswerForm::Json | AnswerForm::Status, status) => Err(said(status)),
    }
}

fn by_json(body: &[u8]) -> Result<ServiceVerdict, String> {
    let JsonObject(said): JsonObject<Said> =
        serde_json::from_slice(body).map_err(|error| format!("its answer: {error}"))?;
    match said.result.as_str() {
        "allow" => {}
        "deny" => return Ok(ServiceVerdict::Deny),
        "ignore" => return Ok(ServiceVerdict::Ignore),
        other => {
            // The text goes into the log, and its length is the choice of the service.
            let other: String = other.chars().take(20).collect();
            return Err(format!("its result {other:?} is unknown"));
        }
    }
    let attributes =
        said.client_attrs.into_iter().flatten().filter_map(|(name, value)| match value {
            Value::String(text) => Some((name, text)),
            Value::Number(_) | Value::Bool(_) => Some((name, value.to_string())),
            // An attribute is one text; structures could not stand in a rule.
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        });
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time of this era"
    )]
    let expires_at = said.expire_at.map(|secs| Timestamp((secs * 1e3) as u64));
    Ok(ServiceVerdict::Allow(Box::new(ServiceAdmission {
        username: said.username,
        rules: own_rules(&said.acl).map_err(|error| format!("its acl: {error}"))?,
        attributes: Attributes::new(attributes).map_err(|error| error.to_string())?,
        groups: Groups::new(said.groups.unwrap_or_default()).map_err(|error| error.to_string())?,
        expires_at,
    })))
}

/// Returns the time for which the service allows its answer to be cached (RFC 9111, 5.2.2); `None` if it does
/// not say.
pub(super) fn kept_for(headers: &HeaderMap) -> Option<Duration> {
    let all = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut found = None;
    for directive in all.flat_map(|value| value.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match &*name.trim().to_ascii_lowercase() {
            // Strictest first: it holds whatever the other directives say.
            "no-store" | "no-cache" => return Some(Duration::ZERO),
            "max-age" => {
                // Of two, the shorter one counts.
                let time = seconds(value.trim().trim_matches('"')).min(KEPT_MAX);
                found = Some(found.map_or(time, |other: Duration| other.min(time)));
            }
            _ => {}
        }
    }
    found
}

/// Returns the time of a directive: the maximum if the number is too large (RFC 9111, 1.2.2), and zero if it is
/// not a number, so that the answer is used once (4.2.1).
fn seconds(text: &str) -> Duration {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let secs = text.parse().ok().filter(|_| is_number);
    secs.map_or(if is_number { Duration::MAX } else { Duration::ZERO }, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> ServiceAnswer {
        ServiceAnswer {
            status: StatusCode::from_u16(status).expect("it is one"),
            headers: HeaderMap::new(),
            body: body.to_owned().into(),
        }
    }

    fn said(form: AnswerForm, status: u16, body: &str) -> &'static str {
        match verdict(form, &answer(status, body)) {
            Ok(ServiceVerdict::Allow(_)) => "allow",
            Ok(ServiceVerdict::Deny) => "deny",
            Ok(ServiceVerdict::Ignore) => "ignore",
            Err(_) => "failed",
        }
    }

    #[test]
    fn an_answer_that_is_not_understood_admits_nobody() {
        use AnswerForm::{Json, Status};
        for (form, status, body, expected) in [
            (Json, 200, r#"{"result":"allow"}"#, "allow"),
            (Json, 200, r#"{"result":"deny"}"#, "deny"),
            (Json, 200, r#"{"result":"ignore"}"#, "ignore"),
            (Json, 204, "", "allow"),
            (Json, 200, "", "failed"),
            (Json, 200, "<html>", "failed"),
            (Json, 200, r#"["allow"]"#, "failed"),
            (Json, 200, r#"{"result":"yes"}"#, "failed"),
            (Json, 200, r#"{"result":"allow","acl":[{"effect":"x"}]}"#, "failed"),
            (Json, 201, r#"{"result":"allow"}"#, "failed"),
            (Json, 401, "", "deny"),
            (Json, 429, "", "failed"),
            (Json, 302, "", "failed"),
            (Json, 500, "", "failed"),
            (Status, 200, "<html>", "allow"),
            (Status, 403, "", "deny"),
            (Status, 503, "", "failed"),
        ] {
            assert_eq!(said(form, status, body), expected, "{form:?} {status} {body}");
        }
    }

    #[test]
    fn an_admission_has_what_goes_with_it() {
        let body = r#"{"result":"allow","is_superuser":false,"expire_at":1700000000.5,
            "acl":[{"permission":"allow","action":"publish","topic":"a"}],
            "client_attrs":{"plan":"gold","seats":3,"more":[]},"groups":["field"]}"#;
        let Ok(ServiceVerdict::Allow(admission)) = verdict(AnswerForm::Json, &answer(200, body))
        else {
            panic!("it is one")
        };
        assert_eq!(admission.expires_at, Some(Timestamp(1_700_000_000_500)));
        assert_eq!(
            admission.attributes.iter().collect::<Vec<_>>(),
            [("plan", "gold"), ("seats", "3")]
        );
        assert!(admission.groups.contains("field") && !admission.rules.is_empty());
    }

    #[test]
    fn cache_control_says_how_long() {
        let kept = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, text.parse().expect("it is one"));
            kept_for(&headers)
        };
        assert_eq!(kept_for(&HeaderMap::new()), None);
        assert_eq!(kept("private, Max-Age=7"), Some(Duration::from_secs(7)));
        assert_eq!(kept("max-age=7, no-store"), Some(Duration::ZERO));
        assert_eq!(kept("max-age=9999999999"), Some(KEPT_MAX));
        assert_eq!(kept("max-age=99999999999999999999999"), Some(KEPT_MAX));
        assert_eq!(kept("private"), None);
        assert_eq!(kept("max-age=\"30\""), Some(Duration::from_secs(30)));
        assert_eq!(kept("max-age=60, max-age=5"), Some(Duration::from_secs(5)));
        for none in
            ["max-age=soon", "max-age=", "max-age", "max-age=-1", "max-age=+5", "max-age=1.5"]
        {
            assert_eq!(kept(none), Some(Duration::ZERO), "{none}");
        }
        assert_eq!(kept("max-age=soon, no-store"), Some(Duration::ZERO));
        assert_eq!(kept("no-cache=\"set-cookie\""), Some(Duration::ZERO));
        assert_eq!(kept("s-maxage=9, stale-if-error=60, must-revalidate"), None);
    }
}
