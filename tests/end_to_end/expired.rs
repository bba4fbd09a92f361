//! Permissions that come with an identity and end with it: the claim `acl` of a token, and the answer of an
//! HTTP service with `expire_at`; of a connected client, and of a session that collects for an absent one.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hearthmq::mqtt::{Connect, Packet, ProtocolVersion::V5, QoS, ReasonCode};
use hearthmq_test::{
    beats::Beats,
    mqtt::{Client, connect, tcp},
    packets::connect_lasting,
    receiver::{Call, Receiver},
};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::program::{PASSWORD, PATIENCE, Place, Program};

const SECRET: &str = "a secret of at least thirty-two bytes";
/// Enough for the few packets that a test sends before.
const VALID_SECS: u64 = 8;
/// Enough for the rest of a test.
const LONG_SECS: u64 = 600;

/// No rule of the policy is about this user.
const USER: &str = "fleet";

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Returns the rules of the identity.
fn acl() -> Value {
    json!([
        {"effect": "allow", "actions": ["connect"]},
        {"effect": "allow", "actions": ["publish", "subscribe"], "topics": ["own/#"]},
    ])
}

/// Returns a token that expires at this time.
fn token(exp: u64) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
    encode(&Header::default(), &json!({"sub": USER, "exp": exp, "acl": acl()}), &key).unwrap()
}

fn with_tokens() -> Place {
    let place = Place::new();
    let secret = place.path("token.secret");
    fs::write(&secret, SECRET).unwrap();
    place.set("auth.jwt.algorithms=HS256").set(format!("auth.jwt.secrets={}", secret.display()))
}

