//! API tokens: credentials of services that call the REST interface, with permissions of their own.

use std::{fmt, sync::Arc};

/// An API token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiToken {
    /// Its name: 1 to 64 letters, digits, `-`, `_` and `.`. Its caller has the user name `token:NAME`.
    pub name: Arc<str>,
    /// Its rules, as a JSON list. What they do not allow is denied.
    pub rules: Arc<str>,
    /// The user name of the caller that has made it.
    pub by: Option<Arc<str>>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at_millis: u64,
    /// When it expires, in milliseconds since the Unix epoch; `None` if never.
    pub expires_at_millis: Option<u64>,
    /// When it was used last, to ten minutes, in milliseconds since the Unix epoch.
    pub last_used_millis: Option<u64>,
}

impl ApiToken {
    /// Returns a token with these rules that does not expire.
    pub fn new(name: impl Into<Arc<str>>, rules: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            rules: rules.into(),
            by: None,
            created_at_millis: 0,
            expires_at_millis: None,
            last_used_millis: None,
        }
    }
}

/// Makes an API token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateToken {
    /// Its name, which no other token has.
    pub name: Arc<str>,
    /// Its rules, as a JSON list; at most 63, and at most 16 KiB.
    pub rules: Arc<str>,
    /// After this number of seconds it expires.
    pub ttl_secs: Option<u32>,
    /// The user name of the caller.
    pub by: Option<Arc<str>>,
}

impl CreateToken {
    /// Returns the request to make a token that does not expire.
    pub fn new(name: impl Into<Arc<str>>, rules: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), rules: rules.into(), ttl_secs: None, by: None }
    }
}

/// A token that was made, with its secret, which nobody can see again.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedToken {
    /// The token.
    pub token: ApiToken,
    /// The secret: `hmq_t_` and 43 characters.
    pub secret: String,
}

impl CreatedToken {
    /// Returns a token with its secret.
    #[must_use]
    pub const fn new(token: ApiToken, secret: String) -> Self {
        Self { token, secret }
    }
}

impl fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedToken").field("token", &self.token).finish_non_exhaustive()
    }
}
