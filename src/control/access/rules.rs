//! Rules in the store, and the requests that change them.

use std::sync::Arc;

use super::ExpectedRevision;

/// A rule in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredRule {
    /// Its identifier: 1 to 64 letters, digits, `-`, `_` and `.`.
    pub id: Arc<str>,
    /// The rule as a JSON object, as it was given.
    pub json: Arc<str>,
    /// Its priority.
    pub priority: i64,
    /// The user name of the caller that has written it.
    pub by: Option<Arc<str>>,
    /// When it was written, in milliseconds since the Unix epoch.
    pub set_at_millis: u64,
    /// The revision of its record: a later one is higher.
    pub revision: u64,
}

impl StoredRule {
    /// Returns a rule that nobody in particular has written.
    pub fn new(id: impl Into<Arc<str>>, json: impl Into<Arc<str>>, revision: u64) -> Self {
        let (id, json) = (id.into(), json.into());
        Self { id, json, priority: 0, by: None, set_at_millis: 0, revision }
    }
}

/// Adds or replaces a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutRule {
    /// Its identifier; `None`: the broker chooses one.
    pub id: Option<Arc<str>>,
    /// The rule as a JSON object.
    pub json: Arc<str>,
    /// The state in which the record must be now.
    pub expected: ExpectedRevision,
    /// The user name of the caller.
    pub by: Option<Arc<str>>,
}

impl PutRule {
    /// Returns the request to write a rule, whatever is there now.
    pub fn new(json: impl Into<Arc<str>>) -> Self {
        Self { id: None, json: json.into(), expected: ExpectedRevision::Any, by: None }
    }

    /// Sets the identifier.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.id = Some(id.into());
        self
    }
}

/// Removes a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoveRule {
    /// Its identifier.
    pub id: Arc<str>,
    /// The state in which the record must be now.
    pub expected: ExpectedRevision,
}

impl RemoveRule {
    /// Returns the request to remove a rule, whatever it is now.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self { id: id.into(), expected: ExpectedRevision::Any }
    }
}
