//! Connections: their limits, and offers to switch to another protocol.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use hearthmq::http::ServerOptions;
use socket2::{Domain, Socket, Type};

use super::world::{Rest, rest, rest_serving};

pub(crate) const LIVE: &str = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Opens a connection from this address of the machine.
pub(crate) fn connect(rest: &Rest, from: [u8; 4]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&rest.address().into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends a request; returns the answer up to the end of a JSON object in its body.
pub(crate) fn ask(stream: &mut TcpStream, request: &str) -> String {
    try_ask(stream, request).expect("an answer before the end of the connection")
}

/// Sends a request; returns `None` if the connection ends before the answer.
fn try_ask(stream: &mut TcpStream, request: &str) -> Option<String> {
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut bytes = [0; 1024];
        let read = stream.read(&mut bytes).ok().filter(|read| *read > 0)?;
        answer.extend_from_slice(&bytes[..read]);
    }
    Some(String::from_utf8(answer).unwrap())
}

pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(read) => read == 0,
        // The time-out of a read says that it is open.
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn bounded(connections_max: usize, connections_per_address_max: usize) -> Rest {
    let bounds = ServerOptions { connections_max, connections_per_address_max, ..bounds() };
    rest_serving(bounds)
}

fn bounds() -> ServerOptions {
    ServerOptions::default()
}

/// Java's client offers HTTP/2 on every connection.
#[test]
fn an_offer_to_speak_something_else_is_answered_in_http_and_the_end_is_said() {
    let rest = rest();
    for (line, headers) in [
        (
            "GET /client-id/demo/status",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__",
        ),
        (
            "POST /keep-alive?client-id=demo&interval=60",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 0",
        ),
        (
            "GET /client-id/demo/status",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        ("GET /health/live", "Connection: Upgrade\r\nUpgrade: h2c"),
        ("GET /nowhere", "Connection: Upgrade\r\nUpgrade: h2c"),
    ] {
        let authorization = super::basic("ops:pass:word");
        let answer = rest.send(&format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n{headers}\r\n\r\n"
        ));
        assert_eq!(answer.status, if line.contains("nowhere") { 404 } else { 200 }, "{line}");
        assert_eq!(answer.header("connection"), "close", "{line} {headers}");
    }
}

#[test]
fn one_connection_carries_call_after_call() {
    let rest = rest();
    let mut stream = connect(&rest, [127, 0, 0, 1]);
    for _ in 0..100 {
        assert!(ask(&mut stream, LIVE).starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn idle_connections_of_an_address_make_room_for_its_next_one() {
    let rest = bounded(100, 10);
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut stream = connect(&rest, [127, 0, 0, 1]);
        assert!(ask(&mut stream, LIVE).starts_with("HTTP/1.1 200"));
        idle.push(stream);
    }
    let mut one_more = connect(&rest, [127, 0, 0, 1]);
    assert!(ask(&mut one_more, LIVE).starts_with("HTTP/1.1 200"));
    assert!(idle[..41].iter_mut().all(is_closed), "those that were idle the longest are closed");
    assert!(ask(idle.last_mut().unwrap(), LIVE).starts_with("HTTP/1.1 200"));
}

#[test]
fn addresses_that_hold_much_make_room_for_one_that_holds_little() {
    let rest = bounded(40, 20);
    let mut good = connect(&rest, [127, 0, 9, 9]);
    assert!(ask(&mut good, LIVE).starts_with("HTTP/1.1 200"));
    let idle: Vec<_> =
        (0..200).map(|number| connect(&rest, [127, 0, 1, number % 10 + 1])).collect();
    for _ in 0..10 {
        let mut other = connect(&rest, [127, 0, 9, 8]);
        assert!(ask(&mut other, LIVE).starts_with("HTTP/1.1 200"));
    }
    assert!(ask(&mut good, LIVE).starts_with("HTTP/1.1 200"), "it was never idle for long enough");
    drop(idle);
}

/// Many callers share the connections of a proxy, so the limit of one address does not apply to it.
#[test]
fn idle_connections_of_a_proxy_make_room_like_others() {
    let proxies = vec!["127.0.0.5/32".parse().unwrap()];
    let (connections_max, connections_per_address_max) = (10, 5);
    let bounds =
        ServerOptions { connections_max, connections_per_address_max, proxies, ..bounds() };
    let rest = rest_serving(bounds);
    let mut idle: Vec<_> = (0..10).map(|_| connect(&rest, [127, 0, 0, 5])).collect();
    for stream in &mut idle {
        assert!(ask(stream, LIVE).starts_with("HTTP/1.1 200"));
    }
    let mut others = [[127, 0, 9, 9], [127, 0, 0, 5]].map(|from| connect(&rest, from));
    for other in &mut others {
        let answer = try_ask(other, LIVE);
        assert!(answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
    }
    assert!(idle[..2].iter_mut().all(is_closed), "those that were idle the longest are closed");
}

/// The operating system keeps a silent connection for a second before it hands it over, so a flood
/// of them does not fill the queue in which a caller waits to be accepted.
#[cfg(target_os = "linux")]
#[test]
fn a_connection_without_a_byte_takes_no_place_for_a_while() {
    let is_kept = || {
        let rest = bounded(10, 1);
        let mut caller = connect(&rest, [127, 0, 0, 1]);
        ask(&mut caller, LIVE);
        let _silent = connect(&rest, [127, 0, 0, 1]);
        (0..3).all(|_| try_ask(&mut caller, LIVE).is_some())
    };
    // On a busy machine the second may be over before the caller has asked.
    assert!((0..60).any(|_| is_kept()));
}
