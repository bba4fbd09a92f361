//! HTTPS while the TLS files are read again, and HTTPS connections under attack.

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
};

use hearthmq::auth::remove_user;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::{
    migration::is_installed,
    pki::{Pair, Pki},
    program::Place,
    skipped::not_installed,
    tls::{Stream, Tls, VERSIONS},
};

const STATUS_LINE: &str = "GET /client-id/demo/status";
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
fn a_client_that_names_an_address_as_its_server_writes_no_line_of_the_tls_library() {
    if !is_installed("openssl") {
        return not_installed("openssl");
    }
    let pki = Pki::new();
    let place = Place::new()
        .set("http.https=127.0.0.1:0")
        .set(format!("tls.certificate={}", pki.server.chain.display()))
        .set(format!("tls.key={}", pki.server.key.display()));
    let program = place.start();
    let address = program.address("https").to_string();
    let mut openssl = Command::new("openssl");
    // RFC 6066 forbids an address here; clients of Mosquitto send it nevertheless, at each connection.
    openssl.args(["s_client", "-connect", &address, "-servername", "127.0.0.1", "-quiet"]);
    let answer = openssl.stdin(Stdio::null()).output().unwrap();
    assert!(answer.status.success(), "{answer:?}");
    program.signal("-HUP");
    program.line_with(&["configuration read again"]);
    let lines = program.logged();
    assert!(!lines.iter().any(|line| line.contains("rustls")), "{lines:#?}");
}

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

/// Asks for a WebSocket, with the header of a page if there is one; returns the status line, or the
/// error of a failed handshake.
fn upgrade(stream: &mut Stream, origin: &str) -> io::Result<String> {
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: localhost:8084\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{origin}\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    Ok(String::from_utf8(line.to_vec()).unwrap())
}

const EVIL: &str = "Origin: https://evil.example\r\n";

/// Certificate, authority of the clients, version of TLS: each listener has its own where it has a
/// table, also after they are read again.
#[test]
fn each_listener_with_tls_has_the_settings_of_its_own() {
    let (pki, other) = (Pki::new(), Pki::new());
    let place = Place::new()
        .set("mqtt.tls=127.0.0.1:0")
        .set("mqtt.secure_websocket=127.0.0.2:0")
        .set("http.https=127.0.0.3:0");
    let copy = |pair: &Pair, name: &str| {
        fs::copy(&pair.chain, place.path(&format!("{name}.crt"))).unwrap();
        fs::copy(&pair.key, place.path(&format!("{name}.key"))).unwrap();
    };
    copy(&pki.server, "all");
    copy(&pki.rsa_server, "wss");
    copy(&other.server, "https");
    let (ca, other_ca) = (pki.ca.display(), other.ca.display());
    let file = place.path("hearthmq.toml");
    let config = fs::read_to_string(&file).unwrap()
        + &format!(
            "[tls]\ncertificate = \"all.crt\"\nkey = \"all.key\"\n\
             [[listeners]]\naddress = \"127.0.0.2:0\"\n\
             tls = {{ certificate = \"wss.crt\", key = \"wss.key\", client_ca = [\"{ca}\"], \
             client_auth = \"required\", min_version = \"1.3\" }}\n\
             [[listeners]]\naddress = \"127.0.0.3:0\"\n\
             tls = {{ certificate = \"https.crt\", key = \"https.key\", \
             client_ca = [\"{other_ca}\"], client_auth = \"required\" }}\n"
        );
    fs::write(file, config).unwrap();
    let program = place.start();
    let [mqtts, wss, https] = ["mqtts", "wss", "https"].map(|scheme| program.address(scheme));
    let [old, new] = VERSIONS;
    let shows = |pair: &Pair| CertificateDer::from_pem_file(&pair.chain).unwrap().to_vec();

    let mut stream = Tls::new(&pki.ca, old, None).stream(mqtts);
    stream.conn.complete_io(&mut stream.sock).unwrap();
    assert_eq!(certificate(&stream), shows(&pki.server));

    let mut stream = Tls::new(&pki.ca, new, Some(&pki.device)).stream(wss);
    assert_eq!(upgrade(&mut stream, "").unwrap(), "HTTP/1.1 101");
    assert_eq!(certificate(&stream), shows(&pki.rsa_server));
    let mut stream = Tls::new(&pki.ca, new, Some(&pki.device)).stream(wss);
    assert_eq!(upgrade(&mut stream, EVIL).unwrap(), "HTTP/1.1 403", "a page of another site");
    for (version, pair) in [(new, None), (new, Some(&other.device)), (old, Some(&pki.device))] {
        assert!(upgrade(&mut Tls::new(&pki.ca, version, pair).stream(wss), "").is_err());
    }

    for version in VERSIONS {
        let mut stream = Tls::new(&other.ca, version, Some(&other.device)).stream(https);
        assert!(ask(&mut stream).starts_with("HTTP/1.1 200"));
        assert_eq!(certificate(&stream), shows(&other.server));
        for pair in [None, Some(&pki.device), Some(&other.expired)] {
            assert!(Tls::new(&other.ca, version, pair).call(https, None, STATUS_LINE).is_err());
        }
    }

    copy(&pki.server, "wss");
    copy(&other.rsa_server, "https");
    program.signal("-HUP");
    for address in [wss, https] {
        program.line_with(&["TLS files read again", &address.ip().to_string()]);
    }
    let mut stream = Tls::new(&pki.ca, new, Some(&pki.device)).stream(wss);
    assert_eq!(upgrade(&mut stream, "").unwrap(), "HTTP/1.1 101");
    assert_eq!(certificate(&stream), shows(&pki.server));
    let mut stream = Tls::new(&other.ca, new, Some(&other.device)).stream(https);
    assert!(ask(&mut stream).starts_with("HTTP/1.1 200"));
    assert_eq!(certificate(&stream), shows(&other.rsa_server));
}

/// A listener that asks for no certificate, while others do, admits pages of any site.
#[test]
fn origins_are_free_at_a_listener_that_asks_for_no_certificate() {
    let pki = Pki::new();
    let place = Place::new()
        .set("mqtt.secure_websocket=127.0.0.2:0")
        .set(format!("tls.certificate={}", pki.server.chain.display()))
        .set(format!("tls.key={}", pki.server.key.display()))
        .set(format!("tls.client_ca={}", pki.ca.display()))
        .set("tls.client_auth=required");
    let file = place.path("hearthmq.toml");
    let config = fs::read_to_string(&file).unwrap()
        + "[[listeners]]\naddress = \"127.0.0.2:0\"\ntls = { client_auth = \"none\" }\n";
    fs::write(file, config).unwrap();
    let program = place.start();
    let mut stream = Tls::new(&pki.ca, VERSIONS[1], None).stream(program.address("wss"));
    assert_eq!(upgrade(&mut stream, EVIL).unwrap(), "HTTP/1.1 101");
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
            let line = upgrade(&mut stream, origin).unwrap();
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
