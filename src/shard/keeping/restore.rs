//! Restores sessions that a start finds in the store. Their permissions are checked again: accounts
//! and permissions may have changed since the last broker ended.
//!
//! The registry calls this before any client can connect, so that nothing reaches a subscription
//! that its client may no longer have. The checks are those of `recheck`, which walks along the
//! known sessions.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use crate::{
    auth::{
        Action, Attributes, Authorizer, ClientCertificate, Groups, Identity, Login, OwnRules,
        Prepared, Renewal, Standing,
    },
    journal::{
        CertificateRecord, LoginKind, LoginRecord, SessionRecord, SubscriptionRecord, WillRecord,
    },
    mqtt::{Timestamp, validate_filter},
    owners::Charge,
    router::Subscriber,
    session::{LeftInQueue, NEVER_EXPIRES, Session, SubscribedAs},
    shard::{Presence, Shard, Slot, connect::AcceptedWill},
    store::StoredSession,
};

/// The time after the start in which the client of a session that ended with the broker may come
/// back before its Will is published.
const LAST_WILL_GRACE_SECS: u64 = 10;

/// The address of a client whose session record has none.
const UNKNOWN_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A session that a start has found.
pub(crate) struct FoundSession {
    pub(in crate::shard) session: StoredSession,
    pub(in crate::shard) identity: Identity,
    /// Whether the authorizer has loaded its data about it.
    pub(in crate::shard) is_prepared: bool,
}

impl FoundSession {
    /// Returns whether the authorizer could not load its data, so that the session rests.
    pub(in crate::shard) const fn is_unprepared(&self) -> bool {
        !self.is_prepared
    }
}

/// The decision about a session that was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RestoreVerdict {
    /// It continues, with the subscriptions that are still allowed.
    GoesOn,
    /// It collects nothing, because its client may not connect.
    Rests,
    /// It ends, because its user no longer exists.
    Ends,
}

/// The decision about a subscription of a session that was found.
enum RestoredSubscription {
    /// The session has it.
    Subscribed,
    /// Its client may no longer have it.
    Denied,
    /// Its client may no longer have it. An earlier broker has announced that, and ended before it had removed the
    /// messages.
    Marked,
}

impl Shard {
    /// Restores a session that was found in the store. `listener` is that of the session before; it
    /// is used again if it is the same, because most sessions share few listeners.
    pub(crate) fn restore(
        &mut self,
        found: &FoundSession,
        listener: &mut Arc<str>,
        now: Timestamp,
    ) {
        let stored = &found.session;
        let there = self.clients.get(&stored.record.client_id).copied();
        let number_there = there.and_then(|slot| self.slot(slot)?.session.number());
        let slot = self.restore_one(found, listener, now);
        // Of two sessions of one client, the older was about to end. If it still has a Will, a receiver
        // on another shard may not have stored it.
        if let Some(there) = there {
            let is_older = number_there > Some(stored.number);
            let (older, newer) = if is_older { (slot, there) } else { (there, slot) };
            self.clients.insert(stored.record.client_id.clone(), newer);
            self.end_after_start(older, now);
        }
    }

    /// Makes a session end once all sessions are restored, because others may get the messages that
    /// it leaves.
    fn end_after_start(&mut self, slot: u32, now: Timestamp) {
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        found.is_suspended = true;
        (found.will_at, found.expires_at) = (None, Some(now));
        self.set_timer(slot);
        self.tell_groups(slot);
    }

