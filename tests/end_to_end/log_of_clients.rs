//! The log lines about clients, each provoked in the real program: which client, why and from
//! where.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Connect, Packet, ProtocolVersion, QoS, ReasonCode};
use serde_json::{Value, json};

use crate::{
    http::basic,
    mqtt::{Client, connect, tcp},
    pki::Pki,
    program::{PASSWORD, Place, Program},
    tls::{Tls, VERSIONS},
};

/// `limited` may connect and use its own topics; `ops` may do everything.
const POLICY: &str = r#"
[[rules]]
effect = "allow"
users = ["ops"]

[[rules]]
effect = "allow"
actions = ["connect"]
users = ["limited"]
clients = ["limited-*"]

[[rules]]
effect = "allow"
actions = ["publish", "subscribe"]
users = ["limited"]
topics = ["allowed/#"]
"#;

fn place() -> Place {
    let place = Place::new().set("log.format=json");
    fs::write(place.path("data/policy.toml"), POLICY).unwrap();
    place
}

/// Returns log lines with this message, as objects.
fn lines(program: &Program, message: &str) -> Vec<Value> {
    let lines = program.logged().into_iter();
    let lines = lines.map(|line| serde_json::from_str::<Value>(&line).expect(&line));
    lines.filter(|line| line["message"] == message).collect()
}

/// Waits for a line with this message and fields.
fn line(program: &Program, message: &str, fields: &Value) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    let has_all = |line: &Value| {
        fields.as_object().unwrap().iter().all(|(name, value)| &line[name.as_str()] == value)
    };
    loop {
        if let Some(line) = lines(program, message).into_iter().find(has_all) {
            return line;
        }
        let logged = program.logged().join("\n");
        assert!(Instant::now() < until, "no {message} with {fields} in\n{logged}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn listener(program: &Program) -> String {
    format!("mqtt://{}", program.address("mqtt"))
}

fn login<'a>(client_id: &'a str, user: &'a str, password: &'a str) -> Connect<'a> {
    Connect { username: Some(user), password: Some(password.as_bytes()), ..connect(client_id) }
}

fn limited(program: &Program, client_id: &str) -> (Client, SocketAddr) {
    let client = Client::connected(program.address("mqtt"), login(client_id, "limited", PASSWORD));
    let peer = client.stream.local_addr().unwrap();
    (client, peer)
}

/// Sends a CONNECT that is refused; returns its address.
fn refused(program: &Program, connect: Connect<'_>, reason: ReasonCode) -> String {
    let stream = tcp(program.address("mqtt"));
    let peer = stream.local_addr().unwrap().to_string();
    assert_eq!(Client::on(stream, connect).unwrap().1, reason);
    peer
}

#[test]
fn who_connects_disconnects_and_takes_over_is_told() {
    let place = place();
    let program = place.start();
    let (mut client, peer) = limited(&program, "limited-1");
    let who = json!({
        "level": "INFO", "target": "hearthmq::clients", "listener": listener(&program),
        "client_id": "limited-1", "user": "limited", "peer": peer.to_string(),
    });
    let connected = line(&program, "connected", &who);
    assert_eq!(connected["version"], "5.0");
    assert_eq!(connected["keep_alive_secs"], 60);
    assert_eq!(connected["clean_start"], true);
    assert_eq!(connected["session_present"], false);
    client.send(&Packet::Disconnect(hearthmq::mqtt::Disconnect {
        reason: ReasonCode::Success,
        properties: Default::default(),
    }));
    assert_eq!(line(&program, "disconnected", &who)["reason"], "normal");

    let (old, old_peer) = limited(&program, "limited-2");
    let (new, new_peer) = limited(&program, "limited-2");
    let taken_over = line(&program, "taken over", &json!({ "client_id": "limited-2" }));
    assert_eq!(taken_over["peer"], new_peer.to_string());
    assert_eq!(taken_over["old_peer"], old_peer.to_string());
    assert_eq!(taken_over["old_listener"], listener(&program));
    let gone = json!({ "peer": old_peer.to_string(), "reason": "takeovered" });
    line(&program, "disconnected", &gone);
    drop((old, new));
    let gone = json!({ "peer": new_peer.to_string(), "reason": "tcp_closed" });
    line(&program, "disconnected", &gone);

    let mut silent = login("limited-3", "limited", PASSWORD);
    silent.keep_alive = 1;
    let _silent = Client::connected(program.address("mqtt"), silent);
    let gone = json!({ "client_id": "limited-3", "reason": "keepalive_timeout" });
    line(&program, "disconnected", &gone);
}

