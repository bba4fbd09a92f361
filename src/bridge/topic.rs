//! Topics that go over a bridge, as they are configured.

use super::error::BridgeError;
use crate::mqtt::{QoS, validate_filter};

/// Maximum number of bytes of a filter or a prefix.
const TEXT_BYTES_MAX: usize = 1024;

/// The direction in which messages go over a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From this broker to the other one.
    #[default]
    Out,
    /// From the other broker to this one.
    In,
    /// Both.
    Both,
}

impl Direction {
    /// Returns the name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Both => "both",
        }
    }

    pub(super) const fn goes_out(self) -> bool {
        matches!(self, Self::Out | Self::Both)
    }

    pub(super) const fn comes_in(self) -> bool {
        matches!(self, Self::In | Self::Both)
    }
}

/// When the retained messages of a topic go over a bridge, beside those that are published while the
/// bridge exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetainedOf {
    /// When the other side has no session of the bridge yet, or not this topic.
    #[default]
    New,
    /// At each connection.
    Always,
    /// Never.
    Never,
}

impl RetainedOf {
    /// Returns the name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// Topics that go over a bridge. A topic here is `local_prefix` and a text; at the other broker it is
/// `remote_prefix` and the same text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeTopic {
    /// Topic Filter that the text matches; empty for the prefixes alone.
    pub filter: String,
    /// In which direction.
    pub direction: Direction,
    /// Maximum QoS.
    pub qos: QoS,
    /// Text before the topics in this broker.
    pub local_prefix: String,
    /// Text before the topics at the other broker.
    pub remote_prefix: String,
    /// When retained messages go over.
    pub retained: RetainedOf,
}

impl BridgeTopic {
    /// Checks filter and prefixes.
    ///
    /// # Errors
    /// [`BridgeError::Topic`].
    pub fn check(&self) -> Result<(), BridgeError> {
        let fault = |why: &str| BridgeError::Topic(self.filter.clone(), why.to_owned());
        let texts = [&self.filter, &self.local_prefix, &self.remote_prefix];
        // Short enough that a topic with its prefix fits into a packet.
        if texts.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(fault("a filter and a prefix have at most 1,024 bytes"));
        }
        if [&self.local_prefix, &self.remote_prefix].iter().any(|text| text.contains(['+', '#'])) {
            return Err(fault("a prefix has no wildcards"));
        }
        // Both prefixes are topics of their own then.
        if self.filter.is_empty() && (self.local_prefix.is_empty() || self.remote_prefix.is_empty())
        {
            return Err(fault("an empty filter needs both prefixes"));
        }
        // The prefix may make a valid filter invalid.
        for filter in [self.local_filter(), self.remote_filter()] {
            let parts = validate_filter(&filter).map_err(|error| fault(&error.to_string()))?;
            if parts.share_name.is_some() {
                return Err(fault("a bridge has no shared subscriptions"));
            }
        }
        Ok(())
    }

    /// Returns the Topic Filter of its topics in this broker.
    #[must_use]
    pub fn local_filter(&self) -> String {
        format!("{}{}", self.local_prefix, self.filter)
    }

    /// Returns the Topic Filter of its topics at the other broker.
    #[must_use]
    pub fn remote_filter(&self) -> String {
        format!("{}{}", self.remote_prefix, self.filter)
    }
}
