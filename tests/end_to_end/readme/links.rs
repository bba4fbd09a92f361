//! Checks that links between documents lead to existing files and headings.

use std::fs;

use super::blocks::{Document, documents, root};

/// Returns the anchor that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || " -_".contains(c);
    heading.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>().replace(' ', "-")
}

fn prose(document: &Document) -> Vec<&str> {
    let mut is_code = false;
    let is_prose = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    };
    document.text.lines().filter(is_prose).collect()
}

fn anchors(text: &str) -> Vec<String> {
    let document = Document { name: String::new(), text: text.to_owned() };
    let headings = prose(&document).into_iter().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// Returns the targets of the links of a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0))
}

/// Returns what is wrong with a link of a document.
fn fault(document: &Document, target: &str) -> Option<String> {
    if target.starts_with("https://") {
        return None;
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let file = match path {
        "" => root().join(&document.name),
        _ => root().join(&document.name).parent().unwrap().join(path),
    };
    let wrong = || Some(format!("{}: {target}", document.name));
    if !file.exists() {
        return wrong();
    }
    let has = || anchors(&fs::read_to_string(&file).unwrap()).iter().any(|it| it == heading);
    if heading.is_empty() || has() { None } else { wrong() }
}

#[test]
fn links_lead_somewhere() {
    let mut faults = Vec::new();
    let mut links = 0;
    for document in documents() {
        for target in prose(&document).into_iter().flat_map(targets) {
            links += 1;
            faults.extend(fault(&document, target));
        }
    }
    assert!(links > 30, "{links} links");
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_anchor_of_a_heading_is_that_of_github() {
    assert_eq!(anchor("`$events/client_disconnected`"), "eventsclient_disconnected");
    assert_eq!(anchor("Reload at SIGHUP"), "reload-at-sighup");
}
