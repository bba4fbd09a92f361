//! The program under test: its directory, its configuration, its process.

use std::{
    env,
    fs::{self, DirBuilder, Permissions},
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hearthmq::{
    auth::{add_user, hash_password},
    mqtt::Connect,
};
use hearthmq_test::{
    http::{Answer, basic, exchange, request},
    mqtt::{Client, connect, tcp},
};
use tempfile::TempDir;

/// Time limit for actions that only a busy machine delays.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The password of every account.
pub(crate) const PASSWORD: &str = "pass:word";

/// `ops` may do everything, devices may publish and subscribe, `limited` may control some clients,
/// `stranger` none.
const POLICY: &str = r#"
[[rules]]
effect = "allow"
users = ["ops", "device-*"]

[[rules]]
effect = "allow"
actions = ["connect"]
users = ["limited"]
clients = ["allowed-*"]
"#;

/// All listeners use ports that the operating system chooses. Failed logins are not slowed down,
/// because tests make many of them.
const CONFIG: &str = r#"
data_dir = "data"

[mqtt]
tcp = ["127.0.0.1:0"]

[http]
listen = ["127.0.0.1:0"]

[auth.throttle]
free_failures = 0
failures_max = 0
address_failures_max = 0
"#;

/// A directory with accounts, permissions and a configuration.
pub(crate) struct Place {
    dir: TempDir,
    options: Vec<String>,
}

impl Place {
    pub(crate) fn new() -> Self {
        // A password may wait for a core, and callers are not answered with 503 because of it.
        let options = vec!["http.login_timeout_ms=60000".into()];
        let place = Self { dir: tempfile::tempdir().unwrap(), options };
        DirBuilder::new().mode(0o700).create(place.path("data")).unwrap();
        static HASH: OnceLock<String> = OnceLock::new();
        let hash = HASH.get_or_init(|| hash_password(PASSWORD.as_bytes()));
        for user in ["ops", "limited", "stranger", "device-1"] {
            add_user(&place.path("data/users.toml"), user, hash).unwrap();
        }
        let policy = place.path("data/policy.toml");
        fs::write(&policy, POLICY).unwrap();
        // The mode that the program itself uses, so that a start logs no warning about it.
        fs::set_permissions(&policy, Permissions::from_mode(0o600)).unwrap();
        fs::write(place.path("hearthmq.toml"), CONFIG).unwrap();
        place
    }

    /// Sets an option, as on the command line.
    pub(crate) fn set(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the command that starts the program here.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
        command
            .args(["run", "--config", "hearthmq.toml"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        // Variables for the tests are not options of the program.
        for (name, _) in env::vars_os() {
            let is_for_tests =
                ["HEARTHMQ_CRASH_", "HEARTHMQ_WORLD_", "HEARTHMQ_API", "HEARTHMQ_OPENAPI"];
            if is_for_tests.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        for option in &self.options {
            command.args(["--set", option]);
        }
        command
    }

    /// Returns the same command, run by a shell after another one.
    pub(crate) fn command_after(&self, shell: &[&str], first: &str) -> Command {
        let program = self.command();
        let mut command = Command::new(shell[0]);
        command
            .args(&shell[1..])
            .args(["sh", "-c", &format!("{first} && exec \"$0\" \"$@\"")])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program, which is expected to end by itself.
    pub(crate) fn run(&self) -> Output {
        self.command().output().unwrap()
    }

    /// Starts the program and waits until it listens everywhere.
    pub(crate) fn start(&self) -> Program {
        self.start_by(self.command())
    }

    /// Does the same with a command of the test.
    pub(crate) fn start_by(&self, mut command: Command) -> Program {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (found, addresses) = mpsc::channel();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if let Some((_, url)) = line.split_once("listening on ") {
                    let url = url.split('"').next().unwrap(); // in JSON more text follows
                    // The receiver is gone once the program is known to have started.
                    drop(found.send(url.to_owned()));
                }
                read.lock().unwrap().push(line);
            }
        });
        let mut program =
            Program { child, reader: Mutex::new(Some(reader)), lines, addresses: Vec::new() };
        // HTTP is logged last, then HTTPS; without both the only MQTT listener is the last.
        let sets = |option: &str| self.options.iter().any(|set| set.starts_with(option));
        let last = match (sets("http.https"), self.options.iter().any(|set| set == "http.listen="))
        {
            (true, _) => "https",
            (false, true) => "mqtt",
            (false, false) => "http",
        };
        loop {
            let Ok(url) = addresses.recv_timeout(PATIENCE) else {
                panic!("the program does not start: {}", program.killed());
            };
            let Some((scheme, address)) = url.split_once("://") else {
                continue; // a Unix socket
            };
            let is_last = scheme == last;
            let address = address.split('/').next().unwrap().parse().unwrap();
            program.addresses.push((scheme.to_owned(), address));
            if is_last {
                return program;
            }
        }
    }
}

/// The running program. Dropping it kills it.
pub(crate) struct Program {
    child: Child,
    reader: Mutex<Option<JoinHandle<()>>>,
    /// Log lines so far.
    lines: Arc<Mutex<Vec<String>>>,
    addresses: Vec<(String, SocketAddr)>,
}

impl Program {
    /// Returns the address of its listener for `mqtt`, `mqtts`, `ws`, `wss`, `http` or `https`.
    pub(crate) fn address(&self, scheme: &str) -> SocketAddr {
        let mut addresses = self.addresses.iter();
        addresses.find(|(found, _)| found == scheme).unwrap().1
    }

    /// Returns the path of a file in its file system, which may differ from that of the test.
    pub(crate) fn file(&self, path: &Path) -> PathBuf {
        let path = path.strip_prefix("/").unwrap();
        Path::new(&format!("/proc/{}/root", self.child.id())).join(path)
    }

    /// Connects an MQTT client of user `ops`.
    pub(crate) fn client(&self, client_id: &str) -> Client {
        self.connected(connect(client_id))
    }

    /// Connects an MQTT client of user `ops` with this CONNECT.
    pub(crate) fn connected(&self, mut connect: Connect<'_>) -> Client {
        connect.username = Some("ops");
        connect.password = Some(PASSWORD.as_bytes());
        Client::connected(self.address("mqtt"), connect)
    }

    /// Calls `METHOD target` as user `ops`.
    pub(crate) fn call(&self, line: &str) -> Answer {
        self.call_as(Some(&basic(&format!("ops:{PASSWORD}"))), line)
    }

    /// Returns the answer of `/health/ready`.
    pub(crate) fn readiness(&self) -> (u16, String) {
        let answer = self.call_as(None, "GET /health/ready");
        (answer.status, answer.body)
    }

    /// Waits until `/health/ready` gives this answer.
    pub(crate) fn wait_for_readiness(&self, status: u16, state: &str) {
        let expected = (status, format!(r#"{{"status":"{state}"}}"#));
        let until = Instant::now() + PATIENCE;
        while self.readiness() != expected {
            assert!(Instant::now() < until, "{:?}, not {expected:?}", self.readiness());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn call_as(&self, authorization: Option<&str>, line: &str) -> Answer {
        self.send(request(line, authorization))
    }

    /// Sends these bytes to the HTTP listener and reads until it closes.
    pub(crate) fn send(&self, request: impl AsRef<[u8]>) -> Answer {
        exchange(tcp(self.address("http")), request).unwrap()
    }

    pub(crate) fn is_online(&self, client_id: &str) -> bool {
        match self.call(&format!("GET /client-id/{client_id}/status")).outcome() {
            (200, r#"{"online":true}"#) => true,
            (200, r#"{"online":false}"#) => false,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the peak of its resident memory, in bytes.
    pub(crate) fn memory_highest(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Returns whether the system may give it huge pages; `None` if the system does not tell that.
    pub(crate) fn may_have_huge_pages(&self) -> Option<bool> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"))?;
        Some(line.trim() == "1")
    }

    /// Returns the soft limit of open files.
    pub(crate) fn files_max(&self) -> u64 {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Lowers its limit of open files to this number.
    #[cfg(target_os = "linux")]
    pub(crate) fn limit_files(&self, files: u64) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        let limit = Rlimit { current: Some(files), maximum: Some(files) };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    }

    /// Sends a signal such as `-TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Stops it as a machine does that gets no CPU time; returns once every thread of it is stopped,
    /// which the signal alone does not wait for.
    pub(crate) fn suspend(&self) {
        self.signal("-STOP");
        let until = Instant::now() + PATIENCE;
        while !self.is_suspended() {
            assert!(Instant::now() < until, "a thread still runs");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_suspended(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks.into_iter().all(|task| {
            // A thread that has ended meanwhile does not run either.
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            // The state follows the name, which stands in parentheses.
            stat.rsplit(") ").next().is_none_or(|state| state.is_empty() || state.starts_with('T'))
        })
    }

    /// Waits for the end, which must come within `time`.
    pub(crate) fn wait(&mut self, time: Duration) -> ExitStatus {
        let until = Instant::now() + time;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "still running: {}", self.killed());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it like a power cut; returns its log.
    pub(crate) fn killed(&mut self) -> String {
        drop(self.child.kill()); // it may have ended already
        self.child.wait().unwrap();
        let reader = self.reader.get_mut().unwrap().take();
        if let Some(reader) = reader {
            reader.join().unwrap();
        }
        self.lines.lock().unwrap().join("\n")
    }

    /// Returns its log so far, line by line.
    pub(crate) fn logged(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for a line of the log with all of these texts; returns the first one.
    pub(crate) fn line_with(&self, texts: &[&str]) -> String {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let mut lines = self.logged().into_iter();
            if let Some(line) = lines.find(|line| texts.iter().all(|text| line.contains(text))) {
                return line;
            }
            assert!(Instant::now() < until, "no line with {texts:?} in {:#?}", self.logged());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.killed();
    }
}
