//! Reads the credentials in the header `Authorization`.

use actix_web::{HttpRequest, http::header::AUTHORIZATION};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::ApiError;

/// The credentials in the header `Authorization`.
#[derive(Default)]
pub(super) struct Authorization {
    /// User name and password of HTTP Basic (RFC 7617).
    pub(super) basic: Option<(String, Vec<u8>)>,
    /// The token of Bearer (RFC 6750).
    pub(super) bearer: Option<String>,
}

impl Authorization {
    pub(super) fn username(&self) -> Option<&str> {
        self.basic.as_ref().map(|(username, _)| username.as_str())
    }

    pub(super) const fn is_given(&self) -> bool {
        self.basic.is_some() || self.bearer.is_some()
    }
}

/// Parses the header `Authorization`, if there is one. Another scheme, or a second header, counts as
/// wrong credentials.
pub(super) fn authorization(request: &HttpRequest) -> Result<Authorization, ApiError> {
    let mut headers = request.headers().get_all(AUTHORIZATION);
    let Some(header) = headers.next() else {
        return Ok(Authorization::default());
    };
    let parse = || {
        let (scheme, rest) = header.to_str().ok()?.split_once(' ')?;
        match &*scheme.to_ascii_lowercase() {
            "basic" => parse_basic(rest),
            "bearer" => parse_bearer(rest),
            _ => None,
        }
    };
    // Of two headers, a proxy and the broker could each take another one.
    match (parse(), headers.next()) {
        (Some(given), None) => Ok(given),
        _ => Err(ApiError::unauthenticated()),
    }
}

fn parse_basic(encoded: &str) -> Option<Authorization> {
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    // The first colon ends the user name; the password may contain colons.
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (username, password) = decoded.split_at(colon);
    let username = String::from_utf8(username.to_vec()).ok()?;
    Some(Authorization { basic: Some((username, password[1..].to_vec())), bearer: None })
}

/// Parses a `b64token`, which may also be the text of a token that is not Base64.
fn parse_bearer(token: &str) -> Option<Authorization> {
    let token = token.trim();
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let is_token = !token.is_empty() && token.bytes().all(is_of_token);
    is_token.then(|| Authorization { basic: None, bearer: Some(token.to_owned()) })
}
