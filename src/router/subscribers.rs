//! The subscribers of one filter: usually few, sometimes very many.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use foldhash::fast::RandomState;

use super::{Host, Place, backlog::BacklogHolders};
use crate::mqtt::{FilterParts, SubscriptionOptions};

/// A session's subscription to one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The address of the session.
    pub place: Place,
    /// Its Subscription Options.
    pub options: SubscriptionOptions,
    /// Subscription Identifier, if the client gave one.
    pub identifier: Option<u32>,
    /// Whether the session stores its messages durably.
    pub is_durable: bool,
}

/// Minimum size of a set with an index by place; a smaller set is searched linearly.
const INDEXED_FROM: usize = 16;

/// A set of subscribers, at most one for each session.
#[derive(Debug, Default)]
pub(super) enum SubscriberSet {
    #[default]
    None,
    /// Stored inline: most filters have one subscriber, and there are many filters.
    One(Subscriber),
    Many(Box<ManySubscribers>),
}

/// The content of a set that has had two or more subscribers.
#[derive(Debug, Default)]
pub(super) struct ManySubscribers {
    list: Vec<Subscriber>,
    positions: Option<HashMap<Place, u32, RandomState>>,
}

impl SubscriberSet {
    pub(super) const fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn contains(&self, place: Place) -> bool {
        self.find(place).is_some()
    }

    fn find(&self, place: Place) -> Option<Subscriber> {
        match self {
            Self::None => None,
            Self::One(there) => Some(*there).filter(|there| there.place == place),
            Self::Many(many) => many.position(place).map(|at| many.list[at]),
        }
    }

    pub(super) fn as_slice(&self) -> &[Subscriber] {
        match self {
            Self::None => &[],
            Self::One(subscriber) => std::slice::from_ref(subscriber),
            Self::Many(many) => &many.list,
        }
    }

    /// Adds or replaces a subscriber; returns whether it is new. [MQTT-3.8.4-3]
    pub(super) fn insert(&mut self, subscriber: Subscriber) -> bool {
        match self {
            Self::None => *self = Self::One(subscriber),
            Self::One(there) if there.place == subscriber.place => {
                *there = subscriber;
                return false;
            }
            Self::One(there) => {
                // From two on, the list is on the heap, so that the usual single subscriber needs
                // no allocation.
                let list = vec![*there, subscriber];
                *self = Self::Many(Box::new(ManySubscribers { list, positions: None }));
            }
            Self::Many(many) => return many.insert(subscriber),
        }
        true
    }

    /// Removes a subscriber; returns whether it existed.
    pub(super) fn remove(&mut self, place: Place) -> bool {
        match self {
            Self::None => false,
            Self::One(there) if there.place == place => {
                *self = Self::None;
                true
            }
            Self::One(_) => false,
            Self::Many(many) => {
                let removed = many.remove(place);
                // The empty list is freed, and the node of the tree may go.
                if many.list.is_empty() {
                    *self = Self::None;
                }
                removed
            }
        }
    }
}

impl ManySubscribers {
    fn insert(&mut self, subscriber: Subscriber) -> bool {
        // A replaced subscriber keeps its position, so the index stays right.
        if let Some(at) = self.position(subscriber.place) {
            self.list[at] = subscriber;
            return false;
        }
        if let Some(positions) = &mut self.positions {
            positions.insert(subscriber.place, self.list.len() as u32);
        }
        self.list.push(subscriber);
        // The index is built once the search along the list costs more than the memory of the index.
        if self.positions.is_none() && self.list.len() >= INDEXED_FROM {
            let positions = self.list.iter().enumerate().map(|(at, s)| (s.place, at as u32));
            self.positions = Some(positions.collect());
        }
        true
    }

    fn remove(&mut self, place: Place) -> bool {
        let Some(at) = self.position(place) else {
            return false;
        };
        self.list.swap_remove(at);
        if let Some(positions) = &mut self.positions {
            positions.remove(&place);
            if let Some(moved) = self.list.get(at) {
                positions.insert(moved.place, at as u32);
            }
        }
        true
    }

    fn position(&self, place: Place) -> Option<usize> {
        match &self.positions {
            Some(positions) => positions.get(&place).map(|at| *at as usize),
            None => self.list.iter().position(|s| s.place == place),
        }
    }
}

