//! The way on which a request of a page in a browser has come: whether a password and a cookie are safe
//! on it, and the cookie for it.
//!
//! Pure functions over the headers of a request.

use std::net::IpAddr;

use actix_web::http::header::{COOKIE, FORWARDED, HOST, HeaderMap, HeaderName};

use super::{
    browsers::{address_of, without_port},
    sessions::SessionSecret,
};

/// The header that a page adds to each of its calls. A page of another site cannot add it: the browser
/// first asks the server, which does not permit it. So a cookie counts together with this header alone.
pub(super) const PAGE_HEADER: HeaderName = HeaderName::from_static("x-hearthmq-console");
/// Its value for calls that the page makes by itself.
const BACKGROUND: &[u8] = b"background";

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Returns whether a page in a browser has made the call.
pub(super) fn is_of_page(headers: &HeaderMap) -> bool {
    headers.contains_key(PAGE_HEADER)
}

/// Returns whether a person has caused the call, and not the page by itself.
pub(super) fn is_caused_by_person(headers: &HeaderMap) -> bool {
    headers.get(PAGE_HEADER).is_some_and(|value| value.as_bytes() != BACKGROUND)
}

/// The way between a browser and the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// HTTPS, to the broker or to a trusted proxy.
    Secret,
    /// Plain HTTP that does not leave this machine.
    OwnMachine,
    /// Plain HTTP.
    Open,
}

impl Channel {
    /// Returns the way of a request.
    ///
    /// `is_tls`: the connection has TLS. `is_of_proxy`: a trusted proxy has sent the request. `caller`:
    /// the address of the browser.
    pub(super) fn of(is_tls: bool, is_of_proxy: bool, caller: IpAddr, headers: &HeaderMap) -> Self {
        if is_tls || is_of_proxy && had_tls(headers) {
            return Self::Secret;
        }
        // With a foreign name, the page may be one of another machine that resolves to this one.
        let is_local =
            caller.to_canonical().is_loopback() && is_name_of_loopback(without_port(host(headers)));
        if is_local { Self::OwnMachine } else { Self::Open }
    }

    /// Returns the name of the cookie; `None` if there is none on this way.
    fn cookie_name(self, headers: &HeaderMap) -> Option<String> {
        let prefix = match self {
            Self::Secret => "__Host-",
            Self::OwnMachine => "",
            Self::Open => return None,
        };
        // Browsers send the cookies of a host to all its ports, where other brokers may be.
        let port = port(headers).map_or(String::new(), |port| format!("-{port}"));
        Some(format!("{prefix}hearthmq{port}"))
    }

    /// Returns the secret in the cookie of a request.
    pub(super) fn secret(self, headers: &HeaderMap) -> Option<SessionSecret> {
        let name = self.cookie_name(headers)?;
        let lines = headers.get_all(COOKIE).filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|it| it.split_once('='));
        pairs
            .find(|(other, _)| other.trim() == name)
            .and_then(|(_, value)| SessionSecret::parse(value.trim()))
    }

    /// Returns the header `Set-Cookie` with a secret, or the one that removes it; `None` if there is no
    /// cookie on this way.
    pub(super) fn set_cookie(
        self,
        headers: &HeaderMap,
        secret: Option<&SessionSecret>,
    ) -> Option<String> {
        let name = self.cookie_name(headers)?;
        let (value, end) = match secret {
            Some(secret) => (secret.text(), ""),
            None => (String::new(), "; Max-Age=0"),
        };
        let secure = if self == Self::Secret { "; Secure" } else { "" };
        Some(format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{end}"))
    }
}

/// Returns whether a proxy says that its caller has used HTTPS. The last element is the one that the proxy
/// has appended; earlier ones may be of the browser. Two headers that contradict each other prove nothing.
fn had_tls(headers: &HeaderMap) -> bool {
    let last = |name: HeaderName| headers.get_all(name).last()?.to_str().ok()?.rsplit(',').next();
    let is_https = |text: &str| text.trim().trim_matches('"').eq_ignore_ascii_case("https");
    let is_proto = |pair: &str| {
        let pair = pair.split_once('=');
        pair.is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("proto") && is_https(value)
        })
    };
    let of_proto = last(X_FORWARDED_PROTO).map(is_https);
    let names_proto = |element: &&str| element.to_ascii_lowercase().contains("proto=");
    let of_forwarded = last(FORWARDED).filter(names_proto);
    let of_forwarded = of_forwarded.map(|element| element.split(';').any(is_proto));
    match (of_proto, of_forwarded) {
        (None, None) => false,
        // Whichever header is there must say HTTPS; one alone is enough.
        (one, other) => one.unwrap_or(true) && other.unwrap_or(true),
    }
}

