//! Finds the statements that a text cites. Does not know which statements exist.
//!
//! `[MQTT-3.1.2-22]` is a statement of MQTT 5.0. One of 3.1.1 is written `[MQTT-3.1.2-24] of
//! 3.1.1`, and everything after `3.1.1:` on a line belongs to 3.1.1.

use std::collections::BTreeSet;

use super::table::Edition;

/// A cited statement.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Citation {
    pub(crate) edition: Edition,
    pub(crate) id: String,
}

/// Returns the statements that `text` cites.
pub(crate) fn citations(text: &str) -> BTreeSet<Citation> {
    let mut found = BTreeSet::new();
    let lines: Vec<_> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        // "of 3.1.1" may be at the beginning of the comment's next line.
        let next = lines.get(at + 1).map_or("", |next| next.trim_start().trim_start_matches('/'));
        for (start, _) in line.match_indices("MQTT-") {
            let (before, rest) = line.split_at(start);
            let number = &rest["MQTT-".len()..];
            let length = number.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-');
            let (number, after) = number.split_at(length.unwrap_or(number.len()));
            let number = number.trim_end_matches(['.', '-']);
            if number.is_empty() {
                continue;
            }
            let after = format!("{} {}", after.trim_start_matches(']'), next.trim());
            let is_old = [" of 3.1.1", " in 3.1.1"].iter().any(|words| {
                after.starts_with(words) || after.trim_start().starts_with(words.trim_start())
            });
            let edition = if is_old
                || before.contains("3.1.1:")
                || before.trim_end_matches('[').ends_with("3.1.1 ")
            {
                Edition::V3_1_1
            } else {
                Edition::V5_0
            };
            found.insert(Citation { edition, id: format!("MQTT-{number}") });
        }
    }
    found
}

#[test]
fn a_citation_is_of_the_newer_edition_unless_it_says_otherwise() {
    let text = "/// [MQTT-1.5.4-1] [MQTT-1.5.3-1] of 3.1.1, MQTT-9 [MQTT-2.2.2-1] in\n/// 3.1.1.
        /// MQTT-over; 3.1.1: [MQTT-3.1.0-1] [MQTT-3.1.0-2]
        DecodeError(\"3.1.1 MQTT-3.1.2-22\", \"MQTT-4.13.1-1\") // [MQTT-4.7.0-1]";
    let found: Vec<_> = citations(text)
        .into_iter()
        .map(|Citation { edition, id }| format!("{edition} {id}"))
        .collect();
    let old = ["1.5.3-1", "2.2.2-1", "3.1.0-1", "3.1.0-2", "3.1.2-22"];
    let new = ["1.5.4-1", "4.13.1-1", "4.7.0-1", "9"];
    let old = old.iter().map(|id| format!("3.1.1 MQTT-{id}"));
    let new = new.iter().map(|id| format!("5.0 MQTT-{id}"));
    assert_eq!(found, old.chain(new).collect::<Vec<_>>());
}
