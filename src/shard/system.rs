//! The broker's own values on `$SYS/broker/…`, under the names that Mosquitto gives them.
//!
//! The present values are here, apart from retained messages: they are in no store and count
//! against no limit. The first shard updates and publishes them; every shard reads them for a new
//! subscription. Knows the metrics, and not the subscribers.

mod load;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use self::load::Loads;
use crate::{
    metrics::{DropReason, Metrics, ShardMetrics},
    mqtt::{Message, Publication, QoS, Timestamp, filter_matches},
};

/// The required beginning of every filter for these topics: a wildcard does not match it.
/// [MQTT-4.7.2-1]
const FIRST_LEVEL: &str = "$SYS";

/// The values, and the time of their next update.
#[derive(Debug)]
pub(crate) struct SystemTopics {
    every_millis: AtomicU64,
    /// In milliseconds; never if there are no values.
    due_at: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The values that others have set, by their names.
    others: BTreeMap<Box<str>, Box<str>>,
    values: BTreeMap<Box<str>, Arc<Message>>,
    loads: Loads,
    started_at: Option<Timestamp>,
    renewed_at: Timestamp,
    connected_highest: u64,
}

impl SystemTopics {
    /// Returns values with this update interval; with zero there are none.
    pub(crate) fn new(every: Duration) -> Self {
        let topics = Self {
            every_millis: AtomicU64::new(0),
            due_at: AtomicU64::new(u64::MAX),
            state: Mutex::default(),
        };
        topics.set_interval(every);
        topics
    }

    /// Changes the update interval; the next update is due now. With zero there are no values any
    /// more.
    pub(crate) fn set_interval(&self, every: Duration) {
        let every_millis = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        let mut state = self.state();
        if self.every_millis.swap(every_millis, Ordering::Relaxed) == every_millis {
            return;
        }
        if every_millis == 0 {
            state.values.clear();
        }
        let due_at = if every_millis == 0 { u64::MAX } else { 0 };
        self.due_at.store(due_at, Ordering::Relaxed);
    }

    /// Returns whether an update of the values is due.
    pub(crate) fn are_due(&self, now: Timestamp) -> bool {
        now.millis() >= self.due_at.load(Ordering::Relaxed)
    }

    /// Sets a value beside those of the metrics, or removes it. It is published with the next sweep.
    #[cfg_attr(not(feature = "bridge"), expect(dead_code, reason = "bridges alone set some"))]
    pub(crate) fn set_value(&self, name: &str, value: Option<&str>) {
        let mut state = self.state();
        match value {
            Some(value) => drop(state.others.insert(name.into(), value.into())),
            None => {
                state.others.remove(name);
                state.values.remove(&*format!("{FIRST_LEVEL}/broker/{name}"));
            }
        }
        if self.every_millis.load(Ordering::Relaxed) > 0 {
            self.due_at.store(0, Ordering::Relaxed);
        }
    }

    /// Reads the metrics; returns the values that have changed.
    pub(crate) fn renew(&self, metrics: &Metrics, now: Timestamp) -> Vec<Arc<Message>> {
        let counts = SystemCounts::of(metrics);
        let mut state = self.state();
        let every_millis = self.every_millis.load(Ordering::Relaxed);
        if every_millis == 0 {
            return Vec::new(); // changed in this moment
        }
        self.due_at.store(now.millis().saturating_add(every_millis), Ordering::Relaxed);
        let started_at = *state.started_at.get_or_insert(now);
        state.connected_highest = state.connected_highest.max(counts.connected);
        let mut values = counts.values(state.connected_highest);
        values.push(("uptime".into(), format!("{} seconds", now.since(started_at).as_secs())));
        let others = state.others.iter();
        values.extend(others.map(|(name, value)| (name.to_string().into(), value.to_string())));
        let passed = now.since(state.renewed_at);
        // Remembered for the next call, because loads are averages over the time between two of them.
        state.renewed_at = now;
        values.extend(state.loads.after(passed, &counts.loads()));
        // Only changed values are published, so an idle broker is silent.
        let renewed = values.into_iter().filter_map(|(name, value)| state.set(&name, &value));
        renewed.collect()
    }

