//! A real PostgreSQL database that knows clients, of Debian's package: its queries, and what happens when
//! it is slow, down, wrong and back.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use hearthmq::{
    auth::{
        Accounts, AuthenticationConfig, AuthenticationError, Authenticator, ClientCertificate,
        Credentials, FileAuthenticator, FilePolicy, Identity, PostgresAuthenticator,
        PostgresConfig, hash_password,
    },
    mqtt::{Connect, ProtocolVersion, ReasonCode},
};
use hearthmq_test::{
    cluster::Cluster,
    mqtt::{Client, connect},
};

use super::shown;
use crate::{pki::Pki, rest::live::live_with};

type Outcome = Result<Identity, AuthenticationError>;

const BAD: Outcome = Err(AuthenticationError::BadCredentials);
const NOT_MINE: Outcome = Err(AuthenticationError::NotMine);
const UNAVAILABLE: Outcome = Err(AuthenticationError::Unavailable);

fn config(cluster: &Cluster) -> PostgresConfig {
    PostgresConfig {
        url: cluster.url().as_str().into(),
        query: "SELECT hash FROM users WHERE name = $1".to_owned(),
        timeout_ms: 30_000,
        ..PostgresConfig::default()
    }
}

fn open(config: &PostgresConfig) -> PostgresAuthenticator {
    let accounts = Accounts::parse(Path::new("users.toml"), "").unwrap();
    let passwords = FileAuthenticator::new(accounts, AuthenticationConfig::default());
    PostgresAuthenticator::open(config, Arc::new(passwords)).unwrap()
}

async fn log_in(authenticator: &PostgresAuthenticator, name: &str, password: &str) -> Outcome {
    authenticator.authenticate(shown(name, password.as_bytes())).await
}

fn with_users() -> Option<Cluster> {
    let cluster = Cluster::start()?;
    let hash = hash_password(b"secret");
    cluster.sql(&format!(
        "CREATE TABLE users (name text, hash text, disabled boolean, plan varchar(9), \
         groups text[], acl jsonb); \
         INSERT INTO users VALUES \
         ('ann', '{hash}', false, 'gold', '{{field}}', \
          '[{{\"effect\":\"deny\",\"topics\":[\"x\"]}}]'), \
         ('off', '{hash}', true, null, null, null), \
         ('odd', 'not a hash', false, null, null, null), \
         ('two', '{hash}', false, null, null, null), ('two', '{hash}', false, null, null, null); \
         CREATE TABLE rules (name text, permission text, action text, topic text, qos int); \
         INSERT INTO rules VALUES ('ann', 'allow', 'publish', 'v/${{clientid}}', null), \
         ('ann', 'deny', 'all', 'y', 1)"
    ));
    Some(cluster)
}

#[actix_rt::test]
async fn a_user_is_found_with_hash_rules_and_attributes() {
    let Some(cluster) = with_users() else { return };
    let authenticator = open(&config(&cluster));
    let ann = log_in(&authenticator, "ann", "secret").await.unwrap();
    assert_eq!(ann.username.as_deref(), Some("ann"));
    assert!(ann.attributes.is_empty() && ann.rules.is_empty(), "nothing was asked for");
    assert_eq!(log_in(&authenticator, "ann", "wrong").await, BAD);
    assert_eq!(log_in(&authenticator, "ben", "secret").await, NOT_MINE);
    assert_eq!(log_in(&authenticator, "two", "secret").await, UNAVAILABLE, "two rows");
    assert_eq!(log_in(&authenticator, "odd", "secret").await, BAD, "nobody can have the password");
    assert_eq!(log_in(&authenticator, "'; DROP TABLE users; --", "secret").await, NOT_MINE);
    let all = PostgresConfig {
        query: "SELECT hash, disabled, plan, groups, acl FROM users \
                WHERE name = $1 AND $2 = 'car' AND $3 = '127.0.0.1'"
            .to_owned(),
        rules_query: "SELECT permission, action, topic, qos FROM rules WHERE name = $1".to_owned(),
        ..config(&cluster)
    };
    let authenticator = open(&all);
    let ann = log_in(&authenticator, "ann", "secret").await.unwrap();
    assert_eq!(ann.attributes.iter().collect::<Vec<_>>(), [("plan", "gold")]);
    assert!(ann.groups.contains("field"));
    let rules: Vec<serde_json::Value> = serde_json::from_str(ann.rules.as_json().unwrap()).unwrap();
    let topics: Vec<_> = rules.iter().map(|rule| rule["topics"][0].as_str().unwrap()).collect();
    assert_eq!(topics, ["x", "v/${clientId}", "y"]);
    let off = log_in(&authenticator, "off", "secret").await;
    assert_eq!(off, Err(AuthenticationError::NotAllowed));
}

