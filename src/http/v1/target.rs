//! Parses what a call is about from its path and its query.
//!
//! Works on the raw target, because a decoded path no longer says which slashes belong to an
//! identifier.

use std::borrow::Cow;

use actix_web::HttpRequest;
use utoipa::IntoParams;

use super::super::{
    ApiError,
    parameters::{Plus, client_id_of, decode, single},
};

/// The client in the path of a call.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described here")]
pub(super) struct ClientInPath {
    /// Client Identifier, percent-encoded UTF-8.
    #[param(example = "car-17")]
    client_id: String,
}

/// Returns the Client Identifier `id` of a call.
pub(super) fn client_id_of_call(request: &HttpRequest) -> Result<String, ApiError> {
    let (encoded, plus) = encoded_name(request, "id")?;
    client_id_of(encoded, plus)
}

/// The user in the path of a call.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described here")]
pub(super) struct UserInPath {
    /// User name, percent-encoded UTF-8.
    #[param(example = "sensors")]
    username: String,
}

/// Returns the user name `username` of a call.
pub(super) fn username_of_call(request: &HttpRequest) -> Result<String, ApiError> {
    let expected = "must be UTF-8 without U+0000, percent-encoded";
    let invalid = || ApiError::invalid_parameter("username", expected);
    let name = name_in(request, "username", invalid)?;
    let is_valid = !name.is_empty() && !name.contains('\0'); // [MQTT-1.5.4-2]
    is_valid.then_some(name).ok_or_else(invalid)
}

/// Calls with names in their path, and the path at which the same calls have them as parameters of
/// their query. Some names fit no path: programs that make calls remove the segments `.` and `..`, also
/// percent-encoded ones, and proxies decode `%2F`.
pub(super) const WITHOUT_NAMES: [(&str, &str); 18] = [
    ("/clients/{id}", "/client"),
    ("/clients/{id}/history", "/client/history"),
    ("/clients/{id}/subscriptions", "/client/subscriptions"),
    ("/clients/{id}/queue", "/client/queue"),
    ("/clients/{id}/subscribe", "/client/subscribe"),
    ("/clients/{id}/unsubscribe", "/client/unsubscribe"),
    ("/settings/{id}", "/client/settings"),
    ("/keep-alive/overrides/{id}", "/keep-alive/override"),
    ("/certificates/pins/{id}", "/certificates/pin"),
    ("/users/{name}", "/user"),
    ("/users/{name}/password", "/user/password"),
    ("/users/{name}/secrets", "/user/secrets"),
    ("/users/{name}/secrets/{id}", "/user/secret"),
    ("/user-settings/{username}", "/user/settings"),
    ("/bans/{kind}/{value}", "/ban"),
    ("/rules/{id}", "/rule"),
    ("/tokens/{name}", "/token"),
    ("/retained/{topic:.+}", "/retained-message"),
];

/// Returns the path at which the calls at `path` have their names in the query.
pub(super) fn path_without_names(path: &str) -> Option<&'static str> {
    WITHOUT_NAMES.iter().find(|(with_names, _)| *with_names == path).map(|(_, without)| *without)
}

/// Returns the names in a path of [`WITHOUT_NAMES`].
pub(super) fn names_in(path: &'static str) -> impl Iterator<Item = &'static str> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| name.split_once(':').map_or(name, |(name, _)| name))
}

/// Returns whether the path of a call has this name.
pub(super) fn is_in_path(request: &HttpRequest, name: &str) -> bool {
    request.match_info().get(name).is_some()
}

/// Returns a name of a call, from its path or its query; `invalid` is the error if it is not UTF-8,
/// percent-encoded.
pub(super) fn name_in(
    request: &HttpRequest,
    name: &'static str,
    invalid: impl Fn() -> ApiError,
) -> Result<String, ApiError> {
    let (encoded, plus) = encoded_name(request, name)?;
    let decoded = decode(encoded, plus).map_err(|_| invalid())?;
    String::from_utf8(decoded).map_err(|_| invalid())
}

/// Returns a name of a call, still encoded, and the meaning of a plus sign in it.
fn encoded_name<'r>(
    request: &'r HttpRequest,
    name: &'static str,
) -> Result<(&'r str, Plus), ApiError> {
    if is_in_path(request, name) {
        return Ok((raw_segment(request, &format!("{{{name}}}")), Plus::IsPlus));
    }
    Ok((single(request.query_string(), name)?, Plus::IsSpace))
}

/// Returns a segment of the path, still encoded: the one at the position that `name` has in the
/// route's pattern. A decoded path has as many slashes as the raw one.
pub(super) fn raw_segment<'r>(request: &'r HttpRequest, name: &str) -> &'r str {
    let pattern = request.match_pattern().unwrap_or_default();
    let position = pattern.split('/').position(|segment| segment == name);
    let segment = position.and_then(|position| request.uri().path().split('/').nth(position));
    segment.unwrap_or_default()
}