    /// Restores a session; returns its slot.
    fn restore_one(
        &mut self,
        found: &FoundSession,
        listener: &mut Arc<str>,
        now: Timestamp,
    ) -> u32 {
        let stored = &found.session;
        let record = &stored.record;
        let expiry_secs = record.expiry_interval_secs;
        // The session ended with its connection; its Will waits for the client to come back.
        let is_last_will = expiry_secs == 0 && stored.will.is_some();
        // A client that was connected when the broker ended has lost its connection at that time.
        let has_ended =
            record.ends_at.is_some_and(|at| at <= now) || (record.is_connected && expiry_secs == 0);
        let leaves_more = !stored.subscriptions.is_empty()
            || !stored.accepted.is_empty()
            || stored.waiting.messages > 0
            || stored.in_flight > 0;
        let (slot, verdict) = self.restore_slot(found, listener, now);
        let Some(found) = self.slots.get_mut(slot as usize) else { return slot };
        // If the client was connected, its connection ended at this time at the latest.
        found.expires_at = if record.is_connected {
            (expiry_secs != NEVER_EXPIRES).then(|| now.plus_secs(u64::from(expiry_secs)))
        } else {
            record.ends_at
        };
        if let Some(will) = &stored.will {
            // The delay ends with the session at the latest. [MQTT-3.1.2-8]
            let delay_secs = u64::from(will.delay_secs.min(expiry_secs));
            found.will_at = Some(will.due_at.unwrap_or_else(|| now.plus_secs(delay_secs)));
            let mut will = accepted(will);
            // The Will was accepted before the broker ended, and counts whatever the limits are.
            let mut charge = Charge::new(found.account.clone(), |account| &account.will_bytes);
            charge.set(will.counted_bytes() as u64);
            will.share = Some((self.core.wills.share_anyway(will.counted_bytes()), charge));
            found.will = Some(Box::new(will));
        }
        // The subscriptions were not added to the index in this case, so nothing can reach the session.
        if verdict == RestoreVerdict::Ends {
            self.end_after_start(slot, now);
            return slot;
        }
        if is_last_will {
            // The record stays unchanged, so each start gives the client the whole time.
            let due_at = now.plus_secs(LAST_WILL_GRACE_SECS);
            found.will_at = Some(due_at);
            // Subscriptions and messages are removed now, in portions, and only the Will waits on.
            found.expires_at = Some(if leaves_more { now } else { due_at });
            self.set_timer(slot);
            return slot;
        }
        // The timer ends it in a turn of its own, so a start with many ended sessions stays short.
        if has_ended {
            found.expires_at = Some(now);
        }
        self.set_timer(slot);
        // From now on the record has the time of its end, which a later start needs.
        self.note_session(slot, false);
        self.note_will(slot);
        slot
    }

    fn restore_slot(
        &mut self,
        found: &FoundSession,
        listener: &mut Arc<str>,
        now: Timestamp,
    ) -> (u32, RestoreVerdict) {
        let stored = &found.session;
        let StoredSession { number, record, subscriptions, accepted, waiting, .. } = stored;
        let usage = self.core.queue_usage.clone();
        let mut session = Session::new(record.client_id.clone(), usage);
        session.set_expiry_interval_secs(record.expiry_interval_secs);
        let presence = self.presence_of(found, listener);
        let account = self.core.account_of(record.username.as_ref(), presence.peer.ip());
        let slot = self.insert_slot(session, presence, &account);
        // Without prepared permissions the answer is preliminary: the session collects nothing
        // until they are there.
        let verdict = match self.judge(slot) {
            RestoreVerdict::GoesOn if !found.is_prepared => RestoreVerdict::Rests,
            verdict @ (RestoreVerdict::GoesOn | RestoreVerdict::Rests | RestoreVerdict::Ends) => {
                verdict
            }
        };
        let (mut denied, mut marked) = (Vec::new(), Vec::new());
        // All subscriptions are in the session before one is withdrawn, because a queued message
        // may match several.
        for (filter, subscription) in subscriptions {
            match self.restore_subscription(slot, filter, *subscription, verdict) {
                RestoredSubscription::Subscribed => {}
                RestoredSubscription::Denied => {
                    denied.push((filter.clone(), subscription.options.qos))
                }
                RestoredSubscription::Marked => marked.push(filter),
            }
        }
        // The messages stay in the store; the session gets their number and the place of the first.
        let left = LeftInQueue {
            messages: waiting.messages,
            bytes: waiting.bytes,
            next: waiting.first.unwrap_or_default(),
            last_place: stored.last_place,
            in_flight: stored.in_flight,
            in_flight_bytes: stored.in_flight_bytes,
            expires_first: waiting.expires_first,
            // The last message that a connected client was sent is unknown.
            doubtful_up_to: match record.is_connected {
                true => stored.last_place,
                // Places begin again where a queue was empty; messages from here on were never
                // sent.
                false => record.doubtful_up_to.min(stored.last_place),
            },
        };
        let journal = self.journal.clone();
        let Some(found) = self.slots.get_mut(slot as usize) else { return (slot, verdict) };
        // A suspended session receives nothing until its login is checked again.
        found.is_suspended = verdict != RestoreVerdict::GoesOn;
        found.lasting.set(u64::from(record.expiry_interval_secs > 0));
        if let Some(journal) = journal {
            found.session.restore(*number, journal, slot, &left, accepted);
        }
        // Withdrawn before the crash, and still to be examined in the queue.
        self.withdraw_untold(slot, marked.into_iter().map(|filter| &**filter));
        // Denied by the rules of this start, so this is a new change that the store gets.
        self.withdraw(slot, &denied, now);
        self.tell_groups(slot);
        (slot, verdict)
    }

