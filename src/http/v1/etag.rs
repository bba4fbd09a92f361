//! `ETag`, `If-Match` and `If-None-Match` of what callers replace or delete (RFC 9110, 13.1).

use actix_web::{
    HttpRequest,
    http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH},
};

use super::super::ApiError;
use crate::control::ExpectedRevision;

/// The header `ETag`.
pub(super) const ETAG: &str = "ETag";

/// Returns the `ETag` of a revision.
pub(super) fn of(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// Returns what the caller expects to be there.
pub(super) fn expected(request: &HttpRequest) -> Result<ExpectedRevision, ApiError> {
    match (header(request, &IF_MATCH)?, header(request, &IF_NONE_MATCH)?) {
        (None, None) => Ok(ExpectedRevision::Any),
        (Some("*"), None) => Ok(ExpectedRevision::Present),
        (None, Some("*")) => Ok(ExpectedRevision::Absent),
        (Some(tag), None) => {
            let revision = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let is_number = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
            let revision = revision.filter(is_number).and_then(|text| text.parse().ok());
            revision.map(ExpectedRevision::At).ok_or_else(ApiError::invalid_precondition)
        }
        (_, Some(_)) => Err(ApiError::invalid_precondition()),
    }
}

fn header<'r>(request: &'r HttpRequest, name: &HeaderName) -> Result<Option<&'r str>, ApiError> {
    let mut all = request.headers().get_all(name);
    let first = all.next();
    if all.next().is_some() {
        return Err(ApiError::invalid_precondition());
    }
    let text = first.map(|value| value.to_str().map(str::trim));
    text.transpose().map_err(|_| ApiError::invalid_precondition())
}

/// The headers of a call that replaces something.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described here")]
pub(super) struct Preconditions {
    /// The `ETag` that is replaced or deleted, or `*` for any. With another one, nothing changes.
    #[param(rename = "If-Match", value_type = Option<String>, required = false)]
    if_match: Option<String>,
    /// `*`: nothing may be there yet.
    #[param(rename = "If-None-Match", value_type = Option<String>, required = false)]
    if_none_match: Option<String>,
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_revision_is_expected_by_its_tag() {
        let asked = |headers: &[(&'static str, &str)]| {
            let request = headers
                .iter()
                .fold(TestRequest::default(), |request, header| request.append_header(*header));
            expected(&request.to_http_request()).map_err(|error| error.code())
        };
        assert_eq!(asked(&[]), Ok(ExpectedRevision::Any));
        assert_eq!(asked(&[("if-match", &of(7))]), Ok(ExpectedRevision::At(7)));
        assert_eq!(asked(&[("if-match", "*")]), Ok(ExpectedRevision::Present));
        assert_eq!(asked(&[("if-none-match", "*")]), Ok(ExpectedRevision::Absent));
        for headers in [
            &[("if-match", "7")][..],
            &[("if-match", "\"+7\"")],
            &[("if-match", "W/\"7\"")],
            &[("if-match", "\"7\", \"8\"")],
            &[("if-match", "\"7\""), ("if-match", "\"7\"")],
            &[("if-none-match", "\"7\"")],
            &[("if-match", "*"), ("if-none-match", "*")],
        ] {
            assert_eq!(asked(headers), Err("invalid_precondition"), "{headers:?}");
        }
    }
}
