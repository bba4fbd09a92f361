//! A JWK Set at a real HTTP server and in a file: unknown keys, and a server that is slow, down, wrong
//! and back.

use std::{fs, path::Path, thread, time::Duration};

use futures_util::future::{Either, join_all, select};
use hearthmq::auth::{AuthenticationError, Authenticator, Identity, JwtAuthenticator, JwtConfig};
use hearthmq_test::{free_address, receiver::Receiver};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{
    Signer,
    badly::{BYTES_MAX, BadServer, Badly, receiver_with},
    now, shown,
};
use crate::pki::{Pki, rcgen};

type Outcome = Result<Identity, AuthenticationError>;

const BAD: Outcome = Err(AuthenticationError::BadCredentials);
const UNAVAILABLE: Outcome = Err(AuthenticationError::Unavailable);

fn config(jwks: &str) -> JwtConfig {
    JwtConfig { algorithms: vec!["ES256".into()], jwks: jwks.to_owned(), ..JwtConfig::default() }
}

fn signer() -> Signer {
    Signer::new(Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256)
}

fn claims() -> Value {
    json!({"sub": "ann", "exp": now() + 600})
}

async fn log_in(authenticator: &JwtAuthenticator, token: &str) -> Outcome {
    authenticator.authenticate(shown("name", token.as_bytes())).await
}

