//! Metrics of a broker that is a member of a cluster. `cluster` knows the numbers; this module only names
//! them.

use std::fmt;

use prometheus_client::{
    encoding::EncodeMetric as _,
    metrics::{MetricType, gauge::ConstGauge},
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
        Ok(())
    }
}
