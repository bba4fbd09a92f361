//! Topic Filters of rules: which topics one matches, which filters it covers or overlaps.
//!
//! *Covers*: the rule's filter matches every topic that the requested filter matches. *Overlaps*:
//! both filters match some topic. Both are exact under section 4.7 of MQTT, including its two
//! special cases: `#` also matches the parent level, and a leading wildcard does not match a
//! leading `$`. (The empty text counts as a topic of one empty level, although no message can have
//! it.)
//!
//! Knows only levels and variables; allocates nothing. Called by the rules.

use std::str::FromStr;

use super::variables::{Holds, Template, TemplateError, VariableValues};

/// A Topic Filter with variables, by levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicPattern(Vec<PatternLevel>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum PatternLevel {
    /// `+`
    One,
    /// `#`, in the last level
    Rest,
    Text(Template),
}

/// Why a text is not a valid Topic Filter of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TopicPatternError {
    #[error("topic filter is empty or longer than 65,535 bytes, or holds U+0000")]
    Invalid,
    #[error("`#` stands alone in the last level of a topic filter, `+` alone in a level")]
    Wildcard,
    #[error(
        "a shared subscription is checked by the filter behind `$share/name/`; write only that"
    )]
    Shared,
    #[error("{0}")]
    Template(#[from] TemplateError),
}

impl TopicPattern {
    /// Returns whether it matches the Topic Name.
    pub(super) fn matches(&self, topic: &str, subject: &VariableValues<'_>) -> Holds {
        // A Topic Name is a filter without wildcards, and to cover it is to match it.
        self.covers(topic, subject)
    }

    /// Returns whether it matches every topic that `asked` matches.
    pub(super) fn covers(&self, asked: &str, subject: &VariableValues<'_>) -> Holds {
        if self.begins_with_wildcard() && asked.starts_with('$') {
            return Holds::No; // [MQTT-4.7.2-1]
        }
        // Every topic has a first level, so `+/#` equals `#`.
        if asked == "#" && self.0 == [PatternLevel::One, PatternLevel::Rest] {
            return Holds::Yes;
        }
        match self.levels_cover(asked, subject) {
            // A client with the identifier `$events` gets no access to the broker's own topics.
            Holds::Yes if asked.starts_with('$') && self.begins_with_variable() => Holds::Unknown,
            holds @ (Holds::Yes | Holds::No | Holds::Unknown) => holds,
        }
    }

    fn levels_cover(&self, asked: &str, subject: &VariableValues<'_>) -> Holds {
        let mut asked = asked.split('/');
        for level in &self.0 {
            match (level, asked.next()) {
                (PatternLevel::Rest, _) => return Holds::Yes,
                // The requested wildcard matches topics that this level does not.
                (PatternLevel::One, Some("#")) | (PatternLevel::Text(_), Some("+" | "#")) => {
                    return Holds::No;
                }
                (PatternLevel::One, Some(_)) => {}
                (PatternLevel::Text(text), Some(level)) => match text.matches_level(level, subject)
                {
                    Holds::Yes => {}
                    no @ (Holds::No | Holds::Unknown) => return no,
                },
                (PatternLevel::One | PatternLevel::Text(_), None) => return Holds::No,
            }
        }
        Holds::from(asked.next().is_none())
    }

    /// Returns whether some topic matches both it and `asked`.
    pub(super) fn overlaps(&self, asked: &str, subject: &VariableValues<'_>) -> Holds {
        if self.wildcard_meets_dollar(asked, subject) {
            return Holds::No; // [MQTT-4.7.2-1]
        }
        let mut asked = asked.split('/');
        for level in &self.0 {
            match (level, asked.next()) {
                (PatternLevel::Rest, _) | (_, Some("#")) => return Holds::Yes,
                (PatternLevel::One, Some(_)) | (PatternLevel::Text(_), Some("+")) => {}
                (PatternLevel::Text(text), Some(level)) => match text.matches_level(level, subject)
                {
                    Holds::Yes => {}
                    no @ (Holds::No | Holds::Unknown) => return no,
                },
                (PatternLevel::One | PatternLevel::Text(_), None) => return Holds::No,
            }
        }
        // `#` also matches the parent level, so one `#` may be left over (section 4.7.1.2).
        Holds::from(matches!(asked.next(), None | Some("#")))
    }

