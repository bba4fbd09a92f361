//! One rule: its form in the file, and whether it decides about a request.
//!
//! Every [`Rule`] has been checked: parsing is the only way to create one, and a mistake is an
//! error at its line. Does not know the other rules. Called by the policy.

use std::{
    fmt::{self, Display, Formatter},
    marker::PhantomData,
    net::IpAddr,
    str::FromStr,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, Error as _, Visitor},
};

use super::{
    glob::Glob,
    topics::TopicPattern,
    variables::{Holds, VariableValues},
};
use crate::{
    auth::{AccessRequest, Action, Decision, Groups, JsonObject, Login, Network},
    mqtt::QoS,
};

/// Priority of a rule without one.
const PRIORITY_DEFAULT: i64 = 1000;

/// A rule, read from TOML (or any other format of serde); see [`super`] for an example.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "JsonObject<RuleFields>")]
pub struct Rule {
    priority: i64,
    effect: Effect,
    actions: Vec<ActionKind>,
    /// `None` where the condition is missing.
    clients: Option<Vec<Glob>>,
    users: Option<Vec<Glob>>,
    addresses: Option<Vec<Network>>,
    listeners: Option<Vec<Glob>>,
    login: Option<Vec<Login>>,
    groups: Option<Vec<Glob>>,
    topics: Option<Vec<TopicPattern>>,
    qos: Option<Vec<QoS>>,
    retain: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActionKind {
    Connect,
    Publish,
    Subscribe,
    Observe,
    Control,
    Administer,
}

impl ActionKind {
    const ALL: [Self; 6] = [
        Self::Connect,
        Self::Publish,
        Self::Subscribe,
        Self::Observe,
        Self::Control,
        Self::Administer,
    ];

    /// Returns the actions of a rule without `actions`. *administer* must be allowed by name.
    fn all(effect: Effect) -> Vec<Self> {
        let is_meant = |kind: &Self| effect == Effect::Deny || *kind != Self::Administer;
        Self::ALL.into_iter().filter(is_meant).collect()
    }

    /// Returns whether the action has a topic and a QoS.
    const fn has_topic(self) -> bool {
        matches!(self, Self::Publish | Self::Subscribe)
    }
}

impl Rule {
    /// Returns its priority; rules with a smaller one are evaluated first.
    pub(super) const fn priority(&self) -> i64 {
        self.priority
    }

    /// Returns its decision.
    pub(super) const fn decision(&self) -> Decision {
        match self.effect {
            Effect::Allow => Decision::Allow,
            Effect::Deny => Decision::Deny,
        }
    }

    /// Returns whether it decides about `request`: all its conditions hold. A denying rule ignores
    /// conditions that are undecided.
    pub(super) fn decides(
        &self,
        request: &AccessRequest<'_>,
        subject: &VariableValues<'_>,
    ) -> bool {
        if !self.is_about(&request.action) {
            return false;
        }
        let conditions = [
            self.concerns_address(request.peer.ip()),
            self.concerns_login(request.identity.login),
            self.concerns_client(request.client_id, subject),
            self.concerns_user(request.identity.username.as_deref(), subject),
            self.concerns_groups(&request.identity.groups, subject),
            self.concerns_listener(request.listener, subject),
            self.concerns_topic(&request.action, subject),
        ];
        conditions.into_iter().all(|condition| match condition {
            Holds::Yes => true,
            Holds::No => false,
            // Undecided never allows: it denies, or does not apply.
            Holds::Unknown => self.effect == Effect::Deny,
        })
    }

    /// Returns whether a condition depends on an attribute of the identity.
    pub(super) fn uses_attributes(&self) -> bool {
        let globs = [&self.clients, &self.users, &self.listeners, &self.groups]
            .into_iter()
            .flatten()
            .flatten();
        let mut topics = self.topics.iter().flatten();
        globs.into_iter().any(Glob::uses_attributes) || topics.any(TopicPattern::uses_attributes)
    }

