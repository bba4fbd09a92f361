//! One name for one type: a reader who meets a name knows which type it is.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, none, say, sources};

/// Names that several files define, with the reason.
const REPEATED: &[(&str, &str)] = &[
    ("Arguments", "the arguments of one command, as clap reads them"),
    ("Bucket", "of tokens, in a limit; of NATS, in the cluster"),
    ("Change", "public, of the configuration; inside, of the store"),
    ("Command", "the commands of one level of the command line, as clap reads them"),
    ("Listener", "public, of HTTP and of MQTT; their modules distinguish them"),
    ("Log", "of the program; of NATS, in the cluster"),
    ("LogEntry", "of the program; of NATS, in the cluster"),
    ("LoginKey", "the same bytes, in two layers that do not know each other"),
    ("Map", "the same short name of a table with the fast hash"),
    ("Phase", "the phase of the one thing that a file is about"),
    ("Place", "public, in the configuration; inside, in the router"),
    ("State", "the state of the one thing that a file is about"),
];

/// Returns the files of the library and the program that define each type.
fn definitions(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|source| is_shipped(&source.name)) {
        for name in source.code.lines().filter_map(defined) {
            found.entry(name).or_default().insert(&source.name);
        }
    }
    found
}

/// Returns whether a file is more than tests.
fn is_shipped(name: &str) -> bool {
    name.starts_with("src/") && !name.ends_with("/tests.rs")
}

/// Returns the name of the type that a line defines at the outermost level of its file. Below it are
/// associated types, types of tests, and those that stand in for the ones that a feature leaves out.
fn defined(line: &str) -> Option<&str> {
    let item = match line.strip_prefix("pub") {
        Some(limited) if limited.starts_with('(') => limited.split_once(") ")?.1,
        Some(public) => public.trim_start(),
        None => line,
    };
    let kinds = ["struct ", "enum ", "trait ", "type ", "union "];
    let rest = kinds.iter().find_map(|kind| item.strip_prefix(kind))?;
    rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()
}

#[test]
fn a_name_is_one_type() {
    let sources = sources();
    let definitions = definitions(&sources);
    let repeated = |name: &str| REPEATED.iter().any(|(known, _)| *known == name);
    let several = definitions.iter().filter(|(_, files)| files.len() > 1);
    let mut faults: Vec<String> = several
        .filter(|(name, _)| !repeated(name))
        .map(|(name, files)| format!("{name} is defined in {files:?}"))
        .collect();
    let is_single = |name: &str| definitions.get(name).is_none_or(|files| files.len() < 2);
    faults.extend(
        REPEATED
            .iter()
            .filter(|(name, _)| is_single(name))
            .map(|(name, _)| format!("{name} is no longer repeated")),
    );
    say(&format!("{} names of types, {} of them repeated", definitions.len(), REPEATED.len()));
    none(&faults);
}

#[test]
fn a_definition_is_seen_whatever_its_visibility() {
    for line in
        ["struct A;", "pub enum A<'a> {", "pub(crate) trait A: B {", "pub(super) type A = B;"]
    {
        assert_eq!(defined(line), Some("A"), "{line}");
    }
    assert_eq!(defined("pub(in crate::shard) struct A(u32);"), Some("A"));
    assert_eq!(defined("    type A = B;"), None);
    assert_eq!(defined("structure"), None);
}