/// The members of one share name on one filter (section 4.8.2 of MQTT 5.0).
#[derive(Debug)]
pub(super) struct SharedGroup {
    name: Box<str>,
    /// The whole Topic Filter, including `$share/`.
    pub(super) filter: Arc<str>,
    /// A number that distinguishes the group from others of the same topic while it has members.
    pub(super) share: NonZeroU32,
    pub(super) members: SubscriberSet,
    /// Members without a connection: they receive a message only if no online member can.
    pub(super) away: SubscriberSet,
    /// Members whose clients may not connect: they receive nothing.
    suspended: SubscriberSet,
    /// The members with queued messages, and the turn counter.
    pub(super) backlog: BacklogHolders,
    /// Other nodes that have members.
    pub(super) nodes: Vec<GroupNode>,
}

/// Another node that has members of a shared subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupNode {
    pub(super) node: u32,
    /// Whether it has members with a connection.
    pub(super) has_online: bool,
    /// Whether it has members without one, which receive messages too.
    pub(super) has_offline: bool,
}

/// The subscribers of a filter that this node has: those that other nodes must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WantedHere {
    pub(super) directly: bool,
    /// Members of one shared subscription with a connection.
    pub(super) online: bool,
    /// Members of it without one.
    pub(super) offline: bool,
}

/// Whether a member of a shared subscription receives messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It has a connection, and receives its share.
    Online,
    /// It has no connection, and receives a message if no online member can.
    Offline,
    /// Its client may not connect, and it receives nothing.
    Suspended,
}

/// Maximum number of members that are told about queued messages that they may take.
const TOLD_MAX: usize = 256;

impl SharedGroup {
    fn set_mut(&mut self, state: MemberState) -> &mut SubscriberSet {
        match state {
            MemberState::Online => &mut self.members,
            MemberState::Offline => &mut self.away,
            MemberState::Suspended => &mut self.suspended,
        }
    }

    /// Removes a member; returns it if it existed.
    fn take(&mut self, place: Place) -> Option<Subscriber> {
        let states = [MemberState::Online, MemberState::Offline, MemberState::Suspended];
        states.into_iter().find_map(|state| {
            let members = self.set_mut(state);
            let found = members.find(place)?;
            members.remove(place);
            Some(found)
        })
    }

    const fn has_no_members(&self) -> bool {
        self.members.is_empty()
            && self.away.is_empty()
            && self.suspended.is_empty()
            && self.nodes.is_empty()
    }

    /// Notes whether another node has members; returns whether that is new.
    fn set_node(&mut self, node: u32, is_online: bool, has_some: bool) -> bool {
        let at = self.nodes.iter().position(|known| known.node == node).unwrap_or_else(|| {
            self.nodes.push(GroupNode { node, has_online: false, has_offline: false });
            self.nodes.len() - 1
        });
        let known = &mut self.nodes[at];
        let flag = if is_online { &mut known.has_online } else { &mut known.has_offline };
        let is_new = std::mem::replace(flag, has_some) != has_some;
        self.nodes.retain(|known| known.has_online || known.has_offline);
        is_new
    }

    /// Sends new messages to the queue of the last offline member with a backlog.
    fn settle_tail(&mut self) {
        let away = &self.away;
        self.backlog.settle_tail(|place| away.contains(place));
    }
}

/// All subscribers of one filter.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    pub(super) direct: SubscriberSet,
    #[expect(
        clippy::box_collection,
        reason = "most filters have none, and there are many filters"
    )]
    groups: Option<Box<Vec<SharedGroup>>>,
}

