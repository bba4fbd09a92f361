//! Certificates, lists, accounts and permissions that are replaced while the program runs, with
//! exactly the commands that docs/configuration.md prints.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::Command,
};

use hearthmq::{
    auth::set_disabled,
    mqtt::{ProtocolVersion, QoS, ReasonCode},
};

use crate::{
    http::basic,
    mqtt::{Client, connect},
    pki::Pair,
    program::{PASSWORD, Place, Program},
    tls::{Stream, Tls, VERSIONS},
};

const STATUS: &str = "GET /client-id/device-1/status";

/// Returns the first blocks of the section on certificates: how to create them, the
/// configuration, and how to revoke one.
fn recipe() -> [String; 3] {
    let document = include_str!("../../docs/configuration.md");
    let (_, section) = document.split_once("### Certificates of your own\n").unwrap();
    let mut fences = section.split("```");
    [(); 3].map(|()| {
        let block = fences.nth(1).unwrap(); // without its language
        block.split_once('\n').unwrap().1.to_owned()
    })
}

/// Runs commands as printed, in a directory.
pub(crate) fn shell(directory: &Path, commands: &str) {
    let mut shell = Command::new("sh");
    let output = shell.args(["-euc", commands]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{commands}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns a directory in which the recipe was followed, with TLS listeners.
pub(crate) fn place() -> Place {
    let place = Place::new().set("mqtt.tls=127.0.0.1:0").set("http.https=127.0.0.1:0");
    let [make, configure, _] = recipe();
    shell(&place.path(""), &make);
    let file = place.path("hearthmq.toml");
    let config = fs::read_to_string(&file).unwrap() + &configure;
    fs::write(file, config).unwrap();
    place
}

pub(crate) fn device(place: &Place) -> Pair {
    Pair { chain: place.path("device.chain.crt"), key: place.path("device.key") }
}

pub(crate) fn connected(program: &Program, tls: &Tls, client_id: &str) -> Client<Stream> {
    let (client, reason) = tls.connect(program.address("mqtts"), connect(client_id)).unwrap();
    assert_eq!(reason, ReasonCode::Success);
    client
}

pub(crate) fn revoke(place: &Place) {
    let [.., revoke] = recipe();
    shell(&place.path(""), &revoke);
}

/// With SIGHUP, and by watching the files.
#[test]
fn the_printed_recipe_makes_certificates_and_revokes_one() {
    for watch_secs in [0, 1] {
        let place = place().set(format!("tls.watch_secs={watch_secs}"));
        let program = place.start();
        let pair = device(&place);
        let tls = VERSIONS.map(|version| Tls::new(&place.path("ca.crt"), version, Some(&pair)));
        let mut clients = Vec::new();
        for (tls, client_id) in tls.iter().zip(["a", "b"]) {
            clients.push(connected(&program, tls, client_id));
            let answer = tls.call(program.address("https"), None, STATUS).unwrap();
            assert_eq!(answer.status, 200);
        }
        let password = Tls::new(&place.path("ca.crt"), VERSIONS[1], None);
        let mut packet = connect("ops");
        (packet.username, packet.password) = (Some("ops"), Some(PASSWORD.as_bytes()));
        let (mut other, _) = password.connect(program.address("mqtts"), packet).unwrap();
        revoke(&place);
        if watch_secs == 0 {
            program.signal("-HUP");
        }
        for client in &mut clients {
            client.expect_disconnect(ReasonCode::NotAuthorized);
        }
        for tls in &tls {
            assert!(tls.connect(program.address("mqtts"), connect("c")).is_err());
        }
        other.ping();
    }
}

/// Calls on a connection that was opened before.
#[test]
fn idle_https_connections_whose_certificate_is_revoked_are_closed() {
    let place = place();
    let program = place.start();
    let call = |stream: &mut Stream| {
        write!(stream, "{STATUS} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"}") {
            stream.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        String::from_utf8(answer).unwrap()
    };
    let mut streams = VERSIONS.map(|version| {
        let tls = Tls::new(&place.path("ca.crt"), version, Some(&device(&place)));
        tls.stream(program.address("https"))
    });
    for stream in &mut streams {
        for _ in 0..2 {
            let answer = call(stream);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
    revoke(&place);
    program.signal("-HUP");
    program.line_with(&["all sessions checked again"]);
    for stream in &mut streams {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "the connection ends by itself");
    }
}

#[test]
fn a_feed_ends_when_the_certificate_of_its_caller_is_revoked() {
    let place = place();
    let program = place.start();
    let follow = |pair: Option<&Pair>| {
        let tls = Tls::new(&place.path("ca.crt"), VERSIONS[1], pair);
        let mut stream = tls.stream(program.address("https"));
        let authorization = match pair {
            Some(_) => String::new(),
            None => format!("Authorization: {}\r\n", basic(&format!("ops:{PASSWORD}"))),
        };
        let head = "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream";
        write!(stream, "{head}\r\n{authorization}\r\n").unwrap();
        read_until(&mut stream, "event: snapshot_end");
        stream
    };
    let mut own = follow(Some(&device(&place)));
    let mut other = follow(None);
    revoke(&place);
    program.signal("-HUP");
    program.line_with(&["all sessions checked again"]);
    let (mut rest, mut byte) = (String::new(), [0]);
    while own.read(&mut byte).unwrap_or(0) > 0 {
        rest.push(char::from(byte[0]));
        assert!(!rest.contains("still here"), "it goes on: {rest}");
    }
    // That of a caller with a password goes on.
    let _client = program.client("late");
    read_until(&mut other, "event: client_connected");
}

/// Reads until this text has come.
fn read_until(stream: &mut Stream, text: &str) {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(text.as_bytes()) {
        stream.read_exact(&mut byte).unwrap();
        read.extend(byte);
    }
}

#[test]
fn a_list_that_cannot_be_read_changes_nothing_and_is_told() {
    let place = place();
    let program = place.start();
    let tls = Tls::new(&place.path("ca.crt"), VERSIONS[1], Some(&device(&place)));
    let mut client = connected(&program, &tls, "a");
    fs::write(place.path("devices.crl"), "nothing of the kind").unwrap();
    program.signal("-HUP");
    program.line_with(&["TLS settings are unchanged", "devices.crl"]);
    program.line_with(&["all sessions checked again"]);
    client.ping();
    connected(&program, &tls, "b").ping();
}

#[test]
fn a_list_that_is_overdue_is_told() {
    let place = place();
    shell(
        &place.path(""),
        "openssl ca -config devices.cnf -cert devices.crt -keyfile devices.key -gencrl -crl_lastupdate \
         20200101000000Z -crl_nextupdate 20200201000000Z -out devices.crl",
    );
    let program = place.start();
    let overdue = ["WARN", "devices.crl", "the next update of the revocation list was due on"];
    program.line_with(&overdue);
    let tls = Tls::new(&place.path("ca.crt"), VERSIONS[1], Some(&device(&place)));
    connected(&program, &tls, "a").ping();
}

/// The broker's certificate and the authorities are replaced by another set.
#[test]
fn certificate_key_and_authorities_are_exchanged_at_sighup() {
    let (place, other) = (place(), place());
    let program = place.start();
    let old_ca = place.path("old-ca.crt");
    fs::copy(place.path("ca.crt"), &old_ca).unwrap();
    let pair = device(&place);
    let old = Tls::new(&old_ca, VERSIONS[1], Some(&pair));
    let mut client = connected(&program, &old, "a");
    for file in ["ca.crt", "ca.crl", "devices.crl", "server.crt", "server.key"] {
        fs::copy(other.path(file), place.path(file)).unwrap();
    }
    program.signal("-HUP");
    client.expect_disconnect(ReasonCode::NotAuthorized);
    assert!(old.connect(program.address("mqtts"), connect("b")).is_err());
    let new = Tls::new(&other.path("ca.crt"), VERSIONS[1], Some(&device(&other)));
    connected(&program, &new, "b").ping();
}

/// `openssl x509 -req` creates this version by default.
#[test]
fn certificates_of_version_1_are_taken_from_the_broker_and_explained_to_devices() {
    let place = place().set("log.filter=debug");
    shell(
        &place.path(""),
        "openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt
         openssl x509 -req -in device.csr -CA devices.crt -CAkey devices.key -CAcreateserial -out one.crt",
    );
    let program = place.start();
    program.line_with(&["WARN", "server.crt", "X.509 version 1", "-extfile"]);
    let says =
        "printf 'GET /health/live HTTP/1.0\\r\\n\\r\\n' | timeout 60 openssl s_client -quiet";
    let address = program.address("https");
    let found = "2>&1 | grep '^HTTP/1.[01] 200'";
    shell(&place.path(""), &format!("{says} -connect {address} {found}"));
    let address = program.address("mqtts");
    let with_it = "-cert one.crt -key device.key || true";
    shell(&place.path(""), &format!("{says} -connect {address} {with_it}"));
    program.line_with(&["certificate is X.509 version 1", "-extfile"]);
}

#[test]
fn a_certificate_that_names_nobody_is_answered_and_told() {
    let place = place();
    shell(
        &place.path(""),
        "openssl req -new -key device.key -subj '/O=Example' -out nobody.csr
         openssl x509 -req -in nobody.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile device.ext \
         -out nobody.crt",
    );
    let program = place.start();
    let pair = Pair { chain: place.path("nobody.crt"), key: place.path("device.key") };
    for version in VERSIONS {
        let tls = Tls::new(&place.path("ca.crt"), version, Some(&pair));
        for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
            let packet = hearthmq::mqtt::Connect { version, ..connect("nobody") };
            let (_, reason) = tls.connect(program.address("mqtts"), packet).unwrap();
            let code = |reason: ReasonCode| reason.connect_return_code(version);
            assert_eq!(code(reason), code(ReasonCode::NotAuthorized), "{version:?}");
        }
        let answer = tls.call(program.address("https"), None, STATUS).unwrap();
        assert_eq!(answer.status, 401);
        assert!(answer.body.contains("no common name in its subject"), "{}", answer.body);
        let login = basic(&format!("ops:{PASSWORD}"));
        let answer = tls.call(program.address("https"), Some(&login), STATUS).unwrap();
        assert_eq!(answer.status, 200);
    }
    program.line_with(&["connect refused", "nobody", "no common name in its subject"]);
}

#[test]
fn one_listener_asks_for_certificates_and_the_other_does_not() {
    let place = Place::new().set("mqtt.tls=127.0.0.1:0").set("http.https=127.0.0.2:0");
    let [make, ..] = recipe();
    shell(&place.path(""), &make);
    let file = place.path("hearthmq.toml");
    let config = fs::read_to_string(&file).unwrap()
        + "[tls]\ncertificate = \"server.crt\"\nkey = \"server.key\"\n\
           [[listeners]]\naddress = \"127.0.0.2:0\"\n\
           tls = { client_auth = \"required\", client_ca = [\"ca.crt\"] }\n";
    fs::write(file, config).unwrap();
    let program = place.start();
    let ca = place.path("ca.crt");
    let nobody = Tls::new(&ca, VERSIONS[1], None);
    let mut packet = connect("ops");
    (packet.username, packet.password) = (Some("ops"), Some(PASSWORD.as_bytes()));
    let (_, reason) = nobody.connect(program.address("mqtts"), packet).unwrap();
    assert_eq!(reason, ReasonCode::Success);
    assert!(nobody.call(program.address("https"), None, STATUS).is_err());
    let tls = Tls::new(&ca, VERSIONS[1], Some(&device(&place)));
    assert_eq!(tls.call(program.address("https"), None, STATUS).unwrap().status, 200);
}

#[test]
fn what_accounts_and_permissions_no_longer_allow_ends_at_sighup() {
    let place = Place::new();
    let program = place.start();
    let login = |client_id| {
        let mut packet = connect(client_id);
        (packet.username, packet.password) = (Some("device-1"), Some(PASSWORD.as_bytes()));
        Client::connected(program.address("mqtt"), packet)
    };
    let mut watcher = program.client("watcher");
    watcher.subscribe("$events/session_unsubscribed", QoS::AtMostOnce);
    let mut client = login("c");
    client.subscribe("secret/#", QoS::AtMostOnce);
    client.subscribe("open/#", QoS::AtMostOnce);
    let policy = "[[rules]]\neffect = \"allow\"\nusers = [\"ops\"]\n\
                  [[rules]]\neffect = \"deny\"\nactions = [\"subscribe\"]\ntopics = [\"secret/#\"]\n\
                  [[rules]]\neffect = \"allow\"\nusers = [\"device-1\"]\n";
    fs::write(place.path("data/policy.toml"), policy).unwrap();
    program.signal("-HUP");
    let event = watcher.message();
    let event: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!((&event["clientid"], &event["topic"]), (&"c".into(), &"secret/#".into()));
    for topic in ["secret/x", "open/x"] {
        watcher.publish(topic, b"x", None).unwrap();
    }
    assert_eq!(client.message().topic, "open/x");

    set_disabled(&place.path("data/users.toml"), "device-1", true).unwrap();
    program.signal("-HUP");
    client.expect_disconnect(ReasonCode::NotAuthorized);
    let mut packet = connect("c");
    (packet.username, packet.password) = (Some("device-1"), Some(PASSWORD.as_bytes()));
    let (_, reason) = Client::on(crate::mqtt::tcp(program.address("mqtt")), packet).unwrap();
    assert_eq!(reason, ReasonCode::NotAuthorized);
}

/// Calls the REST interface as `ops`, with a body in JSON.
fn rest(program: &Program, line: &str, body: &str) -> (u16, serde_json::Value) {
    let login = basic(&format!("ops:{PASSWORD}"));
    let length = body.len();
    let answer = program.send(format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {login}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

/// Returns a place whose account `ops` may administer.
pub(crate) fn administered(place: Place) -> Place {
    let file = place.path("data/policy.toml");
    let rule = "[[rules]]\neffect = \"allow\"\nactions = [\"administer\"]\nusers = [\"ops\"]\n";
    fs::write(&file, fs::read_to_string(&file).unwrap() + rule).unwrap();
    place
}

#[test]
fn a_certificate_is_listed_revoked_over_rest_also_after_a_restart_and_accepted_again() {
    let place = administered(place());
    let program = place.start();
    let tls =
        VERSIONS.map(|version| Tls::new(&place.path("ca.crt"), version, Some(&device(&place))));
    let mut clients = [connected(&program, &tls[0], "a"), connected(&program, &tls[1], "b")];
    let mut idle = tls[1].stream(program.address("https"));
    write!(idle, "{STATUS} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let (status, first) = rest(&program, "GET /api/v1/certificates?limit=1", "");
    assert_eq!((status, &first["items"][0]["client_id"]), (200, &"a".into()));
    assert_eq!(first["items"][0]["subject"], "CN=device-1");
    let cursor = first["next"].as_str().unwrap();
    let (_, second) = rest(&program, &format!("GET /api/v1/certificates?cursor={cursor}"), "");
    assert_eq!((&second["items"][0]["client_id"], second.get("next")), (&"b".into(), None));

    let shown = &first["items"][0];
    let body = serde_json::json!({
        "issuer": shown["issuer"], "serial_number": shown["serial_number"], "reason": "stolen",
    });
    let mut of_another = body.clone();
    of_another["issuer"] = "CN=Another".into();
    for (body, touched) in [(of_another, 0), (body, 2)] {
        let (status, answer) =
            rest(&program, "POST /api/v1/certificates/revoked", &body.to_string());
        assert_eq!((status, &answer["sessions_touched"]), (200, &touched.into()), "{answer}");
    }
    for client in &mut clients {
        client.expect_disconnect(ReasonCode::NotAuthorized);
    }
    let mut rest_of_answer = Vec::new();
    drop(idle.read_to_end(&mut rest_of_answer)); // The connection ends, however its peer says so.
    for tls in &tls {
        assert!(tls.connect(program.address("mqtts"), connect("c")).is_err());
        assert!(tls.call(program.address("https"), None, STATUS).is_err());
    }
    let (_, none) = rest(&program, "GET /api/v1/certificates", "");
    assert_eq!(none["items"], serde_json::json!([]));
    drop(program);

    let program = place.start();
    assert!(tls[1].connect(program.address("mqtts"), connect("c")).is_err());
    program.line_with(&["connect refused", "Revoked"]);
    let (_, revoked) = rest(&program, "GET /api/v1/certificates/revoked", "");
    let mut revoked = revoked["items"].as_array().unwrap().iter();
    let revoked = revoked.find(|one| one["issuer"] != "CN=Another").unwrap();
    assert_eq!((&revoked["reason"], &revoked["by"]), (&"stolen".into(), &"ops".into()));
    let serial = revoked["serial_number"].as_str().unwrap();
    let issuer = revoked["issuer"].as_str().unwrap().replace(' ', "%20").replace('=', "%3D");
    let accept = format!("DELETE /api/v1/certificates/revoked/{serial}?issuer={issuer}");
    assert_eq!(rest(&program, &accept, "").0, 200);
    connected(&program, &tls[1], "c").ping();
    let (status, answer) = rest(&program, &accept, "");
    assert_eq!((status, &answer["code"]), (404, &"certificate_not_revoked".into()));
}
