//! The rules of one identity: from the claim of a token, the answer of a service, or rows of a database.
//!
//! They have the form of the policy's rules, or that of other brokers, which is translated. Checked
//! when the identity logs in; a session from the store has the same text.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Rule, VariableValues};
use crate::auth::{AccessRequest, Decision, OwnRules, own_rules::BYTES_MAX};

/// Maximum number of rules.
const RULES_MAX: usize = 64;

/// Why rules of an identity cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnRulesError {
    /// A rule is invalid.
    #[error("rule {number}: {why}")]
    Invalid {
        /// The number of the rule, starting with 1.
        number: usize,
        /// The fault.
        why: String,
    },
    /// There are too many rules, or they are too long.
    #[error("an identity has at most {RULES_MAX} rules, of at most {BYTES_MAX} bytes")]
    TooMany,
    /// They are neither a list nor an object.
    #[error("rules are a list, or an object with `pub`, `sub` and `all`")]
    Malformed,
}

/// The rules in order.
struct Rules(Vec<Rule>);

/// Returns the rules of an identity from their JSON, `null` if there are none: a list of rules of the
/// policy; a list of objects with `permission`, `action` and `topic`; or an object with lists of topics
/// that may be published (`pub`), subscribed (`sub`), or both (`all`).
///
/// # Errors
/// A rule is invalid, or there are too many.
pub fn own_rules(json: &Value) -> Result<OwnRules, OwnRulesError> {
    let list = match json {
        Value::Null => return Ok(OwnRules::default()),
        Value::Array(list) if list.len() <= RULES_MAX => list.clone(),
        Value::Array(_) => return Err(OwnRulesError::TooMany),
        Value::Object(lists) => by_lists(lists)?,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(OwnRulesError::Malformed);
        }
    };
    let mut rules = Vec::with_capacity(list.len());
    for (at, rule) in list.into_iter().enumerate() {
        let invalid = |why| OwnRulesError::Invalid { number: at + 1, why };
        // Only the other form has this member, so one list may mix both.
        let rule = if rule.get("permission").is_some() {
            translated(&rule).map_err(invalid)?
        } else {
            rule
        };
        // Checked now: a rule that cannot be read must refuse the login, not be ignored.
        Rule::deserialize(&rule).map_err(|error| invalid(error.to_string()))?;
        rules.push(rule);
    }
    if rules.is_empty() {
        return Ok(OwnRules::default());
    }
    let text = Value::Array(rules).to_string();
    // The text is stored with the session, so its length has a bound.
    match text.len() <= BYTES_MAX {
        true => Ok(OwnRules::from_json(&text)),
        false => Err(OwnRulesError::TooMany),
    }
}

fn by_lists(lists: &serde_json::Map<String, Value>) -> Result<Vec<Value>, OwnRulesError> {
    const LISTS: [(&str, &[&str]); 3] =
        [("all", &["publish", "subscribe"]), ("pub", &["publish"]), ("sub", &["subscribe"])];
    // A misspelt list would be left out silently.
    if lists.keys().any(|name| !LISTS.iter().any(|(known, _)| known == name)) {
        return Err(OwnRulesError::Malformed);
    }
    let mut rules = Vec::new();
    for (name, actions) in LISTS {
        let Some(topics) = lists.get(name) else { continue };
        let topics = topics.as_array().ok_or(OwnRulesError::Malformed)?;
        let topics = topics.iter().map(|topic| topic.as_str().map(renamed));
        let topics: Vec<_> = topics.collect::<Option<_>>().ok_or(OwnRulesError::Malformed)?;
        if !topics.is_empty() {
            rules.push(json!({"effect": "allow", "actions": actions, "topics": topics}));
        }
    }
    Ok(rules)
}

/// A rule as EMQX has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Foreign {
    permission: String,
    action: String,
    topic: String,
    #[serde(default)]
    qos: Option<Value>,
    #[serde(default)]
    retain: Option<Value>,
}

