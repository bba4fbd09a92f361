//! The rules of a policy in the order in which they are evaluated, each with its place.
//!
//! Does not know files. Called by the policy when its rules change.

use std::sync::Arc;

use super::rule::Rule;
use crate::auth::{RulePlace, RuleText, RuleTextError};

/// A rule and where it stands.
#[derive(Clone, Debug)]
pub(super) struct PlacedRule {
    pub(super) rule: Rule,
    pub(super) place: RulePlace,
}

/// The rules by where they come from.
#[derive(Debug, Default)]
pub(super) struct RuleSources {
    /// Those of the file or of the application.
    pub(super) own: Vec<PlacedRule>,
    /// Those of the store, in the order of their identifiers.
    pub(super) stored: Vec<PlacedRule>,
}

impl RuleSources {
    /// Returns all rules in the order in which they are evaluated: by priority; where it is equal,
    /// those of the file in its order, then those of the store in the order of their identifiers.
    pub(super) fn in_order(&self) -> Vec<PlacedRule> {
        let mut rules = [&*self.own, &*self.stored].concat();
        rules.sort_by_key(|placed| placed.rule.priority()); // stable
        rules
    }
}

/// Returns the rules of an application with their places.
pub(super) fn of_application(rules: Vec<Rule>) -> Vec<PlacedRule> {
    let place = |at| RulePlace::Application { position: at + 1 };
    rules.into_iter().enumerate().map(|(at, rule)| PlacedRule { rule, place: place(at) }).collect()
}

/// Returns the rules of the store with their places, and the identifiers of those that are not valid.
pub(super) fn of_store(mut rules: Vec<RuleText>) -> (Vec<PlacedRule>, Vec<Arc<str>>) {
    rules.sort_by(|one, other| one.id.cmp(&other.id));
    let (mut placed, mut unusable) = (Vec::with_capacity(rules.len()), Vec::new());
    for RuleText { id, json } in rules {
        match parse(&json) {
            Ok(rule) => placed.push(PlacedRule { rule, place: RulePlace::Stored { id } }),
            Err(_) => unusable.push(id),
        }
    }
    (placed, unusable)
}

/// Parses a rule; an error names the field.
pub(super) fn parse(json: &str) -> Result<Rule, RuleTextError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let rule = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.inner().to_string();
        RuleTextError::new(Some(&*path).filter(|path| *path != "."), without_place(&problem))
    })?;
    let rest = deserializer.end();
    rest.map_err(|error| RuleTextError::new(None, without_place(&error.to_string())))?;
    Ok(rule)
}

/// Cuts off the line and column, which say nothing of a rule that was part of a larger text.
fn without_place(problem: &str) -> &str {
    problem.rsplit_once(" at line ").map_or(problem, |(problem, _)| problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> String {
        parse(json).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_mistake_in_a_rule_names_its_field() {
        assert_eq!(problem(r#"{"effect": "allow"}"#), "");
        for (json, begins) in [
            (r#"{"effect": "allow", "users": []}"#, "users: an empty list never matches"),
            (
                r#"{"effect": "allow", "addresses": ["10.0.0.0/8", "x"]}"#,
                "addresses[1]: not a network",
            ),
            (r#"{"effect": "allow", "topics": ["a/#/b"]}"#, "topics[0]: `#` stands alone"),
            (r#"{"effect": "permit"}"#, "effect: unknown variant `permit`"),
            (r#"{"effect": "allow", "user": ["a"]}"#, "user: unknown field `user`"),
            (r#"{"effect": "allow", "qos": [3]}"#, "qos[0]: QoS is 0, 1 or 2"),
            (r#"{"priority": 1}"#, "missing field `effect`"),
            (r#"{"effect": "allow", "actions": ["connect"], "retain": true}"#, "rule has retain"),
            (r#"{"effect": "allow"} x"#, "trailing characters"),
        ] {
            let found = problem(json);
            assert!(found.starts_with(begins), "{json}: {found}");
            assert!(!found.contains(" at line "), "{found}");
        }
    }
}
