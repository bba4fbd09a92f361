//! Accounts in the store behind other logins than their own: client certificates, whose Common Name they
//! have, and SCRAM, for which they have no keys.

use std::{path::Path, sync::Arc};

use hearthmq::{
    Broker,
    auth::{
        Accounts, AuthenticationConfig, AuthenticationError, Authenticator as _, Chain,
        ClientCertificate, Credentials, EnhancedAuthenticator as _, ExchangeStart,
        FileAuthenticator, Groups, Identity, ScramSha256, Source, Standing, Step,
    },
    control::{NewUser, UserChange},
};

use super::stored::{add_secret, change, create, set, sources, with_password};
use crate::{
    scram::{SCRAM, ScramClient},
    support::world_with,
};

fn shown<'a>(
    certificate: &'a ClientCertificate,
    password: Option<&'a str>,
    may_pass: bool,
) -> Credentials<'a> {
    Credentials {
        client_id: Some("c"),
        certificate: Some(certificate),
        password: password.map(str::as_bytes),
        may_pass,
        ..Credentials::new("192.0.2.1:40000".parse().unwrap(), "mqtts://127.0.0.1:8883")
    }
}

async fn log_in(broker: &Broker, password: Option<&str>) -> Result<Identity, AuthenticationError> {
    let certificate =
        ClientCertificate { common_name: "car-17".into(), serial_number: "01".into() };
    broker.authenticator().authenticate(shown(&certificate, password, false)).await
}

#[actix_rt::test]
async fn a_certificate_has_the_account_of_the_store() {
    for needs_account in [true, false] {
        let config = AuthenticationConfig {
            certificate_needs_account: needs_account,
            ..AuthenticationConfig::default()
        };
        let broker = world_with(sources(config)).await;
        let authenticator = broker.authenticator();
        let without = log_in(&broker, None).await;
        match needs_account {
            true => assert_eq!(without, Err(AuthenticationError::NoAccount)),
            false => assert!(without.is_ok()),
        }
        let mut user = NewUser::new("car-17");
        user.groups = Groups::new(["cars"]).unwrap();
        create(&broker, user).await.unwrap();
        let identity = log_in(&broker, None).await.unwrap();
        assert_eq!(identity.groups, Groups::new(["cars"]).unwrap());
        let standing = || authenticator.standing(&identity, authenticator.generation());
        assert_eq!((standing(), authenticator.renewed(&identity)), (Standing::Good, None));

        set(&broker, "car-17", |user| user.groups = Some(Groups::new(["vans"]).unwrap())).await;
        let renewed = authenticator.renewed(&identity).unwrap();
        assert_eq!(renewed.groups, Groups::new(["vans"]).unwrap());

        set(&broker, "car-17", |user| user.is_disabled = Some(true)).await;
        assert_eq!(standing(), Standing::Suspended);
        assert_eq!(log_in(&broker, None).await, Err(AuthenticationError::NotAllowed));
        set(&broker, "car-17", |user| user.is_disabled = Some(false)).await;
        assert_eq!(standing(), Standing::Good);

        change(&broker, "car-17", UserChange::Remove).await.unwrap();
        let (gone, answer) = (standing(), log_in(&broker, None).await);
        match needs_account {
            true => {
                assert_eq!((gone, answer), (Standing::Gone, Err(AuthenticationError::NoAccount)))
            }
            false => {
                assert_eq!((gone, answer.unwrap().groups), (Standing::Good, Groups::default()))
            }
        }
    }
}

#[actix_rt::test]
async fn a_certificate_that_is_not_enough_needs_the_credential_of_the_account_in_the_store() {
    let config =
        AuthenticationConfig { certificate_is_enough: false, ..AuthenticationConfig::default() };
    let broker = world_with(sources(config)).await;
    create(&broker, NewUser::new("car-17")).await.unwrap();
    let (id, secret) = add_secret(&broker, "car-17").await;
    let bad = Err(AuthenticationError::BadCredentials);
    assert_eq!(log_in(&broker, None).await, bad);
    assert_eq!(log_in(&broker, Some(&format!("{}x", &secret[..48]))).await, bad);
    let identity = log_in(&broker, Some(&secret)).await.unwrap();
    let authenticator = broker.authenticator();
    let standing = || authenticator.standing(&identity, authenticator.generation());
    assert_eq!(standing(), Standing::Good);
    change(&broker, "car-17", UserChange::RemoveSecret(id)).await.unwrap();
    assert_eq!(standing(), Standing::Changed);
    assert_eq!(log_in(&broker, Some(&secret)).await, bad);
}

/// The client gets the answer to a wrong password, with or without an account.
#[actix_rt::test]
async fn an_account_in_the_store_has_no_keys_for_scram() {
    let accounts = Accounts::parse(Path::new("users.toml"), "").unwrap();
    let file = Arc::new(FileAuthenticator::new(accounts, AuthenticationConfig::default()));
    let stored = file.stored_users();
    let chain = Chain::new()
        .with(Source::new("accounts", Arc::clone(&file)))
        .with(Source::new("users", Arc::clone(&stored)));
    let broker = world_with(|builder| builder.authenticator(chain).stored_users(stored)).await;
    let password = super::stored::plain("secret");
    create(&broker, with_password("ann", password)).await.unwrap();
    let method = ScramSha256::new(file);
    for name in ["ann", "nobody"] {
        let credentials = Credentials {
            client_id: Some("c"),
            ..Credentials::new("192.0.2.1:40000".parse().unwrap(), "mqtt://127.0.0.1:1883")
        };
        let start = ExchangeStart { method: SCRAM, credentials, identity: None };
        let mut exchange = method.begin(start);
        let client = ScramClient { name, password: "secret" };
        let Ok(Step::Continue(Some(challenge))) = exchange.step(Some(&client.first())).await else {
            panic!("a challenge is expected");
        };
        let outcome = exchange.step(Some(&client.last(&challenge).0)).await;
        assert_eq!(outcome.err(), Some(AuthenticationError::BadCredentials), "{name}");
    }
}
