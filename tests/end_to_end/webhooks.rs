//! Webhooks of the program: its configuration, what an independent implementation says of a
//! signature, and a program that is killed in the middle of a batch.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearthmq_test::receiver::{Call, Receiver};

use crate::{
    program::{Place, Program},
    reload::read_again,
    skipped::not_installed,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEXT_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// A receiver that follows the rules of docs/events.md verifies a message by them.
const VERIFY: &str = r#"
import base64, hashlib, hmac, sys
secret, id, at, signatures = sys.argv[1:]
signed = f"{id}.{at}.".encode() + sys.stdin.buffer.read()
key = base64.b64decode(secret.removeprefix("whsec_"))
own = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
sys.exit(own not in signatures.split())
"#;

fn place_with(webhook: &str) -> Place {
    let place = Place::new();
    let file = place.path("hearthmq.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}\n[[webhook]]\n{webhook}\n")).unwrap();
    place
}

fn place(receiver: &Receiver) -> Place {
    let place = place_with(&format!(
        "name = \"fleet\"\nurl = \"http://{}/events\"\nsecret_files = [\"secret\"]",
        receiver.address
    ));
    fs::write(place.path("secret"), format!("{SECRET}\n")).unwrap();
    place
}

fn data_of(call: &Call, event: usize) -> serde_json::Value {
    call.json()["events"][event]["data"].clone()
}

fn start(place: &Place, receiver: &Receiver) -> (Program, Call) {
    let program = place.start();
    let call = receiver.next();
    assert_eq!(call.events(), ["reset"], "the first message of a run");
    (program, call)
}

#[test]
fn nothing_is_lost_that_reset_does_not_cover_if_the_program_is_killed_in_a_batch() {
    let receiver = Receiver::start();
    let place = place(&receiver);
    let (mut program, reset) = start(&place, &receiver);
    let first_epoch = data_of(&reset, 0)["epoch"].clone();
    reset.answer("204 No Content");
    let car = program.client("car");
    let connected = receiver.next();
    assert_eq!(connected.events(), ["client_connected car"]);
    let version = data_of(&connected, 0)["version"].as_u64().unwrap();
    connected.answer("204 No Content");
    drop(car);
    // The endpoint has this message, and has not answered: it may have applied it or not.
    let in_the_middle = receiver.next();
    let id = in_the_middle.header("webhook-id").to_owned();
    assert_eq!(in_the_middle.events(), ["client_disconnected car"]);
    program.killed();
    drop(in_the_middle);

    let (program, reset) = start(&place, &receiver);
    assert_ne!(data_of(&reset, 0)["epoch"], first_epoch);
    // With this version, the receiver knows that events up to it are of an earlier run.
    let floor = data_of(&reset, 0)["version"].as_u64().unwrap();
    assert!(floor >= version, "{floor} covers {version}");
    reset.answer("204 No Content");
    let again = receiver.next();
    assert_eq!(
        (again.header("webhook-id"), again.events()),
        (&*id, vec!["client_disconnected car".to_owned()])
    );
    again.answer("204 No Content");
    let _car = program.client("car");
    let connected = receiver.next();
    assert_eq!(connected.events(), ["client_connected car"]);
    assert!(data_of(&connected, 0)["version"].as_u64().unwrap() > floor);
    connected.answer("204 No Content");
}

#[test]
fn what_was_taken_is_not_sent_again_after_a_restart() {
    let receiver = Receiver::start();
    let place = place(&receiver);
    let (mut program, reset) = start(&place, &receiver);
    reset.answer("204 No Content");
    drop(program.client("car"));
    receiver.take_until("client_disconnected car");
    // The answer is known before the end, because the next message follows it.
    drop(program.client("bus"));
    receiver.take_until("client_disconnected bus");
    program.signal("-TERM");
    assert!(program.wait(crate::program::PATIENCE).success());
    let (program, reset) = start(&place, &receiver);
    reset.answer("204 No Content");
    drop(program.client("van"));
    let events = receiver.take_until("client_disconnected van");
    assert!(!events.iter().any(|event| event.ends_with("car")), "{events:?}");
}

#[test]
fn an_independent_implementation_accepts_the_signature() {
    if Command::new("python3").arg("--version").output().is_err() {
        return not_installed("python3");
    }
    let receiver = Receiver::start();
    let (_program, call) = start(&place(&receiver), &receiver);
    let verify = |body: &[u8]| {
        let mut python = Command::new("python3")
            .args(["-c", VERIFY, SECRET])
            .args(
                ["webhook-id", "webhook-timestamp", "webhook-signature"]
                    .map(|name| call.header(name)),
            )
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        python.stdin.take().unwrap().write_all(body).unwrap();
        python.wait().unwrap().success()
    };
    assert!(verify(&call.body));
    assert!(!verify(b"{}"));
}

