//! The configuration changes while the authenticator is in use.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use hearthmq::auth::{
    Accounts, AuthenticationConfig, AuthenticationError, Authenticator as _, ClientCertificate,
    Credentials, EnhancedAuthenticator as _, FileAuthenticator, FilePolicy, Identity, Login,
    ScramSha256, ThrottleConfig, hash_password,
};
use tokio::time::{Duration, Instant};

type Outcome = Result<Identity, AuthenticationError>;

const BAD: Outcome = Err(AuthenticationError::BadCredentials);

fn config() -> AuthenticationConfig {
    AuthenticationConfig::default()
}

fn accounts(user: &str) -> String {
    let hash = hash_password(b"secret");
    format!("[[users]]\nname = \"{user}\"\npassword_hash = \"{hash}\"\n")
}

fn authenticator(config: AuthenticationConfig) -> FileAuthenticator {
    let accounts = Accounts::parse(Path::new("users.toml"), &accounts("ann")).unwrap();
    FileAuthenticator::new(accounts, config)
}

fn nobody() -> Credentials<'static> {
    let peer = SocketAddr::from(([192, 0, 2, 1], 40_000));
    Credentials { client_id: Some("client"), ..Credentials::new(peer, "mqtt://127.0.0.1:1883") }
}

fn shown<'a>(name: &'a str, password: &'a str) -> Credentials<'a> {
    Credentials { username: Some(name), password: Some(password.as_bytes()), ..nobody() }
}

async fn login(authenticator: &FileAuthenticator, name: &str, password: &str) -> Outcome {
    authenticator.authenticate(shown(name, password)).await
}

#[tokio::test]
async fn who_is_let_in_is_what_holds_now() {
    let authenticator = authenticator(config());
    let is_in = async |shown| authenticator.authenticate(shown).await.is_ok();
    let certificate =
        |name: &str| ClientCertificate { common_name: name.into(), serial_number: "01".into() };
    let (ann, ben) = (certificate("ann"), certificate("ben"));
    let with = |certificate| Credentials { certificate: Some(certificate), ..nobody() };

    assert!(!is_in(nobody()).await);
    authenticator.set_config(AuthenticationConfig { anonymous: true, ..config() });
    assert!(is_in(nobody()).await && !is_in(shown("cleo", "x")).await);
    authenticator.set_config(AuthenticationConfig {
        anonymous: true,
        anonymous_with_name: true,
        ..config()
    });
    assert!(is_in(shown("cleo", "x")).await);

    assert!(is_in(with(&ben)).await);
    authenticator.set_config(AuthenticationConfig { certificate_needs_account: true, ..config() });
    assert!(!is_in(with(&ben)).await && is_in(with(&ann)).await);
    authenticator.set_config(AuthenticationConfig { certificate_is_enough: false, ..config() });
    assert!(!is_in(with(&ann)).await);
    authenticator.set_config(AuthenticationConfig { client_id_is_common_name: true, ..config() });
    assert!(!is_in(with(&ann)).await);
    assert!(is_in(Credentials { client_id: Some("ann"), ..with(&ann) }).await);
}

#[tokio::test(start_paused = true)]
async fn failures_are_answered_as_it_holds_now_and_count_on() {
    let authenticator = authenticator(config());
    let throttle = |failures_max, refusal_secs| ThrottleConfig {
        failures_max,
        refusal_secs,
        ..ThrottleConfig::default()
    };
    for password in ["1", "2"] {
        assert_eq!(login(&authenticator, "ann", password).await, BAD);
    }
    let stricter = AuthenticationConfig { throttle: throttle(3, 5), ..config() };
    authenticator.set_config(stricter.clone());
    assert_eq!(login(&authenticator, "ann", "3").await, BAD);
    let refused = Err(AuthenticationError::TooManyAttempts { retry_after_secs: 5 });
    assert_eq!(login(&authenticator, "ann", "secret").await, refused);
    // A refused client stays refused, and the next refusal has the new length.
    authenticator.set_config(config());
    assert_eq!(login(&authenticator, "ann", "secret").await, refused);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(login(&authenticator, "ann", "secret").await.is_ok());

    let slow = ThrottleConfig { free_failures: 1, first_delay_ms: 9_000, ..throttle(100, 5) };
    let slow = ThrottleConfig { delay_ms_max: 9_000, ..slow };
    authenticator.set_config(AuthenticationConfig { throttle: slow, ..config() });
    assert_eq!(login(&authenticator, "ann", "4").await, BAD);
    let before = Instant::now();
    assert_eq!(login(&authenticator, "ann", "5").await, BAD);
    assert!(before.elapsed() >= Duration::from_secs(9));
}

#[tokio::test]
async fn a_password_is_hashed_again_when_it_is_remembered_for_another_time() {
    let authenticator = authenticator(config());
    let hashed = || authenticator.login_counts().hashed;
    for _ in 0..2 {
        login(&authenticator, "ann", "secret").await.unwrap();
    }
    assert_eq!(hashed(), 1);
    authenticator.set_config(config());
    login(&authenticator, "ann", "secret").await.unwrap();
    assert_eq!(hashed(), 1, "nothing has changed");
    authenticator.set_config(AuthenticationConfig { verified_secs: 0, ..config() });
    for _ in 0..2 {
        login(&authenticator, "ann", "secret").await.unwrap();
    }
    assert_eq!(hashed(), 3);
}

#[tokio::test]
async fn a_change_of_the_limit_of_known_logins_takes_effect() {
    let authenticator = authenticator(config());
    login(&authenticator, "ann", "secret").await.unwrap();
    assert_eq!(authenticator.login_counts().known, 1);
    authenticator.set_config(AuthenticationConfig { known_logins_max: 0, ..config() });
    assert_eq!(authenticator.login_counts().known, 0);
}

#[test]
fn scram_is_offered_or_not() {
    let scram = ScramSha256::new(Arc::new(authenticator(config())));
    let broker_has = scram.clone();
    assert!(broker_has.knows("SCRAM-SHA-256") && !broker_has.knows("SCRAM-SHA-1"));
    scram.set_offered(false);
    assert!(!broker_has.knows("SCRAM-SHA-256"));
    scram.set_offered(true);
    assert!(broker_has.knows("SCRAM-SHA-256") && !broker_has.knows("SCRAM-SHA-1"));
}

#[tokio::test]
async fn another_file_is_read_now_and_from_now_on() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["first.toml", "second.toml"].map(|name| directory.path().join(name));
    fs::write(&first, accounts("ann")).unwrap();
    let authenticator = FileAuthenticator::open(&first, config()).unwrap();
    assert!(authenticator.reload_from(&second).is_err(), "it is not there");
    authenticator.reload().unwrap();
    assert!(login(&authenticator, "ann", "secret").await.is_ok());
    fs::write(&second, accounts("ben")).unwrap();
    authenticator.reload_from(&second).unwrap();
    assert_eq!(login(&authenticator, "ann", "secret").await, BAD);
    authenticator.reload().unwrap();
    let identity = login(&authenticator, "ben", "secret").await.unwrap();
    assert_eq!(identity.login, Login::Password);

    let rules = "[[rules]]\neffect = \"allow\"\n";
    fs::write(&first, rules).unwrap();
    let policy = FilePolicy::open(&first).unwrap();
    assert!(policy.reload_from(directory.path().join("third.toml")).is_err());
    policy.reload().unwrap();
    fs::write(&second, rules).unwrap();
    policy.reload_from(&second).unwrap();
    fs::remove_file(&first).unwrap();
    policy.reload().unwrap();
}