/// The parameters in the query of a call.
pub(super) struct Query<'q> {
    /// Decoded names, with values that are still encoded.
    pairs: Vec<(Cow<'static, str>, &'q str)>,
}

impl<'q> Query<'q> {
    /// Parses the query of a call that may have the parameters `known`, each at most once, and the names
    /// that its path does not have.
    pub(super) fn of(request: &'q HttpRequest, known: &[&'static str]) -> Result<Self, ApiError> {
        let pattern = request.match_pattern().unwrap_or_default();
        let its_path = pattern.rsplit_once("/api/v1").map(|(_, path)| path);
        let found = WITHOUT_NAMES.iter().find(|(path, _)| Some(*path) == its_path);
        let names = found.map(|(path, _)| names_in(path));
        let names = names.into_iter().flatten().filter(|name| !is_in_path(request, name));
        let known: Vec<_> = names.chain(known.iter().copied()).collect();
        Self::parse(request.query_string(), &known)
    }

    /// Parses a query that may have the parameters `known`, each at most once.
    pub(super) fn parse(text: &'q str, known: &[&'static str]) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, Plus::IsSpace).ok();
            let name = name.and_then(|name| known.iter().find(|it| it.as_bytes() == name));
            let name = *name.ok_or_else(|| ApiError::unknown_parameter(known))?;
            if pairs.iter().any(|(other, _)| other == name) {
                return Err(ApiError::duplicate_parameter(name));
            }
            pairs.push((Cow::Borrowed(name), value));
        }
        Ok(Self { pairs })
    }

    /// Returns the text of a parameter; `None` if it is not given.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, ApiError> {
        let Some((_, value)) = self.pairs.iter().find(|(other, _)| other == name) else {
            return Ok(None);
        };
        let text = decode(value, Plus::IsSpace).ok().and_then(|text| String::from_utf8(text).ok());
        let text = text
            .ok_or_else(|| ApiError::invalid_parameter(name, "must be UTF-8, percent-encoded"))?;
        if text.is_empty() {
            return Err(ApiError::missing_parameter(name));
        }
        Ok(Some(text))
    }

    /// Returns the value of a parameter that is parsed from its text, and `expected` says what is
    /// right.
    pub(super) fn value<T>(
        &self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| ApiError::invalid_parameter(name, expected))
    }

    /// Returns a whole number between two bounds.
    pub(super) fn number(
        &self,
        name: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let expected = format!("must be a whole number from {} to {}", range.start(), range.end());
        self.value(name, &expected, |text| {
            let has_digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = has_digits_only.then(|| text.parse().ok())??;
            range.contains(&number).then_some(number)
        })
    }

    /// Returns `true` or `false`.
    pub(super) fn flag(&self, name: &'static str) -> Result<Option<bool>, ApiError> {
        self.value(name, "must be true or false", |text| text.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["limit", "name", "is"];

    fn code<T>(result: Result<T, ApiError>) -> &'static str {
        result.err().map_or("", |error| error.code())
    }

    #[test]
    fn parameters_are_decoded_and_have_a_type() {
        let query = Query::parse("limit=07&n%61me=a%2Fb+c&&is=true", KNOWN).unwrap();
        assert_eq!(query.number("limit", 1..=10), Ok(Some(7)));
        assert_eq!(query.text("name"), Ok(Some("a/b c".into())));
        assert_eq!(query.flag("is"), Ok(Some(true)));
        let query = Query::parse("", KNOWN).unwrap();
        assert_eq!(query.number("limit", 1..=10), Ok(None));
        assert_eq!(query.flag("is"), Ok(None));
    }

    #[test]
    fn wrong_parameters_are_told_apart() {
        for (query, expected) in [
            ("limits=1", "unknown_parameter"),
            ("%ff=1", "unknown_parameter"),
            ("limit=1&limit=1", "duplicate_parameter"),
        ] {
            assert_eq!(code(Query::parse(query, KNOWN)), expected, "{query}");
        }
        for limit in ["0", "11", "-1", "+1", "1.0", "x", "%zz", "99999999999999999999"] {
            let text = format!("limit={limit}");
            let query = Query::parse(&text, KNOWN).unwrap();
            assert_eq!(code(query.number("limit", 1..=10)), "invalid_parameter", "{limit}");
        }
        let query = Query::parse("limit=&is=1", KNOWN).unwrap();
        assert_eq!(code(query.number("limit", 1..=10)), "missing_parameter");
        assert_eq!(code(query.flag("is")), "invalid_parameter");
    }
}
