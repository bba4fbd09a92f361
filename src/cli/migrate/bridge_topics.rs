//! `topic` lines of a bridge of Mosquitto: `PATTERN [[[out|in|both] QOS] LOCAL-PREFIX REMOTE-PREFIX]`.
//!
//! Knows no other line.

use hearthmq::mqtt::{is_of_the_broker, validate_filter, validate_topic};
use toml::Table;

/// Stands for an empty prefix, or an empty pattern.
const EMPTY: &str = "\"\"";

/// Returns the words of a value before its comment.
pub(super) fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split_whitespace().take_while(|word| !word.starts_with('#'))
}

/// Reads the value of a line; returns the table of a topic.
///
/// # Errors
/// Why a bridge cannot have it, which is a part of a sentence.
pub(super) fn read_topic(value: &str) -> Result<Table, String> {
    let (pattern, rest) = split_pattern(value)?;
    let mut rest = words(rest);
    // The defaults of mosquitto.conf(5), in the order of the words.
    let direction = rest.next().unwrap_or("out").to_ascii_lowercase();
    if !["in", "out", "both"].contains(&direction.as_str()) {
        return Err(format!("{direction:?} is not a direction: in, out or both"));
    }
    let qos = rest.next().unwrap_or("0");
    let qos = qos.parse::<i64>().ok().filter(|qos| (0..=2).contains(qos));
    let qos = qos.ok_or("the QoS is 0, 1 or 2")?;
    let mut prefix = || rest.next().filter(|prefix| *prefix != EMPTY).unwrap_or_default();
    let (local, remote) = (prefix(), prefix());
    check(pattern, local, remote)?;
    // Messages that come in would be refused one by one, after the bridge has started.
    if direction != "out" && is_of_the_broker(&format!("{local}{pattern}")) {
        return Err("nobody can publish to $SYS, $events or $control".to_owned());
    }
    let texts = [
        ("filter", pattern),
        ("direction", direction.as_str()),
        ("local_prefix", local),
        ("remote_prefix", remote),
        // Mosquitto sends retained messages at each connection.
        ("retained", "always"),
    ];
    let mut table = Table::new();
    for (key, text) in texts {
        table.insert(key.to_owned(), text.into());
    }
    table.insert("qos".to_owned(), qos.into());
    Ok(table)
}

/// Splits the pattern off, which may stand in quotes.
fn split_pattern(value: &str) -> Result<(&str, &str), String> {
    match value.strip_prefix('"') {
        Some(quoted) if !quoted.starts_with('"') => {
            quoted.split_once('"').ok_or_else(|| "a quote is missing".to_owned())
        }
        _ => {
            let (pattern, rest) = value.split_once([' ', '\t']).unwrap_or((value, ""));
            let pattern = if pattern == EMPTY { "" } else { pattern };
            Ok((pattern, rest))
        }
    }
}

/// Checks that both topics are possible: those of the table of mosquitto.conf(5).
fn check(pattern: &str, local: &str, remote: &str) -> Result<(), String> {
    if pattern.is_empty() && (local.is_empty() || remote.is_empty()) {
        return Err("an empty pattern needs both prefixes".to_owned());
    }
    if pattern.starts_with("$share/") {
        return Err("a bridge has no shared subscriptions".to_owned());
    }
    for prefix in [local, remote] {
        if !prefix.is_empty() {
            validate_topic(prefix).map_err(|error| format!("prefix {prefix:?}: {error}"))?;
        }
        let filter = format!("{prefix}{pattern}");
        validate_filter(&filter).map_err(|error| format!("{filter:?}: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns filter, direction, QoS and prefixes of a line.
    fn read(value: &str) -> Result<String, String> {
        let table = read_topic(value)?;
        let part = |key: &str| {
            let value = &table[key];
            value.as_str().map_or_else(|| value.to_string(), str::to_owned)
        };
        let keys = ["filter", "direction", "qos", "local_prefix", "remote_prefix"];
        Ok(keys.map(part).join("|"))
    }

    #[test]
    fn lines_of_the_manual_are_read() {
        for (line, expected) in [
            ("pattern", "pattern|out|0||"),
            ("# out", "#|out|0||"),
            ("a/# in 1", "a/#|in|1||"),
            ("a/#   BOTH\t2", "a/#|both|2||"),
            ("pattern both 2 L/ R/", "pattern|both|2|L/|R/"),
            ("pattern both 2 L/ \"\"", "pattern|both|2|L/|"),
            ("pattern both 2 \"\" R/", "pattern|both|2||R/"),
            ("pattern both 2 \"\" \"\"", "pattern|both|2||"),
            ("pattern in 1 L/", "pattern|in|1|L/|"),
            ("\"\" out 0 local remote", "|out|0|local|remote"),
            ("# both 2 local/topic/ remote/topic/", "#|both|2|local/topic/|remote/topic/"),
            (
                "clients/total in 0 test/mosquitto/org/ $SYS/broker/",
                "clients/total|in|0|test/mosquitto/org/|$SYS/broker/",
            ),
            ("a out 1 # a comment", "a|out|1||"),
            ("\"with a space/#\" out 1 x/", "with a space/#|out|1|x/|"),
        ] {
            assert_eq!(read(line), Ok(expected.to_owned()), "{line}");
        }
    }

    #[test]
    fn lines_that_cannot_be_are_refused() {
        for (line, expected) in [
            ("a sideways", "\"sideways\" is not a direction: in, out or both"),
            ("a out 3", "the QoS is 0, 1 or 2"),
            ("a out x", "the QoS is 0, 1 or 2"),
            ("\"\" out 0 local \"\"", "an empty pattern needs both prefixes"),
            ("\"\" out 0 \"\" remote", "an empty pattern needs both prefixes"),
            ("\"\" out 0", "an empty pattern needs both prefixes"),
            ("\"a", "a quote is missing"),
            ("$share/g/a out", "a bridge has no shared subscriptions"),
            ("broker/# in 0 $SYS/", "nobody can publish to $SYS, $events or $control"),
        ] {
            assert_eq!(read(line), Err(expected.to_owned()), "{line}");
        }
        for line in ["a out 0 +/ b/", "a#", "a/# out 0 b/# c", "a#/b in"] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
