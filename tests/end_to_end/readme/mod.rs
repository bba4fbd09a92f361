//! Tests every example in README and the documents: runs those that can run, and checks the others.
//!
//! A block of code says by its language, and by a marker in the comment before it, how it is tested:
//!
//! | block | test |
//! |---|---|
//! | `rust,no_run` | compiled with the documentation tests of `src/lib.rs` |
//! | `toml` | loaded as a configuration, a policy or accounts |
//! | `json` | parsed; in `docs/events.md` compared with the types of the events |
//! | `sh` with `<!-- example: broker -->` | run against a broker; `json answer` after it is the output |
//! | `sh` with `<!-- example: shell -->` | run in an empty directory; `shell NAME` goes on in one directory |
//! | `sh` with `<!-- example: tutorial -->` | run one after another by one shell, with its own broker |
//! | `sh` with `<!-- example: bridges -->` | the same, with two brokers |
//! | `sh` with `<!-- example: store -->`, then `stopped` | run beside a broker, then after its end |
//! | `sh` without a marker | names and options are checked: of `cargo`, of `hearthmq` |
//! | `ini` with `<!-- example: fail2ban -->` | its expression is applied to the log |
//! | `nginx`, `haproxy` | run between clients and a broker by tests/clients/proxies.py |
//! | any with `<!-- not run: REASON -->` | listed on standard error with the reason |
//! | `text` | no test, and no command in it |

mod blocks;
mod broker;
mod data;
mod facts;
mod library;
mod links;
mod shell;

use std::io::{self, Write as _};

use blocks::{Block, blocks};

/// Tests a block by its language, unless a marker says otherwise.
fn check(block: &Block) {
    match (&*block.language, block.not_run()) {
        (_, Some(reason)) => {
            assert!(reason.len() > 10, "{block}: the marker gives no reason");
            drop(writeln!(io::stderr(), "NOT RUN {block}: {reason}"));
            block.lines().filter_map(|line| line.strip_prefix("ExecStart=")).for_each(|line| {
                let (_, command) = line.split_once("bin/").unwrap();
                shell::check(block, command);
            });
        }
        ("toml", None) => data::check_toml(block),
        ("json", None) => drop(data::values(block, &block.text)),
        ("rust,no_run", None) => {
            let included = format!("include_str!(\"../{}\")", block.document);
            let library = include_str!("../../../src/lib.rs");
            assert!(library.contains(&included), "{block}: src/lib.rs has no {included}");
        }
        ("sh", None) if block.example().is_none() => shell::check(block, &block.text),
        ("text", None) => {
            let commands = ["cargo ", "hearthmq ", "curl ", "mosquitto_", "openssl ", "$ "];
            let is_command = |line: &str| commands.iter().any(|it| line.starts_with(it));
            assert!(!block.lines().any(is_command), "{block}: a command in a block of text");
        }
        ("sh" | "ini" | "json answer", None) => {} // the tests of this file run them
        ("nginx" | "haproxy", None) => {}          // tests/clients/proxies.py runs them
        (language, None) => panic!("{block}: no test for {language:?}; give a marker"),
    }
}

#[test]
fn every_block_is_tested_or_says_why_not() {
    let all = blocks();
    assert!(all.len() > 60, "{} blocks", all.len());
    for (at, block) in all.iter().enumerate() {
        if block.language == "json answer" {
            assert_eq!(all[at - 1].example(), Some("broker"), "{block}: an answer to what?");
        }
        if let Some(example) = block.example() {
            let kind = example.split(' ').next().unwrap();
            let kinds = "broker shell store stopped tutorial bridges fail2ban nginx haproxy";
            let known = kinds.split(' ').any(|known| known == kind);
            assert!(known, "{block}: no test for {example:?}");
        }
        check(block);
    }
}

#[test]
fn calls_are_answered_as_documented() {
    if !shell::is_installed("curl") {
        return;
    }
    let all = blocks();
    for (at, block) in all.iter().enumerate() {
        if block.example() != Some("broker") {
            continue;
        }
        let broker = broker::Broker::start();
        let _clients = ["demo", "car-17"].map(|client_id| broker.client(client_id));
        let output = broker.run(block);
        let answers = data::values(block, &output);
        let expected = &all[at + 1];
        assert_eq!(expected.language, "json answer", "{block}: no answer");
        assert_eq!(answers, data::values(expected, &expected.text), "{expected}");
    }
}

