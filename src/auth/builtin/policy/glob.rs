//! Patterns for client identifiers and user names: `*` stands for any text, `/` included.
//!
//! Knows only texts and variables. Called by the rules, which check it at start-up.

use std::str::FromStr;

use super::variables::{Holds, Template, TemplateError, VariableValues};

/// A pattern, split at its asterisks: always one text more than there are asterisks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(Vec<Template>);

impl Glob {
    /// Returns whether this is the empty pattern, which matches the empty text only.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.0.as_slice(), [only] if only.is_empty())
    }

    pub(super) fn uses_attributes(&self) -> bool {
        self.0.iter().any(Template::uses_attributes)
    }

    /// Returns whether it matches all of `text`. Takes time linear in the length of the text: each
    /// text between two asterisks is searched for once, because its first occurrence is as good as
    /// any other.
    pub(super) fn matches(&self, text: &str, subject: &VariableValues<'_>) -> Holds {
        let [first, between @ ..] = self.0.as_slice() else {
            return Holds::No; // There is at least one.
        };
        let Some((last, between)) = between.split_last() else {
            return first.text(subject).map_or(Holds::Unknown, |only| Holds::from(only == text));
        };
        // A variable without a value leaves the rule undecided, even if another part differs.
        let (Some(first), Some(last)) = (first.text(subject), last.text(subject)) else {
            return Holds::Unknown;
        };
        // Prefix and suffix first: what is between them cannot take their characters.
        let mut rest = text.strip_prefix(&*first).and_then(|rest| rest.strip_suffix(&*last));
        for wanted in between {
            let Some(wanted) = wanted.text(subject) else {
                return Holds::Unknown;
            };
            rest = rest.and_then(|rest| after(rest, &wanted));
        }
        Holds::from(rest.is_some())
    }
}

impl FromStr for Glob {
    type Err = TemplateError;

    fn from_str(pattern: &str) -> Result<Self, Self::Err> {
        pattern.split('*').map(Template::parse).collect::<Result<_, _>>().map(Self)
    }
}

fn after<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    text.find(wanted).map(|at| &text[at + wanted.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Identity;

    fn matches(pattern: &str, text: &str) -> bool {
        let identity = Identity::default();
        let subject = VariableValues::new(&identity, "c*d");
        pattern.parse::<Glob>().unwrap().matches(text, &subject) == Holds::Yes
    }

    #[test]
    fn asterisks_stand_for_any_text() {
        for (pattern, text) in [
            ("", ""),
            ("a", "a"),
            ("*", ""),
            ("*", "any/thing"),
            ("car-*", "car-"),
            ("*-car", "a-car"),
            ("a*b*c", "a-b-b-c"),
            ("a**c", "ac"),
            ("ü*", "über"),
            ("x${clientId}", "xc*d"),
            ("*${clientId}*", "--c*d--"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", "A"),
            ("a", ""),
            ("car-*", "car"),
            ("aba*ba", "aba"),
            ("a*b*c", "acb"),
            ("*ab*ab*", "xaby"),
            ("${clientId}", "c-d"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let text = "a".repeat(65_535);
        let pattern = format!("{}b", "a*".repeat(10_000));
        assert!(!matches(&pattern, &text));
        let pattern = format!("{}b*", "*a".repeat(10_000));
        assert!(!matches(&pattern, &text));
    }
}