fn set(keys: &[Value]) -> String {
    // What is not understood, or not for signatures, does not make the others useless.
    let more = [json!({"kty": "oct", "use": "enc", "k": "AAAA", "kid": "x"})];
    let keys: Vec<_> = keys.iter().chain(&more).collect();
    json!({"keys": keys}).to_string()
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The keys are fetched once for all tokens; one more time for a token that names another key, and then
/// not again for some seconds.
#[actix_rt::test]
async fn a_set_at_a_url_is_fetched_when_a_token_needs_it() {
    let receiver = Receiver::start();
    let authenticator =
        JwtAuthenticator::open(&config(&format!("http://{}/keys", receiver.address))).unwrap();
    let (one, other) = (signer(), signer());
    let set = answer(&set(&[one.jwk("1")]));
    let server = thread::spawn(move || {
        let call = receiver.next();
        let line = call.line.clone();
        call.answer_bytes(&set);
        (receiver, line)
    });
    let token = one.sign_as("1", &claims());
    for _ in 0..3 {
        assert!(log_in(&authenticator, &token).await.is_ok());
    }
    let (receiver, line) = server.join().unwrap();
    assert_eq!(line, "GET /keys HTTP/1.1");
    for _ in 0..3 {
        assert_eq!(log_in(&authenticator, &other.sign_as("2", &claims())).await, BAD, "unknown");
    }
    assert_eq!(log_in(&authenticator, &other.sign_as("1", &claims())).await, BAD, "forged");
    assert!(receiver.is_quiet());
}

#[actix_rt::test]
async fn a_server_that_fails_is_no_refusal() {
    let receiver = Receiver::start();
    let url = format!("http://{}/keys", receiver.address);
    let token = signer().sign_as("1", &claims());
    let wrong = [
        "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_owned(),
        answer("<html>"),
        answer(r#"{"keys":[]}"#),
    ];
    let count = wrong.len();
    let server = thread::spawn(move || {
        wrong.iter().for_each(|answer| receiver.next().answer_bytes(answer));
        receiver
    });
    for _ in 0..count {
        let authenticator = JwtAuthenticator::open(&config(&url)).unwrap();
        assert_eq!(log_in(&authenticator, &token).await, UNAVAILABLE);
        assert_eq!(log_in(&authenticator, &token).await, UNAVAILABLE, "not asked again at once");
    }
    assert!(server.join().unwrap().is_quiet());
    let gone = free_address();
    let down = JwtAuthenticator::open(&config(&format!("http://{gone}/keys"))).unwrap();
    assert_eq!(log_in(&down, &token).await, UNAVAILABLE);
    assert_eq!(log_in(&down, &token).await, UNAVAILABLE, "not asked again at once");
}

/// Otherwise clients that leave at once could have it asked as often as they come.
#[actix_rt::test]
async fn a_login_that_is_given_up_does_not_have_the_server_asked_again() {
    let receiver = Receiver::start();
    let url = format!("http://{}/keys", receiver.address);
    let authenticator = JwtAuthenticator::open(&config(&url)).unwrap();
    let token = signer().sign_as("1", &claims());
    let first = Box::pin(log_in(&authenticator, &token));
    let asked = Box::pin(async {
        loop {
            match receiver.next_within(Duration::ZERO) {
                Some(call) => return call,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    let Either::Right((call, login)) = select(first, asked).await else { panic!("no call") };
    drop((login, call));
    assert_eq!(log_in(&authenticator, &token).await, UNAVAILABLE);
    assert!(receiver.is_quiet());
}

/// In a file, which is read again at a reload and whenever it is due.
#[actix_rt::test]
async fn a_set_in_a_file_is_read_again() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("keys.json");
    let (one, other) = (signer(), signer());
    fs::write(&path, set(&[one.jwk("1")])).unwrap();
    let config = config(path.to_str().unwrap());
    let authenticator = JwtAuthenticator::open(&config).unwrap();
    assert!(log_in(&authenticator, &one.sign_as("1", &claims())).await.is_ok());
    assert!(log_in(&authenticator, &one.sign(&claims())).await.is_ok(), "without kid");
    fs::write(&path, set(&[one.jwk("1"), other.jwk("2")])).unwrap();
    assert!(log_in(&authenticator, &other.sign_as("2", &claims())).await.is_ok(), "unknown before");
    fs::write(&path, "{").unwrap();
    assert!(authenticator.set_config(&config).is_err());
    assert!(
        log_in(&authenticator, &other.sign_as("2", &claims())).await.is_ok(),
        "the last ones stay"
    );
}

/// Within the time limit a bad answer is over, and the last good set stays, until there is a good one.
async fn keep_the_last_set(how: Badly) {
    let (one, other) = (signer(), signer());
    let (first, second) = (set(&[one.jwk("1")]), set(&[other.jwk("2")]));
    let server = BadServer::start(Ok(first));
    let url = format!("http://{}/keys", server.address);
    let every_second = JwtConfig { jwks_refresh_secs: 1, ..config(&url) };
    let authenticator = JwtAuthenticator::open(&every_second).unwrap();
    let (known, unknown) = (one.sign_as("1", &claims()), other.sign_as("2", &claims()));
    // A reading may be late on a busy machine; the next one follows.
    let until_ok = async |token: &str| {
        while log_in(&authenticator, token).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let dialogue = async {
        until_ok(&known).await;
        server.set(Err((how, second.clone())));
        for _ in 0..2 {
            let written = server.written().await;
            assert!(how == Badly::EndlessInterim || written < BYTES_MAX, "{how:?}: {written}");
            assert!(log_in(&authenticator, &known).await.is_ok(), "{how:?}: the last set stays");
        }
        assert!(log_in(&authenticator, &unknown).await.is_err(), "{how:?}");
        server.set(Ok(second));
        until_ok(&unknown).await;
        assert!(log_in(&authenticator, &known).await.is_err(), "{how:?}: it has left the set");
    };
    let watch = Box::pin(authenticator.watch());
    assert!(matches!(select(watch, Box::pin(dialogue)).await, Either::Right(_)));
}

#[actix_rt::test]
async fn the_last_good_set_stays_whatever_a_server_answers() {
    join_all(Badly::ALL.map(keep_the_last_set)).await;
}

#[actix_rt::test]
async fn a_server_over_tls_must_have_a_trusted_certificate_for_its_name() {
    let (pki, other) = (Pki::new(), Pki::new());
    let signer = signer();
    let set = answer(&set(&[signer.jwk("1")]));
    let receiver = receiver_with(&pki.server);
    let port = receiver.address.port();
    thread::spawn(move || {
        loop {
            receiver.next().answer_bytes(&set);
        }
    });
    let token = signer.sign_as("1", &claims());
    for (host, ca, is_trusted) in [
        ("localhost", &*pki.ca, true),
        ("127.0.0.1", &*pki.ca, true),
        // An address of this machine, for which the certificate is not.
        ("127.1.2.3", &*pki.ca, false),
        ("localhost", &*other.ca, false),
        ("localhost", Path::new(""), false),
    ] {
        let config =
            JwtConfig { jwks_ca: ca.to_owned(), ..config(&format!("https://{host}:{port}/keys")) };
        let authenticator = JwtAuthenticator::open(&config).unwrap();
        let outcome = log_in(&authenticator, &token).await;
        match is_trusted {
            true => assert!(outcome.is_ok(), "{host} {ca:?}: {outcome:?}"),
            false => assert_eq!(outcome, UNAVAILABLE, "{host} {ca:?}"),
        }
    }
}
