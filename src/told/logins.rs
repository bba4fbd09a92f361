//! The line of the log about a lock-out, when it begins.

use std::net::IpAddr;

use super::{CLIENTS, cut};

/// Logs that attempts are not looked at for `secs` because of failures: those of a user from an address,
/// or all from an address, of which `user` was the last. It is the only line at `warn` about a lock-out;
/// the attempts that it refuses are counted in the metrics.
pub(crate) fn locked_out(
    (address, listener): (IpAddr, &str),
    over: &str,
    user: &str,
    (secs, is_whole_address): (u32, bool),
) {
    let user = &*cut(user);
    let what = if is_whole_address { "address" } else { "user at this address" };
    tracing::warn!(
        target: CLIENTS, parent: None,
        %address, listener, over, what, secs, user,
        "locked out"
    );
}
