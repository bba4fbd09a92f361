//! Refuses new clients while others are redirected, and admits them again if that fails. Stores
//! whether new clients are refused, so that a restart does not change it.
//!
//! Does not know how clients are redirected.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Broker, Running, asking::CallUnderWay};
use crate::{
    control::{ControlError, Redirection},
    records::{Expected, Put, RecordKey, Records as _, RecordsError},
};

/// The namespace of the record; its key is the name of the node.
const NAMESPACE: &str = "redirect";
/// How long a caller waits for the record to be stored. The redirection itself is in force by then.
const STORE_TIME_MAX: Duration = Duration::from_secs(1);

/// The answer to new clients, apart from an attempt to redirect all clients that has not ended.
#[derive(Default)]
pub(super) struct Drain {
    /// Where new clients are redirected; what the store is to have. Locked while the state in force
    /// is changed, so that both agree.
    settled: Mutex<Option<Arc<Redirection>>>,
    /// The record in the store; `None` if it is not known. Locked while the record is written, so that
    /// the last state is the last record.
    stored: tokio::sync::Mutex<Option<Option<Arc<Redirection>>>>,
}

impl Drain {
    fn settled(&self) -> MutexGuard<'_, Option<Arc<Redirection>>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content of the record, in JSON.
#[derive(Deserialize, Serialize)]
struct DrainContent {
    server_reference: Arc<str>,
    permanent: bool,
}

impl Broker {
    /// Refuses new clients again if they were refused when the broker ended.
    pub(super) async fn restore_drain(&self) {
        let core = &self.running.core;
        let Some(name) = self.name_of_drain() else { return };
        let Ok(Some(record)) = core.records.get(&name).await else { return };
        let content = serde_json::from_slice::<DrainContent>(&record.value).ok();
        let to = content.and_then(|content| {
            Redirection::new(&content.server_reference, content.permanent).ok()
        });
        let Some(to) = to else {
            return tracing::warn!("the stored redirection of new clients cannot be read");
        };
        // A warning, because an operator may have forgotten it and wonder why no client connects.
        tracing::warn!(
            to = %to.server_reference(),
            "new clients are redirected, as before the restart; DELETE /api/v1/redirect ends this"
        );
        self.settle_drain(Some(to));
    }

    /// Refuses new clients from now on, or no longer.
    pub(super) fn settle_drain(&self, to: Option<Redirection>) {
        let to = to.map(Arc::new);
        let mut settled = self.running.drain.settled();
        settled.clone_from(&to);
        // Under the lock, so that the state in force is the one that is stored in the end.
        self.running.core.draining.store(to);
    }

    /// Stores whether new clients are refused. If that fails, or takes long, the log says so. It is
    /// stored even if the caller stops waiting.
    pub(super) async fn store_drain(&self) {
        let broker = self.clone();
        let mut storing = tokio::spawn(async move { broker.store_drain_now().await });
        let why = match tokio::time::timeout(STORE_TIME_MAX, &mut storing).await {
            // It fails only with the runtime.
            Ok(Ok(Ok(())) | Err(_)) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Err(_) => "the store has not answered yet".to_owned(),
        };
        tracing::warn!(why, "the change of the redirection may be lost at a restart");
    }

    async fn store_drain_now(&self) -> Result<(), RecordsError> {
        let Some(name) = self.name_of_drain() else { return Ok(()) };
        let Running { core, drain, .. } = &*self.running;
        // Read after the lock is taken: a call that waited stores the newest state, not its own.
        let mut stored = drain.stored.lock().await;
        let to = drain.settled().clone();
        let is_same = stored.as_ref().is_some_and(|stored| match (stored, &to) {
            (None, None) => true,
            (Some(stored), Some(to)) => Arc::ptr_eq(stored, to),
            (None, Some(_)) | (Some(_), None) => false,
        });
        if is_same {
            return Ok(()); // Another call has stored it while this one waited.
        }
        // Unknown while the write is under way: if it fails, the next call must not skip its own.
        *stored = None;
        match &to {
            None => core.records.remove(name, Expected::Any).await?,
            Some(to) => {
                let (server_reference, permanent) =
                    (to.server_reference().clone(), to.is_permanent());
                let content = serde_json::to_vec(&DrainContent { server_reference, permanent });
                let value = content.map_err(|_| RecordsError::TooLong)?;
                core.records.put(Put::new(name, value)).await?;
            }
        }
        *stored = Some(to);
        Ok(())
    }

    fn name_of_drain(&self) -> Option<RecordKey> {
        RecordKey::new(NAMESPACE, &self.running.core.node)
    }
}

/// Refuses new clients until it is dropped, unless [`Draining::stay`] makes that last.
pub(super) struct Draining<'a> {
    running: &'a Running,
    to: Arc<Redirection>,
    /// Only one exists at a time, so that the state in force is settled, or is that of this attempt.
    _alone: CallUnderWay<'a>,
}

impl<'a> Draining<'a> {
    /// Refuses clients from now on.
    ///
    /// # Errors
    /// An earlier attempt has not ended.
    pub(super) fn begin(running: &'a Running, to: &Redirection) -> Result<Self, ControlError> {
        let alone = CallUnderWay::new(&running.under_way.evacuations, 1)?;
        let to = Arc::new(to.clone());
        let _settled = running.drain.settled();
        running.core.draining.store(Some(to.clone()));
        Ok(Self { running, to, _alone: alone })
    }

    /// Keeps refusing clients after this is dropped, unless [`Broker::drain`] was called meanwhile,
    /// which counts.
    pub(super) fn stay(self) {
        let mut settled = self.running.drain.settled();
        if self.is_in_force() {
            *settled = Some(self.to.clone());
        }
    }

    fn is_in_force(&self) -> bool {
        let in_force = self.running.core.draining.load();
        in_force.as_ref().is_some_and(|to| Arc::ptr_eq(to, &self.to))
    }
}

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        let settled = self.running.drain.settled();
        if self.is_in_force() {
            self.running.core.draining.store(settled.clone());
        }
    }
}
