//! One client's session: what MQTT asks of a server, as a state machine without I/O.
//!
//! Nothing here reads a clock, knows a socket, an actor or another session. Time is an argument
//! and what must be sent is appended to the link's output as bytes. Same inputs, same outputs.

mod alias;
mod backlog;
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
pub use envelope::{KeptAt, Orphan, Share};
pub use incoming::{Incoming, Request, TopicName, Violation};
pub use keep_alive::KeepAlive;
pub use keeping::{LeftInQueue, Page};
pub use link::{Link, LinkSettings, Tally};
pub use outgoing::{Delivered, Delivery};
pub use queue::{BackPressure, QueueLimits, QueueUsage, Weeded, WhenFull};
pub use shared::SharedPublication;
pub use walk::RetainedWalk;

use self::{
    keeping::Keeping, outgoing::Outgoing, owned::Owned, queue::Queue, subscriptions::Subscriptions,
};
use crate::{
    journal::{Change, Journal, QueuePlace, SessionNumber, SubscriptionRecord},
    limits::subscription_bytes,
    mqtt::{PacketId, ReasonCode, SubscriptionOptions, Timestamp, validate_filter},
    owners::{Account, Charge},
};

/// Session Expiry Interval of a session that does not expire. [MQTT 5.0, 3.1.2.11.2]
pub const NEVER_EXPIRES: u32 = u32::MAX;

/// A session, with its connection's [`Link`] while there is one.
///
/// There are four kinds of methods, and after each of the second and third kind the caller looks
/// at the link's output:
///
/// - questions: `is_connected`, `subscriptions`, `usage` and the like;
/// - inputs: [`Session::handle`] for each packet, and [`Session::publish_done`] once the broker
///   has done what a PUBLISH asked for;
/// - commands: [`Session::deliver`], [`Session::disconnect`], [`Session::attach`];
/// - [`Session::pump`] moves what waits into the output as far as there is room.
#[derive(Debug)]
pub struct Session {
    client_id: Arc<str>,
    /// Session Expiry Interval in seconds.
    expiry_interval_secs: u32,
    subscriptions: Subscriptions,
    shared_subscriptions: usize,
    outgoing: Outgoing,
    incoming: Incoming,
    link: Option<Box<Link>>,
    /// What its subscriptions take of its owner's account.
    owned: Option<Charge>,
}

/// A subscription as the session keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Subscription Options.
    pub options: SubscriptionOptions,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
}

impl Subscription {
    const fn record(self) -> SubscriptionRecord {
        SubscriptionRecord { options: self.options, identifier: self.identifier }
    }
}

impl Session {
    /// A new session without a connection. `usage` counts what all sessions have queued, and bounds it.
    #[must_use]
    pub fn new(client_id: Arc<str>, usage: Arc<QueueUsage>) -> Self {
        Self {
            client_id,
            expiry_interval_secs: 0,
            subscriptions: Subscriptions::default(),
            shared_subscriptions: 0,
            outgoing: Outgoing::new(Queue::new(usage)),
            incoming: Incoming::default(),
            link: None,
            owned: None,
        }
    }

    /// Says whose session it is: what it keeps is counted there, past the bounds if need be.
    pub fn set_owner(&mut self, account: &Arc<Account>) {
        match &mut self.owned {
            Some(owned) => owned.move_to(account),
            None => {
                let charge = Charge::new(account.clone(), |account| &account.subscription_bytes);
                self.owned = Some(charge);
                let bytes =
                    self.subscriptions.iter().map(|(filter, _)| counted_bytes(filter)).sum();
                self.charge(|_| bytes);
            }
        }
        if let Some(keeping) = &mut self.outgoing.queue_mut().keeping {
            keeping.owned.get_or_insert_with(|| Owned::new(account)).move_to(account);
        }
        self.outgoing.queue_mut().settle_share();
    }

    /// Changes what the subscriptions take of the owner's account.
    fn charge(&mut self, change: impl FnOnce(u64) -> u64) {
        if let Some(owned) = &mut self.owned {
            let now = change(owned.taken());
            owned.set(now);
        }
    }

