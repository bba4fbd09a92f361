//! Texts for entries of the audit log: clients, values, and what differs between two values.
//!
//! Knows how long a text may be; does not know the calls.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{control::AuditEntry, told::ChangedObject};

const SEPARATOR: &str = ", ";
/// Stands for the texts that have no room.
const REST: &str = ", …";

/// Texts that are joined, as far as an entry has room for them.
#[derive(Default)]
pub(super) struct JoinedTexts {
    text: String,
    count: usize,
    is_full: bool,
}

impl JoinedTexts {
    /// Adds a text, if it and those before it have room.
    pub(super) fn push(&mut self, text: &str) {
        self.count += 1;
        let separator = if self.text.is_empty() { "" } else { SEPARATOR };
        let bytes = self.text.len() + separator.len() + text.len() + REST.len();
        // The first one is there in any case. The log cuts it.
        if self.is_full || (bytes > AuditEntry::TEXT_BYTES_MAX && !self.text.is_empty()) {
            self.is_full = true;
            return;
        }
        self.text.push_str(separator);
        self.text.push_str(text);
    }

    /// Returns the number of texts that were added.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Returns the joined texts; `None` if there is none.
    pub(super) fn text(&self) -> Option<String> {
        let rest = if self.is_full { REST } else { "" };
        (self.count > 0).then(|| format!("{}{rest}", self.text))
    }
}

impl<'t> FromIterator<&'t str> for JoinedTexts {
    fn from_iter<I: IntoIterator<Item = &'t str>>(texts: I) -> Self {
        let mut joined = Self::default();
        texts.into_iter().for_each(|text| joined.push(text));
        joined
    }
}

/// Returns the clients of a list that a call has changed as the target of an entry; `names` has their identifiers.
pub(super) const fn listed(count: usize, names: &str) -> ChangedObject<'_> {
    if count == 1 { ChangedObject::Client(names) } else { ChangedObject::List(names) }
}

/// Returns the lowest and the highest of some values; `None` without any.
pub(super) fn range_of(values: impl Iterator<Item = u16> + Clone) -> Option<String> {
    let (lowest, highest) = (values.clone().min()?, values.max()?);
    Some(if lowest == highest { lowest.to_string() } else { format!("{lowest} to {highest}") })
}

/// Returns a value as JSON.
pub(super) fn json_of(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a value has text keys only")
}

/// Returns the members of two objects that differ, as JSON.
pub(super) fn differences(old: &impl Serialize, new: &impl Serialize) -> [String; 2] {
    let members = |value: Value| match value {
        Value::Object(members) => members,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    let value_of = |value: Result<Value, _>| members(value.unwrap_or_default());
    let mut both = [value_of(serde_json::to_value(old)), value_of(serde_json::to_value(new))];
    let [old, new] = &mut both;
    old.retain(|name, value| match new.get(name) {
        Some(same) if same == value => new.remove(name).is_none(),
        _ => true,
    });
    both.map(|members| json_of(&members))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_joined_as_far_as_there_is_room() {
        let joined = |texts: &[&str]| texts.iter().copied().collect::<JoinedTexts>().text();
        assert_eq!(joined(&[]), None);
        assert_eq!(joined(&["a", "b"]).as_deref(), Some("a, b"));
        let long = "x".repeat(AuditEntry::TEXT_BYTES_MAX - REST.len() - 3);
        assert_eq!(joined(&["a", &long]), Some(format!("a, {long}")));
        assert_eq!(joined(&["ab", &long, "c"]).as_deref(), Some("ab, …"), "no gap between them");
        assert_eq!(joined(&["a", &long, "c"]), Some(format!("a, {long}, …")));
    }

    #[test]
    fn the_members_that_differ_are_shown() {
        let [old, new] = differences(
            &json!({"a": 1, "b": [2], "c": null}),
            &json!({"a": 1, "b": [3], "c": {"d": 4}}),
        );
        assert_eq!(old, r#"{"b":[2],"c":null}"#);
        assert_eq!(new, r#"{"b":[3],"c":{"d":4}}"#);
        assert_eq!(range_of([5, 3, 4].into_iter()).as_deref(), Some("3 to 5"));
        assert_eq!(range_of([5, 5].into_iter()).as_deref(), Some("5"));
        assert_eq!(range_of([].into_iter()), None);
    }
}
