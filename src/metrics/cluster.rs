//! Metrics of a broker that is a member of a cluster. `cluster` knows the numbers; this module only names
//! them.

use std::fmt;

use prometheus_client::{
    encoding::EncodeMetric as _,
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use super::{Metrics, encode::TextWriter};

/// The metrics of a broker about its cluster.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterNumbers {
    /// Whether it acts for its clients.
    pub is_serving: bool,
    /// Counts its lives in the cluster.
    pub incarnation: u64,
    /// The number of members by what their records say.
    pub members: Vec<(&'static str, usize)>,
    /// The time since each of its leases was seen to be renewed, in milliseconds.
    pub lease_ages_millis: Vec<u64>,
    /// Topic Filters of the other brokers that it knows.
    pub routes: usize,
    /// SUBACKs that it has sent before each other broker knew the filters.
    pub subacks_early: u64,
    /// The place in the stream of retained messages up to which it has applied it.
    pub retained_applied: u64,
    /// How far it is behind the last place that it knows to be written.
    pub retained_lag: u64,
    /// Its messages with RETAIN that the stream did not take.
    pub retained_refused: u64,
    /// The messages between it and each other broker.
    pub mail: Vec<(String, ClusterMailNumbers)>,
}

/// The messages between two brokers of a cluster, since the start of one of them.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ClusterMailNumbers {
    /// Messages that were sent.
    pub messages_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Messages that have arrived.
    pub messages_received: u64,
    /// Bytes that have arrived.
    pub bytes_received: u64,
    /// Items that the other broker has not acknowledged.
    pub unacknowledged: u64,
    /// Messages that did not reach the other broker.
    pub dropped: u64,
}

/// Reads the numbers from the broker.
pub(super) struct ClusterQuestion(Box<dyn Fn() -> Option<ClusterNumbers> + Send + Sync>);

impl fmt::Debug for ClusterQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterQuestion")
    }
}

impl Metrics {
    /// Sets the function that returns the numbers of the cluster; only the first call has an effect.
    pub(crate) fn set_cluster(
        &self,
        numbers: impl Fn() -> Option<ClusterNumbers> + Send + Sync + 'static,
    ) {
        drop(self.cluster.set(ClusterQuestion(Box::new(numbers))));
    }

    /// Returns the numbers of the cluster; `None` without one.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterNumbers> {
        self.cluster.get().and_then(|ClusterQuestion(numbers)| numbers())
    }
}

impl TextWriter<'_, '_> {
    pub(super) fn cluster(&mut self, metrics: &Metrics) -> fmt::Result {
        // Absent rather than 0, which would mean a member that does not serve.
        let Some(numbers) = metrics.cluster() else { return Ok(()) };
        let help = "Whether this broker acts for its clients in the cluster";
        let mut one = |name: &str, help: &str, value: u64| {
            let encoder = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)
        };
        one("cluster_serving", help, u64::from(numbers.is_serving))?;
        let help = "Counts the lives of this broker in the cluster";
        one("cluster_incarnation", help, numbers.incarnation)?;
        let help = "Place up to which this broker has applied the stream of retained messages";
        one("cluster_retained_applied", help, numbers.retained_applied)?;
        let help = "Places of the stream of retained messages that this broker has not applied";
        one("cluster_retained_lag", help, numbers.retained_lag)?;
        let help = "Messages with RETAIN that the stream of retained messages did not take";
        let (name, counter) = ("cluster_retained_refused", MetricType::Counter);
        let encoder = self.encoder.encode_descriptor(name, help, None, counter)?;
        ConstCounter::new(numbers.retained_refused).encode(encoder)?;
        let (name, help) = ("cluster_members", "Members of the cluster, by what their records say");
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (state, count) in numbers.members {
            let value = i64::try_from(count).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&[("state", state)])?)?;
        }
        let help = "Time since each lease of this broker was seen to be renewed, by lease";
        let (name, unit) = ("cluster_lease_age", Some(&Unit::Seconds));
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (lease, millis) in numbers.lease_ages_millis.into_iter().enumerate() {
            let labels = [("lease", lease.to_string())];
            ConstGauge::new(millis as f64 / 1_000.0).encode(family.encode_family(&labels)?)?;
        }
        self.cluster_mail(numbers.routes, numbers.subacks_early, &numbers.mail)
    }

    fn cluster_mail(
        &mut self,
        routes: usize,
        subacks_early: u64,
        mail: &[(String, ClusterMailNumbers)],
    ) -> fmt::Result {
        let help = "Topic Filters of the other brokers of the cluster that this one knows";
        let encoder =
            self.encoder.encode_descriptor("cluster_routes", help, None, MetricType::Gauge)?;
        ConstGauge::new(routes as i64).encode(encoder)?;
        let help = "SUBACKs sent before each other broker of the cluster knew the filters";
        let (name, counter) = ("cluster_subacks_early", MetricType::Counter);
        let encoder = self.encoder.encode_descriptor(name, help, None, counter)?;
        ConstCounter::new(subacks_early).encode(encoder)?;
        type Number = fn(&ClusterMailNumbers) -> u64;
        let counters: [(&str, &str, Number); 5] = [
            ("messages_sent", "Messages sent to another broker", |mail| mail.messages_sent),
            ("bytes_sent", "Bytes sent to another broker", |mail| mail.bytes_sent),
            ("messages_received", "Messages of another broker", |mail| mail.messages_received),
            ("bytes_received", "Bytes of another broker", |mail| mail.bytes_received),
            ("messages_dropped", "Messages that another broker did not get", |mail| mail.dropped),
        ];
        // Peers are the inner loop, because OpenMetrics forbids to mix the samples of families.
        for (name, help, number) in counters {
            let (name, help) = (format!("cluster_{name}"), format!("{help}, by broker"));
            let mut family =
                self.encoder.encode_descriptor(&name, &help, None, MetricType::Counter)?;
            for (peer, mail) in mail {
                let labels = [("peer", peer.as_str())];
                let encoder = family.encode_family(&labels)?;
                ConstCounter::new(number(mail)).encode(encoder)?;
            }
        }
        let help = "Messages and marks that another broker has not acknowledged, by broker";
        let (name, gauge) = ("cluster_unacknowledged", MetricType::Gauge);
        let mut family = self.encoder.encode_descriptor(name, help, None, gauge)?;
        for (peer, mail) in mail {
            let labels = [("peer", peer.as_str())];
            let encoder = family.encode_family(&labels)?;
            ConstGauge::new(mail.unacknowledged as i64).encode(encoder)?;
        }
        Ok(())
    }
}
