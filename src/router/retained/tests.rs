//! Compares the retained store with naive models: query results, limits and accounting.

use super::*;
use crate::{
    limits::{Limits, OwnLimits},
    mqtt::{Publication, QoS},
    owners::{Owner, Owners},
};

const NOW: Timestamp = Timestamp(0);

fn message(topic: &str) -> Arc<Message> {
    of(topic, b"x", None)
}

fn of(topic: &str, payload: &[u8], expires_at: Option<u64>) -> Arc<Message> {
    let publication = Publication {
        topic,
        payload,
        qos: QoS::AtMostOnce,
        retain: true,
        properties: &[],
        expires_at: expires_at.map(Timestamp),
    };
    Arc::new(Message::new(&publication))
}

impl Retained {
    fn put(&self, message: Arc<Message>) {
        self.set(message, None, NOW, &mut Vec::new()).expect("there is room");
    }
}

fn store<'t>(topics: impl IntoIterator<Item = &'t str>) -> Retained {
    let limits = RetainedLimits { messages_max: usize::MAX, bytes_max: usize::MAX };
    let store = Retained::new(limits);
    for topic in topics {
        store.put(message(topic));
    }
    store
}

/// Section 4.7 as a naive function.
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
    store.put(message("a"));
    store.put(message("bb"));
    let second = slice(Some("b"));
    let topics: Vec<_> = second.messages.iter().map(|m| m.topic()).collect();
    assert_eq!(topics, ["d"]);
}

fn account(owners: &Owners, name: &str) -> Arc<Account> {
    owners.account(Owner::User(name.into()), None)
}

fn bounded(messages_max: usize, bytes_max: usize) -> Retained {
    Retained::new(RetainedLimits { messages_max, bytes_max })
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let one = bytes_of(&message("a")) + 600;
    let owners = Owners::new(&Limits::default(), None);
    let (rich, other) = (account(&owners, "rich"), account(&owners, "other"));
    let own = OwnLimits {
        retained_messages_max: Some(1),
        retained_bytes_max: Some(one as u64),
        ..OwnLimits::default()
    };
    let poor = owners.account(Owner::User("poor".into()), Some(own));
    let store = bounded(3, 3 * one);
    let long = vec![b'x'; 3 * one];
    let mut gone = Vec::new();
    let mut set = |topic: &str, payload: &[u8], owner: Option<&Arc<Account>>| {
        store.set(of(topic, payload, None), owner, NOW, &mut gone)
    };
    for owner in [None, Some(&rich)] {
        assert_eq!(set("a", b"x", owner), Ok(()));
        assert_eq!(set("a", &long, owner), Err(RetainedFull::All));
    }
    assert_eq!(set("b", b"x", Some(&poor)), Ok(()));
    assert_eq!(set("b", &long[..one], Some(&poor)), Err(RetainedFull::OwnerBytes));
    assert_eq!(set("c", b"x", Some(&poor)), Err(RetainedFull::OwnerMessages));
    assert_eq!(set("a", b"y", Some(&poor)), Err(RetainedFull::OwnerMessages), "taken from another");
    assert_eq!(set("b", b"y", Some(&poor)), Ok(()), "in place of its own");
    assert_eq!(set("c", b"x", Some(&other)), Ok(()));
    assert_eq!(set("d", b"x", Some(&other)), Err(RetainedFull::All));
    let kept = |topic: &str| store.get(topic).expect("it is there").0.payload().to_vec();
    assert_eq!([kept("a"), kept("b"), kept("c")], [b"x", b"y", b"x"]);
    assert!(store.get("d").is_none());
    // Replacing another owner's message takes over its count.
    assert_eq!(set("b", b"z", Some(&other)), Ok(()));
    assert_eq!((poor.retained_messages.used(), poor.retained_bytes.used()), (0, 0));
    assert_eq!(other.retained_messages.used(), 2);
}

#[test]
fn what_has_expired_makes_room_whenever_room_is_needed() {
    let store = bounded(2, usize::MAX);
    for round in 0..20 {
        let now = Timestamp(round);
        let mut gone = Vec::new();
        for topic in ["a", "b"] {
            let topic = format!("{topic}/{round}");
            let set = store.set(of(&topic, b"x", Some(round + 1)), None, now, &mut gone);
            assert_eq!(set, Ok(()), "{topic}");
        }
        assert_eq!(gone.len(), if round == 0 { 0 } else { 2 });
        let set = store.set(message("c"), None, now, &mut gone);
        assert_eq!(set, Err(RetainedFull::All), "what lives stays");
    }
    assert!(store.remove_expired(Timestamp(19), 9).is_empty());
    assert_eq!(store.remove_expired(Timestamp(20), 1).len(), 1);
    assert_eq!(store.remove_expired(Timestamp(20), 9).len(), 1);
    assert_eq!(store.usage(), (0, 0));
    store.put(of("d", b"x", Some(30)));
    store.put(message("d"));
    assert!(store.remove_expired(Timestamp(40), 9).is_empty(), "replaced by one that does not");
}

/// Every byte is charged to one message after any sequence of changes.
#[test]
fn the_bytes_of_all_owners_are_the_bytes_of_the_store() {
    let mut rng = fastrand::Rng::with_seed(5);
    let owners = Owners::new(&Limits::default(), None);
    let accounts = ["one", "two", "three"].map(|name| account(&owners, name));
    let store = bounded(usize::MAX, usize::MAX);
    let mut topics = std::collections::BTreeSet::new();
    for step in 0..20_000_u64 {
        let levels = (0..rng.usize(1..6)).map(|_| ["a", "bb", "", "c"][rng.usize(..4)]);
        let topic = levels.collect::<Vec<_>>().join("/");
        let now = Timestamp(step);
        // Phases of growing and shrinking.
        match (rng.u8(..6), step / 4_000 % 2) {
            (0, 0) | (0..=3, 1) => {
                store.clear(&topic);
                topics.remove(&topic);
            }
            (1, _) => {
                for gone in store.remove_expired(now, 3) {
                    topics.remove(gone.topic());
                }
            }
            _ => {
                let payload = vec![b'x'; rng.usize(1..100)];
                let expires_at = rng.bool().then(|| step + rng.u64(1..500));
                let owner = &accounts[rng.usize(..3)];
                let set =
                    store.set(of(&topic, &payload, expires_at), Some(owner), now, &mut vec![]);
                assert_eq!(set, Ok(()));
                topics.insert(topic);
            }
        }
        let sum = |meter: fn(&Account) -> u64| accounts.iter().map(|a| meter(a)).sum::<u64>();
        let usage = store.usage();
        assert_eq!(usage.0, topics.len());
        assert_eq!(usage.0 as u64, sum(|account| account.retained_messages.used()));
        assert_eq!(usage.1 as u64, sum(|account| account.retained_bytes.used()), "{step}");
    }
    for topic in topics {
        store.clear(&topic);
    }
    assert_eq!(store.usage(), (0, 0));
    assert!(accounts.iter().all(|account| account.retained_bytes.used() == 0));
}
