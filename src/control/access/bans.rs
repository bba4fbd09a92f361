//! Bans, and the requests that change them.

use std::{
    fmt::{self, Display},
    sync::Arc,
};

use super::{AccessError, ExpectedRevision};
use crate::{
    auth::Network,
    control::{ClientPattern, ClientPatternError},
};

/// Maximum bytes of a client identifier, a user name or a pattern of a ban.
const NAME_BYTES_MAX: usize = 4_000;

/// The clients that a ban keeps out. A `*` in a name stands for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BanSubject {
    /// Clients with this identifier.
    ClientId(Arc<str>),
    /// Clients with this user name.
    User(Arc<str>),
    /// Clients from this network.
    Address(Network),
}

impl BanSubject {
    /// Returns the subject of this kind, `client_id`, `user` or `address`.
    ///
    /// # Errors
    /// The kind is not known, or the value is not valid.
    pub fn parse(kind: &str, value: &str) -> Result<Self, AccessError> {
        let name = || -> Result<Arc<str>, AccessError> {
            let invalid =
                |error: ClientPatternError| AccessError::Invalid(format!("{kind}: {error}"));
            // Both kinds of names may have asterisks, whose number is bounded.
            let pattern = ClientPattern::new(value).map_err(invalid)?;
            if !(1..=NAME_BYTES_MAX).contains(&pattern.text().len()) {
                let problem = format!("{kind}: it has 1 to {NAME_BYTES_MAX} bytes");
                return Err(AccessError::Invalid(problem));
            }
            Ok(pattern.text().into())
        };
        match kind {
            "client_id" => name().map(Self::ClientId),
            "user" => name().map(Self::User),
            "address" => {
                let network = value.parse::<Network>();
                let invalid = |error| AccessError::Invalid(format!("address: {error}"));
                network.map(Self::Address).map_err(invalid)
            }
            _ => Err(AccessError::Invalid(
                "a ban is of a client_id, a user or an address".to_owned(),
            )),
        }
    }

    /// Returns the kind: `client_id`, `user` or `address`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ClientId(_) => "client_id",
            Self::User(_) => "user",
            Self::Address(_) => "address",
        }
    }

    /// Returns the identifier, the user name or the network.
    #[must_use]
    pub fn value(&self) -> Arc<str> {
        match self {
            Self::ClientId(name) | Self::User(name) => Arc::clone(name),
            Self::Address(network) => network.to_string().into(),
        }
    }

    /// Returns whether it is a pattern.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        match self {
            Self::ClientId(name) | Self::User(name) => name.contains('*'),
            Self::Address(_) => false,
        }
    }
}

impl Display for BanSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.value())
    }
}

/// A ban: clients that it is about are refused with Banned (0x8A).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ban {
    /// The clients that it keeps out.
    pub subject: BanSubject,
    /// Why, for people.
    pub reason: Option<Arc<str>>,
    /// The user name of the caller that has set it.
    pub by: Option<Arc<str>>,
    /// Whether the broker has set it, because the client connected too often.
    pub is_for_flapping: bool,
    /// When it was set, in milliseconds since the Unix epoch.
    pub set_at_millis: u64,
    /// When it ends, in milliseconds since the Unix epoch; `None` if it does not end by itself.
    pub expires_at_millis: Option<u64>,
    /// The revision of its record: a later one is higher.
    pub revision: u64,
}

impl Ban {
    /// Returns a ban of this subject without an end.
    #[must_use]
    pub const fn new(subject: BanSubject, revision: u64) -> Self {
        Self {
            subject,
            reason: None,
            by: None,
            is_for_flapping: false,
            set_at_millis: 0,
            expires_at_millis: None,
            revision,
        }
    }
}

/// Adds or replaces a ban.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutBan {
    /// The clients that it keeps out.
    pub subject: BanSubject,
    /// Why, for people: at most 1,024 bytes.
    pub reason: Option<Arc<str>>,
    /// After this number of seconds it ends by itself.
    pub ttl_secs: Option<u32>,
    /// The state in which the record must be now.
    pub expected: ExpectedRevision,
    /// The user name of the caller.
    pub by: Option<Arc<str>>,
}

impl PutBan {
    /// Returns the request to keep these clients out until the ban is lifted.
    #[must_use]
    pub const fn new(subject: BanSubject) -> Self {
        let expected = ExpectedRevision::Any;
        Self { subject, reason: None, ttl_secs: None, expected, by: None }
    }
}

/// Lifts a ban.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoveBan {
    /// The clients that it keeps out.
    pub subject: BanSubject,
    /// The state in which the record must be now.
    pub expected: ExpectedRevision,
}

impl RemoveBan {
    /// Returns the request to lift a ban, whatever it is now.
    #[must_use]
    pub const fn new(subject: BanSubject) -> Self {
        Self { subject, expected: ExpectedRevision::Any }
    }
}

/// Asks for bans in the order of their kind and value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListBans {
    /// Those behind this one.
    pub after: Option<BanSubject>,
    /// Maximum number of bans.
    pub limit: usize,
}

impl ListBans {
    /// Maximum number of bans of an answer.
    pub const LIMIT_MAX: usize = 10_000;

    /// Asks for the first bans.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { after: None, limit }
    }
}
