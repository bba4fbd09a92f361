//! `[auth.jwt]`: the tokens that are accepted, and the meaning of their claims.

use std::{io, path::PathBuf};

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};

/// The tokens that are accepted. Without keys, secrets and a JWK Set, no token is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtConfig {
    /// The part of CONNECT and HTTP Basic that has the token.
    pub from: TokenPlace,
    /// The algorithms that are accepted: `HS256`, `RS256`, `PS256`, `ES256`, `EdDSA` and so on.
    pub algorithms: Vec<String>,
    /// PEM files with public keys, one each.
    pub keys: Vec<PathBuf>,
    /// Files with secrets for HMAC, one each.
    pub secrets: Vec<PathBuf>,
    /// URL or file of a JWK Set; empty = none.
    pub jwks: String,
    /// A PEM file of the certification authorities that are trusted for it; empty = those of the
    /// system.
    pub jwks_ca: PathBuf,
    /// Whether its URL may be `http` to another machine.
    pub jwks_allow_http: bool,
    /// Seconds between two readings of the JWK Set.
    pub jwks_refresh_secs: u32,
    /// Values of `iss` that are accepted; empty = all.
    pub issuers: Vec<String>,
    /// Values of `aud` that are accepted; empty = all.
    pub audiences: Vec<String>,
    /// Seconds by which `nbf` may be in the future, because clocks differ. `exp` is exact.
    pub leeway_secs: u32,
    /// Whether tokens without `exp` are refused.
    pub exp_required: bool,
    /// Claims that a token must have: `NAME=VALUE`, where the value may have variables.
    pub claims: Vec<String>,
    /// The claim that is the user name.
    pub username_claim: String,
    /// Claims that become attributes: `NAME`, or `ATTRIBUTE=NAME`.
    pub attributes: Vec<String>,
    /// The claim that has the groups; empty = none.
    pub groups_claim: String,
    /// The claim that has rules; empty = none.
    pub acl_claim: String,
}

/// Where a token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TokenPlace {
    /// In the password.
    #[default]
    Password,
    /// In the user name.
    Username,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            from: TokenPlace::default(),
            algorithms: Vec::new(),
            keys: Vec::new(),
            secrets: Vec::new(),
            jwks: String::new(),
            jwks_ca: PathBuf::new(),
            jwks_allow_http: false,
            jwks_refresh_secs: 300,
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway_secs: 30,
            // A stolen token without an end would be valid without end.
            exp_required: true,
            claims: Vec::new(),
            username_claim: "sub".to_owned(),
            attributes: Vec::new(),
            groups_claim: "groups".to_owned(),
            acl_claim: "acl".to_owned(),
        }
    }
}

/// Why tokens cannot be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// An option is invalid.
    #[error("auth.jwt.{option}: {why}")]
    Option {
        /// The name of the option.
        option: &'static str,
        /// The fault, and its remedy.
        why: String,
    },
    /// A file cannot be read.
    #[error("auth.jwt.{option}: {}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The name of the option.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl JwtError {
    pub(super) fn of(option: &'static str, why: impl Into<String>) -> Self {
        Self::Option { option, why: why.into() }
    }
}

impl JwtConfig {
    /// Returns whether there is a key.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !(self.keys.is_empty() && self.secrets.is_empty() && self.jwks.is_empty())
    }

    /// Returns the algorithms that are accepted, at least one.
    pub(super) fn algorithms(&self) -> Result<Vec<Algorithm>, JwtError> {
        let parse = |name: &String| {
            let unknown = |_| {
                JwtError::of(
                    "algorithms",
                    format!(
                        "{name:?} is unknown; there are HS256, HS384, HS512, RS256, RS384, RS512, PS256, \
                         PS384, PS512, ES256, ES384 and EdDSA"
                    ),
                )
            };
            name.parse::<Algorithm>().map_err(unknown)
        };
        let algorithms = self.algorithms.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        // An empty list must not mean all: a token would choose how it is checked.
        match algorithms.is_empty() {
            true => Err(JwtError::of(
                "algorithms",
                "it is empty; name those by which your tokens are signed, for example \"ES256\"",
            )),
            false => Ok(algorithms),
        }
    }
}

pub(super) const fn is_hmac(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}
