//! The commands that ask a running broker, as a user of a shell runs them.

use std::{
    fs::{self, Permissions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Instant,
};

use hearthmq::mqtt::{QoS, ReasonCode};
use serde_json::{Value, json};

use crate::{
    pki::Pki,
    program::{PASSWORD, PATIENCE, Place, Program},
    skipped::not_installed,
};

/// A shell of a user, whose environment names the broker and an account.
pub(crate) struct Shell {
    variables: Vec<(&'static str, String)>,
}

/// Exit code, lines of standard output, and standard error.
pub(crate) type Ran = (i32, Vec<String>, String);

impl Shell {
    pub(crate) fn at(program: &Program) -> Self {
        let url = format!("http://{}", program.address("http"));
        let variables = vec![
            ("HEARTHMQ_REMOTE_URL", url),
            ("HEARTHMQ_REMOTE_USER", "ops".to_owned()),
            ("HEARTHMQ_REMOTE_PASSWORD", PASSWORD.to_owned()),
        ];
        Self { variables }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(other, _)| *other != name);
        if !value.is_empty() {
            self.variables.push((name, value.to_owned()));
        }
        self
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
        command.args(line).stdin(Stdio::null()).env_remove("HOME");
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
    }

    pub(crate) fn run(&self, line: &[&str]) -> Ran {
        let output = self.command(line).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let lines = text(output.stdout).lines().map(str::to_owned).collect();
        (output.status.code().unwrap(), lines, text(output.stderr))
    }

    /// Runs a command that succeeds; returns the JSON of its lines.
    pub(crate) fn json(&self, line: &[&str]) -> Vec<Value> {
        let (code, lines, errors) = self.run(line);
        assert_eq!(code, 0, "{line:?}: {errors}");
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs a command that fails; returns its exit code and what it says.
    pub(crate) fn failure(&self, line: &[&str]) -> (i32, String) {
        let (code, _, errors) = self.run(line);
        (code, errors)
    }
}

#[test]
fn clients_are_listed_shown_changed_and_kicked() {
    let place = Place::new();
    let program = place.start();
    let shell = Shell::at(&program);
    let mut cars: Vec<_> = ["car-1", "car-2", "a/b #"].map(|id| program.client(id)).into();
    let ids = |clients: &[Value]| -> Vec<String> {
        clients.iter().map(|client| client["client_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&shell.json(&["clients", "list"])), ["a/b #", "car-1", "car-2"]);
    let some = shell.json(&["clients", "list", "--client-id", "car-*", "--limit", "1"]);
    assert_eq!(ids(&some), ["car-1"]);
    assert_eq!(shell.json(&["clients", "list", "--connected", "false"]), [] as [Value; 0]);
    let shown = shell.json(&["clients", "show", "a/b #"]).remove(0);
    assert_eq!((&shown["client_id"], &shown["online"]), (&"a/b #".into(), &true.into()));

    let changed = shell.json(&["clients", "keep-alive", "90", "car-1", "a/b #"]);
    assert_eq!(ids(&changed), ["car-1", "a/b #"]);
    assert!(changed.iter().all(|result| result["keepalive"] == 90), "{changed:?}");
    let selected = shell.json(&["clients", "keep-alive", "100", "--clients", "car-*", "--yes"]);
    assert_eq!(ids(&selected).len(), 2);
    let shown = shell.json(&["clients", "show", "car-2"]).remove(0);
    assert_eq!(shown["connection"]["keep_alive"]["in_force"], 100);

    let (code, lines, errors) = shell.run(&["clients", "kick", "car-1", "nobody"]);
    assert_eq!((code, lines.len()), (5, 2), "{errors}");
    assert!(errors.contains("1 of 2 clients were not changed"), "{errors}");
    let kicked = shell.json(&["clients", "kick", "--username", "ops", "--end-session", "-y"]);
    assert_eq!(ids(&kicked).len(), 2);
    cars.iter_mut().for_each(|car| car.expect_disconnect(ReasonCode::AdministrativeAction));
    assert_eq!(shell.json(&["clients", "list"]), [] as [Value; 0]);
    // The history is written a moment later.
    let until = Instant::now() + PATIENCE;
    loop {
        let history = shell.json(&["clients", "history", "car-2"]);
        assert_eq!(history.len(), 1, "{history:?}");
        if history[0]["reason"] == "kicked" {
            assert_eq!(history[0]["by"], "ops");
            break;
        }
        assert!(Instant::now() < until, "{history:?}");
    }
    assert_eq!(shell.failure(&["clients", "history", "nobody"]).0, 4);
}

#[test]
fn settings_of_clients_and_users_are_changed_shown_and_removed() {
    let place = Place::new();
    let program = place.start();
    let shell = Shell::at(&program);
    let _car = program.client("a/b #");
    let set = |line: &[&str]| shell.json(&[&["clients", "settings", "set"][..], line].concat());
    let changed = set(&["a/b #", "--message-rate", "50", "--in-flight-max", "9"]).remove(0);
    let expected = json!({"message_rate": 50, "in_flight_max": 9});
    assert_eq!((&changed["settings"], &changed["node"]), (&expected, &"hearthmq".into()));
    let removed = set(&["a/b #", "--message-rate", "none"]).remove(0);
    assert_eq!(removed["settings"], json!({"in_flight_max": 9}));
    assert_eq!(shell.json(&["clients", "settings", "list"]), [] as [Value; 0]);
    // Sticky ones need no connection.
    set(&["absent", "--sticky", "--session-expiry-interval", "60", "--byte-rate", "2000"]);
    let listed = shell.json(&["clients", "settings", "list"]).remove(0);
    let expected = json!({"session_expiry_interval": 60, "byte_rate": 2_000});
    assert_eq!((&listed["client_id"], &listed["settings"]), (&"absent".into(), &expected));
    assert_eq!(shell.json(&["clients", "settings", "show", "absent"]), [listed]);
    shell.json(&["clients", "settings", "remove", "absent"]);

    let queue = ["--queue-messages-max", "7", "--queue-bytes-max", "8000"];
    let of_ops = [&["users", "settings", "set", "ops"][..], &queue].concat();
    let changed = shell.json(&of_ops).remove(0);
    let expected = json!({"queue_messages_max": 7, "queue_bytes_max": 8_000});
    assert_eq!(changed["settings"], expected);
    let client = shell.json(&["clients", "show", "a/b #"]).remove(0);
    assert_eq!(client["session"]["user_settings"], expected);
    let listed = shell.json(&["users", "settings", "list"]).remove(0);
    assert_eq!((&listed["username"], &listed["by"]), (&"ops".into(), &"ops".into()));
    assert_eq!(shell.json(&["users", "settings", "show", "ops"]), [listed]);
    shell.json(&["users", "settings", "remove", "ops"]);
    for (line, code, text) in [
        (&["users", "settings", "show", "ops"][..], 4, "settings_not_found"),
        (&["clients", "settings", "remove", "absent"], 4, "settings_not_found"),
        (&["clients", "settings", "set", "absent", "--byte-rate", "2000"], 4, "client_not_online"),
        (&["clients", "settings", "set", "a/b #", "--byte-rate", "1"], 3, "invalid_setting"),
        (&["clients", "settings", "set", "a/b #", "--byte-rate", "x"], 2, "a number or none"),
        (&["clients", "settings", "set", "a/b #", "--sticky"], 2, "required"),
    ] {
        let (found, errors) = shell.failure(line);
        assert_eq!(found, code, "{line:?}: {errors}");
        assert!(errors.contains(text), "{line:?}: {errors}");
    }
}

#[test]
fn exit_codes_tell_failures_apart() {
    let place = Place::new();
    let program = place.start();
    let shell = Shell::at(&program);
    for (line, code, text) in [
        (&["clients", "show", "nobody"][..], 4, "client_not_found"),
        (&["clients", "kick", "nobody"], 4, "client_not_online"),
        (&["clients", "keep-alive", "29", "a"], 5, "1 of 1"),
        (&["publish", "a/#", "x"], 3, "invalid_topic"),
        (&["clients", "kick"], 2, "required"),
        (&["clients", "kick", "a", "--clients", "b*"], 2, "cannot be used"),
        (&["events", "--password", "x"], 2, "unexpected argument"),
        (&["node", "--url", "ftp://127.0.0.1"], 1, "begins with http:// or https://"),
        (&["node", "--url", "http://127.0.0.1:1"], 1, "cannot be reached"),
    ] {
        let (found, errors) = shell.failure(line);
        assert_eq!(found, code, "{line:?}: {errors}");
        assert!(errors.contains(text), "{line:?}: {errors}");
    }
    let wrong = Shell::at(&program).with("HEARTHMQ_REMOTE_PASSWORD", "wrong");
    assert_eq!(wrong.failure(&["node"]).0, 3);
    let (code, errors) = Shell::at(&program).with("HEARTHMQ_REMOTE_USER", "").failure(&["node"]);
    assert!(code == 1 && errors.contains("no account"), "{errors}");
    let (code, errors) =
        Shell::at(&program).with("HEARTHMQ_REMOTE_PASSWORD", "").failure(&["node"]);
    assert!(code == 1 && errors.contains("no password"), "{errors}");
}

#[test]
fn a_message_is_published_and_waited_for() {
    let place = Place::new();
    let program = place.start();
    let shell = Shell::at(&program);
    let mut client = program.client("c");
    client.subscribe("a/+", QoS::AtMostOnce);
    let line = ["publish", "a/b", "hi", "--wait", "delivered", "--timeout-ms", "60000"];
    let published = shell.json(&line).remove(0);
    assert_eq!((&published["matched"], &published["delivered"]), (&1.into(), &1.into()));
    assert_eq!(client.message().payload, b"hi");
    fs::write(place.path("payload"), [0xFF, 0]).unwrap();
    let file = place.path("payload");
    shell.json(&["publish", "a/b", "--file", file.to_str().unwrap(), "--qos", "0"]);
    assert_eq!(client.message().payload, [0xFF, 0]);
    let node = shell.json(&["node"]).remove(0);
    assert_eq!(
        (&node["ready"], &node["version"]),
        (&true.into(), &env!("CARGO_PKG_VERSION").into())
    );
}

/// Only its owner may read a file with a password.
#[test]
fn an_account_comes_from_a_file_that_others_cannot_read() {
    let place = Place::new();
    let program = place.start();
    let file = place.path("account.toml");
    let url = format!("http://{}", program.address("http"));
    fs::write(&file, format!("url = \"{url}\"\nuser = \"ops\"\npassword = \"{PASSWORD}\"\n"))
        .unwrap();
    let shell = Shell { variables: Vec::new() };
    let line = ["node", "--account-file", file.to_str().unwrap()];
    for mode in [0o644, 0o640, 0o660, 0o602] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let (code, errors) = shell.failure(&line);
        assert!(code == 1 && errors.contains("chmod 600"), "{mode:o}: {errors}");
    }
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(shell.json(&line).len(), 1);
    fs::write(&file, "user = \"ops\"\npasword = \"secret\"\n").unwrap();
    let (code, errors) = shell.failure(&line);
    assert!(code == 1 && errors.contains("pasword") && !errors.contains("secret"), "{errors}");
}

#[test]
fn https_trusts_the_cas_of_a_file_or_those_of_the_system() {
    let pki = Pki::new();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let place = Place::new()
        .set("http.https=127.0.0.1:0")
        .set(format!("tls.certificate={}", text(&pki.server.chain)))
        .set(format!("tls.key={}", text(&pki.server.key)));
    let program = place.start();
    let url = format!("https://localhost:{}", program.address("https").port());
    let shell = Shell::at(&program).with("HEARTHMQ_REMOTE_URL", &url);
    assert_eq!(shell.json(&["node", "--ca", &text(&pki.ca)]).len(), 1);
    let (code, errors) = shell.failure(&["node"]);
    assert!(code == 1 && errors.contains("cannot be reached"), "{errors}");
    let (code, errors) = shell.failure(&["node", "--ca", &text(&pki.server.key)]);
    assert!(code == 1 && errors.contains("it has no certificate"), "{errors}");
}

/// As with `| head`.
#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let place = Place::new();
    let program = place.start();
    let shell = Shell::at(&program);
    let mut cars: Vec<_> = ["car-1", "car-2", "car-3"].map(|id| program.client(id)).into();
    let into_nothing = |line: &[&str]| {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = shell.command(line).stdout(writer).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for line in [
        &["node"][..],
        &["clients", "list"],
        &["events"],
        &["publish", "a", "x"],
        &["example-config"],
        &["completions", "bash"],
        &["man"],
    ] {
        assert_eq!(into_nothing(line), (Some(0), String::new()), "{line:?}");
    }
    // What was asked for is done.
    let kick = ["clients", "kick", "--clients", "car-*", "--yes"];
    assert_eq!(into_nothing(&kick), (Some(0), String::new()));
    cars.iter_mut().for_each(|car| car.expect_disconnect(ReasonCode::AdministrativeAction));
    let (code, errors) = into_nothing(&["clients", "kick", "car-1", "car-2"]);
    assert!(code == Some(5) && errors.contains("2 of 2"), "{errors}");
}

#[test]
fn a_selector_asks_before_it_changes_many() {
    let place = Place::new();
    let program = place.start();
    let shell = Shell::at(&program);
    let mut cars: Vec<_> = ["car-1", "car-2"].map(|id| program.client(id)).into();
    let kick = ["clients", "kick", "--clients", "car-*"];
    let keep_alive = ["clients", "keep-alive", "70", "--username", "ops"];
    for line in [&kick[..], &keep_alive] {
        let (code, errors) = shell.failure(line);
        assert!(code == 2 && errors.contains("--yes"), "{code}: {errors}");
    }
    let on_terminal = |line: &[&str], answer: &str| -> Option<(i32, String)> {
        let mut script = Command::new("script");
        let line = line.join(" ");
        script.args(["-qec", &format!("{} {line}", env!("CARGO_BIN_EXE_hearthmq")), "/dev/null"]);
        script.envs(shell.variables.iter().map(|(name, value)| (name, value)));
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        child.stdin.as_mut().unwrap().write_all(answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Some((output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap()))
    };
    let Some((code, shown)) = on_terminal(&["clients", "kick", "--clients", "'car-*'"], "n\n")
    else {
        return not_installed("bsdutils");
    };
    assert!(shown.contains("End the connections of 2 clients? [y/N]"), "{shown}");
    assert!(code == 1 && shown.contains("nothing was changed"), "{code}: {shown}");
    assert_eq!(shell.json(&["clients", "list", "--connected", "true"]).len(), 2);
    // No question is needed where nothing is changed.
    assert_eq!(shell.json(&[&keep_alive[..], &["--dry-run"]].concat()).len(), 2);
    let (code, shown) = on_terminal(&keep_alive, "\n").unwrap();
    assert!(code == 1 && shown.contains("Set 70 s as the Keep Alive of 2 clients?"), "{shown}");
    let (code, shown) = on_terminal(&keep_alive, "y\n").unwrap();
    assert_eq!(code, 0, "{shown}");
    let shown = shell.json(&["clients", "show", "car-2"]).remove(0);
    assert_eq!(shown["connection"]["keep_alive"]["in_force"], 70);
    let (code, shown) = on_terminal(&["clients", "kick", "--clients", "'car-*'"], "yes\n").unwrap();
    assert_eq!(code, 0, "{shown}");
    cars.iter_mut().for_each(|car| car.expect_disconnect(ReasonCode::AdministrativeAction));
    // Nobody is asked about nothing.
    assert_eq!(on_terminal(&["clients", "kick", "--clients", "'car-*'"], "").unwrap().0, 0);
}

/// A command that goes on; it is killed at the end.
struct Following {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

impl Following {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                drop(sender.send(serde_json::from_str(&line).unwrap()));
            }
        });
        Self { child, lines }
    }

    /// Waits for an event; returns the client that it is about.
    fn expect(&self, event: &str) -> String {
        let found = self.lines.recv_timeout(PATIENCE).unwrap();
        assert_eq!(found["event"], event, "{found}");
        found["data"]["clientid"].as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn events_are_followed_beyond_a_restart_of_the_broker() {
    let place = Place::new();
    let program = place.start();
    let address = program.address("http");
    let shell = Shell::at(&program);
    let first = program.client("car-1");
    let following = Following::start(shell.command(&["events", "--client-id", "car-*"]));
    assert_eq!(following.expect("snapshot"), "car-1");
    following.expect("snapshot_end");
    let _other = program.client("truck");
    let second = program.client("car-2");
    assert_eq!(following.expect("client_connected"), "car-2");
    drop((first, second, program));
    let mut command = place.command();
    command.args(["--set", &format!("http.listen={address}")]);
    let program = place.start_by(command);
    // What it shows until it connects again are the ends of the connections, if it has seen them.
    let reset = loop {
        let event = following.lines.recv_timeout(PATIENCE).unwrap();
        if event["event"] != "client_disconnected" {
            break event;
        }
    };
    assert_eq!(reset["event"], "reset");
    following.expect("snapshot_end");
    let _third = program.client("car-3");
    assert_eq!(following.expect("client_connected"), "car-3");
    let snapshot = Shell::at(&program).json(&["events", "--snapshot"]);
    assert_eq!(snapshot.len(), 2, "{snapshot:?}");
}

#[test]
fn a_terminal_shows_a_table() {
    let place = Place::new();
    let program = place.start();
    let _client = program.client("\u{1b}[2Jcar");
    let shell = Shell::at(&program);
    let program = env!("CARGO_BIN_EXE_hearthmq");
    let mut script = Command::new("script");
    script.args(["-qec", &format!("{program} clients list"), "/dev/null"]);
    script.envs(shell.variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    let Ok(output) = script.output() else { return not_installed("bsdutils") };
    let shown = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    assert!(lines[0].starts_with("CLIENT ID") && lines[0].contains("KEEP ALIVE"), "{shown}");
    assert!(lines[1].starts_with("\\u{1b}[2Jcar  ops"), "{shown:?}");
}

#[test]
fn completions_and_man_pages_are_made() {
    let place = Place::new();
    let shell = Shell { variables: Vec::new() };
    for name in ["bash", "zsh", "fish"] {
        let (code, lines, _) = shell.run(&["completions", name]);
        assert_eq!(code, 0);
        let text = lines.join("\n");
        assert!(text.contains("keep-alive") && text.contains("account-file"), "{name}");
    }
    let (code, lines, _) = shell.run(&["man"]);
    assert!(code == 0 && lines.iter().any(|line| line.contains("clients")), "{lines:?}");
    let directory = place.path("man");
    assert_eq!(shell.run(&["man", directory.to_str().unwrap()]).0, 0);
    for page in ["hearthmq", "hearthmq-clients-keep-alive", "hearthmq-events"] {
        let text = fs::read_to_string(directory.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(&format!(".TH {page}")), "{page}");
    }
}

#[test]
fn health_is_asked_without_an_account() {
    let place = Place::new();
    let policy = place.path("data/policy.toml");
    let rules = fs::read_to_string(&policy).unwrap();
    let may_redirect =
        "[[rules]]\neffect = \"allow\"\nusers = [\"ops\"]\ntopics = [\"$control/redirect\"]";
    fs::write(&policy, format!("{rules}\n{may_redirect}\n")).unwrap();
    let program = place.start();
    let url = format!("http://{}", program.address("http"));
    let shell = Shell { variables: vec![("HEARTHMQ_REMOTE_URL", url)] };
    assert_eq!(shell.json(&["health"]), [serde_json::json!({"status": "ready"})]);

    // It accepts no clients now, which a health check must notice.
    let elsewhere = r#"{"clients":"*","server_reference":"b.example","refuse_connects":true}"#;
    let head = "POST /api/v1/redirect HTTP/1.1\r\nHost: localhost\r\nConnection: close";
    let login = crate::http::basic(&format!("ops:{PASSWORD}"));
    let length = elsewhere.len();
    let request = format!(
        "{head}\r\nAuthorization: {login}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{elsewhere}"
    );
    let answer = program.send(request);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let (code, errors) = shell.failure(&["health"]);
    assert_eq!((code, &*errors), (1, "hearthmq: the broker is not ready: redirecting\n"));

    let nowhere = Shell { variables: Vec::new() }.with("HEARTHMQ_REMOTE_URL", "http://127.9.8.7:1");
    assert_eq!(nowhere.failure(&["health"]).0, 1);
}