/// Admits a client until this time.
fn admit(call: Call, expire_at: u64) {
    let body = json!({"result": "allow", "acl": acl(), "expire_at": expire_at}).to_string();
    let length = body.len();
    call.answer_bytes(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
}

fn with_service(service: &Receiver) -> Place {
    Place::new().set(format!("auth.http.url=http://{}/", service.address))
}

fn shown<'p>(connect: Connect<'p>, password: &'p str) -> Connect<'p> {
    Connect { username: Some(USER), password: Some(password.as_bytes()), ..connect }
}

fn come(program: &Program, connect: Connect<'_>) -> (Client, ReasonCode) {
    Client::on(tcp(program.address("mqtt")), connect).unwrap()
}

/// Publishes with QoS 1; returns the Reason Code of PUBACK.
fn published(client: &mut Client, topic: &str, text: &str) -> ReasonCode {
    client.publish(topic, text.as_bytes(), Some(7)).unwrap();
    client.receive(|packet| match packet {
        Packet::PubAck(ack) => ack.reason,
        packet => panic!("PUBACK expected, not {packet:?}"),
    })
}

/// Expects that the client has its own permissions until its identity expires, and is disconnected then.
fn lives_until(mut client: Client, expires_at: u64) {
    assert_eq!(published(&mut client, "own/a", "x"), ReasonCode::NoMatchingSubscribers);
    assert_eq!(published(&mut client, "other", "x"), ReasonCode::NotAuthorized);
    client.expect_disconnect(ReasonCode::NotAuthorized);
    assert!(now() >= Duration::from_secs(expires_at), "it ended too early");
}

/// Returns how many messages wait for the client.
fn queued(program: &Program) -> u64 {
    let answer = program.call("GET /api/v1/clients?client_id=demo&fields=queued");
    let page: Value = serde_json::from_str(&answer.body).unwrap();
    page["items"][0]["queued"].as_u64().unwrap()
}

/// Publishes for the absent client until its session collects no more; returns how many messages it has.
fn collects_until(program: &Program, expires_at: u64) -> u64 {
    let mut ops = program.client("ops");
    let patience = Instant::now() + PATIENCE;
    for sent in 1.. {
        assert_eq!(published(&mut ops, "own/a", &sent.to_string()), ReasonCode::Success);
        let found = queued(program);
        if found < sent {
            assert_eq!(found, sent - 1, "it has all until then");
            assert!(now() >= Duration::from_secs(expires_at), "it ended too early");
            assert_eq!(published(&mut ops, "own/a", "later"), ReasonCode::Success);
            assert_eq!(queued(program), found, "it collects nothing more");
            return found;
        }
        assert!(Instant::now() < patience, "the session still collects");
        thread::sleep(Duration::from_millis(20));
    }
    unreachable!("it has returned");
}

/// Expects that the client gets what its session has collected, and all messages from now on.
fn takes(program: &Program, mut client: Client, collected: u64) {
    let mut take = || {
        let message = client.message();
        let packet_id = message.packet_id.unwrap();
        client.send(&Packet::PubAck(hearthmq::mqtt::Ack::success(packet_id)));
        String::from_utf8(message.payload).unwrap()
    };
    for number in 1..=collected {
        assert_eq!(take(), number.to_string());
    }
    let mut ops = program.client("ops");
    assert_eq!(published(&mut ops, "own/a", "now"), ReasonCode::Success);
    assert_eq!(take(), "now");
}

#[test]
fn the_permissions_of_a_token_end_with_it_for_a_connected_client() {
    let place = with_tokens();
    let program = place.start();
    let expires_at = now().as_secs() + VALID_SECS;
    let token = token(expires_at);
    let (client, reason) = come(&program, shown(connect("demo"), &token));
    assert_eq!(reason, ReasonCode::Success);
    let bearer = format!("Bearer {token}");
    let status = || program.call_as(Some(&bearer), "GET /client-id/demo/status").status;
    assert_eq!(status(), 200);
    lives_until(client, expires_at);
    assert_eq!(status(), 401);
    let (_, reason) = come(&program, shown(connect("demo"), &token));
    assert_eq!(reason, ReasonCode::BadUserNameOrPassword);
}

/// The leeway for clocks that differ does not hold for `exp`.
#[test]
fn a_token_opens_nothing_once_its_time_is_over() {
    let place = with_tokens().set("auth.jwt.leeway_secs=300");
    let program = place.start();
    let token = token(now().as_secs() - 10);
    let (_, reason) = come(&program, shown(connect("demo"), &token));
    assert_eq!(reason, ReasonCode::BadUserNameOrPassword);
    let bearer = format!("Bearer {token}");
    assert_eq!(program.call_as(Some(&bearer), "GET /client-id/demo/status").status, 401);
}

/// The longest silence of a stream is 15 s.
const SILENT_FOR_SECS_MAX: u64 = 12;

/// Begins to follow a stream.
fn open(program: &Program, authorization: &str, target: &str, accept: &str) -> TcpStream {
    let mut stream = tcp(program.address("http"));
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nAuthorization: \
         {authorization}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Follows a stream on which nothing happens; returns all that came until it ended.
fn follow(program: &Program, authorization: &str, target: &str, accept: &str) -> String {
    let mut text = String::new();
    open(program, authorization, target, accept).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn streams_on_which_nothing_happens_end_with_the_token() {
    let place = with_tokens();
    let program = place.start();
    let beats = Beats::start();
    let expires_at = now().as_secs() + 5;
    let bearer = &*format!("Bearer {}", token(expires_at));
    thread::scope(|scope| {
        for (target, accept) in [
            ("/api/v1/events", "text/event-stream"),
            ("/api/v1/events", "application/x-ndjson"),
            ("/api/v1/messages?filter=own/%23", "application/x-ndjson"),
        ] {
            let (program, beats) = (&program, &beats);
            scope.spawn(move || {
                let text = follow(program, bearer, target, accept);
                assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                assert!(now() >= Duration::from_secs(expires_at), "{target} ended too early");
                let after = beats.now();
                assert!(after < Duration::from_secs(SILENT_FOR_SECS_MAX), "{target}: {after:?}");
            });
        }
        let first = follow(&program, bearer, "/api/v1/events", "application/json");
        let (_, next) = first.split_once(r#""next":""#).unwrap();
        let next = &next[..next.find('"').unwrap()];
        let target = format!("/api/v1/events?after={next}&wait=60");
        let text = follow(&program, bearer, &target, "application/json");
        assert!(text.starts_with("HTTP/1.1 401"), "{text}");
        assert!(now() >= Duration::from_secs(expires_at), "it ended too early");
    });
}

#[test]
fn a_stream_on_which_nothing_happens_ends_when_its_account_is_disabled_or_its_token_removed() {
    let place = Place::new();
    let policy = "[[rules]]\neffect = \"allow\"\nactions = [\"administer\"]\nusers = [\"ops\"]\n";
    fs::write(place.path("data/policy.toml"), policy).unwrap();
    let program = place.start();
    let post = |target: &str, method: &str, body: &str| {
        let length = body.len();
        let authorization = hearthmq_test::http::basic(&format!("ops:{PASSWORD}"));
        let answer = program.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: \
             {length}\r\nContent-Type: application/json\r\nAuthorization: {authorization}\r\n\r\n{body}"
        ));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    };
    post("/api/v1/users", "POST", r#"{"name":"car","password":"secret"}"#);
    let rules = r#"[{"effect":"allow","actions":["observe"]}]"#;
    let made = post("/api/v1/tokens", "POST", &format!(r#"{{"name":"ci","rules":{rules}}}"#));
    let made: Value = serde_json::from_str(&made).unwrap();
    let token = format!("Bearer {}", made["token"].as_str().unwrap());
    let beats = Beats::start();
    let basic = hearthmq_test::http::basic("car:secret");
    let streams = [&*token, &*basic].map(|authorization| {
        let mut stream = open(&program, authorization, "/api/v1/events", "text/event-stream");
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).unwrap();
        assert_eq!(begin, *b"HTTP/1.1 200");
        stream
    });
    post("/api/v1/users/car", "PATCH", r#"{"disabled":true}"#);
    post("/api/v1/tokens/ci", "DELETE", "");
    for mut stream in streams {
        stream.read_to_end(&mut Vec::new()).unwrap();
        let after = beats.now();
        assert!(after < Duration::from_secs(SILENT_FOR_SECS_MAX), "{after:?}");
    }
}

/// A REST caller has no client identifier, so the check cannot be left out for it.
#[test]
fn a_token_that_is_bound_to_a_client_identifier_opens_no_rest_call() {
    let place =
        with_tokens().set("auth.jwt.claims=sub=${clientId}").set("log.filter=hearthmq=debug");
    let program = place.start();
    let token = token(now().as_secs() + LONG_SECS);
    let (_client, reason) = come(&program, shown(connect(USER), &token));
    assert_eq!(reason, ReasonCode::Success);
    let bearer = format!("Bearer {token}");
    assert_eq!(program.call_as(Some(&bearer), "GET /client-id/demo/status").status, 401);
    program.line_with(&["token refused", "claim sub must be the client identifier"]);
}

/// The service is asked again before its answer expires, and denies then.
#[test]
fn a_client_that_the_service_denies_at_its_renewal_is_told_why() {
    let service = Receiver::start();
    let place = with_service(&service);
    let program = place.start();
    let answering = thread::spawn(move || {
        admit(service.next(), now().as_secs() + VALID_SECS);
        let body = r#"{"result":"deny"}"#;
        let length = body.len();
        let again = service.next();
        again.answer_bytes(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
    });
    let (mut client, reason) = come(&program, shown(connect("demo"), "pass"));
    assert_eq!(reason, ReasonCode::Success);
    client.receive(|packet| match packet {
        Packet::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, ReasonCode::NotAuthorized);
            let why = disconnect.properties.reason_string;
            assert_eq!(why, Some("the credentials are not accepted any more"));
        }
        packet => panic!("DISCONNECT expected, not {packet:?}"),
    });
    answering.join().unwrap();
}

#[test]
fn the_permissions_of_a_token_end_with_it_for_the_session_of_an_absent_client() {
    let place = with_tokens();
    let program = place.start();
    let expires_at = now().as_secs() + VALID_SECS;
    let first = token(expires_at);
    let (mut client, reason) = come(&program, shown(connect_lasting("demo", V5), &first));
    assert_eq!(reason, ReasonCode::Success);
    client.subscribe("own/#", QoS::AtLeastOnce);
    drop(client);
    let collected = collects_until(&program, expires_at);
    let later = token(now().as_secs() + LONG_SECS);
    let (client, reason) = come(&program, shown(connect_lasting("demo", V5), &later));
    assert_eq!(reason, ReasonCode::Success);
    takes(&program, client, collected);
}

#[test]
fn the_permissions_of_a_service_end_at_their_time_for_a_connected_client() {
    let service = Receiver::start();
    let place = with_service(&service);
    let program = place.start();
    let expires_at = now().as_secs() + VALID_SECS;
    let answering = thread::spawn(move || {
        admit(service.next(), expires_at);
        service
    });
    let (client, reason) = come(&program, shown(connect("demo"), "pass"));
    assert_eq!(reason, ReasonCode::Success);
    let service = answering.join().unwrap();
    // It does not answer when it is asked again before that time.
    let down = thread::spawn(move || drop(service.next()));
    lives_until(client, expires_at);
    down.join().unwrap();
    let (_, reason) = come(&program, shown(connect("demo"), "pass"));
    assert_eq!(reason, ReasonCode::ServerUnavailable, "the answer is not kept any more");
}

#[test]
fn the_permissions_of_a_service_end_at_their_time_for_the_session_of_an_absent_client() {
    let service = Receiver::start();
    let place = with_service(&service);
    let program = place.start();
    let expires_at = now().as_secs() + VALID_SECS;
    let answering = thread::spawn(move || {
        admit(service.next(), expires_at);
        service
    });
    let (mut client, reason) = come(&program, shown(connect_lasting("demo", V5), "pass"));
    assert_eq!(reason, ReasonCode::Success);
    client.subscribe("own/#", QoS::AtLeastOnce);
    drop(client);
    let service = answering.join().unwrap();
    let collected = collects_until(&program, expires_at);
    let answering = thread::spawn(move || admit(service.next(), now().as_secs() + LONG_SECS));
    let (client, reason) = come(&program, shown(connect_lasting("demo", V5), "pass"));
    assert_eq!(reason, ReasonCode::Success);
    answering.join().unwrap();
    takes(&program, client, collected);
}
