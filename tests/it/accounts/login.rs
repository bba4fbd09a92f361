//! Logins: passwords, certificates, anonymous clients, and repeated failures.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use hearthmq::auth::{
    Accounts, AuthenticationConfig, AuthenticationError, Authenticator as _, ClientCertificate,
    Credentials, FileAuthenticator, Identity, ListenerLogins, Login, Standing, ThrottleConfig,
    add_user, hash_password,
};
use tokio::time::Instant;

type Outcome = Result<Identity, AuthenticationError>;

const BAD: Outcome = Err(AuthenticationError::BadCredentials);

fn accounts(users: &[(&str, &str)]) -> Accounts {
    let mut text = String::new();
    for (name, password) in users {
        let hash = hash_password(password.as_bytes());
        text += &format!("[[users]]\nname = \"{name}\"\npassword_hash = \"{hash}\"\n");
    }
    Accounts::parse(Path::new("users.toml"), &text).unwrap()
}

fn authenticator(config: AuthenticationConfig) -> FileAuthenticator {
    FileAuthenticator::new(accounts(&[("ann", "secret"), ("ben", "other")]), config)
}

fn nobody() -> Credentials<'static> {
    Credentials {
        client_id: Some("client"),
        username: None,
        password: None,
        bearer: None,
        certificate: None,
        peer: SocketAddr::from(([192, 0, 2, 1], 40_000)),
        listener: "mqtt://127.0.0.1:1883",
        rules: ListenerLogins::default(),
        proven: false,
        may_pass: false,
    }
}

fn shown<'a>(name: &'a str, password: &'a str) -> Credentials<'a> {
    Credentials { username: Some(name), password: Some(password.as_bytes()), ..nobody() }
}

/// Tries a wrong password that was not tried before.
async fn guess(authenticator: &FileAuthenticator, name: &str, number: u32) -> Outcome {
    login(authenticator, name, &format!("guess {number}")).await
}

async fn login(authenticator: &FileAuthenticator, name: &str, password: &str) -> Outcome {
    authenticator.authenticate(shown(name, password)).await
}

fn user(name: &str) -> Outcome {
    Ok(Identity { username: Some(name.into()), login: Login::Password, ..Identity::default() })
}

