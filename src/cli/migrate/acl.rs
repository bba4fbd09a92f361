//! Rules of an `acl_file`.
//!
//! Mosquitto looks at the lines of the user first, then at the patterns; in each list, at those that
//! deny first. So the order of its lines does not matter, and each user needs one rule for each kind of
//! line.

use std::{path::Path, sync::Arc};

use super::{
    MigrateError,
    conf::{Place, read_text},
    report::Report,
    rules::{NewRule, PUBLISH, SUBSCRIBE, priority, topic_of, unnameable},
};

/// The access that a line allows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    ReadWrite,
    Deny,
}

/// The topics of one list.
#[derive(Default)]
struct Topics {
    deny: Vec<String>,
    read: Vec<String>,
    write: Vec<String>,
    read_write: Vec<String>,
}

impl Topics {
    fn add(&mut self, access: Access, topic: String) {
        let list = match access {
            Access::Deny => &mut self.deny,
            Access::Read => &mut self.read,
            Access::Write => &mut self.write,
            Access::ReadWrite => &mut self.read_write,
        };
        if !list.contains(&topic) {
            list.push(topic);
        }
    }

    const fn is_empty(&self) -> bool {
        let Self { deny, read, write, read_write } = self;
        deny.is_empty() && read.is_empty() && write.is_empty() && read_write.is_empty()
    }

    fn rules(self, deny: i64, allow: i64) -> impl Iterator<Item = NewRule> {
        let both = [PUBLISH, SUBSCRIBE];
        [
            (NewRule::deny(deny, &both), self.deny),
            (NewRule::allow(allow, &both), self.read_write),
            (NewRule::allow(allow, &[PUBLISH]), self.write),
            (NewRule::allow(allow, &[SUBSCRIBE]), self.read),
        ]
        .into_iter()
        .filter(|(_, topics)| !topics.is_empty())
        .map(|(rule, topics)| rule.topics(topics))
    }
}

/// The lines of one user; of clients without a user name if it is empty.
struct UserTopics {
    name: String,
    topics: Topics,
}

/// Returns the rules of an ACL file.
pub(super) fn read_acl_file(
    path: &Path,
    report: &mut Report,
) -> Result<Vec<NewRule>, MigrateError> {
    let text = read_text(path)?;
    let file: Arc<Path> = path.into();
    // The lines before the first `user` are for clients without a user name.
    let mut users: Vec<UserTopics> =
        vec![UserTopics { name: String::new(), topics: Topics::default() }];
    let mut current = Some(0);
    let mut patterns = Topics::default();
    // Patterns with `%u` do not concern clients without a user name.
    let mut named_patterns = Topics::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = Place::new(&file, number);
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            // `None` if the user cannot be named in a rule; its
            // lines are then reported, not given to another.
            "user" => current = user_at(&mut users, rest, &place, report),
            "topic" | "pattern" => {
                let is_pattern = word == "pattern";
                let Some((access, topic)) = topic_in(rest, is_pattern, &place, report) else {
                    continue;
                };
                match (is_pattern, current) {
                    (true, _) if topic.contains("${username}") => named_patterns.add(access, topic),
                    (true, _) => patterns.add(access, topic),
                    (false, Some(at)) => users[at].topics.add(access, topic),
                    (false, None) => {
                        report.not_taken_at(&place, line, "its user could not be taken over");
                    }
                }
            }
            _ => report.not_taken_at(&place, line, "neither user, topic nor pattern"),
        }
    }
    // The rules of users come before those of patterns.
    let mut rules = Vec::new();
    for UserTopics { name, topics } in users {
        let own = topics.rules(priority::USER_DENY, priority::USER_ALLOW);
        rules.extend(own.map(|rule| rule.users([name.clone()])));
    }
    let (deny, allow) = (priority::PATTERN_DENY, priority::PATTERN_ALLOW);
    // A client whose name has wildcards must not match the patterns of others.
    if !(patterns.is_empty() && named_patterns.is_empty()) {
        rules.extend(without_patterns());
    }
    rules.extend(named_patterns.rules(deny, allow).map(|rule| rule.users(["*"])));
    rules.extend(patterns.rules(deny, allow));
    Ok(rules)
}

/// Returns the rules for names with a wildcard: where there are patterns, none of them holds for such a client,
/// also if it has no variable.
fn without_patterns() -> [NewRule; 2] {
    let deny = || NewRule::deny(priority::PATTERN_DENY, &[PUBLISH, SUBSCRIBE]);
    let names = ["*+*", "*#*"];
    let mut by_client_id = deny();
    by_client_id.clients = Some(names.map(str::to_owned).to_vec());
    [deny().users(names), by_client_id]
}

/// Returns the place of a user in the list, where it is added if it is new.
fn user_at(
    users: &mut Vec<UserTopics>,
    name: &str,
    place: &Place,
    report: &mut Report,
) -> Option<usize> {
    if let Some(why) = unnameable(name) {
        report.not_taken_at(place, &format!("user {name}"), why);
        return None;
    }
    let known = users.iter().position(|user| user.name == name);
    Some(known.unwrap_or_else(|| {
        users.push(UserTopics { name: name.to_owned(), topics: Topics::default() });
        users.len() - 1
    }))
}

/// Returns the access and the topic of a line.
fn topic_in(
    rest: &str,
    is_pattern: bool,
    place: &Place,
    report: &mut Report,
) -> Option<(Access, String)> {
    let (access, topic) = match rest.split_once([' ', '\t']) {
        // The default of Mosquitto.
        None => (Some(Access::ReadWrite), rest),
        Some((access, topic)) => (
            match access {
                "read" => Some(Access::Read),
                "write" => Some(Access::Write),
                "readwrite" => Some(Access::ReadWrite),
                "deny" => Some(Access::Deny),
                _ => None,
            },
            topic.trim_start(),
        ),
    };
    let Some(access) = access else {
        report.not_taken_at(place, rest, "the access is not one of read, write, readwrite, deny");
        return None;
    };
    match topic_of(topic, is_pattern) {
        Ok(topic) => Some((access, topic)),
        Err(why) => {
            // A denial that is left out allows more than
            // before, so it is reported as a difference too.
            if access == Access::Deny {
                report.differs(
                    Some(place),
                    "this line denied something: deny it by a rule of your own",
                );
            }
            report.not_taken_at(place, rest, &why);
            None
        }
    }
}
