//! What is to be delivered where: the outcome of matching one topic, ready to be cached.

use std::{
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
    members: Box<[Target]>,
    turn: Arc<AtomicUsize>,
}

impl SharedTargets {
    pub(super) fn new(group: &SharedGroup) -> Self {
        let there = group.members.as_slice();
        let members = if there.is_empty() { group.away.as_slice() } else { there };
        Self {
            members: members.iter().map(|member| merge(&[*member])).collect(),
            turn: group.turn.clone(),
        }
    }

    /// The member whose turn it is. Section 4.8.2.
    #[must_use]
    pub fn next(&self) -> Option<&Target> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.members.get(turn.checked_rem(self.members.len())?)
    }
}

impl Plan {
    pub(super) fn new(mut found: Vec<Subscriber>, shared: Vec<SharedTargets>) -> Self {
        found.sort_unstable_by_key(|s| (s.place, s.identifier));
        let targets: Box<[Target]> = found.chunk_by(|a, b| a.place == b.place).map(merge).collect();
        let mut hosts: Vec<(Host, Range<u32>)> = Vec::new();
        for (at, target) in (0..).zip(&targets) {
            match hosts.last_mut() {
                Some((host, range)) if *host == target.place.host => range.end = at + 1,
                _ => hosts.push((target.place.host, at..at + 1)),
            }
        }
        Self { targets, hosts: hosts.into_boxed_slice(), shared: shared.into_boxed_slice() }
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
        let members = self.shared.iter().map(|shared| shared.members.len());
        self.targets.len() + members.sum::<usize>()
    }

    /// The hosts of the targets that are not shared subscriptions.
    pub fn hosts(&self) -> impl Iterator<Item = Host> {
        self.hosts.iter().map(|(host, _)| *host)
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

/// Merges the subscriptions of one session. `of_one` is not empty.
fn merge(of_one: &[Subscriber]) -> Target {
    let local: Vec<Subscriber> = of_one.iter().filter(|s| !s.options.no_local).copied().collect();
    let own_copy = match local.len() {
        0 => OwnCopy::Never,
        n if n == of_one.len() => OwnCopy::Same,
        _ => OwnCopy::Other(Box::new(combine(&local, OwnCopy::Same))),
    };
    combine(of_one, own_copy)
}

fn combine(of_one: &[Subscriber], own_copy: OwnCopy) -> Target {
    let identifiers: Vec<u32> = of_one.iter().filter_map(|s| s.identifier).collect();
    Target {
        place: of_one[0].place,
        qos: of_one.iter().map(|s| s.options.qos).max().unwrap_or_default(),
        retain_as_published: of_one.iter().any(|s| s.options.retain_as_published),
        identifiers: (!identifiers.is_empty()).then(|| identifiers.into()),
        own_copy,
    }
}
