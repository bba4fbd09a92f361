//! Reports tests that this machine cannot run. Writes to standard error directly, which the harness
//! does not capture, so that it shows without `--nocapture`.

use std::{
    env,
    io::{self, Write as _},
    thread,
};

/// Reports that the calling test is skipped, and why: for conditions that no machine must meet.
pub fn skipped(why: &str) {
    let current = thread::current();
    let test = current.name().unwrap_or("a test");
    drop(writeln!(io::stderr(), "\nSKIPPED {test}: {why}"));
}

/// Reports that the calling test is skipped because a package is missing. With `CI=true`,
/// where everything is installed, the test fails.
#[track_caller]
pub fn not_installed(package: &str) {
    assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{package} is not installed");
    skipped(&format!("{package} is not installed"));
}
