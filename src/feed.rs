//! The recent events of all clients, for followers of the feed.
//!
//! All followers read the same events; a follower is a position, and the broker keeps nothing for
//! it. The events are kept only while somebody follows: from the first question of a follower until
//! five minutes after the last one. The numbers of the kept events have the order in which they are
//! kept, because a number is given under the lock. Knows neither shards nor HTTP.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, futures::Notified};

use crate::{
    control::{EventId, FeedFilter, FeedKind},
    hooks::{ClientConnected, EventSequence, json::Event},
    mqtt::Timestamp,
};

/// The time for which events are kept after the last question of a follower. A follower that has
/// lost its connection returns sooner; a program that was restarted usually does too.
const KEPT_AFTER: Duration = Duration::from_secs(300);
/// Maximum number of kept events.
const EVENTS_MAX: usize = 100_000;
/// Maximum bytes of kept events, with their JSON. About 30,000 usual events that somebody has read.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Snapshots that read a part of a shard at the same time; others wait for their turn.
const PARTS_AT_A_TIME: usize = 2;
/// Events that one look at the feed takes out, so that no shard waits for the lock.
const EVENTS_AT_A_TIME: usize = 256;
/// Events that one event removes at most, so that no turn of a shard is long.
const REMOVED_AT_A_TIME: usize = 64;

/// The recent events.
pub(crate) struct Feed {
    epoch: u64,
    numbers: Box<dyn EventSequence>,
    /// Whether events are kept.
    is_kept: AtomicBool,
    /// When the last follower asked, in milliseconds.
    followed_at: AtomicU64,
    recent: Mutex<RecentEvents>,
    /// Told after each event.
    changed: Notify,
    bytes: Arc<AtomicUsize>,
    parts: Semaphore,
}

struct RecentEvents {
    /// In the order of their numbers, which may have gaps.
    entries: VecDeque<Arc<RecentEvent>>,
    /// The lowest number behind which a follower misses nothing; `u64::MAX` once nobody has followed
    /// for so long that the events are being removed.
    missing_up_to: u64,
    /// The highest number that was given while events were kept.
    last: u64,
}

/// Something that has a number.
pub(crate) enum Numbered {
    /// An event of a client.
    Event(Event),
    /// The place at which a snapshot begins: what follows is not known to those behind it.
    SnapshotBegins,
}

/// A recent event, with its JSON once somebody needs it.
pub(crate) struct RecentEvent {
    pub(crate) number: u64,
    pub(crate) what: Numbered,
    json: OnceLock<Bytes>,
    bytes: usize,
    /// All bytes of the feed, among them those of this event.
    bytes_in_all: Arc<AtomicUsize>,
}

/// The follower's position is not among the recent events.
#[derive(Debug)]
pub(crate) struct Missed;

impl Feed {
    /// Creates a feed whose events have these numbers.
    pub(crate) fn new(numbers: Box<dyn EventSequence>) -> Self {
        // Random, so that a follower of an earlier run is not taken for one of this run.
        let mut epoch = [0; 8];
        getrandom::fill(&mut epoch).expect("the operating system has random bytes");
        let recent = RecentEvents { entries: VecDeque::new(), missing_up_to: u64::MAX, last: 0 };
        Self {
            epoch: u64::from_ne_bytes(epoch),
            numbers,
            is_kept: AtomicBool::new(false),
            followed_at: AtomicU64::new(0),
            recent: Mutex::new(recent),
            changed: Notify::new(),
            bytes: Arc::default(),
            parts: Semaphore::new(PARTS_AT_A_TIME),
        }
    }

