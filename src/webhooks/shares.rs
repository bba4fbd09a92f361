//! How many events of subscriptions one client may cause, so that a client that subscribes and
//! unsubscribes without end does not push out the events of all others.
//!
//! Knows neither the backlog nor the feed.

use std::{borrow::Cow, collections::HashMap};

use serde::Deserialize;

use crate::{
    control::{FeedItem, FeedKind},
    mqtt::Timestamp,
};

/// The amount that a client may cause at once, in events of up to 512 bytes; a longer event counts several times.
const BURST: u64 = 1_000;
/// Milliseconds after which it may cause one more.
const MILLIS_PER_EVENT: u64 = 100;
const EVENT_BYTES: usize = 512;
/// Maximum number of clients that are told apart; further ones have one share together.
const CLIENTS_MAX: usize = 10_000;

/// The amount that each client has caused of late.
#[derive(Default)]
pub(super) struct SubscriptionShares {
    /// For each client, the time at which it has its whole share again.
    whole_at: HashMap<Box<str>, u64>,
}

/// The part of an event that is looked at.
#[derive(Deserialize)]
struct AboutClient<'a> {
    #[serde(borrow)]
    clientid: Cow<'a, str>,
}

/// Returns whether an event is about a subscription.
pub(super) const fn is_of_subscription(item: &FeedItem) -> bool {
    matches!(item.kind, FeedKind::SessionSubscribed | FeedKind::SessionUnsubscribed)
}

impl SubscriptionShares {
    /// Returns whether there is room for an event in the share of its client, and counts it. Events of
    /// other kinds always have room.
    pub(super) fn take(&mut self, item: &FeedItem, now: Timestamp) -> bool {
        if !is_of_subscription(item) {
            return true;
        }
        let now = now.millis();
        let found = serde_json::from_slice::<AboutClient<'_>>(&item.json);
        let client_id = found.map(|found| found.clientid).unwrap_or_default();
        // Clients whose share is whole again need no entry.
        if self.whole_at.len() >= CLIENTS_MAX {
            self.whole_at.retain(|_, at| *at > now);
        }
        let has_place =
            self.whole_at.len() < CLIENTS_MAX || self.whole_at.contains_key(&*client_id);
        // While the table is full, further clients have one share together.
        let key = if has_place { &*client_id } else { "" };
        // A large event counts as several.
        let events = 1 + (item.json.len() / EVENT_BYTES) as u64;
        // A time in the past would give more than the whole share.
        let whole_at = self.whole_at.get(key).copied().unwrap_or(now).max(now);
        let after = whole_at + events * MILLIS_PER_EVENT;
        let has_room = after <= now + BURST * MILLIS_PER_EVENT;
        if has_room {
            self.whole_at.insert(key.into(), after);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::EventId;

    fn item(kind: FeedKind, client_id: &str, bytes: usize) -> FeedItem {
        let topic = "t".repeat(bytes);
        let json = serde_json::json!({"clientid": client_id, "topic": topic}).to_string();
        FeedItem::new(EventId { epoch: 1, number: 1 }, kind, json.into())
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp(1_000_000 + millis)
    }

    #[test]
    fn a_client_has_a_burst_and_then_ten_events_a_second() {
        let mut shares = SubscriptionShares::default();
        let event = item(FeedKind::SessionSubscribed, "a", 1);
        let mut taken = |millis| (0..5_000).filter(|_| shares.take(&event, at(millis))).count();
        assert_eq!((taken(0), taken(50), taken(1_000)), (1_000, 0, 10));
        // Others have their own, and presence has no bound.
        assert!(shares.take(&item(FeedKind::SessionUnsubscribed, "b", 1), at(1_000)));
        assert!(shares.take(&item(FeedKind::ClientConnected, "a", 1), at(1_000)));
        // A long filter takes more.
        let long = item(FeedKind::SessionSubscribed, "c", 5_000);
        let taken = (0..5_000).filter(|_| shares.take(&long, at(1_000))).count();
        assert_eq!(taken, 100);
    }

    #[test]
    fn the_number_of_clients_is_bounded() {
        let mut shares = SubscriptionShares::default();
        for number in 0..3 * CLIENTS_MAX {
            let event = item(FeedKind::SessionSubscribed, &number.to_string(), 1);
            shares.take(&event, at(0));
        }
        assert!(shares.whole_at.len() <= CLIENTS_MAX + 1);
        shares.take(&item(FeedKind::SessionSubscribed, "late", 1), at(200_000));
        assert_eq!(shares.whole_at.len(), 1);
    }
}
