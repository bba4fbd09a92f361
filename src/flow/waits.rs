//! Backpressure between sessions: a publisher is not read while the queue of a subscriber is full.
//!
//! All shards share this, because publisher and subscriber may be on different shards. It knows
//! sessions only by their places, and neither queues nor clocks. The subscriber's shard reports
//! when its queue is full; the publisher's shard asks whether to wait, and when to continue.
//!
//! **Sessions never wait in a circle.** A connection that waits is not read, so the broker does not
//! see the acknowledgements that would empty its own queue; two that waited for each other would
//! never continue. A publisher that would close a circle, also by publishing to itself, does not
//! wait, and the queue that it fills drops its oldest message.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    mqtt::QoS,
    router::{Host, OwnCopy, Place, Plan, ShardNumber, SharedTargets, Target},
};

/// The first of all places.
const FIRST_PLACE: Place = Place { host: Host::Shard(ShardNumber(0)), slot: 0, generation: 0 };

/// The queues that are full, and the publishers that wait for them.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    /// The number of full queues; while it is 0, no publisher takes the lock.
    full: AtomicUsize,
    graph: Mutex<Graph>,
}

/// Ordered, so that the same history always leads to the same decisions.
#[derive(Debug, Default)]
struct Graph {
    /// Sessions with a full queue, for which publishers wait.
    full: BTreeSet<Place>,
    /// For each waiting publisher the sessions of which one must get room.
    waiting: BTreeMap<Place, Vec<Place>>,
    /// The same as pairs of session and publisher.
    waited_for: BTreeSet<(Place, Place)>,
    /// Waiting publishers of each host that may try again, until the host takes them.
    ready: BTreeMap<Host, BTreeSet<Place>>,
}

impl Waits {
    /// Notes that the queue of a session is full: its publishers must wait.
    pub(crate) fn begin(&self, subscriber: Place) {
        let mut graph = self.lock();
        graph.full.insert(subscriber);
        self.note(&graph);
    }

    /// Notes that publishers no longer wait for this session, because it has room or is given up.
    pub(crate) fn end(&self, subscriber: Place) {
        let mut graph = self.lock();
        graph.make_room(subscriber);
        self.note(&graph);
    }

    /// Returns the waiting publishers of a host that may try again since the last call.
    pub(crate) fn take_ready(&self, host: Host) -> BTreeSet<Place> {
        self.lock().ready.remove(&host).unwrap_or_default()
    }

    /// Returns whether publishers with messages for this session must wait.
    pub(crate) fn is_waited_for(&self, subscriber: Place) -> bool {
        self.is_needed() && self.lock().full.contains(&subscriber)
    }

    /// Returns whether any queue is full; costs one load, because every message asks it.
    pub(crate) fn is_needed(&self) -> bool {
        self.full.load(Ordering::Relaxed) > 0
    }

    /// Returns whether a publisher must wait before its message of QoS 1 or 2 goes to the targets
    /// of `plan`. If so, notes it as waiting until [`Waits::go_on`] is called.
    pub(crate) fn wait(&self, publisher: Place, plan: &Plan) -> bool {
        let mut graph = self.lock();
        let must_wait = graph.wait(publisher, plan);
        self.note(&graph);
        must_wait
    }

    /// Returns the targets of `plan` for which publishers must wait.
    pub(crate) fn full_targets(&self, plan: &Plan) -> Vec<Place> {
        self.lock().full_targets(None, plan)
    }

    /// Returns whether a waiting publisher may try again.
    pub(crate) fn may_go_on(&self, publisher: Place) -> bool {
        let graph = self.lock();
        let waits_for = graph.waiting.get(&publisher);
        waits_for.is_none_or(|any| any.iter().any(|place| !graph.full.contains(place)))
    }

    /// Notes that a publisher no longer waits.
    pub(crate) fn go_on(&self, publisher: Place) {
        self.lock().end_waiting(publisher);
    }

