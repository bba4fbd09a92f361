//! Logins, TLS, and an account that may use the subjects of one cluster alone.

use futures_util::StreamExt as _;
use hearthmq::{
    internals::cluster::{
        door::{Address, Nats as _, NatsAskError},
        names::{Bucket, Log, Sequence},
        nats::{ClusterPrefix, NatsDoor, NatsLogin, NatsSettings, NatsTls},
    },
    records::Revision,
};
use hearthmq_test::{nats::NatsServers, pki::Pki};
use tempfile::TempDir;

use crate::support::{WRITE, node, settings, until, update};

/// Returns the permissions of a user for the cluster `hearthmq`, as docs/architecture.md lists them.
fn permissions() -> String {
    let numbered = |name: &str, count| (0..count).map(|one| format!("{name}_{one}")).collect();
    let owners: Vec<String> = numbered("owners", 16);
    let leases: Vec<String> = numbered("lease", 3);
    let buckets = owners.into_iter().chain(leases).chain(["members".into(), "records".into()]);
    let buckets: Vec<_> = buckets.map(|bucket| format!("hearthmq_{bucket}")).collect();
    let streams = buckets.iter().map(|bucket| format!("KV_{bucket}"));
    let streams = streams.chain(["hearthmq_routes".to_owned(), "hearthmq_retained".to_owned()]);
    let mut publish = vec!["hearthmq.>".to_owned(), "_INBOX_hearthmq.>".to_owned()];
    publish.extend(buckets.iter().map(|bucket| format!("$KV.{bucket}.>")));
    for stream in streams {
        for call in ["CREATE", "INFO", "PURGE", "MSG.GET", "LEADER.STEPDOWN"] {
            publish.push(format!("$JS.API.STREAM.{call}.{stream}"));
        }
        publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}"));
        publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}.>"));
        publish.push(format!("$JS.API.CONSUMER.DELETE.{stream}.*"));
        publish.push(format!("$JS.FC.{stream}.>"));
    }
    let subscribe = r#"["hearthmq.>", "_INBOX_hearthmq.>"]"#;
    format!("publish: {{ allow: {publish:?} }}, subscribe: {{ allow: {subscribe} }}")
}

async fn opens(settings: &NatsSettings) -> Result<(), String> {
    let door = NatsDoor::open(settings).await.map_err(|error| error.to_string())?;
    let key = format!("{:x}", fastrand::u64(..));
    update(&door, Bucket::Members, &key, "1", Revision(0))
        .await
        .map_err(|error| error.to_string())?;
    Ok(())
}

#[tokio::test]
async fn a_login_is_a_password_a_token_or_a_key_of_a_file() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let key = nkeys::KeyPair::new_user();
    let users =
        format!("users: [{{ user: node, password: secret }}, {{ nkey: {} }}]", key.public_key());
    let password_file = file("password", "secret\n");
    let password = NatsLogin::Password { user: "node".to_owned(), password_file };
    let nkey = NatsLogin::Nkey(file("seed", &key.seed().unwrap()));
    let token = NatsLogin::Token(file("token", "s3cret"));
    let wrong = NatsLogin::Token(file("wrong", "s3crex"));
    for (lines, good, bad) in [
        (users.as_str(), vec![&password, &nkey], vec![&wrong, &NatsLogin::None]),
        ("token: s3cret", vec![&token], vec![&wrong, &password]),
    ] {
        let lines = format!("authorization {{ {lines} }}\n");
        let Some(servers) = NatsServers::start_with(1, &lines) else { return };
        let of =
            |login: &NatsLogin| NatsSettings { login: login.clone(), ..settings(&servers, "a") };
        for login in good {
            assert_eq!(opens(&of(login)).await, Ok(()), "{login:?}");
        }
        for login in bad {
            let error = opens(&of(login)).await.unwrap_err();
            assert!(error.contains("authorization violation"), "{error}");
            assert!(!error.contains("s3cre"), "{error}");
        }
    }
    let absent = NatsLogin::Token(directory.path().join("absent"));
    let Some(servers) = NatsServers::start(1) else { return };
    let error =
        opens(&NatsSettings { login: absent, ..settings(&servers, "a") }).await.unwrap_err();
    assert!(error.contains("absent"), "{error}");
}

#[tokio::test]
async fn servers_are_known_by_their_certificates_and_nodes_by_theirs() {
    let pki = Pki::new();
    let lines = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}\n",
        pki.server.chain, pki.server.key, pki.ca
    );
    let Some(servers) = NatsServers::start_at_localhost(&lines) else { return };
    let named = vec![servers.url(0).replace("nats", "tls")];
    let of = |authorities: Option<&std::path::PathBuf>, own: Option<&hearthmq_test::pki::Pair>| {
        let certificate = own.map(|pair| (pair.chain.clone(), pair.key.clone()));
        let tls = NatsTls { is_required: true, authorities: authorities.cloned(), certificate };
        NatsSettings { tls, servers: named.clone(), ..settings(&servers, "a") }
    };
    assert_eq!(opens(&of(Some(&pki.ca), Some(&pki.device))).await, Ok(()));
    opens(&of(Some(&pki.ca), None)).await.unwrap_err();
    opens(&of(Some(&pki.ca), Some(&pki.foreign))).await.unwrap_err();
    let error = opens(&of(Some(&pki.device.chain), Some(&pki.device))).await.unwrap_err();
    assert!(!error.is_empty());
}

#[tokio::test]
async fn the_documented_subjects_suffice_and_others_stay_closed() {
    let user = format!("user: node, password: secret, permissions: {{ {} }}", permissions());
    let lines = format!("authorization {{ users: [{{ {user} }}] }}\n");
    let Some(servers) = NatsServers::start_with(1, &lines) else { return };
    let directory = TempDir::new().unwrap();
    let password_file = directory.path().join("password");
    std::fs::write(&password_file, "secret").unwrap();
    let login = NatsLogin::Password { user: "node".to_owned(), password_file };
    let limited = NatsSettings { login, ..settings(&servers, "a") };
    let door = NatsDoor::open(&limited).await.unwrap();
    let records = door.records().await.unwrap();
    hearthmq_test::records_contract::every_promise(&(std::sync::Arc::new(records) as _)).await;
    let first = update(&door, Bucket::Lease(0), "a", "1", Revision(0)).await.unwrap();
    door.remove(Bucket::Lease(0), "a", first, WRITE).await.unwrap();
    update(&door, Bucket::Lease(0), "a", "1", Revision(0)).await.unwrap();
    door.append(Log::Routes, &node("a"), "1", "r".into(), WRITE).await.unwrap();
    assert!(door.follow(Log::Routes, Sequence(0)).next().await.is_some());
    door.cut(Log::Routes, &node("a"), Sequence(9)).await.unwrap();
    door.spread_leaders().await;
    let mut mail = door.subscribe(&Address::All, 1);
    door.publish(&Address::All, 1, "m".into()).await.unwrap();
    assert_eq!(mail.next().await.unwrap(), "m");
    let silent = door.questions(&node("a"), 1);
    until(async || {
        let asked = door.ask(&node("a"), 1, "?".into(), WRITE).await;
        (asked == Err(NatsAskError::Timeout)).then_some(())
    })
    .await;
    drop(silent);

    let prefix = ClusterPrefix::new("other").unwrap();
    let other = NatsDoor::open(&NatsSettings { prefix, ..limited }).await.unwrap_err().to_string();
    assert!(other.contains("ermissions"), "{other}");
}
