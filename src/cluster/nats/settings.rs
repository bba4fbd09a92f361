//! How a node reaches NATS: servers, login, TLS, and the prefix that separates several clusters on the
//! same servers.
//!
//! Plain data with its checks. Does not know the configuration file, which makes it, and no client of
//! NATS.

use std::{fmt, path::PathBuf};

use crate::cluster::names::NodeId;

/// How a node reaches NATS.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// URLs of NATS servers, `nats://host:port` or `tls://host:port`. The servers name the others of
    /// their cluster.
    pub servers: Vec<String>,
    /// The credentials of this node at NATS.
    pub login: NatsLogin,
    /// TLS to NATS.
    pub tls: NatsTls,
    /// Separates several clusters of brokers on the same NATS servers.
    pub prefix: ClusterPrefix,
    /// The name of this node, which NATS shows as the name of the connection.
    pub node: NodeId,
    /// How many NATS servers have each stream and bucket: 1, 3 or 5.
    pub replicas: usize,
}

/// The credentials of a node at NATS. Secrets are in files, which are read again for each connection,
/// so a renewed one counts without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NatsLogin {
    /// Nothing.
    #[default]
    None,
    /// A user name and a file with the password.
    Password {
        /// The user name.
        user: String,
        /// The file; blanks at its ends do not count.
        password_file: PathBuf,
    },
    /// A file with a token.
    Token(PathBuf),
    /// A file with the seed of an NKey of a user, `SU…`.
    Nkey(PathBuf),
    /// A credentials file: a JSON Web Token and the seed of its NKey, as `nsc` writes it.
    Credentials(PathBuf),
}

/// TLS to NATS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatsTls {
    /// Whether a connection without TLS is given up, whatever the URL says.
    pub is_required: bool,
    /// A PEM file with the authorities of the servers; without it, those of the system count.
    pub authorities: Option<PathBuf>,
    /// PEM files with the certificate and the key of this node.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// The beginning of all names of one cluster in NATS: 1 to 32 of `A-Z a-z 0-9 - _`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPrefix(Box<str>);

impl ClusterPrefix {
    /// Maximum bytes of a prefix.
    pub const BYTES_MAX: usize = 32;

    /// Returns the prefix if a name in NATS can begin with it.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_fit = (1..=Self::BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain);
        is_fit.then(|| Self(text.into()))
    }

    /// Returns the prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ClusterPrefix {
    fn default() -> Self {
        Self("hearthmq".into())
    }
}

impl fmt::Display for ClusterPrefix {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}
