//! Tables and values for a terminal.
//!
//! Texts of clients may contain characters that control a terminal; they are shown escaped.

use std::{
    borrow::Cow,
    io::{self, Write as _},
    time::Duration,
};

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use unicode_width::UnicodeWidthStr as _;

/// Rows of a table, which are aligned when it is written.
pub(super) struct TextTable {
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl TextTable {
    pub(super) const fn new(head: &'static [&'static str]) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// Adds a row with a text for each column.
    pub(super) fn add(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().map(|text| plain(&text).into_owned()).collect());
    }

    /// Writes the table.
    pub(super) fn write(&self) -> io::Result<()> {
        let head = self.head.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all = || std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| {
            all().filter_map(|row| row.get(column)).map(|text| text.width()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut output = io::stdout().lock();
        for row in all() {
            let mut line = String::new();
            for (text, width) in row.iter().zip(&widths) {
                line.push_str(text);
                // Padded by the width on the terminal: a character may take two columns, or none.
                line.push_str(&" ".repeat(width - text.width() + 2));
            }
            writeln!(output, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Writes an object as lines of names and values; objects in it are indented.
pub(super) fn write_object(value: &Value) -> io::Result<()> {
    fn lines(value: &Value, indent: usize, output: &mut impl io::Write) -> io::Result<()> {
        for (name, value) in value.as_object().into_iter().flatten() {
            let space = " ".repeat(indent);
            if value.is_object() {
                writeln!(output, "{space}{}:", plain(name))?;
                lines(value, indent + 2, output)?;
            } else {
                writeln!(output, "{space}{}: {}", plain(name), named(name, value))?;
            }
        }
        Ok(())
    }
    lines(value, 0, &mut io::stdout().lock())
}

/// Writes a value as one line of JSON.
pub(super) fn write_json(value: &Value) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{value}")
}

/// Returns the text of a field; empty if there is none.
pub(super) fn field(object: &Value, name: &str) -> String {
    named(name, &object[name])
}

/// Returns the text of a value; of a time that is named `…_at`, its date.
fn named(name: &str, value: &Value) -> String {
    let is_time = name.ends_with("_at") || matches!(name, "at" | "deadline" | "timestamp");
    if let Some(date) = value.as_u64().filter(|_| is_time).and_then(date) {
        return date;
    }
    let text = match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    plain(&text).into_owned()
}

/// Returns the date of a time in milliseconds since the Unix epoch, in UTC and to the second.
fn date(millis: u64) -> Option<String> {
    let secs = i64::try_from(millis / 1000).ok()?;
    OffsetDateTime::from_unix_timestamp(secs).ok()?.format(&Rfc3339).ok()
}

/// Returns a duration for people.
pub(super) fn duration(millis: u64) -> String {
    let secs = Duration::from_millis(millis).as_secs();
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        3_600..86_400 => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

/// Returns a text with its control characters escaped.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    // Of characters without a width, some change the order of the text beside them.
    let is_hidden = |char: char| char.is_control() || ('\u{200B}'..='\u{206F}').contains(&char);
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let escape = |char: char| match is_hidden(char) {
        true => char.escape_unicode().to_string(),
        false => char.to_string(),
    };
    Cow::Owned(text.chars().map(escape).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_terminal_is_not_controlled_by_a_client() {
        assert_eq!(plain("car-17 ü"), "car-17 ü");
        assert_eq!(plain("\u{1b}[2Ja\u{202e}b\n"), "\\u{1b}[2Ja\\u{202e}b\\u{a}");
    }

    #[test]
    fn times_are_dates() {
        let object = json!({ "connected_at": 1_764_321_000_123_u64, "queued": 5, "online": true });
        assert_eq!(field(&object, "connected_at"), "2025-11-28T09:10:00Z");
        assert_eq!(field(&object, "queued"), "5");
        assert_eq!(field(&object, "online"), "yes");
        assert_eq!(field(&object, "absent"), "");
        assert_eq!(duration(61_000), "1 min 1 s");
        assert_eq!(duration(90_000_000), "1 d 1 h");
    }
}
