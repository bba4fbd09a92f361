//! The `hearthmq` program from a user's view: its commands, its first start, its signals, and its
//! errors when it cannot start.

mod accounts;
mod check_config;
mod first_start;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use hearthmq::auth::{Accounts, FilePolicy, ScramKeys};
use hearthmq_test::{
    free_address,
    http::{Answer, basic, exchange, request},
};
use tempfile::TempDir;

/// A directory for one broker, which listens on its own ports.
struct Place {
    dir: TempDir,
    http: SocketAddr,
    mqtt: SocketAddr,
}

fn place() -> Place {
    Place { dir: tempfile::tempdir().unwrap(), http: free_address(), mqtt: free_address() }
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("HEARTHMQ_HTTP__LISTEN", self.http.to_string())
            .env("HEARTHMQ_MQTT__TCP", self.mqtt.to_string());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command with `input`.
    fn feed(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The command may end before it reads: what it says decides.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Starts the broker, and waits until it listens. Its log is not read after that, which must
    /// not disturb it.
    fn start(&self) -> Broker {
        self.start_by(self.command(&[])).0
    }

    /// Does the same with a command of the test; also returns the log until it listened.
    fn start_by(&self, mut command: Command) -> (Broker, String) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let wanted = format!("listening on http://{}", self.http);
        let mut said = String::new();
        let listening = log.by_ref().map(Result::unwrap).find(|line| {
            said.push_str(&format!("{line}\n"));
            line.contains(&wanted)
        });
        assert!(listening.is_some(), "the broker does not listen: {said}");
        (Broker { child }, said)
    }

    fn get(&self, path: &str, login: &str) -> Answer {
        let request = request(&format!("GET {path}"), Some(&basic(login)));
        exchange(TcpStream::connect(self.http).unwrap(), request).unwrap()
    }
}

struct Broker {
    child: Child,
}