    fn note(&self, graph: &Graph) {
        self.full.store(graph.full.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Graph {
    fn wait(&mut self, publisher: Place, plan: &Plan) -> bool {
        for place in self.full_targets(Some(publisher), plan) {
            // A publisher that closes a cycle goes on; the full queue then drops its oldest message.
            if self.leads_to(place, publisher) {
                self.make_room(place);
            } else {
                self.begin_waiting(publisher, vec![place]);
                return true;
            }
        }
        // A group is full only if all its connected members are, because one with room takes the message.
        for group in plan.shared() {
            let Some(members) = self.full_members(group) else { continue };
            let (circular, others): (Vec<_>, Vec<_>) =
                members.into_iter().partition(|place| self.leads_to(*place, publisher));
            // Only members in a cycle lose their back pressure.
            for place in &circular {
                self.make_room(*place);
            }
            // One member that may overflow is enough for the publisher to go on.
            if circular.is_empty() {
                self.begin_waiting(publisher, others);
                return true;
            }
        }
        false
    }

    /// Notes that publishers no longer wait for a session: those that do may try again.
    fn make_room(&mut self, subscriber: Place) {
        if !self.full.remove(&subscriber) {
            return;
        }
        // The pairs of one subscriber are one range of the set.
        let pairs = self.waited_for.range((subscriber, FIRST_PLACE)..);
        for (_, publisher) in pairs.take_while(|(session, _)| *session == subscriber) {
            self.ready.entry(publisher.host).or_default().insert(*publisher);
        }
    }

    fn begin_waiting(&mut self, publisher: Place, sessions: Vec<Place>) {
        self.end_waiting(publisher);
        self.waited_for.extend(sessions.iter().map(|session| (*session, publisher)));
        self.waiting.insert(publisher, sessions);
    }

    fn end_waiting(&mut self, publisher: Place) {
        for session in self.waiting.remove(&publisher).unwrap_or_default() {
            self.waited_for.remove(&(session, publisher));
        }
        if let Some(ready) = self.ready.get_mut(&publisher.host) {
            ready.remove(&publisher);
        }
    }

    /// Returns the targets with a full queue; searches the smaller of the two sets.
    fn full_targets(&self, publisher: Option<Place>, plan: &Plan) -> Vec<Place> {
        let counts = |target: &&Target| {
            // A publisher does not wait for its own queue if No Local keeps the message from it.
            let is_own = publisher == Some(target.place) && target.own_copy == OwnCopy::Never;
            target.qos > QoS::AtMostOnce && !is_own
        };
        // Either set may be the small one: few queues are full, or the topic has few subscribers.
        if self.full.len() < plan.targets().len() {
            let targets = self.full.iter().filter_map(|place| plan.target(*place));
            targets.filter(counts).map(|target| target.place).collect()
        } else {
            let targets = plan.targets().iter().filter(|t| self.full.contains(&t.place));
            targets.filter(counts).map(|target| target.place).collect()
        }
    }

    /// Returns the connected members of a shared subscription, if none of them has room.
    fn full_members(&self, group: &SharedTargets) -> Option<Vec<Place>> {
        let members = group.members_there();
        let is_full = |m: &Target| m.qos > QoS::AtMostOnce && self.full.contains(&m.place);
        (!members.is_empty() && members.iter().all(is_full))
            .then(|| members.iter().map(|member| member.place).collect())
    }

    /// Returns whether `from` is `to`, or waits for a session that leads there.
    fn leads_to(&self, from: Place, to: Place) -> bool {
        // Paths may meet again, and each session is followed once.
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(place) = next.pop() {
            if place == to {
                return true;
            }
            if seen.insert(place) {
                next.extend(self.waiting.get(&place).into_iter().flatten());
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mqtt::{SubscriptionOptions, validate_filter},
        router::{Index, Subscriber},
    };

    fn place(slot: u32) -> Place {
        Place { host: Host::Shard(ShardNumber(slot as u16 % 2)), slot, generation: 0 }
    }

    /// Returns an index where session `n` has subscribed to `n`, and to the filters in `more`.
    fn index(more: &[(u32, &str)]) -> Index {
        let index = Index::default();
        let own: Vec<_> = (0..8).map(|n| (n, n.to_string())).collect();
        let own = own.iter().map(|(n, filter)| (*n, filter.as_str()));
        for (slot, filter) in own.chain(more.iter().copied()) {
            let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
            let subscriber =
                Subscriber { place: place(slot), options, identifier: None, is_durable: false };
            index.subscribe(validate_filter(filter).expect("it is one"), subscriber);
        }
        index
    }

    #[test]
    fn only_who_publishes_to_a_full_queue_waits() {
        let (waits, index) = (Waits::default(), index(&[]));
        assert!(!waits.is_needed());
        waits.begin(place(1));
        assert!(waits.is_needed() && waits.is_waited_for(place(1)));
        assert!(!waits.wait(place(0), &index.plan("2")));
        assert!(waits.wait(place(0), &index.plan("1")));
        assert!(!waits.may_go_on(place(0)));
        assert!(waits.take_ready(place(0).host).is_empty());
        waits.end(place(1));
        assert!(waits.may_go_on(place(0)));
        assert!(waits.take_ready(place(1).host).is_empty());
        assert_eq!(waits.take_ready(place(0).host), [place(0)].into());
        assert!(waits.take_ready(place(0).host).is_empty());
        waits.go_on(place(0));
        assert!(!waits.is_needed());
    }

    #[test]
    fn who_would_wait_for_itself_goes_on() {
        let (waits, index) = (Waits::default(), index(&[]));
        waits.begin(place(1));
        assert!(!waits.wait(place(1), &index.plan("1")));
        assert!(!waits.is_waited_for(place(1)));
    }

    #[test]
    fn a_chain_waits_and_a_circle_does_not() {
        let (waits, index) = (Waits::default(), index(&[]));
        for slot in 0..3 {
            waits.begin(place(slot));
        }
        assert!(waits.wait(place(0), &index.plan("1")));
        assert!(waits.wait(place(1), &index.plan("2")));
        // 2 would close the circle 0 → 1 → 2 → 0: it continues, and 0 loses messages.
        assert!(!waits.wait(place(2), &index.plan("0")));
        assert!(!waits.is_waited_for(place(0)));
        assert!(waits.is_waited_for(place(1)) && waits.is_waited_for(place(2)));
        assert!(waits.wait(place(7), &index.plan("1")));
    }

    #[test]
    fn a_shared_subscription_is_waited_for_once_all_its_members_are_full() {
        let shared = [(1, "$share/g/s"), (2, "$share/g/s")];
        let (waits, index) = (Waits::default(), index(&shared));
        waits.begin(place(1));
        assert!(!waits.wait(place(0), &index.plan("s")));
        waits.begin(place(2));
        assert!(waits.wait(place(0), &index.plan("s")));
        waits.end(place(2));
        assert!(waits.may_go_on(place(0)));
    }

    /// Whatever queues are full and whatever sessions publish, from every waiting session the path
    /// leads to one that does not wait.
    #[test]
    fn no_history_makes_a_circle() {
        let (waits, index) = (Waits::default(), index(&[(5, "#"), (3, "+")]));
        let mut random = 1_u32;
        let mut next = |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 16) % below
        };
        for _ in 0..20_000 {
            let (who, to) = (place(next(8)), next(8).to_string());
            match next(5) {
                0 => waits.end(who),
                1 => waits.go_on(who),
                2 => waits.begin(who),
                _ if waits.lock().waiting.contains_key(&who) => {}
                _ => drop(waits.wait(who, &index.plan(&to))),
            }
            let graph = waits.lock();
            let pairs = graph.waiting.iter();
            let pairs = pairs.flat_map(|(from, to)| to.iter().map(move |to| (*to, *from)));
            assert_eq!(pairs.collect::<BTreeSet<_>>(), graph.waited_for);
            // A publisher that may go on gets a wake-up here, or has had it before.
            for (from, to) in &graph.waiting {
                let may_go_on = to.iter().any(|to| !graph.full.contains(to));
                let is_told = graph.ready.get(&from.host).is_some_and(|it| it.contains(from));
                assert!(is_told || !may_go_on, "{graph:?}");
            }
            for (from, to) in &graph.waiting {
                assert!(to.iter().all(|to| !graph.leads_to(*to, *from)), "{graph:?}");
            }
        }
    }
}
