//! The subscription index that all shards share.
//!
//! One lock protects the tree. A subscribe holds it for about a microsecond, and publishers with a
//! cached plan do not take it. The generation tells them when their plan is stale.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    Host, MemberState, Place, Plan, SharedTargets, Subscriber, subscribers::Subscribers, tree::Tree,
};
use crate::{
    limits::subscription_bytes,
    mqtt::{FilterParts, QoS, RetainHandling, SubscriptionOptions},
};

/// All subscriptions of all sessions.
#[derive(Debug)]
pub struct Index {
    tree: RwLock<Tree>,
    generation: AtomicU64,
    subscriptions: AtomicUsize,
    /// Number of shared subscription groups created so far.
    shares: AtomicU32,
    bytes: AtomicUsize,
    /// Number of filters of other nodes; a filter counts once for each node.
    routes: AtomicUsize,
    observer: OnceLock<FilterObserver>,
}

/// Is called with a filter when the first subscriber of this node comes (`true`) and when the last one has
/// gone, in this order for each filter. A shared subscription has one filter for its members with a connection,
/// and one, with [`OFFLINE`] before its name, for those without.
struct FilterObserver(Box<ObserveFilter>);

type ObserveFilter = dyn Fn(&str, bool) + Send + Sync;

/// The beginning of the filter of a shared subscription.
const SHARE: &str = "$share/";
/// Marks a route of a shared subscription that only has members without a connection. No share name contains it.
const OFFLINE: &str = "+";

impl fmt::Debug for FilterObserver {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("FilterObserver")
    }
}

/// The options of a filter of another node: everything goes there, and that node decides by the options of
/// its sessions.
const ROUTE_OPTIONS: SubscriptionOptions = SubscriptionOptions {
    qos: QoS::ExactlyOnce,
    no_local: false,
    retain_as_published: true,
    retain_handling: RetainHandling::DoNotSend,
};

impl Default for Index {
    fn default() -> Self {
        Self {
            tree: RwLock::new(Tree::new()),
            generation: AtomicU64::new(0),
            subscriptions: AtomicUsize::new(0),
            shares: AtomicU32::new(0),
            bytes: AtomicUsize::new(0),
            routes: AtomicUsize::new(0),
            observer: OnceLock::new(),
        }
    }
}

