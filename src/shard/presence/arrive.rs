//! A connection begins: the shard finds or creates its session, and an older connection gives way.

use std::sync::Arc;

use crate::{
    control::KeepAliveOverride,
    durable::Trouble,
    hooks::DisconnectReason,
    journal::Change,
    limits::Limits,
    metrics::UserLimit,
    mqtt::{Packet, ProtocolVersion, ReasonCode, Timestamp, encoded_size},
    owners::{Account, Charge},
    session::{KeepAlive, Link, LinkSettings, Session},
    shard::{
        Connected, Departure, Presence, Shard,
        connect::AcceptedConnect,
        doors::{ConnectionDoor, ToConnection},
        presence::{
            authenticate::Authentication,
            conn_ack::{broker_property, conn_ack, lasts, session_expiry},
            keep_alive::KeepAliveChange,
            settings::begin_settings,
            tell::subject_of,
        },
        refusal::NoSession,
    },
};

/// The facts about a new connection for the log and for events.
#[derive(Clone, Copy)]
pub(in crate::shard) struct Greeting {
    clean_start: bool,
    session_present: bool,
}

/// A session that is ready for its connection.
pub(crate) struct ReadySession {
    pub(crate) slot: u32,
    pub(crate) link: u64,
    session_present: bool,
    /// Whether the client was online; then it stays online during the takeover.
    was_online: bool,
    /// Whether the client had a durable session: CONNACK waits for its end or its changes.
    was_durable: bool,
}

impl Shard {
    /// Sends a message to the connection of a client; returns whether the client has one.
    pub(crate) fn send_to(&self, client_id: &str, message: ToConnection) -> bool {
        let connected = self.find(client_id).and_then(|found| found.connected.as_ref());
        connected.is_some_and(|connected| {
            connected.door.send(message);
            true
        })
    }

    /// Returns whether the CONNACK of this connection is still withheld from its client.
    pub(crate) fn awaits_conn_ack(&self, slot: u32, link: u64) -> bool {
        let connected = self.slot(slot).and_then(|found| found.connected.as_ref());
        connected.is_some_and(|c| c.link == link && c.unannounced.is_some())
    }

    /// Announces the client as online, because CONNACK may be sent.
    pub(in crate::shard) fn conn_ack_said(&mut self, slot: u32) {
        let connected = self.slot_mut(slot).and_then(|found| found.connected.as_mut());
        if let Some(greeting) = connected.and_then(|c| c.unannounced.take()) {
            self.tell_connected(slot, greeting.clean_start, greeting.session_present);
            self.announce_connected(slot, greeting.clean_start, self.core.clock.now());
            self.note_beginning_in_history(slot);
        }
    }

