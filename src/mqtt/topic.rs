//! Topic Names and Topic Filters, sections 4.7 and 4.8.2: their shape, and which matches which.
//!
//! Knows no subscription and no limit of ours. The decoder checks the Topic Names it meets
//! itself; filters are checked here by whoever handles SUBSCRIBE.

/// Why a string is no Topic Name or no Topic Filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// [MQTT-4.7.3-1]
    #[error("topic is empty")]
    Empty,
    /// [MQTT-4.7.3-2]
    #[error("topic holds the null character")]
    NullCharacter,
    /// [MQTT-4.7.3-3]
    #[error("topic is longer than 65,535 bytes")]
    TooLong,
    /// [MQTT-4.7.0-1]
    #[error("topic name holds a wildcard")]
    WildcardInName,
    /// [MQTT-4.7.1-1]
    #[error("'#' is not a level of its own at the end of the filter")]
    MultiLevelWildcard,
    /// [MQTT-4.7.1-2]
    #[error("'+' is not a level of its own")]
    SingleLevelWildcard,
    /// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    #[error("share name is empty or holds a wildcard")]
    ShareName,
    /// [MQTT-4.8.2-2]
    #[error("no topic filter follows the share name")]
    ShareWithoutFilter,
}

impl TopicError {
    /// Returns the statement of MQTT 5.0 that the topic breaks.
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

/// A Topic Filter, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterParts<'a> {
    /// ShareName of a Shared Subscription.
    pub share_name: Option<&'a str>,
    /// What topics are matched with: without `$share/{ShareName}/`.
    pub filter: &'a str,
}

/// First levels of the topics that only the broker publishes, under each of them and to the bare name.
const OF_THE_BROKER: [&str; 3] = ["$events", "$SYS", "$control"];

/// Under this bridges publish their state, by default also as their Will; rules decide who may.
const STATE_OF_BRIDGES: &str = "$SYS/broker/connection/";

/// Whether only the broker publishes to this topic, whatever rules say. [MQTT-4.7.2-1]
#[must_use]
pub fn is_of_the_broker(topic: &str) -> bool {
    // Nearly every topic is decided by its first byte.
    topic.starts_with('$')
        && topic.split('/').next().is_some_and(|level| OF_THE_BROKER.contains(&level))
        && !topic.starts_with(STATE_OF_BRIDGES)
}

/// Checks a Topic Name.
///
/// # Errors
/// The rule that it breaks.
pub fn validate_topic(topic: &str) -> Result<(), TopicError> {
    validate_length(topic)?;
    if topic.contains(['+', '#']) {
        return Err(TopicError::WildcardInName); // [MQTT-4.7.0-1]
    }
    Ok(())
}

/// Checks a Topic Filter and takes it apart.
///
/// # Errors
/// The rule that it breaks.
pub fn validate_filter(filter: &str) -> Result<FilterParts<'_>, TopicError> {
    validate_length(filter)?;
    let Some(shared) = filter.strip_prefix(SHARE_PREFIX) else {
        validate_levels(filter)?;
        return Ok(FilterParts { share_name: None, filter });
    };
    let (share_name, filter) = shared.split_once('/').unwrap_or((shared, ""));
    if share_name.is_empty() || share_name.contains(['+', '#']) {
        return Err(TopicError::ShareName);
    }
    if filter.is_empty() {
        return Err(TopicError::ShareWithoutFilter);
    }
    validate_levels(filter)?;
    Ok(FilterParts { share_name: Some(share_name), filter })
}

/// How the filter of a Shared Subscription begins. [MQTT-4.8.2-1]
const SHARE_PREFIX: &str = "$share/";

/// Whether `filter` asks for a Shared Subscription, well-formed or not.
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

/// Whether a valid `filter`, without `$share/{ShareName}/`, matches the Topic Name `topic`.
///
/// It walks both level by level: the plain rule, which the router's index is measured by.
#[must_use]
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = topic.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true; // Also the parent level: `sport/#` matches `sport`.
        }
        match names.next() {
            Some(name) if level == "+" || level == name => {}
            Some(_) | None => return false,
        }
    }
    names.next().is_none()
}
