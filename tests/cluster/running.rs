//! Programs of a cluster that serve clients: started, killed, frozen, and asked over MQTT and REST.

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Connect, Packet, ProtocolVersion, ReasonCode};
use hearthmq_test::{
    http::{basic, exchange, request},
    mqtt::{Client, tcp},
    nats::NatsServers,
    packets::connect_lasting,
};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::support::PATIENCE;

const PASSWORD: &str = "pass:word-of-admin";

/// A broker of a cluster that admits every client. It is killed with the value.
pub(crate) struct Node {
    child: Child,
    mqtt: SocketAddr,
    http: SocketAddr,
    name: String,
    cluster: String,
    directory: Option<TempDir>,
}

/// Returns the addresses of the servers, as the table of a configuration.
pub(crate) fn table(urls: &[String]) -> String {
    format!("[cluster]\nservers = {urls:?}\nreplicas = {}\n", urls.len())
}

/// Returns the file of accounts that a first start makes, with a policy of its own, for the admin.
fn accounts() -> &'static str {
    static ACCOUNTS: OnceLock<String> = OnceLock::new();
    ACCOUNTS.get_or_init(|| {
        let place = tempdir().unwrap();
        let config = "data_dir = \"data\"\n[mqtt]\ntcp = [\"127.0.0.1:0\"]\n";
        fs::write(place.path().join("hearthmq.toml"), config).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_hearthmq"))
            .args(["run", "--config", "hearthmq.toml"])
            .current_dir(place.path())
            .env("HEARTHMQ_ADMIN_PASSWORD", PASSWORD)
            .env_remove("HEARTHMQ_CLUSTER_ROUNDS")
            .env_remove("HEARTHMQ_CLUSTER_KILL_SEED")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(program.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("listening on mqtt://")));
        program.kill().unwrap();
        program.wait().unwrap();
        fs::read_to_string(place.path().join("data/users.toml")).unwrap()
    })
}

impl Node {
    /// Starts a broker of this name, and waits until it serves.
    pub(crate) fn serving(name: &str, servers: &NatsServers) -> Self {
        let node = Self::start(name, &table(&servers.urls()));
        node.wait_for("serving");
        node
    }

    /// Starts a broker of this name; `cluster` is its table.
    pub(crate) fn start(name: &str, cluster: &str) -> Self {
        Self::start_in(name, cluster, tempdir().unwrap())
    }

    fn start_in(name: &str, cluster: &str, directory: TempDir) -> Self {
        let policy = directory.path().join("anyone.toml");
        let data = directory.path().join("data");
        if !data.exists() {
            fs::create_dir(&data).unwrap();
            fs::write(data.join("users.toml"), accounts()).unwrap();
        }
        let text = format!(
            "node = \"{name}\"\ndata_dir = \"data\"\n[mqtt]\ntcp = [\"127.0.0.1:0\"]\n\
             [http]\nlisten = [\"127.0.0.1:0\"]\n[auth]\nanonymous = true\npolicy = {policy:?}\n\
             [limits]\nconnects_per_address_per_sec = 0\n{cluster}"
        );
        fs::write(directory.path().join("hearthmq.toml"), text).unwrap();
        fs::write(&policy, "[[rules]]\neffect = \"allow\"\n").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_hearthmq"))
            .args(["run", "--config", "hearthmq.toml"])
            .current_dir(directory.path())
            .env_remove("HEARTHMQ_CLUSTER_ROUNDS")
            .env_remove("HEARTHMQ_CLUSTER_KILL_SEED")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = |scheme: &str| -> SocketAddr {
            let found = lines.by_ref().map_while(Result::ok).find_map(|line| {
                let (_, address) = line.split_once(scheme)?;
                address.trim().parse().ok()
            });
            found.unwrap()
        };
        let (mqtt, http) = (address("listening on mqtt://"), address("listening on http://"));
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let (name, cluster, directory) = (name.to_owned(), cluster.to_owned(), Some(directory));
        Self { child, mqtt, http, name, cluster, directory }
    }

