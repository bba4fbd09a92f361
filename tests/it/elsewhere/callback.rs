//! A real HTTP service that knows clients: what it is asked, what its answers mean, and what happens
//! when it is slow, down, wrong and back.

use std::{net::TcpListener, path::Path, thread, time::Duration};

use futures_util::future::join_all;
use hearthmq::auth::{
    AnswerForm, AuthenticationError, Authenticator, ClientCertificate, Credentials, HttpAuthConfig,
    HttpAuthenticator, Identity, ThrottleConfig,
};
use hearthmq::mqtt::Timestamp;
use hearthmq_test::{
    free_address,
    receiver::{Call, Receiver},
};
use serde_json::{Value, json};

use super::{
    badly::{BYTES_MAX, BadServer, Badly, receiver_with},
    now, shown,
};
use crate::pki::Pki;

type Outcome = Result<Identity, AuthenticationError>;

const BAD: Outcome = Err(AuthenticationError::BadCredentials);
const NOT_MINE: Outcome = Err(AuthenticationError::NotMine);
const UNAVAILABLE: Outcome = Err(AuthenticationError::Unavailable);

fn config(receiver: &Receiver) -> HttpAuthConfig {
    let url = format!("http://{}/auth?key=1", receiver.address);
    HttpAuthConfig { url: url.as_str().into(), timeout_ms: 30_000, ..HttpAuthConfig::default() }
}

/// Without a limit of failures, which other tests are about.
fn open(config: &HttpAuthConfig) -> HttpAuthenticator {
    let throttle =
        ThrottleConfig { free_failures: 0, failures_max: 0, ..ThrottleConfig::default() };
    HttpAuthenticator::open(config, throttle).unwrap()
}

async fn log_in(authenticator: &HttpAuthenticator, name: &str) -> Outcome {
    authenticator.authenticate(shown(name, b"pass\"word")).await
}

/// Answers the next calls, each with one of these.
fn answering(
    receiver: Receiver,
    answers: impl IntoIterator<Item = String> + Send + 'static,
) -> thread::JoinHandle<(Receiver, Vec<(Value, usize)>)>
where
    <Vec<String> as IntoIterator>::IntoIter: Send,
{
    let answers: Vec<_> = answers.into_iter().collect();
    thread::spawn(move || {
        let calls = answers.into_iter().map(|answer| {
            let call = receiver.next();
            let asked = (call.json(), call.connection);
            call.answer_bytes(&answer);
            asked
        });
        let calls = calls.collect();
        (receiver, calls)
    })
}

fn answer_with(headers: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn answer(body: &Value) -> String {
    answer_with("", body)
}

fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n")
}

#[actix_rt::test]
async fn a_login_is_one_post_and_its_answer_has_the_permissions() {
    let receiver = Receiver::start();
    let authenticator = open(&config(&receiver));
    let expire_at = now() + 600;
    let said = json!({
        "result": "allow", "expire_at": expire_at, "client_attrs": {"plan": "gold"},
        "acl": [{"permission": "allow", "action": "publish", "topic": "v/${clientid}"}],
    });
    let service = answering(receiver, [answer(&said), answer(&json!({"result": "deny"}))]);
    let identity = log_in(&authenticator, "ann").await.unwrap();
    assert_eq!(identity.username.as_deref(), Some("ann"));
    assert_eq!(identity.attributes.get("plan"), Some("gold"));
    assert!(identity.rules.as_json().unwrap().contains("v/${clientId}"));
    assert_eq!(identity.expires_at.unwrap().millis(), expire_at * 1_000);
    let renews_at = identity.renewal.at().unwrap().millis() / 1_000;
    assert!((now() + 300..expire_at).contains(&renews_at), "{renews_at}");
    assert_eq!(log_in(&authenticator, "ben").await, BAD);
    let (_, calls) = service.join().unwrap();
    let expected = json!({
        "clientid": "car", "username": "ann", "password": "pass\"word", "peerhost": "127.0.0.1",
        "cert_common_name": null,
    });
    assert_eq!(calls[0].0, expected);
    assert_eq!((calls[0].1, calls[1].1), (1, 1), "one connection");
}