#[test]
fn a_refused_connect_is_told_with_its_reason() {
    let place = place().set("auth.throttle.failures_max=3").set("auth.throttle.refusal_secs=600");
    let program = place.start();
    let told = |level: &str, reason: &str, peer: &str, client_id: &str, user: &str| {
        let fields = json!({
            "level": level, "reason": reason, "peer": peer, "client_id": client_id,
            "user": user, "listener": listener(&program),
        });
        line(&program, "connect refused", &fields)
    };
    for n in 0..3 {
        // The same password again would not count.
        let password = format!("not-the-password-{n}");
        let wrong = login("car-1", "ops", &password);
        let peer = refused(&program, wrong, ReasonCode::BadUserNameOrPassword);
        let line = told("INFO", "bad_credentials", &peer, "car-1", "ops");
        assert_eq!(line["why"], "user name or password is wrong");
    }
    let right = login("car-1", "ops", PASSWORD);
    refused(&program, right, ReasonCode::ConnectionRateExceeded);
    let begun = json!({
        "level": "WARN", "address": "127.0.0.1", "listener": listener(&program), "over": "MQTT",
        "user": "ops", "what": "user at this address", "secs": 600, "target": "hearthmq::clients",
    });
    line(&program, "locked out", &begun);

    let other = login("other-1", "limited", PASSWORD);
    let peer = refused(&program, other, ReasonCode::NotAuthorized);
    let line = told("INFO", "not_authorized", &peer, "other-1", "limited");
    assert_eq!(line["why"], "no rule allows to connect with this client identifier");
    let log = program.logged().join("\n");
    assert!(!log.contains("not-the-password") && !log.contains(PASSWORD), "{log}");
    assert_eq!(lines(&program, "locked out").len(), 1, "{log}");
    assert!(!log.contains("locked_out"), "one line tells it: {log}");
}