    /// Finds or creates the session of an accepted CONNECT. Before this returns, an older
    /// connection has ended and its end was announced, so that what follows is in order.
    ///
    /// # Errors
    /// Returns why there can be no session; then nothing has changed.
    pub(crate) fn prepare(
        &mut self,
        connect: &mut AcceptedConnect,
        now: Timestamp,
    ) -> Result<ReadySession, NoSession> {
        // Everything that can refuse the client comes before the first change.
        let account = self.check_client(connect, now)?;
        let user = connect.identity.username.as_ref();
        let sticky = self.core.sticky.layers(&connect.client_id, user);
        connect.settings = (!sticky.in_force().is_empty()).then(|| Box::new(sticky));
        // The version goes on from the former connection, or from the highest that was forgotten.
        let existing = self.clients.get(&connect.client_id).copied();
        let version = self.next_version(connect, existing)?;
        // Only a new session needs a place; a client with a session always returns.
        if existing.is_none()
            && self.core.sessions() >= self.core.limits_now().sessions_max as usize
        {
            return Err(NoSession::Full);
        }
        // Subscriptions and queued messages belong to their owner; another user gets a new session.
        let is_owner = existing
            .and_then(|s| self.slot(s))
            .is_none_or(|s| s.presence.identity.username == connect.identity.username);
        self.check_user_and_will(connect, existing.filter(|_| is_owner), &account)?;
        // Without a durable version, the presence version could go back after a restart. The client
        // may try again. The version of a cluster is in the record of the owner.
        if connect.owned.is_none() && !self.core.versions.is_reserved(version) {
            return Err(NoSession::Store);
        }
        // Only a Will is left of such a session, so there is nothing to resume.
        let has_ended = existing.is_some_and(|slot| self.is_last_will(slot));
        let starts_clean = connect.clean_start || !is_owner || has_ended;
        // If only the record of an ended session remains, CONNACK does not wait for it.
        let was_durable = !has_ended && existing.is_some_and(|slot| self.is_durable(slot));
        self.check_store(connect, (was_durable, starts_clean), &account, now)?;
        // A session that continues must know its Packet Identifiers in flight.
        if let Some(slot) = existing.filter(|_| !starts_clean)
            && !self.recall(slot)
        {
            return Err(NoSession::Store);
        }
        self.count_connection(connect, now)?; // From here on, nothing fails.
        if let Some(up_to) = self.core.versions.to_reserve(version) {
            self.note_reservation(up_to);
        }
        // Asked before the takeover, which ends the present connection.
        let was_online = self.is_online(&connect.client_id);
        let existing = self.make_way(connect, starts_clean, now);
        let slot = existing.unwrap_or_else(|| self.new_slot(connect, &account, now));
        self.keep_right(connect);
        self.numbers.raise_version_floor(version - 1);
        if let Some(found) = self.slot_mut(slot) {
            found.will_at = None; // [MQTT-3.1.3-9]
            found.expires_at = None;
            found.recent_topic = None; // It was decided for another connection.
            found.messages_in = 0;
            found.set_account(account);
            let proven = Some(connect.proven.clone());
            found.presence = Presence { version, proven, ..presence_of(connect, now) };
        }
        self.set_timer(slot);
        // Its rules may have changed while the client was absent.
        if existing.is_some() {
            self.collect_again(slot); // A suspended session is not checked.
            self.revoke_subscriptions(slot, now);
        }
        let link = self.numbers.next_link();
        Ok(ReadySession {
            slot,
            link,
            session_present: existing.is_some(),
            was_online,
            was_durable,
        })
    }

    /// Ends the present connection of the client, and its session if a new one begins. Returns the
    /// slot of the session that continues.
    fn make_way(
        &mut self,
        connect: &AcceptedConnect,
        starts_clean: bool,
        now: Timestamp,
    ) -> Option<u32> {
        let departure = Departure {
            code: Some(ReasonCode::SessionTakenOver), // [MQTT-3.1.4-3]
            ends_session: starts_clean,
            is_resumed: !starts_clean,
            ..Departure::unannounced(DisconnectReason::Takeovered)
        };
        // The Will of the old connection is published or cancelled before the new session exists.
        self.replace_connection(connect, departure, now);
        // A session that ends with its connection has no slot any more.
        let existing = self.clients.get(&connect.client_id).copied();
        if starts_clean && let Some(slot) = existing {
            self.start_clean(slot, now); // [MQTT-3.1.2-4]
        }
        existing.filter(|_| !starts_clean)
    }

    /// Ends the present connection of the client, if it has one, in favor of the new one.
    fn replace_connection(
        &mut self,
        connect: &AcceptedConnect,
        departure: Departure,
        now: Timestamp,
    ) {
        let Some(slot) = self.clients.get(&connect.client_id).copied() else { return };
        let presence = self.slot(slot).map(|found| &found.presence);
        let old = presence.map(|presence| (presence.peer, presence.listener.clone()));
        if self.end_connection(slot, departure, now)
            && let Some((peer, listener)) = old
        {
            self.core.told.taken_over(&subject_of(connect), (peer, &listener));
        }
    }

    /// Ends the former session of a client that connects.
    fn start_clean(&mut self, slot: u32, now: Timestamp) {
        if self.is_last_will(slot)
            && let Some(found) = self.slots.get_mut(slot as usize)
        {
            let record = found.will.take().and_then(|will| will.record); // The client is back.
            if let Some(record) = record {
                self.note(|| Change::EndSession(record));
            }
        }
        self.forget(slot, now);
    }

