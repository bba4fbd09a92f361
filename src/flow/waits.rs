//! Who waits for whom: publishers that are read no further while a subscriber's queue is full.
//!
//! Shared by all shards, as publisher and subscriber may live on different ones. It knows sessions
//! by their places only, and neither queues nor clocks: the subscriber's shard says when its queue
//! is full, the publisher's shard asks whether to wait, and when to go on.
//!
//! **Nobody ever waits in a circle.** A connection that waits is not read, so the acknowledgements
//! that would empty its own queue are not heard; two that waited for each other would wait for
//! ever. Who would close a circle, be it by publishing to itself, goes on instead, and the queue
//! that it fills drops its oldest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    mqtt::QoS,
    router::{OwnCopy, Place, Plan, SharedTargets, Target},
};

/// Queues that are full, and publishers that wait for them.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    /// How many queues are full, so that nobody takes the lock while there is none.
    full: AtomicUsize,
    graph: Mutex<Graph>,
}

/// Ordered, so that one history always leads to the same decisions.
#[derive(Debug, Default)]
struct Graph {
    /// Sessions whose queue is full and that publishers wait for.
    full: BTreeSet<Place>,
    /// For each publisher that waits the sessions of which one must get room.
    waiting: BTreeMap<Place, Vec<Place>>,
}

impl Waits {
    /// The queue of a session has become full: its publishers are to wait.
    pub(crate) fn begin(&self, subscriber: Place) {
        let mut graph = self.lock();
        graph.full.insert(subscriber);
        self.note(&graph);
    }

    /// Publishers wait for this session no longer, because it has room or is given up.
    pub(crate) fn end(&self, subscriber: Place) {
        let mut graph = self.lock();
        graph.full.remove(&subscriber);
        self.note(&graph);
    }

    /// Whether publishers wait for this session, if they have something for it.
    pub(crate) fn is_waited_for(&self, subscriber: Place) -> bool {
        self.is_needed() && self.lock().full.contains(&subscriber)
    }

    /// Whether there is anybody to wait for; costs a load, and is asked for each message.
    pub(crate) fn is_needed(&self) -> bool {
        self.full.load(Ordering::Relaxed) > 0
    }

    /// Whether a publisher must wait before its message of QoS 1 or 2 goes to the targets of
    /// `plan`. If so it is noted as waiting until [`Waits::go_on`] is told.
    pub(crate) fn wait(&self, publisher: Place, plan: &Plan) -> bool {
        let mut graph = self.lock();
        let must_wait = graph.wait(publisher, plan);
        self.note(&graph);
        must_wait
    }

    /// Those among the targets of `plan` that publishers wait for.
    pub(crate) fn full_targets(&self, plan: &Plan) -> Vec<Place> {
        self.lock().full_targets(None, plan)
    }

    /// Whether a publisher that waits may try again.
    pub(crate) fn may_go_on(&self, publisher: Place) -> bool {
        let graph = self.lock();
        let waits_for = graph.waiting.get(&publisher);
        waits_for.is_none_or(|any| any.iter().any(|place| !graph.full.contains(place)))
    }

    /// A publisher waits no longer.
    pub(crate) fn go_on(&self, publisher: Place) {
        self.lock().waiting.remove(&publisher);
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
            if self.leads_to(place, publisher) {
                self.full.remove(&place);
            } else {
                self.waiting.insert(publisher, vec![place]);
                return true;
            }
        }
        for group in plan.shared() {
            let Some(members) = self.full_members(group) else { continue };
            let (circular, others): (Vec<_>, Vec<_>) =
                members.into_iter().partition(|place| self.leads_to(*place, publisher));
            for place in &circular {
                self.full.remove(place);
            }
            if circular.is_empty() {
                self.waiting.insert(publisher, others);
                return true;
            }
        }
        false
    }

    /// The targets with a full queue; whichever are fewer are looked through.
    fn full_targets(&self, publisher: Option<Place>, plan: &Plan) -> Vec<Place> {
        let counts = |target: &&Target| {
            let is_own = publisher == Some(target.place) && target.own_copy == OwnCopy::Never;
            target.qos > QoS::AtMostOnce && !is_own
        };
        if self.full.len() < plan.targets().len() {
            let targets = self.full.iter().filter_map(|place| plan.target(*place));
            targets.filter(counts).map(|target| target.place).collect()
        } else {
            let targets = plan.targets().iter().filter(|t| self.full.contains(&t.place));
            targets.filter(counts).map(|target| target.place).collect()
        }
    }

    /// The members of a shared subscription who are there, if not one of them has room.
    fn full_members(&self, group: &SharedTargets) -> Option<Vec<Place>> {
        let members = group.members_there();
        let is_full = |m: &Target| m.qos > QoS::AtMostOnce && self.full.contains(&m.place);
        (!members.is_empty() && members.iter().all(is_full))
            .then(|| members.iter().map(|member| member.place).collect())
    }

    /// Whether `from` is `to`, or waits for somebody who leads there.
    fn leads_to(&self, from: Place, to: Place) -> bool {
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
        router::{Host, Index, Subscriber},
    };

    fn place(slot: u32) -> Place {
        Place { host: Host(slot as u16 % 2), slot, generation: 0 }
    }

    /// An index where session `n` has subscribed to `n`, and to what else is given.
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
        waits.end(place(1));
        assert!(waits.may_go_on(place(0)));
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
        // 2 would close the circle 0 → 1 → 2 → 0: it goes on, and 0 loses what it cannot take.
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

    /// Whatever is full and whoever publishes where, from everybody who waits the way leads to
    /// somebody who does not.
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
            for (from, to) in &graph.waiting {
                assert!(to.iter().all(|to| !graph.leads_to(*to, *from)), "{graph:?}");
            }
        }
    }
}
