//! The errors of the calls about bridges.

use actix_web::http::StatusCode;

use super::ApiError;
use crate::control::BridgeControlError;

impl ApiError {
    /// There is no such bridge.
    pub(in crate::http) fn bridge_not_found() -> Self {
        let message = "There is no bridge of this name in the configuration.";
        Self::new(StatusCode::NOT_FOUND, "bridge_not_found", message)
    }

    /// The bridge is stopped.
    pub(in crate::http) fn bridge_disabled() -> Self {
        let message = "The bridge is stopped. Start it with PATCH and \"enabled\": true.";
        Self::new(StatusCode::CONFLICT, "bridge_disabled", message)
    }
}

impl From<BridgeControlError> for ApiError {
    fn from(error: BridgeControlError) -> Self {
        match error {
            BridgeControlError::NotFound => Self::bridge_not_found(),
            BridgeControlError::Stopped => Self::bridge_disabled(),
            BridgeControlError::Broker(error) => error.into(),
        }
    }
}
