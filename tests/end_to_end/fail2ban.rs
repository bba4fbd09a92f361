//! The filter for fail2ban that docs/operations.md prints, against lines that the program writes, in both formats.

use hearthmq::mqtt::{Connect, ReasonCode};
use regex_lite::Regex;

use crate::{
    http::basic,
    mqtt::{Client, connect, tcp},
    program::{PASSWORD, Place, Program},
};

/// The expressions of the filter. fail2ban takes the time stamp of the text format away before it
/// matches, and puts its own expressions in place of the addresses.
fn filter() -> Vec<Regex> {
    let readme = include_str!("../../docs/operations.md");
    let (_, filter) = readme.split_once("failregex = ").unwrap();
    let (filter, _) = filter.split_once("datepattern").unwrap();
    let expressions = filter.lines().map(|line| {
        let line = line.trim_start().replace("<IP6>", "(?P<six>[0-9A-Fa-f:]+)");
        Regex::new(&line.replace("<IP4>", r"(?P<four>\d+\.\d+\.\d+\.\d+)")).unwrap()
    });
    expressions.filter(|expression| !expression.as_str().is_empty()).collect()
}

/// The address that the filter finds in a line.
fn found(filter: &[Regex], line: &str) -> Option<String> {
    let line = match line.strip_prefix('{') {
        Some(_) => line,
        None => line.split_once(' ').unwrap().1,
    };
    filter.iter().find_map(|expression| {
        let captures = expression.captures(line)?;
        let address = captures.name("four").or_else(|| captures.name("six"));
        Some(address.unwrap().as_str().to_owned())
    })
}

/// One line for the lock-out, and an answer that names who is meant.
#[test]
fn a_lock_out_of_a_caller_is_told_once_and_answered_with_its_name() {
    let place =
        Place::new().set("auth.throttle.failures_max=3").set("auth.throttle.refusal_secs=600");
    let program = place.start();
    let call = |password: &str| {
        let shown = basic(&format!("ops:{password}"));
        program.call_as(Some(&shown), "GET /client-id/demo/status")
    };
    for number in 0..3 {
        assert_eq!(call(&format!("guess {number}")).status, 401);
    }
    for _ in 0..3 {
        let answer = call(PASSWORD);
        assert_eq!(answer.status, 429);
        assert!(answer.body.contains(r#"user \"ops\" from 127.0.0.1"#), "{}", answer.body);
    }
    let line = program.line_with(&["locked out"]);
    for part in ["address=127.0.0.1", "over=\"REST\"", "secs=600", "user=\"ops\""] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let lines = program.logged();
    let of = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!((of("locked out"), of("call refused")), (1, 3), "{lines:#?}");
}

/// Fails to log in in every way, in names that would mislead a careless filter.
fn fail(program: &Program) {
    let evil = r#"x" peer=192.0.2.9:1 reason="bad_credentials"#;
    for number in 0..4 {
        let password = format!("guess {number}");
        let packet =
            Connect { username: Some(evil), password: Some(password.as_bytes()), ..connect("c") };
        let (_, reason) = Client::on(tcp(program.address("mqtt")), packet).unwrap();
        assert_ne!(reason, ReasonCode::Success);
        let shown = basic(&format!("{}:{password}", evil.replace(':', "")));
        program.call_as(Some(&shown), "GET /client-id/c/status?peer=192.0.2.9:1");
    }
    program.line_with(&["locked out", "REST"]);
    program.line_with(&["locked out", "MQTT"]);
}

#[test]
fn the_printed_filter_finds_the_address_in_each_line_about_a_failure() {
    let filter = filter();
    for format in ["text", "json"] {
        let place = Place::new()
            .set(format!("log.format={format}"))
            .set("auth.throttle.failures_max=3")
            .set("auth.throttle.refusal_secs=600");
        let program = place.start();
        program.client("good").ping();
        fail(&program);
        // All lines come through one queue: those before this one are there as well.
        program.client("later").ping();
        program.line_with(&["connected", "later"]);
        let lines = program.logged();
        let is_failure = |line: &&String| {
            ["connect refused", "call refused", "locked out"].iter().any(|text| line.contains(text))
        };
        let failures: Vec<_> = lines.iter().filter(is_failure).collect();
        assert_eq!(failures.len(), 3 + 3 + 2, "{lines:#?}");
        for line in &lines {
            let address = found(&filter, line);
            let expected = is_failure(&line).then(|| "127.0.0.1".to_owned());
            assert_eq!(address, expected, "{line}");
        }
    }
}
