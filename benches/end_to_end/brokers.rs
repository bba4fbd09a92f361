//! The brokers to compare: running ones, and commands that start one.
//!
//! Each run gives a command a port of its own, so that no run affects the next. `/proc` tells what
//! a broker uses of the machine.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    str::FromStr,
    thread::sleep,
    time::{Duration, Instant},
};

use super::Outcome;

/// How long a broker may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// The core of the broker, and the core of this program.
pub(crate) const BROKER_CORE: &str = "0";
pub(crate) const OWN_CORE: &str = "1";

/// A broker, by its name: `NAME=ADDRESS`, `NAME=ADDRESS@PID`, or `NAME=COMMAND` with `{port}` in
/// it.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    what: What,
    /// The value of `{shards}` in its command.
    shards: usize,
}

#[derive(Clone, Debug)]
enum What {
    Running(SocketAddr, Option<u32>),
    Command(String),
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, what) = text.split_once('=').ok_or("write NAME=ADDRESS or NAME=COMMAND")?;
        let (address, pid) = match what.split_once('@') {
            Some((address, pid)) => (address, pid.parse().ok()),
            None => (what, None),
        };
        let what = match address.parse() {
            Ok(address) => What::Running(address, pid),
            Err(_) if what.contains("{port}") => What::Command(what.to_owned()),
            Err(_) => return Err(format!("{what:?} is no address, and has no {{port}}")),
        };
        Ok(Self { name: name.to_owned(), what, shards: 1 })
    }
}

impl Named {
    pub(crate) fn command(name: &str, command: String) -> Self {
        Self { name: name.to_owned(), what: What::Command(command), shards: 1 }
    }

    pub(crate) fn with_shards(&self, shards: usize) -> Self {
        Self { shards, ..self.clone() }
    }

    /// Starts the broker, on a core of its own if the machine has several.
    pub(crate) fn start(&self, cores: &str) -> Outcome<Running> {
        let (address, http, child, pid) = match &self.what {
            What::Running(address, pid) => (*address, None, None, *pid),
            What::Command(command) => {
                // A port of its own: one that was just closed may still have connections.
                let port = free_port()?;
                let http = command.contains("{http}").then(free_port).transpose()?;
                let command = command.replace("{port}", &port.to_string());
                let command = command.replace("{shards}", &self.shards.to_string());
                let command = command.replace("{http}", &http.unwrap_or(0).to_string());
                let child = Command::new("taskset")
                    // `exec`, so that the process identifier is that of the broker.
                    .args(["-c", cores, "sh", "-c", &format!("exec {command}")])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()?;
                let pid = child.id();
                let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                (at(port), http.map(at), Some(child), Some(pid))
            }
        };
        let mut running = Running { address, http, child, pid };
        running.wait_until_it_listens()?;
        Ok(running)
    }
}

/// A broker that listens. Dropping it ends a broker that was started here.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// Its address for REST calls, if its command has `{http}`.
    pub(crate) http: Option<SocketAddr>,
    child: Option<Child>,
    pid: Option<u32>,
}

impl Running {
    fn wait_until_it_listens(&mut self) -> Outcome<()> {
        let give_up_at = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                return Err(format!("the broker has ended: {status}").into());
            }
            if Instant::now() > give_up_at {
                return Err(format!("nobody listens on {}", self.address).into());
            }
            sleep(Duration::from_millis(50));
        }
        sleep(Duration::from_millis(300)); // it may still be busy with its start
        Ok(())
    }

    pub(crate) fn usage(&self) -> Usage {
        self.pid.map_or_else(Usage::default, Usage::of)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        let ended = Command::new("kill").arg(child.id().to_string()).status();
        let give_up_at = Instant::now() + PATIENCE;
        while ended.is_ok() && Instant::now() < give_up_at {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// What a process has used so far, without its threads and forked children.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// CPU seconds, of user and kernel.
    pub(crate) cpu_secs: f64,
    pub(crate) resident_bytes: f64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Self {
        let nanos: u64 = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .sum();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
        Self { cpu_secs: nanos as f64 / 1e9, resident_bytes: kib.unwrap_or(0.0) * 1024.0 }
    }
}

/// Keeps this program off the broker's core. Without `taskset` or a second core they share one.
pub(crate) fn pin_self() {
    if !pin_this_thread(OWN_CORE) {
        eprintln!("this program could not be given a core of its own: figures will vary more");
    }
}

/// Binds the thread, and threads that it starts, to a core; returns whether that was possible.
pub(crate) fn pin_this_thread(core: &str) -> bool {
    let Ok(thread) = fs::read_link("/proc/thread-self") else { return false };
    let id = thread.file_name().unwrap_or_default();
    let taskset = Command::new("taskset").args(["-cp", core]).arg(id).output();
    taskset.is_ok_and(|output| output.status.success())
}

/// Returns the cores for this many threads of a broker.
pub(crate) fn cores(threads: usize) -> String {
    if threads <= 1 { BROKER_CORE.to_owned() } else { format!("0-{}", threads - 1) }
}

fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