    /// Client Identifier.
    #[must_use]
    pub const fn client_id(&self) -> &Arc<str> {
        &self.client_id
    }

    /// Whether there is a connection.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// The connection.
    #[must_use]
    pub fn link(&self) -> Option<&Link> {
        self.link.as_deref()
    }

    /// The connection.
    pub fn link_mut(&mut self) -> Option<&mut Link> {
        self.link.as_deref_mut()
    }

    /// Session Expiry Interval in seconds; [`NEVER_EXPIRES`] means what it says.
    #[must_use]
    pub const fn expiry_interval_secs(&self) -> u32 {
        self.expiry_interval_secs
    }

    /// Sets Session Expiry Interval, in seconds.
    pub const fn set_expiry_interval_secs(&mut self, secs: u32) {
        self.expiry_interval_secs = secs;
    }

    /// Gives the session a connection and begins to send again what was not acknowledged, in the
    /// order in which it was sent. [MQTT-4.4.0-1] [MQTT-4.6.0-1]
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

    /// Takes the connection away. What the session keeps, it keeps.
    pub fn detach(&mut self) -> Option<Box<Link>> {
        self.set_back_pressure(BackPressure::None);
        self.outgoing.drop_fetched();
        self.link.take()
    }

    /// The client has gone, and nobody else takes what waits for it: what the store has need not be
    /// in memory.
    pub fn leave_to_store(&mut self) {
        self.outgoing.queue_mut().leave_to_store();
        self.outgoing.queue_mut().settle_share();
    }

    /// Makes a session that is new durable: what becomes of it is noted in the journal. `token` is
    /// whom the journal tells when something is kept.
    pub fn keep(&mut self, number: SessionNumber, journal: Journal, token: u32) {
        debug_assert!(self.subscriptions_len() == 0 && self.queued() == 0, "it is new");
        let mut keeping = Keeping::new(number, journal, token);
        keeping.owned = self.owned.as_ref().map(|owned| Owned::new(owned.account()));
        self.outgoing.queue_mut().keeping = Some(Box::new(keeping));
    }

    /// Goes on with what was found in the store; what is in the queue is read when it is needed.
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

    /// The number of a durable session.
    #[must_use]
    pub fn number(&self) -> Option<SessionNumber> {
        Some(self.outgoing.queue().keeping.as_ref()?.number())
    }

    /// Up to where QoS 1 messages of a durable session may have been sent without a note of it.
    #[must_use]
    pub fn doubtful_up_to(&self) -> QueuePlace {
        let keeping = self.outgoing.queue().keeping.as_ref();
        keeping.map_or_else(QueuePlace::default, |keeping| keeping.doubtful_up_to)
    }

    /// Whether what was in flight when the broker ended is still to be read.
    #[must_use]
    pub fn must_recall(&self) -> bool {
        self.outgoing.queue().keeping.as_ref().is_some_and(|k| k.in_flight_unread.messages > 0)
    }

    /// The place from which on the queue is to be read from the store.
    #[must_use]
    pub fn unread_from(&self) -> Option<(SessionNumber, QueuePlace)> {
        let keeping = self.outgoing.queue().keeping.as_ref()?;
        (keeping.beyond.messages > 0).then_some((keeping.number(), keeping.beyond.next))
    }

    /// Tells the client, where its version has a packet for it, that the server disconnects, and
    /// in a Reason String why, unless the client wants none. [MQTT-3.1.2-29]
    pub fn disconnect(&mut self, reason: ReasonCode, why: Option<&str>) {
        if let Some(link) = &mut self.link {
            link.send_disconnect(reason, why);
        }
    }

    /// Tells the client, where its version has a packet for it, to use another server.
    pub fn redirect(&mut self, reason: ReasonCode, server_reference: &str) {
        if let Some(link) = &mut self.link {
            link.send_redirection(reason, server_reference);
        }
    }