impl Broker {
    /// Sends a signal to the broker and waits for its end; returns exit code and standard output.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let mut output = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut output).unwrap();
        (self.child.wait().unwrap().code(), output)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill()); // it has ended already if the test went well
        drop(self.child.wait());
    }
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Returns the error of a failed command: one line, after the first line of the log if the broker
/// was starting.
fn complaint(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(1));
    let text = std::str::from_utf8(&output.stderr).unwrap();
    let text = match text.split_once('\n') {
        Some((first, rest)) if first.contains("hearthmq starts") => rest,
        _ => text,
    };
    let line = text.strip_prefix("hearthmq: ").expect(text);
    let line = line.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn help_and_version_are_there() {
    let place = place();
    let help = place.run(&["--help"]);
    assert!(help.status.success());
    let commands = ["run", "check-config", "passwd", "store", "example-config", "example-policy"];
    let places = ["/etc/hearthmq/hearthmq.toml", "./hearthmq-data", "users.toml", "policy.toml"];
    for word in commands.iter().chain(&places) {
        assert!(stdout(&help).contains(word), "{word}");
    }
    let version = place.run(&["--version"]);
    assert_eq!(stdout(&version), format!("hearthmq {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let place = place();
    for arguments in [["start"], ["--port"], ["passwd"]] {
        assert_eq!(place.run(&arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn the_example_configuration_is_right() {
    let place = place();
    let example = place.run(&["example-config"]);
    fs::write(place.path("h.toml"), &example.stdout).unwrap();
    let checked = place.run(&["check-config", "h.toml"]);
    assert!(checked.status.success());
    assert_eq!(stdout(&checked), "h.toml: the configuration is valid\n");
}

#[test]
fn a_wrong_configuration_stops_the_start_with_its_line() {
    let place = place();
    fs::write(place.path("h.toml"), "[mqtt]\ntpc = []\n").unwrap();
    for arguments in [
        &["check-config", "h.toml"] as &[&str],
        &["--config", "h.toml"],
        &["run", "--config", "h.toml"],
    ] {
        let output = place.run(arguments);
        let said = "h.toml:2:1: there is no option tpc in [mqtt]; did you mean tcp?";
        assert_eq!(complaint(&output), said);
    }
    assert!(!place.path("hearthmq-data").exists());
}

#[test]
fn the_configuration_may_be_named_by_a_variable() {
    let place = place();
    fs::write(place.path("h.toml"), "shards = 0\nport = 1\n").unwrap();
    let output = place.command(&[]).env("HEARTHMQ_CONFIG", "h.toml").output().unwrap();
    assert!(complaint(&output).starts_with("h.toml:2:1: there is no option or section port"));
}

fn password_is(users: &Path, user: &str, password: &str) -> bool {
    let accounts = Accounts::open(users).unwrap();
    accounts.get(user).unwrap().password.verify(password.as_bytes())
}

#[test]
fn passwd_adds_an_account_and_changes_its_password() {
    let place = place();
    let users = place.path("users.toml");
    for password in ["first: with a colon", "second"] {
        let input = format!("{password}\r\n");
        let output = place.feed(&["passwd", "fleet", "--file", "users.toml"], &input);
        assert!(output.status.success(), "{output:?}");
        assert!(!stdout(&output).contains(password));
        assert!(password_is(&users, "fleet", password));
    }
    assert!(!password_is(&users, "fleet", "first: with a colon"));
    assert_eq!(Accounts::open(&users).unwrap().len(), 1);
}

#[test]
fn passwd_makes_scram_keys_if_it_is_told_or_the_configuration_enables_them() {
    let place = place();
    let iterations = || {
        let accounts = Accounts::open(&place.path("users.toml")).unwrap();
        accounts.get("fleet").unwrap().scram.as_ref().map(ScramKeys::iterations)
    };
    fs::write(place.path("h.toml"), "[auth]\nscram = true\nscram_iterations = 5000\n").unwrap();
    for (arguments, expected) in [
        (&["--scram"] as &[&str], Some(32_768)),
        (&[], None),
        (&["--config", "h.toml"], Some(5_000)),
    ] {
        let arguments = [&["passwd", "fleet", "--file", "users.toml"], arguments].concat();
        let output = place.feed(&arguments, "secret\n");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(iterations(), expected);
    }
    fs::write(place.path("h.toml"), "[auth]\nscram_iterations = 4095\n").unwrap();
    let wrong = place.run(&["check-config", "h.toml"]);
    let said = "h.toml:2:1: auth.scram_iterations is 4095; write a number from 4096 to 10000000";
    assert_eq!(complaint(&wrong), said);
}

#[test]
fn passwd_takes_no_empty_password() {
    let place = place();
    let output = place.feed(&["passwd", "fleet", "--file", "users.toml"], "\n");
    assert_eq!(complaint(&output), "the password is empty; give one");
    assert!(!place.path("users.toml").exists());
}

#[test]
fn the_first_start_makes_an_account_whose_printed_login_works() {
    let place = place();
    let broker = place.start();
    let users = place.path("hearthmq-data/users.toml");
    assert!(users.exists());
    // Unknown yet: standard output is read at the end.
    assert_eq!(place.get("/client-id/demo/status", "admin:guess").status, 401);
    let (code, printed) = broker.end("-TERM");
    assert_eq!(code, Some(0));
    let line = printed.lines().find(|line| line.starts_with("    admin  ")).unwrap();
    let password = line.rsplit(' ').next().unwrap().to_owned();
    assert!(password_is(&users, "admin", &password));
    let (http, mqtt) = (place.http, place.mqtt);
    for line in [
        format!("curl -u 'admin:{password}' 'http://{http}/client-id/demo/status'"),
        format!(
            "curl -u 'admin:{password}' -X POST \
             'http://{http}/keep-alive?client-id=demo&interval=120'"
        ),
        format!(
            "mosquitto_sub -h {} -p {} -i demo -u admin -P '{password}' -t 'hello/#' -v & sleep 1",
            mqtt.ip(),
            mqtt.port()
        ),
    ] {
        assert!(printed.lines().any(|printed| printed.trim() == line), "{line}\n{printed}");
    }

    let broker = place.start();
    let answer = place.get("/client-id/demo/status", &format!("admin:{password}"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(broker.end("-INT"), (Some(0), String::new()));
}

#[test]
fn the_first_policy_is_right_with_its_examples() {
    let place = place();
    place.start().end("-TERM");
    let path = place.path("hearthmq-data/policy.toml");
    FilePolicy::open(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("users = [\"admin\"]\ntopics = [\"$control/#\"]"));
    let is_example = |line: &str| {
        let name = line.split(" = ").next().unwrap();
        line == "[[rules]]" || (name != line && !name.contains(' '))
    };
    let uncommented = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(example) if is_example(example) => format!("{example}\n"),
        _ => format!("{line}\n"),
    });
    fs::write(&path, uncommented.collect::<String>()).unwrap();
    FilePolicy::open(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap().matches("\n[[rules]]").count(), 8);
}

#[test]
fn a_port_that_is_taken_stops_the_start() {
    let place = place();
    let _taken = TcpListener::bind(place.http).unwrap();
    let output = place.run(&["--set", "log.filter=off"]);
    let said = complaint(&output);
    let expected = format!("cannot listen on {}: Address already in use", place.http);
    assert!(said.starts_with(&expected), "{said}");
    assert!(said.ends_with("free it, or set another address in http.listen"), "{said}");
}

#[test]
fn a_data_directory_that_cannot_be_written_stops_the_start() {
    let place = place();
    fs::write(place.path("file"), "").unwrap();
    let output = place.run(&["--set", "data_dir=file/data"]);
    assert!(complaint(&output).contains("file/data: Not a directory"));
}

#[test]
fn two_brokers_do_not_share_a_data_directory() {
    let place = place();
    let broker = place.start();
    let output = place.run(&["--set", "http.listen="]);
    let said = complaint(&output);
    assert!(said.contains("hearthmq-data is in use by another broker"), "{said}");
    assert_eq!(broker.end("-TERM").0, Some(0));
}

#[test]
fn a_certificate_that_cannot_be_read_stops_the_start() {
    let place = place();
    let output = place
        .command(&[])
        .env("HEARTHMQ_HTTP__HTTPS", "127.0.0.1:0")
        .env("HEARTHMQ_TLS__CERTIFICATE", "missing.crt")
        .env("HEARTHMQ_TLS__KEY", "missing.key")
        .output()
        .unwrap();
    assert!(complaint(&output).starts_with("missing.crt: cannot be read: "));
}
