//! The request that follows the presence of clients, and its answer: a snapshot of the clients that
//! are online, then every change.
//!
//! A request is answered with the next part and the position behind it, so that nothing is kept for
//! a follower between two requests. All of it is plain data, which can come from another process.
//! Knows neither shards nor HTTP.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Caller, ClientPattern};
use crate::labels::labels;

labels! {
    /// The kind of an item of the feed.
    pub enum FeedKind {
        /// A client that is online, as part of a snapshot.
        Snapshot = "snapshot",
        /// The snapshot is complete; changes follow.
        SnapshotEnd = "snapshot_end",
        /// Changes were missed; a snapshot follows.
        Reset = "reset",
        /// A client has connected.
        ClientConnected = "client_connected",
        /// A connection of a client has ended.
        ClientDisconnected = "client_disconnected",
        /// The Keep Alive of a live connection was changed.
        ClientKeepAliveChanged = "client_keepalive_changed",
        /// A Topic Filter was subscribed to.
        SessionSubscribed = "session_subscribed",
        /// A Topic Filter was unsubscribed from.
        SessionUnsubscribed = "session_unsubscribed",
        /// A connection was refused.
        ClientRefused = "client_refused",
        /// A client, user or network was banned.
        ClientBanned = "client_banned",
        /// The broker has started.
        BrokerStarted = "broker_started",
    }
}

impl FeedKind {
    /// The kinds that a filter may select.
    pub const CHANGES: [Self; 8] = [
        Self::ClientConnected,
        Self::ClientDisconnected,
        Self::ClientKeepAliveChanged,
        Self::SessionSubscribed,
        Self::SessionUnsubscribed,
        Self::ClientRefused,
        Self::ClientBanned,
        Self::BrokerStarted,
    ];
}

/// The place of an event among all events of one run of a broker. Its text is `<epoch>.<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    /// Drawn at random at each start of the broker.
    pub epoch: u64,
    /// The number of the event since that start.
    pub number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.epoch, self.number)
    }
}

/// Where a follower continues. [`FeedPosition::Start`] begins with a snapshot; the others come from
/// an earlier [`FeedPart`], or from the text of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedPosition {
    /// Before a snapshot.
    #[default]
    Start,
    /// Behind this item.
    After(EventId),
    /// Inside a snapshot.
    Inside {
        /// The identifier of the snapshot's items.
        id: EventId,
        /// The number of the shard that is read next.
        shard: u16,
        /// The slot of the shard that is read next.
        slot: u32,
    },
}

impl fmt::Display for FeedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => Ok(()),
            Self::After(id) => write!(f, "{id}"),
            Self::Inside { id, shard, slot } => write!(f, "{id}.{shard}.{slot}"),
        }
    }
}

/// A text is not a position of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a position is an epoch of 16 hexadecimal digits, a dot and a number")]
pub struct FeedPositionError;

impl FromStr for FeedPosition {
    type Err = FeedPositionError;

    fn from_str(text: &str) -> Result<Self, FeedPositionError> {
        let parse = || {
            let mut parts = text.split('.');
            // Exactly the form that the feed gives out, so that one position has one text.
            let epoch = parts.next().filter(|epoch| epoch.len() == 16)?;
            let epoch = u64::from_str_radix(epoch, 16).ok()?;
            let id = EventId { epoch, number: digits(parts.next()?)? };
            let position = match (parts.next(), parts.next()) {
                (None, _) => Self::After(id),
                (Some(shard), Some(slot)) => {
                    Self::Inside { id, shard: digits(shard)?, slot: digits(slot)? }
                }
                (Some(_), None) => return None,
            };
            // Text behind a position is refused rather than ignored.
            parts.next().is_none().then_some(position)
        };
        parse().ok_or(FeedPositionError)
    }
}

/// Parses a number without a sign.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Selects items of a feed. The default selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedFilter {
    /// Only clients whose identifier matches.
    pub clients: Option<ClientPattern>,
    /// Only clients of this user.
    pub username: Option<Arc<str>>,
    /// Only changes of these kinds. Without `ClientConnected` among them, a snapshot has no clients.
    pub kinds: Option<Vec<FeedKind>>,
}