#[actix_rt::test]
async fn what_passes_and_what_is_not_asked() {
    let receiver = Receiver::start();
    let authenticator = open(&config(&receiver));
    let nobody = Credentials { username: None, password: None, ..shown("", b"") };
    assert_eq!(authenticator.authenticate(nobody).await, NOT_MINE);
    let token = Credentials { bearer: Some(b"token"), ..nobody };
    assert_eq!(authenticator.authenticate(token).await, NOT_MINE, "the body has no token");
    assert_eq!(authenticator.authenticate(shown("ann", b"\xFF")).await, BAD, "JSON is text");
    assert!(receiver.is_quiet());
    let service = answering(receiver, [answer(&json!({"result": "ignore"}))]);
    assert_eq!(log_in(&authenticator, "ann").await, NOT_MINE);
    let (receiver, _) = service.join().unwrap();
    let mut config = config(&receiver);
    config.body = r#"{"token":"${token}"}"#.to_owned();
    let authenticator = open(&config);
    let said = json!({"result": "allow", "username": "ops"});
    let service = answering(receiver, [answer(&said)]);
    let ops = authenticator.authenticate(token).await.unwrap();
    assert_eq!(ops.username.as_deref(), Some("ops"));
    let (_, calls) = service.join().unwrap();
    assert_eq!(calls[0].0, json!({"token": "token"}));
    assert!(!format!("{config:?}").contains("key=1"), "the URL may be a secret");
}

#[actix_rt::test]
async fn statuses_can_be_enough() {
    let receiver = Receiver::start();
    let config = HttpAuthConfig { answers: AnswerForm::Status, ..config(&receiver) };
    let authenticator = open(&config);
    let service = answering(receiver, [status("200 OK"), status("401 No"), status("500 Oh")]);
    assert!(log_in(&authenticator, "ann").await.is_ok());
    assert_eq!(log_in(&authenticator, "ben").await, BAD);
    assert_eq!(log_in(&authenticator, "cat").await, UNAVAILABLE);
    service.join().unwrap();
}

#[actix_rt::test]
async fn answers_are_kept_as_long_as_the_service_says() {
    let receiver = Receiver::start();
    let authenticator = open(&config(&receiver));
    let allow = json!({"result": "allow"});
    let answers = [
        answer(&allow),                                       // ann: for a minute
        answer_with("Cache-Control: no-store\r\n", &allow),   // ben: not at all
        answer_with("Cache-Control: max-age=60\r\n", &allow), // ben
        answer(&json!({"result": "deny"})),                   // cat: for seconds
    ];
    let service = answering(receiver, answers);
    for name in ["ann", "ann", "ben", "ben", "ben"] {
        assert!(log_in(&authenticator, name).await.is_ok(), "{name}");
    }
    assert_eq!(log_in(&authenticator, "cat").await, BAD);
    assert_eq!(log_in(&authenticator, "cat").await, BAD);
    let (receiver, calls) = service.join().unwrap();
    assert_eq!(calls.len(), 4);
    // Another password, and another client, are other questions.
    let service = answering(receiver, [answer(&allow), answer(&allow)]);
    assert!(authenticator.authenticate(shown("ann", b"other")).await.is_ok());
    let van = Credentials { client_id: Some("van"), ..shown("ann", b"pass\"word") };
    assert!(authenticator.authenticate(van).await.is_ok());
    service.join().unwrap();
}

