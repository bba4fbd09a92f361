//! Claims the client identifier of a newcomer in the cluster, before its connection moves to its home shard.
//!
//! The last step of the handshake that may wait, for every transport. Meanwhile the stream is read, so that the
//! claim is given up when the client closes it. Does not know how nodes agree.

use std::{future::pending, sync::Arc};

use super::{
    newcomer::{Newcomer, READ_BYTES, read_more},
    refusal::Refusal,
};
use crate::{
    metrics::ConnectRefusal,
    mqtt::{ProtocolVersion, ReasonCode},
    shard::ownership::{NotOwned, OwnedClient, Ownership},
};

impl Newcomer<'_> {
    /// Waits until this node owns the client identifier; `None` for a broker alone.
    pub(super) async fn claim(
        &mut self,
        client_id: &Arc<str>,
        version: ProtocolVersion,
    ) -> Result<Option<OwnedClient>, Refusal> {
        let Some(ownership) = self.core.ownership() else { return Ok(None) };
        // Boxed, so that the future of a broker alone stays small.
        Box::pin(self.claim_at(ownership, client_id, version)).await.map(Some)
    }

    async fn claim_at(
        &mut self,
        ownership: &Arc<dyn Ownership>,
        client_id: &Arc<str>,
        version: ProtocolVersion,
    ) -> Result<OwnedClient, Refusal> {
        let claim = ownership.claim(client_id);
        let Self { transport, read_ahead, room, admitted, .. } = self;
        // A client that gives up while the claim waits must free its place for others.
        let closed = async {
            // Packets before CONNACK are allowed; those beyond the first bytes wait in the socket.
            while read_ahead.len() < READ_BYTES && room.has(read_ahead.len() + READ_BYTES) {
                if let Err(closed) = read_more(&mut **transport, read_ahead).await {
                    return closed;
                }
            }
            // With a full buffer nothing more is read, and the claim alone decides.
            pending().await
        };
        let outcome = async {
            tokio::select! {
                biased;
                outcome = claim => outcome.map_err(|why| refusal_of(version, why)),
                refusal = closed => Err(refusal),
            }
        };
        admitted.ask(outcome).await
    }
}

const fn refusal_of(version: ProtocolVersion, why: NotOwned) -> Refusal {
    match why {
        NotOwned::Unavailable => Refusal::with(
            version,
            ReasonCode::ServerUnavailable,
            ConnectRefusal::ClusterUnavailable,
        ),
        // As for a CONNECT that was overtaken on this node.
        NotOwned::Overtaken => {
            Refusal::with(version, ReasonCode::ServerBusy, ConnectRefusal::Overtaken)
                .because("a later connection with this client identifier has the session")
        }
    }
}
