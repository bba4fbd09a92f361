//! The result of matching one topic: the targets of its messages. Plans are cached.

use std::{num::NonZeroU32, ops::Range, sync::Arc};

use smallvec::SmallVec;

use super::{
    Host, Place,
    backlog::Turns,
    subscribers::{SharedGroup, Subscriber},
};
use crate::mqtt::QoS;

/// The targets of a topic, by host.
#[derive(Debug, Default)]
pub struct Plan {
    targets: Box<[Target]>,
    hosts: Box<[(Host, Range<u32>)]>,
    shared: Box<[SharedTargets]>,
    /// Number of recipients that may store the message durably.
    durable: u32,
}

/// A session that receives the message, with its matching subscriptions merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The session.
    pub place: Place,
    /// The highest QoS of its matching subscriptions. [MQTT-3.3.4-2]
    pub qos: QoS,
    /// Whether one of them has Retain As Published.
    pub retain_as_published: bool,
    /// The Subscription Identifiers of all of them. [MQTT-3.3.4-4]
    pub identifiers: Option<Arc<[u32]>>,
    /// Whether the session stores its messages durably.
    pub is_durable: bool,
    /// The difference if the session itself is the publisher.
    pub own_copy: OwnCopy,
}

/// The effect of No Local on a publisher's own message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnCopy {
    /// The publisher receives it like every other session.
    Same,
    /// The publisher does not receive it: all its subscriptions have No Local. [MQTT-3.8.3-3]
    Never,
    /// The publisher receives it by its subscriptions without No Local only.
    Other(Box<Target>),
}

/// A shared subscription: one of its members receives the message.
#[derive(Debug)]
pub struct SharedTargets {
    share: NonZeroU32,
    filter: Arc<str>,
    /// The online members, then the offline ones; both sorted by host, so that a message that
    /// several members refuse in turn crosses few hosts.
    members: Box<[Target]>,
    there: usize,
    turns: Arc<Turns>,
    /// Other nodes with members: those with a connected one, then the others.
    nodes: Box<[u32]>,
    nodes_there: usize,
}

impl SharedTargets {
    pub(super) fn new(group: &SharedGroup) -> Self {
        let there = targets_of(group.members.as_slice());
        let away = targets_of(group.away.as_slice());
        let nodes = |has_online| {
            let nodes = group.nodes.iter().filter(move |it| it.has_online == has_online);
            nodes.map(|it| it.node)
        };
        Self {
            share: group.share,
            filter: group.filter.clone(),
            there: there.len(),
            members: there.into_iter().chain(away).collect(),
            turns: group.backlog.turns.clone(),
            nodes: nodes(true).chain(nodes(false)).collect(),
            nodes_there: nodes(true).count(),
        }
    }

    /// Returns the other node to try in this turn, of those that may be tried: one with a connected member, if
    /// there is one; another one only if it need not be `online`.
    #[must_use]
    pub fn node(&self, turn: usize, online: bool, may_try: impl Fn(u32) -> bool) -> Option<u32> {
        let (there, away) = self.nodes.split_at(self.nodes_there);
        let of = |nodes: &[u32]| {
            let tried = (0..nodes.len()).map(|at| nodes[turn.wrapping_add(at) % nodes.len()]);
            tried.into_iter().find(|node| may_try(*node))
        };
        of(there).or_else(|| if online { None } else { of(away) })
    }

    /// Returns whether another node has members.
    #[must_use]
    pub const fn has_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Returns the online members; one of them receives the message if it has room.
    #[must_use]
    pub fn members_there(&self) -> &[Target] {
        &self.members[..self.there]
    }

    /// Returns all members, the online ones first.
    #[must_use]
    pub const fn all_members(&self) -> &[Target] {
        &self.members
    }

    /// Returns its number, which is unique among the shared subscriptions of the topic.
    #[must_use]
    pub const fn share(&self) -> NonZeroU32 {
        self.share
    }

