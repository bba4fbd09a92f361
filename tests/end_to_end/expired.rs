//! Permissions that come with an identity and end with it: the claim `acl` of a token, and the answer of an
//! HTTP service with `expire_at`; of a connected client, and of a session that collects for an absent one.

use std::{
    fs, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hearthmq::mqtt::{Connect, Packet, ProtocolVersion::V5, QoS, ReasonCode};
use hearthmq_test::{
    mqtt::{Client, connect, tcp},
    packets::connect_lasting,
    receiver::{Call, Receiver},
};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::program::{PATIENCE, Place, Program};

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
    place
        .set("auth.jwt.algorithms=HS256")
        .set("auth.jwt.leeway_secs=0")
        .set(format!("auth.jwt.secrets={}", secret.display()))
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
    // At the second of its end, the token is valid and its identity is not.
    let refusals = [ReasonCode::BadUserNameOrPassword, ReasonCode::NotAuthorized];
    assert!(refusals.contains(&reason), "{reason:?}");
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
