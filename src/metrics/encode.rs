//! Encodes the metrics for Prometheus: names, help texts and labels, in OpenMetrics format.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::{
    COMMIT, Metrics, ShardMetrics, Totals,
    cells::{Counter, Gauge, PerLabel},
    rest::RestRoute,
};
use crate::labels::Label;

/// The HTTP `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    /// Returns all current values as OpenMetrics text of type [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(self: &Arc<Self>) -> String {
        let mut registry = Registry::with_prefix("hearthmq");
        registry.register_collector(Box::new(Scrape(Arc::clone(self))));
        // About the size of a scrape, so that the text does not grow in many steps.
        let mut out = String::with_capacity(8 * 1024);
        let written = text::encode_registry(&mut out, &registry);
        written.expect("writing to a String cannot fail");
        #[cfg(target_os = "linux")]
        {
            let mut registry = Registry::default(); // names without the prefix
            registry.register_collector(Box::new(super::process::Process));
            let written = text::encode_registry(&mut out, &registry);
            written.expect("writing to a String cannot fail");
        }
        // OpenMetrics ends with one mark, behind both registries.
        text::encode_eof(&mut out).expect("writing to a String cannot fail");
        out
    }
}

#[derive(Debug)]
struct Scrape(Arc<Metrics>);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = TextWriter { shards: &self.0.cells, encoder };
        writer.build_info()?;
        writer.clients()?;
        writer.messages()?;
        writer.flow()?;
        writer.turns()?;
        let totals = self.0.totals();
        writer.totals(totals)?;
        writer.logins(totals)?;
        writer.sources(&self.0)?;
        writer.log(&self.0)?;
        #[cfg(feature = "webhooks")]
        writer.webhooks(&self.0)?;
        writer.otlp(&self.0)?;
        #[cfg(feature = "bridge")]
        writer.bridges(&self.0)?;
        #[cfg(feature = "cluster")]
        writer.cluster(&self.0)?;
        writer.rest(&self.0)
    }
}

pub(super) struct TextWriter<'s, 'e> {
    pub(super) shards: &'s [Arc<ShardMetrics>],
    pub(super) encoder: DescriptorEncoder<'e>,
}

