//! `GET /api/v1/events` over real sockets: formats, positions, limits and ends. The double gives a
//! snapshot of one client, then the changes 3 to 5, then nothing once, then it waits without end.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::mpsc,
    time::Duration,
};

use hearthmq::{
    auth::{FilePolicy, Standing},
    http::{ApiOptions, Listener, Server, ServerOptions},
};
use tokio::sync::oneshot;

use super::{
    connections::is_closed,
    failed,
    feed::{END, OF_A, OF_B},
    world::{Rest, basic, hosted_where, options, rest, rest_with, serving},
};

/// Begins a call whose answer goes on.
fn follow(rest: &Rest, user: &str, target: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(rest.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let authorization = basic(user);
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n{headers}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Reads until the answer ends in this text; returns it without the sizes of its chunks.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).ends_with(end) {
        let mut some = [0; 1024];
        let read = stream.read(&mut some).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&some[..read]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let is_size =
        |line: &&str| line.ends_with('\r') && u32::from_str_radix(line.trim(), 16).is_ok();
    let lines = text.split('\n').filter(|line| !is_size(line) && *line != "\r");
    lines.map(|line| format!("{line}\n")).collect()
}

const OPS: &str = "ops:pass:word";
const EVENTS: &str = "/api/v1/events";
const SSE: &str = "Accept: text/event-stream";
const LINES: &str = "Accept: text/html;q=0.1, application/x-ndjson";

#[test]
fn server_sent_events_go_on_until_the_caller_leaves() {
    let rest = rest();
    let mut stream = follow(&rest, OPS, EVENTS, SSE);
    let text = read_until(&mut stream, ": still here\n\n\r\n");
    let (head, body) = text.split_once("retry: ").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let head = head.to_lowercase();
    for header in
        ["content-type: text/event-stream", "cache-control: no-store", "connection: close"]
    {
        assert!(head.contains(&format!("{header}\r\n")), "{head}");
    }
    let expected = format!(
        "3000\n\n\
        id: 00000000000000ab.1\nevent: snapshot\ndata: {OF_A}\n\n\
        id: 00000000000000ab.2\nevent: snapshot_end\ndata: {END}\n\n\
        id: 00000000000000ab.3\nevent: client_connected\ndata: {OF_B}\n\n\
        id: 00000000000000ab.4\nevent: client_connected\ndata: {OF_B}\n\n\
        id: 00000000000000ab.5\nevent: client_connected\ndata: {OF_B}\n\n\
        : still here\n\n\n"
    );
    assert_eq!(body, expected);
    assert_eq!(rest.asked()[0], "follow '' * by ops");
}

#[test]
fn lines_of_json_have_the_same_events() {
    let rest = hosted_where(FilePolicy::new(Vec::new()));
    let mut stream = follow(&rest, OPS, EVENTS, LINES);
    let text = read_until(&mut stream, &format!("{OF_B}}}\n\r\n1\r\n\n\r\n"));
    assert!(text.contains("content-type: application/x-ndjson\r\n"), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(
        lines[..2],
        [
            format!(r#"{{"id":"00000000000000ab.1","event":"snapshot","data":{OF_A}}}"#),
            format!(r#"{{"id":"00000000000000ab.2","event":"snapshot_end","data":{END}}}"#),
        ]
    );
}

#[test]
fn one_part_comes_as_json() {
    let rest = rest();
    let answer = rest.call("GET /api/v1/events");
    let expected = format!(
        r#"{{"events":[{{"id":"00000000000000ab.1","event":"snapshot","data":{OF_A}}},{{"id":"00000000000000ab.2","event":"snapshot_end","data":{END}}}],"next":"00000000000000ab.2"}}"#
    );
    assert_eq!(answer.outcome(), (200, &*expected));
    let answer = rest.call("GET /api/v1/events?after=00000000000000ab.5&wait=60&limit=7");
    assert_eq!(answer.outcome(), (200, r#"{"events":[],"next":"00000000000000ab.6"}"#));
    let inside = "GET /api/v1/events?after=00000000000000ab.1.0.7&client_id=car-*&username=%C3%B6&\
                  kinds=client_connected,session_subscribed";
    assert_eq!(rest.call(inside).status, 200);
    assert_eq!(
        rest.asked(),
        [
            "follow '' * by ops",
            "follow '00000000000000ab.5' * wait 60 limit 7 by ops",
            "follow '00000000000000ab.1.0.7' car-* of ö [client_connected session_subscribed] by ops",
        ]
    );
}

#[test]
fn a_caller_continues_behind_the_last_event_that_it_has_seen() {
    let rest = rest();
    let (id, header) = ("00000000000000ab.4", "Last-Event-ID: 00000000000000ab.4");
    for (target, headers) in [
        (format!("{EVENTS}?last_event_id={id}"), SSE.to_owned()),
        // A browser has the query of its first call.
        (format!("{EVENTS}?last_event_id=00000000000000ab.3"), format!("{SSE}\r\n{header}")),
    ] {
        let mut stream = follow(&rest, OPS, &target, &headers);
        let text = read_until(&mut stream, ": still here\n\n\r\n");
        assert!(text.contains("retry: 3000\n\nid: 00000000000000ab.5\n"), "{text}");
    }
}

#[test]
fn wrong_parameters_are_refused() {
    let rest = rest();
    for (target, code) in [
        ("?after=7", "invalid_parameter"),
        ("?wait=61", "invalid_parameter"),
        ("?limit=0", "invalid_parameter"),
        ("?kinds=snapshot", "invalid_parameter"),
        ("?kinds=client_connected,", "invalid_parameter"),
        ("?last_event_id=00000000000000ab.4", "unknown_parameter"),
        ("?client_id=*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a", "invalid_parameter"),
        ("?client_id=", "missing_parameter"),
        ("?username=a&username=b", "duplicate_parameter"),
    ] {
        let answer = rest.call(&format!("GET {EVENTS}{target}"));
        assert_eq!(answer.failure(), failed(400, code), "{target}");
    }
    let header = format!("{SSE}\r\nLast-Event-ID: x");
    let answer = rest.call_with(&format!("GET {EVENTS}"), &header, "");
    assert_eq!(answer.failure(), failed(400, "invalid_parameter"));
    let answer = rest.call_with(&format!("GET {EVENTS}?after=00000000000000ab.4"), SSE, "");
    assert_eq!(answer.failure(), failed(400, "unknown_parameter"));
    assert_eq!(rest.call(&format!("POST {EVENTS}")).failure(), failed(405, "method_not_allowed"));
    let answer = rest.call_as(Some(&basic("ops:wrong")), &format!("GET {EVENTS}"));
    assert_eq!(answer.failure(), failed(401, "unauthenticated"));
    assert!(rest.asked().is_empty());
}

#[test]
fn followers_are_limited_in_all_and_for_each_account() {
    let limits = ApiOptions { followers_max: 2, followers_per_account_max: 1, ..options() };
    let rest = rest_with(&limits);
    let mut one = follow(&rest, OPS, EVENTS, SSE);
    read_until(&mut one, ": still here\n\n\r\n");
    let answer = rest.call(&format!("GET {EVENTS}"));
    assert_eq!(answer.failure(), failed(503, "too_many_followers"));
    assert_eq!(answer.header("retry-after"), "15");
    let mut other = follow(&rest, "öps:pass:word", EVENTS, SSE);
    read_until(&mut other, ": still here\n\n\r\n");
    let more = "goes-on:x"; // a third account
    assert_eq!(
        rest.call_as(Some(&basic(more)), &format!("GET {EVENTS}")).failure(),
        failed(503, "too_many_followers")
    );
    // The place is free soon after the caller has left, although nothing is written.
    drop(one);
    while rest.call(&format!("GET {EVENTS}")).status != 200 {
        std::thread::yield_now();
    }
}

#[test]
fn a_server_that_stops_ends_the_answers_that_go_on() {
    let (stop, stops) = oneshot::channel::<()>();
    let (stopped, has_stopped) = mpsc::channel();
    let rest = serving(move |api, listener| {
        let listeners = vec![Listener::http(listener)];
        let server = Server::start(&api, listeners, &ServerOptions::default()).unwrap();
        actix_web::rt::spawn(async move {
            stops.await.unwrap();
            server.stop(true).await;
            stopped.send(()).unwrap();
        });
    });
    let mut stream = follow(&rest, OPS, EVENTS, SSE);
    read_until(&mut stream, ": still here\n\n\r\n");
    stop.send(()).unwrap();
    has_stopped.recv_timeout(Duration::from_secs(60)).unwrap();
    let mut end = [0; 5];
    stream.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"0\r\n\r\n", "the answer is complete");
    assert!(is_closed(&mut stream));
}

#[test]
fn a_feed_ends_when_the_account_of_its_caller_is_changed_or_removed() {
    let standings = [Standing::Good, Standing::Changed, Standing::Suspended, Standing::Gone];
    for (standing, format) in standings.into_iter().flat_map(|it| [(it, SSE), (it, LINES)]) {
        let rest = rest();
        let mut stream = follow(&rest, OPS, EVENTS, format);
        let silence = if format == SSE { ": still here\n\n\r\n" } else { "\r\n1\r\n\n\r\n" };
        read_until(&mut stream, silence);
        rest.accounts.change(standing);
        rest.let_feed_go_on();
        let next = read_until(&mut stream, "\n\r\n");
        match standing {
            Standing::Good => assert!(next.contains("00000000000000ab.7"), "{next}"),
            _ => assert_eq!(next.trim(), "", "{standing:?}: the answer is complete"),
        }
    }
}
