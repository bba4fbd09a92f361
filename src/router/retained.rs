//! Retained messages: the last one of each topic, found by Topic Filter.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::mqtt::{Message, Timestamp};

/// How much may be retained.
#[derive(Clone, Copy, Debug)]
pub struct RetainedLimits {
    /// Messages, which is also topics.
    pub messages_max: usize,
    /// Bytes of topics, properties and payloads, and of the topic levels that lead to them.
    pub bytes_max: usize,
}

/// No room for another retained message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit on retained messages is reached")]
pub struct RetainedFull;

/// All retained messages, shared by all shards.
#[derive(Debug)]
pub struct Retained {
    store: RwLock<Store>,
    limits: RetainedLimits,
}

#[derive(Debug, Default)]
struct Store {
    root: Node,
    messages: usize,
    bytes: usize,
    last_number: u64,
    /// When room was last looked for among what has expired.
    cleaned_at: Timestamp,
}

/// A full store looks for expired messages no more often than this: it looks at every message.
const CLEAN_EVERY_SECS: u64 = 10;

/// A slice ends with the message that makes it so large: somebody keeps it until it is sent.
const SLICE_BYTES: usize = 64 * 1024;

/// What a level of a topic that no other retained message has counts against the bytes, beside its
/// text: a node of the tree, its place in the parent's table, and what that table keeps free.
const LEVEL_BYTES: usize = 256;

#[derive(Debug, Default)]
struct Node {
    message: Option<Kept>,
    /// In an order, so that a walk can go on where it was interrupted.
    children: BTreeMap<Box<str>, Self>,
}

#[derive(Debug)]
struct Kept {
    message: Arc<Message>,
    /// Counts the messages that were retained.
    number: u64,
}

/// Which retained messages are asked for.
#[derive(Clone, Copy, Debug)]
pub struct RetainedQuery<'q> {
    /// A valid Topic Filter that is not shared.
    pub filter: &'q str,
    /// Where the last slice ended; `None` for the first.
    pub after: Option<&'q str>,
    /// [`Retained::last_number`] of when the walk began: what was retained since is not found.
    pub until: u64,
}

/// Some of the retained messages that were asked for.
#[derive(Debug)]
pub struct RetainedSlice {
    /// They.
    pub messages: Vec<Arc<Message>>,
    /// After which topic to go on; `None` if that were all.
    pub go_on_after: Option<Box<str>>,
    /// How many nodes of the tree were looked at.
    pub nodes: usize,
}

impl Retained {
    /// An empty store with these limits.
    #[must_use]
    pub fn new(limits: RetainedLimits) -> Self {
        Self { store: RwLock::default(), limits }
    }

    /// Retains `message` in place of its topic's former one. [MQTT-3.3.1-5]
    /// Messages that have expired by `now` go if their room is needed.
    ///
    /// # Errors
    /// [`RetainedFull`] if a limit would be passed. Then nothing is retained for the topic: its
    /// former message is no longer the last one.
    pub fn set(&self, message: Arc<Message>, now: Timestamp) -> Result<(), RetainedFull> {
        let mut store = self.write();
        let (messages, bytes) = match self.usage_with(&store, &message) {
            Ok(usage) => usage,
            Err(RetainedFull) => {
                store.clean(now);
                self.usage_with(&store, &message).inspect_err(|_| store.remove(message.topic()))?
            }
        };
        store.last_number += 1;
        let number = store.last_number;
        let mut node = &mut store.root;
        for level in message.topic().split('/') {
            if !node.children.contains_key(level) {
                node.children.insert(level.into(), Node::default());
            }
            node = node.children.get_mut(level).expect("it is there or was just inserted");
        }
        node.message = Some(Kept { message, number });
        (store.messages, store.bytes) = (messages, bytes);
        Ok(())
    }