    fn is_about(&self, action: &Action<'_>) -> bool {
        let (kind, asked_qos, asked_retain) = match action {
            Action::Connect => (ActionKind::Connect, None, None),
            Action::Observe => (ActionKind::Observe, None, None),
            Action::Control => (ActionKind::Control, None, None),
            Action::Administer => (ActionKind::Administer, None, None),
            Action::Publish { qos, retain, .. } => (ActionKind::Publish, Some(qos), Some(retain)),
            Action::Subscribe { qos, .. } => (ActionKind::Subscribe, Some(qos), None),
        };
        // A condition on QoS or RETAIN excludes actions that have none.
        self.actions.contains(&kind)
            && self
                .qos
                .as_ref()
                .is_none_or(|wanted| asked_qos.is_some_and(|qos| wanted.contains(qos)))
            && self.retain.is_none_or(|wanted| asked_retain == Some(&wanted))
    }

    /// The address is unknown for a session whose record does not contain it.
    fn concerns_address(&self, address: IpAddr) -> Holds {
        self.addresses.as_ref().map_or(Holds::Yes, |networks| match address {
            address if address.is_unspecified() => Holds::Unknown,
            address => Holds::from(networks.iter().any(|network| network.contains(address))),
        })
    }

    /// The login is unknown for a session that an earlier version has stored.
    fn concerns_login(&self, login: Login) -> Holds {
        let is_known = login != Login::Unknown;
        self.login.as_ref().map_or(Holds::Yes, |wanted| match is_known {
            true => Holds::from(wanted.contains(&login)),
            false => Holds::Unknown,
        })
    }

    /// The listener is unknown for such a session, too.
    fn concerns_listener(&self, listener: &str, subject: &VariableValues<'_>) -> Holds {
        self.listeners.as_ref().map_or(Holds::Yes, |globs| match listener {
            "" => Holds::Unknown,
            _ => Holds::any(globs.iter().map(|glob| glob.matches(listener, subject))),
        })
    }

    fn concerns_client(&self, client_id: &str, subject: &VariableValues<'_>) -> Holds {
        self.clients.as_ref().map_or(Holds::Yes, |globs| {
            Holds::any(globs.iter().map(|glob| glob.matches(client_id, subject)))
        })
    }

    fn concerns_user(&self, username: Option<&str>, subject: &VariableValues<'_>) -> Holds {
        self.users.as_ref().map_or(Holds::Yes, |globs| {
            Holds::any(globs.iter().map(|glob| match username {
                Some(username) => glob.matches(username, subject),
                None => Holds::from(glob.is_empty()),
            }))
        })
    }

    fn concerns_groups(&self, groups: &Groups, subject: &VariableValues<'_>) -> Holds {
        self.groups.as_ref().map_or(Holds::Yes, |globs| {
            let of_each =
                |glob: &Glob| Holds::any(groups.iter().map(|name| glob.matches(name, subject)));
            Holds::any(globs.iter().map(of_each))
        })
    }

    fn concerns_topic(&self, action: &Action<'_>, subject: &VariableValues<'_>) -> Holds {
        let Some(patterns) = &self.topics else {
            // Permission for "everything" does not make a user the operator of the broker.
            return Holds::from(self.effect == Effect::Deny || !is_control(action));
        };
        Holds::any(patterns.iter().map(|pattern| match (action, self.effect) {
            (Action::Connect | Action::Observe | Action::Control | Action::Administer, _) => {
                Holds::No
            }
            (Action::Publish { topic, .. }, _) => pattern.matches(topic, subject),
            (Action::Subscribe { filter, .. }, Effect::Allow) => pattern.covers(filter, subject),
            (Action::Subscribe { filter, .. }, Effect::Deny) => pattern.overlaps(filter, subject),
        }))
    }
}

/// Returns whether it concerns a topic that controls the broker itself, or by which a client sets
/// options of its connection.
fn is_control(action: &Action<'_>) -> bool {
    match action {
        Action::Connect | Action::Observe | Action::Control | Action::Administer => false,
        Action::Publish { topic, .. } | Action::Subscribe { filter: topic, .. } => {
            matches!(topic.split('/').next(), Some("$control" | "$SETOPTS"))
        }
    }
}

/// A rule as it is written in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFields {
    #[serde(default = "priority_default")]
    priority: i64,
    effect: Effect,
    #[serde(default, deserialize_with = "filled_list")]
    actions: Option<Vec<ActionKind>>,
    #[serde(default, deserialize_with = "parsed_list")]
    clients: Option<Vec<Glob>>,
    #[serde(default, deserialize_with = "parsed_list")]
    users: Option<Vec<Glob>>,
    #[serde(default, deserialize_with = "parsed_list")]
    addresses: Option<Vec<Network>>,
    #[serde(default, deserialize_with = "parsed_list")]
    listeners: Option<Vec<Glob>>,
    #[serde(default, deserialize_with = "filled_list")]
    login: Option<Vec<Login>>,
    #[serde(default, deserialize_with = "parsed_list")]
    groups: Option<Vec<Glob>>,
    #[serde(default, deserialize_with = "parsed_list")]
    topics: Option<Vec<TopicPattern>>,
    #[serde(default, deserialize_with = "filled_list")]
    qos: Option<Vec<QosNumber>>,
    retain: Option<bool>,
}

