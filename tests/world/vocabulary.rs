//! The few names that the world is made of, so that its clients meet each other often.
//!
//! Wills have topics of their own, one a client, and no shared subscription matches them: when a
//! Will comes is known to a fraction of a second only, and what follows from it must not depend on
//! that.

/// Client Identifiers.
pub(crate) const NAMES: [&str; 6] = ["ada", "ben", "cai", "dee", "eva", "fay"];

/// Topics that clients publish to.
pub(crate) const TOPICS: [&str; 9] = ["a/1", "a/2", "a/1/c", "b", "b/1", "s/1", "s/2", "$x/1", "/"];

/// Those that no shared subscription matches. Empty messages go there only: they all look alike,
/// and nobody could tell which of them has come to which member.
pub(crate) const NOT_SHARED: [&str; 6] = ["a/2", "a/1/c", "b", "b/1", "$x/1", "/"];

/// The topic of each client's Will.
pub(crate) const WILL_TOPICS: [&str; 6] = ["w/0", "w/1", "w/2", "w/3", "w/4", "w/5"];

/// Topic Filters; no two that are shared are one filter under two names.
pub(crate) const FILTERS: [&str; 20] = [
    "a/1",
    "a/2",
    "a/+",
    "a/#",
    "b",
    "b/#",
    "#",
    "+/1",
    "+/+",
    "+",
    "w/#",
    "w/+",
    "$x/+",
    "$x/#",
    "s/+",
    "/",
    "/+",
    "$share/g/s/+",
    "$share/h/s/1",
    "$share/g/a/1",
];

/// Whether the client subscribes to the filter. Of two shared subscriptions that overlap nobody has
/// both, so that whoever gets a message gets it for one of them.
pub(crate) fn may_share(client: usize, filter: &str) -> bool {
    match filter {
        "$share/g/s/+" => client.is_multiple_of(2),
        "$share/h/s/1" => !client.is_multiple_of(2),
        _ => true,
    }
}

/// The share name, if there is one, and the filter behind it.
pub(crate) fn split(filter: &str) -> (Option<&str>, &str) {
    match filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
        Some((name, filter)) => (Some(name), filter),
        None => (None, filter),
    }
}

/// Whether a Topic Filter that is not shared matches, level by level, as section 4.7 says it.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let is_wild = filter.starts_with(['#', '+']);
    if is_wild && topic.starts_with('$') {
        return false;
    }
    let (filter, topic): (Vec<_>, Vec<_>) =
        (filter.split('/').collect(), topic.split('/').collect());
    for (at, level) in filter.iter().enumerate() {
        match (*level, topic.get(at)) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(found)) if level == *found => {}
            _ => return false,
        }
    }
    filter.len() == topic.len()
}