    /// Returns its whole Topic Filter, including `$share/`.
    #[must_use]
    pub const fn filter(&self) -> &Arc<str> {
        &self.filter
    }

    /// Returns whether a member stores its messages durably.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.members.iter().any(|member| member.is_durable)
    }

    /// Returns the number of members.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns whether there is no member.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns whether the member that follows `tried` others is online.
    #[must_use]
    pub const fn is_there(&self, tried: usize) -> bool {
        tried < self.there
    }

    /// Returns the next turn, which selects the first member to try.
    #[must_use]
    pub fn next_turn(&self) -> usize {
        self.turns.take()
    }

    /// Returns the member whose queue new messages go to while offline members have queued
    /// messages. The other members take them from there in order.
    #[must_use]
    pub fn tail(&self) -> Option<&Target> {
        let (host, slot) = self.turns.tail()?;
        let (there, away) = self.members.split_at(self.there);
        let key = |target: &Target| (target.place.host, target.place.slot);
        let find = |members: &'_ [Target]| members.binary_search_by_key(&(host, slot), key).ok();
        find(away).map(|at| &away[at]).or_else(|| find(there).map(|at| &there[at]))
    }

    /// Returns the turn that tries the member at `place` first; `None` if it is not online.
    #[must_use]
    pub fn turn_of(&self, place: Place) -> Option<usize> {
        self.members_there().binary_search_by_key(&place, |target| target.place).ok()
    }

    /// Returns the member to try in this turn after `tried` others, online members first; `None`
    /// when all were tried. Section 4.8.2 leaves the choice to the server.
    #[must_use]
    pub fn member(&self, turn: usize, tried: usize) -> Option<&Target> {
        let away = self.members.len() - self.there;
        if tried < self.there {
            self.members.get(turn.wrapping_add(tried) % self.there)
        } else if tried < self.members.len() {
            self.members.get(self.there + turn.wrapping_add(tried) % away)
        } else {
            None
        }
    }
}

fn targets_of(members: &[Subscriber]) -> Vec<Target> {
    let mut targets: Vec<Target> = members.iter().map(target_of).collect();
    targets.sort_unstable_by_key(|target| target.place);
    targets
}

impl Plan {
    pub(super) fn new(found: &[Subscriber], shared: Vec<SharedTargets>) -> Self {
        let mut keys: SmallVec<[u128; 16]> = (0..).zip(found).map(key).collect();
        // Sorting brings the subscriptions of one session together, and the sessions of one host.
        keys.sort_unstable();
        let mut targets = Vec::with_capacity(found.len());
        let of_sessions = keys.chunk_by(|a, b| a >> INDEX_BITS == b >> INDEX_BITS);
        targets.extend(of_sessions.map(|keys| merge(found, keys)));
        // Targets of one host are one range, so a shard finds its own without a search.
        let mut hosts: SmallVec<[(Host, Range<u32>); 8]> = SmallVec::new();
        for (at, target) in (0..).zip(&targets) {
            match hosts.last_mut() {
                Some((host, range)) if *host == target.place.host => range.end = at + 1,
                _ => hosts.push((target.place.host, at..at + 1)),
            }
        }
        // Counted once here, because each message with QoS 1 or 2 asks for it.
        let durable = targets.iter().filter(|target| target.is_durable).count()
            + shared.iter().filter(|group| group.is_durable()).count();
        Self {
            targets: targets.into_boxed_slice(),
            hosts: hosts.as_slice().into(),
            shared: shared.into_boxed_slice(),
            durable: durable as u32,
        }
    }