fn host(headers: &HeaderMap) -> &str {
    headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

fn port(headers: &HeaderMap) -> Option<u16> {
    host(headers).rsplit_once(':')?.1.parse().ok()
}

fn is_name_of_loopback(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    address_of(&name).is_some_and(|address| address.is_loopback())
        || name == "localhost"
        || name.ends_with(".localhost")
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
    fn only_tls_and_this_machine_are_safe() {
        let of = |is_tls, is_of_proxy, caller: &str, lines: &[(&str, &str)]| {
            Channel::of(is_tls, is_of_proxy, caller.parse().unwrap(), &headers(lines))
        };
        let (tls, proxy) = (true, true);
        let local = &[("host", "localhost:8080")][..];
        let remote = &[("host", "broker.example:8080")][..];
        assert_eq!(of(tls, false, "192.0.2.1", remote), Channel::Secret);
        for host in
            ["localhost", "a.localhost.:80", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "[::1]"]
        {
            assert_eq!(
                of(false, false, "127.0.0.1", &[("host", host)]),
                Channel::OwnMachine,
                "{host}"
            );
            assert_eq!(of(false, false, "::1", &[("host", host)]), Channel::OwnMachine, "{host}");
            assert_eq!(of(false, false, "192.0.2.1", &[("host", host)]), Channel::Open, "{host}");
        }
        assert_eq!(of(false, false, "::ffff:127.0.0.1", local), Channel::OwnMachine);
        for host in
            ["", "broker.example", "localhost.example", "192.0.2.1:8080", "[::2]", "0.0.0.0"]
        {
            assert_eq!(of(false, false, "127.0.0.1", &[("host", host)]), Channel::Open, "{host}");
        }
        for (line, expected) in [
            (("x-forwarded-proto", "https"), Channel::Secret),
            (("x-forwarded-proto", "HTTPS, http"), Channel::Open),
            (("x-forwarded-proto", "http, HTTPS"), Channel::Secret),
            (("x-forwarded-proto", "http"), Channel::Open),
            (("forwarded", "for=192.0.2.1;Proto=\"https\""), Channel::Secret),
            (("forwarded", "for=192.0.2.1;host=https"), Channel::Open),
            (("forwarded", "for=192.0.2.1;proto=http, proto=https"), Channel::Secret),
        ] {
            assert_eq!(of(false, proxy, "192.0.2.1", &[remote[0], line]), expected, "{line:?}");
            assert_eq!(
                of(false, false, "192.0.2.1", &[remote[0], line]),
                Channel::Open,
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_cookie_is_that_of_its_way_and_its_port() {
        let secret = SessionSecret::parse(&"A".repeat(43)).unwrap();
        let text = secret.text();
        let here = headers(&[("host", "localhost:8080")]);
        let of = |channel: Channel| channel.set_cookie(&here, Some(&secret)).unwrap_or_default();
        assert_eq!(
            of(Channel::Secret),
            format!("__Host-hearthmq-8080={text}; Path=/; HttpOnly; SameSite=Strict; Secure")
        );
        assert_eq!(
            of(Channel::OwnMachine),
            format!("hearthmq-8080={text}; Path=/; HttpOnly; SameSite=Strict")
        );
        assert_eq!(of(Channel::Open), "");
        assert_eq!(
            Channel::Secret.set_cookie(&headers(&[("host", "b")]), None).unwrap(),
            "__Host-hearthmq=; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=0"
        );
        let found = |channel: Channel, cookie: &str| {
            channel.secret(&headers(&[("host", "b:443"), ("cookie", cookie)])).is_some()
        };
        let plain = format!("a=b; hearthmq-443={text} ;c");
        assert!(found(Channel::OwnMachine, &plain));
        assert!(!found(Channel::Secret, &plain), "another site could have set it");
        assert!(!found(Channel::Open, &plain));
        assert!(found(Channel::Secret, &format!("__Host-hearthmq-443={text}")));
        assert!(!found(Channel::Secret, &format!("__Host-hearthmq-444={text}")));
        assert!(!found(Channel::Secret, "__Host-hearthmq-443="));
    }

    #[test]
    fn a_page_says_whether_a_person_has_caused_a_call() {
        for (value, expected) in [("background", false), ("active", true), ("", true)] {
            let headers = headers(&[("x-hearthmq-console", value)]);
            assert!(is_of_page(&headers));
            assert_eq!(is_caused_by_person(&headers), expected, "{value}");
        }
        assert!(!is_of_page(&headers(&[])) && !is_caused_by_person(&headers(&[])));
    }
}
