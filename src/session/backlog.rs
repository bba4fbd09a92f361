//! Messages that wait in a session for a shared subscription. The functions here take them
//! out piece by piece, for members that can receive them.
//!
//! The caller decides which member takes them, and when. Each step examines a limited number of
//! messages: a part of the queue in memory, or the given page of the store.

use std::num::{NonZeroU16, NonZeroU32};

use super::{Orphan, Session};
use crate::{
    journal::{QueuePlace, QueuedMessage, SessionNumber, Ticket},
    mqtt::{
        Message, PacketId, ProtocolVersion, PublishAs, PublishFlags, QoS, Timestamp, TopicAlias,
        publish_size,
    },
};

/// The progress of one search for messages that wait for a shared subscription.
#[derive(Debug)]
pub struct BacklogScan {
    /// The subscription, by the router's number.
    pub share: NonZeroU32,
    /// Number of messages in memory that the search has passed over.
    passed: usize,
    /// Number of messages that had left the queue when `passed` was counted.
    taken: u64,
    /// The search in the store goes on from here.
    next: QueuePlace,
    /// Some messages were passed over because they are larger than the taker accepts.
    pub has_too_large: bool,
    /// Messages that the store does not have yet may be on their way there, with tickets before
    /// this one.
    pub in_doubt: Option<Ticket>,
}

impl BacklogScan {
    /// Creates a scan that begins at the oldest message.
    #[must_use]
    pub const fn new(share: NonZeroU32) -> Self {
        let next = QueuePlace(0);
        Self { share, passed: 0, taken: 0, next, has_too_large: false, in_doubt: None }
    }
}

/// How much a search may still take.
#[derive(Clone, Copy, Debug)]
pub struct Portion {
    /// Messages.
    pub messages: usize,
    /// Bytes of messages; the last message may exceed the limit.
    pub bytes: usize,
}

impl Portion {
    const fn is_used_up(&self) -> bool {
        self.messages == 0 || self.bytes == 0
    }

    fn take(&mut self, message: &Message) {
        self.messages -= 1;
        self.bytes = self.bytes.saturating_sub(message.size());
    }
}

/// The limits of the member that takes messages.
#[derive(Clone, Debug)]
pub struct Accepts {
    /// The member's protocol version.
    pub version: ProtocolVersion,
    /// The member's Maximum Packet Size.
    pub maximum_packet_size: u32,
    /// The QoS of the member's subscription.
    pub qos: QoS,
    /// The member's Subscription Identifier.
    pub identifier: Option<u32>,
}

impl Accepts {
    /// Accepts everything, as a subscriber in this process does.
    pub const ALL: Self = Self {
        version: ProtocolVersion::V5,
        maximum_packet_size: u32::MAX,
        qos: QoS::ExactlyOnce,
        identifier: None,
    };

    /// Returns whether a message is small enough. [MQTT-3.1.2-24]
    fn accepts(&self, message: &Message, now: Timestamp) -> bool {
        // The normal case must not compute the size.
        if self.maximum_packet_size == u32::MAX {
            return true;
        }
        let publication = message.publication();
        let qos = publication.qos.min(self.qos);
        let how = PublishAs {
            flags: PublishFlags { dup: false, qos, retain: false },
            // The largest identifier, because a smaller one takes the same two bytes.
            packet_id: (qos != QoS::AtMostOnce).then_some(PacketId(NonZeroU16::MAX)),
            // Without an alias, because a definition is left out where it does not fit.
            topic_alias: TopicAlias::None,
            subscription_identifiers: self.identifier.as_slice(),
            message_expiry_interval: publication.remaining_expiry_secs(now),
        };
        publish_size(self.version, &publication, &how) <= self.maximum_packet_size as usize
    }
}

