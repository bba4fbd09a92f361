//! Starts brokers, ends them in any way and restarts them on the same directory, and measures what
//! a process has used. Knows nothing of MQTT.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    str::FromStr,
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{Outcome, Settings, brokers::Usage};

/// How long a broker may take to start with much data.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A broker is at rest when it has written nothing for this time, or after `REST_MAX`.
const REST: Duration = Duration::from_secs(2);
const REST_MAX: Duration = Duration::from_secs(60);

/// Allows everything to everybody, but the rules are still evaluated.
const POLICY: &str = "
[[rules]]
effect = \"allow\"
actions = [\"connect\", \"publish\", \"subscribe\"]
";

/// A broker, by its name and command.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    command: String,
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').ok_or("write NAME=COMMAND")?;
        match ["{port}", "{dir}"].iter().find(|part| !command.contains(**part)) {
            Some(part) => Err(format!("{command:?} has no {part}")),
            None => Ok(Self { name: name.to_owned(), command: command.to_owned() }),
        }
    }
}

impl Host {
    /// HearthMQ with all features of normal use turned on, and with these options: `NAME=VALUE,…`.
    /// Limits are raised where one queue takes what usually goes to thousands.
    pub(crate) fn hearthmq(name: &str, program: &str, shards: usize, settings: &str) -> Self {
        let fixed = [
            "data_dir={dir}",
            "mqtt.tcp=127.0.0.1:{port}",
            "http.listen=127.0.0.1:0",
            "auth.anonymous=true",
            "log.filter=warn",
            "limits.connects_per_address_per_sec=1000000",
            "limits.connects_per_address_burst=1000000",
            "limits.queue_messages_per_client_max=10000000",
            "limits.queue_bytes_per_client_max=1073741824",
            "limits.queue_bytes_max=4294967296",
            // All clients come from one address.
            "limits.sessions_per_user_max=1000000",
            "limits.stored_messages_per_user_max=100000000",
            "limits.stored_bytes_per_user_max=1099511627776",
        ];
        let own = settings.split(',').filter(|setting| !setting.is_empty());
        let all: String = fixed.into_iter().chain(own).map(|it| format!(" --set {it}")).collect();
        let command = format!("{program} run --set shards={shards}{all}");
        Self { name: name.to_owned(), command }
    }

    /// Starts it with an empty directory, and waits until it listens.
    pub(crate) fn start(&self, settings: &Settings) -> Outcome<Process> {
        let directory = TempDir::new_in(&settings.disk)?;
        fs::write(directory.path().join("policy.toml"), POLICY)?;
        let (child, address) = self.spawn(directory.path(), settings)?;
        let mut process = Process { directory, child, address };
        let give_up_at = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            process.is_up(give_up_at)?;
        }
        sleep(Duration::from_millis(300)); // it may still be busy with its start
        Ok(process)
    }

    /// Restarts it after `process` has ended, and does not wait.
    pub(crate) fn start_again(&self, process: &mut Process, settings: &Settings) -> Outcome<()> {
        let (child, address) = self.spawn(process.directory.path(), settings)?;
        (process.child, process.address) = (child, address);
        Ok(())
    }

    fn spawn(&self, directory: &Path, settings: &Settings) -> Outcome<(Child, SocketAddr)> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let directory = directory.to_str().ok_or("the directory has a strange name")?;
        let command = self.command.replace("{port}", &port.to_string()).replace("{dir}", directory);
        let child = Command::new("taskset")
            .args(["-c", &settings.cores, "sh", "-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok((child, SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
    }
}

/// A broker that was started here. Dropping it kills it and removes its directory.
pub(crate) struct Process {
    directory: TempDir,
    child: Child,
    pub(crate) address: SocketAddr,
}

/// What it has used so far.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) cpu_secs: f64,
    pub(crate) resident_mib: f64,
    /// Bytes that it has caused to be written to the disk.
    pub(crate) written: f64,
}

impl Process {
    /// Waits a moment; fails if it has ended or the deadline has passed.
    pub(crate) fn is_up(&mut self, give_up_at: Instant) -> Outcome<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("the broker has ended: {status}").into());
        }
        if Instant::now() > give_up_at {
            return Err(format!("nobody answers on {}", self.address).into());
        }
        sleep(LOOK_EVERY);
        Ok(())
    }

    pub(crate) fn taken(&self) -> Taken {
        let usage = Usage::of(self.child.id());
        let io = fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap_or_default();
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        Taken {
            cpu_secs: usage.cpu_secs,
            resident_mib: usage.resident_bytes / 1_048_576.0,
            written: written.and_then(|bytes| bytes.parse().ok()).unwrap_or(0.0),
        }
    }

    /// Waits until it stops writing.
    pub(crate) fn rest(&self) {
        let give_up_at = Instant::now() + REST_MAX;
        let mut before = f64::NAN;
        while Instant::now() < give_up_at {
            let written = self.taken().written;
            if written == before {
                return;
            }
            before = written;
            sleep(REST);
        }
    }

    /// Returns the bytes of all files in its directory.
    pub(crate) fn bytes_on_disk(&self) -> f64 {
        bytes_in(self.directory.path()) as f64
    }

    /// Ends it like a crash.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn bytes_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let about = entry.metadata().ok()?;
        Some(if about.is_dir() { bytes_in(&entry.path()) } else { about.len() })
    });
    sizes.sum()
}
