//! The fault that a check of the configuration finds.
//!
//! Plain data. `check` and the checks of single tables make it, `load` adds where the value was given.

/// A value, or a combination of values, that is invalid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Keys at fault. The first of them that was given is where the mistake is reported.
    pub(super) keys: Vec<String>,
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Problem {
    pub(super) fn new(keys: &[&str], what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            keys: keys.iter().map(|&key| key.into()).collect(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}