    /// Returns the account of the client's session, if the client may connect at all now.
    fn check_client(
        &self,
        connect: &AcceptedConnect,
        now: Timestamp,
    ) -> Result<Arc<Account>, NoSession> {
        self.check_owner(connect)?;
        // A bridge is a client of this configuration, and cannot follow a redirection.
        if let Some(to) = self.core.draining.load_full().filter(|_| connect.of_bridge.is_none()) {
            return Err(NoSession::Redirected(to));
        }
        // CONNACK is encoded after the session has changed, so its size is examined before.
        if !self.takes_conn_ack(connect) {
            return Err(NoSession::ConnAckTooLarge);
        }
        let (username, address) = (connect.identity.username.as_deref(), connect.peer.ip());
        if self.core.bans.keeps_out(&connect.client_id, username, address, now) {
            return Err(NoSession::Banned);
        }
        // Rules may have been reloaded between the handshake and this turn.
        if connect.proven.has_missed_rules(&connect.identity, &*self.core.authorizer) {
            return Err(NoSession::Unprepared);
        }
        if !self.is_still_welcome(connect) || connect.identity.has_expired(now) {
            return Err(NoSession::NotAuthorized);
        }
        // After the checks above, so that a client which they refuse gets no account.
        let account = self.core.account_of(connect.identity.username.as_ref(), connect.peer.ip());
        if self.slowed.is_too_early(&connect.client_id, &account, now) {
            return Err(NoSession::TooEarly);
        }
        Ok(account)
    }

    /// Returns whether there can be a session while the store is in trouble: what the broker
    /// promises a client of a durable session must be stored. If the store only lacks room, a
    /// client may return to its own session: it takes its messages, which makes room. A user that
    /// has far too much on its way to the store begins nothing more that needs it.
    fn check_store(
        &self,
        connect: &AcceptedConnect,
        (was_durable, starts_clean): (bool, bool),
        account: &Account,
        now: Timestamp,
    ) -> Result<(), NoSession> {
        let is_durable = lasts(connect) || was_durable;
        let may_come_back = |trouble| trouble == Trouble::Full && was_durable && !starts_clean;
        if is_durable && self.trouble().is_some_and(|trouble| !may_come_back(trouble)) {
            return Err(NoSession::Store);
        }
        let needs_store = is_durable || connect.will.is_some();
        let keeper = self.core.keeper.as_ref().filter(|_| needs_store);
        match keeper.is_some_and(|keeper| keeper.is_exhausted_by(account, now)) {
            true => Err(NoSession::Store),
            false => Ok(()),
        }
    }

    /// Returns whether there is room for the Will, and for the user's session, if more sessions
    /// outlive their connection with it than with the `former` one.
    fn check_user_and_will(
        &self,
        connect: &mut AcceptedConnect,
        former: Option<u32>,
        account: &Arc<Account>,
    ) -> Result<(), NoSession> {
        // A session that counts already needs no second place in the share of its user.
        let has_lasted = former
            .and_then(|slot| self.slot(slot))
            .is_some_and(|s| s.lasting.taken() > 0 && Arc::ptr_eq(&s.account, account));
        if lasts(connect) && !has_lasted && !account.sessions.fits(1) {
            self.metrics.user_limits_reached.increment(UserLimit::Sessions);
            return Err(NoSession::UserFull);
        }
        // Shares are taken with the CONNECT, and returned by their guards if a later check refuses it.
        if let Some(will) = &mut connect.will {
            let mut charge = Charge::new(account.clone(), |account| &account.will_bytes);
            let bytes = will.counted_bytes();
            if !charge.try_set(bytes as u64) {
                self.metrics.user_limits_reached.increment(UserLimit::Wills);
                return Err(NoSession::UserWillsFull);
            }
            let share = self.core.wills.share(bytes);
            will.share = Some((share.ok_or(NoSession::WillsFull)?, charge));
        }
        Ok(())
    }

