//! The report of an import: options that it could not import, and options with another meaning here.

use std::{collections::BTreeSet, fmt::Write as _};

use super::conf::{Line, Place};

/// The notes of an import, in the order in which they were made.
#[derive(Default)]
pub(super) struct Report {
    not_taken: Vec<String>,
    differences: Vec<String>,
    said: BTreeSet<String>,
}

impl Report {
    /// Notes a line that was not taken over.
    pub(super) fn not_taken(&mut self, line: &Line, why: &str) {
        let Line { place, name, value } = line;
        // A bridge or a plugin can have its password here.
        let is_secret =
            name.contains("password") && name != "password_file" || name == "bridge_psk";
        let shown = if is_secret { "…" } else { value };
        self.not_taken.push(format!("{place}: {name} {shown}: {why}"));
    }

    /// Notes something else at a place that was not taken over.
    pub(super) fn not_taken_at(&mut self, place: &Place, what: &str, why: &str) {
        self.not_taken.push(format!("{place}: {what}: {why}"));
    }

    /// Notes that something has another meaning here, once.
    pub(super) fn differs(&mut self, place: Option<&Place>, text: &str) {
        let note = match place {
            Some(place) => format!("{place}: {text}"),
            None => text.to_owned(),
        };
        if self.said.insert(note.clone()) {
            self.differences.push(note);
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (title, notes) in
            [("Not taken over", &self.not_taken), ("Different in HearthMQ", &self.differences)]
        {
            let _ = writeln!(text, "{title}: {}", notes.len()); // writing to a String cannot fail
            for note in notes {
                let _ = writeln!(text, "  {note}");
            }
        }
        text
    }
}
