//! Finds the busiest clients of a shard, in portions.
//!
//! Rates need an earlier count. A shard keeps two for each connection while somebody asks: the younger
//! becomes the older after a second, so that several callers have the rates of the last one to two
//! seconds, however often they ask. A minute after the last question the counts are dropped.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use tokio::task::yield_now;

use crate::{
    control::{BusyClient, ClientTraffic, FindBusiest},
    mqtt::Timestamp,
    shard::{Shard, SharedShard, Slot, views::AnsweredInPortions},
};

/// Slots that are examined before other tasks of the thread get their turn.
const SLOTS_AT_A_TIME: usize = 256;
/// The least time between two counts of a connection.
const COUNT_EVERY_MILLIS: u64 = 1_000;
/// How long counts stay after the last question.
const KEPT_SECS: u64 = 60;

/// Earlier counts of the connections of a shard.
#[derive(Default)]
pub(in crate::shard) struct TrafficCounts {
    by_slot: Vec<CountsOfConnection>,
    asked_at: Timestamp,
}

/// Earlier counts of one connection.
#[derive(Clone, Copy)]
struct CountsOfConnection {
    /// The number of the connection.
    link: u64,
    older: CountedAt,
    newer: CountedAt,
}

#[derive(Clone, Copy)]
struct CountedAt {
    at: Timestamp,
    traffic: ClientTraffic,
}

impl CountsOfConnection {
    /// Returns the counts of a connection that began at this time.
    const fn of_new(link: u64, began: Timestamp) -> Self {
        let nothing = ClientTraffic { messages_in: 0, messages_out: 0, bytes_in: 0, bytes_out: 0 };
        let counted = CountedAt { at: began, traffic: nothing };
        Self { link, older: counted, newer: counted }
    }

    /// Adds a count; returns the rates since the older one.
    fn take(&mut self, traffic: ClientTraffic, now: Timestamp) -> ClientTraffic {
        let millis = |since: Timestamp| now.millis().saturating_sub(since.millis());
        if millis(self.newer.at) >= COUNT_EVERY_MILLIS {
            self.older = self.newer;
            self.newer = CountedAt { at: now, traffic };
        }
        traffic.rate_since(self.older.traffic, millis(self.older.at))
    }
}

/// A rate, the client identifier, and the place among those that were found.
type RankedClient = (u64, Reverse<Arc<str>>, usize);

/// A search for the busiest clients.
struct BusiestSearch {
    wanted: FindBusiest,
    /// The best so far; the first to leave is on top.
    best: BinaryHeap<Reverse<RankedClient>>,
    /// Those that are or were among the best.
    found: Vec<Option<BusyClient>>,
}

impl AnsweredInPortions for FindBusiest {
    type Answer = Vec<BusyClient>;

    /// Returns the busiest clients of a shard, in no order.
    async fn answer(self, shard: &SharedShard, is_wanted: impl Fn() -> bool) -> Vec<BusyClient> {
        let mut search = BusiestSearch { wanted: self, best: BinaryHeap::new(), found: Vec::new() };
        let mut next = Some(0);
        while let Some(from) = next.filter(|_| is_wanted()) {
            next = shard.borrow_mut().search_busiest(&mut search, from);
            yield_now().await;
        }
        search.found.into_iter().flatten().collect()
    }
}

impl Shard {
    /// Examines some slots, from `from` on; returns the slot at which to continue.
    fn search_busiest(&mut self, search: &mut BusiestSearch, from: usize) -> Option<usize> {
        let now = self.core.clock.now();
        let to = self.slots.capacity().min(from.saturating_add(SLOTS_AT_A_TIME));
        self.traffic.asked_at = now;
        for slot in from..to {
            let Some(found) = self.slots.get(slot) else { continue };
            let Some(mut client) = busy_client(found, &self.core.node, now) else { continue };
            client.per_sec = self.traffic.rates(slot, found, client.total, now);
            let rules = &*self.core.authorizer;
            search.offer(client, |wanted, client_id| {
                wanted.caller.as_ref().is_none_or(|caller| caller.may_observe(rules, client_id))
            });
        }
        (to < self.slots.capacity()).then_some(to)
    }