    /// The Topic Filters, `$share/…` included, and their options.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&str, Subscription)> {
        self.subscriptions.iter()
    }

    /// How many Topic Filters are subscribed to.
    #[must_use]
    pub fn subscriptions_len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Whether one of the subscriptions is shared.
    #[must_use]
    pub const fn has_shared_subscriptions(&self) -> bool {
        self.shared_subscriptions > 0
    }

    /// Whether something that the store has may have come by a shared subscription, which it need
    /// not have any more.
    #[must_use]
    pub fn may_hold_shared(&self) -> bool {
        self.outgoing.queue().keeping.as_ref().is_some_and(|keeping| keeping.may_hold_shared)
    }

    /// Whether `filter` is subscribed to.
    #[must_use]
    pub fn is_subscribed(&self, filter: &str) -> bool {
        self.subscriptions.find(filter).is_some()
    }

    /// The subscription to `filter`.
    #[must_use]
    pub fn subscription(&self, filter: &str) -> Option<Subscription> {
        self.subscriptions.find(filter)
    }

    /// Notes a subscription; the one it replaces, if any. [MQTT-3.8.4-3]
    pub fn subscribe(&mut self, filter: &str, subscription: Subscription) -> Option<Subscription> {
        if let Some(keeping) = &mut self.outgoing.queue_mut().keeping {
            keeping.note(|n| Change::Subscribe(n, filter.into(), subscription.record()));
            keeping.grant_again(filter);
        }
        self.insert_subscription(filter, subscription)
    }

    /// Takes back a subscription that was found in the store.
    pub fn restore_subscription(&mut self, filter: &str, subscription: Subscription) {
        self.insert_subscription(filter, subscription);
    }

    fn insert_subscription(
        &mut self,
        filter: &str,
        subscription: Subscription,
    ) -> Option<Subscription> {
        let former = self.subscriptions.insert(filter, subscription);
        if former.is_none() {
            self.shared_subscriptions += usize::from(is_shared(filter));
            self.charge(|bytes| bytes + counted_bytes(filter));
        }
        former
    }

    /// Forgets a subscription; whether it was there.
    pub fn unsubscribe(&mut self, filter: &str) -> bool {
        let existed = self.subscriptions.remove(filter);
        self.outgoing.cancel_walk(filter);
        if let Some(keeping) = self.outgoing.queue().keeping.as_ref().filter(|_| existed) {
            keeping.note(|n| Change::Unsubscribe(n, filter.into()));
        }
        if existed {
            self.shared_subscriptions -= usize::from(is_shared(filter));
            self.charge(|bytes| bytes.saturating_sub(counted_bytes(filter)));
        }
        existed
    }

    /// Messages that wait to be sent.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.outgoing.queued()
    }

    /// Whether the queue is at its bound, or past it by retained messages.
    #[must_use]
    pub fn is_queue_full(&self) -> bool {
        self.outgoing.is_queue_full()
    }

    /// Whether the queue has reached the bound of this client.
    #[must_use]
    pub fn is_queue_at_bound(&self) -> bool {
        self.outgoing.queue().is_at_bound()
    }

    /// Whether a sixteenth of the client's own queue is free.
    #[must_use]
    pub fn has_queue_drained(&self) -> bool {
        self.outgoing.queue().has_drained()
    }

    /// Whether publishers wait for this client.
    #[must_use]
    pub const fn back_pressure(&self) -> BackPressure {
        self.outgoing.queue().back_pressure
    }

    /// Says whether publishers wait for this client.
    pub const fn set_back_pressure(&mut self, back_pressure: BackPressure) {
        self.outgoing.queue_mut().back_pressure = back_pressure;
    }

    /// QoS 1 and 2 messages that were sent and are not acknowledged.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let unread = self.outgoing.queue().keeping.as_ref();
        let unread = unread.map_or(0, |keeping| keeping.in_flight_unread.messages);
        self.outgoing.in_flight() + unread
    }
}

/// What a subscription counts against limits on bytes.
fn counted_bytes(filter: &str) -> u64 {
    let parts = validate_filter(filter);
    parts.map_or(0, |parts| {
        let text = parts.filter.len() + parts.share_name.map_or(0, str::len);
        subscription_bytes(text, parts.filter.split('/').count()) as u64
    })
}

fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}