    /// Returns whether events are kept. Without followers, an event costs only this.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
    }

    /// Gives an event its number, and keeps it if somebody follows.
    ///
    /// A shard may learn late that events are kept. It misses no event that counts: the follower
    /// asks the shard for its part of the snapshot later, and the shard answers with the state after
    /// the event.
    pub(crate) fn announce(
        &self,
        make: impl FnOnce(&dyn EventSequence) -> Option<Event>,
        now: Timestamp,
    ) -> Option<Arc<RecentEvent>> {
        // Without a follower, the event needs no lock.
        if !self.is_kept() {
            return Some(self.recent_event(make(&*self.numbers)?));
        }
        let mut recent = self.recent();
        let event = self.recent_event(make(&*self.numbers)?);
        let asked = Timestamp(self.followed_at.load(Ordering::Relaxed));
        // The last follower has gone: from now on events are missing, and the kept ones leave in portions.
        if now.since(asked) > KEPT_AFTER {
            recent.missing_up_to = u64::MAX;
        }
        let removed = match recent.missing_up_to {
            u64::MAX => self.remove_some(&mut recent),
            _ => self.push(&mut recent, Arc::clone(&event)),
        };
        drop(recent);
        drop(removed); // frees memory, and no other shard waits for that
        // After the lock, because the woken followers need it.
        self.changed.notify_waiters();
        Some(event)
    }

    /// Removes some of the events that nobody has asked for.
    fn remove_some(&self, recent: &mut RecentEvents) -> Vec<Arc<RecentEvent>> {
        let count = recent.entries.len().min(REMOVED_AT_A_TIME);
        let removed = recent.entries.drain(..count).collect();
        if recent.entries.is_empty() {
            recent.entries = VecDeque::new();
            self.is_kept.store(false, Ordering::Relaxed);
        }
        removed
    }

    fn recent_event(&self, event: Event) -> Arc<RecentEvent> {
        let (number, bytes) = (event.number(), event.text_bytes());
        self.entry(number, bytes, Numbered::Event(event))
    }

    fn entry(&self, number: u64, text_bytes: usize, what: Numbered) -> Arc<RecentEvent> {
        let bytes = text_bytes + size_of::<RecentEvent>();
        let bytes_in_all = Arc::clone(&self.bytes);
        bytes_in_all.fetch_add(bytes, Ordering::Relaxed);
        Arc::new(RecentEvent { number, what, json: OnceLock::new(), bytes, bytes_in_all })
    }

    /// Keeps an event; returns those for which there is no more room.
    fn push(&self, recent: &mut RecentEvents, event: Arc<RecentEvent>) -> Vec<Arc<RecentEvent>> {
        recent.last = event.number;
        recent.entries.push_back(event);
        let mut evicted = Vec::new();
        let mut bytes = self.bytes.load(Ordering::Relaxed);
        // A bound for each event, so that a sudden large one does not hold the lock for long.
        while (recent.entries.len() > EVENTS_MAX || bytes > BYTES_MAX)
            && evicted.len() < REMOVED_AT_A_TIME
        {
            let Some(event) = recent.entries.pop_front() else { break };
            bytes = bytes.saturating_sub(event.bytes_now());
            // A follower behind this event has missed something, and is reset.
            recent.missing_up_to = recent.missing_up_to.max(event.number_behind());
            evicted.push(event);
        }
        evicted
    }

    /// Keeps events from now on, if they are not kept already.
    pub(crate) fn note_follower(&self, now: Timestamp) {
        self.followed_at.fetch_max(now.millis(), Ordering::Relaxed);
        if !self.is_kept() {
            self.keep(&mut self.recent(), now);
        }
    }

    fn keep(&self, recent: &mut RecentEvents, now: Timestamp) {
        self.followed_at.fetch_max(now.millis(), Ordering::Relaxed);
        if recent.missing_up_to == u64::MAX {
            // Nobody has this number, so nobody continues from a time when events were not kept.
            recent.missing_up_to = self.numbers.next();
            recent.last = recent.missing_up_to;
            self.is_kept.store(true, Ordering::Relaxed);
        }
    }

    /// Begins a snapshot; returns the identifier of its clients. Its end has the next number.
    pub(crate) fn begin_snapshot(&self, now: Timestamp) -> EventId {
        let mut recent = self.recent();
        self.keep(&mut recent, now);
        let number = self.numbers.next();
        let begin = self.entry(number, 0, Numbered::SnapshotBegins);
        let evicted = self.push(&mut recent, begin);
        recent.last = self.numbers.next();
        drop(recent);
        drop(evicted);
        self.id(number)
    }

    /// Returns whether a snapshot that began here can be continued: no change since is lost.
    pub(crate) fn has_since(&self, begin: EventId) -> bool {
        let recent = self.recent();
        let end = begin.number.saturating_add(1);
        begin.epoch == self.epoch && (recent.missing_up_to..=recent.last).contains(&end)
    }

    /// Returns some of the events after this one, the oldest first.
    ///
    /// # Errors
    /// The event is unknown, or so old that later ones are lost, or was inside a snapshot.
    pub(crate) fn after(&self, id: EventId) -> Result<Vec<Arc<RecentEvent>>, Missed> {
        let recent = self.recent();
        // Of another run, or too old, or of the future.
        if id.epoch != self.epoch || !(recent.missing_up_to..=recent.last).contains(&id.number) {
            return Err(Missed);
        }
        let from = recent.entries.partition_point(|event| event.number <= id.number);
        let last = from.checked_sub(1).and_then(|at| recent.entries.get(at));
        // A follower inside a snapshot does not know which clients it has not seen, so it begins again.
        if last.is_some_and(|last| {
            last.number == id.number && matches!(last.what, Numbered::SnapshotBegins)
        }) {
            return Err(Missed);
        }
        Ok(recent.entries.range(from..).take(EVENTS_AT_A_TIME).cloned().collect())
    }

    /// Returns a future that ends after the next event that is kept.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Waits for the turn to read a part of a snapshot.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.parts.acquire().await.ok()
    }

    /// Returns the identifier of this number.
    pub(crate) const fn id(&self, number: u64) -> EventId {
        EventId { epoch: self.epoch, number }
    }

    fn recent(&self) -> MutexGuard<'_, RecentEvents> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecentEvent {
    /// Returns the event, unless it is only a place.
    pub(crate) const fn event(&self) -> Option<&Event> {
        match &self.what {
            Numbered::Event(event) => Some(event),
            Numbered::SnapshotBegins => None,
        }
    }

    /// Returns the number with which a follower continues behind this one: for the beginning of a
    /// snapshot of another follower that of its end, because nobody continues inside a snapshot.
    pub(crate) const fn number_behind(&self) -> u64 {
        match &self.what {
            Numbered::Event(_) => self.number,
            Numbered::SnapshotBegins => self.number + 1,
        }
    }

    /// Returns the event as JSON, which is made once.
    pub(crate) fn json(&self) -> Bytes {
        let make = || {
            let json = self.event().map(Event::to_json).unwrap_or_default();
            self.bytes_in_all.fetch_add(json.len(), Ordering::Relaxed);
            Bytes::from(json)
        };
        self.json.get_or_init(make).clone()
    }

    fn bytes_now(&self) -> usize {
        self.bytes + self.json.get().map_or(0, Bytes::len)
    }
}