    /// Restores a subscription to its session; returns whether it must be withdrawn.
    fn restore_subscription(
        &mut self,
        slot: u32,
        filter: &str,
        record: SubscriptionRecord,
        verdict: RestoreVerdict,
    ) -> RestoredSubscription {
        // A filter in the store was valid once; only another version of the broker could have written another.
        let (Ok(parts), Some(place)) = (validate_filter(filter), self.place(slot)) else {
            return RestoredSubscription::Subscribed;
        };
        let SubscriptionRecord { options, identifier, is_withdrawn } = record;
        let Some(found) = self.slots.get_mut(slot as usize) else {
            return RestoredSubscription::Subscribed;
        };
        // In each case: a withdrawal or the end of the session looks for the subscription here.
        found.session.restore_subscription(filter, SubscribedAs { options, identifier });
        if verdict == RestoreVerdict::Ends {
            return RestoredSubscription::Subscribed;
        }
        if is_withdrawn {
            return RestoredSubscription::Marked;
        }
        let action = Action::Subscribe { filter: parts.filter, qos: options.qos };
        // If the session collects nothing, its permissions are checked when it collects again.
        if verdict == RestoreVerdict::GoesOn
            && !self.slot(slot).is_some_and(|s| self.may(s, action))
        {
            return RestoredSubscription::Denied;
        }
        let subscriber = Subscriber { place, options, identifier, is_durable: true };
        self.core.index.subscribe(parts, subscriber);
        RestoredSubscription::Subscribed
    }

    fn judge(&self, slot: u32) -> RestoreVerdict {
        let Some(found) = self.slot(slot) else { return RestoreVerdict::Ends };
        match self.standing(found) {
            Standing::Gone => RestoreVerdict::Ends,
            Standing::Suspended => RestoreVerdict::Rests,
            Standing::Good | Standing::Changed if self.may(found, Action::Connect) => {
                RestoreVerdict::GoesOn
            }
            Standing::Good | Standing::Changed => RestoreVerdict::Rests,
        }
    }

    /// Returns whether the credentials of a slot's client still hold.
    pub(in crate::shard) fn standing(&self, found: &Slot) -> Standing {
        let Presence { identity, proven, listener, is_restored, .. } = &found.presence;
        let Some(proven) = proven else { return Standing::Good };
        if *is_restored && identity.username.is_none() {
            // The method that accepted the login may no longer exist.
            let identity = Identity { login: Login::Unknown, ..identity.clone() };
            return self.core.standing(&identity, proven, listener);
        }
        self.core.standing(identity, proven, listener)
    }

    /// Returns the client's last connection, as its record describes it.
    fn presence_of(&self, found: &FoundSession, former_listener: &mut Arc<str>) -> Presence {
        let record = &found.session.record;
        let listener = listener_of(record);
        if **former_listener != *listener {
            *former_listener = listener.into();
        }
        let method = record.login.as_ref().and_then(|login| login.method.clone());
        Presence {
            identity: found.identity.clone(),
            peer: peer_of(record),
            listener: former_listener.clone(),
            connected_at: record.connected_at,
            // Every version that was given out was reserved before.
            version: self.numbers.version_floor(),
            proven: Some(self.core.proves_now(method)),
            is_restored: true,
            after_expiry: None,
        }
    }
}

