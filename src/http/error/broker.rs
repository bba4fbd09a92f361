//! Maps the broker's errors to those of a call. No other module does.

use actix_web::http::StatusCode;

use super::ApiError;
use crate::{control::ControlError, told::cut};

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotOnline => {
                let message = "The client is not connected.";
                Self::new(StatusCode::NOT_FOUND, "client_not_online", message)
            }
            ControlError::KeepAliveDisabled => {
                let message = "The client connected with Keep Alive 0, which turns it off; it \
                               cannot be changed.";
                Self::new(StatusCode::CONFLICT, "keep_alive_disabled", message)
            }
            ControlError::ClientIdTooLong { bytes_max } => {
                let message =
                    format!("The client id of a sticky value may have at most {bytes_max} bytes.");
                Self::bad_request("client_id_too_long", message)
            }
            ControlError::UsernameTooLong => {
                let message = "The user name has more than 4094 bytes, which is too long for sticky \
                               settings.";
                Self::bad_request("username_too_long", message)
            }
            ControlError::TooManyOverrides => {
                let message = "There are as many sticky values as keep_alive_overrides_max and \
                               keep_alive_override_bytes_max allow.";
                Self::new(StatusCode::CONFLICT, "too_many_overrides", message)
            }
            ControlError::TooManyOverridesOfUser => {
                let message = "You have set as many sticky values as \
                               keep_alive_overrides_per_user_max and \
                               keep_alive_override_bytes_per_user_max allow.";
                Self::new(StatusCode::CONFLICT, "too_many_overrides", message)
            }
            ControlError::InvalidSetting(name) => {
                let message = format!("The setting {name} is out of its range.");
                Self::bad_request("invalid_setting", message)
            }
            ControlError::SessionNotLasting => {
                let message = "The session ends with its connection, because its client asked for \
                               that; it cannot be given a session_expiry_interval.";
                Self::new(StatusCode::CONFLICT, "session_not_lasting", message)
            }
            ControlError::TopicOverLimits => {
                Self::invalid_topic("it is longer or deeper than the limits allow")
            }
            ControlError::MessageTooLarge => Self::message_too_large(),
            ControlError::RetainedFull => {
                let message = "There is no room for a further retained message.";
                Self::new(StatusCode::CONFLICT, "retained_full", message)
            }
            ControlError::TooManyDeliveries => {
                let message = "The message matches more sessions than a call can wait for.";
                Self::new(StatusCode::CONFLICT, "too_many_deliveries", message)
            }
            ControlError::NoSubscriber => {
                let message = "No session matches the topic, so no reply can come.";
                Self::new(StatusCode::NOT_FOUND, "no_subscriber", message)
            }
            ControlError::TraceNotFound => Self::trace_not_found(),
            ControlError::TooManyTraces => {
                let message = "As many traces run as limits.traces_max allows, or half as many of \
                               this account; end one.";
                Self::new(StatusCode::CONFLICT, "too_many_traces", message)
            }
            ControlError::NodeUnreachable => Self::node_unreachable(),
            ControlError::NodeDown => Self::node_down(),
            ControlError::ClusterUnavailable => Self::cluster_unavailable(),
            ControlError::InvalidInterval => Self::invalid_interval(1..=u16::MAX),
            ControlError::Unavailable => Self::unavailable(),
            ControlError::Timeout => Self::timeout(),
        }
    }
}

impl ApiError {
    fn trace_not_found() -> Self {
        let message = "No trace of yours has this id.";
        Self::new(StatusCode::NOT_FOUND, "trace_not_found", message)
    }

    /// The trace to start is not valid.
    pub(in crate::http) fn invalid_trace(why: &str) -> Self {
        Self::bad_request("invalid_trace", format!("The trace is not valid: {}.", cut(why)))
    }
}
