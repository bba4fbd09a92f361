//! What is to be delivered where: the outcome of matching one topic, ready to be cached.

use std::{
    num::NonZeroU32,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Host, Place,
    subscribers::{SharedGroup, Subscriber},
};
use crate::mqtt::QoS;

/// The targets of a topic, by host.
#[derive(Debug, Default)]
pub struct Plan {
    targets: Box<[Target]>,
    hosts: Box<[(Host, Range<u32>)]>,
    shared: Box<[SharedTargets]>,
    /// How many of those who get the message may keep it over the broker's end.
    durable: u32,
}

/// A session that gets the message, its matching subscriptions merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The session.
    pub place: Place,
    /// The highest QoS of its matching subscriptions. [MQTT-3.3.4-2]
    pub qos: QoS,
    /// Whether one of them asked to keep the RETAIN flag.
    pub retain_as_published: bool,
    /// The Subscription Identifiers of all of them. [MQTT-3.3.4-4]
    pub identifiers: Option<Arc<[u32]>>,
    /// Whether the session keeps what it gets over the broker's end.
    pub is_durable: bool,
    /// What of this holds where the session itself is the publisher.
    pub own_copy: OwnCopy,
}

/// How No Local changes what a publisher gets of its own message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnCopy {
    /// Like everybody else.
    Same,
    /// Nothing: all matching subscriptions have No Local. [MQTT-3.8.3-3]
    Never,
    /// Only what the subscriptions without No Local ask for.
    Other(Box<Target>),
}

/// A shared subscription: one of its members gets the message.
#[derive(Debug)]
pub struct SharedTargets {
    share: NonZeroU32,
    filter: Arc<str>,
    /// Those who are there, then those whose session has no connection; each by host, so that a
    /// message that one after the other does not take goes to few hosts.
    members: Box<[Target]>,
    there: usize,
    turn: Arc<AtomicUsize>,
}

impl SharedTargets {
    pub(super) fn new(group: &SharedGroup) -> Self {
        let there = targets_of(group.members.as_slice());
        let away = targets_of(group.away.as_slice());
        Self {
            share: group.share,
            filter: group.filter.clone(),
            there: there.len(),
            members: there.into_iter().chain(away).collect(),
            turn: group.turn.clone(),
        }
    }

    /// Those who are there, among whom one gets the message if it has room.
    #[must_use]
    pub fn members_there(&self) -> &[Target] {
        &self.members[..self.there]
    }

    /// Its number, which no other shared subscription of the topic has.
    #[must_use]
    pub const fn share(&self) -> NonZeroU32 {
        self.share
    }

    /// Its whole Topic Filter, `$share/` included.
    #[must_use]
    pub const fn filter(&self) -> &Arc<str> {
        &self.filter
    }

    /// Whether one of its members keeps what it gets over the broker's end.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.members.iter().any(|member| member.is_durable)
    }

    /// How many members there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether the member that is tried after so many others has a connection.
    #[must_use]
    pub const fn is_there(&self, tried: usize) -> bool {
        tried < self.there
    }

    /// Whose turn it is.
    #[must_use]
    pub fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// The members in the order in which they are to be tried in this turn: those who are there
    /// first. `None` when all were tried. Section 4.8.2 leaves the choice to the server.
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
    pub(super) fn new(mut found: Vec<Subscriber>, shared: Vec<SharedTargets>) -> Self {
        found.sort_unstable_by_key(order);
        let mut targets = Vec::with_capacity(found.len());
        targets.extend(found.chunk_by(|a, b| a.place == b.place).map(merge));
        let mut hosts: Vec<(Host, Range<u32>)> = Vec::new();
        for (at, target) in (0..).zip(&targets) {
            match hosts.last_mut() {
                Some((host, range)) if *host == target.place.host => range.end = at + 1,
                _ => hosts.push((target.place.host, at..at + 1)),
            }
        }
        let durable = targets.iter().filter(|target| target.is_durable).count()
            + shared.iter().filter(|group| group.is_durable()).count();
        Self {
            targets: targets.into_boxed_slice(),
            hosts: hosts.into_boxed_slice(),
            shared: shared.into_boxed_slice(),
            durable: durable as u32,
        }
    }

    /// Whether nobody gets the message.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.shared.is_empty()
    }

    /// How many sessions get the message.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.targets.len() + self.shared.len()
    }

    /// How many targets it holds, all members of shared subscriptions included.
    #[must_use]
    pub fn targets_len(&self) -> usize {
        let members = self.shared.iter().map(SharedTargets::len);
        self.targets.len() + members.sum::<usize>()
    }

    /// How many of those who get the message may keep it over the broker's end; a shared
    /// subscription counts once.
    #[must_use]
    pub const fn durable_len(&self) -> usize {
        self.durable as usize
    }

    /// Whether one of the targets at `host` that are not shared subscriptions is durable.
    #[must_use]
    pub fn is_durable_at(&self, host: Host) -> bool {
        self.durable > 0 && self.targets_at(host).iter().any(|target| target.is_durable)
    }

    /// The hosts of the targets that are not shared subscriptions.
    pub fn hosts(&self) -> impl Iterator<Item = Host> {
        self.hosts.iter().map(|(host, _)| *host)
    }

    /// The targets that are not shared subscriptions, in the order of their places.
    #[must_use]
    pub const fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The target at `place` that is not by a shared subscription.
    #[must_use]
    pub fn target(&self, place: Place) -> Option<&Target> {
        let at = self.targets.binary_search_by_key(&place, |target| target.place).ok()?;
        self.targets.get(at)
    }

    /// The targets at `host` that are not shared subscriptions.
    #[must_use]
    pub fn targets_at(&self, host: Host) -> &[Target] {
        match self.hosts.iter().find(|(at, _)| *at == host) {
            Some((_, range)) => &self.targets[range.start as usize..range.end as usize],
            None => &[],
        }
    }

    /// The shared subscriptions.
    #[must_use]
    pub const fn shared(&self) -> &[SharedTargets] {
        &self.shared
    }
}

/// By place, then by identifier: one number, since comparing field by field was most of the sort.
const fn order(subscriber: &Subscriber) -> u128 {
    let Place { host, slot, generation } = subscriber.place;
    // An identifier is never 0, section 3.8.2.1.2.
    let identifier = match subscriber.identifier {
        Some(identifier) => identifier,
        None => 0,
    };
    (host.0 as u128) << 96 | (slot as u128) << 64 | (generation as u128) << 32 | identifier as u128
}

/// Merges the subscriptions of one session. `of_one` is not empty.
fn merge(of_one: &[Subscriber]) -> Target {
    if let [only] = of_one {
        return target_of(only); // The usual case, at no cost but the target's.
    }
    let local: Vec<Subscriber> = of_one.iter().filter(|s| !s.options.no_local).copied().collect();
    let own_copy = match local.len() {
        0 => OwnCopy::Never,
        n if n == of_one.len() => OwnCopy::Same,
        _ => OwnCopy::Other(Box::new(combine(&local, OwnCopy::Same))),
    };
    combine(of_one, own_copy)
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
