//! The numbers of one moment: rates are differences to those of the moment before.

use std::collections::HashMap;

use serde_json::Value;

use super::text_of;
use crate::cli::remote::table::duration;

/// The metrics of one moment. A metric with labels is the sum over them.
#[derive(Clone, Debug, Default)]
pub(super) struct MetricSums(HashMap<String, f64>);

impl MetricSums {
    /// Returns the metrics in the answer of `/api/v1/stats`.
    pub(super) fn of(answer: &Value) -> Self {
        let mut all: HashMap<String, f64> = HashMap::new();
        for sample in answer["metrics"].as_array().into_iter().flatten() {
            let name = sample["name"].as_str().unwrap_or_default();
            *all.entry(name.to_owned()).or_default() +=
                sample["value"].as_f64().unwrap_or_default();
        }
        Self(all)
    }

    fn value(&self, name: &str) -> f64 {
        self.0.get(&format!("hearthmq_{name}")).copied().unwrap_or_default()
    }
}

/// The numbers that are shown.
#[derive(Clone, Debug, Default)]
pub(super) struct TopNumbers {
    /// The answer of `/api/v1/node`; `null` if the account may not see it.
    pub(super) node: Value,
    /// The present metrics, those before, and the seconds between them.
    pub(super) metrics: Option<(MetricSums, Option<(MetricSums, f64)>)>,
    /// The busiest clients.
    pub(super) clients: Vec<Value>,
    /// The client that is shown in full, or why it cannot be.
    pub(super) shown: Option<Result<Value, String>>,
}

impl TopNumbers {
    fn gauge(&self, name: &str) -> f64 {
        self.metrics.as_ref().map_or(0.0, |(now, _)| now.value(name))
    }

    /// Returns the growth of a counter in a second.
    fn rate(&self, name: &str) -> f64 {
        let Some((now, Some((before, secs)))) = &self.metrics else { return 0.0 };
        let name = format!("{name}_total");
        ((now.value(&name) - before.value(&name)) / secs.max(0.001)).max(0.0)
    }

    /// Returns the lines above the clients.
    pub(super) fn summary(&self) -> Vec<String> {
        let node = &self.node;
        let uptime = node["uptime_secs"].as_u64().unwrap_or_default() * 1_000;
        // An account that may not see the node gets a first line too, so that the layout stays.
        let mut lines = vec![match node.is_null() {
            true => "hearthmq".to_owned(),
            false => format!(
                "hearthmq {}  node {}  up {}  {}",
                text_of(&node["version"]),
                text_of(&node["node"]),
                duration(uptime),
                text_of(&node["readiness"])
            ),
        }];
        // The list of clients is shown without them.
        if self.metrics.is_none() {
            lines.push(
                "the account may not see the metrics; it needs observe for all clients".into(),
            );
            return lines;
        }
        let count = |name| grouped(self.gauge(name));
        let rate = |name| grouped(self.rate(name));
        let bytes = |name| size(self.gauge(name));
        let rate_of_bytes = |name| size(self.rate(name));
        lines.push(format!(
            "clients {}  sessions {}  connects {}/s  refused {}/s  timeouts {}/s",
            count("connections"),
            count("sessions"),
            rate("connects_accepted"),
            rate("connects_refused"),
            rate("keep_alive_timeouts"),
        ));
        lines.push(format!(
            "in {} msg/s  {}/s   out {} msg/s  {}/s   dropped {} msg/s",
            rate("messages_received"),
            rate_of_bytes("received_bytes"),
            rate("messages_sent"),
            rate_of_bytes("sent_bytes"),
            rate("messages_dropped"),
        ));
        // In capitals, because this needs an operator now.
        let store = if self.gauge("store_writable") > 0.0 { "ok" } else { "CANNOT BE WRITTEN" };
        lines.push(format!(
            "queued {}  {}  half full {}  held {}   store {store}  stored {}",
            count("queue_messages"),
            bytes("queue_bytes"),
            count("sessions_over_half_queue"),
            count("publishers_held"),
            count("queue_stored_messages"),
        ));
        lines
    }
}

/// Returns a number with its digits in groups, such as `12,345`.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of bytes for people.
pub(super) fn size(bytes: f64) -> String {
    let mut value = bytes.max(0.0);
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1_000.0 {
            let digits = usize::from(unit != "B" && value < 100.0);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1_024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rates_are_differences_and_metrics_with_labels_are_sums() {
        let answer = |received: u64| {
            json!({ "metrics": [
                { "name": "hearthmq_messages_received_total", "labels": { "qos": "0" }, "value": received },
                { "name": "hearthmq_messages_received_total", "labels": { "qos": "1" }, "value": 5 },
                { "name": "hearthmq_connections", "value": 1234 },
                { "name": "hearthmq_store_writable", "value": 1 }] })
        };
        let before = MetricSums::of(&answer(100));
        let numbers = TopNumbers {
            metrics: Some((MetricSums::of(&answer(2_100)), Some((before, 2.0)))),
            ..TopNumbers::default()
        };
        let lines = numbers.summary();
        assert!(lines[1].starts_with("clients 1,234  sessions 0  "), "{lines:?}");
        assert!(lines[2].starts_with("in 1,000 msg/s  0 B/s"), "{lines:?}");
        assert!(lines[3].ends_with("store ok  stored 0"), "{lines:?}");
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(
            [0.0, 999.0, 1_000.4, 1_234_567.0].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0.0, 999.0, 1_024.0, 150_000.0, 5e9].map(size),
            ["0 B", "999 B", "1.0 KiB", "146 KiB", "4.7 GiB"]
        );
    }
}
