//! What callers see of the world: the history of each client, the feed of presence, and the silences
//! that the advice on Keep Alive rests on.
//!
//! It is compared with what the hooks have told, which the model has checked before.

use std::collections::VecDeque;

use hearthmq::{
    control::{FeedItem, FeedKind, FeedPosition, Follow, ListKeepAliveAdvice, PastConnection},
    hooks::DisconnectReason,
};
use serde_json::Value;

use crate::{
    model::{Told, Verdict},
    vocabulary::{NAMES, USERS},
    world::{MARGIN_MILLIS, World},
};

/// Number of followers of the feed.
pub(crate) const FOLLOWERS: usize = 2;
/// The length of a history, which is that of the broker's defaults.
const HISTORY_LEN: usize = 20;
/// Maximum number of connections in the histories of one user: fewer than its two clients could have,
/// and more than one client.
pub(crate) const HISTORY_SHARE: u64 = 25;
/// Noted connections that are compared: with those of which the history may have nothing.
const NOTED_MAX: usize = 3 * HISTORY_LEN;
/// A connection is in the store at most this long after its CONNACK, and its end after that. The broker
/// promises 2 s; a note that waits behind another one takes a sweep longer.
const NOTED_WITHIN_MILLIS: u64 = 2_300;
/// The time for which the broker keeps events after the last question of a follower.
const KEPT_MILLIS: u64 = 300_000;
/// Parts after which a follower must have come to the end.
const PARTS_MAX: usize = 2_000;

/// A connection, as the hooks have told.
#[derive(Clone, Copy, Debug)]
struct Noted {
    version: u64,
    end: Option<&'static str>,
    changed_at: u64,
    /// It may be missing, or end in another way, because the broker was cut off soon after.
    is_uncertain: bool,
}

/// Somebody that follows the presence of clients.
#[derive(Clone, Debug, Default)]
struct Follower {
    position: FeedPosition,
    /// What it knows of each client: the version, and whether the client is online.
    rows: [(u64, bool); NAMES.len()],
    /// The changes since it knew everything; `None` after a snapshot.
    received: Option<Vec<(usize, u64, bool)>>,
    /// How many changes the hooks had told then.
    known: usize,
    /// Whether the broker that it followed has ended.
    has_lost_broker: bool,
    /// Whether nobody has followed for so long that the broker need not know its place.
    may_be_forgotten: bool,
}

/// What was told, and who follows.
#[derive(Default)]
pub(crate) struct Watch {
    noted: [VecDeque<Noted>; NAMES.len()],
    followers: [Follower; FOLLOWERS],
    /// The changes since this broker began: the client, the version, and whether it is online.
    changes: Vec<(usize, u64, bool)>,
    /// Connections to this broker that have ended.
    ended: u64,
    /// When somebody has last followed.
    followed_at: Option<u64>,
    /// Whether a sweep may be about to write the histories of some of them.
    is_unswept: bool,
}

impl Watch {
    /// Notes what the hooks have told.
    pub(crate) fn note(&mut self, told: &[(usize, u64, Told)], now: u64) {
        self.is_unswept |= !told.is_empty();
        for &(client, version, what) in told {
            let noted = &mut self.noted[client];
            let is_online = what == Told::Connected;
            self.changes.push((client, version, is_online));
            self.ended += u64::from(!is_online);
            let end = match what {
                Told::Disconnected(reason) => Some(reason.name()),
                Told::Connected | Told::DisconnectedInTime => None,
            };
            match noted.back_mut().filter(|last| last.version == version) {
                Some(last) => (last.end, last.changed_at) = (end, now),
                None => {
                    noted.push_back(Noted { version, end, changed_at: now, is_uncertain: false });
                }
            }
            if noted.len() > NOTED_MAX {
                noted.pop_front();
            }
        }
    }

    /// Returns whether connections have begun or ended since the last question.
    pub(crate) const fn take_unswept(&mut self) -> bool {
        std::mem::replace(&mut self.is_unswept, false)
    }

    /// Notes that the broker was cut off. What has happened since this time may be lost.
    pub(crate) fn crashed(&mut self, lost_since: u64) {
        let lost_since = lost_since.saturating_sub(NOTED_WITHIN_MILLIS);
        for noted in self.noted.iter_mut().flatten() {
            noted.is_uncertain |= noted.changed_at >= lost_since;
            noted.end.get_or_insert(DisconnectReason::BrokerEnded.name());
        }
        for follower in &mut self.followers {
            follower.has_lost_broker = follower.position != FeedPosition::Start;
            follower.received = None;
        }
        self.changes.clear();
        self.ended = 0;
        self.followed_at = None;
    }
}

impl World {
    /// Compares the history of a client, and what the advice on Keep Alive rests on.
    pub(crate) async fn look_back(&mut self, client: usize) -> Verdict {
        if self.disk.is_failing() {
            self.count("skipped");
            return Ok(());
        }
        self.count("history compared");
        let found = self.broker.list_history(NAMES[client], NOTED_MAX).await;
        let found = found.map_err(|error| error.to_string())?.unwrap_or_default();
        let mut noted = self.watch.noted[client].iter().rev();
        for one in &found {
            let same = loop {
                match noted.next() {
                    Some(noted) if noted.version == one.version => break noted,
                    Some(noted) if noted.is_uncertain => {}
                    other => return Err(format!("{one:?} is in the history, not {other:?}")),
                }
            };
            if !is_as_noted(one, same) {
                return Err(format!("{one:?} is in the history of {}: {same:?}", NAMES[client]));
            }
        }
        let missing = noted.find(|noted| !noted.is_uncertain);
        // A user loses histories for its own connections alone.
        let of_user = (0..NAMES.len()).filter(|other| USERS[*other] == USERS[client]);
        let of_user = of_user.map(|other| self.watch.noted[other].len().min(HISTORY_LEN + 1));
        let is_complete =
            found.len() < HISTORY_LEN && of_user.sum::<usize>() as u64 <= HISTORY_SHARE;
        match missing.filter(|_| is_complete) {
            Some(missing) => Err(format!("no history of {}: {missing:?}", NAMES[client])),
            None => self.look_at_advice().await,
        }
    }

