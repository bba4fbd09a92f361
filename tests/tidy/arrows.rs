//! Arrows between files: which file names something of which other file.
//!
//! An arrow comes from a `use` or from a path that begins with `crate`, `self` or `super`. A name that a
//! module re-exports leads to the file that defines it. Arrows from a file to the modules around it are
//! left out, because the chapters of one type need it; so are those of a module to its own files.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, none, say, sources};

/// Module paths of the files of library and program, and what each re-exports under which name.
struct Files {
    /// From a module path, `shard::routing::publish`, to its file.
    by_path: BTreeMap<String, String>,
    /// From a name with its module, `shard::Core`, to the path that it stands for.
    re_exports: BTreeMap<String, String>,
}

fn module_path(name: &str) -> Option<String> {
    let inside = name.strip_prefix("src/")?.strip_suffix(".rs")?;
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    (!["lib", "main"].contains(&inside)).then(|| inside.replace('/', "::"))
}

/// The paths in a use tree, `a::{b, c::d}`, in full.
fn flatten(tree: &str, prefix: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let (path, _) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path = path.trim().trim_end_matches("::self").trim_end_matches("::*");
        let path = if path == "self" { "" } else { path };
        if !(path.is_empty() && prefix.is_empty()) {
            paths.push(format!("{prefix}{path}").trim_end_matches("::").to_owned());
        }
        return;
    };
    let prefix = format!("{prefix}{}", &tree[..open]);
    let inner = tree[open + 1..].trim_end().trim_end_matches('}');
    let (mut depth, mut from) = (0_usize, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                flatten(&inner[from..at], &prefix, paths);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !inner[from..].trim().is_empty() {
        flatten(&inner[from..], &prefix, paths);
    }
}

/// A path from the root of the library; `None` for one of another crate.
fn absolute(path: &str, module: &str) -> Option<String> {
    if let Some(rest) = path.strip_prefix("crate::") {
        return Some(rest.to_owned());
    }
    if let Some(rest) = path.strip_prefix("self::") {
        return Some(format!("{module}::{rest}"));
    }
    let (mut base, mut rest) = (module, path);
    while let Some(further) = rest.strip_prefix("super::") {
        base = base.rsplit_once("::").map_or("", |(outer, _)| outer);
        rest = further;
    }
    (rest.len() < path.len()).then(|| format!("{base}::{rest}").trim_start_matches("::").to_owned())
}

/// The use trees in a file, each with whether others may use what it brings.
fn uses(code: &str) -> impl Iterator<Item = (bool, &str)> {
    code.match_indices("use ").filter_map(|(at, _)| {
        let line = code[..at].rsplit('\n').next().unwrap_or_default().trim();
        let is_use = line.is_empty() || (line.starts_with("pub") && !line.contains('{'));
        let tree = code[at + 4..].split(';').next()?;
        is_use.then_some((line.starts_with("pub"), tree))
    })
}

/// The paths in code that begin with `crate`, `self` or `super`, up to generic arguments.
fn paths_in(code: &str) -> impl Iterator<Item = String> {
    let in_path = |c: char| c.is_alphanumeric() || "_:".contains(c);
    let all = code.split(move |c: char| !in_path(c));
    let ours = all.filter(|path| {
        let first = path.split_once("::").map(|(first, _)| first);
        first.is_some_and(|first| ["crate", "self", "super"].contains(&first))
    });
    ours.map(|path| path.trim_end_matches(':').to_owned())
}

impl Files {
    fn of(sources: &[Source]) -> Self {
        let mut files = Self { by_path: BTreeMap::new(), re_exports: BTreeMap::new() };
        for source in sources {
            let Some(module) = module_path(&source.name) else { continue };
            for (is_public, tree) in uses(source.shipped()) {
                let mut paths = Vec::new();
                flatten(tree, "", &mut paths);
                for path in paths.iter().filter(|_| is_public) {
                    // Without `self::`, too, a path leads to a module of the file's own.
                    let target =
                        absolute(path, &module).unwrap_or_else(|| format!("{module}::{path}"));
                    let name = path.rsplit("::").next().unwrap_or_default();
                    files.re_exports.insert(format!("{module}::{name}"), target);
                }
            }
            files.by_path.insert(module, source.name.clone());
        }
        files
    }

    /// The module that a path leads to.
    fn module_of(&self, path: &str) -> Option<&str> {
        let mut path = path.to_owned();
        for _ in 0..8 {
            match self.re_exports.get(&path) {
                Some(target) if *target != path => path.clone_from(target),
                _ => break,
            }
        }
        let mut part = path.as_str();
        loop {
            if let Some((module, _)) = self.by_path.get_key_value(part) {
                return Some(module);
            }
            part = part.rsplit_once("::")?.0;
        }
    }
}

/// Whether one module lies within the other.
fn is_within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// From each module to the modules that it names, without its own and those around it.
fn arrows(sources: &[Source], files: &Files) -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows = BTreeMap::new();
    for source in sources {
        let Some(module) = module_path(&source.name) else { continue };
        let code = source.shipped();
        let mut paths = Vec::new();
        uses(code).for_each(|(_, tree)| flatten(tree, "", &mut paths));
        paths.extend(paths_in(code));
        let targets = paths.iter().filter_map(|path| absolute(path, &module));
        let targets: BTreeSet<String> = targets
            .filter_map(|path| files.module_of(&path).map(str::to_owned))
            .filter(|target| !is_within(&module, target) && !is_within(target, &module))
            .collect();
        arrows.insert(module, targets);
    }
    arrows
}

/// The arrows between modules from each of which an arrow leads, over others, back to it.
fn circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let reached_from = |start: &str| {
        let (mut reached, mut left) = (BTreeSet::new(), vec![start]);
        while let Some(module) = left.pop() {
            for target in arrows.get(module).into_iter().flatten() {
                if reached.insert(target.as_str()) {
                    left.push(target);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        arrows.keys().map(|module| (module.as_str(), reached_from(module))).collect();
    let leads_back = |from: &str, to: &str| reached.get(to).is_some_and(|r| r.contains(from));
    let all = arrows.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
    let in_circle = all.filter(|(from, to)| leads_back(from, to));
    in_circle.map(|(from, to)| format!("{from} -> {to}")).collect()
}

#[test]
fn files_have_no_circle() {
    let sources = sources();
    let files = Files::of(&sources);
    let arrows = arrows(&sources, &files);
    say(&format!("{} arrows between files", arrows.values().map(BTreeSet::len).sum::<usize>()));
    none(&circles(&arrows));
}

#[test]
fn a_circle_is_found() {
    let arrows = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]
        .map(|(from, to)| (from.to_owned(), BTreeSet::from([to.to_owned()])));
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    arrows.into_iter().for_each(|(from, to)| all.entry(from).or_default().extend(to));
    assert_eq!(circles(&all), ["b -> c", "c -> b"]);
}
