//! Metrics of bridges. `bridge` counts; this module only names the numbers.

use std::{fmt, sync::Arc};

use prometheus_client::{
    encoding::EncodeMetric as _,
    metrics::{MetricType, gauge::ConstGauge},
};

use super::{
    Metrics,
    cells::{Counter, Gauge, PerLabel},
    encode::TextWriter,
};
use crate::labels::{Label, labels};

labels! {
    /// The direction of a message over a bridge.
    pub enum BridgeWay {
        /// To the other broker.
        Out = "out",
        /// From the other broker.
        In = "in",
    }
}

labels! {
    /// Why a message did not go over a bridge.
    pub enum BridgeDrop {
        /// It has passed one of the brokers already, or too many.
        Loop = "loop",
        /// It is too large for the other side.
        TooLarge = "too_large",
        /// The other side refused it for good.
        Refused = "refused",
        /// No topic of the bridge matches, since the configuration has changed.
        Unmapped = "unmapped",
    }
}

/// The numbers of one bridge, written by its task alone.
#[non_exhaustive]
#[derive(Debug)]
pub struct BridgeMetrics {
    name: Arc<str>,
    /// 1 while it is started, 0 while a caller or the configuration has stopped it.
    pub enabled: Gauge,
    /// 1 while it is connected, else 0.
    pub connected: Gauge,
    /// Connections that were accepted, and whose subscriptions were answered.
    pub connects: Counter,
    /// Attempts and connections that failed.
    pub failures: Counter,
    /// Messages that wait in its session, at most a few seconds old.
    pub queued: Gauge,
    ways: [BridgeWayMetrics; 2],
}

/// The numbers of one direction.
#[non_exhaustive]
#[derive(Debug, Default)]
pub struct BridgeWayMetrics {
    /// Messages that went over.
    pub messages: Counter,
    /// Bytes of their payloads.
    pub bytes: Counter,
    /// Messages that did not go over, by reason.
    pub dropped: PerLabel<BridgeDrop>,
}

impl BridgeWayMetrics {
    pub(crate) fn count(&self, payload_bytes: usize) {
        self.messages.increment();
        self.bytes.add(payload_bytes as u64);
    }
}

impl BridgeMetrics {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            enabled: Gauge::default(),
            connected: Gauge::default(),
            connects: Counter::default(),
            failures: Counter::default(),
            queued: Gauge::default(),
            ways: <[BridgeWayMetrics; 2]>::default(),
        }
    }

    /// Returns the name of the bridge.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the numbers of one direction.
    #[must_use]
    pub fn way(&self, way: BridgeWay) -> &BridgeWayMetrics {
        &self.ways[way.index()]
    }
}

impl Metrics {
    /// Returns the metrics of the bridges that exist now.
    #[must_use]
    pub fn bridges(&self) -> Arc<Vec<Arc<BridgeMetrics>>> {
        self.bridges.load_full()
    }

    /// Sets the metrics of the bridges.
    pub(crate) fn set_bridges(&self, bridges: Vec<Arc<BridgeMetrics>>) {
        self.bridges.store(Arc::new(bridges));
    }
}

impl TextWriter<'_, '_> {
    pub(super) fn bridges(&mut self, metrics: &Metrics) -> fmt::Result {
        let all = metrics.bridges();
        // Without bridges the families are left out, and a scrape is shorter.
        if all.is_empty() {
            return Ok(());
        }
        let counted = |of: fn(&BridgeMetrics) -> &Counter| -> Vec<_> {
            all.iter().map(|one| ([("bridge", one.name().to_owned())], of(one).value())).collect()
        };
        let help = "Connections of bridges that were accepted, by bridge";
        self.family("bridge_connects", help, &counted(|one| &one.connects))?;
        let help = "Attempts and connections of bridges that failed, by bridge";
        self.family("bridge_failures", help, &counted(|one| &one.failures))?;
        // Each family has all its bridges in a row: OpenMetrics forbids to mix the samples of families.
        let ways = |of: fn(&BridgeWayMetrics) -> &Counter| -> Vec<_> {
            let each = all.iter().flat_map(|one| {
                BridgeWay::ALL.iter().map(move |way| {
                    let labels =
                        [("bridge", one.name().to_owned()), ("direction", way.name().to_owned())];
                    (labels, of(one.way(*way)).value())
                })
            });
            each.collect()
        };
        let help = "Messages that went over bridges, by bridge and direction";
        self.family("bridge_messages", help, &ways(|way| &way.messages))?;
        let help = "Bytes of the payloads that went over bridges, by bridge and direction";
        self.family("bridge_bytes", help, &ways(|way| &way.bytes))?;
        let dropped = all.iter().flat_map(|one| {
            BridgeWay::ALL.iter().flat_map(move |way| {
                BridgeDrop::ALL.iter().map(move |reason| {
                    let labels = [
                        ("bridge", one.name().to_owned()),
                        ("direction", way.name().to_owned()),
                        ("reason", reason.name().to_owned()),
                    ];
                    (labels, one.way(*way).dropped.of(*reason).value())
                })
            })
        });
        let help = "Messages that did not go over bridges, by bridge, direction and reason";
        self.family("bridge_dropped", help, &dropped.collect::<Vec<_>>())?;
        let help = "Whether bridges are started, by bridge";
        self.of_bridges("bridge_enabled", help, &all, |one| one.enabled.value())?;
        let help = "Whether bridges are connected, by bridge";
        self.of_bridges("bridge_connected", help, &all, |one| one.connected.value())?;
        let help = "Messages that wait for bridges, by bridge";
        self.of_bridges("bridge_queued", help, &all, |one| one.queued.value())
    }

    fn of_bridges(
        &mut self,
        name: &str,
        help: &str,
        all: &[Arc<BridgeMetrics>],
        of: fn(&BridgeMetrics) -> u64,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for one in all {
            let value = i64::try_from(of(one)).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&[("bridge", one.name())])?)?;
        }
        Ok(())
    }
}
