//! Lets an authorizer load data about an identity before it decides about that identity.
//!
//! Does not know the data. Called by the handshake, by a shard's walk along its sessions, and by REST.

use std::{error::Error, net::SocketAddr, pin::Pin, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::{Authorizer, Identity, Prepared};

/// An identity that the authorizer will be asked about.
#[derive(Clone, Copy, Debug)]
pub struct PrepareRequest<'a> {
    /// The identity. If it was prepared before, it still has the former result.
    pub identity: &'a Identity,
    /// The client identifier; `None` for REST callers.
    pub client_id: Option<&'a str>,
    /// Address from which the connection comes.
    pub peer: SocketAddr,
    /// URL of the listener that accepted it; empty if unknown.
    pub listener: &'a str,
}

/// The work of [`Authorizer::prepare`].
pub type Preparation<'a> =
    Pin<Box<dyn Future<Output = Result<Prepared, PrepareError>> + Send + 'a>>;

/// Why nothing could be loaded for an identity.
#[derive(Debug, thiserror::Error)]
#[error("permissions cannot be loaded: {0}")]
pub struct PrepareError(#[source] Box<dyn Error + Send + Sync>);

impl PrepareError {
    /// Creates the error from its cause, which the log shows.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// Lets the authorizer prepare for an identity, until `by` at most.
pub(crate) async fn prepare(
    authorizer: &dyn Authorizer,
    request: PrepareRequest<'_>,
    by: Instant,
) -> Result<Prepared, PrepareError> {
    match authorizer.prepare(request) {
        None => Ok(request.identity.prepared.clone()),
        Some(preparation) => in_time(preparation, by).await,
    }
}

/// Waits for a preparation, until `by` at most.
pub(crate) async fn in_time(
    preparation: Preparation<'_>,
    by: Instant,
) -> Result<Prepared, PrepareError> {
    let result = timeout_at(by, preparation).await;
    result.unwrap_or_else(|_| Err(PrepareError::new("no answer in time")))
}

/// Number of preparations of a walk that are under way at the same time.
const AT_THE_SAME_TIME_MAX: usize = 64;

/// The time that a walk along sessions waits for the authorizer: for each session, and in all since the last
/// success. After that, the walk takes the source for unavailable, and the remaining sessions fail immediately.
#[derive(Debug)]
pub(crate) struct Patience {
    time: Duration,
    left: Duration,
}

impl Patience {
    pub(crate) const fn new(time: Duration) -> Self {
        Self { time, left: time }
    }
}

/// Lets the authorizer prepare for several identities. Returns the results, with the positions of their
/// identities; an identity for which nothing is loaded has none.
pub(crate) async fn prepare_each(
    authorizer: &dyn Authorizer,
    requests: impl Iterator<Item = PrepareRequest<'_>>,
    patience: &mut Patience,
) -> Vec<(usize, Result<Prepared, PrepareError>)> {
    let preparations = requests.enumerate().filter_map(|(position, request)| {
        let preparation = authorizer.prepare(request)?;
        Some((position, preparation))
    });
    let mut preparations = preparations.collect::<Vec<_>>().into_iter().peekable();
    let mut results = Vec::with_capacity(preparations.len());
    while preparations.peek().is_some() {
        let (begun, before) = (Instant::now(), results.len());
        let by = begun + patience.left;
        // In portions, so that a walk along many sessions does not flood what the authorizer asks.
        let some = preparations.by_ref().take(AT_THE_SAME_TIME_MAX);
        let some =
            some.map(|(at, preparation)| async move { (at, in_time(preparation, by).await) });
        results.extend(join_all(some).await);
        // Any success renews the patience; a service that
        // is down costs it once, not once for each portion.
        patience.left = match results[before..].iter().any(|(_, result)| result.is_ok()) {
            true => patience.time,
            false => patience.left.saturating_sub(begun.elapsed()),
        };
    }
    results
}
