//! The end of a connection whose client may not have read its answer yet.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::newcomer::READ_BYTES;
use crate::transport::Transport;

/// Maximum time to wait until a refused client closes its side.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// Reads and drops what a refused client still sends, for a limited time or until it closes its
/// side. Closing with unread input would reset the connection, and the client could lose the
/// answer. [MQTT-3.1.4-6]
pub(super) async fn linger(transport: &mut dyn Transport) {
    let _ = tokio::time::timeout(LINGER_TIME_MAX, drop_rest(transport)).await;
}

async fn drop_rest(transport: &mut dyn Transport) {
    let mut rest = Vec::with_capacity(READ_BYTES);
    while transport.read_buf(&mut rest).await.is_ok_and(|read| read > 0) {
        rest.clear();
    }
}
