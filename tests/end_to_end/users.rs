//! Accounts in the store of the program: by the commands of a shell, over REST, and with devices that
//! stay connected meanwhile.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::{Command, Output, Stdio},
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearthmq::mqtt::{Connect, ReasonCode};
use hearthmq_test::mqtt::{Client, connect, tcp};
use serde_json::Value;

use crate::{
    access,
    program::{PASSWORD, PATIENCE, Place, Program},
};

/// `ops` administers, members of the group `cars` use the topics of their site.
const POLICY: &str = r#"
[[rules]]
effect = "allow"
actions = ["connect", "publish", "subscribe", "observe", "control", "administer"]
users = ["ops"]

[[rules]]
effect = "allow"
actions = ["connect", "publish", "subscribe"]
groups = ["cars"]
clients = ["${username}*"]
"#;

fn place() -> Place {
    let place = Place::new();
    fs::write(place.path("data/policy.toml"), POLICY).unwrap();
    place
}

/// Runs `hearthmq users …` as `ops`, with this standard input.
fn users(program: &Program, line: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hearthmq"))
        .arg("users")
        .args(line)
        .env_remove("HOME")
        .env("HEARTHMQ_REMOTE_URL", format!("http://{}", program.address("http")))
        .env("HEARTHMQ_REMOTE_USER", "ops")
        .env("HEARTHMQ_REMOTE_PASSWORD", PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Beside the reading: the command writes results while it still reads.
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    let writer = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Runs a command that succeeds; returns its standard output.
fn done(program: &Program, line: &[&str], input: &str) -> String {
    let output = users(program, line, input);
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Logs in; returns the client with the answer.
fn log_in(program: &Program, user: &str, password: &str, id: &str) -> (Client, ReasonCode) {
    let packet =
        Connect { username: Some(user), password: Some(password.as_bytes()), ..connect(id) };
    Client::on(tcp(program.address("mqtt")), packet).unwrap()
}

#[test]
fn an_account_lives_from_its_creation_to_its_removal() {
    let place = place();
    let mut program = place.start();
    let secret = done(&program, &["add", "car-17", "--group", "cars", "--secret"], "");
    let secret = secret.trim().to_owned();
    assert!(secret.starts_with("hmq_d_"), "{secret}");
    let (mut car, reason) = log_in(&program, "car-17", &secret, "car-17");
    assert_eq!(reason, ReasonCode::Success);
    assert_eq!(log_in(&program, "car-17", &secret, "car-18").1, ReasonCode::NotAuthorized);
    let shown = json(&done(&program, &["show", "car-17"], "")).remove(0);
    assert_eq!((&shown["groups"][0], &shown["disabled"]), (&"cars".into(), &false.into()));
    assert!(shown["secrets"][0]["last_used_at"].is_u64(), "{shown}");

    done(&program, &["password", "car-17"], "correct horse\n");
    assert_eq!(log_in(&program, "car-17", "correct horse", "car-17-2").1, ReasonCode::Success);
    let disabled = json(&done(&program, &["disable", "car-17"], "")).remove(0);
    assert!(disabled["sessions_touched"].as_u64() >= Some(1), "{disabled}");
    car.expect_disconnect(ReasonCode::NotAuthorized);
    assert_eq!(log_in(&program, "car-17", &secret, "car-17").1, ReasonCode::NotAuthorized);
    done(&program, &["enable", "car-17"], "");

    // A restart keeps all of it.
    program.signal("-TERM");
    assert!(program.wait(PATIENCE).success());
    let mut program = place.start();
    let again = json(&done(&program, &["show", "car-17"], "")).remove(0);
    let (used, before) =
        (&again["secrets"][0]["last_used_at"], &shown["secrets"][0]["last_used_at"]);
    assert!(used.as_u64() >= before.as_u64() && used.is_u64(), "{again}");
    let (mut car, reason) = log_in(&program, "car-17", &secret, "car-17");
    assert_eq!(reason, ReasonCode::Success);
    let id = shown["secrets"][0]["id"].as_str().unwrap();
    done(&program, &["secret", "car-17", "--remove", id], "");
    car.expect_disconnect(ReasonCode::NotAuthorized);
    let removed = json(&done(&program, &["delete", "car-17"], "")).remove(0);
    assert_eq!(removed["success"], true);
    assert_eq!(users(&program, &["show", "car-17"], "").status.code(), Some(4));
    let wrong = log_in(&program, "car-17", "correct horse", "car-17").1;
    assert_eq!(wrong, ReasonCode::BadUserNameOrPassword);
    let in_file = users(&program, &["add", "ops"], "");
    assert_eq!(in_file.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&in_file.stderr).contains("user_in_file"));
    // The log names changes and callers, and nothing secret.
    let log = program.killed();
    assert!(log.contains("call=\"user\"") || log.contains("call=user"), "{log}");
    assert!(!log.contains(&secret[6..]) && !log.contains("correct horse"), "{log}");
}

/// The connection remembers who its caller is, and yet each change counts from the next call on.
#[test]
fn a_change_of_an_account_or_a_token_counts_on_connections_that_are_open() {
    let place = place();
    let program = place.start();
    done(&program, &["add", "ann", "--group", "cars", "--password"], "correct horse\n");
    let rules = place.path("rules.json");
    fs::write(&rules, r#"[{"effect":"allow","actions":["observe"]}]"#).unwrap();
    let rules = rules.to_str().unwrap();
    let token = access::done(&program, &["tokens", "create", "reader", rules]).remove(0);
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!("ann:{password}")));
    let mut streams = [(); 2].map(|()| tcp(program.address("http")));
    let mut status_of = |stream: usize, authorization: &str| {
        let request = format!(
            "GET /client-id/ann-1/status HTTP/1.1\r\nHost: h\r\nAuthorization: {authorization}\r\n\r\n"
        );
        let stream = &mut streams[stream];
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        String::from_utf8(answer[9..12].to_vec()).unwrap()
    };
    for _ in 0..3 {
        assert_eq!(status_of(0, &basic("correct horse")), "200");
        assert_eq!(status_of(1, &bearer), "200");
    }
    assert_eq!(status_of(0, &basic("wrong")), "401");
    assert_eq!(status_of(0, &basic("correct horse")), "200");
    done(&program, &["password", "ann"], "better horse\n");
    assert_eq!(status_of(0, &basic("correct horse")), "401");
    assert_eq!(status_of(0, &basic("better horse")), "200");
    done(&program, &["disable", "ann"], "");
    assert_ne!(status_of(0, &basic("better horse")), "200");
    assert_eq!(status_of(1, &bearer), "200");
    access::done(&program, &["tokens", "delete", "reader"]);
    assert_eq!(status_of(1, &bearer), "401");
}

#[test]
fn a_fleet_is_imported_exported_and_imported_elsewhere() {
    let place = place();
    let program = place.start();
    let mut lines = String::new();
    for number in 0..12_000 {
        let hash = format!("{number:064x}");
        lines += &format!(
            "{{\"name\":\"car-{number:05}\",\"groups\":[\"cars\"],\"secrets\":[{{\"sha256\":\"{hash}\"}}]}}\n"
        );
    }
    lines += "{\"name\":\"ann\",\"password\":\"correct horse\",\"groups\":[\"cars\"]}\nnothing\n";
    let output = users(&program, &["import", "-"], "");
    assert_eq!(output.status.code(), Some(1), "there is no file of this name");
    let output = users(&program, &["import"], &lines);
    assert_eq!(output.status.code(), Some(5));
    let results = json(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(results.len(), 12_003);
    assert_eq!(results[12_001]["code"], "invalid_body");
    assert_eq!(results[12_001]["line"], 12_002);
    let sums = &results[12_002];
    assert_eq!((&sums["created"], &sums["failed"]), (&12_001.into(), &1.into()));
    assert_eq!(log_in(&program, "ann", "correct horse", "ann").1, ReasonCode::Success);
    let page = json(&done(&program, &["list", "--limit", "3"], ""));
    let names: Vec<_> = page.iter().map(|user| user["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ann", "car-00000", "car-00001"]);

    let file = place.path("fleet.ndjson");
    // A file that everybody could read does not stay so: the lines have hashes.
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    done(&program, &["export", "--file", file.to_str().unwrap()], "");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let exported = fs::read_to_string(&file).unwrap();
    assert_eq!(exported.lines().count(), 12_001);
    drop(program);
    let elsewhere = self::place();
    let program = elsewhere.start();
    done(&program, &["import", file.to_str().unwrap()], "");
    assert_eq!(log_in(&program, "ann", "correct horse", "ann").1, ReasonCode::Success);
    assert_eq!(done(&program, &["export"], ""), exported);
}