/// With the time at which it is looked up again, and what has changed by then.
#[actix_rt::test]
async fn a_connected_user_is_looked_up_again() {
    let Some(cluster) = with_users() else { return };
    let with_acl = PostgresConfig {
        query: "SELECT hash, disabled, acl FROM users WHERE name = $1".to_owned(),
        ..config(&cluster)
    };
    let authenticator = open(&with_acl);
    let ann = log_in(&authenticator, "ann", "secret").await.unwrap();
    let in_secs = ann.renewal.at().unwrap().millis() / 1_000 - super::now();
    assert!((260..340).contains(&in_secs), "{in_secs}");
    let again = ann.renewal.renew().await.unwrap().unwrap();
    assert_eq!(again.rules, ann.rules);
    cluster.sql("UPDATE users SET acl = null WHERE name = 'ann'");
    let again = ann.renewal.renew().await.unwrap().unwrap();
    assert!(again.rules.is_empty());
    for (change, back) in [
        ("disabled = true", "disabled = false"),
        ("disabled = null", "disabled = false"),
        ("hash = 'other' || hash", "hash = substr(hash, 6)"),
    ] {
        cluster.sql(&format!("UPDATE users SET {change} WHERE name = 'ann'"));
        assert_eq!(ann.renewal.renew().await.unwrap(), BAD, "{change}");
        cluster.sql(&format!("UPDATE users SET {back} WHERE name = 'ann'"));
        assert!(ann.renewal.renew().await.unwrap().is_ok(), "{back}");
    }
    cluster.sql("DELETE FROM users WHERE name = 'ann'");
    assert_eq!(ann.renewal.renew().await.unwrap(), BAD);
}

