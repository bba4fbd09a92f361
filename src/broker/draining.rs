//! Refuses new clients while others are redirected, and admits them again if that fails. Stores
//! whether new clients are refused, so that a restart does not change it.
//!
//! Does not know how clients are redirected.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Broker, Running, asking::Asking};
use crate::{
    control::{ControlError, Redirection},
    records::{Expected, Put, RecordKey, Records as _, RecordsError},
};

/// The namespace of the record; its key is the name of the node.
const NAMESPACE: &str = "redirect";
/// How long a caller waits for the record to be stored. The redirection itself is in force by then.
const STORE_TIME_MAX: Duration = Duration::from_secs(1);

/// The content of the record, in JSON.
#[derive(Deserialize, Serialize)]
struct Content {
    server_reference: Arc<str>,
    permanent: bool,
}

impl Broker {
    /// Refuses new clients again if they were refused when the broker ended.
    pub(super) async fn restore_drain(&self) {
        let core = &self.running.core;
        let Some(name) = self.name_of_drain() else { return };
        let Ok(Some(record)) = core.records.get(&name).await else { return };
        let content = serde_json::from_slice::<Content>(&record.value).ok();
        let to = content.and_then(|content| {
            Redirection::new(&content.server_reference, content.permanent).ok()
        });
        let Some(to) = to else {
            return tracing::warn!("the stored redirection of new clients cannot be read");
        };
        tracing::warn!(
            to = %to.server_reference(),
            "new clients are redirected, as before the restart; DELETE /api/v1/redirect ends this"
        );
        core.draining.store(Some(Arc::new(to)));
    }

    /// Stores whether new clients are refused now. If that fails, the log says so. It is stored even
    /// if the caller stops waiting.
    pub(super) async fn store_drain(&self) {
        let broker = self.clone();
        let storing = tokio::spawn(async move { broker.store_drain_now().await });
        let _ = storing.await; // It fails only with the runtime.
    }

    async fn store_drain_now(&self) {
        let Some(name) = self.name_of_drain() else { return };
        let stored = async {
            let _alone = self.running.under_way.storing_drain.lock().await;
            let core = &self.running.core;
            let to = core.draining.load_full();
            match to {
                None => core.records.remove(name, Expected::Any).await,
                Some(to) => {
                    let (server_reference, permanent) =
                        (to.server_reference().clone(), to.is_permanent());
                    let content = serde_json::to_vec(&Content { server_reference, permanent });
                    let value = content.map_err(|_| RecordsError::TooLong)?.into();
                    let expected = Expected::Any;
                    core.records
                        .put(Put { name, value, expected, expires_at: None })
                        .await
                        .map(drop)
                }
            }
        };
        let why = match tokio::time::timeout(STORE_TIME_MAX, stored).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the store has not answered yet".to_owned(),
        };
        tracing::warn!(why, "the change of the redirection may be lost at a restart");
    }

    fn name_of_drain(&self) -> Option<RecordKey> {
        RecordKey::new(NAMESPACE, &self.running.core.node)
    }
}

/// Refuses new clients until it is dropped, unless [`Draining::stay`] makes that last.
pub(super) struct Draining<'a> {
    running: &'a Running,
    to: Arc<Redirection>,
    before: Option<Arc<Redirection>>,
    stays: bool,
    /// Only one exists at a time, so that `before` is never the target of another attempt.
    _alone: Asking<'a>,
}

impl<'a> Draining<'a> {
    /// Refuses clients from now on.
    ///
    /// # Errors
    /// An earlier attempt has not ended.
    pub(super) fn begin(running: &'a Running, to: &Redirection) -> Result<Self, ControlError> {
        let alone = Asking::new(&running.under_way.evacuations, 1)?;
        let to = Arc::new(to.clone());
        let before = running.core.draining.swap(Some(to.clone()));
        Ok(Self { running, to, before, stays: false, _alone: alone })
    }

    /// Keeps refusing clients after this is dropped.
    pub(super) fn stay(mut self) {
        self.stays = true;
    }
}

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        if !self.stays {
            // Unless `drain` was called with another target meanwhile.
            let draining = &self.running.core.draining;
            draining.compare_and_swap(&Some(self.to.clone()), self.before.take());
        }
    }
}
