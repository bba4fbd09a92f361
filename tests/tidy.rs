//! Checks rules of the project that the compiler does not know: which layer may use which, how long
//! files and functions may be, how every file begins, and which names are one type.
//!
//! The layers are those of the architecture document; a new module is added to [`LAYERS`].

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there and then")]

#[path = "tidy/arrows.rs"]
mod arrows;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/type_names.rs"]
mod type_names;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use layers::LAYERS;

/// Modules that do no I/O, read no clock and know no runtime: same inputs, same outputs.
const PURE: &[&str] = &["mqtt", "journal", "session", "router"];

/// Names that a pure module must not use.
const IMPURE: &[&str] = &[
    "actix",
    "actix_rt",
    "actix_web",
    "tokio",
    "tracing",
    "Instant",
    "SystemTime",
    "fs",
    "net",
    "io",
    "env",
    "thread",
];

/// The modules of a shard and of what it stands on, which reach actors through doors alone.
const WITHOUT_ACTORS: &[&str] = &["shard", "durable", "between", "flow", "traces", "feed"];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Longer files, and functions as `file::function`, with their number of lines. A number may only
/// shrink.
const LONGER: &[(&str, usize)] = &[];

/// A source file of the project.
struct Source {
    /// Path from the project's root, with `/`.
    name: String,
    text: String,
    /// The text with comments and literals blanked out, so that only code is left.
    code: String,
}

impl Source {
    /// Returns the module of the library that contains it; `None` for the program, tests and the
    /// like.
    fn module(&self) -> Option<&str> {
        let inside = self.name.strip_prefix("src/")?;
        let module = inside.split('/').next()?.trim_end_matches(".rs");
        (!["lib", "main", "cli"].contains(&module)).then_some(module)
    }

    /// Returns the code before the unit tests.
    fn shipped(&self) -> &str {
        if !self.name.starts_with("src/") || self.name.ends_with("/tests.rs") {
            return "";
        }
        self.code.split("#[cfg(test)]").next().unwrap()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in ["src", "tests", "crates", "examples", "benches", "fuzz/fuzz_targets"] {
        collect(&root.join(dir), &mut files);
    }
    files.sort();
    let sources = files.iter().map(|file| {
        let text = fs::read_to_string(file).unwrap();
        Source {
            name: file.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"),
            code: code_of(&text),
            text,
        }
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

/// Blanks out comments, strings and characters; lines stay where they are.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = literal_len(rest, code.chars().next_back());
        if skipped == 0 {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            let (literal, behind) = rest.split_at(skipped);
            code.extend(literal.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = behind;
        }
    }
    code
}

/// Returns the length of the comment or literal at the start of `text`, 0 if there is none.
fn literal_len(text: &str, before: Option<char>) -> usize {
    let until = |from: usize, end: &str| {
        text[from..].find(end).map_or(text.len(), |at| from + at + end.len())
    };
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return until(2, "*/");
    }
    if !in_word && let Some(raw) = text.strip_prefix("br").or_else(|| text.strip_prefix('r')) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let from = text.len() - raw.len() + hashes + 1;
            return until(from, &format!("\"{}", "#".repeat(hashes)));
        }
    }
    if text.starts_with('"') {
        return quoted_len(text, '"');
    }
    // `'a` is a lifetime, `'a'` and `'\n'` are characters.
    let mut chars = text.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('\''), Some('\\'), _) | (Some('\''), Some(_), Some('\'')) => quoted_len(text, '\''),
        _ => 0,
    }
}

fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_'))
}

/// Returns the modules of the library that `code` names: `crate::a`, `crate::{a, b::c}`.
fn modules_used(code: &str) -> BTreeSet<&str> {
    let mut used = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        let Some(group) = path.strip_prefix('{') else {
            used.extend(words(path).next());
            continue;
        };
        let mut depth = 0_usize;
        let mut at_start = true;
        for (at, c) in group.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                c if at_start && !c.is_whitespace() => {
                    used.extend(words(&group[at..]).next());
                    at_start = false;
                }
                _ => {}
            }
        }
    }
    used.into_iter().filter(|name| name.starts_with(char::is_lowercase)).collect()
}

/// Returns whether a chain of `super` leads out of the library module that contains the file.
fn leaves_its_module(source: &Source) -> bool {
    let path = source.name.trim_start_matches("src/").trim_end_matches(".rs");
    let depth = path.trim_end_matches("/mod").split('/').count();
    source.shipped().contains(&"super::".repeat(depth))
}

/// Returns each function's name and the number of lines of its body.
fn functions(code: &str) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name = words(&code[at + 3..]).next().unwrap_or_default();
        if !starts_word || name.is_empty() {
            continue;
        }
        let Some(open) = code[at..].find(['{', ';']).map(|found| at + found) else {
            continue;
        };
        let mut depth = 0_usize;
        for (end, c) in code[open..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let lines = code[open..open + end].matches('\n').count();
                found.push((name, lines.saturating_sub(1)));
                break;
            }
        }
    }
    found
}

/// Fails with all of `faults` together.
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[expect(clippy::print_stderr, reason = "the sizes are worth seeing, with --nocapture")]
fn say(line: &str) {
    eprintln!("{line}");
}