/// In real time, because the database answers in it.
#[test]
fn a_client_that_may_not_connect_any_more_is_disconnected_when_it_is_looked_up_again() {
    let Some(cluster) = with_users() else { return };
    let set = |effect: &str| {
        let acl = format!(r#"[{{"effect":"{effect}","actions":["connect"]}}]"#);
        cluster.sql(&format!("UPDATE users SET acl = '{acl}' WHERE name = 'ann'"));
    };
    let with_acl = PostgresConfig {
        query: "SELECT hash, disabled, acl FROM users WHERE name = $1".to_owned(),
        refresh_secs: 1,
        ..config(&cluster)
    };
    let live = live_with(move |builder| {
        builder.authenticator(open(&with_acl)).authorizer(FilePolicy::new(Vec::new()))
    });
    for version in [ProtocolVersion::V5, ProtocolVersion::V3_1_1] {
        let ann = Connect { username: Some("ann"), password: Some(b"secret"), ..connect("car") };
        set("allow");
        let mut client = Client::connected(live.mqtt_address(), Connect { version, ..ann });
        set("deny");
        client.expect_disconnect(ReasonCode::NotAuthorized);
    }
}

/// Slow, wrong, down, and back.
#[actix_rt::test]
async fn a_database_that_fails_makes_logins_unavailable_until_it_is_back() {
    let Some(cluster) = with_users() else { return };
    let slow = PostgresConfig {
        query: "SELECT hash FROM users, pg_sleep(60) WHERE name = $1".to_owned(),
        timeout_ms: 200,
        ..config(&cluster)
    };
    assert_eq!(log_in(&open(&slow), "ann", "secret").await, UNAVAILABLE);
    let wrong = PostgresConfig { query: "SELECT x FROM nothing".to_owned(), ..config(&cluster) };
    assert_eq!(log_in(&open(&wrong), "ann", "secret").await, UNAVAILABLE);
    let authenticator = open(&config(&cluster));
    assert!(log_in(&authenticator, "ann", "secret").await.is_ok());
    cluster.power_off();
    for _ in 0..6 {
        assert_eq!(log_in(&authenticator, "ann", "secret").await, UNAVAILABLE);
    }
    cluster.power_on();
    // Until the pause of the breaker is over.
    while log_in(&authenticator, "ann", "secret").await == UNAVAILABLE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(log_in(&authenticator, "ann", "secret").await.is_ok());
}

/// A hash of `secret` by each scheme: of PostgreSQL's own pgcrypto, of Mosquitto, of mosquitto-go-auth, of
/// passlib and in the form of PHC; those of PBKDF2 were computed with Python's hashlib. `TYPE` is the type of
/// the column.
const HASHES: &str = r"
CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE TABLE t_TYPE (name text, hash TYPE);
INSERT INTO t_TYPE VALUES
('2a', crypt('secret', gen_salt('bf', 4))),
('2b', regexp_replace(crypt('secret', gen_salt('bf', 4)), '2a', '2b')),
('2y', regexp_replace(crypt('secret', gen_salt('bf', 4)), '2a', '2y')),
('mosquitto', '$7$101$AAECAwQFBgcICQoL$Xr99N9ym9ys8TWxis5ajETJq6EVYzmc6nb8t3pUYnPBbCAbICS4xejTltonXWCtJNBvA+By+TXUqU6qCblO00w=='),
('mosquitto-1', '$6$AAECAwQFBgcICQoL$JqsxEv/ucyxjA5DKsQ+Y8CDWaQDNQI9FpAkmfwAqWfwZLk/JEGgM0EpylrJHAZKKyFQjJeZ3nFaHjPzOzPPmPw=='),
('passlib', '$pbkdf2-sha256$1000$....AAECAwQFBgcICQoLDA$s7ubwGGuqMU1ewuusfU09pT/moiOXvw0GvgW8EHN/sg'),
('phc', '$pbkdf2-sha512$i=1000,l=64$++++AAECAwQFBgcICQoLDA$Vrp4C33jvc8w9qK4+blxHawRlnjGCh0GJmlSlbMGZHDUGmoYwMdamcipCRHtrMMi824k2k4ceja19Ie+JWHIXQ'),
('go-auth-512', 'PBKDF2$sha512$1000$++++AAECAwQFBgcICQoLDA==$Vrp4C33jvc8w9qK4+blxHawRlnjGCh0GJmlSlbMGZHDUGmoYwMdamcipCRHtrMMi824k2k4ceja19Ie+JWHIXQ=='),
('go-auth-256', 'PBKDF2$sha256$1000$++++AAECAwQFBgcICQoLDA==$s7ubwGGuqMU1ewuusfU09pT/moiOXvw0GvgW8EHN/sg='),
('argon2id', 'ARGON2');
-- crypt(3), Django, and no hash at all
INSERT INTO t_TYPE VALUES ('crypt', crypt('secret', gen_salt('md5'))),
('django', 'pbkdf2_sha256$1000$salt$s7ubwGGuqMU1ewuusfU09pT/moiOXvw0GvgW8EHN/sg='), ('plain', 'secret'), ('none', null)";

#[actix_rt::test]
async fn a_hash_of_each_scheme_is_verified_from_columns_of_each_type_of_text() {
    let Some(cluster) = Cluster::start() else { return };
    for (table, kind) in [("text", "text"), ("varchar", "varchar(200)"), ("char", "char(200)")] {
        let sql = HASHES.replace("t_TYPE", &format!("t_{table}")).replace("TYPE", kind);
        cluster.sql(&sql.replace("ARGON2", &hash_password(b"secret")));
        let query = format!("SELECT hash FROM t_{table} WHERE name = $1");
        let authenticator = open(&PostgresConfig { query, ..config(&cluster) });
        for name in [
            "2a",
            "2b",
            "2y",
            "mosquitto",
            "mosquitto-1",
            "passlib",
            "phc",
            "go-auth-512",
            "go-auth-256",
            "argon2id",
        ] {
            assert!(log_in(&authenticator, name, "secret").await.is_ok(), "{name} as {kind}");
            assert_eq!(log_in(&authenticator, name, "Secret").await, BAD, "{name} as {kind}");
        }
        for name in ["crypt", "django", "plain", "none"] {
            let outcome = log_in(&authenticator, name, "secret").await;
            assert_eq!(outcome, BAD, "{name} as {kind}");
        }
    }
}

#[actix_rt::test]
async fn a_password_beside_a_certificate_is_of_the_same_user() {
    let Some(cluster) = with_users() else { return };
    let authenticator = open(&config(&cluster));
    for (name, expected) in
        [("ann", None), ("ben", Some(AuthenticationError::OtherThanCertificate))]
    {
        let certificate = ClientCertificate { common_name: name.into(), serial_number: "1".into() };
        let shown = Credentials { certificate: Some(&certificate), ..shown("ann", b"secret") };
        assert_eq!(authenticator.authenticate(shown).await.err(), expected, "{name}");
    }
}

/// Names that the query cannot work with are errors of the database, but do not say that it is down.
#[actix_rt::test]
async fn names_that_the_database_refuses_keep_nobody_else_out() {
    let Some(cluster) = with_users() else { return };
    cluster.sql("ALTER TABLE users ADD number int; UPDATE users SET number = 7 WHERE name = 'ann'");
    let query = "SELECT hash FROM users WHERE number = $1::int".to_owned();
    let authenticator = open(&PostgresConfig { query, ..config(&cluster) });
    for name in ["abc", "99999999999", "\u{1F600}", "7.5", "x"] {
        assert_eq!(log_in(&authenticator, name, "secret").await, UNAVAILABLE, "{name:?}");
    }
    assert!(log_in(&authenticator, "7", "secret").await.is_ok());
}

#[actix_rt::test]
async fn a_slow_query_delays_nobody_else_and_ends_in_the_server() {
    let Some(cluster) = with_users() else { return };
    let query = "SELECT hash FROM users, pg_sleep(CASE WHEN $1 = 'two' THEN 3600 ELSE 0 END) \
                 WHERE name = $1";
    let config = PostgresConfig { query: query.to_owned(), ..config(&cluster) };
    let count = || {
        cluster.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
             AND application_name = 'hearthmq'",
        )
    };
    let sleeping = async || {
        while count() != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    for (connections_max, is_abandoned) in [(2, false), (1, true)] {
        let authenticator = open(&PostgresConfig { connections_max, ..config.clone() });
        let slow = Box::pin(log_in(&authenticator, "two", "secret"));
        let slow = match select(slow, Box::pin(sleeping())).await {
            Either::Right(((), slow)) => (!is_abandoned).then_some(slow),
            Either::Left((outcome, _)) => panic!("it does not wait: {outcome:?}"),
        };
        let ann = log_in(&authenticator, "ann", "secret").await;
        assert!(ann.is_ok(), "abandoned: {is_abandoned}, {ann:?}");
        assert_eq!(count(), "1", "she has not waited for it");
        drop(slow);
        cluster.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hearthmq'",
        );
    }
    let limited = open(&PostgresConfig { timeout_ms: 300, connections_max: 1, ..config });
    assert_eq!(log_in(&limited, "two", "secret").await, UNAVAILABLE);
    // By the time limit that the server was given.
    while count() != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The same time may be short for a busy machine.
    while log_in(&limited, "ann", "secret").await == UNAVAILABLE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[actix_rt::test]
async fn tls_needs_an_authority_that_is_trusted_and_the_right_name() {
    let (pki, other) = (Pki::new(), Pki::new());
    let Some(cluster) = Cluster::start_with(Some(&pki.server)) else { return };
    cluster.sql(&format!(
        "CREATE TABLE users AS SELECT 'ann' AS name, '{}'::text AS hash, ssl FROM pg_stat_ssl LIMIT 0; \
         INSERT INTO users VALUES ('ann', '{}')",
        hash_password(b"other"),
        hash_password(b"secret"),
    ));
    let place = format!("hostaddr={} port={}", cluster.address.ip(), cluster.address.port());
    let with = |host: &str, mode: &str, ca: &Path| {
        let url = format!("{place} user=hearthmq dbname=postgres host={host} {mode}");
        // Only a connection with TLS finds the user.
        let query = "SELECT hash FROM users, pg_stat_ssl AS own \
                     WHERE name = $1 AND own.pid = pg_backend_pid() AND own.ssl = ($2 = 'car')";
        PostgresConfig {
            url: url.as_str().into(),
            query: query.to_owned(),
            ca: ca.to_owned(),
            ..config(&cluster)
        }
    };
    let (require, none) = ("sslmode=require", Path::new(""));
    let log_in_by = async |config: &PostgresConfig| log_in(&open(config), "ann", "secret").await;
    assert!(log_in_by(&with("localhost", require, &pki.ca)).await.is_ok());
    for (why, config) in [
        ("another authority", with("localhost", require, &other.ca)),
        ("those of the system", with("localhost", require, none)),
        ("another name", with("db.example", require, &pki.ca)),
    ] {
        assert_eq!(log_in_by(&config).await, UNAVAILABLE, "{why}");
    }
    // Without TLS, although the server would have it, with a certificate that nobody trusts.
    for mode in ["", "sslmode=prefer", "sslmode=disable"] {
        let plain = with("localhost", mode, none);
        assert_eq!(log_in_by(&plain).await, NOT_MINE, "{mode}");
        let query = plain.query.replace("= ($2", "= NOT ($2");
        assert!(log_in_by(&PostgresConfig { query, ..plain }).await.is_ok(), "{mode}");
    }
    drop(cluster);
    let Some(plain) = with_users() else { return };
    let url = format!("{}?sslmode=require", plain.url());
    let config = PostgresConfig { url: url.as_str().into(), ca: pki.ca.clone(), ..config(&plain) };
    assert_eq!(log_in_by(&config).await, UNAVAILABLE, "a server without TLS");
}

#[test]
fn a_mistake_is_named_with_its_option() {
    let why = |change: fn(&mut PostgresConfig)| {
        let mut config = PostgresConfig {
            url: "postgresql://a@127.0.0.1/b".into(),
            query: "SELECT 1".into(),
            ..PostgresConfig::default()
        };
        change(&mut config);
        let accounts = Accounts::parse(Path::new("users.toml"), "").unwrap();
        let passwords = FileAuthenticator::new(accounts, AuthenticationConfig::default());
        PostgresAuthenticator::open(&config, Arc::new(passwords)).unwrap_err().to_string()
    };
    for (text, expected) in [
        (why(|config| config.url = "mysql:".into()), "auth.postgres.url: write postgresql://"),
        (
            why(|config| config.url = "host=db.example user=a".into()),
            "auth.postgres.url: hashes and",
        ),
        (
            why(|config| config.url = "hostaddr=192.0.2.7 user=a".into()),
            "auth.postgres.url: hashes and",
        ),
        (
            why(|config| config.url = "host=localhost hostaddr=192.0.2.7 user=a".into()),
            "auth.postgres.url: hashes and",
        ),
        (why(|config| config.url = "postgresql:///b?user=a".into()), "auth.postgres.url: it names"),
        (
            why(|config| config.url = "postgresql://a@db.example/b?sslmode=verify-full".into()),
            "auth.postgres.url: write postgresql://USER@HOST/DATABASE?sslmode=require; that mode checks",
        ),
        (why(|config| config.ca = "ca.pem".into()), "auth.postgres.ca: it is for TLS"),
        (why(|config| config.query.clear()), "auth.postgres.query: it is missing"),
        (
            why(|config| {
                config.url = "postgresql://a@127.0.0.1/b?sslmode=require".into();
                config.ca = "absent.pem".into();
            }),
            "auth.postgres.ca: absent.pem",
        ),
        (why(|config| config.password_file = "no".into()), "auth.postgres.password_file: no"),
    ] {
        assert!(text.starts_with(expected), "{text}");
    }
}
