//! Callers behind reverse proxies and balancers: whose address counts.

use std::num::NonZeroU32;

use hearthmq::{
    http::{ApiOptions, CallRate},
    net::ProxyProtocol,
};

use super::{
    failed,
    world::{options, rest_behind, rest_with},
};

const STATUS: &str = "GET /client-id/demo/status";

fn one_call() -> Option<CallRate> {
    Some(CallRate { per_sec: NonZeroU32::MIN, burst: NonZeroU32::MIN })
}

/// Each caller has its own rate limit, whichever proxy passes its calls on.
#[test]
fn the_address_that_a_trusted_proxy_names_has_the_rate() {
    let proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let rest = rest_with(&ApiOptions { address_rate: one_call(), proxies, ..options() });
    for header in [
        "X-Forwarded-For: 127.1.0.1, 192.0.2.1",
        "X-Forwarded-For: 198.51.100.1, 192.0.2.2, 127.0.0.1",
        "Forwarded: for=192.0.2.3;proto=https",
        "Forwarded: for=\"[2001:db8::1]:4711\"",
    ] {
        assert_eq!(rest.call_with(STATUS, header, "").status, 200, "{header}");
        let again = rest.call_with(STATUS, header, "");
        assert_eq!(again.failure(), failed(429, "too_many_requests"), "{header}");
    }
    let both = "Forwarded: for=192.0.2.8\r\nX-Forwarded-For: 192.0.2.9";
    let answer = rest.call_with(STATUS, both, "");
    assert_eq!(answer.failure(), failed(400, "conflicting_headers"));
}

/// A trusted proxy passes on whatever its caller wrote before the address that it adds itself.
#[test]
fn a_long_list_of_a_trusted_proxy_is_bounded_and_answered() {
    const BYTES: usize = 64 * 1024;
    let proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let rest = rest_with(&ApiOptions { address_rate: one_call(), proxies, ..options() });
    let filled = |text: &str| text.repeat(BYTES / text.len());
    for (number, junk) in
        ["127.0.0.2,", ",", "\"", "for=\",", "x", "[", "for=127.0.0.3;"].into_iter().enumerate()
    {
        // What the proxy has appended counts, whatever is before it.
        let junk = filled(junk);
        for header in [
            format!("X-Forwarded-For: {junk}, 192.0.2.{number}"),
            format!("Forwarded: {junk}, for=198.51.100.{number}"),
        ] {
            assert_eq!(rest.call_with(STATUS, &header, "").status, 200, "{:.40}", header);
            let again = rest.call_with(STATUS, &header, "");
            assert_eq!(again.failure(), failed(429, "too_many_requests"), "{:.40}", header);
        }
    }
    // Without an address at its end nothing names the caller.
    for header in
        [format!("Forwarded: {}", filled("x")), format!("X-Forwarded-For: {}", filled(","))]
    {
        let answer = rest.call_with(STATUS, &header, "");
        assert_eq!(answer.failure(), failed(400, "unknown_caller"), "{header:.40}");
    }
    // A head has a maximum length.
    let longer = format!("X-Forwarded-For: {}192.0.2.77", filled("127.0.0.2,").repeat(4));
    let answer = rest.call_with(STATUS, &longer, "");
    assert!([400, 431].contains(&answer.status), "{}", answer.status);
}

#[test]
fn nobody_is_believed_unless_named() {
    let rest = rest_with(&ApiOptions { address_rate: one_call(), ..options() });
    assert_eq!(rest.call_with(STATUS, "X-Forwarded-For: 192.0.2.1", "").status, 200);
    assert_eq!(rest.call_with(STATUS, "X-Forwarded-For: 192.0.2.2", "").status, 429);
    assert_eq!(rest.call_with(STATUS, "Forwarded: for=192.0.2.3", "").status, 429);
}

#[test]
fn metrics_are_not_shown_to_a_caller_that_a_proxy_on_the_machine_passes_on() {
    let proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let rest = rest_with(&ApiOptions { proxies, ..options() });
    assert_eq!(rest.call_with("GET /metrics", "X-Forwarded-For: 127.0.0.9", "").status, 200);
    let answer = rest.call_with("GET /metrics", "X-Forwarded-For: 192.0.2.1", "");
    assert_eq!(answer.failure(), failed(404, "not_found"));
}