impl Subscribers {
    pub(super) const fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.groups.is_none()
    }

    /// Returns which subscribers this node has: those of a shared subscription, or otherwise the others.
    pub(super) fn wanted_here(&self, share_name: Option<&str>) -> WantedHere {
        let nothing = WantedHere::default();
        let Some(share_name) = share_name else {
            let mut subscribers = self.direct.as_slice().iter();
            let directly = subscribers.any(|subscriber| subscriber.place.host != Host::Nodes);
            return WantedHere { directly, ..nothing };
        };
        let group = self.groups().iter().find(|group| &*group.name == share_name);
        group.map_or(nothing, |group| WantedHere {
            online: !group.members.is_empty(),
            offline: !group.away.is_empty(),
            ..nothing
        })
    }

    pub(super) fn groups(&self) -> &[SharedGroup] {
        self.groups.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Adds or replaces a subscriber; returns whether it is new. A new group gets the number
    /// `next_share`.
    pub(super) fn insert(
        &mut self,
        filter: FilterParts<'_>,
        subscriber: Subscriber,
        next_share: impl FnOnce() -> NonZeroU32,
    ) -> bool {
        // The usual subscription belongs to no group, and pays for none.
        let Some(name) = filter.share_name else {
            return self.direct.insert(subscriber);
        };
        let group = self.group_or_new(name, filter.filter, next_share);
        // A member may have been absent or suspended; it subscribes again as a present one.
        let was_there = group.take(subscriber.place).is_some();
        group.members.insert(subscriber);
        !was_there
    }

    fn group_or_new(
        &mut self,
        name: &str,
        filter: &str,
        next_share: impl FnOnce() -> NonZeroU32,
    ) -> &mut SharedGroup {
        let groups = self.groups.get_or_insert_default();
        let at = groups.iter().position(|g| &*g.name == name).unwrap_or_else(|| {
            groups.push(SharedGroup {
                name: name.into(),
                filter: format!("$share/{name}/{filter}").into(),
                // Shares are told apart by their number, because the same name may exist for many filters.
                share: next_share(),
                members: SubscriberSet::default(),
                away: SubscriberSet::default(),
                suspended: SubscriberSet::default(),
                backlog: BacklogHolders::default(),
                nodes: Vec::new(),
            });
            groups.len() - 1
        });
        &mut groups[at]
    }

    /// Notes whether another node has members of a group, with or without a connection; returns whether that is
    /// new.
    pub(super) fn set_group_node(
        &mut self,
        (name, filter): (&str, &str),
        (node, is_online): (u32, bool),
        has_some: bool,
        next_share: impl FnOnce() -> NonZeroU32,
    ) -> bool {
        if !has_some && self.group_mut(name).is_none() {
            return false;
        }
        let is_new =
            self.group_or_new(name, filter, next_share).set_node(node, is_online, has_some);
        self.remove_if_empty(name);
        is_new
    }

    /// Removes a group without members. The next member founds a new group with another number, so old messages do
    /// not find it.
    fn remove_if_empty(&mut self, name: &str) {
        let Some(groups) = &mut self.groups else { return };
        groups.retain(|group| &*group.name != name || !group.has_no_members());
        if groups.is_empty() {
            self.groups = None;
        }
    }

    fn group_mut(&mut self, share_name: &str) -> Option<&mut SharedGroup> {
        self.groups.as_mut()?.iter_mut().find(|group| &*group.name == share_name)
    }

    /// Returns the number of a group.
    pub(super) fn share(&self, share_name: &str) -> Option<NonZeroU32> {
        Some(self.groups().iter().find(|group| &*group.name == share_name)?.share)
    }

    pub(super) fn remove(&mut self, share_name: Option<&str>, place: Place) -> bool {
        let Some(name) = share_name else {
            return self.direct.remove(place);
        };
        let Some(group) = self.group_mut(name) else { return false };
        let removed = group.take(place).is_some();
        // Its messages do not wait for this group any more, so another tail may be needed.
        if group.backlog.release(place) {
            group.settle_tail();
        }
        self.remove_if_empty(name);
        removed
    }

    /// Sets whether a member receives messages.
    pub(super) fn set_member(&mut self, share_name: &str, place: Place, state: MemberState) {
        let Some(group) = self.group_mut(share_name) else { return };
        if !group.set_mut(state).contains(place)
            && let Some(member) = group.take(place)
        {
            group.set_mut(state).insert(member);
            group.settle_tail();
        }
    }

    /// Notes that the member at `place` has queued messages of the group. Returns some of the
    /// online members.
    pub(super) fn begin_backlog(&mut self, share_name: &str, place: Place) -> Vec<Place> {
        let Some(group) = self.group_mut(share_name) else { return Vec::new() };
        group.backlog.begin(place);
        group.settle_tail();
        let there = group.members.as_slice().iter().map(|member| member.place);
        there.filter(|there| *there != place).take(TOLD_MAX).collect()
    }

    /// Notes that the member at `place` has no more queued messages, or none that an online member
    /// can take.
    pub(super) fn release(&mut self, share_name: &str, place: Place, is_empty: bool) {
        let Some(group) = self.group_mut(share_name) else { return };
        if is_empty {
            group.backlog.release(place);
        }
        group.settle_tail();
        if !is_empty {
            group.backlog.cut_off_tail(place);
        }
    }

    /// Returns the first member with queued messages of the group, except these.
    pub(super) fn next_holder(&self, share_name: &str, except: &[Place]) -> Option<Place> {
        let group = self.groups().iter().find(|group| &*group.name == share_name)?;
        group.backlog.first(except)
    }
}
