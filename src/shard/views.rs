//! Answers questions about the clients of this shard: lists, and numbers of clients.
//!
//! A question is answered in portions, and other tasks of the thread run in between. An answer shows each client in its
//! state at the time when its portion is examined.

pub(in crate::shard) mod busiest;
pub(crate) mod contents;
pub(in crate::shard) mod receivers;

use std::{ops::Bound, sync::Arc};

use crate::{
    control::{
        Caller, ClientFilter, ClientPage, ClientSession, ClientSummary, CountClients, LastEnd,
        ListClients,
    },
    mqtt::Timestamp,
    shard::{Shard, SharedShard, Slot},
    store::PageBounds,
};

/// Clients that are examined in one portion.
const CLIENTS_AT_A_TIME: usize = 64;
/// Bytes of Client Identifiers that are examined in one portion; the last one may exceed it.
const CLIENT_ID_BYTES_AT_A_TIME: usize = 64 * 1024;
/// Clients that are examined for one answer, so that it does not take longer than its caller waits.
const CLIENTS_PER_ANSWER: usize = 64 * 1024;
/// Bytes of texts in one answer; the last client may exceed it.
const BYTES_PER_ANSWER: usize = 1024 * 1024;

/// The first message of a queue.
const FIRST: PageBounds = PageBounds { messages_max: 1, bytes_max: 0 };

/// A question that a shard answers in portions, as long as its caller waits.
pub(crate) trait AnsweredInPortions {
    type Answer;

    /// Returns the answer; what was found so far if `is_wanted` no longer holds.
    async fn answer(self, shard: &SharedShard, is_wanted: impl Fn() -> bool) -> Self::Answer;
}

impl AnsweredInPortions for ListClients {
    type Answer = ClientPage;

    async fn answer(self, shard: &SharedShard, is_wanted: impl Fn() -> bool) -> ClientPage {
        ClientSearch::of_page(self).page(shard, is_wanted).await
    }
}

impl AnsweredInPortions for CountClients {
    type Answer = u64;

    async fn answer(self, shard: &SharedShard, is_wanted: impl Fn() -> bool) -> u64 {
        let Self { filter, caller } = self;
        ClientSearch::of_all(filter, caller).count(shard, is_wanted).await
    }
}

/// A search for clients, and its progress.
struct ClientSearch {
    filter: ClientFilter,
    caller: Option<Caller>,
    /// The last identifier that was examined.
    after: Option<Arc<str>>,
    /// Maximum number of clients to describe; `None` only counts.
    limit: Option<usize>,
    examined_max: usize,
    found: Vec<ClientSummary>,
    bytes: usize,
    examined: usize,
    count: u64,
}

impl ClientSearch {
    /// Begins the search for a page.
    fn of_page(request: ListClients) -> Self {
        let ListClients { filter, after, limit, caller } = request;
        Self { after, limit: Some(limit), ..Self::of_all(filter, caller) }
    }

    /// Begins a count.
    const fn of_all(filter: ClientFilter, caller: Option<Caller>) -> Self {
        Self {
            filter,
            caller,
            after: None,
            limit: None,
            examined_max: CLIENTS_PER_ANSWER,
            found: Vec::new(),
            bytes: 0,
            examined: 0,
            count: 0,
        }
    }

    /// Searches to the end of a page, as long as its caller waits.
    async fn page(mut self, shard: &SharedShard, is_wanted: impl Fn() -> bool) -> ClientPage {
        let is_over = self.run(shard, is_wanted).await;
        let next = self.after.filter(|_| !is_over);
        ClientPage::new(self.found, next)
    }

    /// Counts, as long as its caller waits.
    async fn count(mut self, shard: &SharedShard, is_wanted: impl Fn() -> bool) -> u64 {
        self.examined_max = usize::MAX;
        self.run(shard, is_wanted).await;
        self.count
    }

    /// Returns whether all clients were examined.
    async fn run(&mut self, shard: &SharedShard, is_wanted: impl Fn() -> bool) -> bool {
        while is_wanted() {
            if shard.borrow().search_some(self) {
                return true;
            }
            if self.has_enough() {
                break;
            }
            tokio::task::yield_now().await;
        }
        false
    }

    fn has_enough(&self) -> bool {
        self.limit.is_some_and(|limit| self.found.len() >= limit)
            || self.bytes >= BYTES_PER_ANSWER
            || self.examined >= self.examined_max
    }

