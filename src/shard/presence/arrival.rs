//! A connection has arrived at its home shard: it gets a session (`arrive.rs`), or a refusal.

use crate::{
    mqtt::Timestamp,
    shard::{Shard, connect::AcceptedConnect, presence::arrive::ReadySession, refusal::NoSession},
    transport::Transport,
};

impl Shard {
    /// Finds or creates the session of an accepted CONNECT.
    ///
    /// # Errors
    /// Returns why there can be no session; then nothing has changed.
    pub(crate) fn admit(
        &mut self,
        transport: &dyn Transport,
        connect: &mut AcceptedConnect,
        now: Timestamp,
    ) -> Result<ReadySession, NoSession> {
        if self.lifecycle.is_quiet() {
            return Err(NoSession::ShuttingDown);
        }
        // The certificate may have been revoked since the handshake.
        transport.verify_certificate().map_err(|_| NoSession::NotAuthorized)?;
        self.prepare(connect, now)
    }

    /// Counts a CONNECT that gets no session, and returns its CONNACK.
    pub(crate) fn refuse(&self, connect: &AcceptedConnect, refusal: &NoSession) -> Vec<u8> {
        self.metrics.connects_refused.increment(refusal.counted_as());
        self.tell_no_session(connect, refusal);
        refusal.conn_ack(connect.version, connect.maximum_packet_size)
    }
}
