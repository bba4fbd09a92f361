//! The body of an error in the form that the caller accepts: JSON, or a problem of RFC 9457 with the
//! same members.
//!
//! Knows no call. Used wherever a request is answered with an error.

use actix_web::{
    HttpRequest, HttpResponse, ResponseError as _,
    http::header::{ACCEPT, CONTENT_TYPE},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{ApiError, channel::is_of_page, error::ErrorBody, rate::AccountQuota};

const PROBLEM: &str = "application/problem+json";

/// The members of a problem. Without `type` it is `about:blank`, and its title that of the status.
/// (RFC 9457, 4.2.1)
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody<'a> {
    /// The reason phrase of the status.
    title: &'static str,
    /// The status.
    status: u16,
    /// The same as `message`.
    detail: &'a str,
    #[serde(flatten)]
    body: ErrorBody<'a>,
}

impl<'a> ProblemBody<'a> {
    pub(super) fn of(error: &'a ApiError) -> Self {
        let status = error.status_code();
        let title = status.canonical_reason().unwrap_or_default();
        let body = ErrorBody::of(error);
        Self { title, status: status.as_u16(), detail: body.message(), body }
    }
}

impl ApiError {
    /// Returns the response to this request.
    pub(super) fn answer_to(&self, request: &HttpRequest) -> HttpResponse {
        let mut response = self.head(is_of_page(request.headers()));
        AccountQuota::tell(request, &mut response);
        if !wants_problem(&accepted(request)) {
            return response.json(ErrorBody::of(self));
        }
        let text =
            serde_json::to_string(&ProblemBody::of(self)).expect("a problem has text keys only");
        response.insert_header((CONTENT_TYPE, PROBLEM)).body(text)
    }
}

/// Returns the values of `Accept` as one list.
fn accepted(request: &HttpRequest) -> String {
    let values = request.headers().get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// Returns whether the caller names the type of problems, and accepts no other JSON more. (RFC 9110,
/// 12.5.1)
fn wants_problem(accepted: &str) -> bool {
    let ranges = || accepted.split(',').map(range);
    let quality = |name: &str| ranges().find(|(it, _)| it.eq_ignore_ascii_case(name));
    let Some((_, problem)) = quality(PROBLEM) else { return false };
    let json = ["application/json", "application/*", "*/*"].into_iter().find_map(quality);
    problem > 0 && problem >= json.map_or(0, |(_, quality)| quality)
}

/// Splits a media range from its quality in thousandths; an invalid quality is 0.
fn range(text: &str) -> (&str, u16) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let mut parameters = parts.filter_map(|part| part.split_once('='));
    let quality = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    let Some((_, quality)) = quality else { return (name, 1000) };
    let quality = quality.trim().parse().ok().filter(|quality| (0.0..=1.0).contains(quality));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    let thousandths = quality.map_or(0, |quality: f32| (quality * 1000.0).round() as u16);
    (name, thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_for_callers_that_prefer_it() {
        for (accepted, expected) in [
            ("", false),
            ("*/*", false),
            ("application/json", false),
            ("application/problem+json", true),
            ("Application/Problem+JSON", true),
            ("application/json, application/problem+json", true),
            ("application/json;q=0.5, application/problem+json;q=0.6", true),
            ("application/json;q=0.6, application/problem+json;q=0.5", false),
            ("application/problem+json;q=0.9, */*", false),
            ("application/problem+json;q=0.9, */*;q=0.8", true),
            ("application/problem+json;q=0.5, application/*;q=0.6, */*;q=0.1", false),
            ("application/problem+json;q=0", false),
            ("application/problem+json;q=x", false),
            ("text/event-stream, application/problem+json; charset=utf-8 ; Q = 0.2", true),
            ("application/x-ndjson,application/problem+json;q=0.001", true),
        ] {
            assert_eq!(wants_problem(accepted), expected, "{accepted}");
        }
    }
}
