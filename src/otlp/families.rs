//! The metrics as OTLP has them, from the text of the broker's registry.
//!
//! The text that `/metrics` returns is the one description of all metrics: a metric that is added there is
//! exported here too. Reads only what `prometheus-client` writes of the broker's metrics.

use super::wire::{
    Data, Histogram, HistogramPoint, KeyValue, Metric, MetricsRequest, Number, NumberPoint,
    Resource, ResourceMetrics, Scope, ScopeMetrics, Sum, WireGauge,
};

/// Counts begin with the process and are never reset.
const CUMULATIVE: i32 = 2;

/// The time for which values hold, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy)]
pub(super) struct Period {
    /// The start of the process.
    pub(super) began: u64,
    pub(super) now: u64,
}

/// Returns the request that exports all metrics in this text.
pub(super) fn request(
    text: &str,
    period: Period,
    resource: Resource,
    scope: Scope,
) -> MetricsRequest {
    let mut metrics = Vec::new();
    let mut family = None::<Family<'_>>;
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(described) => family = Family::describe(family, described, &mut metrics),
            None => {
                // A sample without a description has no kind, and cannot be exported.
                if let (Some(family), Some(sample)) = (&mut family, SampleLine::parse(line)) {
                    family.add(sample, period);
                }
            }
        }
    }
    // Empty after the line `# EOF`, which ends the last metric.
    metrics.extend(family.map(Family::end));
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics }];
    let resource_metrics = vec![ResourceMetrics { resource: Some(resource), scope_metrics }];
    MetricsRequest { resource_metrics }
}

/// A metric that is being read.
struct Family<'t> {
    name: &'t str,
    help: String,
    unit: &'t str,
    kind: &'t str,
    points: Vec<NumberPoint>,
    histograms: Vec<HistogramPoint>,
}

impl<'t> Family<'t> {
    /// Takes a line that describes a metric. The one before ends if this is another one.
    fn describe(before: Option<Self>, line: &'t str, metrics: &mut Vec<Metric>) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let (what, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let rest = words.next().unwrap_or_default();
        let mut family = match before {
            // HELP, TYPE and UNIT of one metric come together.
            Some(same) if same.name == name => same,
            other => {
                metrics.extend(other.map(Self::end));
                if name.is_empty() {
                    return None; // the end of the text
                }
                let (points, histograms) = (Vec::new(), Vec::new());
                Self { name, help: String::new(), unit: "", kind: "", points, histograms }
            }
        };
        match what {
            "HELP" => family.help = unescaped(rest).trim_end_matches('.').to_owned(),
            "UNIT" => family.unit = rest,
            "TYPE" => family.kind = rest,
            _ => {}
        }
        Some(family)
    }

    fn add(&mut self, sample: SampleLine<'_>, period: Period) {
        if self.kind != "histogram" {
            let value = sample.number();
            self.points.push(NumberPoint {
                // A counter says since when it counts; a gauge has no beginning.
                start_time_unix_nano: if self.kind == "counter" { period.began } else { 0 },
                time_unix_nano: period.now,
                value: Some(value),
                attributes: sample.labels,
            });
            return;
        }
        let SampleLine { name, mut labels, value } = sample;
        // `le` is the bound of the bucket, and not an attribute of the point.
        let bound = labels.iter().position(|label| label.key == "le").map(|at| labels.remove(at));
        let is_same = |point: &HistogramPoint| point.attributes == labels;
        // Samples with the same labels follow one another, so the last point is the only candidate.
        if !self.histograms.last().is_some_and(is_same) {
            self.histograms.push(HistogramPoint {
                start_time_unix_nano: period.began,
                time_unix_nano: period.now,
                attributes: labels,
                ..HistogramPoint::default()
            });
        }
        let Some(point) = self.histograms.last_mut() else { return };
        let suffix = name.strip_prefix(self.name).unwrap_or_default();
        match (suffix, bound.as_ref().and_then(text_of)) {
            ("_sum", _) => point.sum = value.parse().ok(),
            ("_count", _) => point.count = value.parse().unwrap_or_default(),
            ("_bucket", Some(bound)) => {
                // The text counts all values up to a bound, OTLP those since the bound before.
                let up_to: u64 = value.parse().unwrap_or_default();
                let before: u64 = point.bucket_counts.iter().sum();
                point.bucket_counts.push(up_to.saturating_sub(before));
                if bound != "+Inf" {
                    point.explicit_bounds.extend(bound.parse::<f64>());
                }
            }
            _ => {}
        }
    }

    fn end(self) -> Metric {
        let data = match self.kind {
            "counter" => Data::Sum(Sum {
                data_points: self.points,
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            }),
            "histogram" => Data::Histogram(Histogram {
                data_points: self.histograms,
                aggregation_temporality: CUMULATIVE,
            }),
            // Any other kind is a value at one moment.
            _ => Data::Gauge(WireGauge { data_points: self.points }),
        };
        // As UCUM abbreviates them.
        let unit = match self.unit {
            "seconds" => "s",
            "bytes" => "By",
            other => other,
        };
        Metric {
            name: self.name.to_owned(),
            description: self.help,
            unit: unit.to_owned(),
            data: Some(data),
        }
    }
}

/// A line with a value.
struct SampleLine<'t> {
    name: &'t str,
    labels: Vec<KeyValue>,
    value: &'t str,
}

