//! API tokens outlive the broker, and open nothing to MQTT clients.

use hearthmq::{
    Broker,
    auth::{AuthenticationError, Credentials, Identity, TokenAuthenticator},
    control::{AccessControl as _, CreateToken},
};

use crate::support::disk::Disk;

async fn login(
    broker: &Broker,
    secret: &str,
    client_id: Option<&str>,
) -> Result<Identity, AuthenticationError> {
    let peer = "192.0.2.7:40000".parse().unwrap();
    let shown = Credentials {
        bearer: Some(secret.as_bytes()),
        client_id,
        ..Credentials::new(peer, "http://127.0.0.1:8080")
    };
    broker.authenticator().authenticate(shown).await
}

#[actix_rt::test]
async fn a_token_outlives_the_broker_and_shows_no_secret() {
    let disk = Disk::default();
    let power = || disk.power_with(|builder| builder.authenticator(TokenAuthenticator::new()));
    let first = power().await;
    let made = first.broker.create_token(CreateToken::new("ci", r#"[{"effect":"allow"}]"#)).await;
    let made = made.unwrap();
    assert!(!format!("{made:?}").contains(&made.secret));
    let stored = String::from_utf8(disk.record("tokens").unwrap()).unwrap();
    assert!(!stored.contains(&made.secret[6..]), "{stored}");
    login(&first.broker, &made.secret, None).await.unwrap();
    first.crash();
    let second = power().await;
    let identity = login(&second.broker, &made.secret, None).await.unwrap();
    assert_eq!(identity.username.as_deref(), Some("token:ci"));
    let found = second.broker.list_tokens().await.unwrap();
    assert!(found[0].last_used_millis.is_some());
    second.broker.remove_token("ci").await.unwrap();
    let refused = login(&second.broker, &made.secret, None).await;
    assert_eq!(refused, Err(AuthenticationError::BadCredentials));
    second.crash();
    let third = power().await;
    let refused = login(&third.broker, &made.secret, None).await;
    assert_eq!(refused, Err(AuthenticationError::BadCredentials));
}

#[actix_rt::test]
async fn a_token_is_for_rest_callers_and_other_tokens_are_for_other_sources() {
    let disk = Disk::default();
    let power = disk.power_with(|builder| builder.authenticator(TokenAuthenticator::new())).await;
    let made = power.broker.create_token(CreateToken::new("ci", "[]")).await.unwrap();
    let not_mine = Err(AuthenticationError::NotMine);
    assert_eq!(login(&power.broker, &made.secret, Some("c")).await, not_mine);
    assert_eq!(login(&power.broker, "hmq_d_x", None).await, not_mine);
    assert_eq!(login(&power.broker, "eyJhbGciOiJIUzI1NiJ9.e30.x", None).await, not_mine);
}