#[derive(Deserialize)]
#[serde(try_from = "u8")]
struct QosNumber(QoS);

/// Why a rule, or a part of it, is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum RuleError {
    #[error("an empty list never matches; leave the condition out to match everything")]
    EmptyList,
    #[error("QoS is 0, 1 or 2")]
    QoS,
    #[error(
        "rule has topics or qos, but only publishing and subscribing have them; leave them out of \
         this rule"
    )]
    NoTopic,
    #[error("rule has retain, which concerns publishing only; add \"publish\" to actions")]
    RetainWithoutPublish,
}

impl TryFrom<JsonObject<RuleFields>> for Rule {
    type Error = RuleError;

    fn try_from(JsonObject(fields): JsonObject<RuleFields>) -> Result<Self, Self::Error> {
        let actions = fields.actions.unwrap_or_else(|| ActionKind::all(fields.effect));
        let has_topic = actions.iter().any(|action| action.has_topic());
        // Such a rule would never decide, and its author believes that it does.
        if !has_topic && (fields.topics.is_some() || fields.qos.is_some()) {
            return Err(RuleError::NoTopic);
        }
        // RETAIN is a flag of PUBLISH alone, so a condition on it would never hold.
        if fields.retain.is_some() && !actions.contains(&ActionKind::Publish) {
            return Err(RuleError::RetainWithoutPublish);
        }
        Ok(Self {
            priority: fields.priority,
            effect: fields.effect,
            actions,
            clients: fields.clients,
            users: fields.users,
            addresses: fields.addresses,
            listeners: fields.listeners,
            login: fields.login,
            groups: fields.groups,
            topics: fields.topics,
            qos: fields.qos.map(|all| all.into_iter().map(|QosNumber(qos)| qos).collect()),
            retain: fields.retain,
        })
    }
}

impl TryFrom<u8> for QosNumber {
    type Error = RuleError;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        QoS::from_number(number).map(Self).ok_or(RuleError::QoS)
    }
}

const fn priority_default() -> i64 {
    PRIORITY_DEFAULT
}

fn filled_list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let list = Vec::deserialize(deserializer)?;
    if list.is_empty() {
        return Err(D::Error::custom(RuleError::EmptyList));
    }
    Ok(Some(list))
}

/// Does the same as [`filled_list`] for texts. Parses each text while serde visits it, not in a
/// second step, so that an error names the line of the text and not that of the list.
fn parsed_list<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let list = filled_list::<Parsed<T>, D>(deserializer)?;
    Ok(list.map(|list| list.into_iter().map(|Parsed(value)| value).collect()))
}

struct Parsed<T>(T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ParsedVisitor(PhantomData))
    }
}

struct ParsedVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err: Display>> Visitor<'_> for ParsedVisitor<T> {
    type Value = Parsed<T>;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        text.parse().map(Parsed).map_err(E::custom)
    }
}
