//! The end of a world: every client reconnects and takes its messages, every client disconnects,
//! and nothing is left over.

use hearthmq::{
    metrics::{Gauge, ShardMetrics},
    mqtt::{ProtocolVersion::V5, QoS, SubscriptionOptions},
};

use crate::{
    model::{Sent, Verdict},
    steps::How,
    vocabulary::{BANS, FILTERS, NAMES, RULES, TOPICS, WILL_TOPICS},
    world::World,
};

impl World {
    pub(crate) async fn finish(&mut self) -> Verdict {
        self.say(|| "* everybody comes back".to_owned());
        self.wait(0).await?;
        self.fail(false).await?;
        for ban in 0..BANS.len() {
            self.lift_ban(ban).await?;
        }
        for rule in 0..RULES.len() {
            self.remove_rule(rule).await?;
        }
        self.use_tokens().await?;
        for client in 0..NAMES.len() {
            if self.model.link(client).is_some() {
                self.cut(client, 0, 0, QoS::AtMostOnce).await?;
            }
        }
        self.settle().await?;
        for client in 0..NAMES.len() {
            self.clients[client].answers_at_once = true;
            self.come_back(client).await?;
        }
        self.nothing_is_owed()?;
        for filter in ["#", "$x/#"] {
            let at = FILTERS.iter().position(|known| *known == filter).unwrap_or(0);
            self.subscribe(0, &[(at, SubscriptionOptions::default())], None).await?;
            self.settle().await?;
        }
        self.say(|| "* everybody goes".to_owned());
        for client in 0..NAMES.len() {
            self.disconnect(client, false, None).await?;
        }
        self.wait(10_000).await?;
        self.end_calls().await?;
        if !self.calls.is_empty() {
            return Err(format!("{} calls wait beyond their time", self.calls.len()));
        }
        self.nothing_is_left().await
    }

    async fn come_back(&mut self, client: usize) -> Verdict {
        let how = How {
            version: V5,
            clean_start: false,
            keep_alive_secs: 0,
            identity_secs: None,
            expiry_secs: None,
            receive_maximum: None,
            is_small: false,
            has_aliases: false,
            will: None,
            is_narrow: false,
            says_at_once: None,
        };
        self.wait(0).await?;
        self.connect(client, &how).await?;
        self.settle().await
    }

    fn nothing_is_owed(&self) -> Verdict {
        for session in self.model.sessions.iter().flatten() {
            if let Some(copy) = session.copies.first() {
                return Err(format!("never came: {copy:?}"));
            }
            if let Some(releasing) = session.releasing.first() {
                return Err(format!("never released: {releasing:?}"));
            }
        }
        for (client, own) in self.clients.iter().enumerate() {
            if let Some(outbound) = own.outbound.first() {
                let id = outbound.packet_id;
                return Err(format!("{} was never answered for {id}", NAMES[client]));
            }
        }
        let owed = self.model.groups.iter().find(|group| !group.is_optional);
        owed.map_or(Ok(()), |group| Err(format!("never came: {group:?}")))
    }

    async fn nothing_is_left(&mut self) -> Verdict {
        if self.model.sessions.iter().any(Option::is_some) {
            return Err("the model still has sessions".to_owned());
        }
        for topic in TOPICS.iter().chain(&WILL_TOPICS) {
            let (payload, qos, retain) = (Vec::new(), QoS::AtMostOnce, true);
            self.model.route(&Sent { topic, payload, qos, retain, expiry_secs: None }, None);
            let cleared = self.broker.publish(topic, b"", qos, retain).await;
            cleared.map_err(|error| error.to_string())?;
        }
        self.settle().await?;
        let metrics = self.broker.metrics();
        let totals = metrics.totals();
        let of_shards = |gauge: fn(&ShardMetrics) -> &Gauge| -> u64 {
            metrics.shards().map(|shard| gauge(shard).value()).sum()
        };
        let gauges: [(&str, u64); 7] = [
            ("connections", of_shards(|shard| &shard.connections)),
            ("sessions", of_shards(|shard| &shard.sessions)),
            ("subscriptions", totals.subscriptions.value()),
            ("queued messages", totals.queue_messages.value()),
            ("queued bytes", totals.queue_bytes.value()),
            ("retained messages", totals.retained_messages.value()),
            ("retained bytes", totals.retained_bytes.value()),
        ];
        if let Some((what, value)) = gauges.iter().find(|(_, value)| *value != 0) {
            return Err(format!("{value} {what} are left"));
        }
        match self.disk.left() {
            Ok((0, 0)) => Ok(()),
            left => Err(format!("in the store are left: {left:?}")),
        }
    }
}
