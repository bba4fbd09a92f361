//! HTTPS while the TLS files are read again, and HTTPS connections under attack.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use hearthmq::auth::remove_user;

use crate::{
    pki::Pki,
    program::Place,
    tls::{Stream, Tls, VERSIONS},
};

const STATUS: &str = "GET /client-id/demo/status HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Asks for a status and keeps the connection open; returns the answer.
fn ask(stream: &mut Stream) -> String {
    stream.write_all(STATUS.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut bytes = [0; 1024];
        let read = match stream.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.unwrap(),
        };
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&bytes[..read]);
    }
    String::from_utf8(answer).unwrap()
}

fn certificate(stream: &Stream) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn tls_files_that_are_read_again_hold_for_new_connections_and_for_certificates_of_old_ones() {
    let (pki, other_pki) = (Pki::new(), Pki::new());
    let place = Place::new()
        .set("http.https=127.0.0.1:0")
        .set("tls.certificate=server.crt")
        .set("tls.key=server.key")
        .set("tls.client_ca=ca.crt")
        .set("tls.client_auth=optional");
    let copy = |from: &std::path::Path, to: &str| fs::copy(from, place.path(to)).unwrap();
    copy(&pki.server.chain, "server.crt");
    copy(&pki.server.key, "server.key");
    copy(&pki.ca, "ca.crt");
    let program = place.start();
    let address = program.address("https");
    let connect = || Tls::new(&pki.ca, VERSIONS[1], Some(&pki.device)).stream(address);

    let mut before = connect();
    for _ in 0..3 {
        assert!(ask(&mut before).starts_with("HTTP/1.1 200"));
    }
    copy(&pki.rsa_server.chain, "server.crt");
    copy(&pki.rsa_server.key, "server.key");
    program.signal("-HUP");
    program.line_with(&["TLS files read again"]);
    let mut after = connect();
    assert!(ask(&mut after).starts_with("HTTP/1.1 200"));
    assert_ne!(certificate(&before), certificate(&after), "new connections are shown the new one");
    assert!(ask(&mut before).starts_with("HTTP/1.1 200"), "its certificate is still right");

    copy(&other_pki.ca, "ca.crt");
    program.signal("-HUP");
    for stream in [&mut before, &mut after] {
        assert!(!matches!(stream.read(&mut [0; 16]), Ok(1..)), "the connection ends by itself");
    }
}

/// Nothing is computed for a socket that says nothing.
#[test]
fn silent_sockets_do_not_use_up_the_handshakes_of_their_address() {
    let pki = Pki::new();
    let place = Place::new()
        .set("http.https=127.0.0.1:0")
        .set("http.calls_per_address_per_sec=1")
        .set("http.calls_per_address_burst=2")
        .set(format!("tls.certificate={}", pki.server.chain.display()))
        .set(format!("tls.key={}", pki.server.key.display()));
    let program = place.start();
    let address = program.address("https");
    for _ in 0..4_000 {
        drop(TcpStream::connect(address).unwrap());
    }
    let mut caller = Tls::new(&pki.ca, VERSIONS[1], None).stream(address);
    assert!(ask(&mut caller).starts_with("HTTP/1.1 401"));
}

/// A browser adds a client certificate to requests of any site's pages.
#[test]
fn a_page_of_another_site_gets_no_websocket_where_a_certificate_can_be_the_login() {
    let pki = Pki::new();
    let listening = || {
        Place::new()
            .set("mqtt.secure_websocket=127.0.0.1:0")
            .set(format!("tls.certificate={}", pki.server.chain.display()))
            .set(format!("tls.key={}", pki.server.key.display()))
    };
    let asking = |client_auth: &str| {
        listening()
            .set(format!("tls.client_ca={}", pki.ca.display()))
            .set(format!("tls.client_auth={client_auth}"))
    };
    for (place, evil) in [
        (listening(), "101"),
        (asking("optional"), "403"),
        (asking("required"), "403"),
        (asking("optional").set("mqtt.websocket_origins=https://evil.example"), "101"),
    ] {
        let program = place.start();
        let device = Tls::new(&pki.ca, VERSIONS[1], Some(&pki.device));
        for (origin, status) in [
            ("", "101"),
            ("Origin: https://evil.example\r\n", evil),
            ("Origin: https://localhost.evil.example\r\n", if evil == "403" { "403" } else { "" }),
            ("Origin: https://localhost:8084\r\n", if evil == "403" { "101" } else { "" }),
        ] {
            let mut stream = device.stream(program.address("wss"));
            let request = format!(
                "GET /mqtt HTTP/1.1\r\nHost: localhost:8084\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{origin}\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Protocol: mqtt\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).unwrap();
            let mut line = [0; 12];
            stream.read_exact(&mut line).unwrap();
            let line = String::from_utf8(line.to_vec()).unwrap();
            assert!(line.starts_with("HTTP/1.1 ") && line.contains(status), "{origin:?}: {line}");
        }
    }
}

#[test]
fn a_listener_with_a_port_of_the_systems_choice_has_the_logins_of_its_own() {
    let pki = Pki::new();
    for (own, status) in
        [("", "HTTP/1.1 200"), ("certificate_needs_account = true\n", "HTTP/1.1 401")]
    {
        let place = Place::new()
            .set("http.https=127.0.0.2:0")
            .set(format!("tls.certificate={}", pki.server.chain.display()))
            .set(format!("tls.key={}", pki.server.key.display()))
            .set(format!("tls.client_ca={}", pki.ca.display()))
            .set("tls.client_auth=required");
        let file = place.path("hearthmq.toml");
        let config = fs::read_to_string(&file).unwrap();
        fs::write(file, format!("{config}[[listeners]]\naddress = \"127.0.0.2:0\"\n{own}"))
            .unwrap();
        remove_user(&place.path("data/users.toml"), "device-1").unwrap();
        let program = place.start();
        let mut caller =
            Tls::new(&pki.ca, VERSIONS[1], Some(&pki.device)).stream(program.address("https"));
        let answer = ask(&mut caller);
        assert!(answer.starts_with(status), "{answer}");
    }
}
