//! The rules that an import makes, and the text of their file.
//!
//! Checks each rule with the parser of the policy, so that a name or topic that a rule cannot express
//! is reported, and never makes a rule that allows more.

use hearthmq::auth::Rule;
use serde::Serialize;

/// Priorities, in the order in which Mosquitto looks at its lists.
pub(super) mod priority {
    pub(in super::super) const ADMINISTRATOR: i64 = 10;
    pub(in super::super) const NEVER: i64 = 50;
    pub(in super::super) const CONNECT: i64 = 100;
    pub(in super::super) const USER_DENY: i64 = 200;
    pub(in super::super) const USER_ALLOW: i64 = 210;
    pub(in super::super) const PATTERN_DENY: i64 = 300;
    pub(in super::super) const PATTERN_ALLOW: i64 = 310;
    /// The first rule of roles; each has a priority of its own.
    pub(in super::super) const ROLES: i64 = 1_000;
}

/// A rule to write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct NewRule {
    pub(super) priority: i64,
    pub(super) effect: &'static str,
    pub(super) actions: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) clients: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) users: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) groups: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) listeners: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) topics: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retain: Option<bool>,
}

pub(super) const PUBLISH: &str = "publish";
pub(super) const SUBSCRIBE: &str = "subscribe";

impl NewRule {
    pub(super) fn allow(priority: i64, actions: &[&'static str]) -> Self {
        Self { priority, effect: "allow", actions: actions.to_vec(), ..Self::default() }
    }

    pub(super) fn deny(priority: i64, actions: &[&'static str]) -> Self {
        Self { effect: "deny", ..Self::allow(priority, actions) }
    }

    pub(super) fn users(mut self, users: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.users = Some(users.into_iter().map(Into::into).collect());
        self
    }

    pub(super) fn topics(mut self, topics: Vec<String>) -> Self {
        self.topics = Some(topics);
        self
    }

    pub(super) fn listeners(mut self, listeners: &[String]) -> Self {
        self.listeners = Some(listeners.to_vec());
        self
    }

    fn text(&self) -> String {
        toml::to_string(self).expect("a rule has only numbers, texts and lists of texts")
    }

    /// Returns why the policy would not take the rule; `None` if it takes it.
    pub(super) fn fault(&self) -> Option<String> {
        toml::from_str::<Rule>(&self.text()).err().map(|error| error.message().to_owned())
    }
}

/// Returns why a rule cannot name this text alone; `None` if it can.
pub(super) fn unnameable(text: &str) -> Option<&'static str> {
    if text.contains('*') {
        Some("`*` stands for any text in a rule, so the name cannot be written in one")
    } else if text.contains("${") {
        Some("`${` begins a variable in a rule, so the name cannot be written in one")
    } else {
        None
    }
}

/// Returns the Topic Filter of a rule for one of Mosquitto with `%u` and `%c`.
///
/// # Errors
/// It cannot be one.
pub(super) fn topic_of(filter: &str, has_variables: bool) -> Result<String, String> {
    if filter.contains("${") {
        return Err("`${` begins a variable in a rule".to_owned());
    }
    let topic = match has_variables {
        true => filter.replace("%u", "${username}").replace("%c", "${clientId}"),
        false => filter.to_owned(),
    };
    let probe = NewRule::allow(0, &[PUBLISH]).topics(vec![topic.clone()]);
    probe.fault().map_or(Ok(topic), Err)
}

/// Returns the text of a policy.
pub(super) fn policy(rules: &[NewRule], from: &str) -> String {
    let mut text = format!("# Permissions, imported from {from}. See docs/permissions.md.\n");
    for rule in rules {
        text.push_str("\n[[rules]]\n");
        text.push_str(&rule.text());
    }
    text
}