#[actix_rt::test]
async fn logins_with_the_same_question_share_a_call() {
    let receiver = Receiver::start();
    let authenticator = open(&config(&receiver));
    let allow = answer_with("Cache-Control: no-store\r\n", &json!({"result": "allow"}));
    let service = thread::spawn(move || {
        let call = receiver.next();
        // The other logins have asked by now, or would ask after this answer.
        thread::sleep(Duration::from_millis(50));
        call.answer_bytes(&allow);
        receiver
    });
    let logins = (0..8).map(|_| log_in(&authenticator, "ann"));
    let all = join_all(logins).await;
    assert!(all.iter().all(Result::is_ok));
    assert!(service.join().unwrap().is_quiet());
}

/// Slow, down, wrong, and back.
#[actix_rt::test]
async fn a_service_that_fails_makes_logins_unavailable_until_it_is_back() {
    let receiver = Receiver::start();
    let slow = HttpAuthConfig { timeout_ms: 100, ..config(&receiver) };
    let authenticator = open(&slow);
    assert_eq!(log_in(&authenticator, "slow").await, UNAVAILABLE);
    let held = receiver.next(); // It was asked, and did not answer in time.
    drop(held);
    let authenticator = open(&config(&receiver));
    let wrong = [status("500 Oh"), answer(&json!({"result": "perhaps"})), status("302 There")];
    let service = answering(receiver, wrong);
    for name in ["ann", "ben", "cat"] {
        assert_eq!(log_in(&authenticator, name).await, UNAVAILABLE, "{name}");
    }
    let (receiver, _) = service.join().unwrap();
    let service = answering(receiver, [answer(&json!({"result": "allow"}))]);
    assert!(log_in(&authenticator, "ann").await.is_ok(), "failures are not kept");
    service.join().unwrap();
}

#[actix_rt::test]
async fn a_service_that_is_down_is_left_alone_and_found_again() {
    let gone = free_address();
    let url = format!("http://{gone}/");
    let config = HttpAuthConfig { url: url.as_str().into(), ..HttpAuthConfig::default() };
    let authenticator = open(&config);
    for number in 0..5 {
        assert_eq!(log_in(&authenticator, &format!("n{number}")).await, UNAVAILABLE);
    }
    let listener = TcpListener::bind(gone).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(log_in(&authenticator, "ann").await, UNAVAILABLE);
    assert!(listener.accept().is_err(), "the service is left alone");
    listener.set_nonblocking(false).unwrap();
    let service = thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 4_096];
        let _ = stream.read(&mut bytes).unwrap();
        stream.write_all(answer(&json!({"result": "allow"})).as_bytes()).unwrap();
    });
    // Until the pause of the breaker is over.
    while log_in(&authenticator, "ann").await == UNAVAILABLE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    service.join().unwrap();
}

#[actix_rt::test]
async fn guesses_are_slowed_down_and_refused() {
    let receiver = Receiver::start();
    let throttle = ThrottleConfig { failures_max: 2, ..ThrottleConfig::default() };
    let authenticator = HttpAuthenticator::open(&config(&receiver), throttle).unwrap();
    let deny = || answer(&json!({"result": "deny"}));
    let service = answering(receiver, [deny(), deny()]);
    for password in [b"1", b"2"] {
        assert_eq!(authenticator.authenticate(shown("ann", password)).await, BAD);
    }
    let refused = authenticator.authenticate(shown("ann", b"3")).await;
    assert!(matches!(refused, Err(AuthenticationError::TooManyAttempts { .. })), "{refused:?}");
    let (receiver, _) = service.join().unwrap();
    assert!(receiver.is_quiet());
}

#[actix_rt::test]
async fn a_token_file_and_headers_go_with_each_request() {
    let receiver = Receiver::start();
    let directory = tempfile::TempDir::new().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "secret-token\n").unwrap();
    let headers = vec!["X-Tenant: north".into()];
    let config = HttpAuthConfig { token_file, headers, ..config(&receiver) };
    let authenticator = open(&config);
    let service = thread::spawn(move || {
        let call: Call = receiver.next();
        let headers = (call.header("authorization").to_owned(), call.header("x-tenant").to_owned());
        call.answer("204 No Content");
        headers
    });
    assert!(log_in(&authenticator, "ann").await.is_ok());
    assert_eq!(service.join().unwrap(), ("Bearer secret-token".to_owned(), "north".to_owned()));
}