    /// Messages and bytes once `message` is retained, if there is room for it.
    fn usage_with(&self, store: &Store, message: &Message) -> Result<(usize, usize), RetainedFull> {
        let (former, new_levels) = store.root.place_of(message.topic());
        let former = former.map(|m| m.size());
        let bytes = store.bytes + message.size() + new_levels - former.unwrap_or(0);
        let messages = store.messages + usize::from(former.is_none());
        if messages > self.limits.messages_max || bytes > self.limits.bytes_max {
            return Err(RetainedFull);
        }
        Ok((messages, bytes))
    }

    /// Forgets the retained message of `topic`. [MQTT-3.3.1-6]
    pub fn clear(&self, topic: &str) {
        self.write().remove(topic);
    }

    /// The retained message of `topic`.
    pub fn get(&self, topic: &str) -> Option<Arc<Message>> {
        let store = self.read();
        let mut node = &store.root;
        for level in topic.split('/') {
            node = node.children.get(level)?;
        }
        node.message.as_ref().map(|kept| kept.message.clone())
    }

    /// How many messages were ever retained: what is retained from now on has a higher number.
    pub fn last_number(&self) -> u64 {
        self.read().last_number
    }

    /// The next of the retained messages whose topic matches `filter`, a valid one that is not
    /// shared: those after the topic `after`, in the order of their levels' text, as far as they are
    /// found among the next `nodes_max` nodes of the tree and have at most the number `until`, and no
    /// more than about 64 KiB of them.
    pub fn slice(
        &self,
        which: &RetainedQuery<'_>,
        nodes_max: usize,
        now: Timestamp,
    ) -> RetainedSlice {
        let levels: Vec<&str> = which.filter.split('/').collect();
        let after: Option<Vec<&str>> = which.after.map(|topic| topic.split('/').collect());
        let mut messages = Vec::new();
        // The root counts as well.
        let nodes_left = nodes_max.max(1).saturating_add(usize::from(after.is_none()));
        let mut walk = Walk {
            now,
            until: which.until,
            nodes_left,
            bytes_left: SLICE_BYTES,
            found: &mut messages,
            topic: String::new(),
            depth: 0,
        };
        let outcome = self.read().root.visit(&levels, after.as_deref(), &mut walk);
        let nodes = nodes_left - walk.nodes_left;
        let go_on_after = outcome.is_break().then(|| walk.topic.into_boxed_str());
        RetainedSlice { messages, go_on_after, nodes }
    }

    /// Messages and bytes retained.
    pub fn usage(&self) -> (usize, usize) {
        let store = self.read();
        (store.messages, store.bytes)
    }

    fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn remove(&mut self, topic: &str) {
        let mut freed = 0;
        if let Some(message) = self.root.remove(topic, &mut freed) {
            self.messages -= 1;
            self.bytes -= message.size() + freed;
        }
    }

    /// Removes what has expired, unless that was done a moment ago.
    fn clean(&mut self, now: Timestamp) {
        if now < self.cleaned_at.plus_secs(CLEAN_EVERY_SECS) {
            return;
        }
        self.cleaned_at = now;
        let (messages, bytes) = self.root.remove_expired(now);
        self.messages -= messages;
        self.bytes -= bytes;
    }
}

impl Node {
    /// Removes what has expired, and the nodes that only led to it; how many messages, and how
    /// many bytes they counted.
    fn remove_expired(&mut self, now: Timestamp) -> (usize, usize) {
        let expired = self.message.take_if(|kept| kept.message.publication().has_expired(now));
        let mut removed = expired.map_or((0, 0), |kept| (1, kept.message.size()));
        self.children.retain(|level, child| {
            let (messages, bytes) = child.remove_expired(now);
            removed.0 += messages;
            removed.1 += bytes;
            if child.is_unused() {
                removed.1 += bytes_of(level);
            }
            !child.is_unused()
        });
        removed
    }

    /// The message of `topic`, and what its levels that are not there yet would count.
    fn place_of(&self, topic: &str) -> (Option<&Arc<Message>>, usize) {
        let mut node = Some(self);
        let mut new_levels = 0;
        for level in topic.split('/') {
            node = node.and_then(|node| node.children.get(level));
            if node.is_none() {
                new_levels += bytes_of(level);
            }
        }
        (node.and_then(|node| node.message.as_ref()).map(|kept| &kept.message), new_levels)
    }