impl Index {
    /// Returns a number that changes whenever earlier plans may have become stale.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the number of subscriptions.
    pub fn len(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// Returns whether there is no subscription.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes that all subscriptions count against their limit.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the bytes that a subscription to this filter counts.
    #[must_use]
    pub fn bytes_of(filter: FilterParts<'_>) -> usize {
        let text = filter.filter.len() + filter.share_name.map_or(0, str::len);
        let levels = filter.filter.split('/').count();
        subscription_bytes(text, levels)
    }

    /// Adds a subscription, or replaces the same session's subscription to this filter. Returns
    /// whether it is new.
    pub fn subscribe(&self, filter: FilterParts<'_>, subscriber: Subscriber) -> bool {
        let is_new = self.write().change(filter.filter, |subscribers| {
            self.observed(filter, subscribers, |subscribers| {
                subscribers.insert(filter, subscriber, || self.next_share())
            })
        });
        if is_new {
            self.subscriptions.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(Self::bytes_of(filter), Ordering::Relaxed);
        }
        self.generation.fetch_add(1, Ordering::Release);
        is_new
    }

    /// Removes a subscription; returns whether it existed.
    pub fn unsubscribe(&self, filter: FilterParts<'_>, place: Place) -> bool {
        let removed = self.write().change(filter.filter, |subscribers| {
            self.observed(filter, subscribers, |s| s.remove(filter.share_name, place))
        });
        if removed {
            self.subscriptions.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(Self::bytes_of(filter), Ordering::Relaxed);
        }
        self.generation.fetch_add(1, Ordering::Release);
        removed
    }

    /// Sets the function that learns which filters the subscribers of this node have, from now on. Only the
    /// first call has an effect.
    #[cfg_attr(
        not(any(feature = "cluster", test)),
        expect(dead_code, reason = "only a cluster has an observer")
    )]
    pub(crate) fn observe(&self, observer: impl Fn(&str, bool) + Send + Sync + 'static) {
        drop(self.observer.set(FilterObserver(Box::new(observer))));
    }

    /// Makes a change of the subscribers of a filter, and tells the observer, while the tree is locked, if this
    /// node has its first subscriber or has lost its last one.
    fn observed<T>(
        &self,
        filter: FilterParts<'_>,
        subscribers: &mut Subscribers,
        change: impl FnOnce(&mut Subscribers) -> T,
    ) -> T {
        let Some(FilterObserver(observer)) = self.observer.get() else {
            return change(subscribers);
        };
        let before = subscribers.wanted_here(filter.share_name);
        let changed = change(subscribers);
        let now = subscribers.wanted_here(filter.share_name);
        if before == now {
            return changed;
        }
        if before.directly != now.directly {
            observer(filter.filter, now.directly);
        }
        let Some(name) = filter.share_name else { return changed };
        let kinds = [("", before.online, now.online), (OFFLINE, before.offline, now.offline)];
        // Added ones first, so that a node whose last member comes or goes is always known.
        for is_wanted in [true, false] {
            for (kind, _, _) in kinds.iter().filter(|it| it.1 != it.2 && it.2 == is_wanted) {
                observer(&format!("{SHARE}{kind}{name}/{}", filter.filter), is_wanted);
            }
        }
        changed
    }

    /// Returns the number of filters of other nodes; a filter counts once for each node.
    pub fn routes(&self) -> usize {
        self.routes.load(Ordering::Relaxed)
    }

    /// Adds or removes a filter that another node has. It counts against no limit of this node.
    pub fn change_route(&self, filter: &str, node: u32, is_added: bool) {
        if let Some((name, filter)) = filter.strip_prefix(SHARE).and_then(|it| it.split_once('/')) {
            return self.change_group_route(name, filter, node, is_added);
        }
        let place = Place { host: Host::Nodes, slot: node, generation: 0 };
        let parts = FilterParts { share_name: None, filter };
        let route =
            Subscriber { place, options: ROUTE_OPTIONS, identifier: None, is_durable: false };
        let has_changed = self.write().change(filter, |subscribers| match is_added {
            true => subscribers.insert(parts, route, || self.next_share()),
            false => subscribers.remove(None, place),
        });
        self.count_route(has_changed, is_added);
    }

    fn change_group_route(&self, name: &str, filter: &str, node: u32, is_added: bool) {
        let (name, is_online) = match name.strip_prefix(OFFLINE) {
            Some(name) => (name, false),
            None => (name, true),
        };
        let has_changed = self.write().change(filter, |subscribers| {
            subscribers
                .set_group_node((name, filter), (node, is_online), is_added, || self.next_share())
        });
        self.count_route(has_changed, is_added);
    }

    fn count_route(&self, has_changed: bool, is_added: bool) {
        match is_added {
            true => self.routes.fetch_add(usize::from(has_changed), Ordering::Relaxed),
            false => self.routes.fetch_sub(usize::from(has_changed), Ordering::Relaxed),
        };
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Sets whether the session at `place`, a member of a shared subscription, receives messages.
    pub fn set_member(&self, filter: FilterParts<'_>, place: Place, state: MemberState) {
        let Some(share_name) = filter.share_name else { return };
        self.write().change(filter.filter, |subscribers| {
            self.observed(filter, subscribers, |s| s.set_member(share_name, place, state));
        });
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Returns the number of a shared subscription, if it has a member.
    pub fn share(&self, filter: FilterParts<'_>) -> Option<NonZeroU32> {
        let share_name = filter.share_name?;
        self.write().change(filter.filter, |subscribers| subscribers.share(share_name))
    }

    /// Notes that a member at `place` has queued messages of a shared subscription. Returns some of
    /// the online members, which may take them.
    pub fn note_holder(&self, filter: FilterParts<'_>, place: Place) -> Vec<Place> {
        let Some(share_name) = filter.share_name else { return Vec::new() };
        self.write()
            .change(filter.filter, |subscribers| subscribers.begin_backlog(share_name, place))
    }

    /// Notes that the member at `place` has no more queued messages of a shared subscription. If
    /// `is_empty` is false, it has some, but none that an online member can take.
    pub fn forget_holder(&self, filter: FilterParts<'_>, place: Place, is_empty: bool) {
        let Some(share_name) = filter.share_name else { return };
        let release = |s: &mut Subscribers| s.release(share_name, place, is_empty);
        self.write().change(filter.filter, release);
    }

    /// Returns the first member with queued messages of a shared subscription, except these.
    pub fn next_holder(&self, filter: FilterParts<'_>, except: &[Place]) -> Option<Place> {
        let share_name = filter.share_name?;
        self.write()
            .change(filter.filter, |subscribers| subscribers.next_holder(share_name, except))
    }

    /// Returns the recipients of a message on `topic`. Read the generation before this call, not
    /// after.
    pub fn plan(&self, topic: &str) -> Plan {
        let tree = self.read();
        let found = tree.matches(topic);
        let count = found.iter().map(|subscribers| subscribers.direct.as_slice().len()).sum();
        let mut direct = Vec::with_capacity(count);
        let mut shared = Vec::new();
        for subscribers in found {
            direct.extend_from_slice(subscribers.direct.as_slice());
            shared.extend(subscribers.groups().iter().map(SharedTargets::new));
        }
        drop(tree);
        Plan::new(&direct, shared)
    }

    /// Returns whether the session at `place` has a subscription that matches `topic` and is not
    /// shared.
    pub fn has_subscriber(&self, topic: &str, place: Place) -> bool {
        let tree = self.read();
        tree.matches(topic).iter().any(|subscribers| subscribers.direct.contains(place))
    }

    /// The numbers wrap after four billion groups. A message that still waits under the number of a
    /// removed group then goes to another group of its own topic.
    fn next_share(&self) -> NonZeroU32 {
        let number = self.shares.fetch_add(1, Ordering::Relaxed);
        NonZeroU32::new(number.wrapping_add(1)).unwrap_or(NonZeroU32::MAX)
    }

    fn read(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use fastrand::Rng;

    use super::*;
    use crate::{
        mqtt::{SubscriptionOptions, filter_matches},
        router::{Host, ShardNumber, Target},
    };

    /// The longest levels exceed what fits into a node of the tree.
    const LEVELS: [&str; 8] = [
        "",
        "a",
        "b",
        "+",
        "a-level-of-twenty-two-",
        "a-level-of-twenty-three",
        "a-level-of-twenty-six-here",
        "a-level-of-twenty-six-too.",
    ];

    #[test]
    fn a_plan_names_the_sessions_that_the_plain_rule_finds() {
        let mut rng = Rng::with_seed(17);
        // Many filters with few subscribers each, and few filters with many.
        for (places, levels_of) in [(2, &LEVELS[..]), (40, &LEVELS[..2])] {
            let index = Index::default();
            let mut naive: BTreeMap<(String, u32), u32> = BTreeMap::new();
            for step in 1..3_000 {
                let mut filter = levels(&mut rng, levels_of);
                if rng.bool() {
                    filter = if rng.u8(..8) == 0 { "#".to_owned() } else { filter + "/#" };
                }
                let parts = FilterParts { share_name: None, filter: &filter };
                let slot = rng.u32(..places);
                let place =
                    Place { host: Host::Shard(ShardNumber(slot as u16 % 3)), slot, generation: 0 };
                // Phases of growing and shrinking.
                if (rng.u8(..4) == 0) == (step / 500 % 2 == 0) {
                    let was_there = naive.remove(&(filter.clone(), slot)).is_some();
                    assert_eq!(index.unsubscribe(parts, place), was_there);
                } else {
                    let options = SubscriptionOptions::default();
                    let subscriber =
                        Subscriber { place, options, identifier: Some(step), is_durable: false };
                    let is_new = naive.insert((filter.clone(), slot), step).is_none();
                    assert_eq!(index.subscribe(parts, subscriber), is_new);
                }
                assert_eq!(index.len(), naive.len());
                let topic = levels(&mut rng, levels_of).replace('+', "$c");
                assert_eq!(planned(&index.plan(&topic)), found(&naive, &topic), "{topic}");
            }
            for (filter, slot) in naive.into_keys() {
                let place =
                    Place { host: Host::Shard(ShardNumber(slot as u16 % 3)), slot, generation: 0 };
                index.unsubscribe(FilterParts { share_name: None, filter: &filter }, place);
            }
            assert_eq!((index.len(), index.bytes()), (0, 0));
        }
    }

    #[test]
    fn the_observer_learns_of_the_first_and_the_last_subscriber_of_this_node_alone() {
        let (index, told) = (Index::default(), std::sync::Arc::new(std::sync::Mutex::new(vec![])));
        let told_to = told.clone();
        index.observe(move |filter, is_wanted| {
            told_to.lock().unwrap().push((filter.to_owned(), is_wanted));
        });
        let parts = FilterParts { share_name: None, filter: "a/+" };
        let place = |slot| Place { host: Host::Shard(ShardNumber(0)), slot, generation: 0 };
        let subscribe = |slot| {
            let options = SubscriptionOptions::default();
            let place = place(slot);
            index.subscribe(
                parts,
                Subscriber { place, options, identifier: None, is_durable: false },
            )
        };
        index.change_route("a/+", 7, true);
        index.change_route("a/+", 7, true);
        assert_eq!((index.len(), index.bytes(), index.routes()), (0, 0, 1));
        for slot in [1, 2, 1] {
            subscribe(slot);
        }
        let plan = index.plan("a/b");
        assert_eq!((plan.len(), plan.targets_at(Host::Nodes)[0].place.slot), (3, 7));
        for slot in [1, 2, 2] {
            index.unsubscribe(parts, place(slot));
        }
        index.change_route("a/+", 7, false);
        index.change_route("a/+", 7, false);
        assert!(index.plan("a/b").is_empty());
        assert_eq!((index.len(), index.bytes(), index.routes()), (0, 0, 0));
        assert_eq!(*told.lock().unwrap(), [("a/+".to_owned(), true), ("a/+".to_owned(), false)]);
    }

    #[test]
    fn the_observer_learns_whether_a_group_has_members_with_and_without_a_connection() {
        let (index, told) = (Index::default(), std::sync::Arc::new(std::sync::Mutex::new(vec![])));
        let told_to = told.clone();
        index.observe(move |filter, is_wanted| {
            told_to.lock().unwrap().push((filter.to_owned(), is_wanted));
        });
        let parts = FilterParts { share_name: Some("g"), filter: "a/+" };
        let place = |slot| Place { host: Host::Shard(ShardNumber(0)), slot, generation: 0 };
        let options = SubscriptionOptions::default();
        for slot in [1, 2] {
            let place = place(slot);
            let member = Subscriber { place, options, identifier: None, is_durable: false };
            index.subscribe(parts, member);
        }
        index.set_member(parts, place(1), MemberState::Offline);
        index.set_member(parts, place(2), MemberState::Offline);
        index.set_member(parts, place(1), MemberState::Suspended);
        index.unsubscribe(parts, place(2));
        index.unsubscribe(parts, place(1));
        let expected = [
            ("$share/g/a/+", true),
            ("$share/+g/a/+", true),
            ("$share/g/a/+", false),
            ("$share/+g/a/+", false),
        ];
        let expected = expected.map(|(filter, is_wanted)| (filter.to_owned(), is_wanted));
        assert_eq!(*told.lock().unwrap(), expected);
    }

    #[test]
    fn a_plan_names_the_nodes_of_a_group_those_with_connections_first() {
        let index = Index::default();
        for (route, node) in [("$share/+g/a/+", 7), ("$share/g/a/+", 8), ("$share/+g/a/+", 8)] {
            index.change_route(route, node, true);
            index.change_route(route, node, true);
        }
        assert_eq!((index.len(), index.routes()), (0, 3));
        let plan = index.plan("a/b");
        let [group] = plan.shared() else { panic!("one group") };
        assert_eq!((&**group.filter(), group.len()), ("$share/g/a/+", 0));
        let all = |_: u32| true;
        assert_eq!(group.node(0, true, all), Some(8));
        assert_eq!(group.node(0, true, |node| node != 8), None);
        assert_eq!(group.node(0, false, |node| node != 8), Some(7));
        for (route, node) in [("$share/g/a/+", 8), ("$share/+g/a/+", 8), ("$share/+g/a/+", 7)] {
            index.change_route(route, node, false);
            index.change_route(route, node, false);
        }
        assert!(index.plan("a/b").is_empty());
        assert_eq!(index.routes(), 0);
    }

    fn levels(rng: &mut Rng, of: &[&str]) -> String {
        let levels: Vec<&str> = (0..rng.usize(1..4)).map(|_| of[rng.usize(..of.len())]).collect();
        levels.join("/")
    }

    fn planned(plan: &Plan) -> BTreeMap<u32, BTreeSet<u32>> {
        assert!(plan.targets().is_sorted_by(|a, b| a.place < b.place), "each session once");
        let identifiers = |target: &Target| {
            target.identifiers.iter().flat_map(|all| all.iter().copied()).collect()
        };
        plan.targets().iter().map(|t| (t.place.slot, identifiers(t))).collect()
    }

    fn found(naive: &BTreeMap<(String, u32), u32>, topic: &str) -> BTreeMap<u32, BTreeSet<u32>> {
        let mut found = BTreeMap::<u32, BTreeSet<u32>>::new();
        for ((filter, slot), identifier) in naive {
            if filter_matches(filter, topic) {
                found.entry(*slot).or_default().insert(*identifier);
            }
        }
        found
    }
}
