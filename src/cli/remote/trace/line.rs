//! A record of a trace as a line for people.
//!
//! An acknowledgement has the time since its packet. Texts of clients are shown escaped.

use std::{
    collections::HashMap,
    io::{self, Write as _},
};

use serde_json::Value;
use time::OffsetDateTime;

use crate::cli::remote::table::plain;

/// Packets whose acknowledgement is awaited; with more, all are forgotten.
const AWAITED_MAX: usize = 100_000;

/// Writes records.
pub(super) struct RecordLines {
    names_clients: bool,
    /// When packets were seen that will be acknowledged, in microseconds: by connection, whether they came
    /// from the client, the kind of their acknowledgement, and Packet Identifier.
    awaited: HashMap<(String, bool, &'static str, u64), u64>,
}

/// The packet that acknowledges a packet, and whether it goes in the same direction.
fn acknowledged_by(record: &Value) -> &'static [&'static str] {
    match record["kind"].as_str().unwrap_or_default() {
        "publish" if record["qos"] == 1 => &["puback"],
        "publish" if record["qos"] == 2 => &["pubrec"],
        "pubrel" => &["pubcomp"],
        "subscribe" => &["suback"],
        "unsubscribe" => &["unsuback"],
        "pingreq" => &["pingresp"],
        "connect" => &["connack"],
        _ => &[],
    }
}

impl RecordLines {
    pub(super) fn new(names_clients: bool) -> Self {
        Self { names_clients, awaited: HashMap::new() }
    }

    pub(super) fn write(&mut self, record: &Value) -> io::Result<()> {
        let line = self.line(record);
        writeln!(io::stdout().lock(), "{line}")
    }

    fn line(&mut self, record: &Value) -> String {
        let latency = self.latency(record);
        let arrow = match record["direction"].as_str() {
            Some("in") => '→',
            Some(_) => '←',
            None => '·',
        };
        let kind = record["kind"].as_str().unwrap_or_default().to_uppercase().replace('_', " ");
        let mut line = format!("{}  {arrow}  {kind:<11}", time_of(record));
        if let Some(missed) = record["missed"].as_u64() {
            // In front, because the records that were missed are older.
            line.insert_str(0, &format!("({missed} records were missed)\n"));
        }
        // A trace of one client need not name it on each line.
        if self.names_clients {
            push(&mut line, "client", &record["client_id"]);
        }
        for (name, label) in MEMBERS {
            push(&mut line, label, &record[name]);
        }
        if SHOWS_ADDRESS.into_iter().any(|kind| record["kind"] == kind) {
            push(&mut line, "from", &record["address"]);
        }
        for filter in record["filters"].as_array().into_iter().flatten() {
            let qos = filter["qos"].as_u64().map(|qos| format!(" (QoS {qos})")).unwrap_or_default();
            line.push_str(&format!("  {}{qos}", text(&filter["filter"])));
        }
        push(&mut line, "codes", &record["reason_codes"]);
        push_reason(&mut line, record);
        for (name, value) in record["properties"].as_object().into_iter().flatten() {
            push(&mut line, name, value);
        }
        if !record["will"].is_null() {
            push(&mut line, "will", &record["will"]["topic"]);
        }
        if let Some(bytes) = record["payload_bytes"].as_u64() {
            line.push_str(&format!("  {bytes} B"));
        }
        push(&mut line, "payload", &record["payload_base64"]);
        if record["incomplete"] == true {
            line.push_str("  (incomplete)");
        }
        if let Some(micros) = latency {
            line.push_str(&format!("  after {}.{:03} ms", micros / 1_000, micros % 1_000));
        }
        line
    }

