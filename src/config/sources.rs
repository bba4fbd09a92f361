//! `[auth] sources`: where identities come from, in the order in which the sources are asked.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of a source, in the configuration and with the sessions of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SourceName {
    /// The accounts of the file.
    Accounts,
    /// The accounts in the store.
    Users,
    /// The API tokens of REST callers.
    Tokens,
    /// Signed tokens.
    Jwt,
    /// An HTTP service.
    Http,
    /// A PostgreSQL database.
    Postgres,
}

impl SourceName {
    /// All sources, in the order of the default.
    pub const ALL: [Self; 6] =
        [Self::Accounts, Self::Users, Self::Tokens, Self::Jwt, Self::Http, Self::Postgres];

    /// Returns the name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Users => "users",
            Self::Tokens => "tokens",
            Self::Jwt => "jwt",
            Self::Http => "http",
            Self::Postgres => "postgres",
        }
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
