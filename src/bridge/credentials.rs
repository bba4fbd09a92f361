//! The credentials of a bridge at the other broker. `Debug` shows no password.

use crate::auth::HiddenText;

/// User name and password of CONNECT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BridgeCredentials {
    pub(super) username: Option<String>,
    pub(super) password: Option<HiddenText>,
}
