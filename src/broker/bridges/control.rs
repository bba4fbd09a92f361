//! Answers callers that look at bridges, and starts and stops them.

use async_trait::async_trait;
use futures_util::future::join_all;

use super::{super::Broker, NAMESPACE, RunningBridge};
use crate::{
    control::{
        BridgeControl, BridgeControlError, BridgeCounts, BridgeView, ClientSession, ControlError,
    },
    metrics::{BridgeMetrics, BridgeWay},
    records::{Expected, Put, RecordKey, Records as _},
};

impl Broker {
    async fn bridge_view(&self, one: &RunningBridge) -> BridgeView {
        let client_id = one.bridge.local_client_id();
        let session = self.client(&client_id).await.ok().flatten();
        describe(one, &client_id, session.as_ref())
    }
}

fn describe(one: &RunningBridge, client_id: &str, session: Option<&ClientSession>) -> BridgeView {
    let now = one.state.now();
    BridgeView {
        enabled: one.wanted.borrow().enabled,
        phase: now.phase,
        since: now.since,
        address: now.address,
        protocol: one.bridge.protocol(),
        session_present: now.session_present,
        connects: one.metrics.connects.value(),
        failures: one.metrics.failures.value(),
        retry_at: now.retry_at,
        last_error: now.last_fault,
        outgoing: counts(&one.metrics, BridgeWay::Out),
        incoming: counts(&one.metrics, BridgeWay::In),
        queued: session.map_or((0, 0), |session| (session.queued, session.queued_bytes)),
        in_flight: session.map_or(0, |session| session.in_flight),
        topics: one.bridge.topic_views(),
        ..BridgeView::new(one.bridge.name(), client_id)
    }
}

fn counts(metrics: &BridgeMetrics, way: BridgeWay) -> BridgeCounts {
    let way = metrics.way(way);
    BridgeCounts {
        messages: way.messages.value(),
        bytes: way.bytes.value(),
        dropped: way.dropped.sum(),
    }
}

#[async_trait]
impl BridgeControl for Broker {
    async fn list_bridges(&self) -> Vec<BridgeView> {
        let running = self.running.bridges.running.lock().await;
        join_all(running.iter().map(|one| self.bridge_view(one))).await
    }

    async fn find_bridge(&self, name: &str) -> Result<BridgeView, BridgeControlError> {
        let running = self.running.bridges.running.lock().await;
        let found = running.iter().find(|one| one.bridge.name() == name);
        Ok(self.bridge_view(found.ok_or(BridgeControlError::NotFound)?).await)
    }

    async fn set_bridge_enabled(
        &self,
        name: &str,
        enabled: bool,
    ) -> Result<BridgeView, BridgeControlError> {
        let running = self.running.bridges.running.lock().await;
        let found = running.iter().find(|one| one.bridge.name() == name);
        let found = found.ok_or(BridgeControlError::NotFound)?;
        let records = &self.running.core.records;
        let unavailable = |_| BridgeControlError::Broker(ControlError::Unavailable);
        // Stored first, so that a restart does not undo what the caller was told.
        if let Some(key) = RecordKey::new(NAMESPACE, name) {
            match enabled == found.bridge.options_now().enabled {
                // Only a deviation from the configuration is
                // stored: a later change there then takes effect.
                true => records.remove(key, Expected::Any).await.map_err(unavailable)?,
                false => {
                    let value: &[u8] = if enabled { b"enabled" } else { b"disabled" };
                    let put = Put::new(key, value.to_vec());
                    records.put(put).await.map(drop).map_err(unavailable)?;
                }
            }
        }
        // A repeated call must not wake the bridge and end its connection.
        found.wanted.send_if_modified(|wanted| {
            let is_change = wanted.enabled != enabled;
            wanted.enabled = enabled;
            is_change
        });
        Ok(self.bridge_view(found).await)
    }

    async fn reconnect_bridge(&self, name: &str) -> Result<(), BridgeControlError> {
        let running = self.running.bridges.running.lock().await;
        let found = running.iter().find(|one| one.bridge.name() == name);
        let found = found.ok_or(BridgeControlError::NotFound)?;
        if !found.wanted.borrow().enabled {
            return Err(BridgeControlError::Stopped);
        }
        found.wanted.send_modify(|wanted| wanted.reconnects += 1);
        Ok(())
    }
}
