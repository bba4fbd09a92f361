//! Compares lists in the documents with the same lists in the code.

use std::{collections::BTreeSet, fs, path::Path};

use super::blocks::{documents, root};

/// Words that readers with English as a second language find difficult.
const BANNED: [&str; 7] = ["whoever", "whom", "so many", "anew", "dear", "dearer", "for ever"];

fn document(name: &str) -> String {
    documents().into_iter().find(|document| document.name == name).unwrap().text
}

/// Returns the texts between two marks.
fn between<'t>(text: &'t str, open: &'t str, close: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(open).skip(1).filter_map(move |rest| Some(rest.split_once(close)?.0))
}

#[test]
fn readme_has_at_most_900_words() {
    let words = document("README.md").split_whitespace().count();
    assert!(words <= 900, "{words} words");
}

#[test]
fn every_feature_of_the_library_is_documented() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let features = between(&manifest, "\n[features]\n", "\n[").next().unwrap();
    let names = features.lines().filter_map(|line| Some(line.split_once(" = [")?.0));
    // `default` is `cli`, and `outbound` belongs to others.
    let names: BTreeSet<_> = names.filter(|name| !["default", "outbound"].contains(name)).collect();
    assert!(names.len() > 10, "{names:?}");
    let text = document("docs/embedding.md");
    let has_row = |name: &&str| text.contains(&format!("\n| `{name}`"));
    let missing: Vec<_> = names.into_iter().filter(|name| !has_row(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// A longer one is not read. Further terms stand where they are used.
#[test]
fn the_glossary_has_at_most_20_lines() {
    let text = document("docs/architecture.md");
    let glossary = between(&text, "\n## Glossary\n", "\n## ").next().unwrap();
    let lines = glossary.lines().filter(|line| line.starts_with('|')).count();
    assert!((10..=20).contains(&lines), "{lines} lines");
}

#[test]
fn no_document_uses_a_banned_word() {
    let mut found = Vec::new();
    for document in documents() {
        let text = document.text.to_lowercase();
        let text = match text.split_once("## writing") {
            // This file lists the words.
            Some((before, rest)) => format!("{before}{}", rest.split_once("\n## ").unwrap().1),
            None => text,
        };
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let words = format!(" {} ", words.collect::<Vec<_>>().join(" "));
        let has = |word: &str| words.contains(&format!(" {word} "));
        let banned = BANNED.into_iter().filter(|word| has(word));
        found.extend(banned.map(|word| (document.name.clone(), word)));
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn every_code_of_an_error_is_documented() {
    let source = [
        include_str!("../../../src/http/error.rs"),
        include_str!("../../../src/http/error/access.rs"),
        include_str!("../../../src/http/error/bridges.rs"),
        include_str!("../../../src/http/error/broker.rs"),
        include_str!("../../../src/http/error/certificates.rs"),
        include_str!("../../../src/http/error/cluster.rs"),
        include_str!("../../../src/http/error/pages.rs"),
        include_str!("../../../src/http/error/repeated.rs"),
        include_str!("../../../src/http/error/users.rs"),
        include_str!("../../../src/http/error/waiting.rs"),
    ]
    .concat();
    let known: BTreeSet<_> = ["bad_request(\"", "refusal(\"", "of_cluster(\"", "StatusCode::"]
        .into_iter()
        .flat_map(|call| between(&source, call, if call.ends_with('"') { "\"" } else { "\"," }))
        .filter_map(|code| code.rsplit('"').next())
        .filter(|code| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        .collect();
    assert!(known.len() > 15, "{known:?}");
    let text = document("docs/rest.md");
    let rows = text.lines().filter(|line| line.starts_with("| 4") || line.starts_with("| 5"));
    let documented: BTreeSet<_> =
        rows.filter_map(|row| row.split('`').nth(1)).filter(|word| !word.is_empty()).collect();
    assert_eq!(documented, known);
}

#[test]
fn every_metric_that_is_named_exists() {
    let source = [
        include_str!("../../../src/metrics/bridges.rs"),
        include_str!("../../../src/metrics/cluster.rs"),
        include_str!("../../../src/metrics/encode.rs"),
        include_str!("../../../src/metrics/logins.rs"),
        include_str!("../../../src/metrics/otlp.rs"),
        include_str!("../../../src/metrics/sources.rs"),
        include_str!("../../../src/metrics/turns.rs"),
        include_str!("../../../src/metrics/webhooks.rs"),
    ]
    .concat();
    let text = document("docs/operations.md");
    let section = between(&text, "\n## Metrics\n", "\n## ").next().unwrap();
    let names: Vec<_> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next())
        .flat_map(|cell| cell.split('`').filter(|name| name.len() > 2).collect::<Vec<_>>())
        .collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let base = name.trim_end_matches("_seconds");
        assert!(source.contains(&format!("\"{base}\"")), "there is no metric {name}");
    }
}

/// Returns the sources of the library and the program, without line breaks inside of strings.
fn sources() -> String {
    fn read(directory: &Path, all: &mut String) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, all);
            } else if path.extension().is_some_and(|extension| extension != "gz") {
                all.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut all = String::new();
    read(&root().join("src"), &mut all);
    let parts = all.split("\\\n").map(str::trim_start);
    parts.collect()
}

#[test]
fn messages_are_quoted_as_the_program_writes_them() {
    let sources = sources();
    let text = document("docs/operations.md");
    let log = between(&text, "### Lines about clients", "### Filters").next().unwrap();
    let messages = log.lines().filter_map(|line| line.split(" | `").nth(1)?.split('`').next());
    let trouble = between(&text, "## Trouble", "### Clients").next().unwrap();
    let quotes = trouble.split('`').skip(1).step_by(2).filter(|quote| quote.contains(' '));
    let (mut missing, mut found) = (Vec::new(), 0);
    for quote in messages.chain(quotes) {
        for part in quote.split(|c: char| c == '…' || c.is_ascii_digit()).map(str::trim) {
            let part = part.trim_end_matches(':');
            found += 1;
            if !part.starts_with("ulimit") && !sources.contains(part) {
                missing.push(part);
            }
        }
    }
    assert!(found > 20, "{found} messages");
    assert!(missing.is_empty(), "nothing says {missing:#?}");
}

#[test]
fn files_that_are_named_exist() {
    let (mut missing, mut found) = (Vec::new(), 0);
    for document in documents() {
        for quote in document.text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let is_path = quote.ends_with(".rs")
                || ["crates/", "tests/", "src/"].iter().any(|it| quote.starts_with(it));
            if !is_path || quote.contains(' ') {
                continue;
            }
            found += 1;
            let places = ["", "src", "tests/world", "crates/hearthmq-test/src"]
                .map(|it| root().join(it).join(quote));
            if !places.iter().any(|path| path.exists()) {
                missing.push((document.name.clone(), quote.to_owned()));
            }
        }
    }
    assert!(found > 40, "{found} files");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_reason_of_a_disconnect_is_documented() {
    let source = include_str!("../../../src/hooks.rs");
    let reasons = between(source, "pub enum DisconnectReason {", "\n    }\n").next().unwrap();
    let text = document("docs/events.md");
    for reason in between(reasons, "= \"", "\"") {
        assert!(text.contains(&format!("\n| `{reason}` | ")), "{reason}");
    }
}