#[test]
fn what_comes_instead_of_connect_is_told_with_its_address() {
    let pki = Pki::new();
    let place = place()
        .set("mqtt.tls=127.0.0.1:0")
        .set("mqtt.websocket=127.0.0.1:0")
        .set(format!("tls.certificate={}", pki.server.chain.display()))
        .set(format!("tls.key={}", pki.server.key.display()));
    let program = place.start();
    let told = |reason: &str, peer: &str, listener: &str| {
        let fields =
            json!({ "level": "WARN", "reason": reason, "peer": peer, "listener": listener });
        line(&program, "connect refused", &fields)["why"].clone()
    };
    let stranger = |scheme: &str, bytes: &[u8]| {
        let mut stream = tcp(program.address(scheme));
        stream.write_all(bytes).unwrap();
        let peer = stream.local_addr().unwrap().to_string();
        (stream, peer)
    };
    let (_http, peer) = stranger("mqtt", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let why = told("malformed", &peer, &listener(&program));
    assert_eq!(why, "the client speaks HTTP, but this listener expects MQTT");
    let (_tls, peer) = stranger("mqtt", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    let why = told("malformed", &peer, &listener(&program));
    assert_eq!(why, "the client speaks TLS, but this listener expects MQTT without TLS");
    let (_other, peer) = stranger("mqtt", &[0xC0, 0]);
    let why = told("malformed", &peer, &listener(&program));
    assert_eq!(why, "first packet is not CONNECT (MQTT-3.1.0-1)");

    let mqtts = format!("mqtts://{}", program.address("mqtts"));
    let (_plain, peer) = stranger("mqtts", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(told("tls", &peer, &mqtts).is_string());
    let ws = format!("ws://{}/mqtt", program.address("ws"));
    let (_other, peer) = stranger("ws", b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(told("websocket", &peer, &ws).is_string());
}

#[test]
fn who_says_nothing_is_told() {
    let place = place().set("limits.connect_timeout_secs=1");
    let program = place.start();
    let silent = tcp(program.address("mqtt"));
    let peer = silent.local_addr().unwrap().to_string();
    let fields = json!({
        "level": "WARN", "reason": "connect_timeout", "peer": peer, "listener": listener(&program),
    });
    line(&program, "connect refused", &fields);
}

#[test]
fn a_certificate_that_is_wanted_and_not_shown_is_told() {
    let pki = Pki::new();
    let place = place()
        .set("mqtt.tls=127.0.0.1:0")
        .set(format!("tls.certificate={}", pki.server.chain.display()))
        .set(format!("tls.key={}", pki.server.key.display()))
        .set(format!("tls.client_ca={}", pki.ca.display()))
        .set("tls.client_auth=required");
    let program = place.start();
    for version in VERSIONS {
        let tls = Tls::new(&pki.ca, version, None);
        assert!(tls.connect(program.address("mqtts"), connect("car-1")).is_err());
    }
    let listener = format!("mqtts://{}", program.address("mqtts"));
    let fields = json!({ "level": "WARN", "reason": "tls", "listener": listener });
    let told = line(&program, "connect refused", &fields);
    assert!(told["why"].as_str().unwrap().contains("certificate"), "{told}");
    assert!(told["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{told}");
}

#[test]
fn limits_on_connections_are_told() {
    let place = place().set("limits.connections_per_address_max=1");
    let program = place.start();
    let _first = program.client("first");
    let second = tcp(program.address("mqtt"));
    let fields = json!({
        "level": "WARN", "reason": "connections_per_address_max", "listener": listener(&program),
        "peer": second.local_addr().unwrap().to_string(),
    });
    line(&program, "connect refused", &fields);
}

#[test]
fn what_a_client_may_not_do_is_told_and_limited() {
    let place = place();
    let program = place.start();
    let (mut client, peer) = limited(&program, "limited-1");
    client.publish("forbidden/topic", b"the-payload", None).unwrap();
    let who = json!({
        "level": "WARN", "target": "hearthmq::clients", "listener": listener(&program),
        "client_id": "limited-1", "user": "limited", "peer": peer.to_string(),
    });
    let denied = line(&program, "denied", &who);
    assert_eq!(denied["action"], "publish");
    assert_eq!(denied["topic"], "forbidden/topic");

    let options = hearthmq::mqtt::SubscriptionOptions::default();
    client.send(&Packet::Subscribe(hearthmq::mqtt::Subscribe {
        packet_id: hearthmq::mqtt::PacketId::new(1).unwrap(),
        properties: Default::default(),
        filters: vec![hearthmq::mqtt::SubscribeFilter { filter: "forbidden/#", options }],
    }));
    let fields = json!({ "action": "subscribe", "topic": "forbidden/#", "peer": peer.to_string() });
    line(&program, "denied", &fields);

    for _ in 0..1000 {
        client.publish("forbidden/topic", b"the-payload", None).unwrap();
    }
    // Some lines are omitted; a later line has their number.
    let until = Instant::now() + Duration::from_secs(60);
    while !lines(&program, "denied").iter().any(|line| line["left_out"].as_u64() > Some(0)) {
        assert!(Instant::now() < until, "{:#?}", program.logged());
        client.publish("forbidden/topic", b"the-payload", None).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    assert!(lines(&program, "denied").len() < 100);
    assert!(!program.logged().join("\n").contains("the-payload"));
}

#[test]
fn broken_rules_and_limits_are_told_with_clause_and_name() {
    let place =
        place().set("limits.packet_bytes_max=2000").set("limits.subscription_bytes_max=600");
    let program = place.start();
    let (mut twice, peer) = limited(&program, "limited-1");
    twice.send(&Packet::Connect(Box::new(login("limited-1", "limited", PASSWORD))));
    let who = json!({
        "level": "WARN", "client_id": "limited-1", "user": "limited", "peer": peer.to_string(),
        "listener": listener(&program), "code": "ProtocolError", "clause": "MQTT-3.1.0-2",
    });
    line(&program, "broke a rule of the protocol", &who);
    line(&program, "disconnected", &json!({ "peer": peer.to_string(), "why": "MQTT-3.1.0-2" }));

    let (mut large, peer) = limited(&program, "limited-2");
    large.publish("allowed/x", &[b'x'; 3000], None).unwrap();
    let who = json!({
        "level": "WARN", "client_id": "limited-2", "peer": peer.to_string(),
        "limit": "packet_bytes_max",
    });
    line(&program, "over a limit", &who);

    let (mut many, peer) = limited(&program, "limited-3");
    let options = hearthmq::mqtt::SubscriptionOptions::default();
    let filters = ["allowed/1", "allowed/2", "allowed/3"];
    many.send(&Packet::Subscribe(hearthmq::mqtt::Subscribe {
        packet_id: hearthmq::mqtt::PacketId::new(1).unwrap(),
        properties: Default::default(),
        filters: filters.map(|filter| hearthmq::mqtt::SubscribeFilter { filter, options }).into(),
    }));
    let fields = json!({ "client_id": "limited-3", "peer": peer.to_string() });
    assert!(
        line(&program, "over a limit", &fields)["what"].as_str().unwrap().starts_with("allowed")
    );
}

#[test]
fn what_a_stranger_writes_makes_no_line_and_no_command_of_a_terminal() {
    let evil =
        "dev1-\n2026-11-28T00:00:00Z  INFO hearthmq::cli::serve: accounts read again \x1b[2J";
    let long = "x".repeat(60_000);
    for format in ["text", "json"] {
        let place = Place::new().set(format!("log.format={format}"));
        let program = place.start();
        for (client_id, user) in [(evil, "ops"), ("car-1", evil), (long.as_str(), "ops")] {
            let right = if user == "ops" { PASSWORD } else { "no" };
            drop(Client::on(tcp(program.address("mqtt")), login(client_id, user, right)));
        }
        let mut client = program.client("last-one");
        client.publish("\u{9b}2J\u{202e}", b"", None).unwrap();
        client.ping();
        drop(client);
        program.line_with(&["disconnected", "last-one"]);
        for line in program.logged() {
            assert!(line.len() < 2000, "{line}");
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
            let is_forged = line.starts_with("2026-11-28T00:00:00Z  INFO hearthmq::cli");
            assert!(!is_forged, "{line}");
        }
        assert!(program.logged().iter().any(|line| line.contains("dev1-") && line.contains("[2J")));
    }
}

#[test]
fn calls_that_change_something_and_calls_that_are_refused_are_told() {
    let place = place();
    let program = place.start();
    let (_client, _) = limited(&program, "limited-1");
    let http = format!("http://{}", program.address("http"));
    let changed = |call: &str, target: &str, new: &str| {
        let fields = json!({
            "level": "INFO", "target": "hearthmq::audit", "listener": http, "user": "ops",
            "call": call, "client_id": target, "new": new,
        });
        let told = line(&program, "changed", &fields);
        assert!(told["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{told}");
        told
    };
    program.call("POST /keep-alive?client-id=limited-1&interval=120");
    assert_eq!(changed("keep-alive", "limited-1", "120")["old"], "60");
    let body = r#"{"client_id":"limited-1","server_reference":"b.example:1883"}"#;
    let right = basic(&format!("ops:{PASSWORD}"));
    program.send(format!(
        "POST /api/v1/redirect HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {right}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    changed("redirect", "limited-1", "b.example:1883, temporary; 1 clients");

    let refused = |reason: &str, user: &str, call: &str| {
        let fields = json!({
            "level": "WARN", "target": "hearthmq::calls", "listener": http,
            "reason": reason, "user": user, "call": call,
        });
        line(&program, "call refused", &fields);
    };
    let call = "POST /keep-alive?client-id=limited-1&interval=120";
    program.call_as(Some(&basic("ops:not-the-password")), call);
    refused("unauthenticated", "ops", call);
    program.call_as(Some(&basic(&format!("stranger:{PASSWORD}"))), call);
    refused("forbidden", "stranger", call);
    let log = program.logged().join("\n");
    assert!(!log.contains("not-the-password") && !log.contains(PASSWORD), "{log}");
}

#[test]
fn which_lines_there_are_can_be_chosen_and_changed_while_it_runs() {
    let place = place().set("log.clients=refusals");
    let program = place.start();
    let (mut client, peer) = limited(&program, "limited-1");
    client.publish("forbidden", b"", None).unwrap();
    line(&program, "denied", &json!({ "peer": peer.to_string() }));
    assert!(lines(&program, "connected").is_empty());
    drop(program);

    let place = Place::new().set("log.format=json");
    let program = place.start();
    let file = place.path("hearthmq.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}\n[log]\nclients = \"none\"\n")).unwrap();
    program.signal("-HUP");
    program.line_with(&["permissions read again"]);
    let before = lines(&program, "connected").len();
    drop(program.client("unseen"));
    let wrong = login("unseen", "ops", "wrong");
    refused(&program, wrong, ReasonCode::BadUserNameOrPassword);
    fs::write(&file, text).unwrap();
    program.signal("-HUP");
    let until = Instant::now() + Duration::from_secs(60);
    while lines(&program, "permissions read again").len() < 2 {
        assert!(Instant::now() < until);
        thread::sleep(Duration::from_millis(10));
    }
    let (client, reason) =
        Client::on(tcp(program.address("mqtt")), login("seen", "ops", PASSWORD)).unwrap();
    assert_eq!(reason, ReasonCode::Success);
    line(&program, "connected", &json!({ "client_id": "seen" }));
    assert_eq!(lines(&program, "connected").len(), before + 1);
    assert!(!program.logged().iter().any(|line| line.contains("unseen")));
    drop(client);
}

#[test]
fn packets_are_followed_without_payloads_and_passwords() {
    let place = place().set("log.filter=hearthmq=trace").set("mqtt.websocket=127.0.0.1:0");
    let program = place.start();
    let (mut client, peer) = limited(&program, "limited-1");
    client.subscribe("allowed/#", QoS::AtLeastOnce);
    client.publish("allowed/here", b"the-payload", Some(17)).unwrap();
    client.receive(|packet| assert!(matches!(packet, Packet::Publish(_) | Packet::PubAck(_))));
    client.receive(|packet| assert!(matches!(packet, Packet::Publish(_) | Packet::PubAck(_))));
    client.ping();
    let large = vec![b'p'; 100_000];
    client.publish("allowed/large", &large, Some(18)).unwrap();
    for (direction, packet, fields) in [
        ("received", "CONNECT", json!({})),
        ("sent", "CONNACK", json!({ "reason": "Success" })),
        ("received", "SUBSCRIBE", json!({ "packet_id": 9, "topic": "allowed/#" })),
        ("sent", "SUBACK", json!({ "packet_id": 9, "reason": "GrantedQoS1" })),
        ("received", "PUBLISH", json!({ "packet_id": 17, "topic": "allowed/here", "qos": 1 })),
        ("sent", "PUBLISH", json!({ "packet_id": 1, "topic": "allowed/here", "qos": 1 })),
        ("sent", "PUBACK", json!({ "packet_id": 17, "reason": "Success" })),
        ("received", "PINGREQ", json!({})),
        ("sent", "PINGRESP", json!({})),
        ("received", "PUBLISH", json!({ "topic": "allowed/large" })),
        ("sent", "PUBLISH", json!({ "topic": "allowed/large" })),
    ] {
        let mut fields = fields;
        fields["packet"] = packet.into();
        fields["peer"] = peer.to_string().into();
        fields["client_id"] = "limited-1".into();
        let told = line(&program, direction, &fields);
        assert_eq!(told["level"], "TRACE");
        assert_eq!(told["target"], "hearthmq::packets");
    }
    // Another refused login, and one over REST.
    refused(&program, login("x", "ops", "pass:wrong"), ReasonCode::BadUserNameOrPassword);
    program.call("GET /client-id/limited-1/status");
    let log = program.logged().join("\n");
    for secret in ["the-payload", "pppppppp", PASSWORD, "pass:wrong"] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[test]
fn an_older_version_is_named() {
    let place = place();
    let program = place.start();
    for (version, name) in [(ProtocolVersion::V3_1, "3.1"), (ProtocolVersion::V3_1_1, "3.1.1")] {
        let mut old = login("limited-old", "limited", PASSWORD);
        old.version = version;
        let mut client = Client::connected(program.address("mqtt"), old);
        line(&program, "connected", &json!({ "version": name }));
        // A forbidden action is logged, although an MQTT 3 client is not told.
        client.publish("forbidden", b"", Some(1)).unwrap();
        let fields = json!({ "action": "publish", "client_id": "limited-old" });
        line(&program, "denied", &fields);
    }
}
