//! The errors of calls about users, rules, tokens and bans.

use actix_web::http::StatusCode;

use super::ApiError;
use crate::{control::AccessError, told::cut};

impl ApiError {
    /// No permission to administer the broker.
    pub(in crate::http) fn forbidden_to_administer() -> Self {
        Self::refusal("forbidden", "The account has no permission to administer the broker.")
    }

    /// The revision is not the one that the caller knows.
    pub(in crate::http) fn precondition_failed() -> Self {
        let message = "It was changed by another caller, or is not there as If-Match and \
                       If-None-Match say; look at it again.";
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", message)
    }

    /// `If-Match` or `If-None-Match` cannot be used.
    pub(in crate::http) fn invalid_precondition() -> Self {
        let message = "If-Match must be * or the ETag of an answer, If-None-Match must be *, and only \
                       one of them may be given.";
        Self::bad_request("invalid_precondition", message)
    }

    /// A limit of what the store may have is reached.
    pub(in crate::http) fn too_many(limit: &str) -> Self {
        let message = format!("There are as many as {limit} allows.");
        Self::new(StatusCode::CONFLICT, "too_many", message)
    }

    /// The application has an authorizer or an authenticator of its own.
    pub(in crate::http) fn not_supported() -> Self {
        let message = "The application that contains the broker decides about this by itself.";
        Self::new(StatusCode::CONFLICT, "not_supported", message)
    }

    /// The rule is not valid.
    pub(in crate::http) fn invalid_rule(why: &str) -> Self {
        Self::bad_request("invalid_rule", format!("The rule is not valid: {}.", cut(why)))
    }

    /// There is no rule with this identifier.
    pub(in crate::http) fn rule_not_found() -> Self {
        let message = "No rule in the store has this id.";
        Self::new(StatusCode::NOT_FOUND, "rule_not_found", message)
    }

    /// The ban is not valid.
    pub(in crate::http) fn invalid_ban(why: &str) -> Self {
        Self::bad_request("invalid_ban", format!("The ban is not valid: {}.", cut(why)))
    }

    /// There is no such ban.
    pub(in crate::http) fn ban_not_found() -> Self {
        let message = "There is no ban of exactly this client_id, user or address.";
        Self::new(StatusCode::NOT_FOUND, "ban_not_found", message)
    }

    /// The token is not valid.
    pub(in crate::http) fn invalid_token(why: &str) -> Self {
        Self::bad_request("invalid_token", format!("The token is not valid: {}.", cut(why)))
    }

    /// There is a token of this name.
    pub(in crate::http) fn token_exists() -> Self {
        let message = "There is a token of this name; remove it first, or choose another name.";
        Self::new(StatusCode::CONFLICT, "token_exists", message)
    }

    /// There is no such token.
    pub(in crate::http) fn token_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "token_not_found", "No token has this name.")
    }

    /// The broker counts no failed login for an address.
    pub(in crate::http) fn no_failed_logins() -> Self {
        let message = "No failed logins of this address, or of this user there, count now.";
        Self::new(StatusCode::NOT_FOUND, "no_failed_logins", message)
    }

    /// Returns the error of a call about a kind of thing, with the errors that depend on the kind.
    pub(in crate::http) fn of_access(
        error: AccessError,
        not_found: impl Fn() -> Self,
        invalid: impl Fn(&str) -> Self,
    ) -> Self {
        match error {
            AccessError::NotFound => not_found(),
            AccessError::Conflict => Self::precondition_failed(),
            AccessError::Invalid(why) => invalid(&why),
            AccessError::TooMany(limit) => Self::too_many(limit),
            AccessError::NotSupported => Self::not_supported(),
            AccessError::Control(error) => error.into(),
        }
    }
}
