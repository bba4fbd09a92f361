//! Parses the parameters of a call from the raw request target.
//!
//! actix-web decodes a path before it matches routes, so that it loses what was encoded, and its
//! query extractors use the last of two values. Here `%2F` is part of an identifier and a second
//! value is an error. Pure functions over the text of the target; used by `calls`.

use super::error::{ApiError, ClientIdError};
use crate::control::KEEP_ALIVE_SECS;

/// The allowed Keep Alive, in seconds.
pub(super) const INTERVAL_SECS: std::ops::RangeInclusive<u16> = KEEP_ALIVE_SECS;

/// Maximum bytes of an MQTT string (section 1.5.4).
const CLIENT_ID_BYTES_MAX: usize = 65_535;

/// The parameters of a call that changes a Keep Alive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeepAliveParameters {
    pub(super) client_id: String,
    pub(super) interval_secs: u16,
}

/// Parses `client-id` and `interval`. Other parameters are ignored.
pub(super) fn keep_alive(query: &str) -> Result<KeepAliveParameters, ApiError> {
    let client_id = single(query, "client-id")?;
    let interval = single(query, "interval")?;
    Ok(KeepAliveParameters {
        client_id: client_id_of(client_id, Plus::IsSpace)?,
        interval_secs: interval_of(interval)?,
    })
}

/// Parses the client identifier in `/{client id}/status`, the path after `/client-id`.
pub(super) fn status(path: &str) -> Result<String, ApiError> {
    let id = path.strip_suffix("/status").and_then(|path| path.strip_prefix('/'));
    let id = id.ok_or_else(ApiError::not_found)?;
    // Before decoding: an encoded slash is part of the identifier, a plain one is a mistake.
    if id.contains('/') {
        return Err(ApiError::invalid_client_id(ClientIdError::Slash));
    }
    // A proxy between the caller and the broker may resolve such a segment as a relative path.
    if matches!(id, "." | "..") {
        return Err(ApiError::invalid_client_id(ClientIdError::Dots));
    }
    if id.is_empty() {
        return Err(ApiError::missing_parameter("client-id"));
    }
    client_id_of(id, Plus::IsPlus)
}

/// Returns the only value of parameter `name`, still encoded.
pub(super) fn single<'q>(query: &'q str, name: &'static str) -> Result<&'q str, ApiError> {
    let mut values = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(key, _)| decode(key, Plus::IsSpace).is_ok_and(|key| key == name.as_bytes()))
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(ApiError::duplicate_parameter(name)),
        (None | Some(""), None) => Err(ApiError::missing_parameter(name)),
        (Some(value), None) => Ok(value),
    }
}

fn interval_of(encoded: &str) -> Result<u16, ApiError> {
    decode(encoded, Plus::IsSpace)
        .ok()
        .filter(|digits| digits.iter().all(u8::is_ascii_digit)) // `parse` would accept a sign
        .and_then(|digits| String::from_utf8(digits).ok()?.parse().ok())
        .filter(|secs| INTERVAL_SECS.contains(secs))
        .ok_or_else(|| ApiError::invalid_interval(INTERVAL_SECS))
}

/// Decodes a Client Identifier and checks it.
pub(super) fn client_id_of(encoded: &str, plus: Plus) -> Result<String, ApiError> {
    let bytes = decode(encoded, plus).map_err(ApiError::invalid_client_id)?;
    let id = String::from_utf8(bytes) // [MQTT-1.5.4-1]
        .map_err(|_| ApiError::invalid_client_id(ClientIdError::NotUtf8))?;
    check_client_id(&id)?;
    Ok(id)
}

/// Checks that a text can be a Client Identifier.
pub(super) fn check_client_id(id: &str) -> Result<(), ApiError> {
    if id.len() > CLIENT_ID_BYTES_MAX {
        return Err(ApiError::invalid_client_id(ClientIdError::TooLong)); // section 1.5.4
    }
    if id.contains('\0') {
        return Err(ApiError::invalid_client_id(ClientIdError::Null)); // [MQTT-1.5.4-2]
    }
    Ok(())
}

/// The meaning of an unencoded `+`. In a query it is a space, as in forms, because every library
/// that leaves a `+` there means a space (a plus sign is `%2B`); in a path it is a plus sign.
#[derive(Clone, Copy)]
pub(super) enum Plus {
    IsSpace,
    IsPlus,
}

