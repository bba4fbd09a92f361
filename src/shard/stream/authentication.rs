//! The exchange of a client that authenticates again, and the source that renews an identity.
//!
//! `presence/authenticate.rs` decides what to tell the exchange and what follows from its answer. Here
//! are the futures that get the answers. The actor of the connection awaits them, so that a wait ends
//! with the connection.

use std::{net::SocketAddr, sync::Arc};

use tokio::time::Instant;

use super::ClientStream;
use crate::{
    auth::{AuthenticationError, BoundedExchange, Identity, PrepareRequest, Step, prepare},
    shard::{
        Core, Departure, Presence, Shard,
        connect::{Proven, TakeStep},
        not_authenticated,
    },
};

/// An exchange with the result of its step.
pub(crate) type StepResult = (BoundedExchange, Result<Step, AuthenticationError>);

/// A renewed identity with the facts on which it rests.
pub(crate) type RenewalResult = (Result<Identity, AuthenticationError>, Proven);

/// The client whose identity may change, for the authorizer.
struct AuthenticatingClient {
    core: Arc<Core>,
    client_id: Arc<str>,
    peer: SocketAddr,
    listener: Arc<str>,
}

impl ClientStream {
    /// Returns the next step of an exchange; `None` if the connection has ended.
    pub(crate) fn begin_step(
        &self,
        shard: &mut Shard,
        step: TakeStep,
    ) -> Option<impl Future<Output = StepResult> + use<>> {
        let TakeStep { mut exchange, data, is_first: _ } = step;
        let client = self.authenticating(shard)?;
        Some(async move {
            let mut step = exchange.step(data.as_deref()).await;
            if let Ok(Step::Done { identity, .. }) = &mut step
                && let Err(error) = client.prepare(identity).await
            {
                step = Err(error);
            }
            (exchange, step)
        })
    }

    /// Handles the result of a step; returns whether the exchange has ended.
    ///
    /// # Errors
    /// Returns how the connection must end.
    pub(crate) fn step_taken(
        &self,
        shard: &mut Shard,
        (exchange, step): StepResult,
    ) -> Result<bool, Departure> {
        match shard.linked(self.slot, self.link) {
            None => Ok(false), // This connection has ended.
            Some(_) => shard.step_taken(self.slot, exchange, step),
        }
    }

    /// Returns how the connection ends because its exchange has taken too long. `None` if it must
    /// wait on: the client may have answered, and the answer has not been read.
    pub(crate) fn exchange_overdue(&self, shard: &mut Shard) -> Option<Departure> {
        if shard.is_held(self.slot) && shard.linked(self.slot, self.link).is_some() {
            return None;
        }
        tracing::debug!("client took too long to authenticate again");
        Some(not_authenticated(AuthenticationError::NotAllowed))
    }

    /// Returns the renewal of the client's identity; `None` if the connection has ended, or the
    /// identity has no source that renews it.
    pub(crate) fn begin_renewal(
        &self,
        shard: &mut Shard,
    ) -> Option<impl Future<Output = RenewalResult> + use<>> {
        let (by, proven) = shard.begin_renewal(self.slot, self.link)?;
        let client = self.authenticating(shard)?;
        let renew = async move {
            let mut identity = by.renew().await?;
            client.prepare(&mut identity).await?;
            Ok(identity)
        };
        Some(async move { (renew.await, proven) })
    }

    /// Handles the result of a renewal.
    ///
    /// # Errors
    /// Returns how the connection must end.
    pub(crate) fn identity_renewed(
        &self,
        shard: &mut Shard,
        (renewed, proven): RenewalResult,
    ) -> Result<(), Departure> {
        match shard.linked(self.slot, self.link) {
            None => Ok(()), // This connection has ended.
            Some(_) => shard.identity_renewed(self.slot, renewed, proven),
        }
    }

    fn authenticating(&self, shard: &mut Shard) -> Option<AuthenticatingClient> {
        let core = Arc::clone(&shard.core);
        let found = shard.linked(self.slot, self.link)?;
        let client_id = Arc::clone(found.session.client_id());
        let Presence { peer, listener, .. } = &found.presence;
        Some(AuthenticatingClient { core, client_id, peer: *peer, listener: Arc::clone(listener) })
    }
}

impl AuthenticatingClient {
    /// Has the authorizer load what it needs for the new identity.
    async fn prepare(&self, identity: &mut Identity) -> Result<(), AuthenticationError> {
        let Self { core, client_id, peer, listener } = self;
        let by = Instant::now() + core.connect_time();
        let (client_id, peer) = (Some(&**client_id), *peer);
        let request = PrepareRequest { identity, client_id, peer, listener };
        let prepared = prepare(&*core.authorizer, request, by).await;
        identity.prepared = prepared.map_err(|error| {
            tracing::debug!(%error, "client cannot authenticate again");
            AuthenticationError::Unavailable
        })?;
        Ok(())
    }
}
