//! A client that uses another protocol than the listener is disconnected at once, not after the
//! time-out.

use hearthmq::{
    Broker,
    auth::AllowAll,
    limits::Limits,
    net::{
        Listener, ProxyProtocol,
        tls::{mqtt_server_config, server_config},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    support::{generous, secs},
    transports::ways::tls_files,
};

const MQTT: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c";
const HTTP: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// The start of a ClientHello.
const TLS: &[u8] = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";

#[actix_rt::test]
async fn a_peer_that_speaks_another_protocol_is_closed_immediately() {
    // A connection that waits for the time-out fails the test.
    let limits = Limits { connect_timeout_secs: 3_600, ..generous() };
    let broker = Broker::builder()
        .on_current_arbiter()
        .limits(limits)
        .authenticator(AllowAll)
        .authorizer(AllowAll)
        .tcp("127.0.0.1:0")
        .tls("127.0.0.1:0", mqtt_server_config(&tls_files()).unwrap())
        .websocket("127.0.0.1:0")
        .secure_websocket("127.0.0.1:0", server_config(&tls_files()).unwrap())
        .listen(Listener::tcp("127.0.0.1:0").proxy_protocol(ProxyProtocol::default()))
        .start()
        .await
        .unwrap();
    let [tcp, tls, websocket, secure_websocket, proxy] = *broker.local_addrs() else {
        panic!("five listeners")
    };
    for (name, address, said) in [
        ("HTTP to MQTT", tcp, HTTP),
        ("TLS to MQTT", tcp, TLS),
        ("MQTT to TLS", tls, MQTT),
        ("HTTP to TLS", tls, HTTP),
        ("MQTT to WebSocket", websocket, MQTT),
        ("one byte of MQTT to WebSocket", websocket, &MQTT[..1]),
        ("TLS to WebSocket", websocket, TLS),
        ("MQTT to secure WebSocket", secure_websocket, MQTT),
        ("HTTP to secure WebSocket", secure_websocket, HTTP),
        ("MQTT without PROXY header", proxy, MQTT),
        ("TLS without PROXY header", proxy, TLS),
        ("HTTP without PROXY header", proxy, HTTP),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut rest = Vec::new();
        // A reset is an end as well.
        let closed = timeout(secs(30), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{name} is not closed");
    }
}
