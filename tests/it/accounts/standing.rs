//! Removed and disabled accounts: the answer to a login, and the standing of an earlier one.

use std::{net::SocketAddr, path::Path};

use hearthmq::auth::{
    Accounts, AuthenticationConfig, AuthenticationError, Authenticator as _, ClientCertificate,
    Credentials, FileAuthenticator, Identity, ListenerLogins, Login, Standing, hash_password,
};

fn account(name: &str, hash: &str, more: &str) -> String {
    format!("[[users]]\nname = \"{name}\"\npassword_hash = \"{hash}\"\n{more}\n")
}

fn accounts(text: &str) -> Accounts {
    Accounts::parse(Path::new("users.toml"), text).unwrap()
}

fn ann(certificate: Option<&ClientCertificate>) -> Credentials<'_> {
    Credentials {
        client_id: Some("client"),
        username: Some("ann"),
        password: Some(b"secret"),
        bearer: None,
        certificate,
        peer: SocketAddr::from(([192, 0, 2, 1], 40_000)),
        listener: "mqtt://127.0.0.1:1883",
        rules: ListenerLogins::default(),
        proven: false,
        may_pass: false,
    }
}

fn identity(login: Login) -> Identity {
    let certificate = ClientCertificate { common_name: "ann".into(), serial_number: "01".into() };
    let certificate = (login == Login::Certificate).then(|| certificate.into());
    Identity { username: Some("ann".into()), certificate, login, ..Identity::default() }
}

#[tokio::test]
async fn a_disabled_account_lets_nobody_in_whatever_is_shown() {
    let hash = hash_password(b"secret");
    let accounts = accounts(&account("ann", &hash, "disabled = true"));
    let authenticator = FileAuthenticator::new(accounts, AuthenticationConfig::default());
    let certificate = ClientCertificate { common_name: "ann".into(), serial_number: "01".into() };
    for shown in [ann(None), ann(Some(&certificate))] {
        let refused = authenticator.authenticate(shown).await;
        assert_eq!(refused, Err(AuthenticationError::NotAllowed));
    }
    // A wrong password must not reveal that the account exists.
    let wrong = Credentials { password: Some(b"wrong"), ..ann(None) };
    let refused = authenticator.authenticate(wrong).await;
    assert_eq!(refused, Err(AuthenticationError::BadCredentials));
}

#[test]
fn each_reading_of_the_accounts_says_what_has_become_of_earlier_logins() {
    let [first, second] = [hash_password(b"secret"), hash_password(b"other")];
    let authenticator = FileAuthenticator::new(
        accounts(&account("ann", &first, "")),
        AuthenticationConfig::default(),
    );
    let standing = |login, since| authenticator.standing(&identity(login), since);
    let replace = |text: &str| authenticator.replace(accounts(text));
    let password = [Login::Password, Login::Scram, Login::Other];
    let with_password = |since, expected| {
        for login in password {
            assert_eq!(standing(login, since), expected, "{login:?}");
        }
    };
    with_password(0, Standing::Good);

    replace(&(account("ben", &second, "") + &account("ann", &first, "")));
    with_password(0, Standing::Good);

    replace(&account("ann", &second, ""));
    with_password(1, Standing::Changed);
    with_password(2, Standing::Good);
    assert_eq!(standing(Login::Certificate, 1), Standing::Good, "it is not by the password");

    replace(&account("ann", &second, "disabled = true"));
    with_password(2, Standing::Suspended);
    assert_eq!(standing(Login::Certificate, 2), Standing::Suspended);

    replace("");
    with_password(2, Standing::Gone);
    assert_eq!(standing(Login::Certificate, 2), Standing::Good, "it needs no account");

    // A new account with the name and password of a removed one is another account.
    replace(&account("ann", &second, ""));
    with_password(2, Standing::Changed);
    assert_eq!(authenticator.generation(), 5);
}

#[test]
fn nobody_without_a_name_is_welcome_any_more_than_at_login() {
    for (anonymous, expected) in [(true, Standing::Good), (false, Standing::Suspended)] {
        let config = AuthenticationConfig { anonymous, ..AuthenticationConfig::default() };
        let authenticator = FileAuthenticator::new(Accounts::default(), config);
        let nobody = Identity { login: Login::Anonymous, ..Identity::default() };
        assert_eq!(authenticator.standing(&nobody, 0), expected);
        // A listener may have settings of its own.
        for (own, expected) in [(true, Standing::Good), (false, Standing::Suspended)] {
            let rules = ListenerLogins { anonymous: Some(own), ..ListenerLogins::default() };
            assert_eq!(authenticator.standing_at(&nobody, 0, rules), expected);
        }
    }
}

fn config() -> AuthenticationConfig {
    AuthenticationConfig::default()
}

#[test]
fn a_stricter_configuration_is_asked_of_those_who_came_in_before() {
    let hash = hash_password(b"secret");
    let open = || AuthenticationConfig {
        anonymous: true,
        anonymous_with_name: true,
        ..AuthenticationConfig::default()
    };
    let authenticator = FileAuthenticator::new(accounts(&account("ann", &hash, "")), open());
    let nobody = Identity { login: Login::Anonymous, ..Identity::default() };
    let standing = |identity: &Identity, since| authenticator.standing(identity, since);
    let certificate = identity(Login::Certificate);
    assert_eq!(standing(&nobody, 0), Standing::Good);

    // A client that was treated as anonymous although it gave a name must log in again.
    authenticator.set_config(AuthenticationConfig { anonymous: true, ..config() });
    assert_eq!((standing(&nobody, 0), standing(&nobody, 1)), (Standing::Changed, Standing::Good));
    authenticator.set_config(config());
    assert_eq!(standing(&nobody, 1), Standing::Suspended);
    assert_eq!(standing(&certificate, 1), Standing::Good);

    // More is required beside a certificate.
    for (round, stricter) in [
        AuthenticationConfig { certificate_is_enough: false, ..config() },
        AuthenticationConfig { client_id_is_common_name: true, ..config() },
    ]
    .into_iter()
    .enumerate()
    {
        let before = authenticator.generation();
        authenticator.set_config(stricter);
        assert_eq!(standing(&certificate, before), Standing::Changed, "{round}");
        assert_eq!(standing(&certificate, before + 1), Standing::Good, "{round}");
        assert_eq!(standing(&identity(Login::Password), before), Standing::Good, "{round}");
    }

    // A user without an account may get one: its session does not end.
    authenticator.set_config(AuthenticationConfig { certificate_needs_account: true, ..config() });
    let since = authenticator.generation();
    assert_eq!(standing(&certificate, since), Standing::Good);
    let ben = Identity { username: Some("ben".into()), ..certificate };
    assert_eq!(standing(&ben, since), Standing::Suspended);
    assert_eq!(standing(&Identity { needs_account: true, ..ben }, since), Standing::Gone);
}
