//! Prevents pages of other sites from misusing the browser of an authorized caller.
//!
//! A browser adds credentials and client certificates to the requests of any page, and states the
//! page's origin truthfully. Callers other than browsers do not send these headers. Pure functions
//! over the headers of a request; used by `admission` and `health`.

use std::net::IpAddr;

use actix_web::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};

use super::ApiError;
use crate::net::is_own_origin;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses a call from a page of another site if it changes something.
pub(super) fn refuse_cross_site(headers: &HeaderMap) -> Result<(), ApiError> {
    // `none` means that the user entered the URL. The other values are `cross-site` and
    // `same-site`, which means another host of the same domain.
    let is_own = |site: &[u8]| matches!(site, b"same-origin" | b"none");
    if !headers.get_all(&SEC_FETCH_SITE).all(|site| is_own(site.as_bytes())) {
        return Err(ApiError::cross_site());
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // A browser that hides the origin of a page sends `null`.
    let is_own = |origin: &str| is_own_origin(origin, host);
    let all_own = headers.get_all(ORIGIN).all(|origin| origin.to_str().is_ok_and(is_own));
    if all_own { Ok(()) } else { Err(ApiError::cross_site()) }
}

/// Refuses a request whose `Host` may be a foreign name that resolves to this machine (DNS
/// rebinding). IP addresses, `localhost` and the machine's own names are safe.
pub(super) fn refuse_other_hosts(headers: &HeaderMap, known: &[String]) -> Result<(), ApiError> {
    let Some(host) = headers.get(HOST) else {
        return Ok(()); // HTTP/1.0, which no browser uses
    };
    let name = host.to_str().ok().map(without_port).unwrap_or_default();
    // A trailing dot is the same name for DNS, but not for a comparison.
    let name = name.strip_suffix('.').unwrap_or(name);
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    let is_local = || is("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    let is_own_name = || rustix::system::uname().nodename().to_str().is_ok_and(is);
    // The name of the machine comes last, because it takes a system call.
    let is_known = address_of(name).is_some()
        || is_local()
        || known.iter().any(|known| is(known))
        || is_own_name();
    if is_known { Ok(()) } else { Err(ApiError::forbidden_host()) }
}

/// Returns the name in a `Host` header.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

/// Returns the address that a name in a `Host` header is; `None` if it is another name.
pub(super) fn address_of(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn a_page_of_another_site_is_told_by_either_header() {
        for lines in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "https://broker:8080")],
            &[("origin", "http://broker.evil.example")],
            &[("origin", "file://broker")],
            &[("origin", "http://broker"), ("origin", "http://evil.example")],
        ] {
            let headers = headers(&[&[("host", "broker")], lines].concat());
            assert_eq!(refuse_cross_site(&headers), Err(ApiError::cross_site()), "{lines:?}");
        }
    }

    #[test]
    fn ones_own_pages_and_programs_are_welcome() {
        for (host, lines) in [
            ("broker:8080", &[][..]),
            ("broker:8080", &[("sec-fetch-site", "none")]),
            ("broker:8080", &[("sec-fetch-site", "same-origin"), ("origin", "http://broker:8080")]),
            ("Broker", &[("origin", "http://broker")]),
            ("broker:443", &[("origin", "https://broker")]),
            ("[::1]:8080", &[("origin", "http://[::1]:8080")]),
        ] {
            let headers = headers(&[&[("host", host)], lines].concat());
            assert_eq!(refuse_cross_site(&headers), Ok(()), "{host} {lines:?}");
        }
    }

    #[test]
    fn names_that_are_the_machines_own_are_known() {
        let known = ["metrics.example.org".to_owned()];
        let own = rustix::system::uname().nodename().to_str().unwrap().to_owned();
        for host in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "192.0.2.7:8080",
            "[::1]",
            "[::1]:8080",
            "localhost",
            "LOCALHOST:8080",
            "localhost.:8080",
            "a.localhost",
            "Metrics.example.org:8080",
            &own,
        ] {
            assert_eq!(refuse_other_hosts(&headers(&[("host", host)]), &known), Ok(()), "{host}");
        }
        assert_eq!(refuse_other_hosts(&headers(&[]), &known), Ok(()));
        for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "", "[::1"] {
            let refused = refuse_other_hosts(&headers(&[("host", host)]), &known);
            assert_eq!(refused, Err(ApiError::forbidden_host()), "{host}");
        }
    }
}
