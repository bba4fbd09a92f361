//! Queries and commands of the application that embeds the broker.

use std::{sync::Arc, time::Duration};

use actix_rt::task::JoinHandle;
use hearthmq::{
    control::{
        ControlError, Deliveries, DeliveryStage, KickOptions, PublishRequest, Published,
        SettingsChange, WaitForDeliveries, WillRequest,
    },
    hooks::DisconnectReason,
    mqtt::{PublicationBuilder, QoS, Timestamp},
};

use crate::{
    model::{End, Sent, TOLERANCE_MILLIS, Verdict},
    steps::{Size, Step, What},
    vocabulary::{NAMES, TOPICS},
    world::World,
};

/// The rate of a client that is slowed down, in messages a second, and what it sends.
const SLOW_RATE: u32 = 2;
const SLOW_MESSAGES: u32 = 6;
/// No other event may be due while that takes.
const SLOW_MILLIS: u64 = 5_000;

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

    /// Changes settings: rates that the client does not reach, so that it is served like any other, and
    /// limits of its window and of its session.
    pub(crate) async fn change_settings(
        &mut self,
        client: usize,
        (in_flight_max, expiry_secs): (Option<u16>, Option<u32>),
        removes: bool,
    ) -> Verdict {
        if self.disk.is_failing() {
            self.count("skipped");
            return Ok(());
        }
        let session = self.model.sessions[client].as_ref();
        // What is on its way was sent before a lower limit.
        let may_limit = session.is_some_and(|session| {
            session.outstanding() == 0 && session.link.as_ref().is_some_and(|link| !link.is_behind)
        });
        let in_flight_max = in_flight_max.filter(|_| may_limit && !removes);
        let expiry_secs = expiry_secs.filter(|_| !removes);
        let first_expiry_secs = self.model.link(client).map(|link| link.first_expiry_secs);
        let expected = match first_expiry_secs {
            None => Err(ControlError::NotOnline),
            Some(0) if expiry_secs.is_some() => Err(ControlError::SessionNotLasting),
            Some(_) => Ok(!removes),
        };
        self.count(if expected.is_ok() { "settings changed" } else { "settings refused" });
        let rate = (!removes).then_some(1_000_000);
        let changes = |is_set: bool| is_set || removes;
        let change = SettingsChange {
            message_rate: Some(rate),
            byte_rate: Some(rate),
            in_flight_max: changes(in_flight_max.is_some()).then_some(in_flight_max),
            session_expiry_secs: changes(expiry_secs.is_some()).then_some(expiry_secs),
            ..SettingsChange::default()
        };
        let (of_window, of_session) = (change.in_flight_max, change.session_expiry_secs);
        let changed = self.broker.change_settings(NAMES[client], change).await;
        let changed = changed.map(|changed| !changed.settings.is_empty());
        if changed != expected {
            return Err(format!("{changed:?}, not {expected:?}"));
        }
        if expected.is_ok() {
            self.affect(move |model| model.limit(client, of_window, of_session));
        }
        Ok(())
    }

    /// Reads a client at two messages a second, while it sends more of them.
    pub(crate) async fn slow_down(&mut self, client: usize) -> Verdict {
        let is_long_due =
            self.model.next_due_at().is_none_or(|at| at > self.model.now + SLOW_MILLIS);
        // A client without a free Packet Identifier publishes nothing here.
        let can_publish =
            self.model.link(client).is_some() && self.clients[client].free_id().is_some();
        if self.disk.is_failing() || !is_long_due || !can_publish {
            self.count("skipped");
            return Ok(());
        }
        self.count("slowed down");
        self.clients[client].reads = true;
        self.settle().await?;
        let rate = |rate| SettingsChange { message_rate: Some(rate), ..SettingsChange::default() };
        let set = self.broker.change_settings(NAMES[client], rate(Some(SLOW_RATE))).await;
        set.map_err(|error| error.to_string())?;
        let began = self.model.now;
        let topic = TOPICS.iter().position(|topic| *topic == "b").unwrap_or(0);
        let qos = QoS::AtMostOnce;
        let what = What { topic, qos, retain: false, expiry_secs: None, size: Size::Small };
        for _ in 0..SLOW_MESSAGES {
            self.publish(client, what, false).await?;
        }
        self.play(&Step::Ping { client }).await?;
        while self.model.link(client).is_some_and(|link| !link.replies.is_empty()) {
            if self.model.now > began + SLOW_MILLIS {
                return Err(format!("{} is not read any more", NAMES[client]));
            }
            self.moment().await;
            self.hear(client).await?;
        }
        // A second's worth may come at once, and one more overdraws it.
        let millis = self.model.now - began;
        let expected = u64::from(SLOW_MESSAGES - SLOW_RATE - 1) * 1_000 / u64::from(SLOW_RATE);
        if millis + TOLERANCE_MILLIS < expected {
            return Err(format!("{} was read within {millis} ms, not {expected}", NAMES[client]));
        }
        self.affect(move |model| model.heard(client)); // the broker has read the packets just now
        let set = self.broker.change_settings(NAMES[client], rate(None)).await;
        set.map(drop).map_err(|error| error.to_string())
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
