//! The few names of the world, so that its clients often interact.
//!
//! Each client's Will has its own topic, and no shared subscription matches it: the time of a Will
//! is known only to a fraction of a second, and no consequence may depend on that.

/// Client Identifiers.
pub(crate) const NAMES: [&str; 6] = ["ada", "ben", "cai", "dee", "eva", "fay"];

/// The user of each client. Two clients are of one user.
pub(crate) const USERS: [&str; 6] = ["ada", "ada", "cai", "dee", "eva", "fay"];

/// Bans by kind and value, and the clients that each of them is about. All clients come from 192.0.2.7.
pub(crate) const BANS: [(&str, &str, &[usize]); 9] = [
    ("client_id", "ada", &[0]),
    ("client_id", "cai", &[2]),
    ("client_id", "*e*", &[1, 3, 4]),
    ("client_id", "gus", &[]),
    ("user", "ada", &[0, 1]),
    ("user", "f*", &[5]),
    ("user", "ben", &[]),
    ("address", "192.0.2.0/29", &[0, 1, 2, 3, 4, 5]),
    ("address", "198.51.100.0/24", &[]),
];

/// What a rule of the store denies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Connect,
    Publish,
    Subscribe,
}

/// A rule of the store.
pub(crate) struct Denial {
    pub(crate) what: Denied,
    /// The clients that it is about, in the form of a rule, and the same as numbers of clients.
    pub(crate) about: &'static str,
    pub(crate) clients: &'static [usize],
    /// A Topic Filter; empty for CONNECT. No Will is below one of them.
    pub(crate) topics: &'static str,
}

/// The rules that callers add to the store. Everything else is allowed.
pub(crate) const RULES: [Denial; 9] = [
    denial(Denied::Connect, (r#""clients":["cai"]"#, &[2]), ""),
    denial(Denied::Connect, (r#""clients":["*e*"]"#, &[1, 3, 4]), ""),
    denial(Denied::Publish, (r#""clients":["*a*"]"#, &[0, 2, 4, 5]), "a/#"),
    denial(Denied::Publish, (r#""users":["*"]"#, &[0, 1, 2, 3, 4, 5]), "b"),
    denial(Denied::Publish, (r#""users":["ada"]"#, &[0, 1]), "s/+"),
    denial(Denied::Subscribe, (r#""clients":["*"]"#, &[0, 1, 2, 3, 4, 5]), "a/1"),
    denial(Denied::Subscribe, (r#""clients":["*e*"]"#, &[1, 3, 4]), "b/#"),
    denial(Denied::Subscribe, (r#""users":["ada"]"#, &[0, 1]), "$x/1"),
    denial(Denied::Subscribe, (r#""clients":["*a*"]"#, &[0, 2, 4, 5]), "s/1"),
];

const fn denial(
    what: Denied,
    (about, clients): (&'static str, &'static [usize]),
    topics: &'static str,
) -> Denial {
    Denial { what, about, clients, topics }
}

impl Denial {
    /// Returns the rule as JSON.
    pub(crate) fn json(&self) -> String {
        let action = match self.what {
            Denied::Connect => "connect",
            Denied::Publish => "publish",
            Denied::Subscribe => "subscribe",
        };
        let topics = match self.topics {
            "" => String::new(),
            topics => format!(r#","topics":["{topics}"]"#),
        };
        let about = self.about;
        format!(r#"{{"effect":"deny","priority":1,"actions":["{action}"],{about}{topics}}}"#)
    }
}

/// API tokens: a name, the clients that its caller may see, and the same as numbers.
pub(crate) const TOKENS: [(&str, &str, &[usize]); 3] =
    [("all", "*", &[0, 1, 2, 3, 4, 5]), ("some", "*a", &[0, 4]), ("one", "fay", &[5])];

/// Topics that clients publish to.
pub(crate) const TOPICS: [&str; 9] = ["a/1", "a/2", "a/1/c", "b", "b/1", "s/1", "s/2", "$x/1", "/"];

/// Topics that no shared subscription matches. Empty messages go only there: they all look the
/// same, and it would be unknown which of them has come to which member.
pub(crate) const NOT_SHARED: [&str; 6] = ["a/2", "a/1/c", "b", "b/1", "$x/1", "/"];

/// The topic of each client's Will.
pub(crate) const WILL_TOPICS: [&str; 6] = ["w/0", "w/1", "w/2", "w/3", "w/4", "w/5"];

/// Topic Filters; no two shared ones are the same filter under two names.
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

/// Returns whether the client may subscribe to the filter. No client has both of two overlapping
/// shared subscriptions, so that each message comes to it by one of them only.
pub(crate) fn may_share(client: usize, filter: &str) -> bool {
    match filter {
        "$share/g/s/+" => client.is_multiple_of(2),
        "$share/h/s/1" => !client.is_multiple_of(2),
        _ => true,
    }
}

/// Returns the share name, if there is one, and the filter after it.
pub(crate) fn split(filter: &str) -> (Option<&str>, &str) {
    match filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
        Some((name, filter)) => (Some(name), filter),
        None => (None, filter),
    }
}

/// Returns whether a plain Topic Filter matches, level by level, according to section 4.7.
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

/// Returns whether two plain Topic Filters have a common topic, level by level.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let is_apart = |wild: &str, named: &str| wild.starts_with(['#', '+']) && named.starts_with('$');
    if is_apart(one, other) || is_apart(other, one) {
        return false;
    }
    let (one, other): (Vec<_>, Vec<_>) = (one.split('/').collect(), other.split('/').collect());
    for at in 0.. {
        match (one.get(at).copied(), other.get(at).copied()) {
            (Some("#"), _) | (_, Some("#")) => return true,
            (None, None) => return true,
            (Some(one), Some(other)) if one == other || one == "+" || other == "+" => {}
            _ => return false,
        }
    }
    false
}
