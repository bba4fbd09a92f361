//! `hearthmq trace` and `hearthmq top`, as a person at a terminal runs them, and as a script does.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    program::{PASSWORD, PATIENCE, Place, Program},
    skipped::not_installed,
};

/// Returns a command of a user whose environment names the broker and an account.
fn command(program: &Program, line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
    command.args(line).stdin(Stdio::null()).env_remove("HOME");
    with_account(&mut command, &url(program));
    command
}

fn url(program: &Program) -> String {
    format!("http://{}", program.address("http"))
}

fn with_account(command: &mut Command, url: &str) {
    command
        .env("HEARTHMQ_REMOTE_URL", url)
        .env("HEARTHMQ_REMOTE_USER", "ops")
        .env("HEARTHMQ_REMOTE_PASSWORD", PASSWORD);
}

/// Waits until something is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn traces(program: &Program) -> Vec<Value> {
    let answer = program.call("GET /api/v1/traces");
    let page: Value = serde_json::from_str(&answer.body).unwrap();
    page["items"].as_array().unwrap().clone()
}

fn is_followed(program: &Program) -> bool {
    traces(program).iter().any(|trace| trace["running"] == true)
}

/// A command that goes on, and its lines.
struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            output.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Self { child, lines }
    }

    fn line(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(PATIENCE).unwrap()).unwrap()
    }

    fn interrupt(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).unwrap();
        self.child.wait().unwrap()
    }
}

#[test]
fn a_trace_goes_to_a_pipe_and_ends_on_the_broker_with_the_command() {
    let place = Place::new();
    let program = place.start();
    let mut trace = Following::start(command(&program, &["trace", "car-1", "--seconds", "600"]));
    eventually("the trace runs", || is_followed(&program));
    let mut client = program.client("car-1");
    let _other = program.client("truck");
    client.publish("a/b", b"hello", Some(7)).unwrap();
    client.receive(|_| ());
    let seen: Vec<Value> = (0..4).map(|_| trace.line()).collect();
    let kinds: Vec<_> = seen.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["connect", "connack", "publish", "puback"]);
    assert!(seen.iter().all(|line| line["client_id"] == "car-1"), "{seen:?}");
    assert_eq!(seen[2]["payload_base64"], Value::Null);
    assert!(trace.interrupt().success());
    assert_eq!(traces(&program), [] as [Value; 0]);
}

/// A broker that answers slowly: the test is the broker.
#[test]
fn a_trace_that_is_interrupted_while_it_starts_is_ended() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
    command.args(["trace", "car-1"]).stdin(Stdio::null()).env_remove("HOME");
    with_account(&mut command, &format!("http://{}", server.local_addr().unwrap()));
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let answer = |while_it_waits: &mut dyn FnMut()| {
        let (stream, _) = server.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = bytes.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            head += &line;
        }
        lines.read_exact(&mut vec![0; length]).unwrap();
        while_it_waits();
        let body = "{\"id\":\"7\"}";
        let text = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        (&stream).write_all(text.as_bytes()).unwrap();
        head.lines().next().unwrap().to_owned()
    };
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let pid = Pid::from_child(&child);
    let started = answer(&mut || {
        kill_process(pid, Signal::INT).unwrap();
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("to end the trace"), "{line}");
    });
    let calls = [(); 2].map(|()| answer(&mut || ()));
    assert_eq!(started, "POST /api/v1/traces HTTP/1.1");
    assert_eq!(calls, ["GET /api/v1/traces/7 HTTP/1.1", "DELETE /api/v1/traces/7 HTTP/1.1"]);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_trace_is_written_to_a_file_that_only_its_owner_may_read() {
    let place = Place::new();
    let program = place.start();
    let _client = program.client("car-1");
    let file = place.path("trace.ndjson");
    fs::write(&file, "what was there before, and is longer than the records are").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let path = file.to_str().unwrap();
    let line = ["trace", "--username", "ops", "--seconds", "1", "--output", path];
    let output = command(&program, &line).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["kind"], &first["client_id"]),
        (&"connection_followed".into(), &"car-1".into())
    );
    assert_eq!(traces(&program), [] as [Value; 0]);
}

