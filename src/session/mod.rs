//! The session of one client: the server side of the MQTT protocol, as a state machine without I/O.
//!
//! Nothing here reads a clock or knows a socket, an actor or another session. The caller passes the
//! time as an argument. The session appends the bytes to be sent to the link's output. The same
//! inputs give the same outputs.

mod alias;
mod backlog;
mod contents;
mod envelope;
mod gate;
mod incoming;
mod keep_alive;
mod keeping;
mod link;
mod outgoing;
mod output;
mod owned;
mod packet_ids;
mod queue;
mod shared;
mod subscriptions;
mod walk;
mod weeding;
mod window;
mod withdrawal;

use std::sync::Arc;

pub use backlog::{Accepts, BacklogScan, Portion};
pub use envelope::{Orphan, Share, StoredAt};
pub use incoming::{Incoming, Request, TopicName, Violation};
pub use keep_alive::{KeepAlive, KeepAliveAuthor};
pub use keeping::{LeftInQueue, Page};
pub use link::{Link, LinkSettings, LinkTraffic, PacketCounts};
pub use outgoing::{Delivered, Delivery};
pub use owned::shape_of;
pub use queue::{BackPressure, QueueLimits, QueueUsage, WaitingInMemory, Weeded, WhenFull};
pub use shared::SharedPublication;
pub use walk::RetainedWalk;
pub use withdrawal::Examined;

#[cfg(feature = "bridge")]
pub(crate) use packet_ids::PacketIds;

use self::{
    keeping::Keeping,
    outgoing::Outgoing,
    owned::{Owned, OwnedSubscriptions},
    queue::{OwnQueueLimits, Queue},
    subscriptions::Subscriptions,
};
use crate::{
    journal::{Change, Journal, QueuePlace, SessionNumber, SubscriptionRecord},
    mqtt::{PacketId, ReasonCode, SubscriptionOptions, Timestamp},
    owners::Account,
};

/// Session Expiry Interval of a session that does not expire. [MQTT 5.0, 3.1.2.11.2]
pub const NEVER_EXPIRES: u32 = u32::MAX;

/// A session, with its connection's [`Link`] while there is one.
///
/// There are four kinds of methods. After an input or a command, the caller looks at the link's
/// output:
///
/// - queries: `is_connected`, `subscriptions`, `usage` and the like;
/// - inputs: [`Session::handle`] for each packet, and [`Session::publish_done`] once the broker
///   has handled a PUBLISH;
/// - commands: [`Session::deliver`], [`Session::disconnect`], [`Session::attach`];
/// - [`Session::pump`] moves waiting messages into the output as far as there is room.
#[derive(Debug)]
pub struct Session {
    client_id: Arc<str>,
    /// Session Expiry Interval in seconds.
    expiry_interval_secs: u32,
    /// Subscriptions that are not shared.
    subscriptions: Subscriptions,
    /// Shared subscriptions.
    shared_subscriptions: Subscriptions,
    outgoing: Outgoing,
    incoming: Incoming,
    link: Option<Box<Link>>,
    /// Memory of the subscriptions, charged to the owner's account.
    owned: Option<OwnedSubscriptions>,
}

/// A subscription as the session stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribedAs {
    /// Subscription Options.
    pub options: SubscriptionOptions,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
}

/// The remaining part of a walk along the subscriptions of a session.
#[derive(Clone, Copy, Debug)]
pub struct SubscriptionWalk {
    /// Number of subscriptions before the last one that was returned.
    left: usize,
    left_shared: usize,
}

impl SubscribedAs {
    const fn record(self) -> SubscriptionRecord {
        let Self { options, identifier } = self;
        SubscriptionRecord { options, identifier, is_withdrawn: false }
    }
}

impl Session {
    /// Creates a session without a connection. `usage` counts the queued messages of all sessions,
    /// and limits them.
    #[must_use]
    pub fn new(client_id: Arc<str>, usage: Arc<QueueUsage>) -> Self {
        Self {
            client_id,
            expiry_interval_secs: 0,
            subscriptions: Subscriptions::default(),
            shared_subscriptions: Subscriptions::default(),
            outgoing: Outgoing::new(Queue::new(usage)),
            incoming: Incoming::default(),
            link: None,
            owned: None,
        }
    }