    /// Returns whether no session receives the message.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.shared.is_empty()
    }

    /// Returns the number of sessions that receive the message.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.targets.len() + self.shared.len()
    }

    /// Returns the number of targets, including all members of shared subscriptions.
    #[must_use]
    pub fn targets_len(&self) -> usize {
        let members = self.shared.iter().map(SharedTargets::len);
        self.targets.len() + members.sum::<usize>()
    }

    /// Returns the number of recipients that may store the message durably; a shared subscription
    /// counts once.
    #[must_use]
    pub const fn durable_len(&self) -> usize {
        self.durable as usize
    }

    /// Returns whether a target at `host` is durable, shared subscriptions excluded.
    #[must_use]
    pub fn is_durable_at(&self, host: Host) -> bool {
        self.durable > 0 && self.targets_at(host).iter().any(|target| target.is_durable)
    }

    /// Returns the hosts of the targets, shared subscriptions excluded.
    pub fn hosts(&self) -> impl Iterator<Item = Host> {
        self.hosts.iter().map(|(host, _)| *host)
    }

    /// Returns the targets in the order of their places, shared subscriptions excluded.
    #[must_use]
    pub const fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Returns the target at `place`, shared subscriptions excluded.
    #[must_use]
    pub fn target(&self, place: Place) -> Option<&Target> {
        let at = self.targets.binary_search_by_key(&place, |target| target.place).ok()?;
        self.targets.get(at)
    }

    /// Returns the targets at `host`, shared subscriptions excluded.
    #[must_use]
    pub fn targets_at(&self, host: Host) -> &[Target] {
        match self.hosts.iter().find(|(at, _)| *at == host) {
            Some((_, range)) => &self.targets[range.start as usize..range.end as usize],
            None => &[],
        }
    }

    /// Returns the shared subscriptions.
    #[must_use]
    pub const fn shared(&self) -> &[SharedTargets] {
        &self.shared
    }
}

/// Bits of a key that are the index of the subscriber.
const INDEX_BITS: u32 = 32;

/// Returns a number that orders by place, and contains the index of the subscriber. Sorting numbers
/// takes half the instructions of sorting subscribers.
fn key((index, subscriber): (u32, &Subscriber)) -> u128 {
    let Place { host, slot, generation } = subscriber.place;
    u128::from(host.number()) << 96
        | u128::from(slot) << 64
        | u128::from(generation) << INDEX_BITS
        | u128::from(index)
}

/// Merges the subscriptions of one session, whose `keys` must not be empty.
fn merge(found: &[Subscriber], keys: &[u128]) -> Target {
    let subscriber = |key: &u128| &found[*key as u32 as usize];
    if let [only] = keys {
        return target_of(subscriber(only)); // the usual case, without the cost of merging
    }
    let mut of_one: Vec<Subscriber> = keys.iter().map(subscriber).copied().collect();
    // Subscription Identifiers of a message are in a stable order.
    of_one.sort_by_key(|subscriber| subscriber.identifier);
    let local: Vec<Subscriber> = of_one.iter().filter(|s| !s.options.no_local).copied().collect();
    // No Local may hold for some of the subscriptions only, so the publisher's own copy may differ.
    // [MQTT-3.8.3-3]
    let own_copy = match local.len() {
        0 => OwnCopy::Never,
        n if n == of_one.len() => OwnCopy::Same,
        _ => OwnCopy::Other(Box::new(combine(&local, OwnCopy::Same))),
    };
    combine(&of_one, own_copy)
}

fn target_of(only: &Subscriber) -> Target {
    Target {
        place: only.place,
        qos: only.options.qos,
        retain_as_published: only.options.retain_as_published,
        identifiers: only.identifier.map(|identifier| Arc::from([identifier])),
        is_durable: only.is_durable,
        own_copy: if only.options.no_local { OwnCopy::Never } else { OwnCopy::Same },
    }
}

fn combine(of_one: &[Subscriber], own_copy: OwnCopy) -> Target {
    let identifiers: Vec<u32> = of_one.iter().filter_map(|s| s.identifier).collect();
    Target {
        place: of_one[0].place,
        qos: of_one.iter().map(|s| s.options.qos).max().unwrap_or_default(),
        retain_as_published: of_one.iter().any(|s| s.options.retain_as_published),
        identifiers: (!identifiers.is_empty()).then(|| identifiers.into()),
        is_durable: of_one[0].is_durable,
        own_copy,
    }
}
