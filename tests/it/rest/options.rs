//! Options that change while the interface is in use.

use std::{num::NonZeroU32, sync::mpsc, time::Duration};

use hearthmq::{
    auth::ListenerLogins,
    http::{ApiOptions, CallRate, Listener, MetricsAccess, Server, ServerOptions},
    net::ProxyProtocol,
};

use super::{
    connections::{LIVE, ask, connect, is_closed},
    failed,
    world::{Rest, basic, options, rest, rest_with, serving},
};

const STATUS: &str = "GET /client-id/demo/status";

fn one_call() -> Option<CallRate> {
    Some(CallRate { per_sec: NonZeroU32::MIN, burst: NonZeroU32::MIN })
}

#[test]
fn rates_are_those_that_hold_now() {
    let rest = rest();
    for limited in [
        ApiOptions { address_rate: one_call(), ..options() },
        ApiOptions { account_rate: one_call(), ..options() },
    ] {
        assert_eq!(rest.call(STATUS).status, 200);
        rest.api.set_options(&limited);
        assert_eq!(rest.call(STATUS).status, 200);
        assert_eq!(rest.call(STATUS).failure(), failed(429, "too_many_requests"));
        rest.api.set_options(&limited);
        assert_eq!(rest.call(STATUS).status, 429, "the same rate goes on counting");
        rest.api.set_options(&options());
    }
}

#[test]
fn metrics_follow_a_change_of_their_access() {
    let rest = rest();
    let metrics = || rest.call("GET /metrics").status;
    let named = || {
        let request = "GET /metrics HTTP/1.1\r\nHost: m.example\r\nConnection: close\r\n\r\n";
        rest.send(request).status
    };
    assert_eq!((metrics(), named()), (200, 403));
    let metrics_hosts = vec!["m.example".to_owned()];
    rest.api.set_options(&ApiOptions { metrics_hosts, ..options() });
    assert_eq!(named(), 200);
    rest.api.set_options(&ApiOptions { metrics_access: MetricsAccess::Nobody, ..options() });
    assert_eq!(metrics(), 404);
    rest.api.set_options(&ApiOptions { metrics_access: MetricsAccess::Anyone, ..options() });
    assert_eq!((metrics(), named()), (200, 200));
}

#[test]
fn a_call_and_a_login_have_the_time_that_they_have_now() {
    let (hour, timeout) = (Duration::from_secs(3_600), Duration::from_millis(1));
    let patient = ApiOptions { login_timeout: hour, call_timeout: hour, ..options() };
    let rest = rest_with(&patient);
    rest.api.set_options(&ApiOptions { login_timeout: timeout, ..patient.clone() });
    let answer = rest.call_as(Some(&basic("pending:x")), STATUS);
    assert_eq!(answer.failure(), failed(503, "unavailable"));
    rest.api.set_options(&ApiOptions { call_timeout: timeout, ..patient });
    let stuck = "GET /client-id/stuck/status";
    assert_eq!(rest.call(stuck).failure(), failed(504, "timeout"));
}

#[test]
fn proxies_are_believed_that_are_named_now() {
    let rest = rest();
    let header = "X-Forwarded-For: 192.0.2.1";
    assert_eq!(rest.call_with("GET /metrics", header, "").status, 200);
    let proxies = vec!["127.0.0.0/8".parse().unwrap()];
    rest.api.set_options(&ApiOptions { proxies, ..options() });
    assert_eq!(rest.call_with("GET /metrics", header, "").status, 404);
}

/// The double reports which clients it has admitted by which rules.
#[test]
fn logins_at_a_listener_are_those_that_hold_now() {
    let rest = rest();
    let url = format!("http://{}", rest.address());
    let rules = ListenerLogins { certificate_needs_account: Some(true), ..Default::default() };
    let call = || rest.call_as(Some(&basic("needs-account:x")), STATUS).status;
    assert_eq!(call(), 200);
    rest.api.set_options(&ApiOptions { logins: vec![(url, rules)], ..options() });
    assert_eq!(call(), 401);
}

/// Starts an interface; returns the server that serves it too.
fn served() -> (Rest, Server) {
    let (sender, server) = mpsc::channel();
    let rest = serving(move |api, listener| {
        let listeners = vec![Listener::http(listener)];
        sender.send(Server::start(&api, listeners, &ServerOptions::default()).unwrap()).unwrap();
    });
    (rest, server.recv().unwrap())
}

#[test]
fn connections_are_as_many_as_there_may_be_now() {
    let (rest, server) = served();
    let mut idle: Vec<_> = (0..3).map(|_| connect(&rest, [127, 0, 0, 1])).collect();
    for stream in &mut idle {
        assert!(ask(stream, LIVE).starts_with("HTTP/1.1 200"));
    }
    server.set_options(&ServerOptions { connections_max: 2, ..ServerOptions::default() });
    assert!(is_closed(&mut idle[0]), "the one that has been idle the longest");
    for stream in &mut idle[1..] {
        assert!(ask(stream, LIVE).starts_with("HTTP/1.1 200"));
    }
    let one = ServerOptions { connections_per_address_max: 1, ..ServerOptions::default() };
    server.set_options(&one);
    let mut another = connect(&rest, [127, 0, 0, 1]);
    assert!(ask(&mut another, LIVE).starts_with("HTTP/1.1 200"));
    assert!(is_closed(&mut idle[1]));
}

#[test]
fn a_proxy_header_is_expected_where_it_is_now() {
    let (rest, server) = served();
    let plain = rest.request(STATUS, "", "");
    let with_header = [b"PROXY TCP4 192.0.2.1 192.0.2.254 1 2\r\n", plain.as_bytes()].concat();
    assert_eq!(rest.send_bytes(plain.as_bytes()).unwrap().status, 200);
    server.set_proxies([Some(ProxyProtocol::default())]);
    assert!(rest.send_bytes(plain.as_bytes()).is_none());
    assert!(rest.send_bytes(&with_header).is_some_and(|answer| answer.status != 400));
    server.set_proxies([None]);
    assert_eq!(rest.send_bytes(plain.as_bytes()).unwrap().status, 200);
}
