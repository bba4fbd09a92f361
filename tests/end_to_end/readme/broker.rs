//! A broker as the documents start it: without a configuration, with the account of a first start.
//!
//! Only its ports differ; they replace those of the documents in each script.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use hearthmq::mqtt::ReasonCode;
use tempfile::TempDir;

use super::{blocks::Block, shell};
use crate::mqtt::{Client, connect, tcp};

/// The password of the first account.
pub(crate) const PASSWORD: &str = "pass word:1";

/// Time limit for actions that only a busy machine delays.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running broker with its own directory. Dropping it kills it.
pub(crate) struct Broker {
    directory: TempDir,
    child: Child,
    log: Receiver<String>,
    mqtt: SocketAddr,
    http: SocketAddr,
}

impl Broker {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (child, log) = spawn(&directory);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut broker = Self { directory, child, log, mqtt: nowhere, http: nowhere };
        broker.wait_for_listeners();
        broker
    }

    /// Starts the program again in its directory.
    pub(crate) fn start_again(&mut self) {
        (self.child, self.log) = spawn(&self.directory);
        self.wait_for_listeners();
    }

    fn wait_for_listeners(&mut self) {
        self.mqtt = self.address("mqtt");
        self.http = self.address("http"); // comes last
    }

    fn address(&self, scheme: &str) -> SocketAddr {
        let line = self.line_with(&format!("listening on {scheme}://"));
        let (_, address) = line.split_once("://").unwrap();
        address.trim().parse().unwrap()
    }

    /// Waits for the next line of the log with this text.
    pub(crate) fn line_with(&self, text: &str) -> String {
        let mut read = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => read.push(line),
                Err(_) => panic!("no line with {text:?} in {read:#?}"),
            }
        }
    }

    /// Connects a client of the first account.
    pub(crate) fn client(&self, client_id: &str) -> Client {
        let mut packet = connect(client_id);
        (packet.username, packet.password) = (Some("admin"), Some(PASSWORD.as_bytes()));
        Client::connected(self.mqtt, packet)
    }

    /// Tries to connect with a wrong password.
    pub(crate) fn refused(&self, password: &str) {
        let mut packet = connect("nobody");
        (packet.username, packet.password) = (Some("admin"), Some(password.as_bytes()));
        let (_, reason) = Client::on(tcp(self.mqtt), packet).unwrap();
        assert_ne!(reason, ReasonCode::Success);
    }

    /// Runs a block beside the broker; returns its standard output.
    pub(crate) fn run(&self, block: &Block) -> String {
        let script = block.text.replace("127.0.0.1:8080", &self.http.to_string());
        shell::run(block, &script, self.directory.path())
    }

    /// Ends the broker gracefully.
    pub(crate) fn stop(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill()); // it may have ended already
        self.child.wait().unwrap();
    }
}

fn spawn(directory: &TempDir) -> (Child, Receiver<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
    command
        .args(["--config", "/dev/null"])
        .args(["--set", "mqtt.tcp=127.0.0.1:0", "--set", "http.listen=127.0.0.1:0"])
        .current_dir(directory.path())
        .env("HEARTHMQ_ADMIN_PASSWORD", PASSWORD)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (sender, log) = channel();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            drop(sender.send(line)); // the test may have ended
        }
    });
    (child, log)
}