    /// Starts it again with its data.
    pub(crate) fn start_again(mut self) -> Self {
        self.kill();
        let directory = self.directory.take().unwrap();
        Self::start_in(&self.name, &self.cluster, directory)
    }

    /// Kills it by SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Returns the address for clients.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.mqtt
    }

    /// Sends a signal to it.
    pub(crate) fn signal(&self, name: &str) {
        let process = self.child.id();
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {process}")).status();
        assert!(sent.unwrap().success());
    }

    /// Sends CONNECT; returns the client, the Reason Code and Session Present.
    pub(crate) fn connect(
        &self,
        connect: Connect<'_>,
    ) -> std::io::Result<(Client, ReasonCode, bool)> {
        let stream = tcp(self.mqtt);
        let version = connect.version;
        let mut client = Client::silent(stream, version);
        client.try_send(&Packet::Connect(Box::new(connect)))?;
        let (reason, is_present) = client.try_receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("CONNACK expected, not {packet:?}") };
            (ack.reason, ack.session_present)
        })?;
        Ok((client, reason, is_present))
    }

    /// Connects a lasting session, and expects success; returns the client and Session Present.
    pub(crate) fn connected(&self, id: &str, version: ProtocolVersion) -> (Client, bool) {
        let (client, reason, is_present) = self.connect(connect_lasting(id, version)).unwrap();
        assert_eq!(reason, ReasonCode::Success, "{id} on {}", self.name);
        (client, is_present)
    }

    /// Connects again and again, until CONNECT is accepted; every refusal must be Server unavailable.
    pub(crate) fn connected_at_last(&self, id: &str, version: ProtocolVersion) -> (Client, bool) {
        let began = Instant::now();
        loop {
            let (client, reason, is_present) = self.connect(connect_lasting(id, version)).unwrap();
            if reason == ReasonCode::Success {
                return (client, is_present);
            }
            assert_eq!(reason, ReasonCode::ServerUnavailable);
            assert!(began.elapsed() < PATIENCE, "{id} is never admitted");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks over REST.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get_text(path);
        (status, serde_json::from_str(&body).unwrap_or_default())
    }

    /// Asks over HTTP.
    pub(crate) fn get_text(&self, path: &str) -> (u16, String) {
        let login = basic(&format!("admin:{PASSWORD}"));
        let request = request(&format!("GET {path}"), Some(&login));
        let answer = exchange(tcp(self.http), request).unwrap();
        (answer.status, answer.body)
    }

    /// Calls over REST, with a body in JSON.
    pub(crate) fn call(&self, line: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.call_text(line, body);
        (status, serde_json::from_str(&body).unwrap_or_default())
    }

    /// Does the same; returns the text of the answer.
    pub(crate) fn call_text(&self, line: &str, body: &str) -> (u16, String) {
        let login = basic(&format!("admin:{PASSWORD}"));
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {login}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = exchange(tcp(self.http), head).unwrap();
        (answer.status, answer.body)
    }

    /// Sends CONNECT, and does not wait for the answer.
    pub(crate) fn begin_to_connect(&self, connect: Connect<'_>) -> Client {
        let mut client = Client::silent(tcp(self.mqtt), connect.version);
        client.send(&Packet::Connect(Box::new(connect)));
        client
    }

    /// Waits until its state in the cluster is this one.
    pub(crate) fn wait_for(&self, state: &str) -> Value {
        self.wait(|cluster| cluster["state"] == state)
    }

    /// Waits until its view of the cluster is as expected.
    pub(crate) fn wait(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let (_, cluster) = self.get("/api/v1/cluster");
            if is_it(&cluster) {
                return cluster;
            }
            assert!(began.elapsed() < PATIENCE, "it does not happen: {cluster}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns whether a connection lives: it answers PINGREQ.
pub(crate) fn lives(client: &mut Client) -> bool {
    if client.try_send(&Packet::PingReq).is_err() {
        return false;
    }
    match client.try_receive(|packet| packet == Packet::PingResp) {
        Ok(answers) => answers,
        Err(error) => {
            let is_end =
                [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(is_end.contains(&error.kind()), "{error}");
            false
        }
    }
}
