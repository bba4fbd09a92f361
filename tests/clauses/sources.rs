//! Finds the tests and their comments. Does not know what the table requires of them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Returns the project's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns each source file's name, from the root, and its text.
pub(crate) fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for dir in ["src", "tests", "crates", "examples", "fuzz/fuzz_targets"] {
        collect(&root().join(dir), &mut files);
    }
    let sources = files.iter().map(|file| {
        let name = file.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        (name, fs::read_to_string(file).unwrap())
    });
    sources.collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Returns the tests under `tests/`, as `target::module::function`, with the comment above each.
pub(crate) fn test_functions() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (name, text) in sources() {
        let Some(path) = name.strip_prefix("tests/").and_then(|name| name.strip_suffix(".rs"))
        else {
            continue;
        };
        let module = path.trim_end_matches("/main").trim_end_matches("/mod").replace('/', "::");
        for (function, comment) in tests_in(&text) {
            all.insert(format!("{module}::{function}"), comment);
        }
    }
    all
}

/// Returns the functions with a test attribute that are not ignored, with the comment above each.
fn tests_in(text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let (mut comment, mut is_test, mut is_ignored) = (String::new(), false, false);
    for line in text.lines().map(str::trim) {
        if let Some(said) = line.strip_prefix("///") {
            comment.push_str(said);
            comment.push('\n');
        } else if line.starts_with("#[") {
            is_test |= line.ends_with("test]");
            is_ignored |= line.starts_with("#[ignore");
        } else {
            let code = line.trim_start_matches("pub(crate) ").trim_start_matches("async ");
            if is_test
                && !is_ignored
                && let Some(function) = code.strip_prefix("fn ")
            {
                let name = function.split(['(', '<']).next().unwrap();
                found.push((name, std::mem::take(&mut comment)));
            }
            comment.clear();
            (is_test, is_ignored) = (false, false);
        }
    }
    found
}

#[test]
fn a_test_is_found_with_its_comment() {
    let text = "/// Said.\n/// [MQTT-1.5.4-1]\n#[actix_rt::test]\nasync fn first() {\n}\n\n\
        /// No test.\nfn second() {}\n    #[test]\n    fn third(a in 0..9) {}\n\
        #[test]\n#[ignore = \"no\"]\nfn fourth() {}\n";
    let expected = [("first", " Said.\n [MQTT-1.5.4-1]\n".to_owned()), ("third", String::new())];
    assert_eq!(tests_in(text), expected);
}
