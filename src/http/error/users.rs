//! The errors of the calls about accounts.

use actix_web::http::StatusCode;

use super::ApiError;
use crate::control::UsersError;

impl From<UsersError> for ApiError {
    fn from(error: UsersError) -> Self {
        match error {
            UsersError::NoSource => {
                let message =
                    "The broker has no accounts in its store; see the option auth.sources.";
                Self::new(StatusCode::NOT_FOUND, "no_stored_users", message)
            }
            UsersError::NotFound => {
                let message =
                    "The store has no account of this name. Those of the file are not shown.";
                Self::new(StatusCode::NOT_FOUND, "user_not_found", message)
            }
            UsersError::Exists => {
                let message = "The store has an account of this name already.";
                Self::new(StatusCode::CONFLICT, "user_exists", message)
            }
            UsersError::InFile => {
                let message = "The file of accounts has this name, and goes before the store.";
                Self::new(StatusCode::CONFLICT, "user_in_file", message)
            }
            UsersError::Changed => Self::precondition_failed(),
            UsersError::TooManySecrets => {
                let message = "The account has two device secrets; remove one of them first.";
                Self::new(StatusCode::CONFLICT, "too_many_secrets", message)
            }
            UsersError::SecretNotFound => {
                let message = "The account has no device secret with this id.";
                Self::new(StatusCode::NOT_FOUND, "secret_not_found", message)
            }
            UsersError::InvalidName => {
                let message = "A user name must have 1 to 4096 bytes of UTF-8, and neither colons nor \
                               control characters.";
                Self::bad_request("invalid_user_name", message)
            }
            UsersError::InvalidPassword => {
                Self::bad_request("invalid_password", "A password must have 1 to 65535 bytes.")
            }
            UsersError::InvalidHash => {
                let message = "The hash must be one of Argon2id, bcrypt, PBKDF2 or Mosquitto's \
                               SHA-512, with usual parameters.";
                Self::bad_request("invalid_hash", message)
            }
            UsersError::TooMany => {
                let message = "There are 10,000,000 accounts, which is the maximum.";
                Self::new(StatusCode::CONFLICT, "too_many_users", message)
            }
            UsersError::Unavailable => Self::unavailable(),
        }
    }
}