#[test]
fn a_trace_that_cannot_be_is_refused() {
    let place = Place::new();
    let program = place.start();
    let failure = |line: &[&str]| {
        let output = command(&program, line).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(failure(&["trace"]).0, 2);
    assert_eq!(failure(&["trace", "a", "--address", "192.0.2.7"]).0, 2);
    assert_eq!(failure(&["trace", "a", "--seconds", "3601"]).0, 2);
    let (code, errors) = failure(&["trace", "--address", "10.0.0.1/8"]);
    assert!(code == 3 && errors.contains("invalid_trace"), "{code}: {errors}");
    let (code, errors) = failure(&["trace", "a", "--output", "/nowhere/trace"]);
    assert_eq!(code, 1, "{errors}");
    assert_eq!(traces(&program), [] as [Value; 0]);
}

/// Runs a command in a pseudo terminal of 80 columns and 24 lines: each step waits for a text, then types
/// keys. Prints what the terminal has shown, whether its settings are as before, and the exit code.
const TERMINAL: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios, time
steps = sys.argv[1:sys.argv.index("--")]
command = sys.argv[sys.argv.index("--") + 1:]
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.execv(command[0], command)
before = termios.tcgetattr(terminal)
shown, until = b"", time.monotonic() + 60
def read(wait):
    global shown
    if select.select([terminal], [], [], wait)[0]:
        try:
            some = os.read(terminal, 65536)
        except OSError:
            some = b""
        shown += some
        return len(some) > 0
    return True
for step in steps:
    text, keys = step.split("=>")
    begin = len(shown)
    while text.encode() not in shown[begin:] and time.monotonic() < until:
        if not read(0.1):
            break
    if text.encode() not in shown[begin:]:
        os.kill(pid, signal.SIGKILL)
        sys.exit(f"{text!r} did not come: {shown[begin:]!r}")
    if keys.startswith("size "):
        lines, columns = map(int, keys.split()[1:])
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    elif keys == "TERM":
        os.kill(pid, signal.SIGTERM)
    else:
        os.write(terminal, keys.encode().decode("unicode_escape").encode())
while time.monotonic() < until and read(0.1):
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        read(0.1)
        break
else:
    done, status = os.waitpid(pid, 0)
try:
    is_same = termios.tcgetattr(terminal)[:4] == before[:4]
except termios.error:
    is_same = True
is_left = shown.rfind(b"\x1b[?1049l") > shown.rfind(b"\x1b[?1049h")
print(os.waitstatus_to_exitcode(status), is_same, is_left)
sys.stdout.flush()
sys.stdout.buffer.write(shown)
"#;

/// Runs a command in a terminal; returns how it has ended, and what it has shown.
fn in_terminal(url: &str, steps: &[&str], line: &[&str]) -> (String, String) {
    let mut python = Command::new("python3");
    python.args(["-c", TERMINAL]).args(steps).arg("--");
    python.arg(env!("CARGO_BIN_EXE_hearthmq")).args(line);
    with_account(&mut python, url);
    let output = python.env("TERM", "xterm").env_remove("HOME").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (outcome, shown) = text.split_once('\n').unwrap();
    (outcome.to_owned(), shown.to_owned())
}

fn has_python() -> bool {
    let is_there = Command::new("python3").arg("--version").output().is_ok();
    if !is_there {
        not_installed("python3");
    }
    is_there
}

#[test]
fn a_terminal_shows_packets_as_lines_and_ctrl_c_ends_the_trace() {
    if !has_python() {
        return;
    }
    let place = Place::new();
    let program = place.start();
    let url = url(&program);
    let steps = ["PUBACK=>\\x03"];
    let terminal = thread::spawn(move || in_terminal(&url, &steps, &["trace", "car-1"]));
    eventually("the trace runs", || is_followed(&program));
    let mut client = program.client("car-1");
    client.publish("a/b", b"hello", Some(7)).unwrap();
    client.receive(|_| ());
    let (outcome, shown) = terminal.join().unwrap();
    assert!(outcome.starts_with("0 "), "{outcome}: {shown}");
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[0].contains("→  CONNECT      protocol 5"), "{shown}");
    assert!(lines[2].contains("→  PUBLISH      id 7  QoS 1  a/b  5 B"), "{shown}");
    assert!(lines[3].contains("←  PUBACK       id 7") && lines[3].contains(" ms"), "{shown}");
    assert_eq!(traces(&program), [] as [Value; 0]);
}

#[test]
fn top_is_used_with_keys_and_leaves_the_terminal_as_it_was() {
    if !has_python() {
        return;
    }
    let place = Place::new();
    let program = place.start();
    let mut car = program.client("car-1");
    let _truck = program.client("truck-1");
    for _ in 0..3 {
        car.publish("a/b", b"hello", None).unwrap();
    }
    car.ping();
    let ended = |end: &str, steps: &[&str]| {
        let (outcome, shown) = in_terminal(&url(&program), steps, &["top"]);
        assert_eq!(outcome, "0 True True", "{end}: {shown}");
        shown
    };
    // The size changes, the filter hides one, and the other is shown in full.
    let steps = [
        "truck-1=>size 30 100",
        "car-1=>/car\\r",
        "[car]=>j\\r",
        "esc: back=>\\x1b",
        "enter: one=>q",
    ];
    let shown = ended("q", &steps);
    assert!(shown.contains("CLIENT ID") && shown.contains("timeouts"), "{shown}");
    ended("Ctrl-C", &["truck-1=>\\x03"]);
    ended("SIGTERM", &["truck-1=>TERM"]);
}

#[test]
fn top_writes_one_table_where_there_is_no_terminal() {
    let place = Place::new();
    let program = place.start();
    let _clients = ["car-1", "car-2", "truck"].map(|id| program.client(id));
    let output = command(&program, &["top", "--filter", "car"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[0].starts_with("hearthmq ") && lines[1].starts_with("clients 3  "), "{shown}");
    assert!(lines[4].starts_with("CLIENT ID") && lines[5].starts_with("car-"), "{shown}");
    assert_eq!(lines.len(), 7, "{shown}");
    let output = command(&program, &["top", "--json", "--limit", "2"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let clients: Vec<Value> =
        shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(clients.len(), 2, "{shown}");
    assert!(clients.iter().all(|client| client["per_sec"]["messages_in"].is_u64()), "{shown}");
    let mut gone = command(&program, &["top"]);
    gone.env("HEARTHMQ_REMOTE_URL", "http://127.9.8.7:1");
    assert_eq!(gone.output().unwrap().status.code(), Some(1));
}