    /// Returns the account of its owner; `None` before it has one.
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.owned.as_ref().map(OwnedSubscriptions::account)
    }

    /// Sets the owner: the session's subscriptions and stored messages are charged to this account,
    /// even beyond its limits.
    pub fn set_owner(&mut self, account: &Arc<Account>) {
        match &mut self.owned {
            Some(owned) => owned.move_to(account),
            None => {
                let mut owned = OwnedSubscriptions::new(account.clone());
                self.subscriptions().for_each(|(filter, _)| owned.add(filter));
                self.owned = Some(owned);
            }
        }
        if let Some(keeping) = &mut self.outgoing.queue_mut().keeping {
            keeping.owned.get_or_insert_with(|| Owned::new(account)).move_to(account);
        }
        self.outgoing.queue_mut().set_owner(account);
        self.outgoing.queue_mut().settle_share();
    }

    /// Returns the Client Identifier.
    #[must_use]
    pub const fn client_id(&self) -> &Arc<str> {
        &self.client_id
    }

    /// Returns whether there is a connection.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Returns the link of the connection, if there is one.
    #[must_use]
    pub fn link(&self) -> Option<&Link> {
        self.link.as_deref()
    }

    /// Returns the link of the connection, if there is one.
    pub fn link_mut(&mut self) -> Option<&mut Link> {
        self.link.as_deref_mut()
    }

    /// Returns the Session Expiry Interval in seconds, or [`NEVER_EXPIRES`].
    #[must_use]
    pub const fn expiry_interval_secs(&self) -> u32 {
        self.expiry_interval_secs
    }

    /// Sets the Session Expiry Interval, in seconds.
    pub const fn set_expiry_interval_secs(&mut self, secs: u32) {
        self.expiry_interval_secs = secs;
    }

    /// Limits the queue of this session further than the others, or ends that.
    pub fn set_queue_limits(&mut self, messages_max: Option<u32>, bytes_max: Option<u64>) {
        let is_limited = messages_max.is_some() || bytes_max.is_some();
        let size = |max: Option<u64>| {
            max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX))
        };
        let own = OwnQueueLimits {
            messages_max: size(messages_max.map(u64::from)),
            bytes_max: size(bytes_max),
            ..OwnQueueLimits::default()
        };
        self.outgoing.queue_mut().set_own_limits(is_limited.then_some(own));
    }

    /// Gives the queue of this session its own limits in place of those of all queues, or ends that.
    pub fn replace_queue_limits(&mut self, messages_max: Option<u32>, bytes_max: Option<u64>) {
        let messages = messages_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        let bytes = bytes_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        self.outgoing.queue_mut().replace_limits(messages, bytes);
    }

    /// Forgets the messages of QoS 2 that were accepted and not released, because their sender has
    /// forgotten them too.
    pub fn forget_accepted(&mut self) {
        for id in self.incoming.take_accepted() {
            if let Some(keeping) = &self.outgoing.queue().keeping {
                keeping.note(|number| Change::Forget(number, id));
            }
        }
    }

    /// Gives the session a connection, and begins to send unacknowledged messages again, in their
    /// original order. [MQTT-4.4.0-1] [MQTT-4.6.0-1]
    pub fn attach(&mut self, mut link: Link, now: Timestamp) {
        self.outgoing.begin_resending(&mut link);
        self.incoming.carry_over();
        self.link = Some(Box::new(link));
        if let Some(keeping) = &mut self.outgoing.queue_mut().keeping {
            keeping.is_away = false;
        }
        if self.outgoing.queue().holds_publishers() {
            self.set_back_pressure(BackPressure::Possible);
        }
        self.pump(now);
    }

    /// Takes the connection away. The session keeps its state.
    pub fn detach(&mut self) -> Option<Box<Link>> {
        self.set_back_pressure(BackPressure::None);
        self.outgoing.drop_fetched();
        self.link.take()
    }

    /// Drops from memory the queued messages that the store has. Called when the client has gone
    /// and no other session takes its queued messages.
    pub fn leave_to_store(&mut self) {
        self.outgoing.queue_mut().leave_to_store();
        self.outgoing.queue_mut().settle_share();
    }

    /// Makes a new session durable: from now on the journal notes its changes. `token` identifies
    /// the session when the journal reports that something is stored.
    pub fn keep(&mut self, number: SessionNumber, journal: Journal, token: u32) {
        debug_assert!(self.subscriptions_len() == 0 && self.queued() == 0, "it is new");
        let mut keeping = Keeping::new(number, journal, token);
        keeping.owned = self.owned.as_ref().map(|owned| Owned::new(owned.account()));
        self.outgoing.queue_mut().keeping = Some(Box::new(keeping));
    }

    /// Continues a session that was found in the store. Its queue is read later, when it is needed.
    pub fn restore(
        &mut self,
        number: SessionNumber,
        journal: Journal,
        token: u32,
        left: &LeftInQueue,
        accepted: &[PacketId],
    ) {
        let mut keeping = Keeping::new(number, journal, token);
        keeping.go_on_from(left);
        keeping.owned = self.owned.as_ref().map(|owned| Owned::new(owned.account()));
        self.incoming.restore(accepted);
        let queue = self.outgoing.queue_mut();
        queue.keeping = Some(Box::new(keeping));
        queue.note_expiry(left.expires_first);
        queue.note_stored();
    }

    /// Returns the number of a durable session.
    #[must_use]
    pub fn number(&self) -> Option<SessionNumber> {
        Some(self.outgoing.queue().keeping.as_ref()?.number())
    }

    /// Returns the last place up to which QoS 1 messages of a durable session may have been sent
    /// although the store does not say so.
    #[must_use]
    pub fn doubtful_up_to(&self) -> QueuePlace {
        let keeping = self.outgoing.queue().keeping.as_ref();
        keeping.map_or_else(QueuePlace::default, |keeping| keeping.doubtful_up_to)
    }

    /// Returns whether messages that were in flight when the broker ended are still to be read.
    #[must_use]
    pub fn must_recall(&self) -> bool {
        self.outgoing.queue().keeping.as_ref().is_some_and(|k| k.in_flight_unread.messages > 0)
    }

    /// Returns the place from which the next read of the queue in the store begins, if messages wait
    /// there alone.
    #[must_use]
    pub fn unread_from(&self) -> Option<(SessionNumber, QueuePlace)> {
        let keeping = self.outgoing.queue().keeping.as_ref()?;
        (keeping.beyond.messages > 0).then_some((keeping.number(), keeping.beyond.next))
    }

    /// Sends DISCONNECT, if the client's version has it, with `why` as Reason String, unless the
    /// client wants none. [MQTT-3.1.2-29]
    pub fn disconnect(&mut self, reason: ReasonCode, why: Option<&str>) {
        if let Some(link) = &mut self.link {
            link.send_disconnect(reason, why);
        }
    }

    /// Tells the client to use another server, if its version has a packet for it.
    pub fn redirect(&mut self, reason: ReasonCode, server_reference: &str) {
        if let Some(link) = &mut self.link {
            link.send_redirection(reason, server_reference);
        }
    }

    /// Returns the Topic Filters, including `$share/…`, and their options.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&str, SubscribedAs)> {
        self.subscriptions.iter().chain(self.shared_subscriptions.iter())
    }

    /// Begins a walk along all subscriptions. It may go on later, after some were added or removed.
    #[must_use]
    pub fn walk_all(&self) -> SubscriptionWalk {
        SubscriptionWalk { left: self.subscriptions.len(), ..self.walk_shared() }
    }

    /// Begins a walk along the shared subscriptions.
    #[must_use]
    pub fn walk_shared(&self) -> SubscriptionWalk {
        SubscriptionWalk { left: 0, left_shared: self.shared_subscriptions.len() }
    }

    /// Returns the next subscription of a walk. Those that were added after its beginning may be
    /// left out.
    pub fn next_of_walk(&self, walk: &mut SubscriptionWalk) -> Option<(&str, SubscribedAs)> {
        let next = |table: &Subscriptions, left: &mut usize| {
            *left = (*left).min(table.len()).checked_sub(1)?;
            Some(*left)
        };
        if let Some(at) = next(&self.subscriptions, &mut walk.left) {
            return self.subscriptions.at(at);
        }
        let at = next(&self.shared_subscriptions, &mut walk.left_shared)?;
        self.shared_subscriptions.at(at)
    }

    /// Removes a subscription of a session that has ended, shared ones first. The store forgets
    /// them together with the session.
    pub fn remove_any_subscription(&mut self) -> Option<Box<str>> {
        let filter = self.shared_subscriptions.pop().or_else(|| self.subscriptions.pop())?;
        if let Some(owned) = &mut self.owned {
            owned.remove(&filter);
        }
        Some(filter)
    }

    fn table(&self, filter: &str) -> &Subscriptions {
        if is_shared(filter) { &self.shared_subscriptions } else { &self.subscriptions }
    }

    fn table_mut(&mut self, filter: &str) -> &mut Subscriptions {
        if is_shared(filter) { &mut self.shared_subscriptions } else { &mut self.subscriptions }
    }

    /// Returns the number of Topic Filters that the session has subscribed to.
    #[must_use]
    pub fn subscriptions_len(&self) -> usize {
        self.subscriptions.len() + self.shared_subscriptions.len()
    }

    /// Returns whether one of the subscriptions is shared.
    #[must_use]
    pub fn has_shared_subscriptions(&self) -> bool {
        self.shared_subscriptions.len() > 0
    }

    /// Returns whether the store may have messages that came through a shared subscription. The
    /// session may have lost that subscription since.
    #[must_use]
    pub fn may_hold_shared(&self) -> bool {
        self.outgoing.queue().keeping.as_ref().is_some_and(|keeping| keeping.may_hold_shared)
    }

    /// Returns whether the session has subscribed to `filter`.
    #[must_use]
    pub fn is_subscribed(&self, filter: &str) -> bool {
        self.subscription(filter).is_some()
    }

    /// Returns the subscription to `filter`.
    #[must_use]
    pub fn subscription(&self, filter: &str) -> Option<SubscribedAs> {
        self.table(filter).find(filter)
    }

    /// Adds a subscription; returns the one that it replaces, if any. [MQTT-3.8.4-3]
    pub fn subscribe(&mut self, filter: &str, subscription: SubscribedAs) -> Option<SubscribedAs> {
        if let Some(keeping) = &mut self.outgoing.queue_mut().keeping {
            keeping.note(|n| Change::Subscribe(n, filter.into(), subscription.record()));
        }
        self.outgoing.queue_mut().grant_again(filter);
        self.insert_subscription(filter, subscription)
    }

    /// Restores a subscription that was found in the store.
    pub fn restore_subscription(&mut self, filter: &str, subscription: SubscribedAs) {
        self.insert_subscription(filter, subscription);
    }

    fn insert_subscription(
        &mut self,
        filter: &str,
        subscription: SubscribedAs,
    ) -> Option<SubscribedAs> {
        let former = self.table_mut(filter).insert(filter, subscription);
        if let Some(owned) = self.owned.as_mut().filter(|_| former.is_none()) {
            owned.add(filter);
        }
        former
    }

    /// Removes a subscription; returns whether it existed.
    pub fn unsubscribe(&mut self, filter: &str) -> bool {
        let existed = self.table_mut(filter).remove(filter);
        self.outgoing.cancel_walk(filter);
        if let Some(keeping) = self.outgoing.queue().keeping.as_ref().filter(|_| existed) {
            keeping.note(|n| Change::Unsubscribe(n, filter.into()));
        }
        if let Some(owned) = self.owned.as_mut().filter(|_| existed) {
            owned.remove(filter);
        }
        existed
    }

    /// Returns the number of messages that wait to be sent.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.outgoing.queued()
    }

    /// Returns the bytes of the messages that wait to be sent.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.outgoing.queue().bytes()
    }

    /// Returns the bytes of QoS 1 and 2 messages that were sent and are not acknowledged.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        let unread = self.outgoing.queue().keeping.as_ref();
        let unread = unread.map_or(0, |keeping| keeping.in_flight_unread.bytes);
        self.outgoing.queue().in_flight_bytes() + unread
    }

    /// Returns whether the queue is at its limit, or beyond it because of retained messages.
    #[must_use]
    pub fn is_queue_full(&self) -> bool {
        self.outgoing.is_queue_full()
    }

    /// Returns whether the queue has reached this client's own limit.
    #[must_use]
    pub fn is_queue_at_bound(&self) -> bool {
        self.outgoing.queue().is_at_bound()
    }

    /// Returns whether a sixteenth of the client's own queue is free.
    #[must_use]
    pub fn has_queue_drained(&self) -> bool {
        self.outgoing.queue().has_drained()
    }

    /// Returns whether publishers wait for this client.
    #[must_use]
    pub const fn back_pressure(&self) -> BackPressure {
        self.outgoing.queue().back_pressure
    }

    /// Sets whether publishers wait for this client.
    pub const fn set_back_pressure(&mut self, back_pressure: BackPressure) {
        self.outgoing.queue_mut().back_pressure = back_pressure;
    }

    /// Returns the number of QoS 1 and 2 messages that were sent and are not acknowledged.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let unread = self.outgoing.queue().keeping.as_ref();
        let unread = unread.map_or(0, |keeping| keeping.in_flight_unread.messages);
        self.outgoing.in_flight() + unread
    }
}

fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}
