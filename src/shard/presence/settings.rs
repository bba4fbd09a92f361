//! Settings of a live client are put into force on the shard, in the order in which its connection is
//! reached.

use std::sync::Arc;

use crate::{
    control::{ClientSettings, ControlError, SettingsChange},
    mqtt::Timestamp,
    session::Link,
    shard::{
        Shard, Slot,
        pace::Pace,
        sticky::{SettingsLayers, SettingsStep},
    },
};

/// The settings of a connection that has some, or had some.
pub(in crate::shard) struct LiveSettings {
    layers: SettingsLayers,
    pub(in crate::shard) pace: Option<Pace>,
    /// The Session Expiry Interval since CONNECT, in seconds.
    first_expiry_secs: u32,
}

/// Slots that are examined before other tasks of the thread get their turn.
const SLOTS_AT_A_TIME: usize = 256;
/// Connections that are changed before that.
const CHANGED_AT_A_TIME: usize = 32;

/// Puts the sticky settings of a client and its user into force as its connection begins.
pub(in crate::shard) fn begin_settings(
    link: &mut Link,
    layers: Option<Box<SettingsLayers>>,
    first_expiry_secs: u32,
    now: Timestamp,
) -> Option<Box<LiveSettings>> {
    let mut layers = *layers?;
    if first_expiry_secs == 0 {
        // They had no effect on this session.
        layers.own.session_expiry_secs = None;
        layers.of_user.session_expiry_secs = None;
    }
    let settings = layers.in_force();
    link.limit_in_flight(settings.in_flight_max);
    let pace = Pace::new(settings.message_rate, settings.byte_rate, now);
    Some(Box::new(LiveSettings { layers, pace, first_expiry_secs }))
}

impl Slot {
    /// Returns the settings of the connection that callers have changed.
    pub(in crate::shard) fn settings(&self) -> ClientSettings {
        let live = self.connected.as_ref().and_then(|connected| connected.settings.as_deref());
        live.map(|live| live.layers.in_force()).unwrap_or_default()
    }

    /// Returns the pace at which the connection is read, if there is one.
    pub(in crate::shard) fn pace_mut(&mut self) -> Option<&mut Pace> {
        self.connected.as_mut()?.settings.as_mut()?.pace.as_mut()
    }

    /// Gives the session the queue limits of its connection.
    pub(in crate::shard) fn take_queue_limits(&mut self, live: Option<&LiveSettings>) {
        if let Some(LiveSettings { layers, .. }) = live {
            let ClientSettings { queue_messages_max, queue_bytes_max, .. } = layers.in_force();
            self.session.set_queue_limits(queue_messages_max, queue_bytes_max);
        }
    }

    /// Ends the queue limits of a connection.
    pub(in crate::shard) fn drop_queue_limits(&mut self) {
        self.session.set_queue_limits(None, None);
    }
}

impl Shard {
    /// Returns whether a connection has rates.
    pub(crate) fn is_paced(&self, slot: u32) -> bool {
        let connected = self.slot(slot).and_then(|found| found.connected.as_ref());
        let settings = connected.and_then(|connected| connected.settings.as_ref());
        settings.is_some_and(|live| live.pace.is_some())
    }

    /// Returns whether a connection may be read now, as far as its rates are concerned.
    pub(crate) fn may_read_now(&mut self, slot: u32, now: Timestamp) -> bool {
        let pace = self.slots.get_mut(slot as usize).and_then(Slot::pace_mut);
        pace.is_none_or(|pace| pace.allows(now))
    }

    /// Returns when a connection may be read, as far as its rates are concerned.
    pub(in crate::shard) fn readable_at(&mut self, slot: u32, now: Timestamp) -> Timestamp {
        let pace = self.slots.get_mut(slot as usize).and_then(Slot::pace_mut);
        pace.map_or(now, |pace| pace.allows_at(now))
    }

    /// Counts a message that was read.
    pub(in crate::shard) fn note_read(&mut self, slot: u32, bytes: usize) {
        if let Some(pace) = self.slots.get_mut(slot as usize).and_then(Slot::pace_mut) {
            pace.take(bytes);
        }
    }

    /// Changes settings of a connection; returns those that it had, and has then.
    ///
    /// # Errors
    /// The client is not online, a setting is out of its range, or the session ends with its
    /// connection and cannot be given a Session Expiry Interval. Nothing is changed then.
    pub(crate) fn change_settings(
        &mut self,
        (slot, link): (u32, u64),
        change: &SettingsChange,
        now: Timestamp,
    ) -> Result<SettingsStep, ControlError> {
        let online = self.linked(slot, link).filter(|found| found.is_online());
        online.ok_or(ControlError::NotOnline)?;
        let change = |layers: &mut SettingsLayers| layers.own = layers.own.changed_by(change);
        let step = self.put_settings(slot, change, now)?;
        self.release_held(now);
        self.flush();
        Ok(step)
    }