/// A byte that is no ASCII, or a quoted text, comes from the caller and not from the proxy.
#[test]
fn a_caller_cannot_pass_for_its_proxy() {
    let proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let rest = rest_with(&ApiOptions { proxies, ..options() });
    let metrics = |header: &[u8]| {
        let request = rest.request("GET /metrics", "HEADER", "").into_bytes();
        let at = request.windows(6).position(|bytes| bytes == b"HEADER").unwrap();
        let request = [&request[..at], header, &request[at + 6..]].concat();
        rest.send_bytes(&request).unwrap()
    };
    for header in [
        &b"X-Forwarded-For: \xff, 192.0.2.7"[..],
        b"Forwarded: for=\xff, for=192.0.2.7",
        b"Forwarded: host=\"x;for=127.0.0.1;y\";for=192.0.2.7",
    ] {
        let answer = metrics(header);
        assert_eq!(answer.failure(), failed(404, "not_found"), "{header:?}");
    }
    for header in [
        &b"X-Forwarded-For: \xff"[..],
        b"X-Forwarded-For: unknown",
        b"Forwarded: for=127.0.0.1;for=192.0.2.7",
        b"Forwarded: for=_hidden",
    ] {
        let answer = metrics(header);
        assert_eq!(answer.failure(), failed(400, "unknown_caller"), "{header:?}");
    }
    let answer = rest.call_with(STATUS, "X-Forwarded-For: unknown", "");
    assert_eq!(answer.failure(), failed(400, "unknown_caller"));
}

/// The header of the connection has named the caller; others do not count, even from a proxy.
#[test]
fn behind_a_proxy_header_no_other_header_names_the_caller() {
    let proxies = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    let proxy = ProxyProtocol { trusted: vec!["127.0.0.0/8".parse().unwrap()] };
    let rest = rest_behind(&ApiOptions { address_rate: one_call(), proxies, ..options() }, proxy);
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY TCP4 10.0.0.1 192.0.2.254 1 2\r\n"] {
        let call = |forwarded: &str| {
            let plain = rest.request(STATUS, forwarded, "");
            rest.send_bytes(&[header, plain.as_bytes()].concat()).unwrap()
        };
        assert_eq!(call("X-Forwarded-For: 192.0.2.1").status, 200);
        let again = call("X-Forwarded-For: 192.0.2.2");
        assert_eq!(again.failure(), failed(429, "too_many_requests"), "{header:?}");
    }
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let plain = rest.request(STATUS, "Forwarded: for=192.0.2.3", "");
    let again = rest.send_bytes(&[local, plain.as_bytes()].concat()).unwrap();
    assert_eq!(again.failure(), failed(429, "too_many_requests"), "the balancer has had its call");
}

#[test]
fn a_proxy_header_names_the_caller_where_it_is_expected() {
    let options = ApiOptions { address_rate: one_call(), ..options() };
    let proxy = ProxyProtocol { trusted: vec!["127.0.0.0/8".parse().unwrap()] };
    let rest = rest_behind(&options, proxy);
    let plain = rest.request(STATUS, "", "");
    for header in [
        &b"PROXY TCP4 192.0.2.1 192.0.2.254 1 2\r\n"[..],
        b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x02\xc0\0\x02\xfe\0\x01\0\x02",
    ] {
        let request = [header, plain.as_bytes()].concat();
        assert_eq!(rest.send_bytes(&request).unwrap().status, 200, "{header:?}");
        let again = rest.send_bytes(&request).unwrap();
        assert_eq!(again.failure(), failed(429, "too_many_requests"), "{header:?}");
    }
    assert!(rest.send_bytes(plain.as_bytes()).is_none(), "a header is needed");
    let header = b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\n";
    let answer = super::rest().send_bytes(&[header, plain.as_bytes()].concat());
    assert_eq!(answer.unwrap().status, 400, "where none is expected it is no HTTP");
    let others = ProxyProtocol { trusted: vec!["10.0.0.0/8".parse().unwrap()] };
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.254 1 2\r\n";
    let rest = rest_behind(&options, others);
    assert!(rest.send_bytes(&[header, plain.as_bytes()].concat()).is_none(), "it is not trusted");
}
