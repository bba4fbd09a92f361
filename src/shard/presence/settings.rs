//! Settings of a live client are put into force on the shard, in the order in which its connection is
//! reached.

use crate::{
    control::{ClientSettings, ControlError, SettingsChange},
    mqtt::Timestamp,
    session::Link,
    shard::{Shard, Slot, pace::Pace},
};

/// The settings of a connection that has some, or had some.
pub(in crate::shard) struct LiveSettings {
    settings: ClientSettings,
    pub(in crate::shard) pace: Option<Pace>,
    /// The Session Expiry Interval since CONNECT, in seconds.
    first_expiry_secs: u32,
}

/// Puts the sticky settings of a client into force as its connection begins.
pub(in crate::shard) fn begin_settings(
    link: &mut Link,
    settings: Option<Box<ClientSettings>>,
    first_expiry_secs: u32,
    now: Timestamp,
) -> Option<Box<LiveSettings>> {
    let mut settings = *settings?;
    if first_expiry_secs == 0 {
        settings.session_expiry_secs = None; // It had no effect on this session.
    }
    link.limit_in_flight(settings.in_flight_max);
    let pace = Pace::new(settings.message_rate, settings.byte_rate, now);
    Some(Box::new(LiveSettings { settings, pace, first_expiry_secs }))
}

impl Slot {
    /// Returns the settings of the connection that callers have changed.
    pub(in crate::shard) fn settings(&self) -> Option<&ClientSettings> {
        let live = self.connected.as_ref()?.settings.as_deref()?;
        Some(&live.settings).filter(|settings| !settings.is_empty())
    }

    /// Returns the pace at which the connection is read, if there is one.
    pub(in crate::shard) fn pace_mut(&mut self) -> Option<&mut Pace> {
        self.connected.as_mut()?.settings.as_mut()?.pace.as_mut()
    }

    /// Gives the session the queue limits of its connection.
    pub(in crate::shard) fn take_queue_limits(&mut self, live: Option<&LiveSettings>) {
        if let Some(LiveSettings { settings, .. }) = live {
            let ClientSettings { queue_messages_max, queue_bytes_max, .. } = *settings;
            self.session.set_queue_limits(queue_messages_max, queue_bytes_max);
        }
    }

    /// Ends the queue limits of a connection.
    pub(in crate::shard) fn drop_queue_limits(&mut self) {
        self.session.set_queue_limits(None, None);
    }
}

impl Shard {
    /// Returns whether a connection may be read now, as far as its rates are concerned.
    pub(in crate::shard) fn may_read_now(&mut self, slot: u32, now: Timestamp) -> bool {
        let pace = self.slots.get_mut(slot as usize).and_then(Slot::pace_mut);
        pace.is_none_or(|pace| pace.allows(now))
    }

    /// Counts a message that was read.
    pub(in crate::shard) fn note_read(&mut self, slot: u32, bytes: usize) {
        if let Some(pace) = self.slots.get_mut(slot as usize).and_then(Slot::pace_mut) {
            pace.take(bytes);
        }
    }

    /// Changes settings of a connection; returns those that it has then.
    ///
    /// # Errors
    /// The client is not online, a setting is out of its range, or the session ends with its
    /// connection and cannot be given a Session Expiry Interval. Nothing is changed then.
    pub(crate) fn change_settings(
        &mut self,
        (slot, link): (u32, u64),
        change: &SettingsChange,
        now: Timestamp,
    ) -> Result<ClientSettings, ControlError> {
        let expiry_max = self.core.limits_now().session_expiry_secs_max;
        let online = self.linked(slot, link).filter(|found| found.is_online());
        let found = online.ok_or(ControlError::NotOnline)?;
        let expiry_secs = found.session.expiry_interval_secs();
        let connected = found.connected.as_mut().ok_or(ControlError::NotOnline)?;
        let former = connected.settings.as_deref().map(|live| &live.settings);
        let settings = former.cloned().unwrap_or_default().changed_by(change);
        settings.check()?;
        let first =
            connected.settings.as_deref().map_or(expiry_secs, |live| live.first_expiry_secs);
        let wanted = settings.session_expiry_secs.map_or(first, |secs| secs.min(expiry_max));
        // As for a client, which may not set it in DISCONNECT either. [MQTT 5.0, 3.14.2.2.2]
        if first == 0 && wanted > 0 {
            return Err(ControlError::SessionNotLasting);
        }
        connected.settings = Some(Box::new(LiveSettings {
            pace: Pace::new(settings.message_rate, settings.byte_rate, now),
            first_expiry_secs: first,
            settings: settings.clone(),
        }));
        let of_queue = (settings.queue_messages_max, settings.queue_bytes_max);
        found.session.set_queue_limits(of_queue.0, of_queue.1);
        if let Some(link) = found.session.link_mut() {
            link.limit_in_flight(settings.in_flight_max);
        }
        if wanted != expiry_secs {
            found.session.set_expiry_interval_secs(wanted);
            found.lasting.set(u64::from(wanted > 0));
            self.note_session(slot, true);
        }
        self.release_held(now);
        if let Some(found) = self.slot_mut(slot) {
            found.session.pump(now); // A higher limit lets messages go on.
            found.wake();
        }
        self.flush();
        Ok(settings)
    }
}
