//! The program as a member of a cluster: what its configuration refuses, and what it tells.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use hearthmq::config::Config;
use hearthmq_test::{
    http::{basic, exchange, request},
    mqtt::tcp,
    nats::NatsServers,
};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::support::PATIENCE;

const PASSWORD: &str = "pass:word-of-admin";

/// A program that runs. It is killed with the value.
struct Program {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Program {
    /// Starts a broker of this name; `cluster` is its table.
    fn start(node: &str, cluster: &str) -> Self {
        let directory = tempdir().unwrap();
        let text = format!(
            "node = \"{node}\"\ndata_dir = \"data\"\n[mqtt]\ntcp = [\"127.0.0.1:0\"]\n\
             [http]\nlisten = [\"127.0.0.1:0\"]\nmetrics_access = \"anyone\"\n{cluster}"
        );
        fs::write(directory.path().join("hearthmq.toml"), text).unwrap();
        let mut child = hearthmq(directory.path(), &["run", "--config", "hearthmq.toml"])
            .env("HEARTHMQ_ADMIN_PASSWORD", PASSWORD)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("listening on http://")?;
            address.trim().parse().ok()
        });
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, address: url.unwrap(), _directory: directory }
    }

    fn get(&self, path: &str) -> (u16, String) {
        let login = basic(&format!("admin:{PASSWORD}"));
        let request = request(&format!("GET {path}"), Some(&login));
        let answer = exchange(tcp(self.address), request).unwrap();
        (answer.status, answer.body)
    }

    fn cluster(&self) -> Value {
        let (status, body) = self.get("/api/v1/cluster");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Asks until the cluster is as expected.
    fn wait(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let cluster = self.cluster();
            if is_it(&cluster) {
                return cluster;
            }
            assert!(began.elapsed() < PATIENCE, "it does not happen: {cluster}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn ready(&self) -> (u16, Value) {
        let (status, body) = self.get("/health/ready");
        (status, serde_json::from_str(&body).unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn hearthmq(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command
}

fn table(servers: &NatsServers) -> String {
    let (urls, replicas) = (servers.urls(), servers.urls().len());
    format!("[cluster]\nservers = {urls:?}\nreplicas = {replicas}\n")
}

fn member<'a>(cluster: &'a Value, name: &str) -> &'a Value {
    let members = cluster["members"].as_array().unwrap();
    members.iter().find(|member| member["node"] == name).unwrap_or(&Value::Null)
}

#[test]
fn two_programs_are_members_and_one_tells_that_the_other_has_died() {
    let Some(servers) = NatsServers::start(1) else { return };
    let a = Program::start("a", &table(&servers));
    let b = Program::start("b", &table(&servers));
    let both = |it: &Value| {
        it["state"] == "serving"
            && member(it, "a")["state"] == "serving"
            && member(it, "b")["state"] == "serving"
    };
    let cluster = a.wait(both);
    assert_eq!((&cluster["node"], &cluster["incarnation"]), (&json!("a"), &json!(1)));
    assert_eq!(member(&cluster, "b")["lease_ages_ms"].as_array().unwrap().len(), 3);
    let cluster = a.wait(|it| member(it, "b")["mail"]["dropped"] == 0);
    assert_eq!((&cluster["routes"], &member(&cluster, "a")["mail"]), (&json!(0), &Value::Null));
    b.wait(both);
    assert_eq!(a.ready(), (200, json!({"status": "ready"})));
    let (_, metrics) = a.get("/metrics");
    for line in [
        "hearthmq_cluster_serving 1",
        "hearthmq_cluster_incarnation 1",
        "hearthmq_cluster_members{state=\"serving\"} 2",
        "hearthmq_cluster_lease_age_seconds{lease=\"2\"} ",
        "hearthmq_cluster_routes 0",
        "hearthmq_cluster_subacks_early_total 0",
        "hearthmq_cluster_messages_sent_total{peer=\"b\"} 0",
        "hearthmq_cluster_unacknowledged{peer=\"b\"} ",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    drop(b);
    let cluster = a.wait(|it| member(it, "b")["state"] == "dead");
    assert_eq!(
        (&member(&cluster, "b")["keeper"], &cluster["state"]),
        (&json!("a"), &json!("serving"))
    );

    let place = tempdir().unwrap();
    let said = hearthmq(place.path(), &["cluster", "status", "--json"])
        .env("HEARTHMQ_REMOTE_URL", format!("http://{}", a.address))
        .env("HEARTHMQ_REMOTE_USER", "admin")
        .env("HEARTHMQ_REMOTE_PASSWORD", PASSWORD)
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!((&said["state"], &member(&said, "b")["state"]), (&json!("serving"), &json!("dead")));
}

#[test]
fn a_program_starts_without_nats_and_is_fenced_when_it_loses_nats() {
    let Some(mut servers) = NatsServers::start(1) else { return };
    servers.kill(0);
    let a = Program::start("a", &table(&servers));
    let cluster = a.wait(|it| it["fault"].is_string());
    assert_eq!((&cluster["state"], &cluster["members"]), (&json!("connecting"), &json!([])));
    let unavailable = (503, json!({"status": "cluster_unavailable"}));
    assert_eq!(a.ready(), unavailable);
    servers.start_again(0);
    a.wait(|it| it["state"] == "serving");
    assert_eq!(a.ready(), (200, json!({"status": "ready"})));
    servers.kill(0);
    a.wait(|it| it["state"] == "fenced");
    assert_eq!(a.ready(), unavailable);
    servers.start_again(0);
    a.wait(|it| it["state"] == "serving" && it["incarnation"] != 1);
}

#[test]
fn a_program_without_the_table_is_alone() {
    let alone = Program::start("a", "");
    assert_eq!(alone.cluster(), json!({"state": "alone", "members": []}));
    let (_, metrics) = alone.get("/metrics");
    assert!(!metrics.contains("hearthmq_cluster"), "{metrics}");
}

fn check(text: &str) -> Output {
    let place = tempdir().unwrap();
    fs::write(place.path().join("hearthmq.toml"), text).unwrap();
    hearthmq(place.path(), &["check-config", "hearthmq.toml"]).output().unwrap()
}

#[test]
fn a_mistake_in_the_table_is_named_with_its_line_and_a_remedy() {
    let cases = [
        ("[cluster]\nprefix = 'a'\n", "hearthmq.toml:1:", "cluster.servers must be 1 to 32 URLs"),
        ("[cluster]\nservers = ['localhost']\n", "hearthmq.toml:2:", "write servers = [\"nats://"),
        (
            "node = 'my node'\n[cluster]\nservers = ['nats://[::1]:1']\n",
            "hearthmq.toml:1:",
            "node must be",
        ),
        ("[cluster]\nserver = []\n", "hearthmq.toml:2:", "did you mean servers?"),
        (
            "[cluster]\nservers = ['nats://[::1]:1']\nreplicas = 2\n",
            "hearthmq.toml:3:",
            "1, 3 or 5",
        ),
    ];
    for (text, place, what) in cases {
        let output = check(text);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{text}");
        assert!(said.contains(place) && said.contains(what), "{text}: {said}");
    }
}

/// The configuration of the document is one.
#[test]
fn the_document_has_a_valid_configuration() {
    let document = include_str!("../../docs/cluster.md");
    let (_, rest) = document.split_once("```toml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let place = tempdir().unwrap();
    let file = place.path().join("hearthmq.toml");
    fs::write(&file, text).unwrap();
    let nothing = Vec::<(String, String)>::new();
    let config = Config::load(Some(&file), nothing, &[]).unwrap();
    assert_eq!(config.cluster_settings().unwrap().unwrap().nats.node.as_str(), "a");
}
