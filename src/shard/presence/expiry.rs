//! Credentials that expire while their client is connected, and identities that are renewed before.
//!
//! A timer of the shard only notifies the connection, which then ends itself or waits for the new identity. So each of
//! many expiries at the same time is a turn of its own. Does not know the credentials.

use crate::{
    auth::{AccessRequest, Action, Decision, Identity},
    hooks::DisconnectReason,
    mqtt::{QoS, ReasonCode, Timestamp},
    shard::{Departure, Presence, Shard, Slot, doors::ToConnection},
};

/// The departure of a client whose credentials have expired. It may return with new ones.
pub(crate) const IDENTITY_EXPIRED: Departure =
    Departure::by_server(DisconnectReason::AuthenticationExpired, ReasonCode::NotAuthorized)
        .because("the credentials have expired");

impl Slot {
    /// Returns when the identity of the connected client is renewed.
    pub(in crate::shard) fn identity_renews_at(&self) -> Option<Timestamp> {
        self.connected.as_ref()?.renews_at
    }

    /// Returns when the credentials of the connected client expire; `None` once its connection was
    /// told.
    pub(in crate::shard) fn identity_expires_at(&self) -> Option<Timestamp> {
        let is_told = self.connected.as_ref()?.is_expiry_told;
        self.presence.identity.expires_at.filter(|_| !is_told)
    }
}

impl Slot {
    /// Returns when the own rules of an absent client expire; `None` if it has none, is connected, or they
    /// have expired.
    pub(in crate::shard) fn rules_expire_at(&self) -> Option<Timestamp> {
        let Presence { identity, after_expiry, .. } = &self.presence;
        let is_absent = self.connected.is_none();
        let is_due = is_absent && after_expiry.is_none() && !identity.rules.is_empty();
        identity.expires_at.filter(|_| is_due)
    }
}

impl Shard {
    /// Restricts the session of an absent client whose own rules have expired: it collects only messages that are
    /// allowed without them. Its subscriptions stay, so it collects all messages again when its client is back.
    pub(in crate::shard) fn expire_rules(&mut self, slot: u32, now: Timestamp) {
        let Some(found) = self.slot_mut(slot) else { return };
        if found.rules_expire_at().is_some_and(|at| at <= now) {
            let identity = &found.presence.identity;
            let rules = identity.rules.without_allowing();
            found.presence.after_expiry = Some(Box::new(Identity { rules, ..identity.clone() }));
        }
    }

    /// Returns whether a session collects messages of this topic: its own rules have not expired, or the
    /// client may subscribe to the topic without them.
    #[inline]
    pub(in crate::shard) fn collects(&self, found: &Slot, topic: &str, qos: QoS) -> bool {
        let identity = found.presence.after_expiry.as_deref();
        identity.is_none_or(|identity| self.collects_as(identity, found, topic, qos))
    }

    // A function of its own, because hardly any session has expired rules, and every delivery would pay for it.
    #[cold]
    #[inline(never)]
    fn collects_as(&self, identity: &Identity, found: &Slot, topic: &str, qos: QoS) -> bool {
        let request = AccessRequest {
            identity,
            client_id: found.session.client_id(),
            peer: found.presence.peer,
            listener: &found.presence.listener,
            action: Action::Subscribe { filter: topic, qos },
        };
        self.core.authorizer.authorize(&request) == Decision::Allow
    }

    /// Tells the connection of a slot if the credentials of its client have expired.
    pub(in crate::shard) fn tell_identity_expired(&mut self, slot: u32, now: Timestamp) {
        let Some(found) = self.slot_mut(slot) else { return };
        let is_due = found.identity_expires_at().is_some_and(|at| at <= now);
        let Some(connected) = found.connected.as_mut() else { return };
        if is_due {
            connected.is_expiry_told = true; // One message for each identity.
            connected.door.send(ToConnection::IdentityExpired);
        } else if connected.renews_at.is_some_and(|at| at <= now) {
            connected.renews_at = None; // One question at a time.
            connected.door.send(ToConnection::RenewIdentity);
        }
    }

    /// Returns whether this connection is still the one of its slot, and the credentials of its client
    /// have expired.
    pub(crate) fn has_expired_identity(&self, slot: u32, link: u64) -> bool {
        let found = self
            .slot(slot)
            .filter(|found| found.connected.as_ref().is_some_and(|c| c.link == link));
        found.is_some_and(|found| found.presence.identity.has_expired(self.core.clock.now()))
    }
}