/// Percent-decodes; unlike many parsers of RFC 3986 it rejects a `%` without two hexadecimal
/// digits.
pub(super) fn decode(encoded: &str, plus: Plus) -> Result<Vec<u8>, ClientIdError> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match (byte, plus) {
            (b'%', _) => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = digit().zip(digit()).ok_or(ClientIdError::PercentEncoding)?;
                u8::try_from(high * 16 + low).expect("two hexadecimal digits are one byte")
            }
            // Only in a query: forms encode a space as a plus, paths do not.
            (b'+', Plus::IsSpace) => b' ',
            _ => byte,
        });
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> Result<(String, u16), &'static str> {
        keep_alive(query)
            .map(|parameters| (parameters.client_id, parameters.interval_secs))
            .map_err(|error| error.code())
    }

    #[test]
    fn parameters_are_decoded() {
        for (query, client_id, secs) in [
            ("client-id=a&interval=30", "a", 30),
            ("interval=1200&x=1&client-id=a%2Fb%23%2B%25", "a/b#+%", 1200),
            ("client%2Did=%e2%82%AC&interval=%36%30", "€", 60),
            ("client-id=a+b%20c=d;e&interval=0060", "a b c=d;e", 60),
            ("&&client-id=€&interval=60&", "€", 60),
        ] {
            assert_eq!(parsed(query), Ok((client_id.into(), secs)), "{query}");
        }
    }

    #[test]
    fn wrong_parameters_are_told_apart() {
        for (query, code) in [
            ("", "missing_parameter"),
            ("client-id=a", "missing_parameter"),
            ("interval=60", "missing_parameter"),
            ("client-id=&interval=60", "missing_parameter"),
            ("client-id&interval=60", "missing_parameter"),
            ("client-id=a&interval=", "missing_parameter"),
            ("Client-Id=a&interval=60", "missing_parameter"),
            ("client-id=a&client-id=a&interval=60", "duplicate_parameter"),
            ("client-id=a&client%2Did=&interval=60", "duplicate_parameter"),
            ("client-id=a&interval=60&interval=60", "duplicate_parameter"),
            ("client-id=%&interval=60", "invalid_client_id"),
            ("client-id=%4&interval=60", "invalid_client_id"),
            ("client-id=%zz&interval=60", "invalid_client_id"),
            ("client-id=%+1&interval=60", "invalid_client_id"),
            ("client-id=%FF&interval=60", "invalid_client_id"),
            ("client-id=%ED%A0%80&interval=60", "invalid_client_id"), // a surrogate
            ("client-id=a%00&interval=60", "invalid_client_id"),
        ] {
            assert_eq!(parsed(query), Err(code), "{query}");
        }
        for interval in [
            "0",
            "29",
            "1201",
            "65536",
            "99999999999999999999",
            "-60",
            "+60",
            "%2B60",
            "60.0",
            "6e1",
            "0x3c",
            "sixty",
            "%D9%A6%D9%A0",
            "60%20",
            "%zz",
            "60s",
        ] {
            let query = format!("client-id=a&interval={interval}");
            assert_eq!(parsed(&query), Err("invalid_interval"), "{interval}");
        }
    }

    #[test]
    fn an_id_has_at_most_65535_bytes() {
        let query = |len| format!("interval=60&client-id={}", "%61".repeat(len));
        assert!(parsed(&query(65_535)).is_ok());
        assert_eq!(parsed(&query(65_536)), Err("invalid_client_id"));
    }

    #[test]
    fn the_id_in_a_path_is_one_encoded_segment() {
        for (path, id) in [
            ("/a/status", Ok("a")),
            ("/a%2Fb/status", Ok("a/b")),
            ("/%2F/status", Ok("/")),
            ("/a+b%20%23/status", Ok("a+b #")),
            ("/status/status", Ok("status")),
            ("/client-id/status", Ok("client-id")),
            ("/.../status", Ok("...")),
            ("/%2e%2E/status", Ok("..")),
            ("//status", Err("missing_parameter")),
            ("/a/b/status", Err("invalid_client_id")),
            ("/x/client-id/a/status", Err("invalid_client_id")),
            ("/../client-id/a/status", Err("invalid_client_id")),
            ("/a/../status", Err("invalid_client_id")),
            ("/../status", Err("invalid_client_id")),
            ("/./status", Err("invalid_client_id")),
            ("/%G0/status", Err("invalid_client_id")),
            ("/a/status/", Err("not_found")),
            ("/a", Err("not_found")),
            ("/a/Status", Err("not_found")),
            ("/status", Err("not_found")),
        ] {
            let found = status(path);
            assert_eq!(found.as_deref().map_err(|error| error.code()), id, "{path}");
        }
    }
}
