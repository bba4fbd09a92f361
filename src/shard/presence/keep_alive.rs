//! Changes of the Keep Alive of a live connection: by a call, by an override, by the client itself, and back.
//!
//! All of it happens on the shard of the client, in the order in which its connection is reached. An
//! override is looked up when it is applied: of two calls at the same time, the one that was stored
//! last counts.

use std::sync::Arc;

use crate::{
    auth::{AccessRequest, Action, Decision},
    control::{
        AuditEntry, ControlError, KEEP_ALIVE_SECS, KeepAliveChanged, KeepAliveOverride,
        SetKeepAlive,
    },
    metrics::DropReason,
    mqtt::{Publish, PublishFlags, ReasonCode, Timestamp},
    session::Link,
    shard::{Presence, Shard, Slot, overrides::end_of},
};

/// A client that publishes a number of seconds to this topic changes its own Keep Alive. The message
/// is neither routed nor retained. A rule must name the topic to allow that.
pub(in crate::shard) const SET_KEEP_ALIVE: &str = "$SETOPTS/mqtt/keepalive";
/// The time between two changes that a client makes to its own Keep Alive.
const OWN_CHANGES_MS: u64 = 1_000;

/// The origin and the end of a changed Keep Alive.
#[derive(Clone, Copy)]
pub(in crate::shard) struct KeepAliveChange {
    /// When it ends by itself.
    pub(in crate::shard) reverts_at: Option<Timestamp>,
    /// Whether the connection follows the override of its client.
    pub(in crate::shard) is_override: bool,
}

impl Slot {
    /// Returns when the Keep Alive of the connection changes back.
    pub(in crate::shard) fn keep_alive_reverts_at(&self) -> Option<Timestamp> {
        self.connected.as_ref()?.keep_alive_change.as_ref()?.reverts_at
    }
}

impl Shard {
    /// Changes the Keep Alive of a connection as a request says.
    ///
    /// # Errors
    /// The client is not online, or has its Keep Alive turned off.
    pub(crate) fn set_keep_alive(
        &mut self,
        (slot, link): (u32, u64),
        request: &SetKeepAlive,
        now: Timestamp,
    ) -> Result<KeepAliveChanged, ControlError> {
        // 0 would turn the Keep Alive off, and the broker could no longer detect the loss of the client.
        if request.interval_secs == 0 {
            return Err(ControlError::InvalidInterval);
        }
        // The connection may have been replaced since the call reached it.
        self.linked(slot, link).filter(|found| found.is_online()).ok_or(ControlError::NotOnline)?;
        let link = self.slot(slot).and_then(|found| found.session.link());
        let link = link.ok_or(ControlError::NotOnline)?;
        // Computed before the change, so a dry run and a real one give the same answer.
        let result = self.result_of(link, request.interval_secs, request.is_sticky)?;
        if !request.is_dry_run {
            let reverts_at = end_of(request.ttl_secs, now);
            let change = KeepAliveChange { reverts_at, is_override: false };
            self.put_keep_alive(slot, request.interval_secs, change, now);
            let changed = (result.old_secs, result.new_secs);
            self.announce_keep_alive(slot, changed, request.by.clone(), now);
            // The caller's answer must not come before the changes are on their way to the store.
            self.flush();
        }
        Ok(result)
    }

    /// Lets a connection follow the override of its client, as it is stored now. Without one, a
    /// connection that followed an override returns to the Keep Alive that its client knows.
    ///
    /// # Errors
    /// The client is not connected, or has its Keep Alive turned off.
    pub(crate) fn follow_override(
        &mut self,
        (slot, link): (u32, u64),
        by: Option<Arc<str>>,
        now: Timestamp,
    ) -> Result<KeepAliveChanged, ControlError> {
        let found = self.linked(slot, link).ok_or(ControlError::NotOnline)?;
        let change = found.connected.as_ref().and_then(|connected| connected.keep_alive_change);
        let follows = change.is_some_and(|change| change.is_override);
        let found = self.override_of(slot);
        if found.is_none() && !follows {
            let link = self.slot(slot).and_then(|found| found.session.link());
            let link = link.ok_or(ControlError::NotOnline)?;
            return self.result_of(link, link.keep_alive().interval_secs(), false);
        }
        self.follow(slot, found.as_ref(), by, now)
    }

    /// Changes a Keep Alive back whose time has passed.
    pub(in crate::shard) fn revert_keep_alive_if_due(&mut self, slot: u32, now: Timestamp) {
        let at = self.slot(slot).and_then(Slot::keep_alive_reverts_at);
        if at.is_some_and(|at| at <= now) {
            let found = self.override_of(slot);
            // It fails only if Keep Alive is off, and then nothing was changed.
            let _ = self.follow(slot, found.as_ref(), None, now);
        }
    }

    /// Handles a PUBLISH to [`SET_KEEP_ALIVE`].
    pub(in crate::shard) fn handle_set_keep_alive(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        now: Timestamp,
    ) {
        let PublishFlags { qos, retain, .. } = publish.flags;
        self.metrics.messages_received[usize::from(qos.number())].add(1);
        let Some(found) = self.slot(slot) else { return };
        // The general rules decide, as for any other topic to which the client publishes.
        let may = self.core.authorizer.authorize(&AccessRequest {
            identity: &found.presence.identity,
            client_id: found.session.client_id(),
            peer: found.presence.peer,
            listener: &found.presence.listener,
            action: Action::Publish { topic: SET_KEEP_ALIVE, qos, retain },
        });
        let by = found.presence.identity.username.clone();
        let reason = if may == Decision::Deny {
            self.metrics.dropped(DropReason::NotAuthorized, 1);
            self.tell_denied(slot, "publish", SET_KEEP_ALIVE);
            ReasonCode::NotAuthorized
        } else {
            self.set_own_keep_alive(slot, publish.payload, by, now)
        };
        // In each case: QoS 1 and 2 need their acknowledgement with the reason. [MQTT-4.3.2-4]
        if let Some(found) = self.slot_mut(slot) {
            found.session.publish_done(qos, publish.packet_id, reason, None);
        }
    }