impl Session {
    /// Returns how many messages of a subscription with this QoS the session could send at once.
    #[must_use]
    pub fn room_at_once(&self, qos: QoS) -> usize {
        // Nothing can be sent at once if something waits already.
        let Some(link) = self.link.as_ref().filter(|_| self.may_send_at_once(qos)) else {
            return 0;
        };
        match qos {
            QoS::AtMostOnce => usize::MAX,
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                usize::from(link.settings.send_quota.saturating_sub(link.unacknowledged))
            }
        }
    }

    /// Takes out waiting messages, from a part of the queue in memory.
    pub fn take_backlog(
        &mut self,
        scan: &mut BacklogScan,
        portion: &mut Portion,
        accepts: &Accepts,
        now: Timestamp,
    ) -> Vec<Orphan> {
        let queue = self.outgoing.queue_mut();
        // Messages have left at the front since the last search, and all others moved up.
        let left = queue.taken() - scan.taken;
        scan.taken = queue.taken();
        scan.passed = scan.passed.saturating_sub(usize::try_from(left).unwrap_or(usize::MAX));
        // `at` counts all examined messages, `passed` only those that stay.
        let (mut at, mut passed) = (scan.passed, scan.passed);
        let mut places = Vec::new();
        let taken = queue.take_part(&mut passed, |envelope| {
            if portion.is_used_up() {
                return None;
            }
            let mut is_taken = envelope.share == Some(scan.share);
            if is_taken && !accepts.accepts(&envelope.message, now) {
                // It stays for a member that accepts its size.
                scan.has_too_large = true;
                is_taken = false;
            }
            if is_taken {
                portion.take(&envelope.message);
                places.push(at);
            }
            at += 1;
            Some(is_taken)
        });
        scan.passed = passed;
        // Walks of retained messages have positions among the waiting ones.
        self.outgoing.have_left(|ahead| places.iter().filter(|place| **place < ahead).count());
        let keeping = &mut self.outgoing.queue_mut().keeping;
        // The store removes it in the group in which its new member has it.
        let orphans = taken.into_iter().map(|envelope| Orphan {
            stored_at: keeping
                .as_mut()
                .filter(|_| envelope.is_stored())
                .map(|keeping| keeping.take_out(envelope.place)),
            message: envelope.message,
            share: scan.share,
        });
        orphans.collect()
    }

    /// Returns whether messages in memory remain that the search has not examined.
    #[must_use]
    pub fn has_more_in_memory(&self, scan: &BacklogScan) -> bool {
        scan.passed < self.outgoing.queue().in_memory()
    }

    /// Returns where to go on reading the store, if messages wait there alone.
    #[must_use]
    pub fn backlog_unread(&self, scan: &BacklogScan) -> Option<(SessionNumber, QueuePlace)> {
        let keeping = self.outgoing.queue().keeping.as_ref()?;
        let from = keeping.beyond.next.max(scan.next);
        let has_more = keeping.beyond.messages > 0 && from <= keeping.last_place();
        has_more.then_some((keeping.number(), from))
    }

    /// Takes the messages that came through this Topic Filter out of a page read from the store.
    pub fn take_backlog_page(
        &mut self,
        scan: &mut BacklogScan,
        page: Vec<(QueuePlace, QueuedMessage)>,
        filter: &str,
        portion: &mut Portion,
        (accepts, now): (&Accepts, Timestamp),
    ) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        let queue = self.outgoing.queue_mut();
        // If memory is empty, the next page begins behind the taken message, and nothing must be remembered.
        let is_memory_empty = !queue.holds_stored();
        let in_memory = queue.in_memory();
        let Some(keeping) = &mut queue.keeping else { return orphans };
        for (place, queued) in page {
            if portion.is_used_up() {
                break;
            }
            // Set for each message, also if it stays, so that the next search does not read it again.
            scan.next = QueuePlace(place.0 + 1);
            if queued.share.as_deref() != Some(filter) || keeping.was_taken_out(place) {
                continue;
            }
            if !accepts.accepts(&queued.message, now) {
                scan.has_too_large = true;
                continue;
            }
            portion.take(&queued.message);
            let size = queued.message.size();
            let stored_at = Some(keeping.take_unread(place, size, is_memory_empty));
            let message = keeping.with_receipt(place, queued.message);
            orphans.push(Orphan { message, share: scan.share, stored_at });
        }
        // A message of a withdrawn subscription may have been the last of its kind.
        queue.settle_withdrawn();
        queue.note_stored();
        // The exact position of a walk among the messages of the store is not known. It may begin
        // a little early, but must not wait for messages that do not come.
        let left = orphans.len();
        self.outgoing.have_left(|ahead| ahead.saturating_sub(in_memory).min(left));
        orphans
    }

    /// Forgets messages taken out of order that the store does not have any more.
    pub fn forget_taken_out(&mut self, is_stored: impl Fn(Ticket) -> bool) {
        if let Some(keeping) = &mut self.outgoing.queue_mut().keeping {
            keeping.forget_taken_out(is_stored);
        }
    }

    /// Returns the bounds of messages that the client accepts through one of its subscriptions.
    #[must_use]
    pub fn accepts(&self, filter: &str) -> Option<Accepts> {
        let subscription = self.subscription(filter)?;
        let settings = self.link()?.settings;
        Some(Accepts {
            version: settings.version,
            maximum_packet_size: settings.maximum_packet_size,
            qos: subscription.options.qos,
            identifier: subscription.identifier,
        })
    }
}
