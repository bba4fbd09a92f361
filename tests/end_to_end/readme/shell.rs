//! Commands of the documents: run by a shell, or checked word by word where they cannot run.
//!
//! Knows which programs the documents may name; does not know brokers.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use super::blocks::{Block, root};
use crate::skipped::not_installed;

/// Returns whether a tool is there; says so if it is not, and the test is then skipped.
#[track_caller]
pub(crate) fn is_installed(tool: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("command -v {tool}")]).stdout(Stdio::null());
    let found = command.status().unwrap().success();
    if !found {
        not_installed(tool);
    }
    found
}

/// Runs a script that starts jobs and may wait for them without end: all of them end after two minutes.
pub(crate) fn run_with_jobs(block: &Block, script: &str, directory: &Path) -> String {
    let end = "trap 'kill $(jobs -p) 2>jobs.log || true' EXIT; trap 'exit 1' TERM";
    let shell = ["timeout", "--kill-after=10", "120", "sh"];
    run_by(&shell, block, &format!("{end}\n{script}"), directory)
}

/// Runs a script in a directory, with `hearthmq` on the PATH; returns its standard output.
pub(crate) fn run(block: &Block, script: &str, directory: &Path) -> String {
    run_by(&["sh"], block, script, directory)
}

fn run_by(words: &[&str], block: &Block, script: &str, directory: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_hearthmq")).parent().unwrap().to_owned();
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([program].into_iter().chain(env::split_paths(&path))).unwrap();
    let mut shell = Command::new(words[0]);
    shell.args(&words[1..]).args(["-euc", script]).current_dir(directory).env("PATH", path);
    shell.env("PASSWORD", super::broker::PASSWORD).env_remove("HEARTHMQ_CONFIG");
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{block}: {script}\n{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a script of Python; returns its standard output.
pub(crate) fn python(script: &str, arguments: &[&str]) -> String {
    let output = Command::new("python3").args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Checks that the commands, options and files in every command exist.
pub(crate) fn check(block: &Block, script: &str) {
    for line in script.replace("\\\n", " ").lines() {
        let line = line.split_once(" #").map_or(line, |(command, _comment)| command);
        let line = line.split('\'').step_by(2).collect::<Vec<_>>().join("quoted");
        let words: Vec<&str> = line
            .split_whitespace()
            .skip_while(|word| word.contains('=') && !word.starts_with('-')) // variables
            .take_while(|word| *word != ">")
            .collect();
        match &words[..] {
            [] | ["ulimit", ..] => {}
            ["cargo", arguments @ ..] => check_cargo(block, arguments),
            ["hearthmq", arguments @ ..] => check_hearthmq(block, arguments),
            [script] if script.starts_with(".ci/") => {
                // The published package does not contain that directory.
                let is_there = root().join(script).exists() || !root().join(".ci").exists();
                assert!(is_there, "{block}: there is no {script}");
            }
            _ => panic!("{block}: give a marker that says how to test `{line}`"),
        }
    }
}

/// Checks the names of tests, benchmarks and examples, and the options of the large benchmarks.
fn check_cargo(block: &Block, arguments: &[&str]) {
    let known = ["run", "test", "bench", "install"];
    assert!(known.contains(&arguments[0]), "{block}: cargo {}", arguments[0]);
    let kinds = [("--test", "tests"), ("--bench", "benches"), ("--example", "examples")];
    let (mut source, mut is_behind) = (String::new(), false);
    for (at, word) in arguments.iter().enumerate() {
        is_behind |= *word == "--";
        if let Some((_, directory)) = kinds.iter().find(|(option, _)| option == word) {
            let name = arguments[at + 1];
            let places = [format!("{directory}/{name}.rs"), format!("{directory}/{name}/main.rs")];
            let found = places.iter().find_map(|path| fs::read_to_string(root().join(path)).ok());
            source = found.unwrap_or_else(|| panic!("{block}: there is no {directory}/{name}"));
        }
        let option = word.strip_prefix("--").filter(|name| is_behind && !name.is_empty());
        if let Some(name) = option.filter(|_| source.contains("derive(Parser)")) {
            let forms = [format!("    {}: ", name.replace('-', "_")), format!("long = \"{name}\"")];
            let is_known = forms.iter().any(|form| source.contains(form));
            assert!(is_known, "{block}: the benchmark has no option --{name}");
        }
    }
}

/// Checks a command and its options against the program's own help.
fn check_hearthmq(block: &Block, arguments: &[&str]) {
    let commands = arguments.iter().take_while(|word| !word.starts_with('-'));
    let mut program = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
    let output = program.args(commands).arg("--help").output().unwrap();
    assert!(output.status.success(), "{block}: hearthmq {arguments:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    for option in arguments.iter().filter(|word| word.starts_with("--")) {
        let has = help.split_whitespace().any(|word| word.trim_end_matches(',') == *option);
        assert!(has, "{block}: {arguments:?}: there is no {option} in\n{help}");
    }
}
