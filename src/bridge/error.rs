//! The faults of a bridge's definition.

use std::{io, path::PathBuf};

use crate::mqtt::TopicError;

/// Maximum number of addresses of a bridge.
pub(super) const ADDRESSES_MAX: usize = 16;
/// Maximum number of topics of a bridge: each message is compared with them.
pub(super) const TOPICS_MAX: usize = 256;
/// Maximum number of bridges.
pub(crate) const BRIDGES_MAX: usize = 64;

/// Why a bridge is invalid or cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// The name has other characters, or is too long.
    #[error(
        "{0:?} is not a valid name of a bridge: write 1 to 64 lower-case letters, digits, - and _"
    )]
    Name(String),
    /// Two bridges have this name.
    #[error("two bridges are named {0:?}: give each a name of its own")]
    Repeated(String),
    /// There are too many bridges.
    #[error("there are at most {BRIDGES_MAX} bridges")]
    TooMany,
    /// The text is not an address.
    #[error("{0:?} is not an address of a broker: write mqtt://HOST:PORT or mqtts://HOST:PORT")]
    Address(String),
    /// There is no address, or too many.
    #[error("a bridge has 1 to {ADDRESSES_MAX} addresses")]
    Addresses,
    /// There is no topic, or too many.
    #[error("a bridge has 1 to {TOPICS_MAX} topics")]
    Topics,
    /// A topic is invalid.
    #[error("the topic {0:?} of a bridge is invalid: {1}")]
    Topic(String, String),
    /// The version has no bridges.
    #[error("a bridge speaks MQTT 5.0 or 3.1.1")]
    Version,
    /// An option is out of its range.
    #[error(
        "an option of the bridge is out of range: a Keep Alive of at least 5 s, times above 0, at least one hop"
    )]
    Options,
    /// The topic of the state is invalid.
    #[error("the topic of the state cannot be used: {0}")]
    StatusTopic(TopicError),
    /// There is a password without a user name.
    #[error("MQTT 3.1.1 has no password without a user name")]
    Credentials,
    /// A file of TLS cannot be used.
    #[error("{path} cannot be used: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS for the bridge: {0}")]
    Tls(String),
    /// The broker has no bridge of this name.
    #[error("there is no bridge {0:?}")]
    Unknown(String),
}

impl BridgeError {
    /// Returns the option of the configuration that is at fault.
    #[must_use]
    pub const fn option(&self) -> &'static str {
        match self {
            Self::Name(_) | Self::Repeated(_) | Self::TooMany | Self::Unknown(_) => "name",
            Self::Address(_) | Self::Addresses => "addresses",
            Self::Topics | Self::Topic(..) => "topics",
            Self::Version => "protocol",
            Self::Options => "keep_alive_secs",
            Self::StatusTopic(_) => "status_topic",
            Self::Credentials => "username",
            Self::File { .. } | Self::Tls(_) => "tls",
        }
    }
}