fn certificate() -> ClientCertificate {
    ClientCertificate { common_name: "ann".to_owned(), serial_number: "01".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_right_password_is_let_in_and_everything_else_is_not_with_one_answer() {
    let authenticator = authenticator(AuthenticationConfig::default());
    assert_eq!(login(&authenticator, "ann", "secret").await, user("ann"));
    assert_eq!(login(&authenticator, "ann", "secret").await, user("ann"));
    assert_eq!(login(&authenticator, "ben", "other").await, user("ben"));
    assert_eq!(login(&authenticator, "ann", "other").await, BAD);
    assert_eq!(login(&authenticator, "ann", "").await, BAD);
    assert_eq!(login(&authenticator, "cleo", "secret").await, BAD);
    assert_eq!(login(&authenticator, "", "secret").await, BAD);
    assert_eq!(login(&authenticator, "ANN", "secret").await, BAD);
    let without_password = Credentials { username: Some("ann"), ..nobody() };
    assert_eq!(authenticator.authenticate(without_password).await, BAD);
    let without_name = Credentials { password: Some(b"secret"), ..nobody() };
    assert_eq!(authenticator.authenticate(without_name).await, BAD);
}

#[tokio::test]
async fn a_decoy_never_lets_anybody_in_whose_password_it_knows() {
    let authenticator =
        FileAuthenticator::new(accounts(&[("ann", "secret")]), AuthenticationConfig::default());
    assert_eq!(login(&authenticator, "cleo", "secret").await, BAD);
    assert_eq!(login(&authenticator, "ann", "secret").await, user("ann"));
    assert_eq!(login(&authenticator, "cleo", "secret").await, BAD);
    let empty = FileAuthenticator::new(Accounts::default(), AuthenticationConfig::default());
    assert_eq!(login(&empty, "cleo", "secret").await, BAD);
}

/// The hash takes the time. With one hash at a time and one place to wait, a third login at the
/// same moment is refused, whichever user it is for.
#[tokio::test]
async fn an_unknown_user_costs_a_hash_as_a_wrong_password_does() {
    for name in ["ann", "cleo"] {
        let authenticator = authenticator(AuthenticationConfig {
            hashes_at_once_max: 1,
            hashes_waiting_max: 1,
            ..AuthenticationConfig::default()
        });
        let logins = (0..3).map(|_| login(&authenticator, name, "wrong"));
        let outcomes = futures_util::future::join_all(logins).await;
        let busy = Err(AuthenticationError::Unavailable);
        assert_eq!(outcomes, [BAD, BAD, busy], "{name}");
    }
}

#[tokio::test]
async fn nobody_is_let_in_only_if_the_configuration_says_so() {
    let strict = authenticator(AuthenticationConfig::default());
    assert_eq!(strict.authenticate(nobody()).await, BAD);
    let open =
        authenticator(AuthenticationConfig { anonymous: true, ..AuthenticationConfig::default() });
    let anonymous = Identity { login: Login::Anonymous, ..Identity::default() };
    assert_eq!(open.authenticate(nobody()).await, Ok(anonymous));
    assert_eq!(login(&open, "ann", "wrong").await, BAD);
    let token = Credentials { password: Some(b"token"), ..nobody() };
    assert_eq!(open.authenticate(token).await, BAD);
}

#[tokio::test]
async fn a_certificate_is_an_identity_and_another_user_name_beside_it_is_wrong() {
    let authenticator = authenticator(AuthenticationConfig::default());
    let certificate = certificate();
    let shown = Credentials { certificate: Some(&certificate), ..nobody() };
    let expected = Ok(Identity {
        username: Some("ann".into()),
        certificate: Some(certificate.clone().into()),
        login: Login::Certificate,
        ..Identity::default()
    });
    assert_eq!(authenticator.authenticate(shown).await, expected);
    let same_name = Credentials { username: Some("ann"), ..shown };
    assert_eq!(authenticator.authenticate(same_name).await, expected);
    let other_name = Credentials { username: Some("ben"), password: Some(b"other"), ..shown };
    let outcome = authenticator.authenticate(other_name).await;
    assert_eq!(outcome, Err(AuthenticationError::OtherThanCertificate));
}

#[tokio::test]
async fn a_certificate_can_need_a_password_beside_it() {
    let authenticator = authenticator(AuthenticationConfig {
        certificate_is_enough: false,
        ..AuthenticationConfig::default()
    });
    let certificate = certificate();
    let shown = Credentials { certificate: Some(&certificate), ..nobody() };
    assert_eq!(authenticator.authenticate(shown).await, BAD);
    let with = |password| Credentials { username: Some("ann"), password: Some(password), ..shown };
    assert_eq!(authenticator.authenticate(with(b"wrong")).await, BAD);
    let identity = authenticator.authenticate(with(b"secret")).await.unwrap();
    assert_eq!(identity.certificate.as_deref(), Some(&certificate));
}

#[tokio::test]
async fn a_certificate_can_need_an_account_everywhere_or_at_one_listener() {
    let ghost = ClientCertificate { common_name: "ghost".into(), serial_number: "02".into() };
    let at = |certificate_needs_account| ListenerLogins {
        certificate_needs_account,
        ..ListenerLogins::default()
    };
    let no_account = Err(AuthenticationError::NoAccount);
    for (everywhere, here, is_let_in) in [
        (false, None, true),
        (true, None, false),
        (false, Some(true), false),
        (true, Some(false), true),
    ] {
        let authenticator = authenticator(AuthenticationConfig {
            certificate_needs_account: everywhere,
            ..AuthenticationConfig::default()
        });
        let shown = Credentials { certificate: Some(&ghost), rules: at(here), ..nobody() };
        let outcome = authenticator.authenticate(shown).await;
        assert_eq!(outcome.is_ok(), is_let_in, "{everywhere} {here:?}");
        assert!(outcome.is_ok() || outcome == no_account);
        let own = certificate();
        let shown = Credentials { certificate: Some(&own), rules: at(here), ..nobody() };
        let ann = authenticator.authenticate(shown).await.unwrap();
        assert_eq!(ann.needs_account, !is_let_in);
        // The account is removed.
        authenticator.replace(accounts(&[("ben", "other")]));
        let standing = authenticator.standing_at(&ann, 0, at(here));
        assert_eq!(standing == Standing::Good, is_let_in, "{everywhere} {here:?} {standing:?}");
    }
}

#[tokio::test]
async fn clients_without_a_name_are_let_in_at_the_listeners_that_say_so() {
    let at = |anonymous| Credentials {
        rules: ListenerLogins { anonymous, ..ListenerLogins::default() },
        ..nobody()
    };
    let anonymous = Ok(Identity { login: Login::Anonymous, ..Identity::default() });
    let closed = authenticator(AuthenticationConfig::default());
    assert_eq!(closed.authenticate(at(Some(true))).await, anonymous);
    assert_eq!(closed.authenticate(at(None)).await, BAD);
    let rules = at(Some(true)).rules;
    let standing = closed.standing_at(anonymous.as_ref().unwrap(), 0, rules);
    assert_eq!(standing, Standing::Good);
    let open =
        authenticator(AuthenticationConfig { anonymous: true, ..AuthenticationConfig::default() });
    assert_eq!(open.authenticate(at(None)).await, anonymous);
    assert_eq!(open.authenticate(at(Some(false))).await, BAD);
}

#[tokio::test]
async fn a_name_without_an_account_is_nobody_where_that_is_wanted() {
    let open = authenticator(AuthenticationConfig {
        anonymous: true,
        anonymous_with_name: true,
        ..AuthenticationConfig::default()
    });
    let anonymous = Ok(Identity { login: Login::Anonymous, ..Identity::default() });
    assert_eq!(login(&open, "cleo", "whatever").await, anonymous);
    assert_eq!(login(&open, "ann", "wrong").await, BAD, "who has an account needs its password");
    assert_eq!(login(&open, "ann", "secret").await, user("ann"));
    let over_rest = Credentials { client_id: None, ..shown("cleo", "whatever") };
    assert_eq!(open.authenticate(over_rest).await, BAD);
    let closed_here = ListenerLogins { anonymous: Some(false), ..ListenerLogins::default() };
    let there = Credentials { rules: closed_here, ..shown("cleo", "whatever") };
    assert_eq!(open.authenticate(there).await, BAD);
}

#[tokio::test]
async fn a_client_identifier_can_be_bound_to_the_common_name() {
    let authenticator = authenticator(AuthenticationConfig {
        client_id_is_common_name: true,
        ..AuthenticationConfig::default()
    });
    let certificate = certificate();
    let with = |client_id| Credentials { client_id, certificate: Some(&certificate), ..nobody() };
    let other = authenticator.authenticate(with(Some("client"))).await;
    assert_eq!(other, Err(AuthenticationError::NotAllowed));
    assert!(authenticator.authenticate(with(Some("ann"))).await.is_ok());
    assert!(authenticator.authenticate(with(None)).await.is_ok(), "REST has no client id");
    assert_eq!(login(&authenticator, "ben", "other").await, user("ben"));
}

#[tokio::test(start_paused = true)]
async fn repeated_failures_are_slowed_then_refused_then_looked_at_again() {
    let authenticator = authenticator(AuthenticationConfig::default());
    let start = Instant::now();
    for number in 0..10 {
        assert_eq!(guess(&authenticator, "ann", number).await, BAD);
    }
    // 0.25 + 0.5 + 1 + 2 + 4 + 4 + 4 seconds of delay.
    assert!(start.elapsed() >= Duration::from_millis(15_750));
    let refused = Err(AuthenticationError::TooManyAttempts { retry_after_secs: 60 });
    assert_eq!(login(&authenticator, "ann", "secret").await, refused);
    assert_eq!(login(&authenticator, "ben", "other").await, user("ben"));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(login(&authenticator, "ann", "secret").await, user("ann"));
}

/// The name is refused for all clients but those that logged in from this address a moment ago.
#[tokio::test(start_paused = true)]
async fn a_client_that_was_right_a_moment_ago_is_not_refused_for_the_guesses_of_others() {
    let authenticator = authenticator(AuthenticationConfig::default());
    assert_eq!(login(&authenticator, "ann", "secret").await, user("ann"));
    let other_client = Credentials { client_id: Some("other"), ..shown("ann", "secret") };
    for number in 0..10 {
        let guess = format!("guess {number}");
        let guess = Credentials { client_id: Some("other"), ..shown("ann", &guess) };
        assert_eq!(authenticator.authenticate(guess).await, BAD);
    }
    let refused = authenticator.authenticate(other_client).await;
    assert!(matches!(refused, Err(AuthenticationError::TooManyAttempts { .. })));
    for _ in 0..3 {
        assert_eq!(login(&authenticator, "ann", "secret").await, user("ann"));
    }
    let refused = authenticator.authenticate(other_client).await;
    let is_refused = matches!(refused, Err(AuthenticationError::TooManyAttempts { .. }));
    assert!(is_refused, "what others are refused for is not cleared: {refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_remembered_password_cannot_be_guessed_faster_for_long() {
    let authenticator = authenticator(AuthenticationConfig::default());
    assert_eq!(login(&authenticator, "ann", "secret").await, user("ann"));
    let guesses = (0..200).map(|number| guess(&authenticator, "ann", number));
    let outcomes = futures_util::future::join_all(guesses).await;
    let looked_at = outcomes.iter().filter(|outcome| **outcome == BAD).count();
    assert!(looked_at <= 64, "{looked_at} guesses were looked at");
    let refused = login(&authenticator, "ann", "secret").await;
    assert!(matches!(refused, Err(AuthenticationError::TooManyAttempts { .. })));
}

/// A device that keeps using an old password may share its address with a fleet.
#[tokio::test(start_paused = true)]
async fn the_same_wrong_password_again_counts_once_and_refuses_nobody() {
    let authenticator = authenticator(AuthenticationConfig::default());
    for _ in 0..700 {
        assert_eq!(login(&authenticator, "ann", "old").await, BAD);
    }
    assert_eq!(login(&authenticator, "ann", "secret").await, user("ann"));
    assert_eq!(login(&authenticator, "ben", "other").await, user("ben"));
    assert_eq!(authenticator.login_counts().repeated, 699);
    assert_eq!(authenticator.login_counts().user_lockouts, 0);
}

#[tokio::test(start_paused = true)]
async fn failures_over_rest_do_not_refuse_the_name_over_mqtt_nor_the_other_way_round() {
    let rest = |password| Credentials { client_id: None, ..shown("ann", password) };
    let guesses: Vec<_> = (0..10).map(|number| format!("guess {number}")).collect();
    for over_rest in [true, false] {
        let authenticator = authenticator(AuthenticationConfig::default());
        for guess in &guesses {
            let guess = if over_rest { rest(guess) } else { shown("ann", guess) };
            assert_eq!(authenticator.authenticate(guess).await, BAD);
        }
        let over_mqtt = authenticator.authenticate(shown("ann", "secret")).await;
        let by_rest = authenticator.authenticate(rest("secret")).await;
        let (refused, other) = if over_rest { (by_rest, over_mqtt) } else { (over_mqtt, by_rest) };
        assert!(matches!(refused, Err(AuthenticationError::TooManyAttempts { .. })));
        assert_eq!(other, user("ann"));
        assert_eq!(authenticator.login_counts().user_lockouts, 1);
        assert_eq!(authenticator.login_counts().refused, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_that_were_accepted_on_a_connection_are_looked_at_whatever_others_do() {
    let authenticator =
        authenticator(AuthenticationConfig { verified_secs: 0, ..AuthenticationConfig::default() });
    for number in 0..10 {
        assert_eq!(guess(&authenticator, "ann", number).await, BAD);
    }
    let refused = login(&authenticator, "ann", "secret").await;
    assert!(matches!(refused, Err(AuthenticationError::TooManyAttempts { .. })));
    let proven = Credentials { proven: true, ..shown("ann", "secret") };
    assert_eq!(authenticator.authenticate(proven).await, user("ann"));
    let changed = Credentials { proven: true, ..shown("ann", "no longer") };
    assert_eq!(authenticator.authenticate(changed).await, BAD);
}

#[tokio::test(start_paused = true)]
async fn a_success_from_memory_clears_the_failures_of_a_fleet_with_one_account() {
    let authenticator = authenticator(AuthenticationConfig::default());
    for _ in 0..30 {
        assert_eq!(login(&authenticator, "ann", "wrong").await, BAD);
        assert_eq!(login(&authenticator, "ann", "secret").await, user("ann"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_volley_of_guesses_is_cut_short() {
    let authenticator = authenticator(AuthenticationConfig {
        hashes_at_once_max: 1,
        ..AuthenticationConfig::default()
    });
    let guesses = (0..40).map(|number| guess(&authenticator, "ann", number));
    let outcomes = futures_util::future::join_all(guesses).await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == BAD).count(), 10);
}

#[tokio::test]
async fn who_hangs_up_while_being_checked_is_counted_all_the_same() {
    let authenticator = authenticator(AuthenticationConfig {
        hashes_at_once_max: 1,
        // Long enough for hashes on a machine that is busy with other work.
        throttle: ThrottleConfig {
            free_failures: 100,
            window_secs: 3_600,
            refusal_secs: 3_600,
            ..ThrottleConfig::default()
        },
        ..AuthenticationConfig::default()
    });
    for number in 0..10 {
        let mut attempt = Box::pin(guess(&authenticator, "ann", number));
        assert!(futures_util::poll!(&mut attempt).is_pending());
        drop(attempt);
        // The one permit comes back when the abandoned hash is finished and counted.
        assert_eq!(login(&authenticator, &format!("cleo-{number}"), "wrong").await, BAD);
    }
    let outcome = login(&authenticator, "ann", "secret").await;
    assert!(matches!(outcome, Err(AuthenticationError::TooManyAttempts { .. })));
}

#[tokio::test]
async fn too_many_logins_at_once_are_told_to_try_again() {
    let authenticator = authenticator(AuthenticationConfig {
        hashes_at_once_max: 1,
        hashes_waiting_max: 2,
        ..AuthenticationConfig::default()
    });
    let logins = (0..8).map(|_| login(&authenticator, "ann", "secret"));
    let outcomes = futures_util::future::join_all(logins).await;
    let count = |wanted: &Outcome| outcomes.iter().filter(|outcome| *outcome == wanted).count();
    assert_eq!(count(&user("ann")), 3);
    assert_eq!(count(&Err(AuthenticationError::Unavailable)), 5);
}

#[tokio::test]
async fn a_changed_password_counts_from_the_reload_on_and_a_broken_file_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.toml");
    add_user(&path, "ann", &hash_password(b"old")).unwrap();
    let authenticator = FileAuthenticator::open(&path, AuthenticationConfig::default()).unwrap();
    assert_eq!(login(&authenticator, "ann", "old").await, user("ann"));

    add_user(&path, "ann", &hash_password(b"new")).unwrap();
    assert_eq!(login(&authenticator, "ann", "old").await, user("ann"));
    authenticator.reload().unwrap();
    assert_eq!(login(&authenticator, "ann", "old").await, BAD);
    assert_eq!(login(&authenticator, "ann", "new").await, user("ann"));

    fs::write(&path, "[[users]]\nname = 1\n").unwrap();
    authenticator.reload().unwrap_err();
    assert_eq!(login(&authenticator, "ann", "new").await, user("ann"));
    fs::write(&path, "").unwrap();
    authenticator.reload().unwrap();
    assert_eq!(login(&authenticator, "ann", "new").await, BAD);
}

#[test]
fn the_options_are_read_from_toml_and_unknown_ones_are_errors() {
    let config: AuthenticationConfig =
        toml::from_str("anonymous = true\n[throttle]\nfailures_max = 5\n").unwrap();
    assert!(config.anonymous && config.certificate_is_enough);
    assert_eq!(config.throttle.failures_max, 5);
    assert_eq!(config.throttle.window_secs, 60);
    toml::from_str::<AuthenticationConfig>("anonymus = true").unwrap_err();
    toml::from_str::<AuthenticationConfig>("[throttle]\nfailures = 5\n").unwrap_err();
}
