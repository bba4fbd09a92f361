//! The reason of a decision, and the interface to rules in the store.
//!
//! Plain data and a trait. Knows neither the form of a rule nor the store.

use std::{fmt, sync::Arc};

use super::Decision;

/// A decision with the rule that makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// The place of the rule; `None` if no rule matches, or if the authorizer has no rules.
    pub rule: Option<RulePlace>,
}

impl Explanation {
    /// Returns a decision that this rule makes.
    #[must_use]
    pub const fn new(decision: Decision, rule: Option<RulePlace>) -> Self {
        Self { decision, rule }
    }
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RulePlace {
    /// In the file of the policy.
    File {
        /// The line on which it begins, from 1.
        line: usize,
    },
    /// Among the rules that the application has given.
    Application {
        /// Its position, from 1.
        position: usize,
    },
    /// Among the rules of the identity itself.
    Identity {
        /// Its position in the order in which they are evaluated, from 1; 0 if they cannot be read.
        position: usize,
    },
    /// In the store.
    Stored {
        /// Its identifier.
        id: Arc<str>,
    },
}

/// A rule in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleText {
    /// Its identifier.
    pub id: Arc<str>,
    /// The rule as a JSON object, with the fields that it has in the file.
    pub json: Arc<str>,
}

impl RuleText {
    /// Returns a rule with this identifier.
    pub fn new(id: impl Into<Arc<str>>, json: impl Into<Arc<str>>) -> Self {
        Self { id: id.into(), json: json.into() }
    }
}

/// The interface of an authorizer that also decides by the rules in the store.
pub trait StoredRules: Send + Sync {
    /// Checks the JSON of a rule; returns its priority.
    ///
    /// # Errors
    /// The JSON is not a rule, or the rule can never match. The error names the field.
    fn check(&self, json: &str) -> Result<i64, RuleTextError>;

    /// Replaces all rules of the store. Leaves out rules that are not valid, and returns the identifiers of
    /// those.
    fn replace_stored(&self, rules: Vec<RuleText>) -> Vec<Arc<str>>;
}

/// Why a text is not a valid rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RuleTextError {
    field: Option<Box<str>>,
    problem: Box<str>,
}

impl RuleTextError {
    /// Creates the error about a field, such as `topics[0]`; `None` if it is about the whole rule.
    #[must_use]
    pub fn new(field: Option<&str>, problem: &str) -> Self {
        Self { field: field.map(Into::into), problem: problem.into() }
    }
}

impl fmt::Display for RuleTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}