    /// Lets connections of a user follow the sticky settings of the user, as they are stored now. Examines some slots,
    /// from `from` on, and returns the slot at which to continue.
    pub(crate) fn follow_user_settings(
        &mut self,
        username: &Arc<str>,
        from: usize,
        now: Timestamp,
    ) -> Option<usize> {
        let of_user = self.core.sticky.of_user(username);
        // Slots and changes have separate bounds: an empty slot costs nearly nothing, a change pumps a queue.
        let to = self.slots.capacity().min(from.saturating_add(SLOTS_AT_A_TIME));
        let (mut next, mut changed) = (from, 0);
        while next < to && changed < CHANGED_AT_A_TIME {
            let slot = next as u32;
            let found = self.slot(slot);
            let wanted = found.and_then(|found| to_follow(found, username, &of_user));
            if let Some(wanted) = wanted {
                let follow = |layers: &mut SettingsLayers| layers.of_user = wanted;
                // Only settings of the client itself can be refused, and they stay as they are.
                let _ = self.put_settings(slot, follow, now);
                changed += 1;
            }
            next += 1;
        }
        // One release and one flush for all changes of this portion.
        if changed > 0 {
            self.release_held(now);
            self.flush();
        }
        (next < self.slots.capacity()).then_some(next)
    }

    /// Changes settings of the connection of a slot, and puts them into force; returns those that
    /// counted, and count then.
    ///
    /// # Errors
    /// As for [`Self::change_settings`]. Nothing is changed then.
    fn put_settings(
        &mut self,
        slot: u32,
        change: impl FnOnce(&mut SettingsLayers),
        now: Timestamp,
    ) -> Result<SettingsStep, ControlError> {
        let expiry_max = self.core.limits_now().session_expiry_secs_max;
        let found = self.slots.get_mut(slot as usize).ok_or(ControlError::NotOnline)?;
        let expiry_secs = found.session.expiry_interval_secs();
        let connected = found.connected.as_mut().ok_or(ControlError::NotOnline)?;
        let former = connected.settings.as_deref();
        // The interval that CONNECT asked for stays known, so that the end of the setting restores it.
        let first = former.map_or(expiry_secs, |live| live.first_expiry_secs);
        let mut layers = former.map(|live| live.layers.clone()).unwrap_or_default();
        let before = layers.in_force();
        change(&mut layers);
        let settings = layers.in_force();
        // Checked with all layers together: each may be valid and their combination not.
        settings.check()?;
        // A setting may not promise more than the limit of the broker.
        let wanted = settings.session_expiry_secs.map_or(first, |secs| secs.min(expiry_max));
        // As for a client, which may not set it in DISCONNECT either. [MQTT 5.0, 3.14.2.2.2]
        if first == 0 && wanted > 0 {
            return Err(ControlError::SessionNotLasting);
        }
        let pace = Pace::new(settings.message_rate, settings.byte_rate, now);
        // From here on nothing fails.
        connected.settings =
            Some(Box::new(LiveSettings { layers, pace, first_expiry_secs: first }));
        found.session.set_queue_limits(settings.queue_messages_max, settings.queue_bytes_max);
        if let Some(link) = found.session.link_mut() {
            link.limit_in_flight(settings.in_flight_max);
        }
        // Sessions that outlive their connection count for their user.
        if wanted != expiry_secs {
            found.session.set_expiry_interval_secs(wanted);
            found.lasting.set(u64::from(wanted > 0));
            self.note_session(slot, true);
        }
        self.look_at_held(slot); // Its rate may be another.
        if let Some(found) = self.slot_mut(slot) {
            found.session.pump(now); // A higher limit lets messages go on.
            found.wake();
        }
        Ok(SettingsStep { before, after: settings })
    }
}

/// Returns the settings of the user if a connection must still adopt them; `None` if it has them, or belongs to
/// another user. The connection may still wait for its CONNACK.
fn to_follow(
    found: &Slot,
    username: &Arc<str>,
    of_user: &ClientSettings,
) -> Option<ClientSettings> {
    let connected = found.connected.as_ref()?;
    if found.presence.identity.username.as_ref() != Some(username) {
        return None;
    }
    let live = connected.settings.as_deref();
    let since_connect = || found.session.expiry_interval_secs();
    let first = live.map_or_else(since_connect, |live| live.first_expiry_secs);
    let mut wanted = of_user.clone();
    if first == 0 {
        wanted.session_expiry_secs = None; // It has no effect on this session.
    }
    let is_same = live.map_or(wanted.is_empty(), |live| live.layers.of_user == wanted);
    (!is_same).then_some(wanted)
}
