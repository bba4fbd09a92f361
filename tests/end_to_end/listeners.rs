//! Configured listeners: WebSocket, Unix socket, PROXY header.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use hearthmq::mqtt::{Connect, ReasonCode};

use crate::{
    mqtt::{Client, connect, tcp},
    program::{PASSWORD, PATIENCE, Place},
};

fn connect_as_ops(client_id: &str) -> Connect<'_> {
    let mut connect = connect(client_id);
    connect.username = Some("ops");
    connect.password = Some(PASSWORD.as_bytes());
    connect
}

#[test]
fn the_program_listens_where_its_configuration_says() {
    let place = Place::new()
        .set("mqtt.websocket=127.0.0.1:0")
        .set("mqtt.websocket_path=/ws")
        .set("mqtt.unix=mqtt.sock");
    let mut program = place.start();

    let mut stream = tcp(program.address("ws"));
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
              Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
        )
        .unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");

    let socket = UnixStream::connect(place.path("mqtt.sock")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut client, reason) = Client::on(socket, connect_as_ops("local")).unwrap();
    assert_eq!(reason, ReasonCode::Success);
    client.ping();
    assert!(program.is_online("local"));

    program.signal("-TERM");
    client.expect_disconnect(ReasonCode::ServerShuttingDown);
    drop((client, stream));
    assert!(program.wait(PATIENCE).success());
    assert!(!place.path("mqtt.sock").exists());
}

#[test]
fn a_listener_behind_a_balancer_expects_its_header() {
    let program = Place::new().set("mqtt.proxy_protocol=127.0.0.1:0").start();
    let mut stream = tcp(program.address("mqtt"));
    stream.write_all(b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 1883\r\n").unwrap();
    let (mut client, reason) = Client::on(stream, connect_as_ops("behind")).unwrap();
    assert_eq!(reason, ReasonCode::Success);
    client.ping();
    assert!(Client::on(tcp(program.address("mqtt")), connect_as_ops("direct")).is_err());
}