impl TextWriter<'_, '_> {
    fn build_info(&mut self) -> fmt::Result {
        let labels =
            [("version", env!("CARGO_PKG_VERSION")), ("commit", COMMIT.unwrap_or("unknown"))];
        let help = "Always 1; the labels identify the running build";
        let mut family =
            self.encoder.encode_descriptor("build_info", help, None, MetricType::Gauge)?;
        ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)
    }

    fn clients(&mut self) -> fmt::Result {
        self.gauge("connections", "MQTT connections online", |shard| &shard.connections)?;
        self.labelled(
            "sockets_accepted",
            "Sockets accepted, by transport",
            "transport",
            |shard| &shard.sockets_accepted,
        )?;
        self.counter("accepts_failed", "Failures to accept a socket", |shard| {
            &shard.accepts_failed
        })?;
        self.counter("connects_accepted", "CONNECTs answered with success", |shard| {
            &shard.connects_accepted
        })?;
        self.labelled("connects_refused", "Connections refused, by reason", "reason", |shard| {
            &shard.connects_refused
        })?;
        self.labelled("disconnects", "Connections ended, by reason", "reason", |shard| {
            &shard.disconnects
        })?;
        self.gauge("sessions", "Sessions, online and offline", |shard| &shard.sessions)?;
        self.counter("keep_alive_timeouts", "Connections ended by a Keep Alive timeout", |shard| {
            &shard.keep_alive_timeouts
        })
    }

    fn messages(&mut self) -> fmt::Result {
        self.by_qos("messages_received", "PUBLISH packets received, by QoS", |shard| {
            &shard.messages_received
        })?;
        self.by_qos("messages_sent", "PUBLISH packets sent, by QoS", |shard| &shard.messages_sent)?;
        self.labelled("messages_dropped", "Messages dropped, by reason", "reason", |shard| {
            &shard.messages_dropped
        })?;
        self.counter("received_bytes", "Bytes read from MQTT clients", |shard| {
            &shard.bytes_received
        })?;
        self.counter("sent_bytes", "Bytes written to MQTT clients", |shard| &shard.bytes_sent)?;
        Ok(())
    }

    fn flow(&mut self) -> fmt::Result {
        self.gauge("publishers_held", "Publishers held by backpressure now", |shard| {
            &shard.publishers_held
        })?;
        self.labelled("publisher_holds", "Publishers held, by reason", "reason", |shard| {
            &shard.publisher_holds
        })?;
        let millis = self.shards.iter().map(|shard| shard.publishers_held_millis.value());
        // Prometheus wants base units; the shards count whole milliseconds.
        #[expect(clippy::cast_precision_loss, reason = "milliseconds below 2^52 are exact")]
        let seconds = millis.sum::<u64>() as f64 / 1e3;
        let mut encoder = self.encoder.encode_descriptor(
            "publishers_held",
            "Time that publishers were held, added when they are released",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        encoder.encode_counter::<NoLabelSet, f64, u64>(&seconds, None)?;
        self.counter(
            "subscribers_given_up",
            "Subscribers too slow for the publishers held for them",
            |shard| &shard.subscribers_given_up,
        )
    }

    fn waiting(&mut self, totals: &Totals) -> fmt::Result {
        self.total(
            "queue_messages",
            "Messages queued for clients in memory",
            &totals.queue_messages,
        )?;
        self.total(
            "queue_bytes",
            "Bytes of messages queued for clients in memory",
            &totals.queue_bytes,
        )?;
        self.total(
            "queue_stored_messages",
            "Messages queued for clients only in the store",
            &totals.queue_stored_messages,
        )?;
        self.total(
            "queue_stored_bytes",
            "Bytes of messages queued for clients only in the store",
            &totals.queue_stored_bytes,
        )?;
        self.total(
            "store_waiting_bytes",
            "Bytes of changes on their way to the store",
            &totals.store_waiting_bytes,
        )?;
        self.total(
            "store_writable",
            "1 while the store can be written, or if there is none",
            &totals.store_writable,
        )
    }

    fn totals(&mut self, totals: &Totals) -> fmt::Result {
        self.total("subscriptions", "Subscriptions of all sessions", &totals.subscriptions)?;
        self.total(
            "subscription_bytes",
            "Bytes that subscriptions count against their limit",
            &totals.subscription_bytes,
        )?;
        self.total(
            "incomplete_packet_bytes",
            "Bytes of incomplete large packets",
            &totals.incomplete_packet_bytes,
        )?;
        self.total("will_bytes", "Bytes of Wills", &totals.will_bytes)?;
        self.labelled(
            "user_limits_reached",
            "How often a limit of one user was reached, by limit",
            "limit",
            |shard| &shard.user_limits_reached,
        )?;
        self.total(
            "owners",
            "Users and addresses with a session or a retained message",
            &totals.owners,
        )?;
        self.waiting(totals)?;
        self.total(
            "in_flight_bytes",
            "Bytes of unacknowledged messages, counted in 64 KiB blocks per session",
            &totals.in_flight_bytes,
        )?;
        self.total(
            "queue_messages_highest",
            "Highest number of queued messages so far",
            &totals.queue_messages_highest,
        )?;
        self.total(
            "queue_bytes_highest",
            "Highest number of bytes of queued messages so far",
            &totals.queue_bytes_highest,
        )?;
        self.total(
            "sessions_over_half_queue",
            "Sessions that use more than half of the queue limit of one client",
            &totals.sessions_over_half_queue,
        )?;
        self.total("retained_messages", "Retained messages", &totals.retained_messages)?;
        self.total("retained_bytes", "Bytes of retained messages", &totals.retained_bytes)?;
        // The totals are gauges; this one only grows, so it is a counter for Prometheus.
        let encoder = self.encoder.encode_descriptor(
            "history_notes_lost",
            "Beginnings and ends of connections that could not be noted in histories of clients",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(totals.history_lost.value()).encode(encoder)
    }

    fn log(&mut self, metrics: &Metrics) -> fmt::Result {
        let encoder = self.encoder.encode_descriptor(
            "log_lines_left_out",
            "Log lines about clients and calls omitted by the rate limit",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(metrics.totals().log_lines_left_out.value()).encode(encoder)?;
        let Totals { lists_fetched, list_fetches_failed, .. } = metrics.totals();
        let counts = [("fetched", lists_fetched), ("failed", list_fetches_failed)];
        let counts =
            counts.map(|(outcome, count)| ([("outcome", outcome.to_owned())], count.value()));
        self.family("crl_fetches", "Fetches of revocation lists from their URLs", &counts)?;
        // Absent in an application, which writes the log by itself.
        let Some(dropped) = metrics.log_dropped() else { return Ok(()) };
        let encoder = self.encoder.encode_descriptor(
            "log_lines_dropped",
            "Log lines dropped because standard error was not read",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(dropped).encode(encoder)
    }

    fn rest(&mut self, metrics: &Metrics) -> fmt::Result {
        let routes = RestRoute::ALL.iter().map(|route| (route.name(), metrics.rest.of(*route)));
        let calls: Vec<_> = routes
            .clone()
            .flat_map(|(name, route)| {
                route.calls().map(move |(status, calls)| {
                    ([("route", name.to_owned()), ("status", status.to_string())], calls)
                })
            })
            .collect();
        self.family("rest_calls", "REST calls, by route and status", &calls)?;
        let mut family = self.encoder.encode_descriptor(
            "rest_latency",
            "Time from the head of a REST call to its answer, by route",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (name, route) in routes {
            let (sum, buckets) = route.latency();
            // The sum of the buckets and not a counter of its own: both are read at one moment.
            let count = buckets.iter().map(|(_, calls)| calls).sum();
            family
                .encode_family(&[("route", name)])?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        of: impl Fn(&ShardMetrics) -> &Gauge,
    ) -> fmt::Result {
        let sum = Gauge::default();
        sum.set(self.shards.iter().map(|shard| of(shard).value()).sum());
        self.total(name, help, &sum)
    }

    pub(super) fn total(&mut self, name: &str, help: &str, gauge: &Gauge) -> fmt::Result {
        let encoder = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(gauge.value()).unwrap_or(i64::MAX)).encode(encoder)
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        of: impl Fn(&ShardMetrics) -> &Counter,
    ) -> fmt::Result {
        self.counted(name, help, self.shards.iter().map(|shard| of(shard).value()).sum())
    }

    pub(super) fn counted(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let encoder = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(count).encode(encoder)
    }

    fn by_qos(
        &mut self,
        name: &str,
        help: &str,
        of: impl Fn(&ShardMetrics) -> &[Counter; 3],
    ) -> fmt::Result {
        let sums = ["0", "1", "2"].iter().enumerate().map(|(qos, label)| {
            let sum = self.shards.iter().map(|shard| of(shard)[qos].value()).sum();
            ([("qos", *label)], sum)
        });
        let sums: Vec<_> = sums.collect();
        self.family(name, help, &sums)
    }

    fn labelled<L: Label>(
        &mut self,
        name: &str,
        help: &str,
        label_name: &'static str,
        of: impl Fn(&ShardMetrics) -> &PerLabel<L>,
    ) -> fmt::Result {
        let sums = L::ALL.iter().map(|label| {
            let sum = self.shards.iter().map(|shard| of(shard).of(*label).value()).sum();
            ([(label_name, label.name())], sum)
        });
        let sums: Vec<_> = sums.collect();
        self.family(name, help, &sums)
    }

    /// Encodes counters with one name and different labels.
    pub(super) fn family<S: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        counters: &[(S, u64)],
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in counters {
            ConstCounter::new(*count).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::DropReason;
    use super::*;
    use crate::hooks::DisconnectReason;

    #[test]
    fn a_scrape_adds_the_shards_up() {
        let metrics = Arc::new(Metrics::new(2));
        let shards = [metrics.shard(0), metrics.shard(1)];
        shards[0].connections.set(3);
        shards[1].connections.set(4);
        shards[0].messages_received[1].increment();
        shards[1].messages_received[1].add(9);
        shards[1].messages_dropped.increment(DropReason::QueueFull);
        shards[0].disconnects.increment(DisconnectReason::KeepaliveTimeout);
        let text = metrics.encode();
        for line in [
            "hearthmq_connections 7",
            "hearthmq_messages_received_total{qos=\"1\"} 10",
            "hearthmq_messages_received_total{qos=\"2\"} 0",
            "hearthmq_messages_dropped_total{reason=\"queue_full\"} 1",
            "hearthmq_messages_dropped_total{reason=\"expired\"} 0",
            "hearthmq_disconnects_total{reason=\"keepalive_timeout\"} 1",
            "# TYPE hearthmq_sessions gauge",
            "# TYPE hearthmq_build_info gauge",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_is_shown_under_the_names_that_everybody_uses() {
        let text = Arc::new(Metrics::new(1)).encode();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            let value: f64 = line.expect(name).parse().expect("a number");
            let is_there = value > 0.0 || name == "process_cpu_seconds_total";
            assert!(is_there && value >= 0.0, "{name} {value}");
        }
        assert_eq!(text.matches("# EOF").count(), 1);
        assert!(text.ends_with("# EOF\n"));
    }

    /// README and dashboards know them by these names.
    #[test]
    fn logins_are_shown_under_their_names() {
        let metrics = Arc::new(Metrics::new(1));
        metrics.set_probe(|totals| {
            let logins = &totals.logins;
            let all = [
                &logins.waiting,
                &logins.known,
                &logins.user_lockouts,
                &logins.address_lockouts,
                &logins.turned_away,
                &logins.refused,
                &logins.repeated,
                &logins.hashed,
            ];
            (1..).zip(all).for_each(|(number, gauge)| gauge.set(number));
        });
        let text = metrics.encode();
        for line in [
            "hearthmq_logins_waiting 1",
            "hearthmq_logins_known 2",
            "hearthmq_login_lockouts_total{scope=\"user\"} 3",
            "hearthmq_login_lockouts_total{scope=\"address\"} 4",
            "hearthmq_logins_turned_away_total 5",
            "hearthmq_logins_refused_total 6",
            "hearthmq_logins_repeated_total 7",
            "hearthmq_passwords_hashed_total 8",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[cfg(feature = "http")]
    #[test]
    fn rest_calls_are_counted_by_route_and_status_with_their_latency() {
        use std::time::Duration;

        let metrics = Arc::new(Metrics::new(1));
        let rest = metrics.rest();
        rest.record(RestRoute::KeepAlive, 200, Duration::from_micros(100));
        rest.record(RestRoute::KeepAlive, 200, Duration::from_micros(101));
        rest.record(RestRoute::KeepAlive, 404, Duration::from_secs(60));
        let text = metrics.encode();
        for line in [
            "hearthmq_rest_calls_total{route=\"/keep-alive\",status=\"200\"} 2",
            "hearthmq_rest_calls_total{route=\"/keep-alive\",status=\"404\"} 1",
            "hearthmq_rest_latency_seconds_bucket{le=\"0.0001\",route=\"/keep-alive\"} 1",
            "hearthmq_rest_latency_seconds_bucket{le=\"0.00025\",route=\"/keep-alive\"} 2",
            "hearthmq_rest_latency_seconds_bucket{le=\"+Inf\",route=\"/keep-alive\"} 3",
            "hearthmq_rest_latency_seconds_count{route=\"/keep-alive\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
