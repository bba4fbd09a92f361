//! A broker of this build, with an administrator and a directory of its own.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearthmq::auth::{add_user, hash_password};
use tempfile::TempDir;

use super::Outcome;

const HEARTHMQ: &str = env!("CARGO_BIN_EXE_hearthmq");
/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Lets everybody in; the rules are evaluated all the same.
const POLICY: &str = "
[[rules]]
effect = \"allow\"
actions = [\"administer\"]
users = [\"ops\"]

[[rules]]
effect = \"allow\"
actions = [\"connect\", \"publish\", \"subscribe\"]
";

/// A running broker. Dropping it kills it and removes its directory.
pub(crate) struct Broker {
    directory: TempDir,
    child: Child,
    pub(crate) mqtt: SocketAddr,
    http: SocketAddr,
}

impl Broker {
    pub(crate) fn start() -> Outcome<Self> {
        let directory = TempDir::new()?;
        let file = |name: &str| directory.path().join(name);
        add_user(&file("users.toml"), "ops", &hash_password(b"pass"))?;
        fs::write(file("policy.toml"), POLICY)?;
        let ports = [free_port()?, free_port()?];
        let [mqtt, http] = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let child = spawn(&directory, ports)?;
        let mut broker = Self { directory, child, mqtt, http };
        broker.wait()?;
        Ok(broker)
    }

    /// Ends it as it should, starts it again, and returns how long the start took.
    pub(crate) fn restart(&mut self) -> Outcome<Duration> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        self.child.wait()?;
        let began = Instant::now();
        self.child = spawn(&self.directory, [self.mqtt.port(), self.http.port()])?;
        self.wait()?;
        Ok(began.elapsed())
    }

    fn wait(&mut self) -> Outcome<()> {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(self.mqtt).is_err() || TcpStream::connect(self.http).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the broker has ended: {status}").into());
            }
            if Instant::now() > until {
                return Err("the broker does not start".into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Makes a call as the administrator; returns the answer.
    pub(crate) fn post(&self, target: &str, body: &str) -> Outcome<String> {
        let mut stream = TcpStream::connect(self.http)?;
        let (length, basic) = (body.len(), STANDARD.encode("ops:pass"));
        write!(
            stream,
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {length}\r\nAuthorization: Basic {basic}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.starts_with("HTTP/1.1 200") {
            true => Ok(answer),
            false => Err(answer.into()),
        }
    }

    pub(crate) fn resident_mib(&self) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.unwrap_or(0.0) / 1024.0
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill()); // it may have ended already
        drop(self.child.wait());
    }
}

fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn spawn(directory: &TempDir, [mqtt, http]: [u16; 2]) -> Outcome<Child> {
    let directory = directory.path().to_str().ok_or("the directory has a strange name")?;
    let options = [
        format!("data_dir={directory}"),
        format!("mqtt.tcp=127.0.0.1:{mqtt}"),
        format!("http.listen=127.0.0.1:{http}"),
        "auth.anonymous=true".to_owned(),
        "log.filter=warn".to_owned(),
        // All clients come from one address, whose rate is not what is measured.
        "limits.connects_per_address_per_sec=0".to_owned(),
    ];
    let options = options.iter().flat_map(|option| ["--set", option]);
    let mut command = Command::new(HEARTHMQ);
    command.args(["run", "--config", "/dev/null"]).args(options);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?)
}
