//! Queries and commands of the application that embeds the broker.

use std::{sync::Arc, time::Duration};

use actix_rt::task::JoinHandle;
use hearthmq::{
    control::{
        ControlError, Deliveries, DeliveryStage, KickOptions, PublishRequest, Published,
        SettingsChange, WaitForDeliveries, WillRequest,
    },
    hooks::DisconnectReason,
    mqtt::{PublicationBuilder, Timestamp},
};

use crate::{
    model::{End, Sent, Verdict},
    steps::What,
    vocabulary::NAMES,
    world::World,
};

impl World {
    pub(crate) async fn host_publish(&mut self, what: What) -> Verdict {
        if self.disk.is_failing() {
            self.count("skipped");
            return Ok(()); // it would wait until the store can be written
        }
        let sent = self.message(what).for_version(false);
        self.count("published by the application");
        let routed = sent.clone();
        self.affect(move |model| model.route(&routed, None));
        if self.messages.is_multiple_of(2) {
            self.count("published, and waited for");
            let waiting = self.wait_for_deliveries(&sent)?;
            self.calls.push(waiting);
            return Ok(());
        }
        let broker = self.broker.clone();
        let publish =
            async move { broker.publish(sent.topic, &sent.payload, sent.qos, sent.retain).await };
        if self.recorded.is_none() {
            return publish.await.map_err(|error| error.to_string());
        }
        // The answer waits until all shards have stored the message, and mail may be held back.
        actix_rt::spawn(publish);
        Ok(())
    }

    /// Publishes a message and waits until it is acknowledged, beside the steps that follow.
    fn wait_for_deliveries(&self, sent: &Sent) -> Verdict<JoinHandle<Verdict>> {
        let message = PublicationBuilder::new(sent.topic, &sent.payload);
        let message = message.qos(sent.qos).retain(sent.retain).build(Timestamp(0));
        let message = Arc::new(message.map_err(|error| error.to_string())?);
        let wait = WaitForDeliveries::new(DeliveryStage::Acknowledged, Duration::from_secs(5));
        let request = PublishRequest::new(message).waiting(wait);
        // An address, because a handle would keep the broker beyond a crash.
        let published = self.broker.registry(sent.topic).send(request);
        Ok(actix_rt::spawn(async move {
            let Ok(published) = published.await else { return Ok(()) }; // the broker has ended
            match published {
                Ok(published) if adds_up(&published) => Ok(()),
                other => Err(format!("published for a caller: {other:?}")),
            }
        }))
    }

    /// Checks the calls that have ended.
    pub(crate) async fn end_calls(&mut self) -> Verdict {
        let (ended, others) = self.calls.drain(..).partition(JoinHandle::is_finished);
        self.calls = others;
        let ended: Vec<JoinHandle<Verdict>> = ended;
        for call in ended {
            call.await.map_err(|error| error.to_string())??;
        }
        Ok(())
    }

    pub(crate) async fn kick(
        &mut self,
        client: usize,
        ends_session: bool,
        with_will: bool,
    ) -> Verdict {
        let request = if with_will { WillRequest::Publish } else { WillRequest::Discard };
        let mut options = KickOptions::new().will(request);
        if ends_session {
            options = options.end_session();
        }
        let was_there = self.model.link(client).is_some();
        let ends_absent = !was_there && ends_session && self.model.sessions[client].is_some();
        if ends_absent && self.disk.is_failing() {
            self.count("skipped"); // the answer waits for the store
            return Ok(());
        }
        let kicked = self.broker.kick(NAMES[client], options).await;
        if kicked.is_ok() != (was_there || ends_absent) {
            return Err(format!("{kicked:?} where the client was online: {was_there}"));
        }
        if ends_absent {
            self.count("session of an absent client ended");
            self.affect(move |model| model.end_absent(client, with_will));
            return Ok(());
        }
        self.count(if was_there { "kicked" } else { "kicked nobody" });
        let end = End::without_disconnect(DisconnectReason::Kicked);
        let end = End { with_will, ends_session, ..end };
        self.affect(move |model| model.end_connection(client, end));
        Ok(())
    }

    pub(crate) async fn set_keep_alive(&mut self, client: usize, secs: u16) -> Verdict {
        let link = self.model.link(client);
        let expected = match link.map(|link| link.keep_alive_secs) {
            None => Err(ControlError::NotOnline),
            Some(_) if secs == 0 => Err(ControlError::InvalidInterval),
            Some(0) => Err(ControlError::KeepAliveDisabled),
            Some(_) => Ok(self.model.set_keep_alive(client, secs)),
        };
        self.count(if expected.is_ok() { "SetKeepAlive" } else { "SetKeepAlive refused" });
        let changed = self.broker.set_keep_alive(NAMES[client], secs).await;
        let changed = changed.map(|changed| Some(changed.old_secs));
        if changed == expected { Ok(()) } else { Err(format!("{changed:?}, not {expected:?}")) }
    }

    /// Changes settings to such that have no effect: a client that is read at a rate, within it, is
    /// served like any other.
    pub(crate) async fn change_settings(&mut self, client: usize, removes: bool) -> Verdict {
        let expected = match self.model.link(client) {
            None => Err(ControlError::NotOnline),
            Some(_) => Ok(!removes),
        };
        self.count(if expected.is_ok() { "settings changed" } else { "settings refused" });
        let rate = (!removes).then_some(1_000_000);
        let change = SettingsChange {
            message_rate: Some(rate),
            byte_rate: Some(rate),
            in_flight_max: Some((!removes).then_some(u16::MAX)),
            ..SettingsChange::default()
        };
        let changed = self.broker.change_settings(NAMES[client], change).await;
        let changed = changed.map(|settings| !settings.is_empty());
        if changed == expected { Ok(()) } else { Err(format!("{changed:?}, not {expected:?}")) }
    }
}

/// Returns whether no delivery was counted twice, and none is missing when all have ended.
fn adds_up(published: &Published) -> bool {
    let Some(Deliveries { stored, delivered, acknowledged, queued, dropped, is_complete, .. }) =
        published.deliveries
    else {
        return false;
    };
    let ended = delivered + dropped;
    stored <= published.matched
        && acknowledged <= delivered
        && ended + queued == published.matched
        && (queued == 0 || !is_complete)
}