    /// Returns the microseconds since the packet that a record acknowledges.
    fn latency(&mut self, record: &Value) -> Option<u64> {
        let micros = record["micros"].as_u64()?;
        let is_in = record["direction"] == "in";
        let id = record["packet_id"].as_u64().unwrap_or_default();
        let connection = record["address"].as_str().unwrap_or_default();
        for kind in acknowledged_by(record) {
            // Packets that are never acknowledged would stay; only some latencies are lost.
            if self.awaited.len() >= AWAITED_MAX {
                self.awaited.clear();
            }
            self.awaited.insert((connection.to_owned(), is_in, kind, id), micros);
        }
        let kind = ACKNOWLEDGEMENTS.into_iter().find(|kind| record["kind"] == *kind)?;
        let began = self.awaited.remove(&(connection.to_owned(), !is_in, kind, id))?;
        Some(micros.saturating_sub(began))
    }
}

const ACKNOWLEDGEMENTS: [&str; 7] =
    ["puback", "pubrec", "pubcomp", "suback", "unsuback", "pingresp", "connack"];

/// The kinds with which a connection begins to be shown.
const SHOWS_ADDRESS: [&str; 3] = ["connect", "connection_followed", "connection_refused"];

/// The members of a record that are shown, and their labels, in their order.
const MEMBERS: [(&str, &str); 12] = [
    ("packet_id", "id"),
    ("qos", "QoS"),
    ("dup", "dup"),
    ("retain", "retain"),
    ("topic", ""),
    ("protocol", "protocol"),
    ("clean_start", "clean start"),
    ("keep_alive", "keep alive"),
    ("username", "user"),
    ("has_password", "password"),
    ("session_present", "session present"),
    ("by", "by"),
];

/// Adds a member, if there is one. A flag is shown where it is set.
fn push(line: &mut String, label: &str, value: &Value) {
    let shown = match value {
        Value::Null | Value::Bool(false) => return,
        Value::Bool(true) => String::new(),
        Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => text(value),
    };
    line.push_str("  ");
    line.push_str(label);
    if !label.is_empty() && !shown.is_empty() {
        line.push(' ');
    }
    line.push_str(&shown);
}

fn push_reason(line: &mut String, record: &Value) {
    let reason = text(&record["reason"]);
    match record["reason_code"].as_u64() {
        Some(code) => line.push_str(format!("  0x{code:02X} {reason}").trim_end()),
        None if !reason.is_empty() => line.push_str(&format!("  {reason}")),
        None => {}
    }
}

fn text(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    plain(&text).into_owned()
}

/// Returns the time of day, in UTC.
fn time_of(record: &Value) -> String {
    let millis = record["at"].as_u64().unwrap_or_default();
    let secs = i64::try_from(millis / 1_000).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(secs).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second) = time.to_hms();
    format!("{hour:02}:{minute:02}:{second:02}.{:03}", millis % 1_000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_are_lines_with_latencies() {
        let mut lines = RecordLines::new(false);
        let published = json!({"number": 1, "at": 1_764_321_000_123_u64, "micros": 1_000,
            "client_id": "car", "address": "192.0.2.7:4", "direction": "in", "kind": "publish",
            "bytes": 15, "packet_id": 7, "topic": "a/\u{1b}b", "qos": 1, "retain": true,
            "dup": false, "payload_bytes": 5});
        assert_eq!(
            lines.line(&published),
            "09:10:00.123  →  PUBLISH      id 7  QoS 1  retain  a/\\u{1b}b  5 B"
        );
        let taken = json!({"number": 2, "at": 1_764_321_000_125_u64, "micros": 2_345,
            "address": "192.0.2.7:4", "direction": "out", "kind": "puback", "packet_id": 7,
            "reason_code": 16, "reason": "NoMatchingSubscribers", "missed": 3});
        assert_eq!(
            lines.line(&taken),
            "(3 records were missed)\n09:10:00.125  ←  PUBACK       id 7  \
             0x10 NoMatchingSubscribers  after 1.345 ms"
        );
        let ended = json!({"at": 0, "kind": "connection_ended", "reason": "kicked", "by": "ops"});
        assert_eq!(lines.line(&ended), "00:00:00.000  ·  CONNECTION ENDED  by ops  kicked");
        assert!(lines.awaited.is_empty());
    }
}