#[test]
fn commands_do_what_they_say() {
    if !shell::is_installed("openssl") {
        return;
    }
    let series = tempfile::tempdir().unwrap();
    for block in blocks() {
        match block.example() {
            Some("shell") => {
                let directory = tempfile::tempdir().unwrap();
                shell::run(&block, &block.text, directory.path());
            }
            Some(example) if example.starts_with("shell ") => {
                let directory = series.path().join(example.replace("shell ", ""));
                std::fs::create_dir_all(&directory).unwrap();
                shell::run(&block, &block.text, &directory);
            }
            _ => {}
        }
    }
}

#[test]
fn the_tutorial_leads_to_a_fleet() {
    if !["openssl", "curl", "mosquitto_sub"].into_iter().all(shell::is_installed) {
        return;
    }
    let directory = run_steps("tutorial", 1);
    let denied = std::fs::read_to_string(directory.path().join("denied.log")).unwrap();
    assert!(denied.contains("Not authorized"), "{denied}");
    let received = std::fs::read_to_string(directory.path().join("car-1.log")).unwrap();
    assert_eq!(received, "cars/car-1/command come home\n");
}

#[test]
fn the_first_bridge_carries_messages_and_keeps_one() {
    if !["openssl", "mosquitto_sub"].into_iter().all(shell::is_installed) {
        return;
    }
    let directory = run_steps("bridges", 2);
    let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap();
    assert_eq!(read("first.log"), "plant-7/sensors/oven 210\n");
    assert_eq!(read("second.log"), "plant-7/sensors/oven 215\n");
}

/// Runs the blocks with a marker one after another by one shell, whose brokers are at an address of this
/// number; returns the directory.
fn run_steps(example: &str, number: u32) -> tempfile::TempDir {
    let all = blocks();
    let steps: Vec<_> = all.iter().filter(|block| block.example() == Some(example)).collect();
    assert!(steps.len() > 3, "{} steps", steps.len());
    let script: String = steps.iter().map(|block| &*block.text).collect();
    // Its ports are free at an address of its own.
    let id = std::process::id();
    let address = format!("127.{}.{}.{}", 82 + number, id / 250 % 250, id % 250 + 1);
    let directory = tempfile::tempdir().unwrap();
    let script = script.replace("127.0.0.1", &address);
    shell::run_with_jobs(steps[0], &script, directory.path());
    directory
}

#[test]
fn a_backup_is_made_and_restored() {
    let all = blocks();
    let named = |name| all.iter().filter(move |block| block.example() == Some(name));
    let mut broker = broker::Broker::start();
    for block in named("store") {
        broker.run(block);
    }
    broker.stop();
    for block in named("stopped") {
        broker.run(block);
    }
    broker.start_again();
    drop(broker.client("demo"));
}

#[test]
fn fail2ban_finds_the_address_of_a_refused_client() {
    if !shell::is_installed("python3") {
        return;
    }
    let all = blocks();
    let block = all.iter().find(|block| block.example() == Some("fail2ban")).unwrap();
    // One expression on each line, the first of them behind the name of the option.
    let (_, expressions) = block.text.split_once("failregex = ").unwrap();
    let (expressions, _) = expressions.split_once("\ndatepattern").unwrap();
    let address = |line: &str| line.replace("<IP6>", "[0-9a-f:]+").replace("<IP4>", "([0-9.]+)");
    let expressions: Vec<_> = expressions.lines().map(|line| address(line.trim_start())).collect();
    let broker = broker::Broker::start();
    broker.refused("a password that is wrong");
    let line = broker.line_with("connect refused");
    let (_, line) = line.split_once('Z').expect("a time stamp"); // fail2ban takes it away
    let script = "import re, sys\nfor it in sys.argv[2:]:\n  if m := re.search(it, sys.argv[1]):\n    print(m.group(1))";
    let arguments: Vec<_> =
        [line].into_iter().chain(expressions.iter().map(String::as_str)).collect();
    let found = shell::python(script, &arguments);
    assert_eq!(found.trim(), "127.0.0.1", "{line}");
}