impl Slot {
    /// Returns the stored form of the client's login; `None` if it is not known.
    pub(in crate::shard) fn login_record(&self, rules: &dyn Authorizer) -> Option<LoginRecord> {
        let Presence { identity, listener, proven, .. } = &self.presence;
        let certificate = identity.certificate.as_ref().map(|shown| CertificateRecord {
            common_name: shown.common_name.as_str().into(),
            serial_number: shown.serial_number.as_str().into(),
        });
        // Attributes are personal data, so the store has them only if a rule can need them.
        let attributes = &identity.attributes;
        let are_kept =
            !attributes.is_empty() && (rules.uses_attributes() || !identity.rules.is_empty());
        let attributes = attributes.iter().take_while(|_| are_kept);
        let attributes = attributes.map(|(name, value)| (name.into(), value.into())).collect();
        Some(LoginRecord {
            kind: kind_of(identity.login)?,
            method: proven.as_ref().and_then(|proven| proven.method.clone()),
            listener: listener.clone(),
            certificate,
            needs_account: identity.needs_account,
            source: identity.source.clone(),
            attributes,
            groups: identity.groups.iter().map(Into::into).collect(),
            credential: identity.credential,
            rules: identity.rules.as_json().map(Into::into),
            // Without rules of its own, a session of an absent client has nothing that could expire.
            rules_expire_at: identity.expires_at.filter(|_| !identity.rules.is_empty()),
        })
    }
}

/// Returns the identity of a session's client, as far as the record knows it.
pub(in crate::shard) fn identity_of(record: &SessionRecord) -> Identity {
    let login = record.login.as_ref();
    let certificate = login.and_then(|login| login.certificate.as_ref()).map(|shown| {
        Arc::new(ClientCertificate {
            common_name: shown.common_name.to_string(),
            serial_number: shown.serial_number.to_string(),
        })
    });
    Identity {
        username: record.username.clone(),
        certificate,
        login: login.map_or(Login::Unknown, |login| login_of(login.kind)),
        needs_account: login.is_some_and(|login| login.needs_account),
        source: login.and_then(|login| login.source.clone()),
        attributes: login.map(attributes_of).unwrap_or_default(),
        groups: login.map(groups_of).unwrap_or_default(),
        credential: login.and_then(|login| login.credential),
        rules: login.map(rules_of).unwrap_or_default(),
        renewal: Renewal::default(), // It is for connections alone.
        expires_at: login.and_then(|login| login.rules_expire_at),
        prepared: Prepared::default(),
    }
}

/// Returns the listener of a session's last connection; empty if it is not known.
pub(in crate::shard) fn listener_of(record: &SessionRecord) -> &str {
    record.login.as_ref().map_or("", |login| &*login.listener)
}

pub(in crate::shard) fn peer_of(record: &SessionRecord) -> SocketAddr {
    record.peer.parse().unwrap_or(UNKNOWN_PEER)
}

fn attributes_of(login: &LoginRecord) -> Attributes {
    let all = login.attributes.iter().cloned();
    Attributes::new(all).unwrap_or_default() // Their number is limited when they are stored.
}

fn rules_of(login: &LoginRecord) -> OwnRules {
    login.rules.as_deref().map_or_else(OwnRules::default, OwnRules::from_json)
}

fn groups_of(login: &LoginRecord) -> Groups {
    Groups::new(login.groups.iter().cloned()).unwrap_or_default() // So is theirs.
}

const fn login_of(kind: LoginKind) -> Login {
    match kind {
        LoginKind::Password => Login::Password,
        LoginKind::Certificate => Login::Certificate,
        LoginKind::Scram => Login::Scram,
        LoginKind::Anonymous => Login::Anonymous,
        LoginKind::Other => Login::Other,
    }
}

const fn kind_of(login: Login) -> Option<LoginKind> {
    match login {
        Login::Password => Some(LoginKind::Password),
        Login::Certificate => Some(LoginKind::Certificate),
        Login::Scram => Some(LoginKind::Scram),
        Login::Anonymous => Some(LoginKind::Anonymous),
        Login::Other => Some(LoginKind::Other),
        Login::Unknown => None,
    }
}

fn accepted(will: &WillRecord) -> AcceptedWill {
    AcceptedWill {
        message: Arc::clone(&will.message),
        delay_secs: will.delay_secs,
        expiry_secs: will.expiry_secs,
        share: None,
        record: None,
    }
}