    /// Returns the bound from which the search goes on: behind the last identifier, and not before
    /// the first one that can match.
    fn from(&self) -> Bound<&str> {
        let first = self.filter.client_id.as_ref().map_or("", |pattern| pattern.prefix());
        match self.after.as_deref() {
            Some(after) if after >= first => Bound::Excluded(after),
            _ => Bound::Included(first),
        }
    }

    /// Notes that a client was examined.
    fn note(&mut self, client_id: &Arc<str>, found: Option<ClientSummary>) {
        self.examined += 1;
        self.after = Some(client_id.clone());
        if let Some(found) = found {
            let username = found.username.as_ref().map_or(0, |name| name.len());
            self.bytes += client_id.len() + username + found.listener.len();
            self.found.push(found);
        }
    }
}

impl Shard {
    /// Examines a portion of the clients; returns whether it was the last one.
    fn search_some(&self, search: &mut ClientSearch) -> bool {
        let now = self.core.clock.now();
        // The identifiers are sorted, so a pattern with a fixed beginning searches only that range.
        let prefix = search.filter.client_id.as_ref().map_or("", |pattern| pattern.prefix());
        let (prefix, wanted) = (prefix.to_owned(), search.filter.client_ids.clone());
        let from = search.from();
        let ids: Box<dyn Iterator<Item = &Arc<str>>> = match &wanted {
            // Only clients behind the last one of the former portion.
            None => Box::new(self.clients.from(from)),
            Some(wanted) => {
                let first = wanted.partition_point(|id| match from {
                    Bound::Excluded(after) => **id <= *after,
                    Bound::Included(first) => **id < *first,
                    Bound::Unbounded => false,
                });
                Box::new(wanted[first..].iter())
            }
        };
        let (mut examined, mut bytes) = (0, 0);
        for client_id in ids {
            // All that begin with the prefix have been examined.
            if !client_id.starts_with(&*prefix) {
                return true;
            }
            // A portion is bounded in bytes too: an identifier may have 64 KiB.
            if examined >= CLIENTS_AT_A_TIME || bytes >= CLIENT_ID_BYTES_AT_A_TIME {
                return false;
            }
            if search.has_enough() {
                return false;
            }
            examined += 1;
            bytes += client_id.len();
            // An identifier that the caller named may be unknown here.
            let found = self.known(client_id).and_then(|slot| self.slot(slot));
            let found = found.filter(|found| self.is_selected(found, search, now));
            search.count += u64::from(found.is_some());
            // A count alone makes no description.
            let is_described = search.limit.is_some();
            let found = found.filter(|_| is_described).map(|found| self.summary(found));
            // Noted even if it is not selected, because the next portion continues behind it.
            search.note(client_id, found);
        }
        true
    }

    /// Returns whether a client satisfies each condition, and the caller may see it. The permission
    /// comes last, because it takes longest.
    fn is_selected(&self, found: &Slot, search: &ClientSearch, now: Timestamp) -> bool {
        let client_id = found.session.client_id();
        let rules = &*self.core.authorizer;
        is_meant(found, &search.filter, now)
            && search.caller.as_ref().is_none_or(|caller| caller.may_observe(rules, client_id))
    }

    /// Describes a client, except for facts that only its connection knows.
    pub(crate) fn describe(&self, client_id: &str) -> Option<ClientSession> {
        let slot = self.known(client_id)?;
        let found = self.slot(slot)?;
        let Slot { session, presence, .. } = found;
        // Before CONNACK is released, a client is not online for anybody.
        let link = session.link().filter(|_| found.is_online());
        let keep_alive = link.map(|link| link.keep_alive());
        let change = link.and_then(|link| link.keep_alive_change());
        let deadline = keep_alive.map(|keep_alive| keep_alive.deadline());
        // With Keep Alive off there is no deadline, although the field has a value.
        let deadline = deadline.filter(|deadline| *deadline != Timestamp::NEVER);
        let user = presence.identity.username.as_ref();
        let sticky = self.core.sticky.layers(session.client_id(), user);
        Some(ClientSession {
            online: link.is_some(),
            username: presence.identity.username.clone(),
            listener: presence.listener.clone(),
            node: self.core.node.clone(),
            protocol: link.map(|link| link.version()),
            connected_at_millis: presence.connected_at.millis(),
            last_packet_at_millis: keep_alive.map(|k| k.last_packet_at().millis()),
            keep_alive_secs: keep_alive.map_or(0, |keep_alive| keep_alive.interval_secs()),
            asked_keep_alive_secs: link.map(|link| link.settings().asked_keep_alive_secs),
            keep_alive_changed_by: change.and_then(|change| change.by.clone()),
            keep_alive_changed_at_millis: change.map(|change| change.at.millis()),
            deadline_millis: deadline.map(Timestamp::millis),
            version: presence.version,
            session_expiry_secs: session.expiry_interval_secs(),
            expires_at_millis: found.expires_at.map(Timestamp::millis),
            subscriptions: session.subscriptions_len(),
            queued: session.queued(),
            queued_bytes: session.queued_bytes(),
            in_flight: session.in_flight(),
            in_flight_bytes: session.in_flight_bytes(),
            in_flight_max: link.map(|link| link.settings().send_quota),
            oldest_waiting_millis: self.oldest_waiting(found).map(Timestamp::millis),
            dropped: found.dropped_messages(),
            losing: self.losing(slot, session.client_id()),
            last_end: self.last_end(found),
            settings: found.settings(),
            sticky_settings: sticky.own,
            user_settings: sticky.of_user,
            ..ClientSession::new(session.client_id().clone(), presence.peer)
        })
    }