    /// Attaches the connection to the session and answers CONNACK. The client is online as soon as
    /// CONNACK may be sent.
    pub(crate) fn answer_connect(
        &mut self,
        prepared: &ReadySession,
        door: Box<dyn ConnectionDoor>,
        connect: AcceptedConnect,
        now: Timestamp,
    ) {
        let limits = &*self.core.limits_now();
        let expiry_secs = session_expiry(&connect, limits);
        let packet_bytes_max = limits.packet_bytes_max;
        let found = self.override_at(&connect);
        let settings = settle(&connect, found.as_ref(), limits);
        let present = prepared.session_present;
        // CONNACK is in the output before messages of the session can be encoded. [MQTT-3.2.0-1]
        let mut link = self.new_link(&connect, settings, limits, (expiry_secs, present), now);
        let keep_alive_change = begin_override(&mut link, found.as_ref(), now);
        let live_settings = begin_settings(&mut link, connect.settings, expiry_secs, now);
        let of_connection = (live_settings.as_deref(), connect.of_bridge);
        self.begin_session(prepared.slot, connect.will, of_connection, expiry_secs);
        // All that CONNACK promises is noted by now; the last Will below is not part of it.
        // A session that was durable waits too: its removal must be stored before the client learns of it.
        let waits = prepared.was_durable || self.is_durable(prepared.slot);
        let gate = waits.then(|| self.gate_of_connect(prepared.slot)).flatten();
        if let Some(ticket) = gate {
            link.gate_conn_ack(ticket);
        }
        self.note_last_will(prepared.slot);
        let Some(slot) = self.slots.get_mut(prepared.slot as usize) else {
            return;
        };
        slot.connected = Some(Connected {
            door,
            packet_bytes_max,
            link: prepared.link,
            waker: None,
            is_awake: true,
            authentication: connect.enhanced.map(Authentication::new),
            is_held: false,
            is_asked_for_client: false,
            has_certificate: connect.has_certificate,
            _certificate: connect.certificate,
            is_expiry_told: false,
            renews_at: slot.presence.identity.renewal.at(),
            unannounced: Some(Greeting {
                clean_start: connect.clean_start,
                session_present: prepared.session_present,
            }),
            was_online: prepared.was_online,
            keep_alive_change,
            own_keep_alive_at: None,
            clean_start: connect.clean_start,
            settings: live_settings,
        });
        // Subscriptions that are not checked yet must not deliver to the new connection.
        link.withhold_messages(slot.is_being_checked());
        slot.session.attach(link, now);
        self.metrics.connects_accepted.increment();
        self.metrics.connections.set(self.lifecycle.count_connected() as u64);
        self.note_deadline(prepared.slot);
        // A resumed queue may be full, and its publishers wait from its first moment.
        self.note_queued(prepared.slot);
        self.tell_groups(prepared.slot);
        self.set_timer(prepared.slot); // The credentials may expire.
        // With a gate, the same call follows when its ticket is stored.
        if gate.is_none() {
            self.conn_ack_said(prepared.slot);
        }
    }

    /// Returns the link of a new connection, with CONNACK in its output.
    fn new_link(
        &mut self,
        connect: &AcceptedConnect,
        settings: LinkSettings,
        limits: &Limits,
        (expiry_secs, session_present): (u32, bool),
        now: Timestamp,
    ) -> Link {
        let mut link = Link::new(settings, KeepAlive::new(settings.keep_alive_secs, now));
        self.buffers.lend(link.out_mut());
        let mut packet = conn_ack(connect, &settings, limits, expiry_secs, session_present);
        let response_information = Some(&connect.client_id)
            .filter(|_| connect.wants_response_information) // [MQTT-3.1.2-28]
            .and_then(|client_id| self.core.response_information(client_id));
        packet.properties.response_information = response_information.as_deref();
        let broker = connect.wants_broker_id.then(|| self.core.broker_id.get()).flatten();
        let broker = broker.map(|id| broker_property(id)).unwrap_or_default();
        packet.properties.user_properties = broker.as_user_properties();
        let mut packet = Packet::ConnAck(Box::new(packet));
        // CONNACK may exceed the Maximum Packet Size of the client. [MQTT-3.1.2-24]
        if !link.try_send(&packet)
            && let Packet::ConnAck(ack) = &mut packet
        {
            ack.properties.response_information = None; // The only dispensable property.
            link.send(&packet);
        }
        link
    }