#[test]
fn imports_point_down_only() {
    let mut faults = Vec::new();
    let mut arrows = BTreeSet::new();
    for source in sources() {
        let Some(module) = source.module() else {
            continue;
        };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            faults.push(format!("{}: {module} has no place in LAYERS", source.name));
            continue;
        };
        for used in modules_used(source.shipped()) {
            let known = LAYERS.iter().any(|(name, _)| *name == used);
            if used != module && known {
                arrows.insert(format!("{module} -> {used}"));
                if !allowed.contains(&used) {
                    faults.push(format!("{}: {module} must not use {used}", source.name));
                }
            }
        }
        if leaves_its_module(&source) {
            faults.push(format!("{}: write crate::… for another module", source.name));
        }
    }
    say(&format!("{} arrows between modules", arrows.len()));
    none(&faults);
}

#[test]
fn the_layers_have_no_circle() {
    for (at, (module, allowed)) in LAYERS.iter().enumerate() {
        for used in *allowed {
            let below = LAYERS[..at].iter().any(|(name, _)| name == used);
            assert!(below, "{module} uses {used}, which does not come before it");
        }
    }
}

#[test]
fn pure_modules_know_no_clock_no_io_and_no_runtime() {
    let mut faults = Vec::new();
    for source in sources() {
        if source.module().is_some_and(|module| PURE.contains(&module)) {
            let named: BTreeSet<_> = words(source.shipped()).collect();
            for word in IMPURE.iter().filter(|word| named.contains(**word)) {
                faults.push(format!("{}: names {word}", source.name));
            }
        }
    }
    none(&faults);
}

#[test]
fn shards_know_no_actors() {
    let mut faults = Vec::new();
    for source in sources() {
        if source.module().is_some_and(|module| WITHOUT_ACTORS.contains(&module))
            && let Some(word) = words(source.shipped()).find(|word| word.starts_with("actix"))
        {
            faults.push(format!("{}: names {word}", source.name));
        }
    }
    none(&faults);
}

#[test]
fn files_and_functions_are_short() {
    let (mut lines_all, mut files, mut count) = (0, 0, 0);
    let (mut longest_file, mut longest_function) = ((0, String::new()), (0, String::new()));
    let mut faults = Vec::new();
    let mut check = |name: &str, lines: usize, max: usize| {
        let allowed = LONGER.iter().find(|(longer, _)| *longer == name);
        match allowed.map_or(max, |(_, lines)| *lines) {
            max if lines > max => faults.push(format!("{name} has {lines} lines, more than {max}")),
            now if allowed.is_some() && lines < now => {
                faults.push(format!("{name} has shrunk to {lines} lines: say so in LONGER"));
            }
            _ => {}
        }
    };
    for source in sources() {
        let lines = source.text.lines().count();
        check(&source.name, lines, FILE_LINES_MAX);
        (lines_all, files) = (lines_all + lines, files + 1);
        longest_file = longest_file.max((lines, source.name.clone()));
        for (function, lines) in functions(&source.code) {
            let name = format!("{}::{function}", source.name);
            check(&name, lines, FUNCTION_LINES_MAX);
            count += 1;
            longest_function = longest_function.max((lines, name));
        }
    }
    say(&format!("{lines_all} lines in {files} files with {count} functions"));
    say(&format!("longest file: {longest_file:?}; longest function: {longest_function:?}"));
    none(&faults);
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    let all = sources();
    let without = all.iter().filter(|source| !source.text.starts_with("//! "));
    none(&without.map(|source| source.name.clone()).collect::<Vec<_>>());
}

#[test]
fn no_line_has_tabs_or_ends_in_blanks() {
    let mut faults = Vec::new();
    for source in sources() {
        for (line, text) in source.text.lines().enumerate() {
            if text.contains('\t') || text.ends_with(char::is_whitespace) {
                faults.push(format!("{}:{}", source.name, line + 1));
            }
        }
    }
    none(&faults);
}

#[test]
fn nothing_that_is_shipped_unwraps_and_no_lint_is_silenced_without_a_reason() {
    let mut faults = Vec::new();
    for source in sources() {
        if source.shipped().contains(".unwrap()") {
            faults.push(format!("{}: .unwrap()", source.name));
        }
        for silencing in ["#[allow(", "#![allow("] {
            if source.code.contains(silencing) {
                faults.push(format!("{}: {silencing}…); use expect with a reason", source.name));
            }
        }
    }
    none(&faults);
}

#[test]
fn the_reader_of_sources_sees_code_only() {
    let text = r##"use crate::{a, b::{c, d}, self::e}; // crate::no
fn f<'x>(c: char) -> &'x str { let _ = ['"', '\'', '\\']; "fn g() { \" crate::no"; r#"""crate::no"# }
/* fn h() {} */ pub(crate) fn i() {
    crate::z::run();
}"##;
    let code = code_of(text);
    assert_eq!(code.lines().count(), text.lines().count());
    let used: Vec<_> = modules_used(&code).into_iter().collect();
    assert_eq!(used, ["a", "b", "self", "z"]);
    assert_eq!(functions(&code), [("f", 0), ("i", 1)]);
}

/// cargo-deny, which checks this along with other rules, is not installed everywhere.
#[test]
fn no_lock_file_has_a_banned_crate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = fs::read_to_string(root.join(".deny.toml")).unwrap();
    let banned = rules.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \""));
    let banned: Vec<_> = banned.filter_map(|rest| rest.split('"').next()).collect();
    assert!(banned.contains(&"h2"), "{banned:?}");
    for name in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let lock = fs::read_to_string(root.join(name)).unwrap();
        assert!(lock.contains("\nname = \"hearthmq\"\n"), "{name}");
        let is_in = |package: &str| lock.contains(&format!("\nname = \"{package}\"\n"));
        let found: Vec<_> = banned.iter().filter(|package| is_in(package)).collect();
        assert!(found.is_empty(), "{name}: {found:?}");
    }
}
