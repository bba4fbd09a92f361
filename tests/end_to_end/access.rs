//! Rules, API tokens, bans and the audit log of the program: by the commands of a shell, with clients
//! that are connected meanwhile, and over a restart.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use hearthmq::mqtt::ReasonCode;
use serde_json::Value;

use crate::program::{PASSWORD, PATIENCE, Place, Program};

/// `ops` may do everything; everybody may connect, and publish.
const POLICY: &str = r#"
[[rules]]
priority = 1
effect = "allow"
actions = ["connect", "publish", "subscribe", "observe", "control", "administer"]
users = ["ops"]

[[rules]]
effect = "allow"
actions = ["connect", "publish"]
"#;

fn place() -> Place {
    let place = Place::new();
    fs::write(place.path("data/policy.toml"), POLICY).unwrap();
    place
}

/// Runs a command with an account or a token.
pub(crate) fn run(program: &Program, variables: &[(&str, &str)], line: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hearthmq"))
        .args(line)
        .env_remove("HOME")
        .env("HEARTHMQ_REMOTE_URL", format!("http://{}", program.address("http")))
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub(crate) const OPS: &[(&str, &str)] =
    &[("HEARTHMQ_REMOTE_USER", "ops"), ("HEARTHMQ_REMOTE_PASSWORD", PASSWORD)];

/// Runs a command of `ops` that succeeds; returns the JSON of its lines.
pub(crate) fn done(program: &Program, line: &[&str]) -> Vec<Value> {
    let output = run(program, OPS, line);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line:?}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn rules_bans_and_tokens_hold_at_once_and_over_a_restart() {
    let place = place();
    let mut program = place.start();
    let deny = place.path("deny.json");
    fs::write(&deny, r#"{"effect":"deny","priority":2,"actions":["publish"],"topics":["x"]}"#)
        .unwrap();
    let deny = deny.to_str().unwrap();
    done(&program, &["rules", "put", "no-x", deny]);
    let check = ["rules", "check", "publish", "x", "--username", "device-1"];
    let decided = done(&program, &check).remove(0);
    assert_eq!((&decided["decision"], &decided["id"]), (&"deny".into(), &"no-x".into()));
    assert_eq!(done(&program, &["rules", "list"])[0]["id"], "no-x");

    let mut car = program.client("car-1");
    let ban = ["bans", "add", "--client-id", "car-*", "--reason", "noise"];
    assert_eq!(done(&program, &ban)[0]["sessions_touched"], 1);
    car.expect_disconnect(ReasonCode::AdministrativeAction);

    let rules = place.path("rules.json");
    fs::write(&rules, r#"[{"effect":"allow","actions":["observe"]}]"#).unwrap();
    let made = done(&program, &["tokens", "create", "ci", rules.to_str().unwrap()]).remove(0);
    let token = made["token"].as_str().unwrap().to_owned();
    let with_token = |program: &Program, line: &[&str]| {
        run(program, &[("HEARTHMQ_REMOTE_TOKEN", &token)], line).status.code().unwrap()
    };
    assert_eq!(with_token(&program, &["clients", "list"]), 0);
    assert_eq!(with_token(&program, &["clients", "kick", "car-1"]), 5);
    assert_eq!(with_token(&program, &["audit"]), 3);

    program.signal("-TERM");
    program.wait(PATIENCE);
    let program = place.start();
    assert_eq!(done(&program, &check)[0]["id"], "no-x");
    assert_eq!(done(&program, &["bans", "list"])[0]["value"], "car-*");
    assert_eq!(with_token(&program, &["clients", "list"]), 0);
    done(&program, &["bans", "lift", "--client-id", "car-*"]);
    program.client("car-1");
    done(&program, &["rules", "delete", "no-x"]);
    done(&program, &["tokens", "delete", "ci"]);
    assert_eq!(with_token(&program, &["clients", "list"]), 3);
    let audit = done(&program, &["audit"]);
    let all: Vec<_> = audit.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(all, ["rule", "ban", "token", "ban", "rule", "token"]);
    assert!(audit.iter().all(|entry| entry["user"] == "ops" && entry["address"].is_string()));
    assert!(!format!("{audit:?}").contains(&token[6..]));
}

#[test]
fn a_reload_is_in_the_audit_log() {
    let place = place();
    let program = place.start();
    let file = place.path("hearthmq.toml");
    let text = fs::read_to_string(&file).unwrap();
    let more =
        "\n[auth.http]\nurl = \"https://service.example/s3cr3t\"\n[tls]\ncrl_refresh_secs = 1234\n";
    fs::write(&file, format!("{text}{more}")).unwrap();
    program.signal("-HUP");
    program.line_with(&["all sessions checked again"]);
    let audit = done(&program, &["audit"]);
    assert_eq!(audit.len(), 1, "{audit:?}");
    assert_eq!((&audit[0]["action"], audit[0]["user"].is_null()), (&"reload".into(), true));
    let values = |name: &str| serde_json::from_str::<Value>(audit[0][name].as_str().unwrap());
    let (old, new) = (values("old").unwrap(), values("new").unwrap());
    assert_eq!(new["tls.crl_refresh_secs"], 1_234);
    assert!(old["tls.crl_refresh_secs"].is_number() && old != new, "{old}");
    assert_eq!(new["auth.http.url"], "(not shown)");
    assert!(!format!("{audit:?}").contains("s3cr3t"));
}

#[test]
fn failed_logins_are_seen_and_forgotten_from_a_shell() {
    let place = place().set("auth.throttle.address_failures_max=100");
    let program = place.start();
    let wrong = [("HEARTHMQ_REMOTE_USER", "ops"), ("HEARTHMQ_REMOTE_PASSWORD", "wrong")];
    assert_eq!(run(&program, &wrong, &["node"]).status.code(), Some(3));
    let found = done(&program, &["logins", "list"]);
    assert_eq!((&found[0]["address"], &found[0]["over"]), (&"127.0.0.1".into(), &"rest".into()));
    done(&program, &["logins", "forget", "127.0.0.1"]);
    assert!(done(&program, &["logins", "list"]).is_empty());
    let again = run(&program, OPS, &["logins", "forget", "127.0.0.1"]);
    assert_eq!(again.status.code(), Some(4));
}