    /// Compares the number of connections that have ended: all are of one network.
    async fn look_at_advice(&mut self) -> Verdict {
        let page = self.broker.list_keep_alive_advice(ListKeepAliveAdvice::new(10)).await;
        let page = page.map_err(|error| error.to_string())?;
        let found: u64 = page.items.iter().map(|item| item.connections).sum();
        if found != self.watch.ended || page.items.len() > 1 {
            return Err(format!("{} connections have ended, not {page:?}", self.watch.ended));
        }
        let up_secs = (self.model.now - self.power_since).div_ceil(1_000);
        let longest = page.items.iter().map(|item| u64::from(item.survived.max_secs)).max();
        match longest.filter(|longest| *longest > up_secs) {
            Some(longest) => Err(format!("a silence of {longest} s within {up_secs} s")),
            None => Ok(()),
        }
    }

    /// Lets a follower read parts of at most this many items: one, or all that there are.
    pub(crate) async fn follow(&mut self, follower: usize, items: usize, to_end: bool) -> Verdict {
        self.count("part of the feed");
        let is_forgotten = self
            .watch
            .followed_at
            .is_none_or(|at| self.model.now - at + MARGIN_MILLIS >= KEPT_MILLIS);
        for follower in self.watch.followers.iter_mut().filter(|_| is_forgotten) {
            follower.may_be_forgotten = true;
        }
        for _ in 0..PARTS_MAX {
            let own = &self.watch.followers[follower];
            let may_be_reset = own.has_lost_broker || own.may_be_forgotten;
            let request = Follow::new(own.position).at_most(items);
            let part = self.broker.follow(request).await.map_err(|error| error.to_string())?;
            let is_reset = part.items.iter().any(|item| item.kind == FeedKind::Reset);
            if is_reset && !may_be_reset {
                return Err(format!("a follower is reset without a reason: {own:?}"));
            }
            if is_reset {
                self.count("follower is reset");
            }
            self.watch.followed_at = Some(self.model.now);
            let own = &mut self.watch.followers[follower];
            if own.has_lost_broker && !is_reset {
                return Err(format!("a follower goes on with another broker: {own:?}"));
            }
            (own.has_lost_broker, own.may_be_forgotten) = (false, false);
            own.position = part.next;
            let is_end = part.items.is_empty() && matches!(part.next, FeedPosition::After(_));
            part.items.iter().try_for_each(|item| own.apply(item))?;
            self.tick();
            if is_end {
                return self.knows_all(follower);
            }
            if !to_end {
                return Ok(());
            }
        }
        Err("a follower does not come to the end".to_owned())
    }

    /// Compares what a follower knows with what the hooks have told.
    fn knows_all(&mut self, follower: usize) -> Verdict {
        self.count("follower knows everything");
        let own = &self.watch.followers[follower];
        for (client, name) in NAMES.iter().enumerate() {
            let last = self.watch.changes.iter().rev().find(|change| change.0 == client);
            let expected = last.is_some_and(|change| change.2);
            if own.rows[client].1 != expected {
                return Err(format!("a follower has {:?} for {name}", own.rows[client]));
            }
            let Some(received) = &own.received else { continue };
            let of_client = |all: &[(usize, u64, bool)]| {
                all.iter().filter(|change| change.0 == client).copied().collect::<Vec<_>>()
            };
            let told = of_client(&self.watch.changes[own.known..]);
            if of_client(received) != told {
                return Err(format!("a follower got {received:?} of {name}, not {told:?}"));
            }
        }
        let known = self.watch.changes.len();
        let own = &mut self.watch.followers[follower];
        (own.received, own.known) = (Some(Vec::new()), known);
        Ok(())
    }
}

fn is_as_noted(found: &PastConnection, noted: &Noted) -> bool {
    let end = found.end.as_ref().map(|end| end.reason.name());
    let cut_off = DisconnectReason::BrokerEnded.name();
    let is_same = end == noted.end;
    let is_online = noted.end.is_none();
    found.online == is_online && (is_same || (noted.is_uncertain && end == Some(cut_off)))
}

impl Follower {
    /// Applies an item by the rules for followers.
    fn apply(&mut self, item: &FeedItem) -> Verdict {
        let data: Value = serde_json::from_slice(&item.json).map_err(|error| error.to_string())?;
        let client = NAMES.iter().position(|name| data["clientid"] == *name);
        let version = data["version"].as_u64().unwrap_or(0);
        match (item.kind, client) {
            (FeedKind::Reset, _) => {
                self.rows = [(version, false); NAMES.len()];
                self.received = None;
            }
            (FeedKind::Snapshot | FeedKind::SnapshotEnd, None) => self.received = None,
            (FeedKind::Snapshot | FeedKind::ClientConnected, Some(client)) => {
                if version > self.rows[client].0 {
                    self.rows[client] = (version, true);
                }
                if let (FeedKind::ClientConnected, Some(all)) = (item.kind, &mut self.received) {
                    all.push((client, version, true));
                }
            }
            (FeedKind::ClientDisconnected, Some(client)) => {
                if version >= self.rows[client].0 {
                    self.rows[client] = (version, false);
                }
                if let Some(all) = &mut self.received {
                    all.push((client, version, false));
                }
            }
            _ => {} // subscriptions, and the Keep Alive
        }
        Ok(())
    }
}
