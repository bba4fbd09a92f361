//! Checks the table of the standard's normative statements against the tests that show them.
//!
//! `v3_1_1/` and `v5_0/` have a file for each chapter. A statement that binds a server names its
//! tests there, or the reason why it has none.

#![expect(clippy::unwrap_used, reason = "a table that cannot be read fails there and then")]

mod citations;
mod published;
mod sources;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use citations::{Citation, citations};
use sources::{sources, test_functions};
use table::{Binds, Edition, clauses};

/// Fails with all of `faults` together.
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[expect(clippy::print_stderr, reason = "the counts are worth seeing, with --nocapture")]
fn say(line: &str) {
    eprintln!("{line}");
}

#[test]
fn the_table_has_every_statement_that_was_published_and_no_other() {
    let mut faults = Vec::new();
    for edition in Edition::BOTH {
        let published: BTreeSet<_> = published::ids(edition).collect();
        let mut found = BTreeMap::new();
        for clause in clauses(edition) {
            if !published.contains(&clause.id) {
                faults.push(format!("{}: {edition} has no {}", clause.file, clause.id));
            }
            if !clause.belongs() {
                faults.push(format!("{}: {} is of another chapter", clause.file, clause.id));
            }
            if let Some(other) = found.insert(clause.id.clone(), clause.file.clone()) {
                faults.push(format!("{} is in {other} and in {}", clause.id, clause.file));
            }
        }
        let missing = published.iter().filter(|id| !found.contains_key(*id));
        faults.extend(missing.map(|id| format!("{id} of {edition} is not in the table")));
        assert_eq!(published.len(), edition.published(), "{edition}");
    }
    none(&faults);
}

#[test]
fn every_statement_that_binds_a_server_is_shown_or_says_why_not() {
    let mut faults = Vec::new();
    for edition in Edition::BOTH {
        let (mut all, mut server, mut shown, mut excused) = (0, 0, 0, 0);
        for clause in clauses(edition) {
            all += 1;
            server += usize::from(clause.binds != Binds::Client);
            shown += usize::from(!clause.tests.is_empty());
            excused += usize::from(clause.why_not.is_some());
            let fault = match (clause.tests.is_empty(), &clause.why_not) {
                (false, Some(_)) => "has tests and says why it has none",
                (true, None) if clause.binds != Binds::Client => "has no test",
                (true, Some(reason)) if reason.trim().is_empty() => "gives no reason",
                _ if clause.asks.trim().is_empty() => "does not say what it asks",
                _ => continue,
            };
            faults.push(format!("{}: {} {fault}", clause.file, clause.id));
        }
        say(&format!(
            "MQTT {edition}: {all} statements, {server} bind a server, {shown} have tests, \
             {excused} say why they have none"
        ));
    }
    none(&faults);
}

#[test]
fn every_test_that_is_named_exists_and_names_the_statement_too() {
    let functions = test_functions();
    let mut faults = Vec::new();
    for edition in Edition::BOTH {
        for clause in clauses(edition) {
            let cited = Citation { edition, id: clause.id.clone() };
            for test in &clause.tests {
                let fault = match functions.get(test) {
                    None => "which does not exist",
                    Some(comment) if !citations(comment).contains(&cited) => {
                        "whose comment does not name it"
                    }
                    Some(_) => continue,
                };
                let Citation { edition, id } = &cited;
                faults.push(format!("{}: {id} of {edition} names {test}, {fault}", clause.file));
            }
        }
    }
    none(&faults);
}

#[test]
fn every_statement_that_is_cited_exists() {
    let mut faults = Vec::new();
    let published = Edition::BOTH.map(|edition| published::ids(edition).collect::<BTreeSet<_>>());
    for (name, text) in sources() {
        if name.starts_with("tests/clauses/") {
            continue;
        }
        for Citation { edition, id } in citations(&text) {
            if !published[edition as usize].contains(&id) {
                faults.push(format!("{name}: {edition} has no {id}"));
            }
        }
    }
    none(&faults);
}
