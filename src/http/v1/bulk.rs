//! What calls about several clients have in common.

use serde_json::Value;

use super::super::{ApiError, parameters::check_client_id};

/// Maximum items of one call.
pub(super) const ITEMS_MAX: usize = 10_000;
/// The number of items that one message to the broker has at most, so that no turn of a shard is
/// long.
pub(super) const PORTION: usize = 500;

/// Checks the number of items of a call.
pub(super) fn check_count(items: usize) -> Result<(), ApiError> {
    match items {
        0..=ITEMS_MAX => Ok(()),
        _ => Err(ApiError::too_many_items(ITEMS_MAX)),
    }
}

/// Returns the Client Identifier that an item gives.
pub(super) fn client_id_of(item: &Value) -> Result<&str, ApiError> {
    let Value::String(client_id) = item else {
        return Err(ApiError::invalid_body("a client id is a text"));
    };
    check_client_id(client_id)?;
    Ok(client_id)
}