/// Returns such a rule in the form of the policy.
fn translated(rule: &Value) -> Result<Value, String> {
    let Foreign { permission, action, topic, qos, retain } =
        Foreign::deserialize(rule).map_err(|error| error.to_string())?;
    let actions = match action.as_str() {
        "publish" | "subscribe" => json!([action]),
        "all" | "pubsub" => json!(["publish", "subscribe"]),
        other => {
            return Err(format!("action {other:?} is unknown: there are publish, subscribe, all"));
        }
    };
    // `eq` compares wildcards literally; a rule without it would allow more.
    if topic.starts_with("eq ") {
        return Err("a topic with `eq` has no counterpart here".to_owned());
    }
    let mut translated =
        json!({"effect": permission, "actions": actions, "topics": [renamed(&topic)]});
    match qos {
        None | Some(Value::Null) => {}
        Some(many @ Value::Array(_)) => translated["qos"] = many,
        Some(one) => translated["qos"] = json!([one]),
    }
    match retain {
        None | Some(Value::Null) => {}
        Some(Value::String(all)) if all == "all" => {}
        Some(flag) => translated["retain"] = flag,
    }
    Ok(translated)
}

/// Returns a topic with the variables of this policy.
fn renamed(topic: &str) -> String {
    topic.replace("${clientid}", "${clientId}")
}

fn read(text: &str) -> Option<Rules> {
    let mut rules: Vec<Rule> = serde_json::from_slice(text.as_bytes()).ok()?;
    rules.sort_by_key(Rule::priority); // stable
    Some(Rules(rules))
}

/// Returns what the rules of the identity say, and the position of the one that decides, from 1;
/// `None` if none of them decides. Rules that cannot be read, which a later version may have stored,
/// deny.
pub(super) fn decide(
    request: &AccessRequest<'_>,
    subject: &VariableValues<'_>,
) -> Option<(Decision, usize)> {
    let Some(Rules(rules)) = request.identity.rules.read_by(read)? else {
        return Some((Decision::Deny, 0));
    };
    let at = rules.iter().position(|rule| rule.decides(request, subject))?;
    Some((rules[at].decision(), at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: Value) -> Result<String, String> {
        let rules = own_rules(&json).map_err(|error| error.to_string())?;
        Ok(rules.as_json().unwrap_or_default().to_owned())
    }

    #[test]
    fn rules_of_other_brokers_are_translated() {
        let emqx = json!([
            {"permission": "allow", "action": "publish", "topic": "v/${clientid}/#", "qos": [0, 1]},
            {"permission": "deny", "action": "all", "topic": "x", "retain": "all", "qos": 1},
        ]);
        let translated = json!([
            {"effect": "allow", "actions": ["publish"], "topics": ["v/${clientId}/#"], "qos": [0, 1]},
            {"effect": "deny", "actions": ["publish", "subscribe"], "topics": ["x"], "qos": [1]},
        ]);
        assert_eq!(text(emqx).unwrap(), translated.to_string());
        let lists = json!({"pub": ["a"], "sub": [], "all": ["b/${clientid}"]});
        let translated = json!([
            {"effect": "allow", "actions": ["publish", "subscribe"], "topics": ["b/${clientId}"]},
            {"effect": "allow", "actions": ["publish"], "topics": ["a"]},
        ]);
        assert_eq!(text(lists).unwrap(), translated.to_string());
    }

    #[test]
    fn what_cannot_be_a_rule_is_refused_with_its_number() {
        for (json, why) in [
            (json!([{"effect": "allow"}, {"effect": "perhaps"}]), "rule 2: "),
            (json!([{"effect": "allow", "topic": "a"}]), "rule 1: unknown field"),
            (
                json!([{"permission": "allow", "action": "all", "topic": "eq a/#"}]),
                "rule 1: a topic",
            ),
            (json!([{"permission": "allow", "action": "fly", "topic": "a"}]), "rule 1: action"),
            (json!("allow"), "rules are a list"),
            (json!({"pub": "a"}), "rules are a list"),
            (json!({"publish": ["a"]}), "rules are a list"),
            (json!(vec![json!({"effect": "allow"}); 65]), "an identity has at most 64"),
            (json!([{"effect": "allow", "clients": ["x".repeat(20_000)]}]), "an identity has"),
        ] {
            let refused = text(json.clone()).unwrap_err();
            assert!(refused.starts_with(why), "{json}: {refused}");
        }
        assert_eq!(text(Value::Null), Ok(String::new()));
        assert_eq!(text(json!([])), Ok(String::new()));
        assert!(text(json!(vec![json!({"effect": "allow"}); 64])).is_ok());
    }
}