impl Drop for RecentEvent {
    fn drop(&mut self) {
        self.bytes_in_all.fetch_sub(self.bytes_now(), Ordering::Relaxed);
    }
}

/// Returns the kind that an event has in the feed.
pub(crate) const fn kind_of(event: &Event) -> FeedKind {
    match event {
        Event::Connected(_) => FeedKind::ClientConnected,
        Event::Disconnected(_) => FeedKind::ClientDisconnected,
        Event::KeepAliveChanged(_) => FeedKind::ClientKeepAliveChanged,
        Event::Subscribed(_) => FeedKind::SessionSubscribed,
        Event::Unsubscribed(_) => FeedKind::SessionUnsubscribed,
        Event::Refused(_) => FeedKind::ClientRefused,
        Event::Banned(_) => FeedKind::ClientBanned,
        Event::Started(_) => FeedKind::BrokerStarted,
    }
}

/// Returns whether a filter selects an event.
pub(crate) fn selects(filter: &FeedFilter, event: &Event) -> bool {
    let (client_id, username) = event.client();
    filter.selects_kind(kind_of(event)) && filter.selects_client(client_id, username)
}

/// A part of a snapshot: clients of one shard that are online.
#[derive(Debug)]
pub(crate) struct OnlinePart {
    pub(crate) clients: Vec<ClientConnected>,
    /// The slot at which to continue; `None` at the end.
    pub(crate) next: Option<u32>,
}
