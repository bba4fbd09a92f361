//! A real PostgreSQL database that knows clients, of Debian's package: its queries, and what happens when
//! it is slow, down, wrong and back.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use hearthmq::auth::{
    Accounts, AuthenticationConfig, AuthenticationError, Authenticator, FileAuthenticator,
    Identity, PostgresAuthenticator, PostgresConfig, hash_password,
};
use hearthmq_test::free_address;
use tempfile::TempDir;

use super::shown;
use crate::support::skipped::not_installed;

type Outcome = Result<Identity, AuthenticationError>;

const BAD: Outcome = Err(AuthenticationError::BadCredentials);
const NOT_MINE: Outcome = Err(AuthenticationError::NotMine);
const UNAVAILABLE: Outcome = Err(AuthenticationError::Unavailable);

/// A cluster of its own, on a loopback port. It ends with the value.
struct Cluster {
    directory: TempDir,
    programs: PathBuf,
    address: SocketAddr,
}

impl Cluster {
    /// `None` if PostgreSQL is not installed.
    fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            not_installed("postgresql");
            return None;
        };
        let directory = TempDir::new_in(env::temp_dir()).unwrap();
        let cluster = Self { directory, programs, address: free_address() };
        if is_root() {
            // The server refuses to run as root.
            run(Command::new("chown").arg("postgres").arg(cluster.directory.path()));
        }
        let data = cluster.data();
        cluster.run("initdb", &["-D", &data, "-U", "hearthmq", "-A", "trust", "--no-sync"]);
        cluster.power_on();
        Some(cluster)
    }

    fn data(&self) -> String {
        self.directory.path().join("data").to_str().unwrap().to_owned()
    }

    fn power_on(&self) {
        let options = format!(
            "-p {} -c listen_addresses={} -c unix_socket_directories= -c fsync=off",
            self.address.port(),
            self.address.ip()
        );
        let log = self.directory.path().join("log");
        let log = log.to_str().unwrap();
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-l", log, "-o", &options, "start"]);
    }

    fn power_off(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-m", "immediate", "stop"]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.programs.join(program);
        match is_root() {
            true => run(Command::new("runuser")
                .args(["-u", "postgres", "--"])
                .arg(program)
                .args(arguments)
                .current_dir("/")),
            false => run(Command::new(program).args(arguments)),
        }
    }

    fn sql(&self, text: &str) {
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let to = ["-h", &host, "-p", &port, "-U", "hearthmq", "-d", "postgres"];
        let arguments = [&to[..], &["-q", "-v", "ON_ERROR_STOP=1", "-c", text]].concat();
        run(Command::new(self.programs.join("psql")).args(arguments));
    }

    fn config(&self) -> PostgresConfig {
        let url = format!("postgresql://hearthmq@{}/postgres", self.address);
        PostgresConfig {
            url: url.as_str().into(),
            query: "SELECT hash FROM users WHERE name = $1".to_owned(),
            timeout_ms: 30_000,
            ..PostgresConfig::default()
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stop = ["-D", &self.data(), "-m", "immediate", "stop"].map(ToOwned::to_owned);
        let program = self.programs.join("pg_ctl");
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("runuser");
                command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
                command
            }
            false => Command::new(program),
        };
        drop(command.args(stop).stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    })
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let mut found = versions.map(|version| version.path().join("bin"));
    found.find(|path: &PathBuf| Path::is_file(&path.join("initdb")))
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
    let authenticator = open(&cluster.config());
    let ann = log_in(&authenticator, "ann", "secret").await.unwrap();
    assert_eq!(ann.username.as_deref(), Some("ann"));
    assert!(ann.attributes.is_empty() && ann.rules.is_empty(), "nothing was asked for");
    assert_eq!(log_in(&authenticator, "ann", "wrong").await, BAD);
    assert_eq!(log_in(&authenticator, "ben", "secret").await, NOT_MINE);
    assert_eq!(log_in(&authenticator, "two", "secret").await, UNAVAILABLE, "two rows");
    assert_eq!(log_in(&authenticator, "odd", "secret").await, UNAVAILABLE);
    assert_eq!(log_in(&authenticator, "'; DROP TABLE users; --", "secret").await, NOT_MINE);
    let all = PostgresConfig {
        query: "SELECT hash, disabled, plan, groups, acl FROM users \
                WHERE name = $1 AND $2 = 'car' AND $3 = '127.0.0.1'"
            .to_owned(),
        rules_query: "SELECT permission, action, topic, qos FROM rules WHERE name = $1".to_owned(),
        ..cluster.config()
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
    let config = PostgresConfig {
        query: "SELECT hash, disabled, acl FROM users WHERE name = $1".to_owned(),
        ..cluster.config()
    };
    let authenticator = open(&config);
    let ann = log_in(&authenticator, "ann", "secret").await.unwrap();
    let in_secs = ann.renewal.at().unwrap().millis() / 1_000 - super::now();
    assert!((260..340).contains(&in_secs), "{in_secs}");
    let again = ann.renewal.renew().await.unwrap().unwrap();
    assert_eq!(again.rules, ann.rules);
    cluster.sql("UPDATE users SET acl = null WHERE name = 'ann'");
    let again = ann.renewal.renew().await.unwrap().unwrap();
    assert!(again.rules.is_empty());
    cluster.sql("UPDATE users SET hash = 'other' WHERE name = 'ann'");
    assert_eq!(ann.renewal.renew().await.unwrap(), BAD);
    cluster.sql("DELETE FROM users WHERE name = 'ann'");
    assert_eq!(ann.renewal.renew().await.unwrap(), BAD);
}

/// Slow, wrong, down, and back.
#[actix_rt::test]
async fn a_database_that_fails_makes_logins_unavailable_until_it_is_back() {
    let Some(cluster) = with_users() else { return };
    let slow = PostgresConfig {
        query: "SELECT hash FROM users, pg_sleep(60) WHERE name = $1".to_owned(),
        timeout_ms: 200,
        ..cluster.config()
    };
    assert_eq!(log_in(&open(&slow), "ann", "secret").await, UNAVAILABLE);
    let wrong = PostgresConfig { query: "SELECT x FROM nothing".to_owned(), ..cluster.config() };
    assert_eq!(log_in(&open(&wrong), "ann", "secret").await, UNAVAILABLE);
    let authenticator = open(&cluster.config());
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
        (why(|config| config.query.clear()), "auth.postgres.query: it is missing"),
        (why(|config| config.ca = "absent.pem".into()), "auth.postgres.ca: absent.pem"),
        (why(|config| config.password_file = "no".into()), "auth.postgres.password_file: no"),
    ] {
        assert!(text.starts_with(expected), "{text}");
    }
}
