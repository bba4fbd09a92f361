//! The stages of a shard, and the number of its connections. The shard ends after its last connection.

use tokio::sync::oneshot;

/// ```text
/// Restoring ──begin──▶ Running ──quiesce──▶ Quiet
///     └──quiesce──▶ Abandoned ──begin────────▲
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum LifeStage {
    /// Not all shards know their sessions yet, so nothing that is due may be done.
    Restoring,
    Running,
    /// The broker shuts down: nothing is read, and no connection is accepted.
    Quiet,
    /// The broker shuts down before all shards know their sessions.
    Abandoned,
}

/// The stage of a shard and its connections.
pub(crate) struct Lifecycle {
    stage: LifeStage,
    connections: usize,
    /// Notified when the last connection has ended.
    all_gone: Option<oneshot::Sender<()>>,
}

impl Lifecycle {
    pub(in crate::shard) const fn new(must_restore: bool) -> Self {
        let stage = if must_restore { LifeStage::Restoring } else { LifeStage::Running };
        Self { stage, connections: 0, all_gone: None }
    }

    /// Notes that all shards know their sessions.
    pub(crate) const fn begin(&mut self) {
        self.stage = match self.stage {
            LifeStage::Restoring | LifeStage::Running => LifeStage::Running,
            LifeStage::Abandoned | LifeStage::Quiet => LifeStage::Quiet,
        };
    }

    /// Stops all reading; no connection is accepted from now on.
    pub(crate) const fn quiesce(&mut self) {
        self.stage = match self.stage {
            LifeStage::Restoring | LifeStage::Abandoned => LifeStage::Abandoned,
            LifeStage::Running | LifeStage::Quiet => LifeStage::Quiet,
        };
    }

    /// Returns whether due work may be done: all shards know their sessions.
    pub(in crate::shard) const fn has_begun(&self) -> bool {
        matches!(self.stage, LifeStage::Running | LifeStage::Quiet)
    }

    /// Returns whether the broker is shutting down.
    pub(crate) const fn is_quiet(&self) -> bool {
        matches!(self.stage, LifeStage::Quiet | LifeStage::Abandoned)
    }

    /// Counts a new connection; returns how many there are.
    pub(in crate::shard) const fn count_connected(&mut self) -> usize {
        self.connections += 1;
        self.connections
    }

    /// Counts a connection that has ended; returns how many are left.
    pub(in crate::shard) const fn count_disconnected(&mut self) -> usize {
        self.connections -= 1;
        self.connections
    }

    /// Returns a channel that reports the end of the last connection; `None` if there is no connection.
    pub(crate) fn all_gone(&mut self) -> Option<oneshot::Receiver<()>> {
        if self.connections == 0 {
            return None;
        }
        let (done, all_gone) = oneshot::channel();
        self.all_gone = Some(done);
        Some(all_gone)
    }

    /// Reports the end of the last connection, once nothing is left to do for it.
    pub(in crate::shard) fn tell_if_all_gone(&mut self) {
        if self.connections == 0
            && let Some(all_gone) = self.all_gone.take()
        {
            let _ = all_gone.send(());
        }
    }
}
