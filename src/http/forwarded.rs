//! Finds the caller behind reverse proxies, from `Forwarded` (RFC 7239) and `X-Forwarded-For`.
//!
//! Only the part of a header that trusted proxies have written is read: from its end up to the
//! first address that is not a trusted proxy. The rest was written by the caller and may be any
//! bytes. A proxy that does not name its caller is not taken for the caller. Pure functions; used
//! by `admission`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName, X_FORWARDED_FOR};

use super::ApiError;
use crate::auth::Network;

/// Returns the caller behind `from`, the peer of the connection.
///
/// # Errors
/// A trusted proxy does not name an address. Or both headers are present and name different
/// callers: this is suspicious, because a proxy writes one of them and passes on what its caller
/// wrote into the other.
pub(super) fn caller(
    from: SocketAddr,
    headers: &HeaderMap,
    proxies: &[Network],
) -> Result<SocketAddr, ApiError> {
    let is_proxy = |address: IpAddr| proxies.iter().any(|network| network.contains(address));
    // Headers of a caller that is no proxy may name anybody.
    if !is_proxy(from.ip()) {
        return Ok(from);
    }
    let named = |name: HeaderName, node_of: fn(&[u8]) -> Option<SocketAddr>| {
        let mut lines: Vec<_> = headers.get_all(name).collect();
        // The last header is the newest, written by the nearest proxy.
        lines.reverse();
        let mut caller = None;
        for element in lines.iter().flat_map(|line| from_the_end(line.as_bytes(), b',')) {
            let Some(node) = node_of(element) else { return Err(ApiError::unknown_caller()) };
            caller = Some(node);
            // The first address that is not a proxy is the caller; it has written what is before.
            if !is_proxy(node.ip()) {
                break;
            }
        }
        Ok(caller)
    };
    match (named(FORWARDED, forwarded_for)?, named(X_FORWARDED_FOR, node)?) {
        (Some(one), Some(other)) if one.ip() != other.ip() => Err(ApiError::conflicting_headers()),
        (Some(caller), _) | (None, Some(caller)) => Ok(caller),
        (None, None) => Ok(from),
    }
}

/// Returns the parts of a list between separators outside of quoted texts, last one first. So text
/// that the caller wrote at the beginning, for example a quotation mark, cannot hide what its proxy
/// has appended.
fn from_the_end(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let list = rest?;
        let mut is_quoted = false;
        let at = list.iter().enumerate().rposition(|(at, byte)| {
            // Outside of a quoted text this is the mark that ends one, and it is not escaped.
            is_quoted ^= *byte == b'"' && !(is_quoted && is_escaped(&list[..at]));
            *byte == separator && !is_quoted
        });
        let (before, part) = match at {
            Some(at) => (Some(&list[..at]), &list[at + 1..]),
            None => (None, list),
        };
        rest = before;
        Some(part.trim_ascii())
    })
}

/// Returns whether a byte with these bytes before it is escaped in a quoted text.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Returns the address in `for=` of an element of `Forwarded`; `None` if the element is malformed
/// or has several.
fn forwarded_for(element: &[u8]) -> Option<SocketAddr> {
    let mut named = None;
    for pair in from_the_end(element, b';').filter(|pair| !pair.is_empty()) {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&pair[..equals], unquoted(&pair[equals + 1..])?);
        if name.is_empty() || !name.iter().all(|byte| is_of_token(*byte)) {
            return None;
        }
        if name.eq_ignore_ascii_case(b"for") && named.replace(value).is_some() {
            return None;
        }
    }
    node(&named?)
}

/// Returns whether a byte may be part of a token (RFC 9110, 5.6.2).
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns the text of a value, which may be quoted (RFC 9110, 5.6.4). Without quotes, other bytes
/// than those of a token are accepted: some proxies send the colons of an address.
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let Some(rest) = value.strip_prefix(b"\"") else {
        let is_plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'"';
        return value.iter().all(is_plain).then(|| value.to_vec());
    };
    let mut bytes = rest.strip_suffix(b"\"")?.iter();
    let mut text = Vec::new();
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'"' => return None,
            b'\\' => *bytes.next()?,
            byte => *byte,
        });
    }
    Some(text)
}