impl<'t> SampleLine<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let Some((name, rest)) = line.split_once('{') else {
            let (name, value) = line.split_once(' ')?;
            return Some(Self { name, labels: Vec::new(), value });
        };
        let mut labels = Vec::new();
        let mut rest = rest;
        loop {
            // Label values may contain every character but an unescaped quote.
            if let Some(value) = rest.strip_prefix("} ") {
                return Some(Self { name, labels, value });
            }
            let (key, behind) = rest.split_once("=\"")?;
            let end = closing_quote(behind)?;
            let key = key.trim_start_matches(',');
            labels.push(KeyValue::text(key, unescaped(&behind[..end])));
            rest = &behind[end + 1..];
        }
    }

    fn number(&self) -> Number {
        match self.value.parse() {
            Ok(whole) => Number::Int(whole),
            Err(_) => Number::Double(self.value.parse().unwrap_or(f64::NAN)),
        }
    }
}

fn text_of(label: &KeyValue) -> Option<&str> {
    match label.value.as_ref()?.value.as_ref()? {
        super::wire::Value::Text(text) => Some(text),
        super::wire::Value::Flag(_) | super::wire::Value::Number(_) => None,
    }
}

/// Returns where a text in quotes ends, which may have quotes behind a backslash.
fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                plain.extend(characters.next().map(|next| if next == 'n' { '\n' } else { next }))
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::metrics::{DropReason, Metrics};

    const PERIOD: Period = Period { began: 1, now: 2 };

    fn metrics_of(text: &str) -> Vec<Metric> {
        let request = request(text, PERIOD, Resource::default(), Scope::default());
        let mut resource = request.resource_metrics;
        resource.remove(0).scope_metrics.remove(0).metrics
    }

    fn find<'m>(metrics: &'m [Metric], name: &str) -> &'m Metric {
        metrics.iter().find(|metric| metric.name == name).expect(name)
    }

    #[test]
    fn all_metrics_of_the_registry_are_exported_with_their_values() {
        let metrics = Arc::new(Metrics::new(1));
        metrics.shard(0).connections.set(3);
        metrics.shard(0).dropped(DropReason::QueueFull, 5);
        let text = metrics.encode();
        let exported = metrics_of(&text);
        let described = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
        assert_eq!(exported.len(), described);
        assert!(exported.iter().all(|metric| !metric.description.is_empty()));
        let Some(Data::Gauge(connections)) = &find(&exported, "hearthmq_connections").data else {
            panic!("it is a gauge");
        };
        assert_eq!(connections.data_points[0].value, Some(Number::Int(3)));
        let dropped = find(&exported, "hearthmq_messages_dropped");
        let Some(Data::Sum(dropped)) = &dropped.data else { panic!("it is a counter") };
        assert!(dropped.is_monotonic && dropped.aggregation_temporality == CUMULATIVE);
        let full = dropped.data_points.iter().find(|point| point.value == Some(Number::Int(5)));
        let full = full.expect("five messages");
        assert_eq!(full.attributes, [KeyValue::text("reason", "queue_full")]);
        assert_eq!((full.start_time_unix_nano, full.time_unix_nano), (1, 2));
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter(|line| !line.contains("_bucket{")).count();
        let points = exported.iter().map(|metric| match &metric.data {
            Some(Data::Gauge(gauge)) => gauge.data_points.len(),
            Some(Data::Sum(sum)) => sum.data_points.len(),
            Some(Data::Histogram(histogram)) => 2 * histogram.data_points.len(), // sum and count
            None => 0,
        });
        assert_eq!(points.sum::<usize>(), samples);
    }

    #[test]
    fn buckets_of_a_histogram_count_what_lies_between_their_bounds() {
        let metrics = Arc::new(Metrics::new(1));
        for micros in [10, 11, 2_000_000] {
            metrics.shard(0).turns.note(micros * 1_000);
        }
        let exported = metrics_of(&metrics.encode());
        let turns = find(&exported, "hearthmq_turn_duration_seconds");
        assert_eq!(turns.unit, "s");
        let Some(Data::Histogram(turns)) = &turns.data else { panic!("it is a histogram") };
        let [point] = &turns.data_points[..] else { panic!("one point") };
        assert_eq!((point.count, point.bucket_counts.iter().sum()), (3, 3_u64));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts[..2], [1, 1]);
        assert_eq!(point.bucket_counts.last(), Some(&1));
        let sum = Duration::from_micros(2_000_021).as_secs_f64();
        assert!(point.sum.is_some_and(|found| (found - sum).abs() < 1e-6));
    }

    #[test]
    fn labels_may_have_quotes_and_braces() {
        let text = "# TYPE a gauge\na{b=\"c\\\"d} 1\",e=\"\\\\n\\n\"} 0.5\n# EOF\n";
        let [metric] = &metrics_of(text)[..] else { panic!("one metric") };
        let Some(Data::Gauge(gauge)) = &metric.data else { panic!("it is a gauge") };
        let labels = [KeyValue::text("b", "c\"d} 1"), KeyValue::text("e", "\\n\n")];
        assert_eq!(gauge.data_points[0].attributes, labels);
        assert_eq!(gauge.data_points[0].value, Some(Number::Double(0.5)));
    }
}