    /// Returns whether one of the two begins with a wildcard, and the other with a `$`.
    fn wildcard_meets_dollar(&self, asked: &str, subject: &VariableValues<'_>) -> bool {
        match self.0.first() {
            Some(PatternLevel::One | PatternLevel::Rest) => asked.starts_with('$'),
            Some(PatternLevel::Text(text)) => {
                asked.starts_with(['+', '#']) && text.begins_with_dollar(subject)
            }
            None => false,
        }
    }

    pub(super) fn uses_attributes(&self) -> bool {
        self.0
            .iter()
            .any(|level| matches!(level, PatternLevel::Text(text) if text.uses_attributes()))
    }

    fn begins_with_variable(&self) -> bool {
        matches!(self.0.first(), Some(PatternLevel::Text(text)) if text.begins_with_variable())
    }

    fn begins_with_wildcard(&self) -> bool {
        matches!(self.0.first(), Some(PatternLevel::One | PatternLevel::Rest))
    }
}

impl FromStr for TopicPattern {
    type Err = TopicPatternError;

    fn from_str(filter: &str) -> Result<Self, Self::Err> {
        if filter.is_empty() || filter.len() > 65_535 || filter.contains('\0') {
            return Err(TopicPatternError::Invalid); // [MQTT-4.7.3-1], [MQTT-4.7.3-2]
        }
        // A rule is about topics; the share name of a subscription plays no part in them.
        if filter.starts_with("$share/") {
            return Err(TopicPatternError::Shared);
        }
        let mut levels = Vec::new();
        for level in filter.split('/') {
            if levels.last() == Some(&PatternLevel::Rest) {
                return Err(TopicPatternError::Wildcard); // [MQTT-4.7.1-1]
            }
            levels.push(match level {
                "+" => PatternLevel::One,
                "#" => PatternLevel::Rest,
                text if text.contains(['+', '#']) => return Err(TopicPatternError::Wildcard),
                text => PatternLevel::Text(Template::parse(text)?),
            });
        }
        Ok(Self(levels))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::{ClientCertificate, Identity};

    fn identity() -> Identity {
        Identity {
            username: Some("ann".into()),
            certificate: Some(Arc::new(ClientCertificate {
                common_name: "device-7".into(),
                serial_number: "0a1b".into(),
            })),
            ..Identity::default()
        }
    }

    fn parse(filter: &str) -> Result<TopicPattern, TopicPatternError> {
        filter.parse()
    }

    fn covers(rule: &str, asked: &str) -> Holds {
        let identity = identity();
        let subject = VariableValues::new(&identity, "car");
        parse(rule).unwrap().covers(asked, &subject)
    }

    fn overlaps(rule: &str, asked: &str) -> Holds {
        let identity = identity();
        let subject = VariableValues::new(&identity, "car");
        parse(rule).unwrap().overlaps(asked, &subject)
    }

    /// Matches topics by the text of section 4.7, for comparison.
    fn filter_matches(filter: &str, topic: &str) -> bool {
        fn levels_match(filter: &[&str], topic: &[&str]) -> bool {
            match (filter, topic) {
                (["#"], _) | ([], []) => true,
                (["+", filter @ ..], [_, topic @ ..]) => levels_match(filter, topic),
                ([one, filter @ ..], [other, topic @ ..]) => {
                    one == other && levels_match(filter, topic)
                }
                ([], [_, ..]) | ([_, ..], []) => false,
            }
        }
        let hidden = topic.starts_with('$') && filter.starts_with(['+', '#']);
        let (filter, topic): (Vec<_>, Vec<_>) =
            (filter.split('/').collect(), topic.split('/').collect());
        !hidden && levels_match(&filter, &topic)
    }

    /// Returns all combinations of `levels`, up to `depth` of them.
    fn all(levels: &[&str], depth: usize) -> Vec<String> {
        let mut all: Vec<String> = levels.iter().map(ToString::to_string).collect();
        let mut last = all.clone();
        for _ in 1..depth {
            last = last
                .iter()
                .filter(|before| !before.ends_with('#'))
                .flat_map(|before| levels.iter().map(move |level| format!("{before}/{level}")))
                .collect();
            all.extend(last.iter().cloned());
        }
        all.retain(|text| !text.is_empty());
        all
    }

    #[test]
    fn matching_covering_and_overlapping_agree_with_their_definitions_on_every_small_filter() {
        // `x` stands for all texts that occur in no filter; topics one level deeper than any filter
        // stand for all deeper ones.
        let mut topics = all(&["a", "", "$s", "x"], 4);
        topics.push(String::new());
        let filters = all(&["a", "", "$s", "+", "#"], 3);
        let matched: Vec<Vec<bool>> = filters
            .iter()
            .map(|filter| topics.iter().map(|topic| filter_matches(filter, topic)).collect())
            .collect();
        for (rule, by_rule) in filters.iter().zip(&matched) {
            for (topic, expected) in topics.iter().zip(by_rule) {
                assert_eq!(covers(rule, topic), Holds::from(*expected), "{rule} matches {topic}");
            }
            for (asked, by_asked) in filters.iter().zip(&matched) {
                let mut both = by_rule.iter().zip(by_asked);
                let covered = both.clone().all(|(rule, asked)| *rule || !*asked);
                assert_eq!(covers(rule, asked), Holds::from(covered), "{rule} covers {asked}");
                let overlapping = both.any(|(rule, asked)| *rule && *asked);
                assert_eq!(overlaps(rule, asked), Holds::from(overlapping), "{rule} x {asked}");
            }
        }
    }

    #[test]
    fn variables_stand_for_plain_text_in_one_level() {
        assert_eq!(covers("v/${clientId}/#", "v/car/speed"), Holds::Yes);
        assert_eq!(covers("v/${clientId}/#", "v/bus/speed"), Holds::No);
        assert_eq!(covers("v/x-${username}-${clientId}", "v/x-ann-car"), Holds::Yes);
        assert_eq!(covers("${certificate.commonName}/+", "device-7/up"), Holds::Yes);
        assert_eq!(covers("${certificate.serialNumber}", "0a1b"), Holds::Yes);
    }

    #[test]
    fn a_value_is_never_a_wildcard_and_never_several_levels() {
        let identity = Identity::default();
        for (client_id, asked, expected) in [
            ("+", "v/bus", Holds::No),
            ("+", "v/+", Holds::No),
            ("#", "v/#", Holds::No),
            ("a/b", "v/a/b", Holds::Unknown),
            ("a/b", "w/a/b", Holds::No),
            ("", "v/", Holds::Unknown),
        ] {
            let pattern = parse("v/${clientId}").unwrap();
            let subject = VariableValues::new(&identity, client_id);
            assert_eq!(pattern.covers(asked, &subject), expected, "{client_id} {asked}");
        }
        let subject = VariableValues::new(&identity, "$events");
        let pattern = parse("${clientId}/#").unwrap();
        assert_eq!(pattern.covers("$events/#", &subject), Holds::Unknown);
        assert_eq!(pattern.overlaps("#", &subject), Holds::No);
    }

    #[test]
    fn what_is_no_topic_filter_is_an_error() {
        for filter in ["", "a\0", "a/#/b", "a#", "+a", "a/b+/c", "$share/g/a", "${clientid}", "${"]
        {
            assert!(parse(filter).is_err(), "{filter}");
        }
    }
}
