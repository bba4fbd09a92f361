//! The thread of the driver: one life after the other, each for an incarnation of the node.

use std::{io, sync::Arc, thread};

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::{
    OwnerCommand, OwnerParts, OwnersOfNode, held::HeldTable, life::OwnerLife, moved::SessionMoves,
};
use crate::{
    clock::Clock,
    cluster::{
        names::Incarnation,
        node::{ActingLease, PreparedLife},
        owner_record::ConnectRefusal,
    },
    mqtt::Timestamp,
};

/// The driver before it is started.
pub struct OwnerDriver {
    pub(super) lease: ActingLease,
    pub(super) held: Arc<HeldTable>,
    pub(super) commands: mpsc::UnboundedSender<OwnerCommand>,
    commanded: mpsc::UnboundedReceiver<OwnerCommand>,
    prepared: PreparedLife,
}

impl std::fmt::Debug for OwnerDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnerDriver").finish_non_exhaustive()
    }
}

impl OwnerDriver {
    pub(super) fn new(
        lease: ActingLease,
        held: Arc<HeldTable>,
        (commands, commanded): (
            mpsc::UnboundedSender<OwnerCommand>,
            mpsc::UnboundedReceiver<OwnerCommand>,
        ),
    ) -> Self {
        Self { lease, held, commands, commanded, prepared: PreparedLife::default() }
    }

    /// Returns the incarnation for which the sessions of the broker are prepared.
    pub(in crate::cluster) fn prepared(&self) -> PreparedLife {
        Arc::clone(&self.prepared)
    }

    /// Starts the driver. It ends when the returned value is dropped.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(self, of: OwnersOfNode) -> io::Result<oneshot::Sender<()>> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = self.live(of) => {}
                    _ = ended => {}
                }
            });
        };
        thread::Builder::new().name("cluster-owners".to_owned()).spawn(run)?;
        Ok(end)
    }

    async fn live(self, of: OwnersOfNode) {
        let Self { lease, held, commands, mut commanded, prepared } = self;
        let clock = Clock::start_after(Timestamp(0));
        let mut parts = OwnerParts { of, lease, held, commands, clock };
        let mut last = Incarnation(0);
        let mut moves = SessionMoves::default();
        while let Some(incarnation) = parts.next_life(last, &mut commanded).await {
            last = incarnation;
            let life = OwnerLife::new(&parts, incarnation, moves);
            let mut status = parts.of.status.clone();
            moves = life.run(&mut status, &mut commanded, &prepared).await;
            warn!(
                node = %parts.of.node,
                incarnation = incarnation.0,
                "this node serves no clients until it has joined again"
            );
            parts.held.give_up_all();
            parts.of.sessions.fence().await;
        }
    }
}

impl OwnerParts {
    /// Waits for an incarnation after the last one, and refuses CONNECTs until then. `None`: the node has ended.
    async fn next_life(
        &mut self,
        last: Incarnation,
        commanded: &mut mpsc::UnboundedReceiver<OwnerCommand>,
    ) -> Option<Incarnation> {
        loop {
            let now = self.of.status.borrow_and_update().incarnation;
            if now > last && !self.lease.has_ended(now) {
                return Some(now);
            }
            tokio::select! {
                changed = self.of.status.changed() => changed.ok()?,
                command = commanded.recv() => match command? {
                    OwnerCommand::Connect(waiting) => waiting.refuse(ConnectRefusal::Unavailable),
                    // Their life has ended.
                    OwnerCommand::Gone(..)
                    | OwnerCommand::Ended(_)
                    | OwnerCommand::Left(..) // The offer has noted it too.
                    | OwnerCommand::VersionsSpent(_) => {}
                },
            }
        }
    }
}