    /// Removes the message of `topic`, and the nodes that only led to it; adds to `freed` what
    /// those counted.
    fn remove(&mut self, topic: &str, freed: &mut usize) -> Option<Arc<Message>> {
        let (level, rest) = match topic.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (topic, None),
        };
        let child = self.children.get_mut(level)?;
        let removed = match rest {
            Some(rest) => child.remove(rest, freed),
            None => child.message.take().map(|kept| kept.message),
        };
        if child.is_unused() {
            self.children.remove(level);
            *freed += bytes_of(level);
        }
        removed
    }

    fn is_unused(&self) -> bool {
        self.message.is_none() && self.children.is_empty()
    }

    /// Visits this node and those below it that `levels` of a filter lead to, in the order of their
    /// names; `Break` once enough were visited. Those up to and including `after` are passed over.
    fn visit(
        &self,
        levels: &[&str],
        after: Option<&[&str]>,
        walk: &mut Walk<'_>,
    ) -> ControlFlow<()> {
        if after.is_none() {
            if matches!(levels.first(), None | Some(&"#")) {
                let found = self.message.as_ref().and_then(|kept| kept.is_for(walk));
                let bytes = found.as_ref().map_or(0, |message| message.size());
                walk.bytes_left = walk.bytes_left.saturating_sub(bytes);
                walk.found.extend(found);
            }
            walk.nodes_left -= 1;
            if walk.nodes_left == 0 || walk.bytes_left == 0 {
                return ControlFlow::Break(());
            }
        }
        let (level, below) = match levels {
            [] => return ControlFlow::Continue(()),
            ["#"] => ("#", levels),
            [level, below @ ..] => (*level, below),
        };
        let (from, rest) = match after {
            Some([from, rest @ ..]) => (*from, rest),
            None | Some([]) => ("", &[][..]),
        };
        let is_root = walk.depth == 0;
        let mut go_on = |name: &str, child: &Self| {
            let is_begun = after.is_some_and(|after| after.first() == Some(&name));
            walk.within(name, |walk| child.visit(below, is_begun.then_some(rest), walk))
        };
        if level != "#" && level != "+" {
            let child = self.children.get(level).filter(|_| level >= from);
            return child.map_or(ControlFlow::Continue(()), |child| go_on(level, child));
        }
        // Wildcards do not match a first level that begins with '$', and these are leapt over: they
        // may be many. [MQTT-4.7.2-1]
        let (gap, after_gap) = if is_root { ("$", "%") } else { ("", "") };
        let before = (Bound::Included(from.min(gap)), Bound::Excluded(gap));
        let behind = (Bound::Included(from.max(after_gap)), Bound::Unbounded);
        let before = self.children.range::<str, _>(before);
        let mut children = before.chain(self.children.range::<str, _>(behind));
        children.try_for_each(|(name, child)| go_on(name, child))
    }
}

impl Kept {
    /// The message, if the walk is to find it.
    fn is_for(&self, walk: &Walk<'_>) -> Option<Arc<Message>> {
        let is_old_enough = self.number <= walk.until;
        let found = is_old_enough && !self.message.publication().has_expired(walk.now);
        found.then(|| self.message.clone())
    }
}

/// A walk along the tree, and where it is.
struct Walk<'w> {
    now: Timestamp,
    until: u64,
    nodes_left: usize,
    bytes_left: usize,
    found: &'w mut Vec<Arc<Message>>,
    /// The topic of the node, and how many levels it has.
    topic: String,
    depth: usize,
}

impl Walk<'_> {
    /// Does something one level further down. Where it breaks off, `topic` stays where it was.
    fn within(
        &mut self,
        level: &str,
        visit: impl FnOnce(&mut Self) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let above = self.topic.len();
        if self.depth > 0 {
            self.topic.push('/');
        }
        self.topic.push_str(level);
        self.depth += 1;
        visit(self)?;
        self.depth -= 1;
        self.topic.truncate(above);
        ControlFlow::Continue(())
    }
}