#[actix_rt::test]
async fn a_user_beside_a_certificate_is_the_same_user() {
    let receiver = Receiver::start();
    let with_token =
        HttpAuthConfig { body: r#"{"token":"${token}"}"#.to_owned(), ..config(&receiver) };
    let (by_name, by_token) = (open(&config(&receiver)), open(&with_token));
    let said = || answer(&json!({"result": "allow", "username": "ann"}));
    let service = answering(receiver, [said(), said(), said(), said()]);
    for (name, expected) in
        [("ann", None), ("ben", Some(AuthenticationError::OtherThanCertificate))]
    {
        let certificate = ClientCertificate { common_name: name.into(), serial_number: "1".into() };
        // The name that the client has sent, and the one that the service says.
        let sent = Credentials { certificate: Some(&certificate), ..shown("ann", name.as_bytes()) };
        assert_eq!(by_name.authenticate(sent).await.err(), expected, "{name}");
        let bearer = Some(name.as_bytes());
        let sent = Credentials { username: None, password: None, bearer, ..sent };
        assert_eq!(by_token.authenticate(sent).await.err(), expected, "{name}");
    }
    service.join().unwrap();
}

async fn be_unavailable(how: Badly) {
    let allow = json!({"result": "allow"}).to_string();
    let server = BadServer::start(Err((how, allow.clone())));
    let url = format!("http://{}/", server.address);
    let config =
        HttpAuthConfig { url: url.as_str().into(), timeout_ms: 500, ..HttpAuthConfig::default() };
    let authenticator = open(&config);
    assert_eq!(log_in(&authenticator, "ann").await, UNAVAILABLE, "{how:?}");
    let written = server.written().await;
    assert!(how == Badly::EndlessInterim || written < BYTES_MAX, "{how:?}: {written}");
    server.set(Ok(allow));
    // The same time may be short for a busy machine; failures are followed by a pause.
    while log_in(&authenticator, "ann").await == UNAVAILABLE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[actix_rt::test]
async fn whatever_a_service_answers_takes_bounded_time_and_memory() {
    join_all(Badly::ALL.map(be_unavailable)).await;
}

#[actix_rt::test]
async fn a_service_over_tls_must_have_a_trusted_certificate_for_its_name() {
    let (pki, other) = (Pki::new(), Pki::new());
    let receiver = receiver_with(&pki.server);
    let port = receiver.address.port();
    thread::spawn(move || {
        loop {
            receiver.next().answer_bytes(&answer(&json!({"result": "allow"})));
        }
    });
    for (host, ca, is_trusted) in [
        ("localhost", &*pki.ca, true),
        ("127.1.2.3", &*pki.ca, false),
        ("localhost", &*other.ca, false),
        ("localhost", Path::new(""), false),
    ] {
        let url = format!("https://{host}:{port}/");
        let config = HttpAuthConfig {
            url: url.as_str().into(),
            ca: ca.to_owned(),
            timeout_ms: 30_000,
            ..HttpAuthConfig::default()
        };
        let outcome = log_in(&open(&config), "ann").await;
        match is_trusted {
            true => assert!(outcome.is_ok(), "{host} {ca:?}: {outcome:?}"),
            false => assert_eq!(outcome, UNAVAILABLE, "{host} {ca:?}"),
        }
    }
}

/// The time in which a login waits for others is no failure of the service.
#[actix_rt::test]
async fn logins_that_wait_for_others_do_not_have_the_service_left_alone() {
    let receiver = Receiver::start();
    let one_by_one =
        HttpAuthConfig { calls_at_once_max: 1, timeout_ms: 1_000, ..config(&receiver) };
    let authenticator = open(&one_by_one);
    let names: Vec<_> = (0..8).map(|number| format!("n{number}")).collect();
    let all = join_all(names.iter().map(|name| log_in(&authenticator, name))).await;
    assert!(all.iter().all(|outcome| *outcome == UNAVAILABLE), "{all:?}");
    drop(receiver.next()); // the only call
    let service = answering(receiver, [answer(&json!({"result": "allow"}))]);
    let began = tokio::time::Instant::now();
    let ann = log_in(&authenticator, "ann").await;
    // On a busy machine the time of the call may be over before the answer is there. A service that is
    // left alone is not asked at all, so its login fails immediately.
    let asked = began.elapsed() >= Duration::from_millis(one_by_one.timeout_ms.into());
    assert!(ann.is_ok() || asked, "{ann:?}");
    service.join().unwrap();
}

/// With `expire_at` in the past, whatever `Cache-Control` says.
#[actix_rt::test]
async fn an_admission_that_has_expired_is_not_kept() {
    let receiver = Receiver::start();
    let authenticator = open(&config(&receiver));
    let until = |expire_at: Value| {
        answer_with(
            "Cache-Control: max-age=3600\r\n",
            &json!({"result": "allow", "expire_at": expire_at}),
        )
    };
    let past = [json!(now() - 1), json!(0), json!(-5), json!(now() as f64 - 0.5)];
    let count = past.len();
    let service = answering(receiver, past.map(until));
    for _ in 0..count {
        let identity = log_in(&authenticator, "ann").await.unwrap();
        assert!(identity.has_expired(Timestamp(now() * 1_000)), "{:?}", identity.expires_at);
    }
    let (receiver, calls) = service.join().unwrap();
    assert_eq!(calls.len(), count, "each was asked for");
    // A time far away is a time; one that is none is a failure.
    let service = answering(receiver, [until(json!(1e300)), until(json!("tomorrow"))]);
    assert!(log_in(&authenticator, "far").await.unwrap().expires_at.is_some());
    assert_eq!(log_in(&authenticator, "text").await, UNAVAILABLE);
    service.join().unwrap();
}

/// `cache_refused_secs` is the most, also where the service says more.
#[actix_rt::test]
async fn a_refusal_is_kept_no_longer_than_the_configuration_says() {
    let receiver = Receiver::start();
    let never = HttpAuthConfig { cache_refused_secs: 0, ..config(&receiver) };
    let authenticator = open(&never);
    let said = |result| answer_with("Cache-Control: max-age=3600\r\n", &json!({"result": result}));
    let service = answering(receiver, ["deny", "deny", "ignore", "allow"].map(said));
    for expected in [Some(BAD), Some(BAD), Some(NOT_MINE), None, None] {
        let outcome = log_in(&authenticator, "ann").await;
        match expected {
            Some(expected) => assert_eq!(outcome, expected),
            None => assert!(outcome.is_ok(), "{outcome:?}"),
        }
    }
    service.join().unwrap();
}

#[test]
fn a_mistake_is_named_with_its_option() {
    let why = |change: fn(&mut HttpAuthConfig)| {
        let mut config = HttpAuthConfig { url: "http://127.0.0.1:1/".into(), ..Default::default() };
        change(&mut config);
        HttpAuthenticator::open(&config, ThrottleConfig::default()).unwrap_err().to_string()
    };
    for (text, expected) in [
        (
            why(|config| config.url = "http://id.example/".into()),
            "auth.http.url: http to id.example",
        ),
        (why(|config| config.url = "id.example".into()), "auth.http.url: not a URL"),
        (why(|config| config.body = "{".into()), "auth.http.body: not JSON"),
        (why(|config| config.body = r#"["${user}"]"#.into()), "auth.http.body: unknown variable"),
        (why(|config| config.headers = vec!["x".into()]), "auth.http.headers: "),
        (why(|config| config.ca = "absent.pem".into()), "auth.http.ca: absent.pem"),
        (why(|config| config.token_file = "absent".into()), "auth.http.token_file: absent"),
    ] {
        assert!(text.starts_with(expected), "{text}");
    }
}
