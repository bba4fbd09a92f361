//! Topic Names and Topic Filters (sections 4.7 and 4.8.2): syntax and matching.
//!
//! Knows no subscriptions and no configured limits. The decoder checks Topic Names itself;
//! SUBSCRIBE and UNSUBSCRIBE handlers check filters with this module.

/// Why a string is an invalid Topic Name or Topic Filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// [MQTT-4.7.3-1]
    #[error("topic is empty")]
    Empty,
    /// [MQTT-4.7.3-2]
    #[error("topic contains the null character")]
    NullCharacter,
    /// [MQTT-4.7.3-3]
    #[error("topic is longer than 65,535 bytes")]
    TooLong,
    /// [MQTT-4.7.0-1]
    #[error("topic name contains a wildcard")]
    WildcardInName,
    /// [MQTT-4.7.1-1]
    #[error("'#' is not the whole last level of the filter")]
    MultiLevelWildcard,
    /// [MQTT-4.7.1-2]
    #[error("'+' is not a whole level")]
    SingleLevelWildcard,
    /// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    #[error("share name is empty or contains a wildcard")]
    ShareName,
    /// [MQTT-4.8.2-2]
    #[error("no topic filter follows the share name")]
    ShareWithoutFilter,
}

impl TopicError {
    /// Returns the violated statement of MQTT 5.0.
    #[must_use]
    pub const fn clause(self) -> &'static str {
        match self {
            Self::Empty => "MQTT-4.7.3-1",
            Self::NullCharacter => "MQTT-4.7.3-2",
            Self::TooLong => "MQTT-4.7.3-3",
            Self::WildcardInName => "MQTT-4.7.0-1",
            Self::MultiLevelWildcard => "MQTT-4.7.1-1",
            Self::SingleLevelWildcard => "MQTT-4.7.1-2",
            Self::ShareName => "MQTT-4.8.2-1",
            Self::ShareWithoutFilter => "MQTT-4.8.2-2",
        }
    }
}

/// The parts of a Topic Filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterParts<'a> {
    /// ShareName, if this is a Shared Subscription.
    pub share_name: Option<&'a str>,
    /// The filter to match topics with, without `$share/{ShareName}/`.
    pub filter: &'a str,
}

/// First levels reserved for the broker: no client may publish to these topics or below them.
const OF_THE_BROKER: [&str; 4] = ["$events", "$SYS", "$control", "$SETOPTS"];

/// Exception: bridges publish their state here, by default also as their Will; the policy decides.
const STATE_OF_BRIDGES: &str = "$SYS/broker/connection/";

/// Returns whether only the broker may publish to this topic, regardless of the policy.
/// [MQTT-4.7.2-1]
#[must_use]
pub fn is_of_the_broker(topic: &str) -> bool {
    // For nearly every topic the first byte decides.
    topic.starts_with('$')
        && topic.split('/').next().is_some_and(|level| OF_THE_BROKER.contains(&level))
        && !topic.starts_with(STATE_OF_BRIDGES)
}

/// Checks the syntax of a Topic Name.
///
/// # Errors
/// The violated rule.
pub fn validate_topic(topic: &str) -> Result<(), TopicError> {
    validate_length(topic)?;
    if topic.contains(['+', '#']) {
        return Err(TopicError::WildcardInName); // [MQTT-4.7.0-1]
    }
    Ok(())
}

/// Checks the syntax of a Topic Filter and splits it into its parts.
///
/// # Errors
/// The violated rule.
pub fn validate_filter(filter: &str) -> Result<FilterParts<'_>, TopicError> {
    // Topic Names and Topic Filters have the same bound. [MQTT-4.7.3-3]
    validate_length(filter)?;
    let Some(shared) = filter.strip_prefix(SHARE_PREFIX) else {
        validate_levels(filter)?;
        return Ok(FilterParts { share_name: None, filter });
    };
    let (share_name, filter) = shared.split_once('/').unwrap_or((shared, ""));
    // A ShareName has at least one character, and no wildcard. [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    if share_name.is_empty() || share_name.contains(['+', '#']) {
        return Err(TopicError::ShareName);
    }
    if filter.is_empty() {
        return Err(TopicError::ShareWithoutFilter);
    }
    // The rest is an ordinary filter.
    validate_levels(filter)?;
    Ok(FilterParts { share_name: Some(share_name), filter })
}

/// The prefix of a Shared Subscription's filter. [MQTT-4.8.2-1]
const SHARE_PREFIX: &str = "$share/";

/// Returns whether `filter` is a Shared Subscription, valid or not.
pub(super) fn is_shared(filter: &str) -> bool {
    filter.starts_with(SHARE_PREFIX)
}

fn validate_length(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > usize::from(u16::MAX) {
        return Err(TopicError::TooLong);
    }
    if topic.contains('\0') {
        return Err(TopicError::NullCharacter);
    }
    Ok(())
}

fn validate_levels(filter: &str) -> Result<(), TopicError> {
    let mut levels = filter.split('/');
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.next().is_some()) {
            return Err(TopicError::MultiLevelWildcard);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::SingleLevelWildcard);
        }
    }
    Ok(())
}

/// Returns whether a valid `filter`, without `$share/{ShareName}/`, matches the Topic Name `topic`.
///
/// Compares level by level: the simple rule that tests compare the router's index with.
#[must_use]
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = topic.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true; // also matches the parent level: `sport/#` matches `sport`
        }
        match names.next() {
            Some(name) if level == "+" || level == name => {}
            Some(_) | None => return false,
        }
    }
    // The topic must not have more levels than the filter.
    names.next().is_none()
}