#[test]
fn a_webhook_that_cannot_be_used_stops_the_start_with_its_place() {
    let run = |webhook: &str| {
        let output = place_with(webhook).run();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        said.lines().last().unwrap().to_owned()
    };
    let secret = format!("secrets = [\"{SECRET}\"]");
    let url = "url = \"https://fleet.example/\"";
    // The configuration above a webhook has 15 lines.
    for (webhook, expected) in [
        (
            format!("name = \"a\"\nurl = \"http://192.0.2.7/\"\n{secret}"),
            ":17:1: url of a [[webhook]]: http to 192.0.2.7 is not encrypted",
        ),
        (
            format!("name = \"A\"\n{url}\n{secret}"),
            ":16:1: name of a [[webhook]]: \"A\" is not a valid name of a webhook",
        ),
        (format!("name = \"a\"\n{url}"), "secrets of a [[webhook]]: there is none"),
        (
            format!("name = \"a\"\n{url}\n{secret}\nkinds = [\"gone\"]"),
            ":19:1: kinds of a [[webhook]]: \"gone\" is not a kind of event: there are client_connected",
        ),
        (
            format!("name = \"a\"\n{url}\n{secret}\ndelay_ms = 2000"),
            "a bound of the webhook is out of range",
        ),
        (
            format!("name = \"a\"\n{url}\nsecrets = [\"x\"]"),
            ":18:1: secrets of a [[webhook]]: not a secret",
        ),
        (
            format!("name = \"a\"\n{url}\n{secret}\nurll = \"x\""),
            ":19:1: there is no option urll in [[webhook]]; did you mean url?",
        ),
        (
            format!("name = \"a\"\n{url}\nsecret_files = [\"no.secret\"]"),
            "[[webhook]] a: secret_files: no.secret: No such file",
        ),
    ] {
        let said = run(&webhook);
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("MfKQ9r8"), "{said}");
    }
}

/// Returns whether the signature of a message by each of these secrets is among those of the call.
fn signed_by<const N: usize>(call: &Call, secrets: [&str; N]) -> [bool; N] {
    let (id, at) = (call.header("webhook-id"), call.header("webhook-timestamp"));
    let signed = [format!("{id}.{at}.").as_bytes(), &call.body].concat();
    secrets.map(|secret| {
        let key = STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let signature = format!("v1,{}", STANDARD.encode(hmac::sign(&key, &signed)));
        call.header("webhook-signature").split(' ').any(|one| one == signature)
    })
}

/// From one secret to two, and to the next one: the receiver misses no message meanwhile.
#[test]
fn a_secret_changes_at_sighup_without_a_message_that_cannot_be_verified() {
    let receiver = Receiver::start();
    let place = place(&receiver);
    let (program, reset) = start(&place, &receiver);
    let signed = |call: &Call| signed_by(call, [SECRET, NEXT_SECRET]);
    assert_eq!(signed(&reset), [true, false]);
    let file = place.path("hearthmq.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(place.path("next"), NEXT_SECRET).unwrap();
    let both = text.replace("secret_files = [\"secret\"]", "secret_files = [\"secret\", \"next\"]");
    fs::write(&file, &both).unwrap();
    read_again(&program);
    // The second attempt for the same message.
    let id = reset.header("webhook-id").to_owned();
    reset.answer("500 Broken");
    let reset = receiver.next();
    assert_eq!((reset.header("webhook-id"), signed(&reset)), (&*id, [true, true]));
    reset.answer("204 No Content");

    fs::write(&file, both.replace("\"secret\", ", "")).unwrap();
    read_again(&program);
    let car = program.client("car");
    let call = receiver.next();
    assert_eq!(signed(&call), [false, true]);
    call.answer("204 No Content");

    // A file that has no secret changes nothing, and is named without what stands in it.
    fs::write(place.path("next"), "whsec_short").unwrap();
    read_again(&program);
    let line = program.line_with(&["secrets of a webhook stay as they were", "next"]);
    assert!(!line.contains("whsec_short"), "{line}");
    drop(car);
    let call = receiver.next();
    assert_eq!(
        (call.events(), signed(&call)),
        (vec!["client_disconnected car".into()], [false, true])
    );
    call.answer("204 No Content");
    // The same file with another secret: the configuration has not changed.
    fs::write(place.path("next"), SECRET).unwrap();
    read_again(&program);
    let _bus = program.client("bus");
    let call = receiver.next();
    assert_eq!(signed(&call), [true, false]);
    call.answer("204 No Content");
    assert!(program.logged().iter().all(|line| !line.contains("need a restart")));
}