    /// Changes the Keep Alive of the client that asks for it. A request that fails changes nothing.
    fn set_own_keep_alive(
        &mut self,
        slot: u32,
        payload: &[u8],
        by: Option<Arc<str>>,
        now: Timestamp,
    ) -> ReasonCode {
        // Only digits: `parse` would accept a leading plus sign.
        let digits = std::str::from_utf8(payload).ok();
        let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let secs = digits.and_then(|text| text.parse().ok());
        let Some(secs) = secs.filter(|secs| KEEP_ALIVE_SECS.contains(secs)) else {
            return ReasonCode::PayloadFormatInvalid;
        };
        let link = self.slot(slot).and_then(|found| found.session.link());
        let Some(Ok(result)) = link.map(|link| self.result_of(link, secs, false)) else {
            return ReasonCode::ImplementationSpecificError; // Keep Alive is off, and stays off.
        };
        let has_changed = result.old_secs != secs;
        if has_changed {
            // Each change is an event and an entry of the audit log, so a client has a rate of them.
            let connected = self.slot_mut(slot).and_then(|found| found.connected.as_mut());
            let Some(connected) = connected else { return ReasonCode::ImplementationSpecificError };
            let last = connected.own_keep_alive_at;
            if last.is_some_and(|last| now < last.plus_millis(OWN_CHANGES_MS)) {
                return ReasonCode::QuotaExceeded;
            }
            connected.own_keep_alive_at = Some(now);
        }
        // The client asked for it itself, so it holds until the connection ends.
        let change = KeepAliveChange { reverts_at: None, is_override: false };
        self.put_keep_alive(slot, secs, change, now);
        if has_changed {
            self.note_own_keep_alive(slot, (result.old_secs, secs));
            self.announce_keep_alive(slot, (result.old_secs, secs), by, now);
        }
        ReasonCode::Success
    }

    /// Notes in the audit log that a client has changed its Keep Alive.
    fn note_own_keep_alive(&self, slot: u32, (old_secs, new_secs): (u16, u16)) {
        let Some(found) = self.slot(slot) else { return };
        let Presence { identity, peer, listener, .. } = &found.presence;
        let mut entry = AuditEntry::new(SET_KEEP_ALIVE);
        entry.user.clone_from(&identity.username);
        (entry.address, entry.listener) = (Some(*peer), Some(listener.clone()));
        entry.target = Some(Arc::clone(found.session.client_id()));
        entry.target_kind = Some("client_id".into());
        entry.old = Some(old_secs.to_string().into());
        entry.new = Some(new_secs.to_string().into());
        self.core.note_audit(entry);
    }

    fn override_of(&self, slot: u32) -> Option<KeepAliveOverride> {
        self.core.overrides.find(self.slot(slot)?.session.client_id())
    }

    /// Puts an override into force, or the Keep Alive that the client knows.
    fn follow(
        &mut self,
        slot: u32,
        found: Option<&KeepAliveOverride>,
        by: Option<Arc<str>>,
        now: Timestamp,
    ) -> Result<KeepAliveChanged, ControlError> {
        let link = self.slot(slot).and_then(|found| found.session.link());
        let link = link.ok_or(ControlError::NotOnline)?;
        // Without an override, the client goes back to the value that CONNACK has told it.
        let known_secs = link.settings().keep_alive_secs;
        let secs = found.map_or(known_secs, |found| found.interval_secs);
        let result = self.result_of(link, secs, found.is_some())?;
        let change = KeepAliveChange {
            reverts_at: found.and_then(|found| found.expires_at),
            is_override: found.is_some(),
        };
        self.put_keep_alive(slot, secs, change, now);
        if result.old_secs != result.new_secs {
            self.announce_keep_alive(slot, (result.old_secs, result.new_secs), by, now);
        }
        self.flush();
        Ok(result)
    }

    fn put_keep_alive(&mut self, slot: u32, secs: u16, change: KeepAliveChange, now: Timestamp) {
        let Some(found) = self.slot_mut(slot) else { return };
        if let Some(link) = found.session.link_mut() {
            link.keep_alive_mut().change(secs, now);
        }
        if let Some(connected) = &mut found.connected {
            let is_plain = change.reverts_at.is_none() && !change.is_override;
            connected.keep_alive_change = (!is_plain).then_some(change);
        }
        self.note_deadline(slot);
        self.set_timer(slot);
    }

    /// Returns the result of a change of this connection.
    fn result_of(
        &self,
        link: &Link,
        secs: u16,
        is_sticky: bool,
    ) -> Result<KeepAliveChanged, ControlError> {
        let old_secs = link.keep_alive().interval_secs();
        if old_secs == 0 {
            return Err(ControlError::KeepAliveDisabled);
        }
        let mut result = KeepAliveChanged::new(self.core.node.clone(), old_secs, secs);
        // Only MQTT 5.0 has a Server Keep Alive.
        result.is_not_told = is_sticky && !link.version().has_properties();
        result.is_below_own = result.is_not_told && secs < link.settings().keep_alive_secs;
        Ok(result)
    }
}