/// Parses an address with or without a port; IPv6 may be in brackets.
fn node(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let address: SocketAddr = match (text.parse(), text.parse::<IpAddr>()) {
        (Ok(address), _) => address,
        (_, Ok(ip)) => SocketAddr::new(ip, 0),
        _ => SocketAddr::new(bracketed()?.into(), 0),
    };
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn named(from: &str, headers: &[(HeaderName, &[u8])]) -> Result<String, ApiError> {
        let proxies = ["10.0.0.0/8", "::1"].map(|network| network.parse().unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.clone(), HeaderValue::from_bytes(value).unwrap());
        }
        let caller = caller(format!("{from}:1").parse().unwrap(), &map, &proxies);
        caller.map(|caller| caller.ip().to_string())
    }

    fn expect(cases: &[(HeaderName, &[u8], Option<&str>)]) {
        for (header, value, caller) in cases {
            let found = named("10.0.0.1", &[(header.clone(), value)]);
            let expected = caller.map(str::to_owned).ok_or_else(ApiError::unknown_caller);
            assert_eq!(found, expected, "{header}: {}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn a_trusted_proxy_says_whose_call_it_passes_on() {
        expect(&[
            (X_FORWARDED_FOR, b"192.0.2.7", Some("192.0.2.7")),
            (X_FORWARDED_FOR, b"192.0.2.7:4711", Some("192.0.2.7")),
            (X_FORWARDED_FOR, b"2001:db8::7", Some("2001:db8::7")),
            (X_FORWARDED_FOR, b"::ffff:192.0.2.7", Some("192.0.2.7")),
            (X_FORWARDED_FOR, b"198.51.100.1, 192.0.2.7, 10.0.0.9", Some("192.0.2.7")),
            (X_FORWARDED_FOR, b"10.0.0.8,10.0.0.9", Some("10.0.0.8")),
            (FORWARDED, b"for=192.0.2.7", Some("192.0.2.7")),
            (FORWARDED, b"proto=https;For=\"192.0.2.7:4711\";by=10.0.0.1", Some("192.0.2.7")),
            (FORWARDED, b"for=\"[2001:db8::7]:4711\"", Some("2001:db8::7")),
            (FORWARDED, b"for=\"[2001:db8::7]\"", Some("2001:db8::7")),
            (FORWARDED, b"for=[2001:db8::7]", Some("2001:db8::7")),
            (FORWARDED, b";for=192.0.2.7; proto=https ;", Some("192.0.2.7")),
            (FORWARDED, b"for=1.2.3.4, for=192.0.2.7;x=\"a,b\", for=10.0.0.9", Some("192.0.2.7")),
        ]);
    }

    #[test]
    fn what_the_caller_wrote_before_is_not_read() {
        expect(&[
            (X_FORWARDED_FOR, b"\xff, 192.0.2.7", Some("192.0.2.7")),
            (X_FORWARDED_FOR, "127.0.0.1 \u{fc}, 192.0.2.7".as_bytes(), Some("192.0.2.7")),
            (X_FORWARDED_FOR, b",, ,192.0.2.7", Some("192.0.2.7")),
            (FORWARDED, b"for=\xff, for=192.0.2.7", Some("192.0.2.7")),
            (FORWARDED, b"for=\", for=192.0.2.7", Some("192.0.2.7")),
            (FORWARDED, b"for=\"\\\", for=192.0.2.7", Some("192.0.2.7")),
            (FORWARDED, b"for=\"\\, for=192.0.2.7", Some("192.0.2.7")),
        ]);
    }

    #[test]
    fn a_proxy_that_does_not_name_the_caller_is_not_the_caller() {
        expect(&[
            (X_FORWARDED_FOR, b"", None),
            (X_FORWARDED_FOR, b"192.0.2.7,", None),
            (X_FORWARDED_FOR, b"192.0.2.7, unknown", None),
            (X_FORWARDED_FOR, b"192.0.2.7, unknown, 10.0.0.9", None),
            (X_FORWARDED_FOR, b"192.0.2.7, \xff", None),
            (X_FORWARDED_FOR, b"192.0.2.7 127.0.0.1", None),
            (FORWARDED, b"for=_hidden", None),
            (FORWARDED, b"for=unknown, for=10.0.0.9", None),
            (FORWARDED, b"by=10.0.0.9", None),
            (FORWARDED, b"for=192.0.2.7;host=\"\xff", None),
        ]);
    }

    #[test]
    fn a_quoted_text_does_not_name_the_caller() {
        expect(&[
            (FORWARDED, b"host=\"x;for=127.0.0.1;y\";for=192.0.2.7", Some("192.0.2.7")),
            (FORWARDED, b"host=\"x, for=127.0.0.1\";for=192.0.2.7", Some("192.0.2.7")),
            (FORWARDED, b"for=192.0.2.7;host=\"x;for=127.0.0.1\"", Some("192.0.2.7")),
            (FORWARDED, b"host=\"a\\\"\";for=192.0.2.7", Some("192.0.2.7")),
            (FORWARDED, b"host=\"a\\\\\";for=192.0.2.7", Some("192.0.2.7")),
            (FORWARDED, b"for=127.0.0.1;x=y, host=\"a\\\"\";for=192.0.2.7", Some("192.0.2.7")),
            (FORWARDED, b"for=\"192.0.2\\.7\"", Some("192.0.2.7")),
        ]);
    }

    #[test]
    fn an_element_that_is_not_one_names_nobody() {
        expect(&[
            (FORWARDED, b"for=127.0.0.1;for=192.0.2.7", None),
            (FORWARDED, b"for=192.0.2.7;For=\"192.0.2.7\"", None),
            (FORWARDED, b"for=192.0.2.7;proto", None),
            (FORWARDED, b"for=192.0.2.7;host=\"a\"b", None),
            (FORWARDED, b"for=192.0.2.7;host=a\"b\"", None),
            (FORWARDED, b"host=\"x\"y\";for=192.0.2.7", None),
            (FORWARDED, b"for=192.0.2.7;=x", None),
        ]);
    }

    #[test]
    fn several_headers_of_a_name_are_one() {
        let headers = [(X_FORWARDED_FOR, &b"198.51.100.1"[..]), (X_FORWARDED_FOR, b"192.0.2.7")];
        assert_eq!(named("10.0.0.1", &headers).as_deref(), Ok("192.0.2.7"));
    }

    #[test]
    fn nobody_else_is_believed() {
        let headers = [(X_FORWARDED_FOR, &b"192.0.2.7"[..]), (FORWARDED, b"for=192.0.2.8")];
        for from in ["192.0.2.1", "127.0.0.1", "[2001:db8::1]"] {
            let itself = from.trim_matches(['[', ']']);
            assert_eq!(named(from, &headers).as_deref(), Ok(itself));
        }
        assert_eq!(named("10.0.0.1", &headers), Err(ApiError::conflicting_headers()));
        let same = [(X_FORWARDED_FOR, &b"192.0.2.7"[..]), (FORWARDED, b"for=192.0.2.7")];
        assert_eq!(named("[::1]", &same).as_deref(), Ok("192.0.2.7"));
        let half = [(X_FORWARDED_FOR, &b"192.0.2.7"[..]), (FORWARDED, b"for=x")];
        assert_eq!(named("[::1]", &half), Err(ApiError::unknown_caller()));
    }

    /// Returns a value as a proxy may write it: a token, or a quoted text with escapes.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9.]{1,8}",
            "[a-z;,= \"\\\\]{0,8}".prop_map(|text| {
                format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
            }),
        ]
    }

    proptest! {
        /// Whatever a caller has written, its proxy appends a well-formed element.
        #[test]
        fn no_text_hides_what_the_proxy_has_appended(
            before in proptest::collection::vec(
                prop_oneof![
                    prop::sample::select(b"\"\\;,".to_vec()),
                    0x20..=0x7e_u8,
                    0x80..=0xff_u8,
                ],
                0..24,
            ),
            host in value(),
            by in value(),
        ) {
            let element = format!(", host={host};for=192.0.2.7;by={by}");
            let line = [&before, element.as_bytes()].concat();
            let found = named("10.0.0.1", &[(FORWARDED, &line)]);
            prop_assert_eq!(found.as_deref(), Ok("192.0.2.7"));
            let list = [&before, &b", 192.0.2.7"[..]].concat();
            let found = named("10.0.0.1", &[(X_FORWARDED_FOR, &list)]);
            prop_assert_eq!(found.as_deref(), Ok("192.0.2.7"));
        }

        /// A caller that a proxy does not name is refused, and never counts as the proxy.
        #[test]
        fn any_text_names_a_caller_or_nobody(
            line in proptest::collection::vec(prop_oneof![0x20..=0x7e_u8, 0x80..=0xff_u8], 0..40),
        ) {
            for header in [FORWARDED, X_FORWARDED_FOR] {
                let found = named("10.0.0.1", &[(header, &line)]);
                prop_assert_ne!(found.as_deref(), Ok("10.0.0.1"));
            }
        }
    }
}
