//! The options and the log of the program, as the REST interface shows them.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// The program that runs the broker. An application that contains one need not be one.
pub trait Program: Send + Sync + 'static {
    /// Returns all options in force. Secrets are hidden.
    fn options(&self) -> Vec<OptionInForce>;

    /// Returns the filter of the log.
    fn log_filter(&self) -> String;

    /// Changes the filter of the log, until the configuration is read again.
    ///
    /// # Errors
    /// The filter is not valid.
    fn set_log_filter(&self, filter: &str) -> Result<(), InvalidLogFilter>;
}

/// The text is not a valid filter of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the filter of the log is not valid")]
pub struct InvalidLogFilter;

/// An option of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct OptionInForce {
    /// Its name with its section: `limits.connections_max`.
    pub name: String,
    /// The value in force; `null` if it is a secret.
    pub value: Value,
    /// The default.
    pub default: Value,
    /// Whether the value differs from the default.
    pub is_changed: bool,
    /// Whether the value is a secret, which is not shown.
    pub is_hidden: bool,
    /// Whether a change needs a restart.
    pub needs_restart: bool,
}