    /// Returns the values that a Topic Filter matches.
    pub(crate) fn matching(&self, filter: &str) -> Vec<Arc<Message>> {
        if filter.split('/').next() != Some(FIRST_LEVEL) {
            return Vec::new();
        }
        let state = self.state();
        let values = state.values.iter().filter(|(topic, _)| filter_matches(filter, topic));
        values.map(|(_, message)| Arc::clone(message)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Stores a value; returns it if it has changed.
    fn set(&mut self, name: &str, value: &str) -> Option<Arc<Message>> {
        let topic = format!("{FIRST_LEVEL}/broker/{name}");
        let is_as_before = |former: &Arc<Message>| former.publication().payload == value.as_bytes();
        if self.values.get(&*topic).is_some_and(is_as_before) {
            return None;
        }
        let message = Arc::new(Message::new(&Publication {
            topic: &topic,
            payload: value.as_bytes(),
            qos: QoS::AtMostOnce, // it need not be stored, and the next one comes soon
            retain: true,
            properties: &[],
            expires_at: None,
        }));
        self.values.insert(topic.into(), Arc::clone(&message));
        Some(message)
    }
}

/// The counts of the metrics. Messages are PUBLISH packets only.
struct SystemCounts {
    connected: u64,
    sessions: u64,
    messages_received: u64,
    messages_sent: u64,
    messages_dropped: u64,
    bytes_received: u64,
    bytes_sent: u64,
    sockets: u64,
    connects: u64,
    subscriptions: u64,
    retained: u64,
    stored: (u64, u64),
}

impl SystemCounts {
    fn of(metrics: &Metrics) -> Self {
        let sum = |of: fn(&ShardMetrics) -> u64| metrics.shards().map(of).sum::<u64>();
        let totals = metrics.totals();
        let retained = totals.retained_messages.value();
        let queued = totals.queue_messages.value() + totals.queue_stored_messages.value();
        let queued_bytes = totals.queue_bytes.value() + totals.queue_stored_bytes.value();
        Self {
            connected: sum(|shard| shard.connections.value()),
            sessions: sum(|shard| shard.sessions.value()),
            messages_received: sum(|shard| shard.messages_received.iter().map(|n| n.value()).sum()),
            messages_sent: sum(|shard| shard.messages_sent.iter().map(|n| n.value()).sum()),
            // As in Mosquitto, a message without room counts; one that expires, or has no subscriber, does not.
            messages_dropped: sum(|shard| {
                let dropped = &shard.messages_dropped;
                [DropReason::QueueFull, DropReason::PacketTooLarge, DropReason::StoreUnavailable]
                    .map(|reason| dropped.of(reason).value())
                    .iter()
                    .sum()
            }),
            bytes_received: sum(|shard| shard.bytes_received.value()),
            bytes_sent: sum(|shard| shard.bytes_sent.value()),
            sockets: sum(|shard| shard.sockets_accepted.sum()),
            connects: sum(|shard| shard.connects_accepted.value()),
            subscriptions: totals.subscriptions.value(),
            retained,
            // Mosquitto counts retained messages as stored, beside the queued ones.
            stored: (queued + retained, queued_bytes + totals.retained_bytes.value()),
        }
    }

    fn values(&self, connected_highest: u64) -> Vec<(Box<str>, String)> {
        // Both numbers are read at different moments, so their difference must not become negative.
        let total = self.sessions.max(self.connected);
        let away = total - self.connected;
        let (stored, stored_bytes) = self.stored;
        let numbers = [
            ("clients/connected", self.connected),
            // The older name of Mosquitto stands beside the newer one.
            ("clients/active", self.connected),
            ("clients/disconnected", away),
            ("clients/inactive", away),
            ("clients/total", total),
            ("clients/maximum", connected_highest),
            ("messages/received", self.messages_received),
            ("messages/sent", self.messages_sent),
            ("messages/stored", stored),
            ("store/messages/count", stored),
            ("store/messages/bytes", stored_bytes),
            ("publish/messages/received", self.messages_received),
            ("publish/messages/sent", self.messages_sent),
            ("publish/messages/dropped", self.messages_dropped),
            ("bytes/received", self.bytes_received),
            ("bytes/sent", self.bytes_sent),
            ("retained messages/count", self.retained),
            ("subscriptions/count", self.subscriptions),
        ];
        let version = format!("HearthMQ version {}", env!("CARGO_PKG_VERSION"));
        let numbers = numbers.into_iter().map(|(name, number)| (name.into(), number.to_string()));
        numbers.chain([("version".into(), version)]).collect()
    }

    /// Returns the kinds of load and the total of each since the start.
    const fn loads(&self) -> [(&'static str, u64); load::KINDS] {
        [
            ("messages/received", self.messages_received),
            ("messages/sent", self.messages_sent),
            ("publish/received", self.messages_received),
            ("publish/sent", self.messages_sent),
            ("publish/dropped", self.messages_dropped),
            ("bytes/received", self.bytes_received),
            ("bytes/sent", self.bytes_sent),
            ("sockets", self.sockets),
            ("connections", self.connects),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(topics: &SystemTopics, filter: &str) -> String {
        let found = topics.matching(filter);
        assert_eq!(found.len(), 1, "{filter}");
        String::from_utf8(found[0].publication().payload.to_vec()).expect("it is text")
    }

    #[test]
    fn values_are_renewed_and_only_what_has_changed_is_told() {
        let metrics = Metrics::new(2);
        let topics = SystemTopics::new(Duration::from_secs(10));
        let at = |secs: u64| Timestamp(1_000_000 + secs * 1_000);
        assert!(topics.are_due(at(0)));
        let first = topics.renew(&metrics, at(0));
        assert_eq!(first.len(), topics.matching("$SYS/#").len());
        assert!(!topics.are_due(at(9)) && topics.are_due(at(10)));
        metrics.shard(1).connections.set(3);
        metrics.shard(0).sessions.set(5);
        let told: Vec<_> =
            topics.renew(&metrics, at(10)).iter().map(|m| m.topic().to_owned()).collect();
        for name in ["connected", "active", "disconnected", "inactive", "total", "maximum"] {
            assert!(told.contains(&format!("$SYS/broker/clients/{name}")), "{told:?}");
        }
        assert!(told.contains(&"$SYS/broker/uptime".to_owned()));
        assert_eq!(told.len(), 7, "{told:?}");
        assert_eq!(value(&topics, "$SYS/broker/clients/disconnected"), "2");
        metrics.shard(1).connections.set(1);
        topics.renew(&metrics, at(20));
        assert_eq!(value(&topics, "$SYS/broker/clients/connected"), "1");
        assert_eq!(value(&topics, "$SYS/broker/clients/maximum"), "3");
        assert_eq!(value(&topics, "$SYS/+/uptime"), "20 seconds");
        assert!(topics.matching("#").is_empty() && topics.matching("+/broker/uptime").is_empty());
    }

    #[test]
    fn with_an_interval_of_zero_there_is_nothing() {
        let topics = SystemTopics::new(Duration::ZERO);
        assert!(!topics.are_due(Timestamp(u64::MAX / 2)));
        assert!(topics.matching("$SYS/#").is_empty());
    }

    #[test]
    fn another_interval_counts_from_now_on() {
        let (metrics, topics) = (Metrics::new(1), SystemTopics::new(Duration::from_secs(1_000)));
        let at = |secs: u64| Timestamp(1_000_000 + secs * 1_000);
        topics.renew(&metrics, at(0));
        assert!(!topics.are_due(at(1)));
        topics.set_interval(Duration::from_secs(5));
        assert!(topics.are_due(at(1)));
        topics.renew(&metrics, at(1));
        topics.set_interval(Duration::from_secs(5)); // the same: nothing is due for it
        assert!(!topics.are_due(at(5)) && topics.are_due(at(6)));
        topics.set_interval(Duration::ZERO);
        assert!(!topics.are_due(at(999)) && topics.matching("$SYS/#").is_empty());
        assert!(topics.renew(&metrics, at(999)).is_empty());
        topics.set_interval(Duration::from_secs(5));
        assert!(topics.are_due(at(1_000)));
        assert!(!topics.renew(&metrics, at(1_000)).is_empty());
    }
}
