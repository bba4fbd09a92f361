//! Adds the calls that have their names in the query to those that have them in the path.
//!
//! Works on the JSON of the document. Called by the module above it, once.

use serde_json::Value;

use super::super::target::{WITHOUT_NAMES, names_in};

/// The path below which the calls are.
const BASE: &str = "/api/v1";

/// Adds each call of [`WITHOUT_NAMES`], as a copy of the call with names in its path.
pub(super) fn add_calls_without_names(document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for (with_names, without) in WITHOUT_NAMES {
        let described = paths.iter().find(|(path, _)| {
            path.strip_prefix(BASE).is_some_and(|path| plain(path) == plain(with_names))
        });
        let Some((path, calls)) = described.map(|(path, calls)| (path.clone(), calls.clone()))
        else {
            continue;
        };
        let names: Vec<_> = names_in(with_names).collect();
        let mut calls = calls;
        for (method, call) in calls.as_object_mut().into_iter().flatten() {
            let copied = format!("{} {path}", method.to_uppercase());
            name_in_query(call, &names, &copied);
        }
        paths.insert(format!("{BASE}{without}"), calls);
    }
}

/// Returns a path with empty names.
fn plain(path: &str) -> String {
    let is_name = |segment: &&str| segment.starts_with('{');
    let segments = path.split('/').map(|segment| Some(segment).filter(|it| !is_name(it)));
    segments.map(|segment| segment.unwrap_or("{}")).collect::<Vec<_>>().join("/")
}

/// Moves the names of a call from the path to the query.
fn name_in_query(call: &mut Value, names: &[&'static str], copied: &str) {
    let mut left = names.iter();
    for parameter in call["parameters"].as_array_mut().into_iter().flatten() {
        if parameter["in"] == "path"
            && let Some(name) = left.next()
        {
            parameter["in"] = "query".into();
            parameter["name"] = (*name).into();
        }
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let by = names.last().copied().unwrap_or_default();
    let (first, rest) = by.split_at(by.len().min(1));
    let id = format!("{}By{}{rest}", text(&call["operationId"]), first.to_uppercase());
    call["operationId"] = id.into();
    let more = text(&call["description"]);
    let description = format!(
        "As `{copied}`, for names that do not fit a path, such as `..`: the query has them.\n\n{more}"
    );
    call["description"] = description.trim_end().into();
}
