//! Identities from elsewhere in the program: a token over MQTT and REST, its key changed at SIGHUP, and an
//! HTTP service behind the accounts of the file.

use std::{
    fs, thread,
    time::{SystemTime, UNIX_EPOCH},
};

use hearthmq::mqtt::{Connect, ReasonCode};
use hearthmq_test::receiver::Receiver;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use crate::{
    http::{exchange, request},
    mqtt::{Client, connect, tcp},
    pki::Pki,
    program::{PASSWORD, Place, Program},
    tls::{Tls, VERSIONS},
};

const SECRET: &str = "a secret of at least thirty-two bytes";

fn token(secret: &str) -> String {
    token_of("fleet", secret)
}

fn token_of(user: &str, secret: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let key = EncodingKey::from_secret(secret.as_bytes()).unwrap();
    let acl = json!([{"effect": "allow"}]);
    encode(&Header::default(), &json!({"sub": user, "exp": now + 600, "acl": acl}), &key).unwrap()
}

fn come(program: &Program, name: &str, password: &str) -> (Client, ReasonCode) {
    let connect =
        Connect { username: Some(name), password: Some(password.as_bytes()), ..connect("demo") };
    Client::on(tcp(program.address("mqtt")), connect).unwrap()
}

#[test]
fn a_token_is_accepted_until_its_key_is_taken_away() {
    let place = Place::new();
    let secret = place.path("token.secret");
    fs::write(&secret, SECRET).unwrap();
    let place = place
        .set("auth.jwt.algorithms=HS256")
        .set(format!("auth.jwt.secrets={}", secret.display()))
        .set("auth.username_without_query=true");
    let program = place.start();
    let token = token(SECRET);
    let (mut client, reason) = come(&program, "anything", &token);
    assert_eq!(reason, ReasonCode::Success);
    let bearer = format!("Bearer {token}");
    let status = || program.call_as(Some(&bearer), "GET /client-id/demo/status").status;
    assert_eq!(status(), 200);
    let metrics = program.call_as(None, "GET /metrics").body;
    let line = "hearthmq_login_source_answers_total{source=\"jwt\",answer=\"allowed\"}";
    assert!(metrics.lines().any(|found| found.starts_with(line)), "{metrics}");
    fs::write(&secret, "another secret of thirty-two bytes or more").unwrap();
    program.signal("-HUP");
    client.expect_disconnect(ReasonCode::NotAuthorized);
    assert_eq!(status(), 401);
    assert_eq!(come(&program, "anything", &token).1, ReasonCode::BadUserNameOrPassword);
}

#[test]
fn a_refusal_names_the_option_for_user_names_with_a_query() {
    let place = Place::new();
    let program = place.start();
    let (_, reason) = come(&program, "ops?SDK=x&Platform=y", PASSWORD);
    assert_eq!(reason, ReasonCode::BadUserNameOrPassword);
    program.line_with(&["connect refused", "see auth.username_without_query"]);
    drop(program);
    let program = place.set("auth.username_without_query=true").start();
    assert_eq!(come(&program, "ops?SDK=x&Platform=y", PASSWORD).1, ReasonCode::Success);
}

#[test]
fn a_service_is_asked_about_users_that_the_file_does_not_know() {
    let receiver = Receiver::start();
    let url = format!("auth.http.url=http://{}/", receiver.address);
    let place = Place::new().set(url).set("auth.username_without_query=true");
    let program = place.start();
    program.client("of-ops").ping(); // the service is not asked
    let service = thread::spawn(move || {
        let call = receiver.next();
        let asked = call.json()["username"].as_str().unwrap().to_owned();
        let body = r#"{"result":"allow","acl":[{"effect":"allow"}]}"#;
        let length = body.len();
        call.answer_bytes(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
        (asked, receiver)
    });
    assert_eq!(come(&program, "car?SDK=x&Platform=y", "pass").1, ReasonCode::Success);
    let (asked, receiver) = service.join().unwrap();
    assert_eq!(asked, "car");
    let down = thread::spawn(move || drop(receiver.next()));
    assert_eq!(come(&program, "van", "pass").1, ReasonCode::ServerUnavailable);
    down.join().unwrap();
}

/// The certificate alone would admit each caller of this listener.
#[test]
fn a_token_beside_a_certificate_must_be_of_the_same_user() {
    let pki = Pki::new();
    let place = Place::new();
    let secret = place.path("token.secret");
    fs::write(&secret, SECRET).unwrap();
    let place = place
        .set("auth.jwt.algorithms=HS256")
        .set(format!("auth.jwt.secrets={}", secret.display()))
        .set("http.https=127.0.0.1:0")
        .set(format!("tls.certificate={}", pki.server.chain.display()))
        .set(format!("tls.key={}", pki.server.key.display()))
        .set(format!("tls.client_ca={}", pki.ca.display()))
        .set("tls.client_auth=optional");
    let program = place.start();
    let status = |certificate, user: &str| {
        let tls = Tls::new(&pki.ca, VERSIONS[1], certificate);
        let bearer = format!("Bearer {}", token_of(user, SECRET));
        let request = request("GET /client-id/demo/status", Some(&bearer));
        exchange(tls.stream(program.address("https")), request).unwrap().status
    };
    assert_eq!(status(None, "fleet"), 200);
    assert_eq!(status(Some(&pki.other_device), "device-2"), 200);
    assert_eq!(status(Some(&pki.other_device), "fleet"), 401);
}
