//! Requests for a WebSocket: which are accepted, and the answers to the others.

use hearthmq::{
    limits::Limits,
    metrics::{ConnectRefusal, TransportKind},
    net::{Listener, WebSocketOptions},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{client_async, tungstenite::handshake::client::generate_key};

use crate::{
    support::{Client, generous, packets::*, secs},
    transports::ways::{Way, World, builder, expect_refused},
    websocket_client::{Binary, request},
};

/// A valid request, line by line.
const RIGHT: [&str; 7] = [
    "GET /mqtt HTTP/1.1",
    "Host: localhost",
    "Connection: keep-alive, Upgrade",
    "Upgrade: WebSocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: mqtt",
];

/// Returns the valid request with one line replaced.
fn with(line: usize, replacement: &str) -> String {
    let mut lines = RIGHT;
    lines[line] = replacement;
    lines.iter().filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect()
}

/// Returns the answer to a request.
async fn answer(world: &World, head: &str) -> String {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // An answer without a WebSocket has an empty body or one that ends like a JSON object.
    let is_whole = |answer: &[u8]| {
        answer.ends_with(b"\r\n\r\n") || answer.ends_with(b"}") || answer.ends_with(b">")
    };
    while !is_whole(&answer) {
        let read = timeout(secs(60), stream.read_buf(&mut answer)).await;
        if read.expect("an answer is expected").is_ok_and(|read| read == 0) {
            break;
        }
    }
    String::from_utf8(answer).unwrap()
}

/// The examples of RFC 6455, 1.3, and of its section 4.2.2.
#[actix_rt::test]
async fn a_request_that_is_right_is_answered_with_the_key_and_the_subprotocol() {
    for way in [Way::WebSocket, Way::Hosted] {
        let world = World::with(way).await;
        let answer = answer(&world, &with(0, RIGHT[0])).await.to_ascii_lowercase();
        for header in [
            "http/1.1 101 switching protocols",
            "upgrade: websocket",
            "connection: upgrade",
            "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
            "sec-websocket-protocol: mqtt",
        ] {
            assert!(answer.lines().any(|line| line == header), "{header} is not in {answer}");
        }
        assert!(!answer.contains("sec-websocket-extensions"));
    }
}

#[actix_rt::test]
async fn a_request_that_is_wrong_is_told_what_would_be_right() {
    for way in [Way::WebSocket, Way::Hosted] {
        let world = World::with(way).await;
        for (line, replacement, status, code) in [
            (0, "GET /other HTTP/1.1", 404, "not_found"),
            (0, "POST /mqtt HTTP/1.1\r\nContent-Length: 0", 405, "method_not_allowed"),
            (2, "Connection: close", 426, "upgrade_required"),
            (3, "", 426, "upgrade_required"),
            (4, "Sec-WebSocket-Version: 8", 426, "unsupported_websocket_version"),
            (5, "", 400, "invalid_websocket_key"),
            (5, "Sec-WebSocket-Key: c2hvcnQ=", 400, "invalid_websocket_key"),
            (6, "", 400, "subprotocol_required"),
            (6, "Sec-WebSocket-Protocol: chat, mqtts", 400, "subprotocol_required"),
        ] {
            let answer = answer(&world, &with(line, replacement)).await;
            let begins = answer.starts_with(&format!("HTTP/1.1 {status} "));
            assert!(begins, "{replacement}: {answer}");
            // An application answers for its other paths itself.
            if way == Way::WebSocket || code != "not_found" {
                let said = format!("{{\"success\":false,\"code\":\"{code}\",\"message\":");
                assert!(answer.contains(&said), "{replacement}: {answer}");
            }
        }
    }
}

#[actix_rt::test]
async fn a_query_in_the_url_and_further_subprotocols_do_no_harm() {
    let world = World::with(Way::WebSocket).await;
    for (line, replacement) in [
        (0, "GET /mqtt?token=1 HTTP/1.1"),
        (6, "Sec-WebSocket-Protocol: chat,mqttv3.1,\tmqtt"),
        (6, "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: mqtt"),
    ] {
        let answer = answer(&world, &with(line, replacement)).await;
        assert!(answer.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "{answer}");
    }
    let old = with(6, "Sec-WebSocket-Protocol: mqttv3.1");
    let answer = answer(&world, &old).await;
    assert!(answer.contains("\r\nSec-WebSocket-Protocol: mqttv3.1\r\n"), "{answer}");
}

#[actix_rt::test]
async fn a_request_without_end_is_cut_off() {
    let world = World::with(Way::WebSocket).await;
    let long = with(1, &format!("Host: localhost\r\nCookie: {}", "x".repeat(9000)));
    let answer_to_long = answer(&world, &long).await;
    assert!(answer_to_long.starts_with("HTTP/1.1 431 "), "{answer_to_long}");
    let many = with(1, &"A: b\r\n".repeat(100));
    assert!(answer(&world, many.trim_end()).await.starts_with("HTTP/1.1 431 "));
    assert!(answer(&world, "\u{10}\0MQTT\r\n").await.starts_with("HTTP/1.1 400 "));
}

/// Closing with unread data would reset the connection, and the answer could be lost.
#[actix_rt::test]
async fn who_is_still_sending_hears_the_refusal() {
    let world = World::with(Way::WebSocket).await;
    let much = "x".repeat(1 << 20);
    let long = with(1, &format!("Host: localhost\r\nCookie: {much}"));
    let posted = with(0, "POST /mqtt HTTP/1.1\r\nContent-Length: 1048576") + "\r\n" + &much;
    for (request, status) in [(long, 431), (posted, 405)] {
        let answer = answer(&world, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[actix_rt::test]
async fn a_request_that_does_not_come_is_given_up() {
    let limits = Limits { connect_timeout_secs: 1, ..generous() };
    let world = World::configured(Way::WebSocket, |builder| builder.limits(limits)).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"GET /mqtt HTTP/1.1\r\n").await.unwrap();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
    // The same for a CONNECT after the request.
    let stream = TcpStream::connect(world.address).await.unwrap();
    let mut stream = Binary::over(stream).await;
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
    expect_refused(&world.broker, ConnectRefusal::ConnectTimeout, 2).await;
}

#[actix_rt::test]
async fn only_pages_of_known_origins_may_connect_and_clients_that_are_no_pages() {
    let options = WebSocketOptions {
        path: "/ws".into(),
        origins: vec!["https://app.example.org".into(), "http://localhost:3000".into()],
    };
    let broker =
        builder().listen(Listener::websocket("127.0.0.1:0", options)).start().await.unwrap();
    for (origin, is_welcome) in [
        (None, true),
        (Some("https://app.example.org"), true),
        (Some("http://localhost:3000"), true),
        (Some("http://app.example.org"), false),
        (Some("https://app.example.org.evil.net"), false),
        (Some("null"), false),
    ] {
        let mut request = request(Some("mqtt"));
        *request.uri_mut() = "ws://localhost/ws".parse().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("Origin", origin.parse().unwrap());
        }
        request.headers_mut().insert("Sec-WebSocket-Key", generate_key().parse().unwrap());
        let stream = TcpStream::connect(broker.local_addrs()[0]).await.unwrap();
        let answer = client_async(request, stream).await;
        assert_eq!(answer.is_ok(), is_welcome, "{origin:?}: {:?}", answer.map(|_| ()));
    }
}

/// Data sent together with the request is not lost, although a client should wait.
#[actix_rt::test]
async fn frames_may_come_together_with_the_request() {
    let world = World::with(Way::WebSocket).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let mut bytes = format!("{}\r\n", with(0, RIGHT[0])).into_bytes();
    // PINGREQ in place of CONNECT, in a frame with the mask 0: the broker closes.
    bytes.extend_from_slice(&[0x82, 0x82, 0, 0, 0, 0, 0xC0, 0x00]);
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(&[0x88, 0x02, 0x03, 0xE8]), "{answer:?}"); // close, 1000
}

#[actix_rt::test]
async fn sockets_and_refusals_are_counted_by_transport_and_reason() {
    let world = World::with(Way::WebSocket).await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let mut client = Client::on(Binary::over(stream).await, V5);
    client.connect(connect("c")).await;
    answer(&world, &with(6, "")).await;
    let (_over_tcp, _) = world.connected_over_tcp(connect("d")).await;
    let metrics = world.broker.metrics();
    let accepted =
        |kind| metrics.shards().map(|shard| shard.sockets_accepted.of(kind).value()).sum::<u64>();
    assert_eq!(accepted(TransportKind::WebSocket), 2);
    assert_eq!(accepted(TransportKind::Tcp), 1);
    expect_refused(&world.broker, ConnectRefusal::WebSocket, 1).await;
    let text = metrics.encode();
    assert!(text.contains("hearthmq_sockets_accepted_total{transport=\"websocket\"} 2"), "{text}");
}