    /// Drops the counts that nobody has asked for in a minute.
    pub(in crate::shard) fn drop_traffic_counts(&mut self, now: Timestamp) {
        if !self.traffic.by_slot.is_empty()
            && now.since(self.traffic.asked_at).as_secs() > KEPT_SECS
        {
            self.traffic.by_slot = Vec::new();
        }
    }
}

impl TrafficCounts {
    /// Returns the rates of a slot's connection, and counts it.
    fn rates(
        &mut self,
        slot: usize,
        found: &Slot,
        traffic: ClientTraffic,
        now: Timestamp,
    ) -> ClientTraffic {
        let link = found.connected.as_ref().map_or(0, |connected| connected.link);
        let fresh = CountsOfConnection::of_new(link, found.presence.connected_at);
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, CountsOfConnection::of_new(0, Timestamp(0)));
        }
        let Some(counts) = self.by_slot.get_mut(slot) else { return ClientTraffic::default() };
        if counts.link != link {
            *counts = fresh;
        }
        counts.take(traffic, now)
    }
}

/// Describes the client of a slot, if it is online.
fn busy_client(found: &Slot, node: &Arc<str>, now: Timestamp) -> Option<BusyClient> {
    let session = &found.session;
    // A client that is away moves nothing.
    let link = session.link().filter(|_| found.is_online())?;
    let written = link.traffic();
    let presence = &found.presence;
    Some(BusyClient {
        username: presence.identity.username.clone(),
        total: ClientTraffic {
            messages_in: found.messages_in,
            messages_out: written.messages_out,
            bytes_in: written.bytes_in,
            bytes_out: written.bytes_out,
        },
        queued: session.queued(),
        in_flight: session.in_flight(),
        idle_millis: now.millis().saturating_sub(link.keep_alive().last_packet_at().millis()),
        connected_at_millis: presence.connected_at.millis(),
        ..BusyClient::new(session.client_id().clone(), presence.peer, node.clone())
    })
}

impl BusiestSearch {
    /// Takes a client if it is among the best. The permission comes last, because it takes longest.
    fn offer(&mut self, client: BusyClient, is_permitted: impl Fn(&FindBusiest, &str) -> bool) {
        let Self { wanted, best, found } = self;
        let value = client.value(wanted.by);
        let is_full = best.len() >= wanted.limit;
        // Equal values do not replace, so the answer is stable while clients are idle.
        let is_better = best.peek().is_none_or(|Reverse((worst, ..))| value > *worst);
        let pattern = wanted.clients.as_ref();
        if (is_full && !is_better)
            || wanted.limit == 0
            || !pattern.is_none_or(|pattern| pattern.matches(&client.client_id))
            || !is_permitted(wanted, &client.client_id)
        {
            return;
        }
        // A replaced client leaves its place to the better one, so `found` never grows above the limit.
        let place = match is_full {
            true => best.pop().map_or(0, |Reverse((.., place))| place),
            false => {
                found.push(None);
                found.len() - 1
            }
        };
        best.push(Reverse((value, Reverse(client.client_id.clone()), place)));
        found[place] = Some(client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_one_to_two_seconds_however_often_one_asks() {
        let mut counts = CountsOfConnection::of_new(1, Timestamp(10_000));
        let sent = |messages_in| ClientTraffic { messages_in, ..ClientTraffic::default() };
        let mut rate = |at, messages| counts.take(sent(messages), Timestamp(at)).messages_in;
        assert_eq!(rate(20_000, 100), 10, "since the connection began");
        assert_eq!(rate(20_500, 600), 57, "the same with what came since");
        assert_eq!(rate(21_000, 1_100), 1_000, "since the first question");
        assert_eq!(rate(21_500, 1_100), 666);
        assert_eq!(rate(22_000, 1_100), 0);
        assert_eq!(rate(100_000, 1_100), 0);
    }
}
