//! Tests that this machine cannot run say so, on standard error, where the harness does not take it for
//! itself: it shows without `--nocapture`.

use std::{
    env,
    io::{self, Write as _},
    thread,
};

/// Says that the calling test is skipped, and `why`: for what no machine can be asked to have.
pub(crate) fn skipped(why: &str) {
    let current = thread::current();
    let test = current.name().unwrap_or("a test");
    drop(writeln!(io::stderr(), "\nSKIPPED {test}: {why}"));
}

/// Says that the calling test is skipped for want of a Debian package. With `CI=true`, where
/// everything is installed, the test fails.
#[track_caller]
pub(crate) fn not_installed(package: &str) {
    assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{package} is not installed");
    skipped(&format!("{package} is not installed"));
}