const fn bytes_of(level: &str) -> usize {
    LEVEL_BYTES + level.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{Publication, QoS};

    const NOW: Timestamp = Timestamp(0);

    fn message(topic: &str) -> Arc<Message> {
        let publication = Publication {
            topic,
            payload: b"x",
            qos: QoS::AtMostOnce,
            retain: true,
            properties: &[],
            expires_at: None,
        };
        Arc::new(Message::new(&publication))
    }

    fn store<'t>(topics: impl IntoIterator<Item = &'t str>) -> Retained {
        let limits = RetainedLimits { messages_max: usize::MAX, bytes_max: usize::MAX };
        let store = Retained::new(limits);
        for topic in topics {
            store.set(message(topic), NOW).expect("there is room");
        }
        store
    }

    /// Section 4.7, as one would write it down.
    fn matches(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => matches(filter, topic),
            ([f, filter @ ..], [t, topic @ ..]) => f == t && matches(filter, topic),
            ([], _) | (_, []) => false,
        }
    }

    fn naive<'t>(filter: &str, topics: &[&'t str]) -> Vec<&'t str> {
        let levels = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let wild = filter.starts_with(['+', '#']);
        let mut found: Vec<_> = topics
            .iter()
            .filter(|topic| {
                let (filter, topic_levels) = (levels(filter), levels(topic));
                let filter: Vec<_> = filter.iter().map(String::as_str).collect();
                let topic_levels: Vec<_> = topic_levels.iter().map(String::as_str).collect();
                !(wild && topic.starts_with('$')) && matches(&filter, &topic_levels)
            })
            .copied()
            .collect();
        found.sort_by_key(|topic| levels(topic));
        found
    }

    fn walk(store: &Retained, filter: &str, nodes_max: usize) -> Vec<String> {
        let until = store.last_number();
        let mut found = Vec::new();
        let mut after: Option<Box<str>> = None;
        loop {
            let query = RetainedQuery { filter, after: after.as_deref(), until };
            let slice = store.slice(&query, nodes_max, NOW);
            assert!(slice.messages.len() <= nodes_max);
            found.extend(slice.messages.iter().map(|message| message.topic().to_owned()));
            match slice.go_on_after {
                None => return found,
                next => after = next,
            }
        }
    }

    #[test]
    fn slices_of_any_size_find_what_a_naive_search_finds() {
        let words = ["", "a", "b", "ab", "$s"];
        let mut topics = vec!["a", "b", "ab", "$s", "!", "!~", "$", "$~", "%", "%a"];
        let deeper: Vec<_> = words
            .iter()
            .flat_map(|one| words.iter().map(move |two| format!("{one}/{two}")))
            .flat_map(|two| [two.clone(), format!("{two}/a"), format!("{two}//")])
            .collect();
        topics.extend(deeper.iter().map(String::as_str));
        let store = store(topics.iter().copied());
        let filters = ["#", "+", "a", "a/#", "+/+", "+/#", "/+", "/#", "a/+/#", "+/a/+", "$s/#"];
        for filter in filters.into_iter().chain(["+/+/+/+", "a/b", "c/#", "$s/+/a", "//#"]) {
            for nodes_max in [1, 2, 3, 7, 1000] {
                let found = walk(&store, filter, nodes_max);
                assert_eq!(found, naive(filter, &topics), "{filter} by {nodes_max}");
            }
        }
    }

    #[test]
    fn what_changes_during_a_walk_is_found_at_most_once() {
        let store = store(["a", "b", "c", "d"]);
        let until = store.last_number();
        let slice = |after| store.slice(&RetainedQuery { filter: "#", after, until }, 2, NOW);
        let first = slice(None);
        let go_on_after = first.go_on_after.expect("there is more");
        assert_eq!((first.messages.len(), &*go_on_after), (2, "b"));
        store.clear("b");
        store.clear("c");
        store.set(message("a"), NOW).expect("there is room");
        store.set(message("bb"), NOW).expect("there is room");
        let second = slice(Some("b"));
        let topics: Vec<_> = second.messages.iter().map(|m| m.topic()).collect();
        assert_eq!(topics, ["d"]);
    }
}