    /// Returns whether the client's Maximum Packet Size allows the CONNACK that [`Self::answer_connect`]
    /// will send: without CONNACK, no other packet may follow. [MQTT-3.2.0-1]
    fn takes_conn_ack(&self, connect: &AcceptedConnect) -> bool {
        if connect.maximum_packet_size >= CONN_ACK_BYTES_USUAL && connect.enhanced.is_none() {
            return true;
        }
        let limits = &*self.core.limits_now();
        let settings = settle(connect, self.override_at(connect).as_ref(), limits);
        let expiry_secs = session_expiry(connect, limits);
        let packet = conn_ack(connect, &settings, limits, expiry_secs, false);
        encoded_size(&Packet::ConnAck(Box::new(packet)), connect.version)
            .is_ok_and(|bytes| bytes <= connect.maximum_packet_size as usize)
    }

    fn new_slot(
        &mut self,
        connect: &AcceptedConnect,
        account: &Arc<Account>,
        now: Timestamp,
    ) -> u32 {
        let usage = self.core.queue_usage.clone();
        let session = Session::new(connect.client_id.clone(), usage);
        self.insert_slot(session, presence_of(connect, now), account)
    }

    /// Returns the override of the client, unless its Keep Alive is off.
    fn override_at(&self, connect: &AcceptedConnect) -> Option<KeepAliveOverride> {
        let is_on = connect.keep_alive_secs > 0;
        is_on.then(|| self.core.overrides.find(&connect.client_id)).flatten()
    }
}

/// Returns what this CONNECT and these limits give the connection. The caller reads the limits once, so that a
/// reload meanwhile does not mix two sets of them in one CONNACK.
fn settle(
    connect: &AcceptedConnect,
    found: Option<&KeepAliveOverride>,
    limits: &Limits,
) -> LinkSettings {
    let mut keep_alive_secs = connect.keep_alive_secs;
    // Only MQTT 5.0 can tell the client another Keep Alive, and 0 stays off. [MQTT-3.2.2-22]
    // An override applies before the limit, because an operator chose it for this client.
    if connect.version == ProtocolVersion::V5 {
        if let Some(found) = found {
            keep_alive_secs = found.interval_secs;
        } else if limits.keep_alive_secs_max > 0 {
            keep_alive_secs = keep_alive_secs.min(limits.keep_alive_secs_max);
        }
    }
    LinkSettings {
        version: connect.version,
        is_bridge: connect.is_bridge,
        asked_keep_alive_secs: connect.keep_alive_secs,
        keep_alive_secs,
        // The broker may use less than the Receive Maximum of the client, never more. [MQTT-3.3.4-9]
        send_quota: connect.receive_maximum.min(limits.in_flight_max),
        // The other broker of a bridge was told its own, or knows none.
        receive_maximum: match connect.of_bridge {
            Some(_) => u16::MAX,
            None => limits.receive_maximum,
        },
        maximum_packet_size: connect.maximum_packet_size,
        topic_aliases_in_max: limits.topic_alias_maximum,
        // An alias needs an entry on both sides, so the smaller limit counts. [MQTT-3.1.2-26]
        topic_aliases_out_max: connect.topic_alias_maximum.min(limits.topic_alias_maximum),
        problem_information: connect.problem_information,
        may_extend_expiry: connect.session_expiry_secs.is_some_and(|secs| secs > 0),
    }
}

/// Puts an override into force from the beginning of a connection. One that the client knows does
/// not end before the connection does.
fn begin_override(
    link: &mut Link,
    found: Option<&KeepAliveOverride>,
    now: Timestamp,
) -> Option<KeepAliveChange> {
    let found = found?;
    let is_told = link.settings().keep_alive_secs == found.interval_secs;
    *link.keep_alive_mut() = KeepAlive::new(found.interval_secs, now);
    let reverts_at = found.expires_at.filter(|_| !is_told);
    Some(KeepAliveChange { reverts_at, is_override: true })
}

/// The usual maximum length of a CONNACK, so that nearly all CONNACKs need not be measured: unless
/// the client has an authentication method, a CONNACK only has an identifier of 27 bytes that the
/// broker assigned, and numbers.
const CONN_ACK_BYTES_USUAL: u32 = 128;

/// Returns the presence of a client whose version and login are not noted yet.
fn presence_of(connect: &AcceptedConnect, now: Timestamp) -> Presence {
    Presence {
        identity: connect.identity.clone(),
        peer: connect.peer,
        listener: connect.listener.clone(),
        connected_at: now,
        version: 0,
        proven: None,
        is_restored: false,
        after_expiry: None,
    }
}
