//! Finds the caller behind reverse proxies, from `Forwarded` (RFC 7239) and `X-Forwarded-For`.
//!
//! Only the part of a header that trusted proxies have written is used: from its end up to the
//! first address that is not a trusted proxy. Pure functions; used by `admission`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName, X_FORWARDED_FOR};

use super::ApiError;
use crate::auth::Network;

/// Returns the caller behind `from`, the peer of the connection.
///
/// # Errors
/// Both headers are present and name different callers. This is suspicious, because a proxy writes
/// one of them and passes on what its caller wrote into the other.
pub(super) fn caller(
    from: SocketAddr,
    headers: &HeaderMap,
    proxies: &[Network],
) -> Result<SocketAddr, ApiError> {
    let is_proxy = |address: IpAddr| proxies.iter().any(|network| network.contains(address));
    if !is_proxy(from.ip()) {
        return Ok(from);
    }
    let named = |name: HeaderName, node_of: fn(&str) -> Option<SocketAddr>| {
        let mut lines: Vec<_> = headers.get_all(name).collect();
        lines.reverse();
        if lines.is_empty() {
            return None;
        }
        let mut caller = from;
        for line in lines {
            for element in from_the_end(line.to_str().unwrap_or_default()) {
                // An element without an address hides the caller, so the proxy counts as the
                // caller.
                let Some(node) = node_of(element) else { return Some(caller) };
                caller = node;
                if !is_proxy(caller.ip()) {
                    return Some(caller);
                }
            }
        }
        Some(caller)
    };
    match (named(FORWARDED, forwarded_for), named(X_FORWARDED_FOR, node)) {
        (Some(one), Some(other)) if one.ip() != other.ip() => Err(ApiError::conflicting_headers()),
        (Some(caller), _) | (None, Some(caller)) => Ok(caller),
        (None, None) => Ok(from),
    }
}

/// Returns the elements of a list, last one first. So text that the caller wrote at the beginning,
/// for example a quotation mark, cannot hide what its proxy has appended.
fn from_the_end(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let list = rest?;
        let mut is_quoted = false;
        let comma = list.bytes().rposition(|byte| {
            is_quoted ^= byte == b'"';
            byte == b',' && !is_quoted
        });
        let (before, element) = match comma {
            Some(at) => (Some(&list[..at]), &list[at + 1..]),
            None => (None, list),
        };
        rest = before;
        Some(element.trim())
    })
}

/// Returns the address in `for=` of an element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<SocketAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    node(value.trim().trim_matches('"'))
}

/// Parses an address with or without a port; IPv6 may be in brackets.
fn node(text: &str) -> Option<SocketAddr> {
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

    use super::*;

    fn named(from: &str, headers: &[(HeaderName, &str)]) -> Result<String, ApiError> {
        let proxies = ["10.0.0.0/8", "::1"].map(|network| network.parse().unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        let caller = caller(format!("{from}:1").parse().unwrap(), &map, &proxies);
        caller.map(|caller| caller.ip().to_string())
    }

    #[test]
    fn a_trusted_proxy_says_whose_call_it_passes_on() {
        for (header, value, caller) in [
            (X_FORWARDED_FOR, "192.0.2.7", "192.0.2.7"),
            (X_FORWARDED_FOR, "192.0.2.7:4711", "192.0.2.7"),
            (X_FORWARDED_FOR, "2001:db8::7", "2001:db8::7"),
            (X_FORWARDED_FOR, "::ffff:192.0.2.7", "192.0.2.7"),
            (X_FORWARDED_FOR, "198.51.100.1, 192.0.2.7, 10.0.0.9", "192.0.2.7"),
            (X_FORWARDED_FOR, "10.0.0.8,10.0.0.9", "10.0.0.8"),
            (X_FORWARDED_FOR, "192.0.2.7, unknown", "10.0.0.1"),
            (X_FORWARDED_FOR, "192.0.2.7, unknown, 10.0.0.9", "10.0.0.9"),
            (X_FORWARDED_FOR, "", "10.0.0.1"),
            (FORWARDED, "for=192.0.2.7", "192.0.2.7"),
            (FORWARDED, "proto=https;For=\"192.0.2.7:4711\";by=10.0.0.1", "192.0.2.7"),
            (FORWARDED, "for=\"[2001:db8::7]:4711\"", "2001:db8::7"),
            (FORWARDED, "for=\"[2001:db8::7]\"", "2001:db8::7"),
            (FORWARDED, "for=198.51.100.1, for=192.0.2.7;x=\"a,b\", for=10.0.0.9", "192.0.2.7"),
            (FORWARDED, "for=\", for=192.0.2.7", "192.0.2.7"),
            (FORWARDED, "for=_hidden", "10.0.0.1"),
            (FORWARDED, "by=10.0.0.9", "10.0.0.1"),
        ] {
            let found = named("10.0.0.1", &[(header.clone(), value)]);
            assert_eq!(found.as_deref(), Ok(caller), "{header}: {value}");
        }
    }

    #[test]
    fn several_headers_of_a_name_are_one() {
        let headers = [(X_FORWARDED_FOR, "198.51.100.1"), (X_FORWARDED_FOR, "192.0.2.7")];
        assert_eq!(named("10.0.0.1", &headers).as_deref(), Ok("192.0.2.7"));
    }

    #[test]
    fn nobody_else_is_believed() {
        let headers = [(X_FORWARDED_FOR, "192.0.2.7"), (FORWARDED, "for=192.0.2.8")];
        for from in ["192.0.2.1", "127.0.0.1", "[2001:db8::1]"] {
            let itself = from.trim_matches(['[', ']']);
            assert_eq!(named(from, &headers).as_deref(), Ok(itself));
        }
        assert_eq!(named("10.0.0.1", &headers), Err(ApiError::conflicting_headers()));
        let same = [(X_FORWARDED_FOR, "192.0.2.7"), (FORWARDED, "for=192.0.2.7")];
        assert_eq!(named("[::1]", &same).as_deref(), Ok("192.0.2.7"));
    }
}