    /// Returns the time at which the oldest waiting message was received.
    fn oldest_waiting(&self, found: &Slot) -> Option<Timestamp> {
        let in_memory = found.session.waiting_from(0).next();
        let in_memory = in_memory.and_then(|waiting| waiting.message.received_at());
        // The store has messages behind those that were read, and before those of QoS 0.
        let in_store = found.session.unread_from().and_then(|(session, from)| {
            let store = self.core.keeper.as_ref()?.store();
            let first = store.waiting(session, from, FIRST).ok()?.into_iter().next()?;
            first.1.message.received_at()
        });
        [in_memory, in_store].into_iter().flatten().min()
    }

    fn last_end(&self, found: &Slot) -> Option<LastEnd> {
        let known = found.last_end.as_deref().cloned();
        known.or_else(|| self.last_end_in_history(found.session.client_id()))
    }

    /// Describes a client in short.
    fn summary(&self, found: &Slot) -> ClientSummary {
        let Slot { session, presence, .. } = found;
        // A client whose CONNACK waits may be offline, although its session has a link.
        let link = session.link().filter(|_| found.is_online());
        let keep_alive = link.map(|link| link.keep_alive());
        ClientSummary {
            online: link.is_some(),
            username: presence.identity.username.clone(),
            listener: presence.listener.clone(),
            node: self.core.node.clone(),
            protocol: link.map(|link| link.version()),
            keep_alive_secs: keep_alive.map(|keep_alive| keep_alive.interval_secs()),
            connected_at_millis: presence.connected_at.millis(),
            last_packet_at_millis: keep_alive.map(|k| k.last_packet_at().millis()),
            session_expiry_secs: session.expiry_interval_secs(),
            expires_at_millis: found.expires_at.map(Timestamp::millis),
            subscriptions: session.subscriptions_len(),
            queued: session.queued(),
            in_flight: session.in_flight(),
            version: presence.version,
            ..ClientSummary::new(session.client_id().clone(), presence.peer)
        }
    }
}

/// Returns whether a client satisfies each condition of a filter, except the list of identifiers,
/// along which the search goes.
fn is_meant(found: &Slot, filter: &ClientFilter, now: Timestamp) -> bool {
    let Slot { session, presence, .. } = found;
    let link = session.link().filter(|_| found.is_online());
    let keep_alive = link.map(|link| link.keep_alive());
    let secs = keep_alive.map(|keep_alive| keep_alive.interval_secs());
    let idle_secs = keep_alive.map(|k| now.since(k.last_packet_at()).as_secs());
    let username = presence.identity.username.as_deref();
    filter.online.is_none_or(|online| online == link.is_some())
        && filter.protocol.is_none_or(|level| link.is_some_and(|l| l.version().level() == level))
        && filter.keep_alive_secs_min.is_none_or(|min| secs.is_some_and(|secs| secs >= min))
        && filter.keep_alive_secs_max.is_none_or(|max| secs.is_some_and(|secs| secs <= max))
        && filter.idle_secs_min.is_none_or(|min| idle_secs.is_some_and(|secs| secs >= min))
        && filter.queued_min.is_none_or(|min| session.queued() >= min)
        && filter.network.is_none_or(|network| network.contains(presence.peer.ip()))
        && filter.username.as_deref().is_none_or(|name| username == Some(name))
        && filter.listener.as_deref().is_none_or(|listener| *presence.listener == *listener)
        && filter.client_id.as_ref().is_none_or(|pattern| pattern.matches(session.client_id()))
}
