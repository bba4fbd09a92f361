//! Rules for a session whose client has not connected since the start: how it logged in, at which
//! listener and from which address is known from the store.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hearthmq::auth::{
    AccessRequest, Accounts, Action, Attributes, AuthenticationConfig, AuthenticationError,
    Authenticator, Authorizer, ClientCertificate, Credentials, Decision, FileAuthenticator,
    FilePolicy, Groups, Identity, Login, OwnRules, Prepared, Renewal,
};

use crate::support::{Client, disk::Disk, packets::*};

/// Identifies every client by a certificate.
struct ByCertificate;

fn identity() -> Identity {
    let certificate =
        ClientCertificate { common_name: "device-1".into(), serial_number: "0a1b".into() };
    Identity {
        username: Some("ann".into()),
        certificate: Some(Arc::new(certificate)),
        login: Login::Certificate,
        needs_account: true,
        source: Some("own".into()),
        expires_at: None,
        attributes: Attributes::new([("plan", "gold")]).unwrap(),
        groups: Groups::new(["cars", "night"]).unwrap(),
        credential: Some(u64::MAX),
        rules: OwnRules::default(),
        renewal: Renewal::default(),
        prepared: Prepared::default(),
    }
}

#[async_trait]
impl Authenticator for ByCertificate {
    async fn authenticate(&self, _: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        Ok(identity())
    }
}

/// Allows everything, and records the identities, listeners and addresses in question.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<(Identity, String, String)>>>);

impl Authorizer for Asked {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        if matches!(request.action, Action::Subscribe { .. }) {
            let way = (request.listener.to_owned(), request.peer.to_string());
            self.0.lock().unwrap().push((request.identity.clone(), way.0, way.1));
        }
        Decision::Allow
    }
}

#[actix_rt::test]
async fn a_session_is_judged_as_its_client_was() {
    for version in VERSIONS {
        let (disk, asked) = (Disk::default(), Asked::default());
        let power = || {
            let asked = asked.clone();
            disk.power_with(|builder| builder.authenticator(ByCertificate).authorizer(asked))
        };
        let first = power().await;
        let mut client = Client::connected(&first.broker, connect_lasting("c", version)).await;
        client.subscribe("t", QOS_1).await;
        first.crash();
        let _second = power().await;
        let asked = std::mem::take(&mut *asked.0.lock().unwrap());
        let expected = (identity(), "in-process".to_owned(), "192.0.2.7:40000".to_owned());
        assert_eq!(asked, [expected.clone(), expected]);
    }
}

/// Returns a policy with one rule that allows under this condition.
fn allowing(condition: &str) -> FilePolicy {
    #[derive(serde::Deserialize)]
    struct File {
        rules: Vec<hearthmq::auth::Rule>,
    }
    let text = format!(
        "[[rules]]\neffect = \"allow\"\nactions = [\"connect\"]\n\
         [[rules]]\neffect = \"allow\"\nactions = [\"subscribe\"]\n{condition}\n"
    );
    FilePolicy::new(toml::from_str::<File>(&text).unwrap().rules)
}

/// A rule of the start that wrote the session must use attributes, or they are not stored.
#[actix_rt::test]
async fn attributes_are_stored_for_rules_that_use_them() {
    let uses = "topics = [\"${attributes.plan}/#\"]";
    for (before, is_kept) in [(uses, true), ("", false)] {
        let disk = Disk::default();
        let power = |rules| {
            disk.power_with(move |builder| {
                builder.authenticator(ByCertificate).authorizer(allowing(rules))
            })
        };
        let first = power(before).await;
        let mut client = Client::connected(&first.broker, connect_lasting("c", V5)).await;
        client.subscribe("gold/t", QOS_1).await;
        client.vanish().await;
        first.crash();
        for _ in 0..2 {
            let again = power(uses).await;
            let found = again.broker.client("c").await.unwrap().unwrap();
            assert_eq!(found.subscriptions, usize::from(is_kept), "{before}");
            again.crash();
        }
    }
}

const CONDITIONS: [(&str, bool); 8] = [
    ("", true),
    ("login = [\"anonymous\"]", true),
    ("login = [\"password\", \"certificate\", \"scram\", \"other\"]", false),
    ("listeners = [\"in-*\"]", true),
    ("listeners = [\"mqtts://*\"]", false),
    ("addresses = [\"192.0.2.0/24\"]", true),
    ("addresses = [\"198.51.100.0/24\"]", false),
    ("users = [\"\"]", true),
];

#[actix_rt::test]
async fn conditions_hold_for_sessions_that_were_found() {
    for (condition, is_kept) in CONDITIONS {
        let disk = Disk::default();
        let first = disk.power().await;
        let mut client = Client::connected(&first.broker, connect_lasting("c", V5)).await;
        client.subscribe("t", QOS_1).await;
        client.vanish().await;
        first.crash();
        let second = disk.power_with(|builder| builder.authorizer(allowing(condition))).await;
        let found = second.broker.client("c").await.unwrap().unwrap();
        assert_eq!(found.subscriptions, usize::from(is_kept), "{condition}");
        second.crash();
        // It stays so, however often the broker starts before the client returns.
        let third = disk.power().await;
        let found = third.broker.client("c").await.unwrap().unwrap();
        assert_eq!(found.subscriptions, usize::from(is_kept), "{condition}");
    }
}

/// Facts that an earlier version has not stored must not be a reason to allow.
#[actix_rt::test]
async fn a_condition_on_what_nobody_knows_does_not_allow() {
    for (condition, is_kept) in CONDITIONS {
        let is_kept = is_kept && !condition.contains("login") && !condition.contains("listeners");
        let disk = Disk::default();
        let first = disk.power().await;
        let mut client = Client::connected(&first.broker, connect_lasting("c", V5)).await;
        client.subscribe("t", QOS_1).await;
        client.vanish().await;
        first.crash();
        disk.forget_login("c");
        // Twice: being restored does not make the fact known.
        for _ in 0..2 {
            let again = disk.power_with(|builder| builder.authorizer(allowing(condition))).await;
            let found = again.broker.client("c").await.unwrap().unwrap();
            assert_eq!(found.subscriptions, usize::from(is_kept), "{condition}");
            again.crash();
        }
    }
}

/// Such clients are no longer admitted.
#[actix_rt::test]
async fn a_session_without_a_name_rests_where_none_is_let_in_any_longer() {
    let disk = Disk::default();
    let power = |anonymous| {
        let config = AuthenticationConfig { anonymous, ..AuthenticationConfig::default() };
        let authenticator = FileAuthenticator::new(Accounts::default(), config);
        disk.power_with(|builder| builder.authenticator(authenticator))
    };
    let first = power(true).await;
    let mut client = Client::connected(&first.broker, connect_lasting("c", V5)).await;
    client.subscribe("t", QOS_1).await;
    client.vanish().await;
    first.crash();
    for (anonymous, expected) in [(false, 0), (true, 1)] {
        let again = power(anonymous).await;
        again.broker.publish("t", b"x", QOS_1, false).await.unwrap();
        assert_eq!(again.broker.client("c").await.unwrap().unwrap().queued, expected);
        again.crash();
    }
}
