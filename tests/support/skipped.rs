//! Tests that this machine cannot run say so, and fail where everything is expected to run.

use std::{
    env,
    io::{self, Write as _},
};

/// Says that the calling test is skipped, and `why`: on standard error, which the harness does not
/// take for itself, so that it shows without `--nocapture`. With `CI=true` the test fails.
#[track_caller]
pub(crate) fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(
        !env::var("CI").is_ok_and(|ci| ci == "true"),
        "{test} cannot run, and CI is to run every test: {why}"
    );
    drop(writeln!(io::stderr(), "\nSKIPPED {test}: {why}"));
}
