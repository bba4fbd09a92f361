//! The public API of the library, compared with its listing in `listing.txt`.
//!
//! So a change of the API is seen in each review. Afterwards, `HEARTHMQ_API=write cargo test --test
//! api` writes the listing. Does not judge a change: `cargo semver-checks` does, in `.ci/run`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there and then")]

use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

use hearthmq_test::skipped;
use serde_json::Value;

/// The format of rustdoc's JSON that the crate public-api reads. It changes with some versions of
/// Rust; then public-api changes as well.
const FORMAT: u64 = 57;

/// Has rustdoc describe the library; returns the path of its JSON.
fn rustdoc_json() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let described = Command::new(env!("CARGO"))
        .current_dir(root)
        .env("RUSTDOC", root.join("tests/api/rustdoc.sh"))
        .env_remove("RUSTDOCFLAGS")
        .args(["rustdoc", "--quiet", "--lib", "--all-features", "--target-dir"])
        .arg(target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .status()
        .unwrap();
    assert!(described.success());
    target.join("doc/hearthmq.json").to_str().unwrap().to_owned()
}

/// Returns the lines of one listing that the other does not have.
fn missing(here: &str, there: &str) -> String {
    let there: BTreeSet<_> = there.lines().collect();
    let lines = here.lines().filter(|line| !there.contains(line));
    lines.fold(String::new(), |all, line| all + "\n    " + line)
}

#[test]
fn the_public_api_is_the_one_that_is_listed() {
    let json = rustdoc_json();
    let description: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let format = description["format_version"].as_u64().unwrap();
    if format != FORMAT {
        let why = format!("rustdoc's JSON has format {format}, and public-api reads {FORMAT}");
        assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
        return skipped::skipped(&why);
    }
    let api = public_api::Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .unwrap();
    let is = api.items().fold(String::new(), |all, item| all + &item.to_string() + "\n");
    let listing = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/listing.txt");
    if env::var("HEARTHMQ_API").is_ok_and(|wish| wish == "write") {
        return fs::write(listing, is).unwrap();
    }
    let listed = fs::read_to_string(listing).unwrap();
    assert!(
        is == listed,
        "the public API has changed; CONTRIBUTING says how to list it.\nIt no longer has:{}\nIt \
         has now:{}",
        missing(&listed, &is),
        missing(&is, &listed),
    );
}