impl FeedFilter {
    /// Returns the filter that selects only clients whose identifier matches.
    #[must_use]
    pub fn clients(mut self, pattern: ClientPattern) -> Self {
        self.clients = Some(pattern);
        self
    }

    /// Returns the filter that selects only clients of this user.
    #[must_use]
    pub fn username(mut self, username: impl Into<Arc<str>>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// Returns the filter that selects only changes of these kinds.
    #[must_use]
    pub fn kinds(mut self, kinds: impl Into<Vec<FeedKind>>) -> Self {
        self.kinds = Some(kinds.into());
        self
    }

    /// Returns whether the filter selects changes of this kind.
    #[must_use]
    pub fn selects_kind(&self, kind: FeedKind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    /// Returns whether the filter selects a client of this user.
    #[must_use]
    pub fn selects_client(&self, client_id: &str, username: Option<&str>) -> bool {
        self.username.as_deref().is_none_or(|wanted| Some(wanted) == username)
            && self.clients.as_ref().is_none_or(|pattern| pattern.matches(client_id))
    }
}

/// Asks for the next part of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Follow {
    /// Where to continue.
    pub from: FeedPosition,
    /// Which items the follower wants.
    pub filter: FeedFilter,
    /// Restricts the items to clients that this caller may observe; `None` means no restriction.
    pub caller: Option<Caller>,
    /// How long to wait for a change if there is none.
    pub wait: Duration,
    /// Maximum number of items of the answer. A `Reset` and a `SnapshotEnd` may come in addition.
    pub items_max: usize,
}

/// Items of an answer if the follower does not say how many.
const ITEMS_USUALLY_MAX: usize = 1_000;

impl Follow {
    /// Returns the request to continue at a position with all items, without waiting.
    #[must_use]
    pub fn new(from: FeedPosition) -> Self {
        let filter = FeedFilter::default();
        Self { from, filter, caller: None, wait: Duration::ZERO, items_max: ITEMS_USUALLY_MAX }
    }

    /// Returns the request restricted to items that a filter selects.
    #[must_use]
    pub fn matching(mut self, filter: FeedFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Returns the request restricted to clients that this caller may observe.
    #[must_use]
    pub fn by(mut self, caller: Caller) -> Self {
        self.caller = Some(caller);
        self
    }

    /// Returns the request that waits for a change if there is none.
    #[must_use]
    pub const fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Returns the request for at most this many items.
    #[must_use]
    pub const fn at_most(mut self, items: usize) -> Self {
        self.items_max = items;
        self
    }
}

/// A part of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedPart {
    /// The items, in their order. They may be none.
    pub items: Vec<FeedItem>,
    /// Where the next request continues.
    pub next: FeedPosition,
}

impl FeedPart {
    /// Returns a part with these items.
    #[must_use]
    pub const fn new(items: Vec<FeedItem>, next: FeedPosition) -> Self {
        Self { items, next }
    }
}

/// An item of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedItem {
    /// Its place. A follower that continues behind an item of a snapshot that is not its end is
    /// reset, because it does not know which clients it has not seen.
    pub id: EventId,
    /// The kind of the item.
    pub kind: FeedKind,
    /// Its content, a JSON object on one line.
    pub json: Bytes,
}

impl FeedItem {
    /// Returns an item.
    #[must_use]
    pub const fn new(id: EventId, kind: FeedKind, json: Bytes) -> Self {
        Self { id, kind, json }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_from_its_text() {
        let id = EventId { epoch: 0xab, number: 17 };
        for position in [FeedPosition::After(id), FeedPosition::Inside { id, shard: 2, slot: 300 }]
        {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        assert_eq!(FeedPosition::After(id).to_string(), "00000000000000ab.17");
        for text in [
            "",
            "1",
            "ab.17",
            "00000000000000ab",
            "00000000000000ab.",
            "00000000000000ab.+1",
            "+0000000000000ab.1x",
            "00000000000000ag.1",
            "00000000000000ab.1.2",
            "00000000000000ab.1.2.3.4",
            "00000000000000ab.1.65536.0",
            "00000000000000ab.18446744073709551616",
        ] {
            assert_eq!(text.parse::<FeedPosition>(), Err(FeedPositionError), "{text}");
        }
    }
}
